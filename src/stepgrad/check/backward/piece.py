"""The recorded passes at one point as numbered values, so that pieces of them can be computed again with edits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from stepgrad.check.backward.truth import Truth
from stepgrad.tape.backward import walk
from stepgrad.tape.equation import LITERAL, Equation, leaves
from stepgrad.tape.leaves import constant, tensor
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, Tensor

Edits = Mapping[int, Array]
"""Position -> the value to take there instead."""
Functions = Mapping[int, Callable[..., Any]]
"""Position -> what to compute there from the operands, instead of what was recorded."""


_VIEWS = frozenset({"transpose", "reshape", "expand", "getitem", "astype"})


class Tapes:
    """Leaves, forward and backward equations of a `Truth`, numbered.

    Two points of one function have the same equations, so a position found at one is valid at the other.
    A Python number has a position for each use: numbers that are equal at one point may differ at another.

    Attributes:
        equations: the leaves, the forward equations in order, the backward ones.
        first_backward: the position of the first backward equation.
        values: what each computed, an array.
        sources: the positions of each one's operands.
        readers: the positions of those that read it.
        position: equation -> position, without numbers.
        gradients: forward position -> the position of its gradient.
        names: forward position -> the user's name.
        inputs: position -> the name of the input.
        output: the position of the loss.
        flowing: the backward positions that depend on the downstream gradient of the loss.
    """

    def __init__(self, truth: Truth) -> None:
        backward = dict.fromkeys(truth.backward)
        recorded = [e for e in dict.fromkeys([*truth.forward, *truth.backward]) if e not in backward]
        recorded += backward
        arrays = dict.fromkeys(truth.inputs.values())
        arrays |= dict.fromkeys(s for e in recorded for s in e.inputs if s.op in leaves and s.op is not LITERAL)
        numbers = [s for e in recorded for s in e.inputs if s.op is LITERAL]
        self.equations: list[Equation] = [*arrays, *numbers, *recorded]
        self.first_backward = len(self.equations) - len(backward)
        self.position = position = {e: i for i, e in enumerate(self.equations) if e.op is not LITERAL}
        self.values: list[Array] = [np.asarray(_value(e)) for e in self.equations]
        next_number = itertools.count(len(arrays))
        self.sources: list[tuple[int, ...]] = [() for _ in (*arrays, *numbers)]
        for e in recorded:
            self.sources.append(tuple([next(next_number) if s.op is LITERAL else position[s] for s in e.inputs]))
        self.readers: list[list[int]] = [[] for _ in self.equations]
        for i, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source].append(i)
        self.gradients: dict[int, int] = {}
        for equation, gradient in truth.gradients.items():
            if equation in position and gradient.equation in position:
                self.gradients[position[equation]] = position[gradient.equation]
        self.names = {position[e]: name for e, name in truth.names.items() if e in position}
        self.inputs = {position[e]: name for name, e in truth.inputs.items()}
        self.output = position.get(truth.output)
        self.flowing = self._flowing()

    def _flowing(self) -> frozenset[int]:
        found = set() if self.output is None else {self.gradients.get(self.output, -1)}
        for i in range(self.first_backward, len(self.equations)):
            if not found.isdisjoint(self.sources[i]):
                found.add(i)
        return frozenset(found)

    def like(self, other: Tapes) -> bool:
        """Whether positions mean the same in both."""
        return len(self.equations) == len(other.equations) and all(
            a.op is b.op and x == y
            for a, b, x, y in zip(self.equations, other.equations, self.sources, other.sources, strict=True)
        )

    def edited(self, target: int, inside: Iterable[int], values: Edits, functions: Functions) -> Array:
        """The value at `target`, computed again.

        Args:
            target: a backward position.
            inside: the positions that may be computed again, in order; others keep their values.
            values: what stands at some positions instead.
            functions: what is computed at some positions instead.

        Raises:
            Exception: whatever NumPy raises for shapes that don't fit.
        """
        changed: dict[int, Any] = dict(values)
        for i in inside:
            if i in changed:
                continue
            function = functions.get(i)
            if function is None and changed.keys().isdisjoint(self.sources[i]):
                continue
            operands = [changed[s] if s in changed else self.values[s] for s in self.sources[i]]
            equation = self.equations[i]
            changed[i] = function(*operands) if function else equation.op.numpy(*operands, **equation.params)
        return np.asarray(changed.get(target, self.values[target]))

    def between(self, target: int, boundary: frozenset[int]) -> tuple[list[int], set[int]]:
        """The equations that compute `target` from the boundary and from forward values.

        Forward equations that only move numbers are among them, so that K can be exchanged where K.T is read.

        Returns:
            Their positions in order; and the positions that they read and do not compute.
        """
        inside, read, todo = {target}, set(), [target]
        while todo:
            for source in self.sources[todo.pop()]:
                view = self.equations[source].op.name in _VIEWS and source not in self.names
                if (source < self.first_backward and not view) or source in boundary:
                    read.add(source)
                elif source not in inside:
                    inside.add(source)
                    todo.append(source)
        return sorted(inside), read

    def depends(self, start: int, stop: frozenset[int] = frozenset()) -> set[int]:
        """Forward positions that `start` is computed from, itself included, no further than `stop`."""
        seen, todo = {start}, [start]
        while todo:
            i = todo.pop()
            if i in stop:
                continue
            for source in self.sources[i]:
                if source not in seen:
                    seen.add(source)
                    todo.append(source)
        return seen

    def derivative(self, start: int, end: int, at: Array) -> Array:
        """d sum(end) / d start, where `start` has the value `at` and nothing else changes.

        Where `end` is an elementwise function of `start`, that is its derivative at `at`.
        """
        on_the_way = sorted(i for i in self.depends(end, frozenset([start])) if i > start)
        with recording(equations=None, closed=False, region=None), np.errstate(all="ignore"):
            variable = tensor(at)
            made: dict[int, Tensor] = {start: variable}
            for i in on_the_way:
                if made.keys().isdisjoint(self.sources[i]):
                    continue
                operands = [made[s] if s in made else self._fixed(s) for s in self.sources[i]]
                made[i] = self.equations[i].op(*operands, **self.equations[i].params)
            if end not in made or made[end].equation.op in leaves:
                return np.zeros_like(at)
            seed = constant(np.ones(made[end].shape))
            found = walk({made[end].equation: seed}, [variable.equation])
        gradient = found.get(variable.equation)
        return np.zeros_like(at) if gradient is None else np.asarray(gradient.value)

    def forward(self, start: int, end: int, at: Array) -> Array:
        """The value at `end` where `start` has the value `at`."""
        on_the_way = sorted(i for i in self.depends(end, frozenset([start])) if i > start)
        return self.edited(end, on_the_way, {start: at}, {})

    def _fixed(self, i: int) -> Tensor:
        equation = self.equations[i]
        return equation.output if equation.op is LITERAL else constant(self.values[i])


def _value(equation: Equation) -> Any:
    return equation.params["value"] if equation.op is LITERAL else equation.value
