"""Rematerialisation: a step in less memory, for some of its values computed again.

There is a fixed row of programs for a tape, from one that computes nothing again to one that needs the least
memory. A budget chooses the cheapest of them that fits. So a larger budget never costs more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from stepgrad.errors import BudgetError
from stepgrad.passes.chains import Chain, find_chain
from stepgrad.passes.checkpoints import Table, advances, binomial
from stepgrad.passes.dropping import dropped
from stepgrad.passes.fusion import Fusion
from stepgrad.passes.reruns import Flow, Run, operations, unrolled
from stepgrad.passes.rewriting import Changes
from stepgrad.tape.equation import Equation, Role
from stepgrad.tape.tape import Tape

MOST_AGAIN = 16.0
"""The forward pass is computed again at most so many times: the least memory would take it squared."""

_ROUNDS = 40
"""How many programs are made by dropping values."""
_MOST_BLOCKS = 96
"""Chains of blocks that differ are first made this short: the tables grow with the cube."""
_MOST_ENTRIES = 1.6e8
"""How many entries of a table are looked at, for chains of equal blocks: half a second's work."""


@dataclass(frozen=True)
class Rematerialised:
    """What was decided.

    Attributes:
        tape: the tape with what is computed again.
        changes: what was changed.
        again: floating-point operations that are done again.
        forward: floating-point operations of the forward pass.
    """

    tape: Tape
    changes: Changes
    again: int
    forward: int


def rematerialise(
    fusion: Fusion, elsewhere: Collection[Equation], budget: int, measure: Callable[[Tape], int]
) -> Rematerialised:
    """The cheapest tape whose planned memory fits.

    Args:
        fusion: the kernels of the tape.
        elsewhere: tensors that are kept elsewhere: the user's results.
        budget: bytes for what lies between kernels.
        measure: plans a tape with its kernels in order, and returns the bytes that it takes.

    Raises:
        BudgetError: nothing fits.
    """
    flow = Flow(fusion, elsewhere)
    row = Row(flow)
    smallest = 0
    for i in range(max(0, row.find(budget)), -1, -1):  # even the first may take less than is thought: it is fused anew
        made = _made(flow, row.runs(i))
        smallest = measure(made.tape)
        if smallest <= budget:
            return made
    raise BudgetError(
        f"the program's values do not fit into {budget:,} bytes",
        f"some are needed at the same time, even if the others are computed again: it takes {smallest:,} bytes, "
        f"for at most {MOST_AGAIN:.0f} more forward passes",
        f"use memory={smallest} or more, or a smaller batch",
    )


def _made(flow: Flow, runs: list[Run]) -> Rematerialised:
    changes = Changes()
    tape = unrolled(flow, runs, changes)
    again = sum(operations(change.old) for change in changes.made)
    forward = sum(operations(e) for e in flow.fusion.tape if e.role is Role.FORWARD)
    return Rematerialised(tape, changes, again, forward)


class Row:
    """The programs that a budget chooses from, in the order of their cost: the last computes nothing again.

    What a program needs is found when it is asked for, and by bisection. That is monotonic even where the
    programs' needs are not: with a larger budget, each question has the same answer, or leads to a cheaper one.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._programs: list[Program] = [*_programs(flow), functools.partial(list, flow.firsts)]
        self._runs: dict[int, list[Run]] = {}
        self._peaks: dict[int, int] = {}
        least = min(range(min(_FIRST, len(self))), key=lambda i: (self.peak(i), -i))
        self._programs = self._programs[least:]
        self._runs.clear()
        self._peaks.clear()

    def __len__(self) -> int:
        return len(self._programs)

    def runs(self, i: int) -> list[Run]:
        """A program."""
        if i not in self._runs:
            self._runs[i] = self._programs[i]()
        return self._runs[i]

    def peak(self, i: int) -> int:
        """The most bytes that it needs at once; what is planned in the end may be a little more."""
        if i not in self._peaks:
            self._peaks[i] = self._flow.peak(self.runs(i))
        return self._peaks[i]

    def find(self, budget: int) -> int:
        """The cheapest program that fits, or -1."""
        if self.peak(0) > budget:
            return -1
        fits, beyond = 0, len(self)
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            if self.peak(middle) <= budget:
                fits = middle
            else:
                beyond = middle
        return fits


_FIRST = 3
"""Of so many at the front, the row begins with the program that needs the least."""

Program = Callable[[], list[Run]]


def _programs(flow: Flow) -> list[Program]:
    """Programs that compute something again, the most expensive ones first."""
    chain = find_chain(flow)
    if chain is None:
        return _by_dropping(flow)
    if not chain.is_even and len(chain.blocks) > _MOST_BLOCKS and chain.period():
        chain = chain.joined(chain.period())
    count, usual = len(chain.blocks), chain.usual
    if not chain.is_even:
        found = _tabled(chain if count <= _MOST_BLOCKS else chain.coarser(_MOST_BLOCKS), even=False)
    elif not usual.values and not usual.again:
        slots = [s for s in range(1, count + 1) if advances(count, s) <= MOST_AGAIN * count]
        return [functools.partial(_binomial, chain, s) for s in slots]
    else:
        found = _tabled(chain, even=True)
        if count > 2 * _MOST_BLOCKS:
            cheapest = min((cost for cost, _ in found), default=np.inf)
            found += [f for f in _tabled(chain.coarser(_MOST_BLOCKS), even=True) if f[0] < cheapest]
    return [program for _, program in sorted(found, key=lambda f: -f[0])]


def _binomial(chain: Chain, slots: int) -> list[Run]:
    return chain.runs(binomial(len(chain.blocks), slots))


def _from_table(chain: Chain, table: Table, memory: int) -> list[Run]:
    return chain.runs(table.actions(memory))


def _tabled(chain: Chain, even: bool) -> list[tuple[float, Program]]:
    """Programs by dynamic programming, for amounts of memory up to all that is needed, and their costs."""
    blocks = [chain.usual] * len(chain.blocks) if even else chain.blocks
    whole = sum(b.state + b.values for b in blocks)
    levels = max(1, min(2048, int(_MOST_ENTRIES / len(blocks) ** 2))) if even else 256
    unit = max(1, -(-whole // max(1, levels - 1)))
    if even:  # a unit for each state is fine enough; a long chain's table then ends before its whole memory
        unit = max(1, min(unit, blocks[0].state))
    table = Table(blocks, unit, levels, even)
    costs = table.costs()
    forward = sum(b.forward for b in blocks)
    return [
        (float(costs[m]), functools.partial(_from_table, chain, table, m))
        for m in range(levels)
        if costs[m] < (costs[m - 1] if m else np.inf) and costs[m] <= (MOST_AGAIN + 1) * forward
    ]


def _by_dropping(flow: Flow) -> list[Program]:
    """Programs of which none is worse than another in both memory and cost."""
    found = sorted((flow.cost(runs), flow.peak(runs), i, runs) for i, runs in enumerate(dropped(flow, _ROUNDS)))
    best, least = [], flow.peak(flow.firsts)
    for _, peak, _, runs in found:
        if peak < least:
            least = peak
            best.append(runs)
    return [functools.partial(list, runs) for runs in reversed(best)]
