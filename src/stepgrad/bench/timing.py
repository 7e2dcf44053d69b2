"""Alternating measurements: noise of a shared machine hits every candidate alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds for one call: the median over rounds, and the middle half of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{duration(self.median)} ({duration(self.low)} to {duration(self.high)})"


def alternate(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 30, seconds: float = 0.02
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Times candidates in turn, A B C A B C …, and compares them round by round.

    Args:
        candidates: name -> what is timed; the first is the one that ratios are taken against.
        rounds: how often each is measured.
        seconds: about how long one measurement lasts.

    Returns:
        The timing of each; and for each, the median over rounds of its time divided by the first's.
    """
    measures = {name: Measure(run, seconds) for name, run in candidates.items()}
    measured: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            measured[name].append(measure())
    first = next(iter(measured.values()))
    timings = {name: summary(values) for name, values in measured.items()}
    return timings, {name: ratio(values, first) for name, values in measured.items()}


class Measure:
    """Measures one candidate: calling it returns the seconds that one call took, averaged over many."""

    def __init__(self, run: Callable[[], object], seconds: float) -> None:
        run()
        start = time.perf_counter()
        run()
        self.run, self.count = run, max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))

    def __call__(self) -> float:
        run, start = self.run, time.perf_counter()
        for _ in range(self.count):
            run()
        return (time.perf_counter() - start) / self.count


def summary(values: Sequence[float]) -> Timing:
    """The median and the middle half of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, low, high)


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of a value divided by the other of the same round."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, with three digits: "1.95 ms"."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((pair for pair in units if seconds >= 0.9995 * pair[1]), units[-1])
    count = seconds / size
    return f"{count:.{0 if count >= 99.95 else 1 if count >= 9.995 else 2}f} {unit}"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The processor, the number of cores that this process may use, and the version of Python."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {cores()} cores, Python {platform.python_version()}"
