"""Statistics: var, std, average, median, and sums that leave NaN out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError, ShapeError
from stepgrad.ops.arguments import Axis, array_of, axes_of, refuse
from stepgrad.ops.choosing import mask, where
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.reductions import (
    averaged_dtype,
    count,
    mean,
    reduce,
    reduced_shape,
    reduction,
    sum,
    sum_numpy,
    unreduce,
)
from stepgrad.ops.registry import public
from stepgrad.ops.shapes import as_one_axis, broadcast_to, expand_dims
from stepgrad.tape.op import Shape, TensorType
from stepgrad.tensor import Array, Tensor, functions

__all__ = ["average", "median", "nanmean", "nansum", "percentile", "quantile", "std", "var"]


def _spread_shape(a: TensorType, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Shape:
    n = count(a.shape, axis)
    if n - ddof <= 0:
        raise ArgumentError(
            f"the variance of shape {a.shape} over axes {axis} with ddof={ddof} was asked for",
            f"the squared deviations of {n} elements would be divided by {n} - {ddof} = {n - ddof}",
            "reduce over more elements, or pass a smaller ddof",
        )
    return reduced_shape(a, axis, keepdims)


def _var_numpy(a: Array, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Any:
    n = count(a.shape, axis)
    deviation = a - sum_numpy(a, axis, keepdims=True) / n
    return sum_numpy(deviation * deviation, axis, keepdims) / (n - ddof)


def _std_numpy(a: Array, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Any:
    return np.sqrt(_var_numpy(a, axis, keepdims, ddof))


def _var_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Tensor:
    scaled = g * (2.0 / (count(a.shape, axis) - ddof))
    return unreduce(scaled, a.shape, axis, keepdims) * (a - mean(a, axis, keepdims=True))


def _std_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool, ddof: float) -> Tensor:
    # Where nothing deviates, std has a kink like |x| at 0: its derivative is taken as 0.
    scaled = mask(g / (out * (count(a.shape, axis) - ddof)), out != 0)
    return unreduce(scaled, a.shape, axis, keepdims) * (a - mean(a, axis, keepdims=True))


_var = reduction(
    "var",
    _var_numpy,
    _var_rule,
    shape=_spread_shape,
    dtype=averaged_dtype,
    settings=({"ddof": 0}, {"ddof": 1}),
    work=4.0,
    analytic=True,
)

_std = reduction(
    "std",
    _std_numpy,
    _std_rule,
    shape=_spread_shape,
    dtype=averaged_dtype,
    settings=({"ddof": 0}, {"ddof": 1}),
    work=4.0,
    analytic=True,
)


def var(
    a: Any, axis: Axis = None, *, dtype: Any = None, ddof: float = 0, keepdims: bool = False, **refused: Any
) -> Tensor:
    """The variance over axes: the mean squared deviation from the mean.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        dtype: the dtype to compute in, which the result has.
        ddof: the sum of squares is divided by n - ddof; 1 gives the estimate without bias.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: n - ddof is not positive.

    Example:
        >>> sg.var(sg.tensor([1.0, 2.0, 3.0]), ddof=1)
        tensor(1., dtype=float64)
    """
    return reduce(_var, a, axis, keepdims, _checked("var", ddof, dtype, refused), dtype, ddof=ddof)


def std(
    a: Any, axis: Axis = None, *, dtype: Any = None, ddof: float = 0, keepdims: bool = False, **refused: Any
) -> Tensor:
    """The standard deviation over axes. Where all elements are equal its gradient is 0.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        dtype: the dtype to compute in, which the result has.
        ddof: the sum of squares is divided by n - ddof; 1 is usual for samples.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: n - ddof is not positive.

    Example:
        >>> sg.grad(sg.std)(np.array([2.0, 2.0, 2.0]))
        array([0., 0., 0.])
    """
    return reduce(_std, a, axis, keepdims, _checked("std", ddof, dtype, refused), dtype, ddof=ddof)


def _checked(function: str, ddof: Any, dtype: Any, refused: dict[str, Any]) -> dict[str, Any]:
    _check_floating(function, dtype)
    if isinstance(ddof, bool) or not isinstance(ddof, (int, float, np.integer, np.floating)):
        raise ArgumentError(
            f"{function} was called with ddof={ddof!r}", "the number of elements is lowered by it", "pass a number"
        )
    return refused


def _check_floating(function: str, dtype: Any) -> None:
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise DtypeError(
            f"{function} was called with dtype={np.dtype(dtype)}",
            "means of whole numbers are seldom whole, and each step would be rounded",
            "leave dtype out, and convert the result",
        )


def average(a: Any, axis: Axis = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    """The weighted mean over axes.

    Args:
        a: a tensor or array.
        axis: the axis or axes to average over; by default all.
        weights: an array of a's shape, or of the lengths of the axes; None weights all equally.
        returned: return the sum of the weights too.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.average(sg.tensor([1.0, 4.0]), weights=[3.0, 1.0])
        tensor(1.75, dtype=float64)
    """
    tensor = array_of(a)
    axes = axes_of(axis, tensor.ndim)
    if weights is None:
        result = mean(tensor, axes, keepdims=keepdims)
        total = to_dtype(array_of(float(count(tensor.shape, axes))), result.dtype)
    else:
        each = _weights_of(array_of(weights), tensor.shape, axes)
        total = sum(each, axes, keepdims=keepdims)
        result = sum(tensor * each, axes, keepdims=keepdims) / total
    return (result, broadcast_to(total, result.shape)) if returned else result


def _weights_of(weights: Tensor, shape: Shape, axes: tuple[int, ...]) -> Tensor:
    if weights.shape == shape:
        return weights
    if weights.shape != tuple(shape[i] for i in axes):
        raise ShapeError(
            f"weights of shape {weights.shape} were given for an array of shape {shape}, to be averaged over {axes}",
            "each element needs a weight, or each position along the axes",
            f"pass weights of shape {shape}, or of shape {tuple(shape[i] for i in axes)}",
        )
    return broadcast_to(expand_dims(weights, tuple(i for i in range(len(shape)) if i not in axes)), shape)


def median(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The middle of the sorted elements, or the mean of the two in the middle; NaN if there is a NaN.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.grad(sg.median)(np.array([5.0, 1.0, 2.0, 7.0]))
        array([0.5, 0. , 0.5, 0. ])
    """
    refuse("median", refused)
    tensor = array_of(a)
    axes = axes_of(axis, tensor.ndim)
    n = count(tensor.shape, axes)
    if not n:
        raise ArgumentError(
            f"the median of shape {tensor.shape} over axes {axes} was asked for",
            "it is over no elements, of which none is in the middle",
            "check where the array became empty",
        )
    ordered = functions["sort"](as_one_axis(tensor, axes), axis=-1)
    result = mean(ordered[..., (n - 1) // 2 : n // 2 + 1], -1)
    if result.equation.type.is_float:  # NaN comes last
        result = where(functions["isnan"](ordered[..., -1]), math.nan, result)
    return expand_dims(result, axes) if keepdims else result


def quantile(a: Any, q: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The values below which given parts of the elements lie, on straight lines between neighbours in order.

    Args:
        a: a tensor or array.
        q: the parts, from 0 to 1: a number, or a vector, whose axis comes first in the result.
        axis: the axis or axes to reduce; by default all.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.quantile(sg.tensor([1.0, 2.0, 4.0, 8.0]), [0.5, 0.9])
        tensor([3. , 6.8], dtype=float64)
    """
    refuse("quantile", refused)
    tensor, parts = array_of(a), array_of(q)
    axes = axes_of(axis, tensor.ndim)
    n = count(tensor.shape, axes)
    if not n or parts.ndim > 1 or (parts.value is not None and not np.all((parts.value >= 0) & (parts.value <= 1))):
        raise ArgumentError(
            f"quantiles {parts.tolist() if parts.value is not None else parts.shape} of {n} elements were asked for",
            "they are parts, from 0 to 1, of one element at least",
            "pass 0.9 for the value that nine of ten elements lie below",
        )
    if not tensor.equation.type.is_float:
        tensor = to_dtype(tensor, np.float64)
    ordered = functions["sort"](as_one_axis(tensor, axes), axis=-1)
    places = to_dtype(parts * (n - 1), tensor.dtype)
    below = functions["floor"](places)
    part, first = places - below, to_dtype(below, np.intp)
    low, high = (ordered[..., functions["minimum"](first + i, n - 1)] for i in (0, 1))
    result = where(part == 0, low, low + (high - low) * part)
    nan = functions["isnan"](ordered[..., -1])
    result = where(expand_dims(nan, -1) if parts.ndim else nan, math.nan, result)
    if parts.ndim:
        result = functions["moveaxis"](result, -1, 0)
    return expand_dims(result, tuple(i + parts.ndim for i in axes)) if keepdims else result


def percentile(a: Any, q: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """`quantile` with parts out of a hundred.

    Example:
        >>> sg.percentile(sg.tensor([1.0, 2.0, 4.0]), 50)
        tensor(2., dtype=float64)
    """
    refuse("percentile", refused)
    return quantile(a, array_of(q) / 100, axis, keepdims=keepdims)


def nansum(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The sum of the elements that are not NaN; NaN elements get the gradient 0.

    Example:
        >>> sg.nansum(sg.tensor([1.0, np.nan, 3.0]))
        tensor(4., dtype=float64)
    """
    tensor = array_of(a)
    return sum(where(tensor == tensor, tensor, 0), axis, keepdims=keepdims, **refused)


def nanmean(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The mean of the elements that are not NaN; NaN where there are none.

    Example:
        >>> sg.nanmean(sg.tensor([1.0, np.nan, 3.0]))
        tensor(2., dtype=float64)
    """
    _check_floating("nanmean", refused.get("dtype"))
    tensor = array_of(a)
    total = nansum(tensor, axis, keepdims=keepdims, **refused)
    there = sum(tensor == tensor, axis, keepdims=keepdims)
    return total / (to_dtype(there, total.dtype) if total.equation.type.is_float else there)


public(var, np.var)
public(std, np.std)
public(average, np.average)
public(median, np.median)
public(quantile, np.quantile)
public(percentile, np.percentile)
public(nansum, np.nansum)
public(nanmean, np.nanmean)
