"""Alternating measurements: noise of a shared machine hits every candidate alike."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection


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
    return _in_turn({name: Measure(run, seconds) for name, run in candidates.items()}, rounds)


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


def _in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> tuple[dict[str, Timing], dict[str, float]]:
    measured: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            measured[name].append(measure())
    first = next(iter(measures))
    timings = {name: _summary(values) for name, values in measured.items()}
    ratios = {
        name: statistics.median(v / f for v, f in zip(values, measured[first], strict=True))
        for name, values in measured.items()
    }
    return timings, ratios


# --- libraries that bring threads of their own: each in a process of its own, still in turn


def alternate_processes(
    makers: Mapping[str, str], *, rounds: int = 40, seconds: float = 0.1, checks: int = 20
) -> tuple[dict[str, Timing], dict[str, float], dict[str, list[float]]]:
    """As `alternate`, with every candidate in its own process, so that idle threads of one can't slow another.

    Args:
        makers: name -> "module:function"; the function returns the step to time, or None where its
            library is not installed.
        checks: how many steps are run first, to compare what they return.

    Returns:
        Timings, ratios, and what the first steps returned.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    first: dict[str, list[float]] = {}
    try:
        for name, maker in makers.items():
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(maker, theirs, seconds, checks), daemon=True).start()
            found = ours.recv()
            if found is not None:
                pipes[name], first[name] = ours, found
        timings, ratios = _in_turn({name: _Remote(pipe) for name, pipe in pipes.items()}, rounds)
    finally:
        for pipe in pipes.values():
            pipe.send(False)
    return timings, ratios, first


class _Remote:
    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def __call__(self) -> float:
        time.sleep(0.25)  # the threads of the one before spin for a while before they sleep
        self.pipe.send(True)
        return float(self.pipe.recv())


def _serve(maker: str, pipe: Connection, seconds: float, checks: int) -> None:
    module, _, function = maker.partition(":")
    step = getattr(importlib.import_module(module), function)()
    if step is None:
        pipe.send(None)
        return
    pipe.send([step() for _ in range(checks)])
    measure = Measure(step, seconds)
    while pipe.recv():
        pipe.send(measure())


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
