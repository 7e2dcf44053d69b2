"""Alternating measurements: noise of a shared machine hits every candidate alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds for one call: the median over rounds, and the middle half of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median * 1e6:,.1f} µs ({self.low * 1e6:,.1f} to {self.high * 1e6:,.1f})"


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
    calls: dict[str, int] = {}
    for name, run in candidates.items():
        run()
        start = time.perf_counter()
        run()
        calls[name] = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            count = calls[name]
            start = time.perf_counter()
            for _ in range(count):
                run()
            measured[name].append((time.perf_counter() - start) / count)
    first = next(iter(candidates))
    timings = {name: _summary(values) for name, values in measured.items()}
    ratios = {
        name: statistics.median(v / f for v, f in zip(values, measured[first], strict=True))
        for name, values in measured.items()
    }
    return timings, ratios


def _summary(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high)


def machine() -> str:
    """The processor and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}"
