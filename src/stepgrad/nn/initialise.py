"""Initial values of parameters: functions (key, shape, dtype) -> array.

A key is an integer seed, a key of `sg.random`, or a NumPy generator, from which several arrays can
be drawn one after the other. Without a key, values come from one sequence for the whole process,
which starts anew with `sg.nn.seed`; it starts from 0, so that the same program gives the same
network every time it runs.

The last two axes of a weight are (in, out), as in `x @ W`; axes before them are a receptive field.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.tensor import Array, ArrayLike

Shape = tuple[int, ...]

_sequence = [np.random.SeedSequence(0)]


def seed(number: int) -> None:
    """Starts the sequence anew from which layers without a key draw their initial values.

    Example:
        >>> sg.nn.seed(3)
        >>> first = sg.nn.Linear(2, 2).weight.numpy()
        >>> sg.nn.seed(3)
        >>> bool(np.all(sg.nn.Linear(2, 2).weight == first))
        True
    """
    _sequence[0] = np.random.SeedSequence(_checked_seed(number))


def generator(key: Any = None) -> np.random.Generator:
    """The NumPy generator that a key stands for; without a key, the next one of the process's sequence."""
    if isinstance(key, np.random.Generator):
        return key
    if key is None:
        return np.random.default_rng(_sequence[0].spawn(1)[0])
    if isinstance(key, ArrayLike):
        key = key.numpy()
    if isinstance(key, np.ndarray) and key.ndim and key.dtype.kind in "iu":
        return np.random.default_rng([int(word) for word in key.ravel()])
    return np.random.default_rng(_checked_seed(key))


def _checked_seed(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer, np.ndarray)) or int(number) < 0:
        raise ArgumentError(
            f"{number!r} was given as a seed",
            "a seed is an integer from 0 on, a key of sg.random or a NumPy generator",
            "write for example key=0",
        )
    return int(number)


def fans(shape: Shape) -> tuple[int, int]:
    """How many values enter one output and leave one input of a weight (…, in, out)."""
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def zeros(key: Any, shape: Shape, dtype: Any = np.float32) -> Array:
    """All zero."""
    return np.zeros(shape, dtype)


def ones(key: Any, shape: Shape, dtype: Any = np.float32) -> Array:
    """All one."""
    return np.ones(shape, dtype)


def uniform(key: Any, shape: Shape, dtype: Any = np.float32, low: float = -1.0, high: float = 1.0) -> Array:
    """Evenly spread over [low, high).

    Example:
        >>> sg.nn.initialise.uniform(0, (3,), low=0.0, high=1.0).round(3)
        array([0.637, 0.27 , 0.041], dtype=float32)
    """
    return generator(key).uniform(low, high, shape).astype(dtype)


def normal(key: Any, shape: Shape, dtype: Any = np.float32, mean: float = 0.0, std: float = 1.0) -> Array:
    """From the normal distribution."""
    return (generator(key).standard_normal(shape) * std + mean).astype(dtype)


def truncated_normal(
    key: Any, shape: Shape, dtype: Any = np.float32, mean: float = 0.0, std: float = 1.0, bound: float = 2.0
) -> Array:
    """From the normal distribution, drawn again where further than `bound` standard deviations from the mean."""
    rng = generator(key)
    drawn = rng.standard_normal(shape)
    outside = np.abs(drawn) > bound
    while outside.any():
        drawn[outside] = rng.standard_normal(int(outside.sum()))
        outside = np.abs(drawn) > bound
    return np.asarray(drawn * std + mean).astype(dtype)


def xavier_uniform(key: Any, shape: Shape, dtype: Any = np.float32, gain: float = 1.0) -> Array:
    """Uniform with variance 2 / (in + out): keeps variances forwards and backwards (Glorot and Bengio 2010, eq. 16)."""
    bound = gain * math.sqrt(6 / sum(fans(shape)))
    return uniform(key, shape, dtype, -bound, bound)


def xavier_normal(key: Any, shape: Shape, dtype: Any = np.float32, gain: float = 1.0) -> Array:
    """Normal with variance 2 / (in + out) (Glorot and Bengio 2010)."""
    return normal(key, shape, dtype, std=gain * math.sqrt(2 / sum(fans(shape))))


def kaiming_uniform(key: Any, shape: Shape, dtype: Any = np.float32, negative_slope: float = 0.0) -> Array:
    """Uniform with variance 2 / in: keeps variances through ReLU layers (He et al. 2015, eq. 10).

    Args:
        negative_slope: that of the leaky ReLU that follows; 0 for ReLU.
    """
    bound = math.sqrt(6 / ((1 + negative_slope**2) * fans(shape)[0]))
    return uniform(key, shape, dtype, -bound, bound)


def kaiming_normal(key: Any, shape: Shape, dtype: Any = np.float32, negative_slope: float = 0.0) -> Array:
    """Normal with variance 2 / in (He et al. 2015, eq. 10)."""
    return normal(key, shape, dtype, std=math.sqrt(2 / ((1 + negative_slope**2) * fans(shape)[0])))


def lecun_uniform(key: Any, shape: Shape, dtype: Any = np.float32) -> Array:
    """Uniform with variance 1 / in (LeCun et al. 1998): for tanh and SELU layers."""
    bound = math.sqrt(3 / fans(shape)[0])
    return uniform(key, shape, dtype, -bound, bound)


def lecun_normal(key: Any, shape: Shape, dtype: Any = np.float32) -> Array:
    """Normal with variance 1 / in (LeCun et al. 1998)."""
    return normal(key, shape, dtype, std=math.sqrt(1 / fans(shape)[0]))


def orthogonal(key: Any, shape: Shape, dtype: Any = np.float32, gain: float = 1.0) -> Array:
    """A matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).

    Raises:
        ArgumentError: the shape has fewer than two axes.
    """
    if len(shape) < 2:
        raise ArgumentError(
            f"orthogonal initial values of shape {shape} were asked for",
            "only a matrix has rows and columns",
            "use it for weights, and zeros for biases",
        )
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = generator(key).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q = q * np.copysign(1, np.diagonal(r))  # makes every orthogonal matrix equally likely
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


glorot_uniform, glorot_normal = xavier_uniform, xavier_normal
he_uniform, he_normal = kaiming_uniform, kaiming_normal
