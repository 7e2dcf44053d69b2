"""Runs trainings and asks every tool about each of them."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.health import faulty, healthy
from benchmarks.health.halves import half
from benchmarks.health.references import TOOLS
from benchmarks.health.trainings import HEALTHY, Outcome, Training, run
from stepgrad.check.health.diagnosis import diagnose

OURS = "sg.health"


@dataclass(frozen=True)
class Said:
    """What a tool said of a training.

    Attributes:
        alarms: names of its rules or verdicts, in its own order.
        first: those that it gives as first causes, for a tool that tells them from consequences; else all.
        means: the planted faults that the alarms may stand for.
        problem: why it could not say more; empty if it could.
    """

    alarms: tuple[str, ...]
    first: tuple[str, ...]
    means: frozenset[str]
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """A training, whether it is what it is meant to be, and what was said of it.

    Attributes:
        name, cell, fault, half: see `Training` and `halves`.
        right: the names that are right for it; empty for a healthy one.
        sound: it is what it is meant to be.
        found: the numbers by which that was decided.
        said: tool -> what it said.
        seconds: how long it took.
    """

    name: str
    cell: str
    fault: str
    half: str
    right: frozenset[str]
    sound: bool
    found: str
    said: dict[str, Said]
    seconds: float

    @property
    def healthy(self) -> bool:
        return self.fault == HEALTHY

    def detected(self, tool: str) -> bool:
        """The tool says that something is wrong."""
        return bool(self.said[tool].alarms)

    def named(self, tool: str) -> bool:
        """One of its alarms may stand for what was planted."""
        return bool(self.said[tool].means & self.right)

    def named_first(self, tool: str) -> bool:
        """The first cause that it gives is right."""
        return bool(self.said[tool].first[:1]) and self.said[tool].first[0] in self.right


def all_trainings() -> list[Training]:
    """Every training of the benchmark."""
    return [*faulty.trainings(), *healthy.trainings()]


def judge(training: Training) -> Result:
    """Runs a training and asks all tools."""
    begin = time.perf_counter()
    outcome, ours = _watched(training)
    checked = training.check(outcome)
    said = {OURS: ours}
    for tool in TOOLS:
        alarms = tool.alarms(outcome.course)
        said[tool.name] = Said(tuple(alarms), tuple(alarms), frozenset().union(*alarms.values()))
    right = frozenset() if training.fault == HEALTHY else frozenset({training.fault, *training.also})
    seconds = time.perf_counter() - begin
    where = half(training.cell)
    return Result(training.name, training.cell, training.fault, where, right, checked.ok, checked.text, said, seconds)


def _watched(training: Training) -> tuple[Outcome, Said]:
    """Runs it with `sg.health`; where that raises, it has said nothing, and the training is run without it."""
    try:
        outcome = run(training)
        if outcome.run is None:
            return outcome, Said((), (), frozenset(), "nothing was recorded")
        diagnosis = diagnose(outcome.run)
    except Exception as error:
        return run(training, health=False), Said((), (), frozenset(), f"it raised {type(error).__name__}")
    names = tuple(verdict.name for top in diagnosis.verdicts for _, verdict in top.walk())
    first = tuple(verdict.name for verdict in diagnosis.verdicts)
    return outcome, Said(names, first, frozenset(names), outcome.run.problem)


_TRAININGS: list[Training] = []


def _judge_one(number: int) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge(_TRAININGS[number])


def judge_all(trainings: Sequence[Training], processes: int) -> Iterator[Result]:
    """Judges them in the order given, on so many processes; each result does not depend on the others."""
    _TRAININGS[:] = trainings
    if processes == 1:
        yield from map(_judge_one, range(len(trainings)))
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap(_judge_one, range(len(trainings)), chunksize=2)
