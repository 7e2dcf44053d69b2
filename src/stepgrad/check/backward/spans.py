"""The functions between a forward value and a later one: activations, softmax, and their derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import agree, ratio
from stepgrad.tape.equation import leaves
from stepgrad.tensor import Array

if TYPE_CHECKING:
    from stepgrad.check.backward.scene import Scene


@dataclass(frozen=True)
class Span:
    """A function that the forward pass applies: `end = f(start)`.

    Attributes:
        start, end: forward positions, of one shape.
        elementwise: each element of the end depends on the same element of the start.
        bare: the line computes f' itself, rather than the gradient of the start.
    """

    start: int
    end: int
    elementwise: bool
    bare: bool

    def derivative(self, point: Point, at: Array | None = None) -> Array:
        """f' at the start's value, or somewhere else."""
        value = point.value(self.start) if at is None else at
        return point.tapes.derivative(self.start, self.end, value)

    def arriving(self, point: Point) -> Array:
        """The downstream gradient of the function; ones where only f' is computed.

        It is the user's own where that is as right: at ties of a maximum several gradients are.
        """
        if self.bare:
            return np.full(point.right.shape, point.scale)
        name = point.tapes.names.get(self.end)
        own = None if name is None else point.sighting.known.get("d" + name)
        if self.elementwise and own is not None and own.shape == point.right.shape:
            with np.errstate(all="ignore"):
                if agree(own * self.derivative(point), point.right):
                    return own
        return point.gradient(self.end)


def spans_of(scene: Scene) -> Iterator[Span]:
    for goal in scene.goals:
        if scene.equation(goal).op not in leaves or goal in scene.tapes.inputs:
            yield from spans_from(scene, goal)
    if not scene.goals:
        yield from _bare_spans(scene)


def spans_from(scene: Scene, goal: int) -> Iterator[Span]:
    """The functions from a forward value on."""
    tapes, first = scene.tapes, scene.first
    if goal in tapes.gradients:
        shape = scene.equation(goal).type.shape
        elementwise = scene.elementwise_from(goal)
        ends = [e for e in scene.only_from(goal) if e in tapes.gradients and scene.equation(e).type.shape == shape]
        # The user's own names first; of the rest only the last one: what lies between is how NumPy spells it.
        ends.sort(key=lambda e: (e not in scene.named, -e))
        unnamed = 0
        for end in ends:
            unnamed += end not in scene.named
            if end not in scene.named and unnamed > 1:
                break
            if end in elementwise:
                made = tapes.derivative(goal, end, first.value(goal)) * tapes.values[tapes.gradients[end]]
                if agree(made, tapes.values[tapes.gradients[goal]], 1e-6):
                    yield Span(goal, end, True, False)
            else:
                yield Span(goal, end, False, False)


def _bare_spans(scene: Scene) -> Iterator[Span]:
    tapes, first = scene.tapes, scene.first
    for start in scene.named:
        if first.value(start).shape == first.right.shape and scene.equation(start).active:
            for end in scene.elementwise_from(start) & scene.named.keys():
                if ratio(first.right, tapes.derivative(start, end, first.value(start))) is not None:
                    yield Span(start, end, True, True)
