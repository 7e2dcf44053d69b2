"""From a wrong line to a finding: what the mistake is called, and what to write instead."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.explaining import error_of
from stepgrad.check.backward.facts import Fact
from stepgrad.check.backward.judging import RIGHT, Blame, Judge
from stepgrad.check.backward.matching import UNKNOWN, Match, match
from stepgrad.check.backward.repairs import Repair, Scope, repairs, scope_of
from stepgrad.check.backward.report import Finding
from stepgrad.check.backward.running import Key, Run, Seen
from stepgrad.check.backward.watching import Edit, Site, Source, source_of
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
    repaired = repaired_line(judge, blame, runs)
    key, repair = repaired or (blame.key, None)
    site = judge.runner.sites[key]
    matches = match(clue_of(judge, blame, runs))
    names = [fact.mistake for fact in facts if fact.key in (key, blame.key)]
    names += [m.mistake for m in matches]
    if repair and repair.mistake:
        names = [n for n in names if n != UNKNOWN] + [repair.mistake]
    names = list(dict.fromkeys(names))
    first = next((m for m in matches if m.mistake == names[0]), matches[0])
    finding = Finding(
        gradient=_called(blame.name if key == blame.key or not site.names else site.names[0]),
        line=site.line,
        code=site.code,
        mistake=names[0],
        candidates=tuple(names),
        fix=fixed(site, repair, source_at(judge, key)) or first.fix,
        evidence=_evidence(blame, first),
        text=first.detail,
        file=site.file,
    )
    return Diagnosis(finding, () if repair is None or blame.seen[0] else repair.edits)


def _called(name: str) -> str:
    return name.removesuffix(".append").removesuffix(".insert")


def _evidence(blame: Blame, first: Match) -> dict[str, Any]:
    if not blame.seen[0]:
        return dict(first.evidence)
    wrong, right = blame.seen[0][0].value, blame.right[0][0]
    found: dict[str, Any] = {"shape": wrong.shape, "right shape": right.shape, **first.evidence}
    if wrong.shape == right.shape:
        found["relative error"] = error_of(wrong, right)
    return found


# --- the clue


def clue_of(judge: Judge, blame: Blame, runs: Sequence[Run]) -> Clue:
    """What the matcher works on: the first wrong value of the line at each point."""
    sightings = []
    for number, (spot, run) in enumerate(zip(judge.spots, runs, strict=True)):
        if spot.truth is None:
            continue
        if blame.seen[number]:
            seen, right, known = blame.seen[number][0], blame.right[number][0], blame.targets[number][0]
        else:  # the line raised, or was not reached
            named = judge.indices[number].named(blame.name)
            if len(named) != 1:
                continue
            seen, right, known = None, named[0].value, named[0]
        earlier: dict[str, Array] = {}
        for other in run.seen:
            if seen is not None and other.key == seen.key and other.count == seen.count:
                break
            earlier[other.name.removeprefix("self.")] = other.value
        target = known.equation if known is not None and known.kind == "gradient" else None
        factor = _ratio(right, known.value) if target is not None and known is not None else 1.0
        lengths = batch_lengths(spot.inputs, spot.right, run.gradients)
        axes = [a for a, n in enumerate(right.shape) if n in lengths]
        sightings.append(
            Sighting(
                truth=spot.truth,
                right=right,
                wrong=None if seen is None else seen.value,
                target=target,
                known=earlier,
                others=_others(run.scope),
                factor=factor,
                batch=lengths[0] if len(lengths) == 1 else None,
                batch_axis=axes[0] if len(axes) == 1 else None,
            )
        )
    first = blame.seen[0][0] if blame.seen[0] else None
    loop = {n: int(v) for n, v in runs[0].scope.items() if isinstance(v, (int, np.integer)) and n in blame.site.reads}
    return Clue(
        gradient=_called(first.name if first else blame.name).removeprefix("self."),
        sightings=tuple(sightings),
        line=blame.site.line,
        code=blame.site.code,
        loop=loop,
        earlier=tuple(dict.fromkeys(s.name for s in runs[0].seen[: _position(runs[0], first)])),
        error=None if runs[0].error is None else str(runs[0].error),
    )


def _position(run: Run, wrong: Seen | None) -> int:
    if wrong is None:
        return len(run.seen)
    return next((i for i, s in enumerate(run.seen) if s.key == wrong.key and s.count == wrong.count), 0)


def _ratio(right: Array, known: Array) -> float:
    if right.shape != known.shape or not known.any():
        return 1.0
    return float(np.vdot(known, right) / np.vdot(known, known))


def batch_lengths(inputs: Mapping[str, Array], right: Mapping[str, Array], gradients: Mapping[str, Any]) -> list[int]:
    """The lengths of axes that only inputs without a gradient have: those of the data."""
    del right
    data = {n for name, v in inputs.items() if name not in gradients for n in v.shape}
    parameters = {n for name, v in inputs.items() if name in gradients for n in v.shape}
    return sorted(data - parameters - {1})


def _others(variables: Mapping[str, Any]) -> dict[str, Array]:
    scope = scope_of(variables, (), None)
    found: dict[str, Array] = {}
    for text, value in scope.arrays.items():
        name = text.split('["')[-1].rstrip('"]') if '["' in text else text.removeprefix("self.")
        found.setdefault(name, value)
    return found


# --- repairs


def repaired_line(judge: Judge, blame: Blame, runs: Sequence[Run]) -> tuple[Key, Repair] | None:
    """The line whose repair makes right what is wrong: the one that is blamed, or one that it depends on."""
    deadline = min(judge.deadline, time.perf_counter() + SECONDS)
    before, after = _others_to_blame(judge, blame, runs[0])
    for key in [*before, blame.key, *after]:
        found = first_repair(judge, key, blame, deadline)
        if found is not None:
            return key, found
    return None


def _others_to_blame(judge: Judge, blame: Blame, run: Run) -> tuple[list[Key], list[Key]]:
    """Lines before the blamed one of which nothing else depends: those whose values look wrong, and the others."""
    first = blame.seen[0][0] if blame.seen[0] else None
    position = _position(run, first)
    influence = judge.influence(blame.key, run)
    classes = judge.classes(run, 0)
    suspicious: dict[Key, None] = {}
    others: dict[Key, None] = {}
    for seen, kind in reversed(list(zip(run.seen[:position], classes[:position], strict=True))):
        if seen.key == blame.key or seen.key in suspicious or seen.key in others:
            continue
        named = judge.indices[0].named(seen.name)
        if named and kind == RIGHT and (first is None or seen.name != first.name):
            continue
        if judge.influence(seen.key, run) != influence:
            continue
        (suspicious if kind != RIGHT and not named else others)[seen.key] = None
    return list(suspicious), list(others)


def by_repair(judge: Judge) -> Diagnosis | None:
    """Where no value can be put in the place of a wrong one: any line of which a repair makes everything right."""
    runs = [judge.run(i) for i in range(len(judge.spots))]
    wrong = judge.wrong(runs[0], 0)
    order = list(dict.fromkeys(s.key for s in reversed(runs[0].seen)))
    fitting = [key for key in order if judge.influence(key, runs[0]) == wrong]
    for key in fitting:
        found = first_repair(judge, key, None, judge.deadline)
        if found is None:
            continue
        site = judge.runner.sites[key]
        name = found.mistake or UNKNOWN
        fix = fixed(site, found, source_at(judge, key))
        text = "written as below, it makes all gradients right"
        finding = Finding(
            _called(site.names[0]) if site.names else None,
            site.line,
            site.code,
            name,
            (name,),
            fix,
            {},
            text,
            site.file,
        )
        return Diagnosis(finding, found.edits)
    return None


def first_repair(judge: Judge, key: Key, blame: Blame | None, deadline: float) -> Repair | None:
    """The first change of a line after which what was wrong is right at every point."""
    source = source_at(judge, key)
    if source is None:
        return None
    site = judge.runner.sites[key]
    run = judge.run(0, scope_at=key)
    scope = scope_at(judge, key, run)
    for repair in repairs(site, source, scope):
        if time.perf_counter() > deadline:
            return None
        if all(_mended(judge, i, repair.edits, blame) for i in range(len(judge.spots))):
            return repair
    return None


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
    line, column, end_line, _ = site.span
    whole = (line, column, end_line, site.span[3])
    text = source.text(whole)
    if "\n" in text:
        return None
    raw = text.encode()
    for edit in sorted(repair.edits, key=lambda e: e.span, reverse=True):
        raw = raw[: edit.span[1] - column] + edit.text.encode() + raw[edit.span[3] - column :]
    written = raw.decode()
    return f"return {written}" if site.kind == "return" and site.code.startswith("return") else written
