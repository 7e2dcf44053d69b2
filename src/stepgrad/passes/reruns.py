"""Reruns: programs in which some kernels run more than once, so that their values need no memory in between.

A program is a list of runs. Each reads the latest version of every tensor, so what a run computes again is
from then on read from there, and the memory of the version before is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepgrad.cells import ASSIGN
from stepgrad.passes.buffers import padded
from stepgrad.passes.fusion import Fusion, Group
from stepgrad.passes.rewriting import Change, Changes, Rewrite, copied
from stepgrad.tape.equation import Equation, Role
from stepgrad.tape.tape import Tape

RECOMPUTED = Rewrite(
    "computed again", "the same operations on the same values give the same bits, and take less memory"
)


@dataclass(frozen=True)
class Run:
    """A kernel at work.

    Attributes:
        group: the position of the group that the kernel is made of.
        wanted: the tensors for which it runs again; None where it runs for the first time.
    """

    group: int
    wanted: tuple[Equation, ...] | None = None


@dataclass(frozen=True)
class Slice:
    """The part of a group that computes some of its tensors.

    Attributes:
        members: the equations, in order.
        reads, writes: tensors in planned memory.
        cost: floating-point operations, and one for each element that is written.
        repeatable: nothing of it assigns to a cell.
    """

    members: tuple[Equation, ...]
    reads: tuple[Equation, ...]
    writes: tuple[Equation, ...]
    cost: float
    repeatable: bool


class Flow:
    """Which group reads and writes which tensors, as far as their memory is planned.

    Args:
        fusion: the groups.
        elsewhere: tensors that are kept elsewhere: the user's results.
    """

    def __init__(self, fusion: Fusion, elsewhere: Collection[Equation]) -> None:
        self.fusion = fusion
        self._planned = {e for e in fusion.stored if e in fusion.home and e.op is not ASSIGN}.difference(elsewhere)
        self._slices: dict[Run, Slice] = {}
        self.firsts = [Run(i) for i in range(len(fusion.groups))]
        self.writer: dict[Equation, int] = {}
        self.readers: dict[Equation, list[int]] = {}
        for run in self.firsts:
            part = self.slice(run)
            for tensor in part.writes:
                self.writer[tensor] = run.group
            for tensor in part.reads:
                self.readers.setdefault(tensor, []).append(run.group)

    @property
    def groups(self) -> list[Group]:
        return self.fusion.groups

    def slice(self, run: Run) -> Slice:
        """What a run computes."""
        found = self._slices.get(run)
        if found is None:
            found = self._slices[run] = self._sliced(run)
        return found

    def _sliced(self, run: Run) -> Slice:
        group, planned, uses = self.groups[run.group], self._planned, self.fusion.uses
        needed = set(group.members) if run.wanted is None else set(run.wanted)
        todo = list(needed)
        reads: dict[Equation, None] = {}
        while todo:
            for source in uses(todo.pop()):
                if source not in group.at:
                    if source in planned:
                        reads[source] = None
                elif source not in needed:
                    needed.add(source)
                    todo.append(source)
        members = tuple([e for e in group.members if e in needed])
        wanted = members if run.wanted is None else run.wanted
        writes = tuple([e for e in wanted if e in planned])
        cost = float(sum(map(operations, members)) + sum(e.type.size for e in writes))
        return Slice(members, tuple(reads), writes, cost, all(e.op is not ASSIGN for e in members))

    def peak(self, runs: Iterable[Run]) -> int:
        """The most bytes that are needed at once."""
        begun: dict[Equation, int] = {}
        ended: dict[Equation, int] = {}
        spans: list[tuple[int, int, int]] = []
        count = 0

        def close(tensor: Equation) -> None:
            last = ended.pop(tensor, None)
            if last is not None:  # what nobody reads is not stored
                spans.append((begun[tensor], last, padded(tensor)))

        for count, run in enumerate(runs):
            part = self.slice(run)
            for tensor in part.reads:
                ended[tensor] = count
            for tensor in part.writes:
                close(tensor)
                begun[tensor] = count
        for tensor in list(ended):
            close(tensor)
        if not spans:
            return 0
        first, last, size = np.array(spans, np.int64).T
        change = np.zeros(count + 2, np.int64)
        np.add.at(change, first, size)
        np.add.at(change, last + 1, -size)
        return int(change.cumsum().max())

    def cost(self, runs: Iterable[Run]) -> float:
        """What the runs cost that are not the first of their kernel."""
        return sum(self.slice(run).cost for run in runs if run.wanted is not None)


def operations(equation: Equation) -> int:
    """Floating-point operations of an equation."""
    if equation.op.cost is not None:
        return int(equation.op.cost(*[e.type for e in equation.inputs], equation.type, **equation.params))
    return equation.type.size if equation.op.elementwise else 0


# --- the tape of a list of runs


def unrolled(flow: Flow, runs: Sequence[Run], changes: Changes) -> Tape:
    """The tape that computes what the runs say, in their order.

    What runs for the first time has its equations as they are, or with other inputs; what runs again has
    copies of them, with the role BACKWARD and the equation that they repeat as their origin.
    """
    return _Unrolling(flow, changes).tape(runs)


class _Unrolling:
    def __init__(self, flow: Flow, changes: Changes) -> None:
        self.flow, self.changes = flow, changes
        self.latest: dict[Equation, Equation] = {}
        self.made: list[Equation] = []
        self._own = set(flow.fusion.tape.equations)
        self._views: dict[tuple[Equation, tuple[Equation, ...]], Equation] = {}

    def tape(self, runs: Sequence[Run]) -> Tape:
        before, final = self.flow.fusion.tape, self.changes.moved
        for run in runs:
            for member in self.flow.slice(run).members:
                self.latest[member] = self._again(member) if run.wanted is not None else self._once(member)
        outputs = [final.get(e, e) for e in before.outputs]
        return Tape(self.made, before.inputs, outputs)

    def _once(self, member: Equation) -> Equation:
        inputs = tuple([self._now(e) for e in member.inputs])
        of = None if member.of is None else self.changes.moved.get(member.of, member.of)
        if inputs == member.inputs and of is member.of:
            self.made.append(member)
            return member
        copy = copied(member, inputs, of)
        self.made.append(copy)
        self.changes.moved[member] = copy
        return copy

    def _again(self, member: Equation) -> Equation:
        copy = _repeated(member, tuple([self._now(e) for e in member.inputs]))
        self.made.append(copy)
        self.changes.made.append(Change(RECOMPUTED, member, copy))
        return copy

    def _now(self, wanted: Equation) -> Equation:
        """The latest version of what an equation reads; views, and what every kernel computes itself, are made anew."""
        todo = [wanted]
        known: dict[Equation, Equation] = {}
        home, own = self.flow.fusion.home, self._own
        while todo:
            equation = todo[-1]
            if equation in known:
                todo.pop()
            elif equation not in own:
                known[todo.pop()] = equation
            elif equation in home:
                known[todo.pop()] = self.latest[equation]
            else:
                missing = [e for e in equation.inputs if e not in known]
                if missing:
                    todo.extend(missing)
                    continue
                inputs = tuple([known[e] for e in equation.inputs])
                known[todo.pop()] = self._view(equation, inputs)
        return known[wanted]

    def _view(self, equation: Equation, inputs: tuple[Equation, ...]) -> Equation:
        found = self._views.get((equation, inputs))
        if found is None:
            if inputs == equation.inputs:
                found = equation
            elif equation.role is Role.FORWARD:
                found = _repeated(equation, inputs)
            else:
                of = None if equation.of is None else self.changes.moved.get(equation.of, equation.of)
                found = copied(equation, inputs, of)
            self._views[equation, inputs] = found
            self.made.append(found)
        return found


def _repeated(equation: Equation, inputs: tuple[Equation, ...]) -> Equation:
    copy = copied(equation, inputs, equation.of if equation.role is Role.BACKWARD else equation)
    copy.role, copy.name = Role.BACKWARD, None
    return copy
