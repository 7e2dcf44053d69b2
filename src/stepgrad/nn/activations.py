"""Activations as layers, for use in `Sequential`: each is the function of the same name."""

from __future__ import annotations

from typing import Any

from stepgrad.nn.module import Module
from stepgrad.tensor import Tensor, functions


class Activation(Module):
    """A layer that applies one of stepgrad's functions. Abstract: final classes name the function.

    Their settings are attributes, and are passed to the function as keywords of the same names.
    """

    _function = ""

    def __init_subclass__(cls, function: str) -> None:
        cls._function = function

    def forward(self, x: Any) -> Tensor:
        settings = {name: value for name, value in vars(self).items() if name != "training" and name[0] != "_"}
        return functions[self._function](x, **settings)


class ReLU(Activation, function="relu"):
    """max(x, 0)."""


class Sigmoid(Activation, function="sigmoid"):
    """1 / (1 + exp(-x))."""


class Tanh(Activation, function="tanh"):
    """The hyperbolic tangent."""


class SELU(Activation, function="selu"):
    """The scaled ELU (Klambauer et al. 2017); initialise with `lecun_normal`."""


class SiLU(Activation, function="silu"):
    """x * sigmoid(x)."""


class Mish(Activation, function="mish"):
    """x * tanh(softplus(x))."""


class Softplus(Activation, function="softplus"):
    """log(1 + exp(x))."""


class Softsign(Activation, function="softsign"):
    """x / (1 + |x|)."""


class Hardswish(Activation, function="hardswish"):
    """x * clip(x + 3, 0, 6) / 6."""


class LogSigmoid(Activation, function="log_sigmoid"):
    """log(sigmoid(x))."""


class LeakyReLU(Activation, function="leaky_relu"):
    """x where positive, and x times `negative_slope` elsewhere."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope


class ELU(Activation, function="elu"):
    """x where positive, and alpha * (exp(x) - 1) elsewhere."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha


class CELU(Activation, function="celu"):
    """x where positive, and alpha * (exp(x / alpha) - 1) elsewhere."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha


class GELU(Activation, function="gelu"):
    """x times the normal distribution function of x; `approximate="tanh"` for the usual approximation."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate


class Hardtanh(Activation, function="hardtanh"):
    """x, limited to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val, self.max_val = min_val, max_val


class Softmax(Activation, function="softmax"):
    """exp(x) / sum(exp(x)) along an axis. Not before `cross_entropy`, which takes logits."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis


class LogSoftmax(Activation, function="log_softmax"):
    """log(softmax(x)) along an axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis
