"""Scheduling: in which order kernels run, and where all threads have to wait for each other.

A barrier is needed before a kernel that touches elements which another thread wrote since the last one
(or writes elements which another thread read). As long as kernels are short, those that need no
barrier are run first, so that few barriers are left: a small network's whole step needs two or three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepgrad.passes.checks import FAULT
from stepgrad.passes.lowering import Kernel
from stepgrad.passes.sharing import Part, Split, parts
from stepgrad.tape.equation import Equation

LONG = 1e7
"""A kernel of more floating-point operations than this waits for the others in any case: order matters more."""


@dataclass(frozen=True)
class Step:
    """A kernel in its place.

    Attributes:
        kernel: what is computed.
        split: how it is shared out; None where NumPy computes it.
        barrier: whether all threads wait for each other before it.
        owner: of a kernel that one thread computes, which (modulo the number of threads).
        phase: how many barriers came before.
    """

    kernel: Kernel
    split: Split | None
    barrier: bool
    owner: int
    phase: int


def schedule(
    kernels: Sequence[Kernel],
    split_of: Callable[[Kernel], Split | None],
    work_of: Callable[[Kernel], float],
    in_order: bool = False,
) -> list[Step]:
    """Puts kernels into order.

    Args:
        kernels: in an order in which they could run.
        split_of: how each is shared out.
        work_of: about how many floating-point operations each takes.
        in_order: keep their order, other than for checks, which come as soon as they can.
    """
    splits = [split_of(kernel) for kernel in kernels]
    touched = [_touched(kernel, split) for kernel, split in zip(kernels, splits, strict=True)]
    before = _dependencies(kernels)
    waiting = [len(found) for found in before]
    after: list[list[int]] = [[] for _ in kernels]
    for i, found in enumerate(before):
        for j in found:
            after[j].append(i)
    ready = sorted(i for i, count in enumerate(waiting) if not count)
    steps: list[Step] = []
    recent: dict[Equation, list[tuple[Part | None, bool]]] = {}
    owners: list[float] = [0.0, 0.0]
    phase = 0

    def needs_barrier(i: int) -> bool:
        return any(
            (writes or wrote) and (part is None or part != other)
            for equation, (part, writes) in touched[i].items()
            for other, wrote in recent.get(equation, ())
        )

    while ready:
        position = 0
        if in_order:
            position = next((p for p, i in enumerate(ready) if kernels[i].everyone), 0)
        elif needs_barrier(ready[0]) and work_of(kernels[ready[0]]) < LONG:
            free = (p for p, i in enumerate(ready) if not needs_barrier(i))
            position = next(free, 0)
        i = ready.pop(position)
        barrier = bool(steps) and needs_barrier(i)
        split = splits[i]
        if barrier:
            recent.clear()
            phase += 1
            owners = [0.0, 0.0]
        owner = 0
        if split is not None and not split.length and not kernels[i].everyone:
            owner = _owner(touched[i], recent, owners)
            owners[owner] += work_of(kernels[i])
            touched[i] = {e: (("one", owner), writes) for e, (_, writes) in touched[i].items()}
        for equation, access in touched[i].items():
            recent.setdefault(equation, []).append(access)
        steps.append(Step(kernels[i], split, barrier, owner, phase))
        for j in after[i]:
            waiting[j] -= 1
            if not waiting[j]:
                _insert(ready, j)
    return steps


def _owner(
    touched: dict[Equation, tuple[Part | None, bool]],
    recent: dict[Equation, list[tuple[Part | None, bool]]],
    owners: list[float],
) -> int:
    """Which thread computes a kernel that is not shared: the one that wrote what it reads, or the less busy one."""
    for equation in touched:
        for part, _ in recent.get(equation, ()):
            if part is not None and part[0] == "one" and len(part) > 1:
                return int(part[1])
    return 1 if owners[1] < owners[0] else 0


def _insert(ready: list[int], i: int) -> None:
    position = len(ready)
    while position and ready[position - 1] > i:
        position -= 1
    ready.insert(position, i)


def _touched(kernel: Kernel, split: Split | None) -> dict[Equation, tuple[Part | None, bool]]:
    """For each tensor, which elements a thread touches, and whether it writes."""
    found = parts(kernel.body, split) if kernel.body is not None and split is not None else {}
    return {
        # What all threads compute for themselves needs no barrier before it is read, but its place in the order.
        e: (("all",) if e is FAULT or (kernel.everyone and i in kernel.writes) else found.get(i), i in kernel.writes)
        for i, e in enumerate(kernel.operands)
    }


def _dependencies(kernels: Sequence[Kernel]) -> list[set[int]]:
    """For each kernel, those that have to run before it: who wrote what it reads; who reads what it writes."""
    wrote: dict[Equation, int] = {}
    read: dict[Equation, list[int]] = {}
    found: list[set[int]] = []
    for i, kernel in enumerate(kernels):
        mine: set[int] = set()
        for position, equation in enumerate(kernel.operands):
            if equation is FAULT:
                continue
            if equation in wrote:
                mine.add(wrote[equation])
            if position in kernel.writes:
                mine.update(read.get(equation, ()))
        for position, equation in enumerate(kernel.operands):
            if position in kernel.writes:
                wrote[equation] = i
                read[equation] = []
            if position in kernel.reads:
                read.setdefault(equation, []).append(i)
        mine.discard(i)
        found.append(mine)
    _after_checks(kernels, found)
    return found


def _after_checks(kernels: Sequence[Kernel], before: list[set[int]]) -> None:
    """Cells are written after all checks, other than those of what is computed from the same kernel."""
    checks = [i for i, kernel in enumerate(kernels) if kernel.body is not None and kernel.body.kind == "check"]
    if not checks:
        return
    ancestors: list[int] = []  # of each kernel, as bits
    for mine in before:
        found = 0
        for j in mine:
            found |= ancestors[j] | 1 << j
        ancestors.append(found)
    for i, kernel in enumerate(kernels):
        if FAULT in kernel.operands and i not in checks:
            before[i].update(j for j in checks if not ancestors[j] >> i & 1)
