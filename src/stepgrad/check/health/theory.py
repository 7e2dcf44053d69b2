"""What initialisation theory predicts for a network: how large its signals and gradients are before the first step.

The recursion of He et al. (2015, equations 10 and 14) and Glorot and Bengio (2010): outputs of a layer are
taken for normal numbers of mean 0, and weights for independent of what they multiply. Means of an
activation over such numbers are computed by quadrature, so that any activation will do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.check.health.layers import Found, applied_to
from stepgrad.check.health.record import Expected
from stepgrad.tape.equation import Equation
from stepgrad.tensor import Array, functions

Function = Callable[[Array], Array]

_GRID = np.linspace(-30.0, 30.0, 1201)
_STEP = 1e-5


class Activation:
    """A function of one number, as it follows a layer.

    Attributes:
        name: see `record.Layer`; None if it is a straight line.
        steepest: the largest magnitude of its derivative between -30 and 30.
        saturates: it is flat on both ends: there its derivative is below 1/20 of the steepest.
    """

    def __init__(self, layer: Found) -> None:
        def function(values: Array) -> Array:
            return applied_to(layer.applied, layer.output, values)

        self.function: Function = function
        values, slopes = function(_GRID), self.derivative(_GRID)
        # At a kink on the grid the central difference gives the mean of two slopes, never more than the larger.
        known = slopes[np.isfinite(slopes)]
        self.steepest = float(np.max(np.abs(known), initial=0.0)) or 1.0
        straight = bool(np.allclose(slopes, slopes[0], rtol=1e-6, atol=1e-9))
        self.name = None if straight else _named(layer.applied, values)
        ends = np.abs(slopes[[0, -1]])
        self.saturates = self.name is not None and bool(np.all(ends < self.steepest / 20))

    def derivative(self, values: Array) -> Array:
        """Its derivative, by central differences."""
        return (self.function(values + _STEP) - self.function(values - _STEP)) / (2 * _STEP)

    def mean_square(self, variance: float, derivative: bool = False) -> float:
        """The mean of its square (or of its derivative's) over normal numbers of mean 0."""
        points, weights = _quadrature()
        values = (self.derivative if derivative else self.function)(points * math.sqrt(variance))
        with np.errstate(all="ignore"):
            return float(np.sum(weights * np.square(values)))


@functools.cache
def _quadrature() -> tuple[Array, Array]:
    """Points and weights for means over the standard normal distribution; even a kink at 0 is integrated well."""
    points = np.linspace(-8.0, 8.0, 2002)
    weights = np.exp(-np.square(points) / 2)
    return points, weights / weights.sum()


_KNOWN = ("relu", "sigmoid", "tanh", "elu", "selu", "gelu", "silu", "softplus", "softsign", "mish", "hardswish")
_MORE = ("hardtanh", "hardsigmoid", "log_sigmoid", "absolute", "square", "sin", "cos")


@functools.cache
def _tables() -> dict[str, Array]:
    """The values of known functions on the grid."""
    return {name: np.asarray(functions[name](_GRID).numpy()) for name in _KNOWN + _MORE}


def _named(applied: Sequence[Equation], values: Array) -> str:
    if len(applied) > 1 or applied[0].op.name in ("maximum", "where", "clip"):
        for name, known in _tables().items():
            if np.allclose(known, values, rtol=1e-6, atol=1e-9, equal_nan=True):
                return name
        positive, negative = _GRID > 0, _GRID < 0
        slope = values[0] / _GRID[0]
        line = np.allclose(values[positive], _GRID[positive]) and np.allclose(values[negative], slope * _GRID[negative])
        if line:
            return "leaky_relu"
    return " of ".join(dict.fromkeys(e.op.name for e in reversed(applied)))


def expected(
    layers: Sequence[Found],
    activations: Sequence[Activation],
    values: Mapping[str, Array],
    measured: Callable[[Equation], Array],
) -> list[Expected | None]:
    """What to expect of each layer.

    Where something other than an activation stands between two layers, the recursion begins anew, from
    the size that was measured there on the first batch.

    Args:
        layers, activations: in forward order.
        values: of the parameters, by path.
        measured: the value of an equation for the first batch.

    Returns:
        None for layers that don't multiply by a matrix.
    """
    found: list[Expected | None] = []
    outputs: list[float] = []  # the variance of each layer's output
    for layer, activation in zip(layers, activations, strict=True):
        if layer.weight is None or layer.fan_in is None or layer.fan_out is None or layer.source is None:
            found.append(None)
            outputs.append(_mean_square(measured(layer.output)))
            continue
        size = _mean_square(values[layer.weight])
        entering, gain = _mean_square(measured(layer.source)), None
        if layer.before is not None and layer.direct is not None:
            factor = _handed_on(layer.direct, measured)
            entering = factor * activations[layer.before].mean_square(outputs[layer.before])
            slope = activations[layer.before].mean_square(outputs[layer.before], derivative=True)
            gain = math.sqrt(layer.fan_out * size * slope * factor)
        shifts = sum(_mean_square(values[p]) for p in layer.parameters if p != layer.weight)
        output = layer.fan_in * size * entering + shifts
        outputs.append(output)
        found.append(
            Expected(
                output_rms=math.sqrt(output),
                activation_rms=math.sqrt(activation.mean_square(output)),
                gain=gain,
                ideal_weight_std=_ideal(activation, layer.fan_in, layer.fan_out),
            )
        )
    return found


def _mean_square(array: Array) -> float:
    with np.errstate(all="ignore"):
        return float(np.mean(np.square(array, dtype=np.float64))) if array.size else 0.0


def _handed_on(direct: Sequence[Equation], measured: Callable[[Equation], Array]) -> float:
    """By how much what hands a signal on changes its mean square: a dropout mask does."""
    factor = 1.0
    for equation in direct:
        if equation.op.name == "multiply":
            other = [e for e in equation.inputs if e not in direct and not e.active]
            factor *= _mean_square(np.asarray(measured(other[0]))) if other else 1.0
    return factor


def _ideal(activation: Activation, fan_in: int, fan_out: int) -> float:
    """Glorot's where the activation is a line around 0 (or there is none), and He's for all others."""
    if activation.name is None or activation.saturates:
        return math.sqrt(2 / (fan_in + fan_out))
    slope = activation.mean_square(1.0, derivative=True)
    return 1 / math.sqrt(fan_in * slope) if slope > 0 and math.isfinite(slope) else math.sqrt(1 / fan_in)


def initial_loss(ops: Sequence[str], name: str, classes: int | None, mean: Any, std: Any) -> float | None:
    """The loss of a network that knows nothing.

    Args:
        ops: of the loss.
        name: of the loss function.
        classes: how many there are, or None.
        mean, std: of the targets.
    """
    if "cross_entropy" in ops and classes:
        return math.log(classes)
    if "binary_cross_entropy" in ops:
        return math.log(2)
    if name == "mse":
        return float(mean**2 + std**2)  # answers near 0
    return None
