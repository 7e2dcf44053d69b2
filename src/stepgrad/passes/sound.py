"""Soundness of a plan: kernels run in an order in which they can, and memory holds one tensor at a time.

Checked for every program, from the steps and offsets alone, and not from how they were found.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence

from stepgrad.errors import VerificationError
from stepgrad.passes.buffers import Buffers, padded
from stepgrad.passes.scheduling import Step
from stepgrad.tape.equation import Equation, leaves


def verify_plan(steps: Sequence[Step], buffers: Buffers, elsewhere: Collection[Equation]) -> None:
    """Raises VerificationError where a planned program would compute with something else than its tape says.

    Checked: what a kernel reads was written before it; tensors that are needed in the same phase, between two
    barriers, share no memory; and each of them lies in the block.

    Args:
        steps: the kernels, in order.
        buffers: where the tensors between them lie.
        elsewhere: tensors that have memory of their own.
    """
    written: set[Equation] = set()
    lives: dict[Equation, tuple[int, int]] = {}
    for step in steps:
        operands = step.kernel.operands
        for i in step.kernel.reads:
            if operands[i] not in written and operands[i].op not in leaves:
                raise _broken(f"{operands[i]!r} is read before it is computed")
        written.update([operands[i] for i in step.kernel.writes])
        for tensor in operands:
            if tensor not in elsewhere:
                first, _ = lives.get(tensor, (step.phase, 0))
                lives[tensor] = (first, step.phase)
    _verify_memory(lives, buffers)


def _verify_memory(lives: dict[Equation, tuple[int, int]], buffers: Buffers) -> None:
    begins: dict[int, list[Equation]] = {}
    ends: dict[int, list[Equation]] = {}
    for tensor, (first, last) in lives.items():
        begins.setdefault(first, []).append(tensor)
        ends.setdefault(last + 1, []).append(tensor)
    used: list[tuple[int, int]] = []  # ranges, in order
    for phase in sorted({*begins, *ends}):
        for tensor in ends.get(phase, ()):
            used.remove(_range(tensor, buffers))
        for tensor in begins.get(phase, ()):
            start, end = _range(tensor, buffers)
            position = bisect_left(used, (start, end))
            free = (not position or used[position - 1][1] <= start) and (
                position == len(used) or used[position][0] >= end
            )
            if not free or start < 0 or end > buffers.size:
                raise _broken(f"the memory of {tensor!r} is that of another tensor, which is still needed")
            insort(used, (start, end))


def _range(tensor: Equation, buffers: Buffers) -> tuple[int, int]:
    if tensor not in buffers.offsets:
        raise _broken(f"{tensor!r} has no memory")
    start = buffers.offsets[tensor]
    return start, start + padded(tensor)


def _broken(what: str) -> VerificationError:
    return VerificationError(
        f"the plan is broken: {what}",
        "the program would compute with wrong numbers",
        "report this as a bug, with the printed tape (print(tape))",
    )
