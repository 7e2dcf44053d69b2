"""The way of a gradient from a loss back to a tensor: which equations pass it on, and how much each lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepgrad.tape.backward import walk
from stepgrad.tape.equation import Equation, Role
from stepgrad.tape.leaves import constant
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, Tensor


@dataclass(frozen=True, eq=False)
class Passed:
    """One equation on the way, and what its local rule makes of the gradient.

    Attributes:
        equation: the forward equation.
        operand: the operand to which it passes the gradient on.
        arrives: the downstream gradient.
        passes: the upstream gradient for that operand.
        parts: how many equations contribute to the gradient of that operand.
    """

    equation: Equation
    operand: int
    arrives: Array
    passes: Array
    parts: int

    @property
    def gain(self) -> float:
        """The norm of what it passes on, divided by the norm of what arrives."""
        before = norm(self.arrives)
        return norm(self.passes) / before if before else 0.0


@dataclass(frozen=True, eq=False)
class Walked:
    """A backward walk from a loss to one tensor, with the values of all gradients on the way.

    Attributes:
        gradient: of the tensor; None if there is no path.
        way: the equations along which most of it came, the loss first. Where the gradient is zero: along
            which it came nearest.
        cuts: for a zero gradient, all equations where something arrives, and nothing is passed on, on any way.
    """

    gradient: Array | None
    way: tuple[Passed, ...]
    cuts: tuple[Passed, ...]


def norm(x: Any) -> float:
    """The Euclidean norm, also where squares would overflow or underflow."""
    values = np.abs(np.asarray(x, np.float64)).reshape(-1)
    largest = float(values.max(initial=0.0))
    if not largest or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum(np.square(values / largest))))


def walked(loss: Equation, target: Equation, forward: Sequence[Equation]) -> Walked:
    """Walks back from a loss to a tensor.

    Args:
        loss: a number that is on a tape.
        target: a leaf, or something computed on the way to the loss.
        forward: every equation that the loss depends on, in order.
    """
    emitted: list[Equation] = []
    plain: dict[str, Any] = {"of": None, "operand": None, "observe": None, "masks": None, "cells": None}
    with (
        recording(equations=emitted, closed=True, region=None, scope=(), role=Role.FORWARD, **plain),
        np.errstate(all="ignore"),
    ):
        gradients = walk({loss: constant(np.ones((), loss.type.dtype))}, [target], forward)
    if target not in gradients:
        return Walked(None, (), ())
    flow = _Flow(forward, gradients, emitted)
    gradient = flow.values[target]
    if norm(gradient):
        return Walked(gradient, flow.largest(loss, target), ())
    cuts, rest = flow.cuts(target)
    way = flow.largest(loss, cuts[0].equation) if cuts else ()
    return Walked(gradient, (*way, *cuts[:1], *rest), tuple(cuts))


class _Flow:
    """What each equation contributes to the gradients of what it reads."""

    def __init__(
        self, forward: Sequence[Equation], gradients: dict[Equation, Tensor], emitted: Sequence[Equation]
    ) -> None:
        self.values = {e: np.asarray(g.value) for e, g in gradients.items()}
        last: dict[tuple[Equation, int], Any] = {}
        for e in emitted:
            if e.of is not None and e.operand is not None:
                last[e.of, e.operand] = e.value
        self.readers: dict[Equation, list[Passed]] = {}
        for e in forward:
            if e not in self.values:
                continue
            for operand, source in enumerate(e.inputs):
                if source in self.values and e.op.rule(operand) is not None:
                    passes = np.asarray(last.get((e, operand), self.values[e]))
                    passed = Passed(e, operand, self.values[e], passes, 1)
                    self.readers.setdefault(source, []).append(passed)

    def largest(self, loss: Equation, target: Equation) -> tuple[Passed, ...]:
        """The way along which most came, the loss first: at each value, the reader that contributed most."""
        found: list[Passed] = []
        current = target
        while current is not loss:
            readers = self.readers[current]
            best = max(readers, key=lambda r: (norm(r.passes), norm(r.arrives), r.equation.serial))
            found.append(replace(best, parts=len(readers)))
            current = best.equation
        return tuple(reversed(found))

    def cuts(self, target: Equation) -> tuple[list[Passed], list[Passed]]:
        """Where something arrives, and nothing is passed on or contributions cancel.

        Returns:
            Those places, the nearest first; and the way on from the nearest to the target.
        """
        found: list[Passed] = []
        came: dict[Equation, Passed] = {}
        todo = [target]
        for current in todo:  # grows: the values to which no gradient comes
            readers = self.readers.get(current, [])
            for passed in (replace(r, parts=len(readers)) for r in readers):
                if norm(passed.arrives):
                    found.append(passed)
                elif passed.equation not in came:
                    came[passed.equation] = passed
                    todo.append(passed.equation)
        rest: list[Passed] = []
        current = found[0].equation.inputs[found[0].operand] if found else target
        while current is not target:
            rest.append(came[current])
            current = came[current].equation.inputs[came[current].operand]
        return found, rest
