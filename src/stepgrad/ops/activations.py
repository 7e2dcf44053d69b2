"""Activations: the nonlinear functions between the layers of a network.

None of them overflows, however large the numbers; nor do their derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops import plain
from stepgrad.ops.arguments import number
from stepgrad.ops.arithmetic import absolute, numpy_dtype
from stepgrad.ops.choosing import clip, where
from stepgrad.ops.exponentials import exp
from stepgrad.ops.lazy import special
from stepgrad.ops.powers import square
from stepgrad.ops.registry import public
from stepgrad.ops.samples import Sample, normal, uniform
from stepgrad.ops.special import erfc
from stepgrad.ops.trigonometric import tanh
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Rule, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, numpy_functions

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
]


def activation(
    name: str, numpy: Callable[..., Any], rule: Rule, text: str, *samples: Sample | tuple[Any, ...], **more: Any
) -> Op:
    """An elementwise op of one operand that NumPy does not have."""
    flops = more.pop("flops", 4)
    return public(
        Op(
            name,
            shape=same_shape,
            dtype=numpy_dtype(numpy),
            numpy=numpy,
            rules=(rule,),
            text=text,
            samples=[s if isinstance(s, tuple) else (s,) for s in samples or (normal(2, 3),)],
            elementwise=True,
            cost=lambda a, out, **params: float(flops * out.size),
            **more,
        )
    )


# --- relu and its relatives

relu = activation(
    "relu",
    lambda a: np.maximum(a, 0),
    lambda g, out, a: g * (a > 0),
    "np.maximum({0}, 0)",
    flops=1,
    doc="max(a, 0). Its derivative at 0 is 0.",
)

_leaky_relu = activation(
    "leaky_relu",
    plain.leaky_relu,
    lambda g, out, a, negative_slope: where(a > 0, g, negative_slope * g),
    "leaky_relu({0}, negative_slope={negative_slope})",
    (normal(2, 3), {"negative_slope": 0.01}),
    (normal(2, 3), {"negative_slope": 0.3}),
    flops=2,
)


@public
def leaky_relu(a: Any, negative_slope: float = 0.01) -> Tensor:
    """`a` where it is positive, and `negative_slope * a` elsewhere. Its derivative at 0 is `negative_slope`.

    Args:
        a: a tensor or array.
        negative_slope: the slope below 0.

    Example:
        >>> sg.leaky_relu(sg.tensor([-2.0, 3.0]), 0.1)
        tensor([-0.2,  3. ], dtype=float64)
    """
    return record(_leaky_relu, (as_tensor(a),), {"negative_slope": number(negative_slope, "negative_slope")})


_elu = activation(
    "elu",
    plain.elu,
    lambda g, out, a, alpha: where(a > 0, g, g * (alpha * exp(a))),
    "elu({0}, alpha={alpha})",
    (normal(2, 3), {"alpha": 1.0}),
    (normal(2, 3), {"alpha": 0.5}),
)


@public
def elu(a: Any, alpha: float = 1.0) -> Tensor:
    """`a` where it is positive, and `alpha * (exp(a) - 1)` elsewhere. Its derivative at 0 is `alpha`.

    Args:
        a: a tensor or array.
        alpha: minus the value that it approaches far below 0.

    Example:
        >>> sg.elu(sg.tensor([-100.0, 3.0]))
        tensor([-1.,  3.], dtype=float64)
    """
    return record(_elu, (as_tensor(a),), {"alpha": number(alpha, "alpha")})


_celu = activation(
    "celu",
    plain.celu,
    lambda g, out, a, alpha: where(a > 0, g, g * exp(a / alpha)),
    "celu({0}, alpha={alpha})",
    (normal(2, 3), {"alpha": 1.0}),
    (normal(2, 3), {"alpha": 0.5}),
)


@public
def celu(a: Any, alpha: float = 1.0) -> Tensor:
    """`a` where it is positive, and `alpha * (exp(a / alpha) - 1)` elsewhere: an elu without a kink.

    Args:
        a: a tensor or array.
        alpha: minus the value that it approaches far below 0; positive.

    Raises:
        ArgumentError: alpha is not positive.

    Example:
        >>> sg.celu(sg.tensor([-100.0, 3.0]), alpha=2.0)
        tensor([-2.,  3.], dtype=float64)
    """
    alpha = number(alpha, "alpha")
    if not alpha > 0:
        raise ArgumentError(
            f"celu was called with alpha={alpha!r}",
            "it divides by alpha, which has to be positive",
            "use a positive number, for example alpha=1.0",
        )
    return record(_celu, (as_tensor(a),), {"alpha": alpha})


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

selu = activation(
    "selu",
    plain.selu,
    lambda g, out, a: where(a > 0, g * _SELU_SCALE, g * (_SELU_SCALE * _SELU_ALPHA * exp(a))),
    "selu({0})",
    doc="An elu scaled so that activations keep mean 0 and variance 1 (Klambauer et al. 2017). "
    "Its derivative at 0 is that from below.",
)

_hardtanh = activation(
    "hardtanh",
    lambda a, min_val, max_val: np.clip(a, min_val, max_val),
    lambda g, out, a, min_val, max_val: g * ((a > min_val) & (a < max_val)),
    "np.clip({0}, {min_val}, {max_val})",
    (normal(2, 3), {"min_val": -1.0, "max_val": 1.0}),
    (normal(2, 3), {"min_val": 0.0, "max_val": 6.0}),
    flops=2,
)


@public
def hardtanh(a: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`a` brought into an interval. Its derivative is 0 outside and at the ends.

    Args:
        a: a tensor or array.
        min_val, max_val: the ends of the interval.

    Example:
        >>> sg.hardtanh(sg.tensor([-2.0, 0.5]))
        tensor([-1. ,  0.5], dtype=float64)
    """
    ends = {"min_val": number(min_val, "min_val"), "max_val": number(max_val, "max_val")}
    return record(_hardtanh, (as_tensor(a),), ends)


@public
def relu6(a: Any) -> Tensor:
    """min(max(a, 0), 6). Its derivative at 0 and 6 is 0.

    Args:
        a: a tensor or array.

    Example:
        >>> sg.relu6(sg.tensor([-1.0, 3.0, 7.0]))
        tensor([0., 3., 6.], dtype=float64)
    """
    return hardtanh(a, 0.0, 6.0)


hardsigmoid = activation(
    "hardsigmoid",
    lambda a: np.clip(a + 3, 0, 6) / 6,
    lambda g, out, a: g * ((a > -3) & (a < 3)) / 6,
    "np.clip({0} + 3, 0, 6) / 6",
    uniform(-5, 5, 3, 3),
    doc="A sigmoid made of three straight lines. Its derivative at -3 and 3 is 0.",
)

hardswish = activation(
    "hardswish",
    plain.hardswish,
    lambda g, out, a: where(a < 3, where(a > -3, g * (a / 3 + 0.5), 0.0), g),
    "hardswish({0})",
    uniform(-5, 5, 3, 3),
    doc="a * hardsigmoid(a). Its derivative at -3 is 0, and at 3 it is 1.",
)


# --- sigmoid and its relatives


def _sigmoid_numpy(a: Any) -> Any:
    return 1 / (1 + np.exp(-a)) if np.iscomplexobj(a) else special.expit(a)


sigmoid = activation(
    "sigmoid",
    _sigmoid_numpy,
    lambda g, out, a: g * (out * (1 - out)),
    "1 / (1 + np.exp(-{0}))",
    analytic=True,
    doc="1 / (1 + exp(-a)), computed without overflow.",
)

log_sigmoid = activation(
    "log_sigmoid",
    special.log_expit,
    lambda g, out, a: g * sigmoid(-a),
    "special.log_expit({0})",
    doc="log(sigmoid(a)), computed without overflow.",
)

softplus = activation(
    "softplus",
    lambda a: np.logaddexp(a, 0),
    lambda g, out, a: g * sigmoid(a),
    "np.logaddexp({0}, 0)",
    doc="log(1 + exp(a)), computed without overflow.",
)

softsign = activation(
    "softsign",
    plain.softsign,
    lambda g, out, a: g / square(1 + absolute(a)),
    "softsign({0})",
    flops=3,
    doc="a / (1 + |a|).",
)


def _silu_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    s = sigmoid(a)
    return g * (s * (1 + a * (1 - s)))


silu = activation(
    "silu",
    plain.silu,
    _silu_rule,
    "silu({0})",
    flops=5,
    doc="a * sigmoid(a), also known as swish.",
)


def _mish_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    t = tanh(softplus(a))
    return g * (t + a * (1 - square(t)) * sigmoid(a))


mish = activation("mish", plain.mish, _mish_rule, "mish({0})", flops=6, doc="a * tanh(softplus(a)).")


# --- gelu


def _gelu_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    probability = erfc(a * -math.sqrt(0.5)) / 2
    density = exp(square(a) / -2) / math.sqrt(2 * math.pi)
    return g * (probability + a * density)


def _gelu_tanh_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    b = clip(a, -30.0, 30.0)  # beyond, the derivative is 0 or 1 to the last digit, and no power of b overflows
    scale, cube = math.sqrt(2 / math.pi), 0.044715
    t = tanh(scale * (b * (1 + cube * square(b))))
    return g * ((1 + t) / 2 + b * (1 - square(t)) * (scale / 2 * (1 + 3 * cube * square(b))))


_gelu = activation("gelu", plain.gelu, _gelu_rule, "gelu({0})", analytic=True)

_gelu_tanh = activation("gelu_tanh", plain.gelu_tanh, _gelu_tanh_rule, "gelu_tanh({0})", analytic=True, flops=9)


@public
def gelu(a: Any, approximate: str = "none") -> Tensor:
    """`a` times the probability that a standard normal number is below it (Hendrycks & Gimpel 2016).

    Args:
        a: a tensor or array.
        approximate: "none" for the exact function, "tanh" for its approximation by tanh.

    Raises:
        ArgumentError: `approximate` is something else.

    Example:
        >>> sg.gelu(sg.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.15865525,  0.        ,  0.84134475], dtype=float64)
    """
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise ArgumentError(
            f"gelu was called with approximate={approximate!r}",
            "it knows the exact function and one approximation",
            'use approximate="none" or approximate="tanh"',
        )
    return record(_gelu if approximate == "none" else _gelu_tanh, (as_tensor(a),), {})


numpy_functions |= {special.expit: sigmoid, special.log_expit: log_sigmoid}
