"""Layers: Linear, LayerNorm, Embedding, Flatten."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.cells import Parameter
from stepgrad.errors import ArgumentError, DtypeError, IndexingError, ShapeError
from stepgrad.nn import initialise
from stepgrad.nn.inputs import check_dtype, check_sizes, floating, title
from stepgrad.nn.module import Module
from stepgrad.ops.arguments import number
from stepgrad.tape.leaves import as_tensor
from stepgrad.tensor import Tensor, describe, functions

Initialise = Callable[[Any, tuple[int, ...], Any], Any]
"""(key, shape, dtype) -> array: see `initialise`."""


class Linear(Module):
    """x @ weight + bias.

    The weight has shape (in_features, out_features), so that the formula reads as it is computed.

    Args:
        in_features: length of the last axis of the input.
        out_features: length of the last axis of the output.
        bias: whether a bias is added.
        key: integer seed, key or NumPy generator for the initial values; by default the process's
            sequence (see `sg.nn.seed`).
        dtype: np.float32 or np.float64.
        weight_init, bias_init: functions (key, shape, dtype) -> array, such as those of
            `sg.nn.initialise`; by default uniform within ±1/√in_features, as in PyTorch.

    Example:
        >>> layer = sg.nn.Linear(2, 3, bias_init=sg.nn.initialise.zeros)
        >>> layer(np.zeros((4, 2), np.float32)).shape
        (4, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        key: Any = None,
        dtype: Any = np.float32,
        weight_init: Initialise | None = None,
        bias_init: Initialise | None = None,
    ) -> None:
        check_sizes(self, in_features=in_features, out_features=out_features)
        dtype, rng = check_dtype(self, dtype), initialise.generator(key)

        def default(rng: Any, shape: tuple[int, ...], dtype: Any) -> Any:
            bound = 1 / math.sqrt(in_features)
            return initialise.uniform(rng, shape, dtype, -bound, bound)

        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter((weight_init or default)(rng, (in_features, out_features), dtype), dtype)
        self.bias = Parameter((bias_init or default)(rng, (out_features,), dtype), dtype) if bias else None

    def forward(self, x: Any) -> Tensor:
        x = floating(self, x, self.weight.dtype)
        if not x.ndim or x.shape[-1] != self.in_features:
            given = f"with {x.shape[-1]} features" if x.ndim else "without axes"
            raise ShapeError(
                f"{title(self)} was given {describe(x)}, {given}",
                f"it was made for {self.in_features} features, on the last axis: its weight is {self.weight.shape}",
                _linear_hint(x, self.in_features),
            )
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


def _linear_hint(x: Tensor, features: int) -> str:
    if x.ndim > 1 and math.prod(x.shape[1:]) == features:
        return "lay the axes of each example end to end first: x.reshape(len(x), -1), or an sg.nn.Flatten() before it"
    if features in x.shape:
        return "move the features to the last axis: a batch is (examples, features), so perhaps x.T"
    return f"make it Linear({x.shape[-1] if x.ndim else 1}, …), or pass an input of shape (examples, {features})"


class LayerNorm(Module):
    """Shifts and scales each example to mean 0 and variance 1, then to learned ones (Ba et al. 2016).

    (x - mean) / √(variance + eps) * weight + bias, with mean and variance over the last axes.

    Args:
        shape: lengths of the axes that are normalised over: the last ones; an integer for one.
        eps: added to the variance.
        dtype: np.float32 or np.float64.

    Example:
        >>> print(sg.nn.LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3))
        [[-1.  1.]]
    """

    def __init__(self, shape: int | tuple[int, ...], eps: float = 1e-5, *, dtype: Any = np.float32) -> None:
        self.shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        check_sizes(self, **{f"shape[{i}]": n for i, n in enumerate(self.shape or (0,))})
        self.eps = number(eps, "eps")
        if not 0 <= self.eps < math.inf:
            raise ArgumentError(
                f"LayerNorm was given eps={eps!r}",
                "it is added to the variance, so that the root of it can be divided by",
                "use a small positive number such as eps=1e-5",
            )
        self.weight = Parameter(np.ones(self.shape, check_dtype(self, dtype)))
        self.bias = Parameter(np.zeros(self.shape, dtype))

    def forward(self, x: Any) -> Tensor:
        x = floating(self, x, self.weight.dtype)
        if x.shape[-len(self.shape) :] != self.shape:
            raise ShapeError(
                f"{title(self)} was given {describe(x)}",
                f"it was made for inputs whose last axes are {self.shape}",
                f"make it LayerNorm({x.shape[-len(self.shape) :]}), or move those axes to the end",
            )
        axes = tuple(range(-len(self.shape), 0))
        centred = x - functions["mean"](x, axis=axes, keepdims=True)
        variance = functions["mean"](functions["square"](centred), axis=axes, keepdims=True)
        return centred / functions["sqrt"](variance + self.eps) * self.weight + self.bias


class Embedding(Module):
    """A table of vectors, looked up by integers.

    Args:
        count: number of vectors.
        features: their length.
        key: integer seed, key or NumPy generator for the initial values.
        dtype: np.float32 or np.float64.
        weight_init: function (key, shape, dtype) -> array; by default standard normal, as in PyTorch.

    Example:
        >>> words = sg.nn.Embedding(1000, 16)
        >>> words(np.array([[3, 14, 15], [9, 2, 6]])).shape
        (2, 3, 16)
    """

    def __init__(
        self,
        count: int,
        features: int,
        *,
        key: Any = None,
        dtype: Any = np.float32,
        weight_init: Initialise = initialise.normal,
    ) -> None:
        check_sizes(self, count=count, features=features)
        self.count, self.features = operator.index(count), operator.index(features)
        self.weight = Parameter(weight_init(initialise.generator(key), (count, features), check_dtype(self, dtype)))

    def forward(self, ids: Any) -> Tensor:
        ids = as_tensor(ids)
        if ids.dtype.kind not in "iu":
            raise DtypeError(
                f"{title(self)} was given {describe(ids)}",
                "it looks vectors up by their number, which is an integer",
                "convert the input: ids.astype(np.int64)",
            )
        if ids.value is not None and ids.size:
            low, high = int(np.min(ids.value)), int(np.max(ids.value))
            if low < 0 or high >= self.count:
                raise IndexingError(
                    f"{title(self)} was given the number {low if low < 0 else high}",
                    f"it has {self.count} vectors, numbered from 0 to {self.count - 1}",
                    f"make it Embedding({high + 1}, {self.features}), or check how the numbers are made",
                )
        return self.weight[ids]


class Flatten(Module):
    """Lays the axes from `start` on end to end; by default all but the batch axis.

    Example:
        >>> sg.nn.Flatten()(np.zeros((5, 8, 8), np.float32)).shape
        (5, 64)
    """

    def __init__(self, start: int = 1) -> None:
        self.start = start

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        start = self.start + (x.ndim if self.start < 0 else 0)
        if not 0 <= start < max(x.ndim, 1):
            raise ShapeError(
                f"{title(self)} was given {describe(x)}",
                f"it lays the axes from {self.start} on end to end, and there are {x.ndim} axes",
                "give the input a batch axis, x[None], or choose another start",
            )
        return x.reshape(*x.shape[:start], math.prod(x.shape[start:]))
