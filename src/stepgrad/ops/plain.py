"""Meanings that take more than one readable NumPy expression.

Each is a function on arrays that stands on its own, in NumPy and scipy.special: an op takes it as
its reference meaning, its text calls it by name, and generated source carries a copy of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.lazy import special


def leaky_relu(a: Any, negative_slope: float) -> Any:
    return np.where(a > 0, a, negative_slope * a)


def elu(a: Any, alpha: float) -> Any:
    return np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0)))


def selu(a: Any) -> Any:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return scale * np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0)))


def celu(a: Any, alpha: float) -> Any:
    return np.where(a > 0, a, alpha * np.expm1(np.minimum(a, 0) / alpha))


def gelu(a: Any) -> Any:
    return a * special.ndtr(a)


def gelu_tanh(a: Any) -> Any:
    return a * (1 + np.tanh(0.7978845608028654 * (a * (1 + 0.044715 * (a * a))))) / 2


def silu(a: Any) -> Any:
    return a * special.expit(a)


def mish(a: Any) -> Any:
    return a * np.tanh(np.logaddexp(a, 0))


def softsign(a: Any) -> Any:
    return a / (1 + np.abs(a))


def hardswish(a: Any) -> Any:
    return a * np.clip(a + 3, 0, 6) / 6


def largest_finite(a: Any, axis: Any) -> Any:
    """The maximum, with 0 where that is infinite: what can be taken off before exp overflows."""
    largest = np.maximum.reduce(a, axis=axis, keepdims=True, initial=-np.inf)
    return largest if np.isfinite(largest).all() else np.where(np.isfinite(largest), largest, 0)


def softmax(a: Any, axis: Any) -> Any:
    exponentials = np.exp(a - largest_finite(a, axis))
    total = exponentials.sum(axis=axis, keepdims=True)
    return exponentials / (total + (total == 0))  # where every entry is left out: 0 / 1


def log_softmax(a: Any, axis: Any) -> Any:
    shifted = a - largest_finite(a, axis)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    return shifted - np.log(total + (total == 0))


def logsumexp(a: Any, axis: Any, keepdims: bool = False) -> Any:
    shift = largest_finite(a, axis)
    with np.errstate(divide="ignore"):
        out = np.log(np.exp(a - shift).sum(axis=axis, keepdims=True)) + shift
    return out if keepdims else np.squeeze(out, axis=axis)


def sinc_derivative(x: Any, order: int) -> Any:
    """The derivative of np.sinc: near 0 by its power series, elsewhere by the product rule on x * sinc(x)."""
    u = np.pi * np.asarray(x)
    near = np.abs(u) < order + 1
    v = np.where(near, u, 0)
    series = 0 * v
    term = np.ones_like(v)  # v ** j / j!
    for j in range(20 + 4 * order):
        if (j + order) % 2 == 0:
            series = series + term * ((-1) ** ((j + order) // 2) / (j + order + 1))
        term = term * v / (j + 1)
    w = np.where(near, 1, u)
    far = np.sin(w) / w
    for k in range(1, order + 1):
        far = (np.sin(w + k * (np.pi / 2)) - k * far) / w
    return np.pi**order * np.where(near, series, far)
