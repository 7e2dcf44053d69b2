"""Checkpoints: in which order to run a chain forward and backward, when not all of its values fit into memory.

A chain is a row of blocks, each of which computes a state from the one before it. The backward pass reads the
blocks' values in reverse. Where they are not kept, blocks are run again from the last state that is: a checkpoint.

For equal blocks whose only value is their state, the best checkpoints are the binomial ones of Griewank and
Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000). For others, what is best is found by dynamic programming
over (first block, last block, memory), after Beaumont, Eyraud-Dubois, Herrmann, Joly and Shilova, "Optimal
checkpointing for heterogeneous chains" (2019).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

Action = tuple[str, int]
"""What is done with which block, counted from 0:

- ("go", i): run it forward, to have its state;
- ("keep", i): run it forward, to have its state and what its backward pass reads;
- ("read", i): its state is there; run what is missing of what its backward pass reads;
- ("back", i): run its backward pass.
"""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Block:
    """What a block costs.

    Attributes:
        forward: cost of running it.
        again: cost of what its backward pass reads, once the states before and after it are there.
        state: bytes of the state after it.
        values: bytes of what else its backward pass reads.
    """

    forward: float
    again: float
    state: int
    values: int


# --- equal steps


def advances(steps: int, slots: int) -> int:
    """How often a step is run forward, at the least, to visit the states of a chain in reverse.

    Args:
        steps: of the chain, from 1.
        slots: how many states fit into memory, the first one among them, from 1.

    Returns:
        Griewank and Walther's t(n, s) = r n - C(s + r, s + 1), with the smallest r for which C(s + r, s) >= n.
        Not counted is the run of each step that computes what its backward pass reads.

    Example:
        >>> advances(100, 5), advances(1000, 20)
        (316, 2747)
    """
    r = 0
    while comb(slots + r, slots) < steps:
        r += 1
    return r * steps - comb(slots + r, slots + 1)


@functools.lru_cache(4096)
def _all_advances(most: int, slots: int) -> Floats:
    """`advances` of 0 to `most` steps. Each further step costs as much as the r that it needs."""
    found = np.full(most + 1, np.inf)
    found[:2] = 0
    if slots:
        repeated = np.zeros(most + 1)
        r = 0
        while comb(slots + r, slots) < most:
            repeated[comb(slots + r, slots) + 1 :] += 1
            r += 1
        found[1:] = np.cumsum(repeated[1:])
    return found


def binomial(steps: int, slots: int) -> list[Action]:
    """The actions of the binomial schedule for a chain of equal steps; it has `advances(steps, slots)` "go"s.

    Args:
        steps: of the chain, from 1.
        slots: how many states fit into memory, the first one among them, from 1.
    """

    def choose(first: int, last: int, slots: int) -> tuple[str, int, int]:
        n = last - first + 1
        ahead = np.arange(1, n)
        costs = ahead + _all_advances(n, slots - 1)[n - ahead] + _all_advances(n, slots)[ahead]
        k = int(ahead[np.argmin(costs)])
        return "checkpoint", first + k, slots - 1

    return _actions(steps, slots, choose)


Choice = Callable[[int, int, int], tuple[str, int, int]]
"""(first, last, memory) -> "checkpoint" and the block after it, or "keep" the first block's values and the second
block; and the memory that is left for the blocks from there on."""


def _actions(count: int, memory: int, choose: Choice) -> list[Action]:
    found: list[Action] = []
    todo: list[tuple[int, int, int] | int] = [(0, count - 1, memory)]
    while todo:
        part = todo.pop()
        if isinstance(part, int):
            found.append(("back", part))
            continue
        first, last, memory = part
        if first == last:
            found += [("read", first), ("back", first)]
            continue
        how, after, left = choose(first, last, memory)
        if how == "keep":
            found.append(("keep", first))
            todo.append(first)
        else:
            found += [("go", i) for i in range(first, after)]
            todo.append((first, after - 1, memory))
        todo.append((after, last, left))
    return found


# --- steps that differ


class Table:
    """The best schedules for each number of units of memory.

    With C(i, j, m) the cost of the blocks i to j, when the states before and after them are there and m units
    of memory are free,

        C(i, i, m) = again(i)                                              if m >= values(i),
        C(i, j, m) = min of forward(i) + … + forward(k - 1) + C(k, j, m - state(k - 1)) + C(i, k - 1, m)
                     over all k, and forward(i) + C(i + 1, j, m - state(i) - values(i)).

    The state before the last block needs no unit of its own: once that block is done, it is the state after
    the others.

    Args:
        blocks: the chain.
        unit: bytes of a unit of memory, from 1.
        levels: memory is 0 to levels - 1 units.
        equal: take all blocks to be like the first: then C depends on j - i only, and is found much faster.
    """

    def __init__(self, blocks: Sequence[Block], unit: int, levels: int, equal: bool) -> None:
        n, rows = len(blocks), 1 if equal else len(blocks)
        self._count, self._levels, self._equal = n, levels, equal
        self._states, self._values = (
            [min(levels, -(-nbytes // unit)) for nbytes in sizes]
            for sizes in ([b.state for b in blocks], [b.values for b in blocks])
        )
        self._forward = np.array([b.forward for b in blocks])
        self._cost = np.full((rows, n, levels), np.inf)  # by first block, last - first, memory
        self._later = np.full((rows, n, levels), np.inf)  # the same, less the state before the first block
        self._choice = np.zeros((rows, n, levels), np.int32)  # 0: keep; k: a checkpoint before block first + k
        for first in range(rows):
            self._cost[first, 0, self._values[first] :] = blocks[first].again
            self._note_later(first, 0)
        for length in range(2, n + 1):
            for first in range(min(rows, n - length + 1)):
                self._fill(first, length)
                self._note_later(first, length - 1)

    def _fill(self, first: int, length: int) -> None:
        cost = self._cost
        row = 0 if self._equal else 1
        rest = np.arange(length - 2, -1, -1)
        forward = np.cumsum(self._forward[first : first + length - 1])
        candidates = self._later[row * np.arange(first + 1, first + length), rest]
        candidates += forward[:, None]
        candidates += cost[first, : length - 1]
        candidates[-1] = forward[-1] + cost[row * (first + length - 1), 0] + cost[first, length - 2]
        best = candidates.argmin(0)
        found = candidates[best, np.arange(self._levels)]
        kept = forward[0] + self._less(cost[row * (first + 1), length - 2], self._states[first] + self._values[first])
        cost[first, length - 1] = np.minimum(kept, found)
        self._choice[first, length - 1] = np.where(kept <= found, 0, best + 1)

    def _note_later(self, first: int, rest: int) -> None:
        self._later[first, rest] = self._less(self._cost[first, rest], self._states[first - 1])

    def _less(self, costs: Floats, units: int) -> Floats:
        """The costs when so many units are taken."""
        found = np.full_like(costs, np.inf)
        found[units:] = costs[: max(0, len(costs) - units)]
        return found

    def costs(self) -> Floats:
        """The cost of all blocks for each number of units; infinite where they are too few."""
        return self._cost[0, self._count - 1]

    def actions(self, memory: int) -> list[Action]:
        """The best schedule with so many units, which must be enough."""

        def choose(first: int, last: int, memory: int) -> tuple[str, int, int]:
            row = 0 if self._equal else first
            k = int(self._choice[row, last - first, memory])
            if not k:
                return "keep", first + 1, memory - self._states[first] - self._values[first]
            alone = first + k == last
            return "checkpoint", first + k, memory - (0 if alone else self._states[first + k - 1])

        return _actions(self._count, memory, choose)
