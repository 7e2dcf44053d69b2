"""Runs `sg.check_backward` on mutants, on pairs of mistakes and on correct networks, and notes how it did."""

from __future__ import annotations

import itertools
import random
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.mistakes.network import Calls, Network, imported
from benchmarks.mistakes.oracle import Observation, Verdict, observed, quiet, same, verdict
from benchmarks.mistakes.planting import mutants
from benchmarks.mistakes.planting.mutant import ABOUT_RESULTS, Edit, Mutant, moved, planted

TIME_LIMIT = 30
"""Seconds after which a check is given up, and counts as failed."""


@dataclass(frozen=True)
class Answer:
    """What the checker said: the findings as (line, mistake, candidates), or what it raised."""

    ok: bool
    findings: tuple[tuple[int | None, str, tuple[str, ...]], ...]
    seconds: float
    error: str = ""
    text: str = ""


@dataclass(frozen=True)
class Case:
    """A mutant that is wrong, and how it was judged to be."""

    mutant: Mutant
    verdict: Verdict
    observation: Observation


@dataclass(frozen=True)
class Row:
    """One mutant's score.

    Attributes:
        names: the planted mistake, then other names for exactly the same effect on the same line.
        kind: "wrong" or "raises".
        detected: the report is not ok.
        line: the first finding's line is a faulty one.
        first, three: the first finding's mistake, or one of its first three candidates, is the planted one.
    """

    network: str
    names: tuple[str, ...]
    kind: str
    lines: tuple[int, ...]
    change: str
    detected: bool
    line: bool
    first: bool
    three: bool
    seconds: float
    found: tuple[tuple[int | None, str, tuple[str, ...]], ...]
    error: str
    text: str

    @property
    def mistake(self) -> str:
        return self.names[0]


def cases(network: Network, only: str | None = None) -> list[Case]:
    """The mutants of a network that are wrong or raise; equivalent ones are left out."""
    correct = observed(network, network.source)
    found = []
    for mutant in mutants(network):
        if only is not None and only not in mutant.mistakes:
            continue
        observation = observed(network, mutant.source)
        judged = verdict(mutant, correct, observation)
        if judged.kind in ("wrong", "raises"):
            found.append(Case(mutant, judged, observation))
    return [_with_all_names(case, found, correct) for case in found]


def _with_all_names(case: Case, others: Iterable[Case], correct: Observation) -> Case:
    """Adds the names of mistakes on the same line that give the very same gradients at every point."""
    names = dict.fromkeys(case.mutant.mistakes)
    for other in others:
        overlap = case.mutant.lines & other.mutant.lines and case.verdict.kind == other.verdict.kind == "wrong"
        if other is not case and overlap and same(case.observation, other.observation):
            names |= dict.fromkeys(other.mutant.mistakes)
    if "low-precision" in names and _changes_dtype(case.observation, correct):
        names["wrong-dtype"] = None
    return replace(case, mutant=replace(case.mutant, mistakes=tuple(names)))


def _changes_dtype(first: Observation, second: Observation) -> bool:
    return any(
        a[name].dtype != b[name].dtype
        for a, b in zip(first.gradients, second.gradients, strict=False)
        for name in set(a) & set(b)
    )


# --- asking


class TooSlowError(Exception):
    """The check took longer than the limit."""


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):  # Windows
        yield
        return

    def give_up(number: int, frame: Any) -> None:
        raise TooSlowError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ask(network: Network, source: str, seed: int = 0) -> Answer:
    """What `sg.check_backward` says of a source text, with the network's own inputs."""
    with imported(source) as module, quiet():
        calls = Calls(network, module)
        inputs = network.inputs(np.random.default_rng(seed))
        start = time.perf_counter()
        try:
            with _limited(TIME_LIMIT):
                if calls.layer is not None:
                    report = sg.check_backward(calls.layer, inputs=inputs)
                else:
                    report = sg.check_backward(*calls.functions, inputs)
        except Exception as error:  # whatever the checker raises is a failure of the checker
            return Answer(False, (), time.perf_counter() - start, _told(error))
        seconds = time.perf_counter() - start
        findings = tuple((f.line, f.mistake, tuple(f.candidates)) for f in report.findings)
        return Answer(report.ok, findings, seconds, text="" if report.ok else repr(report))


def _told(error: Exception) -> str:
    """An exception of the checker, with the place in the checker that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}  [{Path(last.filename).name}:{last.lineno}]"


def score(case: Case) -> Row:
    """Checks one mutant."""
    mutant, judged = case.mutant, case.verdict
    answer = ask(mutant.network, mutant.source)
    lines = set(mutant.lines) | set(judged.seen_at)
    if judged.line is not None:
        lines.add(judged.line)
    line, mistake, candidates = answer.findings[0] if answer.findings else (None, "", ())
    told = line in lines or (line is None and not ABOUT_RESULTS.isdisjoint(mutant.mistakes))
    return Row(
        mutant.network.name,
        mutant.mistakes,
        judged.kind,
        tuple(sorted(lines)),
        mutant.change,
        detected=not answer.ok and not answer.error,
        line=bool(answer.findings) and told,
        first=mistake in mutant.mistakes,
        three=not set((mistake, *candidates)[:4] if mistake not in candidates else candidates[:3]).isdisjoint(
            mutant.mistakes
        ),
        seconds=answer.seconds,
        found=answer.findings,
        error=answer.error,
        text=answer.text,
    )


# --- two mistakes at once


@dataclass(frozen=True)
class PairRow:
    """Two planted mistakes: whether the findings name the line of each."""

    network: str
    mistakes: tuple[str, str]
    changes: tuple[str, str]
    lines: tuple[tuple[int, ...], tuple[int, ...]]
    named: tuple[bool, bool]
    seconds: float
    found: tuple[tuple[int | None, str, tuple[str, ...]], ...]
    error: str

    @property
    def both(self) -> bool:
        return all(self.named)


def pairs(found: list[Case], count: int, seed: int = 0) -> list[PairRow]:
    """Scores random pairs of mistakes of one network, on different lines, both with an effect of their own."""
    chooser = random.Random(seed)
    usable = [c for c in found if c.verdict.kind == "wrong" and c.mutant.lines and not c.mutant.in_forward]
    rows: list[PairRow] = []
    for _ in range(20 * count):
        if len(rows) == count or len(usable) < 2:
            break
        row = _pair(*chooser.sample(usable, 2))
        if row is not None:
            rows.append(row)
    return rows


def _pair(one: Case, two: Case) -> PairRow | None:
    network = one.mutant.network
    changes = one.mutant.edit.changes + two.mutant.edit.changes
    spans = sorted((start, end) for start, end, _ in changes)
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        return None
    source = planted(network, Edit("both", changes)).source
    lines = [moved(case.mutant.lines, case.mutant.source, source) for case in (one, two)]
    if not all(lines) or lines[0] & lines[1]:
        return None
    both = observed(network, source)
    if both.raised or any(same(both, case.observation) for case in (one, two)):
        return None
    answer = ask(network, source)
    return PairRow(
        network.name,
        (one.mutant.mistake, two.mutant.mistake),
        (one.mutant.change, two.mutant.change),
        (tuple(sorted(lines[0])), tuple(sorted(lines[1]))),
        (_named(answer, one.mutant, lines[0]), _named(answer, two.mutant, lines[1])),
        answer.seconds,
        answer.findings,
        answer.error,
    )


def _named(answer: Answer, mutant: Mutant, lines: frozenset[int]) -> bool:
    """Whether some finding names a mistake: by its line, or by its name if it is about what is returned."""
    told = ABOUT_RESULTS.intersection(mutant.mistakes)
    return any(line in lines or name in told for line, name, _ in answer.findings)
