"""Buffer planning: where in one block of memory each tensor lies while it is needed.

Memory is used again once nobody needs what is in it, but only after a barrier: until then another
thread may still read it. The largest tensors are placed first, each at the lowest offset at which it meets no other
that lives at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stepgrad.passes.scheduling import Step
from stepgrad.tape.equation import Equation

LINE = 64
"""Tensors begin at multiples of this many bytes."""


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
    lives: dict[Equation, tuple[int, int]]


def plan(steps: Sequence[Step], elsewhere: Collection[Equation]) -> Buffers:
    """Finds a place for every tensor that kernels write, except for those that are kept elsewhere."""
    lives: dict[Equation, tuple[int, int]] = {}
    for step in steps:
        for equation in step.kernel.operands:
            if equation not in elsewhere:
                first, _ = lives.get(equation, (step.phase, 0))
                lives[equation] = (first, step.phase)
    offsets: dict[Equation, int] = {}
    by_phase: list[list[tuple[int, int]]] = [[] for _ in range(max((s.phase for s in steps), default=0) + 1)]
    total = 0
    for equation in sorted(lives, key=lambda e: -e.type.nbytes):
        size = -(-max(1, equation.type.nbytes) // LINE) * LINE
        first, last = lives[equation]
        taken = sorted({span for phase in range(first, last + 1) for span in by_phase[phase]})
        offset = 0
        for start, end in taken:
            if start - offset >= size:
                break
            offset = max(offset, end)
        offsets[equation] = offset
        total = max(total, offset + size)
        for phase in range(first, last + 1):
            by_phase[phase].append((offset, offset + size))
    return Buffers(offsets, total, lives)
