"""Profiles: how long each kernel takes where it runs, against what the machine can do."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError, UnsupportedError
from stepgrad.execute.cpu.described import Described, describe
from stepgrad.execute.cpu.listing import WIDTH, ranges
from stepgrad.execute.cpu.naming import Names
from stepgrad.execute.cpu.peaks import Peak, peak
from stepgrad.files import write
from stepgrad.tape.equation import INPUT
from stepgrad.tape.layout import plural, table
from stepgrad.tape.op import TensorType

if TYPE_CHECKING:
    from stepgrad.execute.cpu.program import Program

Times = np.ndarray[Any, np.dtype[np.float64]]
WARM_UP = 3
FEWEST = 5
PATIENCE = 2.0
"""Seconds after which no further step is measured, once there are `FEWEST`."""


@dataclass(frozen=True)
class Row:
    """A kernel as it was measured; medians over the steps.

    Attributes:
        name: `k1`, `k2`, …
        title: what it computes.
        function: the number of its machine function; 0 where NumPy computes it.
        seconds: on the thread that took longest.
        share: of the threads' time in a step, waiting included.
        waiting: seconds that a thread waited before it, on average over the threads.
        flops: floating-point operations.
        nbytes: bytes of the tensors that it reads and writes, wherever they lie.
    """

    name: str
    title: str
    function: int
    seconds: float
    share: float
    waiting: float
    flops: int
    nbytes: int

    @property
    def gflops(self) -> float:
        """10⁹ floating-point operations in a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else math.nan

    @property
    def gbytes(self) -> float:
        """10⁹ bytes in a second."""
        return self.nbytes / self.seconds / 1e9 if self.seconds else math.nan


@dataclass(frozen=True, repr=False)
class Profile:
    """A program, measured. Print it.

    Attributes:
        rows: one for each kernel, in order.
        seconds: a whole step; the median.
        waiting: the share of the threads' time that was spent at barriers.
        steps: how many were measured.
        threads: how many ran it.
        peak: what the machine can do.
        times: of the step that took the median time, in seconds: shape (threads, kernels, 2), begin and end;
            NaN where a thread took no part.
    """

    rows: tuple[Row, ...]
    seconds: float
    waiting: float
    steps: int
    threads: int
    peak: Peak
    times: Times
    _kernels: tuple[Described, ...]

    def __repr__(self) -> str:
        groups: dict[object, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.function or row.name, []).append(row)
        made = [self._line(group) for group in groups.values()]
        made.append(("", "waiting at barriers", "", f"{self.waiting:.1%}", "", "", "", ""))
        header = ("kernel", "", "time", "share", "GFLOP/s", "of peak", "GB/s", "waited")
        total = sum(row.flops for row in self.rows) / self.seconds
        return "\n".join(
            [
                f"profile: {seconds_text(self.seconds)} a step, median of {plural(self.steps, 'step')} on "
                f"{plural(self.threads, 'thread')}; {total / 1e9:.3g} GFLOP/s, {total / self.peak.flops:.0%} of peak",
                f"machine: {self.peak.flops / 1e9:.3g} GFLOP/s in {self.peak.dtype}, "
                f"{self.peak.bandwidth / 1e9:.3g} GB/s from and to memory (caches are faster)",
                "",
                *table(header, made, right=(2, 3, 4, 5, 6, 7)),
            ]
        )

    def _line(self, group: Sequence[Row]) -> tuple[str, ...]:
        seconds = sum(row.seconds for row in group)
        flops, nbytes = (sum(getattr(row, what) for row in group) / max(seconds, 1e-12) for what in ("flops", "nbytes"))
        title = group[0].title if len(group) == 1 else f"{len(group)} × {group[0].title}"
        room = WIDTH - 60
        waited = sum(row.waiting for row in group)
        return (
            ranges(row.name for row in group),
            title if len(title) <= room else title[: room - 2] + " …",
            seconds_text(seconds),
            f"{sum(row.share for row in group):.1%}",
            f"{flops / 1e9:.3g}" if flops else "",
            f"{flops / self.peak.flops:.0%}" if flops > 0.005 * self.peak.flops else "",
            f"{nbytes / 1e9:.3g}",
            seconds_text(waited) if waited > 0.002 * self.seconds else "",
        )

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Writes one step as a trace that ui.perfetto.dev and chrome://tracing show: a track for each thread.

        Raises:
            FileError: the file can't be written.
        """
        write(path, json.dumps({"traceEvents": self.events(), "displayTimeUnit": "ns"}).encode())

    def events(self) -> list[dict[str, Any]]:
        """The step's events in the Trace Event Format: kernels, waiting, and the names of the threads."""
        found: list[dict[str, Any]] = [_event("M", "process_name", 0, args={"name": "stepgrad program"})]
        for thread in range(len(self.times)):
            found.append(_event("M", "thread_name", thread, args={"name": f"thread {thread}"}))
            last = 0.0
            for kernel, row, (begin, end) in zip(self._kernels, self.rows, self.times[thread], strict=True):
                if math.isnan(begin):
                    continue
                if begin > last:
                    why = {"for": row.name, "why": kernel.barrier or "threads start, and go from kernel to kernel"}
                    found.append(_event("X", "waiting", thread, last, begin, args=why, cat="barrier"))
                about = {
                    "values": " → ".join(kernel.chain),
                    "role": kernel.role,
                    "reads": [o.name for o in kernel.reads],
                    "writes": [o.name for o in kernel.writes],
                    "shared": kernel.shared,
                    "FLOP": row.flops,
                    "bytes": row.nbytes,
                }
                name = f"{row.name} {row.title}"
                found.append(_event("X", name, thread, begin, end, args=about, cat=kernel.role or "check"))
                last = end
        return found


def _event(phase: str, name: str, thread: int, begin: float = 0.0, end: float = 0.0, **more: Any) -> dict[str, Any]:
    event = {"ph": phase, "name": name, "pid": 1, "tid": thread, **more}
    if phase == "X":
        event |= {"ts": round(begin * 1e6, 4), "dur": round((end - begin) * 1e6, 4)}
    return event


def seconds_text(seconds: float) -> str:
    """A time with three digits and a unit: `12.3 µs`."""
    for scale, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


# --- measuring


def profile(program: Program, inputs: Sequence[Any], steps: int) -> Profile:
    """Runs a program some times, and measures each kernel of each run. Cells have their old values afterwards.

    Args:
        program: what to measure.
        inputs: as for a run; if there are none: normal numbers, zeros for integers.
        steps: how many runs, at least 1; fewer (but at least 5) if they take more than two seconds.

    Raises:
        ArgumentError, ShapeError: steps or inputs that don't fit.
        IndexingError: an input has an index that is out of range.
        UnsupportedError: the processor has no clock that native code can read.
    """
    if steps < 1:
        raise ArgumentError(f"steps={steps} was asked for", "a profile needs at least one step", "leave steps out")
    plan, loaded = program._plan, program._loaded
    if not plan.steps:
        raise ArgumentError(
            "a profile was asked for of a program without kernels",
            "what it returns is known beforehand, so there is nothing to measure",
            "profile a function that computes something from its arguments",
        )
    values = _inputs([e.type for e in plan.tape.inputs if e.op is INPUT], inputs)
    written = [program._memory(e) for e in plan.fusion.assigned.values()]
    program._set_moving((False,) * len(program._inputs))
    found: list[Times] = []
    with program._guard or contextlib.nullcontext():
        program._share()
        before = [memory.copy() for memory in written]
        try:
            began = time.perf_counter()
            for number in range(WARM_UP + steps):
                kept = _set_slots(program, values)
                times = loaded.profile()
                del kept
                if number >= WARM_UP:
                    found.append(times)
                if len(found) >= FEWEST and time.perf_counter() - began > PATIENCE:
                    break
        finally:
            for memory, value in zip(written, before, strict=True):
                np.copyto(memory, value)
    if np.isnan(found[-1]).all():
        raise UnsupportedError(
            "a profile was asked for",
            "this processor has no clock that native code can read",
            "time whole calls with time.perf_counter",
        )
    return _summary(program, found)


def _inputs(types: Sequence[TensorType], given: Sequence[Any]) -> list[Any]:
    if not given:
        draw = np.random.default_rng(0)
        return [
            np.ascontiguousarray((draw.standard_normal(t.shape) if t.is_float else np.zeros(t.shape)).astype(t.dtype))
            if t.shape
            else np.asarray(0.5 if t.is_float else 0, t.dtype)
            for t in types
        ]
    expected = ", ".join(map(repr, types))
    if len(given) != len(types):
        raise ArgumentError(
            f"a profile was asked for with {plural(len(given), 'input')}",
            f"the program takes {expected}",
            "pass all of them, or none",
        )
    values = [np.require(getattr(x, "value", x), t.dtype, ["C", "A"]) for x, t in zip(given, types, strict=True)]
    if any(x.shape != t.shape for x, t in zip(values, types, strict=True)):
        raise ShapeError(
            f"a profile was asked for with inputs of shapes {', '.join(str(x.shape) for x in values)}",
            f"the program takes {expected}",
            "pass arrays of these shapes, or none",
        )
    return values


def _set_slots(program: Program, values: Sequence[Any]) -> list[Any]:
    """Sets a run's inputs, and new memory for its results, which is returned."""
    addresses = program._loaded.addresses[0]
    for x, (slot, _, _) in zip(values, program._inputs, strict=True):
        if slot is not None:
            addresses[slot] = x.ctypes.data
    results = [np.empty(shape, dtype) for _, shape, dtype in program._fresh]
    for (slot, _, _), result in zip(program._fresh, results, strict=True):
        addresses[slot] = result.ctypes.data
    return results


def _summary(program: Program, found: Sequence[Times]) -> Profile:
    plan = program._plan
    kernels = describe(plan, Names(plan))
    threads = int(max((~np.isnan(times[:, :, 0])).any(axis=1).sum() for times in found))
    whole = np.array([np.nanmax(times[..., 1]) for times in found])
    busy = np.array([np.nan_to_num(times[..., 1] - times[..., 0]) for times in found])  # (steps, threads, kernels)
    waits = np.array([_waits(times) for times in found])
    seconds = np.median(busy.max(axis=1), axis=0)
    shares = np.median(busy.sum(axis=1) / (threads * whole[:, None]), axis=0)
    waiting = np.median(waits.sum(axis=1) / threads, axis=0)
    rows = tuple(
        Row(k.name, k.title, k.function, float(s), float(share), float(wait), k.flops, k.nbytes)
        for k, s, share, wait in zip(kernels, seconds, shares, waiting, strict=True)
    )
    idle = float(np.median(1 - busy.sum(axis=(1, 2)) / (threads * whole)))
    middle = found[int(np.argsort(whole)[len(whole) // 2])]
    doubles = any(e.type.dtype.name == "float64" and e.type.size > 1 for e in plan.tape.equations)
    singles = any(e.type.dtype.name == "float32" for e in plan.tape.equations)
    dtype = "float64" if doubles and not singles else "float32"
    return Profile(
        rows, float(np.median(whole)), idle, len(found), threads, peak(program._target, dtype, threads), middle, kernels
    )


def _waits(times: Times) -> Times:
    """Seconds that each thread waited before each kernel: shape (threads, kernels)."""
    waits = np.zeros(times.shape[:2])
    for thread, spans in enumerate(times):
        last = 0.0
        for i, (begin, end) in enumerate(spans):
            if not math.isnan(begin):
                waits[thread, i], last = max(0.0, begin - last), end
    return waits
