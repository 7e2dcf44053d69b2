"""From a wrong line to a finding: what the mistake is called, and what to write instead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepgrad.check.backward.explaining import Known, error_of
from stepgrad.check.backward.facts import Fact
from stepgrad.check.backward.judging import OTHER, RIGHT, Blame, Judge
from stepgrad.check.backward.matching import UNKNOWN, Match, match
from stepgrad.check.backward.repairs import Repair, repairs
from stepgrad.check.backward.report import Finding
from stepgrad.check.backward.running import Key, Run, Seen
from stepgrad.check.backward.scopes import Scope, scope_of
from stepgrad.check.backward.sightings import clue_of, position_of, short
from stepgrad.check.backward.sources import Edit, Site, Source, source_of
from stepgrad.tensor import Array

SECONDS = 0.4
"""How long to look for a repair of one line."""


@dataclass(frozen=True)
class Diagnosis:
    """A finding, and how to go on looking for more.

    Attributes:
        finding: the finding.
        edits: what mends it, where no value can be put in its place.
    """

    finding: Finding
    edits: tuple[Edit, ...] = ()


def diagnose(judge: Judge, blame: Blame, facts: Sequence[Fact] = ()) -> Diagnosis:
    """Names the mistake of a line, and writes the line as it should be.

    Args:
        judge: with right values in place for the lines that were blamed before.
        blame: the line.
        facts: what was found by comparing runs.
    """
    runs = [judge.run(i, scope_at=blame.key) for i in range(len(judge.spots))]
    key, repair = repaired_line(judge, blame, runs) or (blame.key, None)
    finding = _told(judge, blame, runs, key, repair, facts)
    return Diagnosis(finding, () if repair is None or blame.seen[0] else repair.edits)


def _told(
    judge: Judge, blame: Blame, runs: Sequence[Run], key: Key, repair: Repair | None, facts: Sequence[Fact]
) -> Finding:
    """The finding for a wrong value, and the line that a repair mends."""
    site = judge.runner.sites[key]
    clue = clue_of(judge, blame, runs)
    clue = replace(clue, line=site.line, code=site.code)
    matches = match(clue)
    names = [fact.mistake for fact in facts if fact.key in (key, blame.key)]
    names += [m.mistake for m in matches]
    if repair and repair.mistake:
        names = [n for n in names if n != UNKNOWN]
        # The values are those of another line than the one that is mended.
        names.insert(0 if key != blame.key else len(names), repair.mistake)
    names = list(dict.fromkeys(names))
    first = next((m for m in matches if m.mistake == names[0]), matches[0])
    if names[0] in _OF_THE_CACHE:  # the first line that has a value of the cache under the name of another
        read = (s.key for s, c in zip(runs[0].seen, judge.classes(runs[0], 0), strict=True) if c == OTHER)
        key, repair = next(read, key), None
        site = judge.runner.sites[key]
    return Finding(
        gradient=short(blame.name if key == blame.key or not site.names else site.names[0]),
        line=site.line,
        code=site.code,
        mistake=names[0],
        candidates=tuple(names),
        fix=fixed(site, repair, source_at(judge, key)) or first.fix,
        evidence=_evidence(blame, first),
        text=first.detail if clue.sightings else _WITHOUT_VALUES,
        file=site.file,
    )


_OF_THE_CACHE = ("stale-cache", "forward-disagrees-with-cache")

_WITHOUT_VALUES = "with this line as it is, the gradients are wrong in the end"


def _evidence(blame: Blame, first: Match) -> dict[str, Any]:
    if not blame.seen[0]:
        return dict(first.evidence)
    wrong, right = blame.seen[0][0].value, blame.right[0][0]
    found: dict[str, Any] = {"shape": wrong.shape, "right shape": right.shape, **first.evidence}
    if wrong.shape == right.shape:
        found["relative error"] = error_of(wrong, right)
    return found


def repaired_line(judge: Judge, blame: Blame, runs: Sequence[Run]) -> tuple[Key, Repair] | None:
    """The line whose repair makes right what is wrong: the one that is blamed, or one that it depends on."""
    deadline = min(judge.deadline, time.thread_time() + SECONDS)
    before, after = _others_to_blame(judge, blame, runs[0])
    best: tuple[Key, Repair] | None = None
    for key in [*before, blame.key, *after]:
        if best is not None and not _same_name(judge, key, blame):
            continue
        found = first_repair(judge, key, blame, deadline)
        if found is not None and found.growth(source_at(judge, key)) <= 0:
            return key, found  # something too much is left out
        best = best or (None if found is None else (key, found))
    return best


def _same_name(judge: Judge, key: Key, blame: Blame) -> bool:
    """Whether a line computes an earlier value of the variable that is wrong."""
    names = judge.runner.sites[key].names
    return bool(names) and names[0].partition("[")[0] == blame.name.partition("[")[0]


def _others_to_blame(judge: Judge, blame: Blame, run: Run) -> tuple[list[Key], list[Key]]:
    """Lines on which the same gradients depend: those before whose values look wrong, and the others."""
    first = blame.seen[0][0] if blame.seen[0] else None
    position = position_of(run, first)
    influence = judge.influence(blame.key, run)
    classes = judge.classes(run, 0)
    suspicious: dict[Key, None] = {}
    others: dict[Key, None] = {}
    pairs = list(zip(run.seen, classes, strict=True))
    for seen, kind in [*reversed(pairs[:position]), *pairs[position:]]:
        if seen.key == blame.key or seen.key in suspicious or seen.key in others:
            continue
        named = judge.indices[0].named(seen.name)
        if named and kind == RIGHT and (first is None or seen.name != first.name):
            continue
        if judge.influence(seen.key, run) != influence:
            continue
        before = seen in run.seen[:position]
        (suspicious if before and kind != RIGHT and not named else others)[seen.key] = None
    return list(suspicious), list(others)


def by_repair(judge: Judge, facts: Sequence[Fact], seconds: float) -> Diagnosis | None:
    """Where no value can be put in the place of a wrong one: any line of which a repair makes everything right."""
    deadline = min(judge.deadline, time.thread_time() + seconds)
    runs = [judge.run(i) for i in range(len(judge.spots))]
    wrong = judge.wrong(runs[0], 0)
    classes = judge.classes(runs[0], 0)
    doubtful = [s.key for s, c in zip(runs[0].seen, classes, strict=True) if c != RIGHT]
    raising = judge.at_error(runs[0])
    order = dict.fromkeys(
        [*judge.first, *_copies(runs[0]), *doubtful, *raising, *(s.key for s in reversed(runs[0].seen))]
    )
    sound = {
        s.key
        for s, c in zip(runs[0].seen, classes, strict=True)
        if c == RIGHT and not s.whole and s.value.any() and judge.indices[0].named(s.name)
    }
    spans = Counter(judge.runner.sites[key].span for key in order)
    zeros = {s.key for s in runs[0].seen if not s.value.any()}
    single = {s.key for s in runs[0].seen if s.value.ndim == 0}
    # What is added to or stored into an array can't be tried by itself, and takes longer.
    late = [(judge.runner.sites[k].kind in ("update", "store")) + 2 * (k in single) for k in order]
    ranked: list[tuple[int, Key]] = []
    for key, rank in zip(order, late, strict=True):
        if key in sound or key in zeros - single - judge.first or spans[judge.runner.sites[key].span] > 1:
            continue
        influence = judge.influence(key, runs[0])
        if runs[0].error is not None or influence == wrong:
            ranked.append((rank, key))
        elif influence > wrong:  # where two of its runs cancel, say
            ranked.append((rank + 4, key))
    best: tuple[Key, Repair] | None = None
    for _, key in sorted(ranked, key=lambda pair: pair[0]):
        found = first_repair(judge, key, None, min(deadline, time.thread_time() + seconds / 2))
        if found is None:
            continue
        if found.growth(source_at(judge, key)) <= 0:  # something too much is left out
            best = key, found
            break
        if best is None:  # it makes up for something, perhaps for what another line has too much
            best, deadline = (key, found), min(deadline, time.thread_time() + seconds / 3)
    if best is None:
        return None
    key, repair = best
    blame = _shown_by(judge, key, repair, runs)
    runs = [judge.run(i, scope_at=key) for i in range(len(judge.spots))]
    return Diagnosis(_told(judge, blame, runs, key, repair, facts), repair.edits)


def _copies(run: Run) -> list[Key]:
    """Lines that only pass on what another has computed: something may be missing there."""
    found = []
    known: set[tuple[tuple[int, ...], bytes]] = set()
    for seen in run.seen:
        content = seen.value.shape, seen.value.tobytes()
        if content in known and seen.value.size > 1 and seen.value.dtype.kind == "f" and not seen.whole:
            found.append(seen.key)
        known.add(content)
    return list(dict.fromkeys(found))


def _shown_by(judge: Judge, key: Key, repair: Repair, runs: Sequence[Run]) -> Blame:
    """The blame of a line that a repair mends: its right values are those of the mended line."""
    site = judge.runner.sites[key]
    seen: list[tuple[Seen, ...]] = []
    right: list[tuple[Array, ...]] = []
    targets: list[tuple[Known | None, ...]] = []
    for number, run in enumerate(runs):
        mended = {(s.key, s.count): s.value for s in judge.run(number, edits=repair.edits).seen}
        pairs = [(s, mended[s.key, s.count]) for s in run.seen if s.key == key and (s.key, s.count) in mended]
        pairs = [(s, v) for s, v in pairs if error_of(s.value, v) > judge.tolerance]
        seen.append(tuple(s for s, _ in pairs))
        right.append(tuple(v for _, v in pairs))
        found = [judge.indices[number].explain(v) for _, v in pairs]
        targets.append(tuple(e[0].known if e and e[0].known.kind == "gradient" else None for e in found))
    name = seen[0][0].name if seen[0] else site.names[0] if site.names else ""
    return Blame(key, site, name, tuple(seen), tuple(right), tuple(targets), True, True)


def first_repair(judge: Judge, key: Key, blame: Blame | None, deadline: float) -> Repair | None:
    """The first change of a line after which what was wrong is right at every point."""
    source = source_at(judge, key)
    if source is None:
        return None
    site = judge.runner.sites[key]
    run = judge.run(0, scope_at=key)
    scope = scope_at(judge, key, run)
    trial = _Trial(judge, key, source, run, blame)
    for repair in repairs(site, source, scope):
        if time.thread_time() > deadline:
            return None
        if trial.may_mend(repair) and all(_mended(judge, i, repair.edits, blame) for i in range(len(judge.spots))):
            return repair
    return None


class _Trial:
    """Computes changed lines by themselves, with the variables that they had, so that few have to be run in place."""

    def __init__(self, judge: Judge, key: Key, source: Source, run: Run, blame: Blame | None) -> None:
        self.judge, self.site, self.source = judge, judge.runner.sites[key], source
        self.names: dict[str, Any] = {**_globals(judge, key), **run.scope}
        self.wanted: Array | None = None
        self.elsewhere = blame is not None and blame.key != key
        first = next((s for s in run.seen if s.key == key), None)
        self.now = None if first is None else first.value
        if blame is not None and blame.key == key and blame.seen[0] and blame.seen[0][0].count == 0:
            self.wanted = blame.right[0][0]
        self.usable = bool(run.scope) and self.site.kind in ("assign", "entry", "return", "call", "update")
        self.usable &= self.now is not None and self.now.ndim > 0
        self.before: Any = None
        if self.usable and self.site.kind == "update":
            self.before = self._before_update()
            self.usable = self.before is not None

    def _before_update(self) -> Any:
        """What the variable of `x += …` held before."""
        statement = self.source.text(self.site.span)
        if "+=" not in statement or self.now is None:
            return None
        try:
            with np.errstate(all="ignore"):
                added = eval(compile(f"({self.source.text(self.site.value)}\n)", "<line>", "eval"), self.names)
            return self.now - added
        except Exception:  # it does not stand alone
            return None

    def may_mend(self, repair: Repair) -> bool:
        """Whether the changed line gives the right value, or at least one that a right backward pass has."""
        begin, end = self.site.value[:2], self.site.value[2:]
        if not self.usable or any(e.span[:2] < begin or e.span[2:] > end for e in repair.edits):
            return True
        text = spliced(self.source.text(self.site.value), self.site.value, repair.edits)
        try:
            with np.errstate(all="ignore"):
                value = eval(compile(f"({text}\n)", "<repair>", "eval"), self.names)  # the user's own line, changed
        except Exception:  # it does not fit
            return False
        value = self.judge.spots[0].subject.as_array(value)
        if value is None:
            return True
        if self.before is not None:
            if np.shape(self.before) != value.shape:
                return False
            value = np.asarray(self.before + value)
        if self.wanted is not None:
            return error_of(value, self.wanted) <= self.judge.tolerance
        if self.elsewhere and repair.growth(self.source) <= 0:
            return True  # what a line in between has to give need not be anything known
        return value.dtype.kind != "f" or bool(self.judge.indices[0].explain(value))


def _globals(judge: Judge, key: Key) -> dict[str, Any]:
    for w in judge.runner.plain:
        if (w.function.__qualname__, w.function.__code__.co_firstlineno) == key[:2]:
            return w.function.__globals__
    return {}


def spliced(text: str, span: tuple[int, int, int, int], edits: Sequence[Edit]) -> str:
    """The text of a part of the source, with splices in it."""
    lines = text.split("\n")
    for edit in sorted(edits, key=lambda e: e.span, reverse=True):
        line, column, end_line, end_column = edit.span
        top, bottom = line - span[0], end_line - span[0]
        left = lines[top].encode()[: column - (span[1] if top == 0 else 0)].decode()
        right = lines[bottom].encode()[end_column - (span[1] if bottom == 0 else 0) :].decode()
        lines[top : bottom + 1] = [left + edit.text + right]
    return "\n".join(lines)


def _mended(judge: Judge, number: int, edits: tuple[Edit, ...], blame: Blame | None) -> bool:
    run = judge.run(number, edits=edits)
    if run.error is not None:
        return False
    if blame is None or blame.enough or not blame.seen[number]:
        return not judge.wrong(run, number)
    if blame.mends:
        before = judge.wrong(judge.run(number), number)
        return judge.wrong(run, number) <= before - judge.influence(blame.key, judge.run(0))
    values = {(s.key, s.count): s.value for s in run.seen}
    return bool(blame.seen[number]) and all(
        (s.key, s.count) in values and error_of(values[s.key, s.count], right) < judge.tolerance
        for s, right in zip(blame.seen[number], blame.right[number], strict=True)
    )


def scope_at(judge: Judge, key: Key, run: Run) -> Scope:
    """What the line at a site could read."""
    functions = sorted({w.function.__name__ for w in judge.runner.plain})
    seen = [s for s in run.seen if s.key == key]
    scope = scope_of(run.scope, functions, seen[0].value if seen else None)
    name = judge.runner.sites[key].names[0] if judge.runner.sites[key].names else ""
    return Scope(scope.arrays, scope.numbers, scope.functions, scope.value, _before(run.scope, name))


def _before(variables: Mapping[str, Any], name: str) -> Any:
    """What a variable held before the line: `dW`, or `grads["dW"]`."""
    base, _, rest = name.partition("[")
    held = variables.get(base)
    if not rest or not isinstance(held, dict):
        return held
    return held.get(rest.rstrip("]").strip("'\""))


def source_at(judge: Judge, key: Key) -> Source | None:
    """The source of the function that a site is in."""
    return next(
        (
            source_of(w.function)
            for w in judge.runner.plain
            if (w.function.__qualname__, w.function.__code__.co_firstlineno) == key[:2]
        ),
        None,
    )


def fixed(site: Site, repair: Repair | None, source: Source | None) -> str | None:
    """The statement with the change in it."""
    if repair is None or source is None:
        return None
    text = source.text(site.span)
    if "\n" in text:
        return None
    written = spliced(text, site.span, repair.edits)
    return f"return {written}" if site.kind == "return" and site.code.startswith("return") else written
