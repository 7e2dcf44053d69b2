"""Buffer planning: where in one block of memory each tensor lies while it is needed.

Memory is used again once nobody needs what is in it, but only after a barrier: until then another
thread may still read it. Two ways to place tensors are tried. The one takes the largest first, each at the lowest
offset at which it meets no other that lives at the same time; the other goes through time, and fills the smallest
hole that is large enough.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepgrad.passes.scheduling import Step
from stepgrad.tape.equation import Equation

LINE = 64
"""Tensors begin at multiples of this many bytes."""

Lives = dict[Equation, tuple[int, int]]
"""The first and the last time at which each tensor is needed."""


@dataclass(frozen=True)
class Buffers:
    """The plan.

    Attributes:
        offsets: of each planned tensor, in bytes.
        size: of the whole block.
        lives: the first and the last phase in which each is needed.
    """

    offsets: dict[Equation, int]
    size: int
    lives: Lives


def plan(steps: Sequence[Step], elsewhere: Collection[Equation]) -> Buffers:
    """Finds a place for every tensor that kernels write, except for those that are kept elsewhere."""
    lives = _lives(steps, [step.phase for step in steps], elsewhere)
    return Buffers(*_placed(lives), lives)


def plan_tightly(steps: Sequence[Step], elsewhere: Collection[Equation]) -> tuple[list[Step], Buffers]:
    """The same in as little memory as can be: it is used again in the next kernel, and barriers are added for that."""
    offsets, size = _placed(_lives(steps, range(len(steps)), elsewhere))
    made: list[Step] = []
    used: list[tuple[int, int]] = []  # since the last barrier: ranges that do not overlap, in order
    known: set[Equation] = set()
    phase = 0
    for step in steps:
        ranges = {e: (offsets[e], offsets[e] + padded(e)) for e in step.kernel.operands if e in offsets}
        barrier = step.barrier or any(_overlaps(used, *span) for e, span in ranges.items() if e not in known)
        known.update(ranges)
        if barrier:
            phase += 1
            used.clear()
        for span in ranges.values():
            if not _overlaps(used, *span):
                insort(used, span)
        made.append(replace(step, barrier=barrier, phase=phase))
    return made, Buffers(offsets, size, _lives(made, [step.phase for step in made], elsewhere))


def padded(tensor: Equation) -> int:
    """The bytes that a tensor takes in the block."""
    return -(-max(1, tensor.type.nbytes) // LINE) * LINE


def _overlaps(ranges: list[tuple[int, int]], start: int, end: int) -> bool:
    after = bisect_left(ranges, (end, end))
    return after > 0 and ranges[after - 1][1] > start


def _lives(steps: Sequence[Step], times: Sequence[int], elsewhere: Collection[Equation]) -> Lives:
    lives: Lives = {}
    for step, time in zip(steps, times, strict=True):
        for equation in step.kernel.operands:
            if equation not in elsewhere:
                first, _ = lives.get(equation, (time, 0))
                lives[equation] = (first, time)
    return lives


def _placed(lives: Lives) -> tuple[dict[Equation, int], int]:
    """Offsets, and the size of the block."""
    found, size = _through_time(lives)
    if len(lives) <= _MOST_COMPARED and size > _most_at_once(lives):
        other, smaller = _largest_first(lives)
        if smaller < size:
            return other, smaller
    return found, size


_MOST_COMPARED = 8000
"""With more tensors than this, each is not compared with all others."""


def _most_at_once(lives: Lives) -> int:
    change: dict[int, int] = {}
    for equation, (first, last) in lives.items():
        change[first] = change.get(first, 0) + padded(equation)
        change[last + 1] = change.get(last + 1, 0) - padded(equation)
    live = most = 0
    for time in sorted(change):
        live += change[time]
        most = max(most, live)
    return most


def _largest_first(lives: Lives) -> tuple[dict[Equation, int], int]:
    count = len(lives)
    firsts, lasts, starts, ends = (np.zeros(count, np.int64) for _ in range(4))
    offsets: dict[Equation, int] = {}
    for i, equation in enumerate(sorted(lives, key=lambda e: -e.type.nbytes)):
        (first, last), size = lives[equation], padded(equation)
        met = np.flatnonzero((firsts[:i] <= last) & (lasts[:i] >= first))
        offset = 0
        if len(met):
            order = met[np.argsort(starts[met], kind="stable")]
            reached = np.concatenate([[0], np.maximum.accumulate(ends[order])])
            wide = np.flatnonzero(starts[order] - reached[:-1] >= size)
            offset = int(reached[wide[0]] if len(wide) else reached[-1])
        firsts[i], lasts[i], starts[i], ends[i] = first, last, offset, offset + size
        offsets[equation] = offset
    return offsets, int(ends.max(initial=0))


def _through_time(lives: Lives) -> tuple[dict[Equation, int], int]:
    begins: dict[int, list[Equation]] = {}
    done: dict[int, list[Equation]] = {}
    for equation, (first, last) in lives.items():
        begins.setdefault(first, []).append(equation)
        done.setdefault(last + 1, []).append(equation)
    offsets: dict[Equation, int] = {}
    holes: list[tuple[int, int]] = []  # (start, end), in order; none touches another, or the end
    size = 0
    for time in sorted({*begins, *done}):
        freed = [(offsets[e], offsets[e] + padded(e)) for e in done.get(time, ())]
        if freed:
            holes = _joined(sorted([*holes, *freed]))
            if holes[-1][1] == size:
                size = holes.pop()[0]
        for equation in sorted(begins.get(time, ()), key=lambda e: -e.type.nbytes):
            wanted = padded(equation)
            fitting = [(end - start, start) for start, end in holes if end - start >= wanted]
            if fitting:
                _, start = min(fitting)
                position = bisect_left(holes, (start, 0))
                rest = (start + wanted, holes[position][1])
                holes[position : position + 1] = [rest] if rest[0] < rest[1] else []
            else:
                start, size = size, size + wanted
            offsets[equation] = start
    return offsets, max((offsets[e] + padded(e) for e in offsets), default=0)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found = ranges[:1]
    for start, end in ranges[1:]:
        if start == found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
