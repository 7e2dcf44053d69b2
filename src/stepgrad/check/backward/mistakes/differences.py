"""Gradients of losses as they are written by hand: multiples of the prediction minus the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array


@dataclass(frozen=True)
class Difference:
    """The gradient of a loss as it is written by hand: a multiple of `prediction - target`.

    The multiple may be an array, such as the derivative of the last activation.

    Attributes:
        prediction: the position of the prediction.
        target: computes the target at a point.
    """

    prediction: int
    target: Callable[..., Array]

    def exchanged(self, point: Point, prediction: Array | None = None, target: Array | None = None) -> Array:
        """The right value with another prediction, or another target."""
        known, labels = point.value(self.prediction), self.target(point)
        new = (known if prediction is None else prediction) - (labels if target is None else target)
        return point.right / (known - labels) * new


def differences(scene: Scene) -> Iterator[Difference]:
    """The ways to read the right value as a multiple of a difference of two forward values of its shape."""
    first = scene.first
    if not scene.at_loss:
        return
    here = [i for i in scene.named if first.value(i).shape == first.right.shape and not scene.is_data(i)]
    targets = [i for i in scene.forward if scene.is_data(i) and first.value(i).shape == first.right.shape]
    for prediction in here:
        for target in [i for i in targets if i in scene.named] or targets:
            yield Difference(prediction, lambda p, t=target: p.value(t))
        # Labels that are indices: the right value is a multiple of the prediction minus a one-hot array.
        for scale in (_one, _mean):
            labels = first.value(prediction) - first.right / scale(first)
            if np.all((abs(labels) < 1e-9) | (abs(labels - 1) < 1e-9)):
                yield Difference(
                    prediction, lambda p, u=prediction, scale=scale: np.round(p.value(u) - p.right / scale(p))
                )
                break


def _one(point: Point) -> float:
    return 1.0


def _mean(point: Point) -> float:
    return 1 / point.count()
