"""Dropping: for programs whose forward pass is no chain, values given up one after another.

Where most bytes are needed at once, the values are looked for that are not read there, but before and after.
They are dropped, those first that free the most bytes for what it costs to compute them again, right before they are
read next, from what is there at that point anyway.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from stepgrad.passes.buffers import padded
from stepgrad.passes.reruns import Flow, Run
from stepgrad.tape.equation import Equation

FURTHEST = 16
"""How many kernels may have to run again for one value."""


def dropped(flow: Flow, rounds: int) -> Iterator[list[Run]]:
    """Programs that need less and less memory.

    Args:
        flow: the program.
        rounds: how many programs at most; in each round, a part of the values that can be dropped are.
    """
    runs = list(flow.firsts)
    given_up: set[Equation] = set()
    for _ in range(rounds):
        use = _Use(flow, runs)
        found = sorted(use.candidates(given_up), key=lambda c: (c[0], c[2].serial))
        if not found:
            return
        chosen: list[tuple[int, list[Run]]] = []
        for _, place, tensor, again in found[: max(1, len(found) // 8)]:
            given_up.add(tensor)
            chosen.append((place, again))
        for place, again in sorted(chosen, key=lambda c: -c[0]):
            runs[place:place] = again
        yield list(runs)


class _Use:
    """Who uses what in a list of runs."""

    def __init__(self, flow: Flow, runs: list[Run]) -> None:
        self.flow, self.runs = flow, runs
        self.uses: dict[Equation, list[int]] = {}
        change = [0] * (len(runs) + 2)
        for i, run in enumerate(runs):
            part = flow.slice(run)
            for tensor in (*part.reads, *part.writes):
                self.uses.setdefault(tensor, []).append(i)
        self.made = {t: i for i, run in enumerate(runs) for t in flow.slice(run).writes}
        for tensor, uses in self.uses.items():
            change[uses[0]] += padded(tensor)
            change[uses[-1] + 1] -= padded(tensor)
        live, most, self.peak = 0, -1, 0
        for i, step in enumerate(change):
            live += step
            if live > most:
                most, self.peak = live, i

    def candidates(self, given_up: set[Equation]) -> Iterator[tuple[float, int, Equation, list[Run]]]:
        """(cost for each byte that is freed, where it is read next, what, the runs that compute it again)."""
        for tensor, uses in self.uses.items():
            at = bisect_left(uses, self.peak)
            if tensor in given_up or not 0 < at < len(uses) or uses[at] == self.peak:
                continue
            again = self._again(tensor, uses[at])
            if again is not None:
                yield sum(self.flow.slice(run).cost for run in again) / padded(tensor), uses[at], tensor, again

    def _again(self, tensor: Equation, place: int) -> list[Run] | None:
        """The runs that compute a tensor from what is there at a place."""
        flow = self.flow
        wanted: dict[int, dict[Equation, None]] = {}
        todo = [tensor]
        while todo:
            missing = todo.pop()
            group = flow.writer[missing]
            wanted.setdefault(group, {})[missing] = None
            part = flow.slice(Run(group, tuple(wanted[group])))
            if len(wanted) > FURTHEST or not part.repeatable:
                return None
            for source in part.reads:
                there = self.uses[source][0] < place <= self.uses[source][-1]
                if not there and source not in wanted.get(flow.writer[source], ()):
                    todo.append(source)
        return [Run(group, tuple(tensors)) for group, tensors in sorted(wanted.items())]
