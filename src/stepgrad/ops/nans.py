"""Statistics that leave NaN out; elements that are NaN get the gradient 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.ops.arguments import Axis, array_of
from stepgrad.ops.choosing import where
from stepgrad.ops.comparisons import isnan
from stepgrad.ops.cumulative import cumprod, cumsum
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.finding import all, count_nonzero
from stepgrad.ops.powers import sqrt, square
from stepgrad.ops.products import prod
from stepgrad.ops.reductions import max, min, sum
from stepgrad.ops.registry import public
from stepgrad.ops.statistics import nanmean
from stepgrad.tensor import Tensor

__all__ = ["nancumprod", "nancumsum", "nanmax", "nanmin", "nanprod", "nanstd", "nanvar"]


def _without_nan(a: Any, instead: float) -> Tensor:
    tensor = array_of(a)
    return where(isnan(tensor), instead, tensor) if tensor.equation.type.is_float else tensor


def _nan_where_all_are(result: Tensor, a: Any, axis: Axis, keepdims: bool) -> Tensor:
    if not result.equation.type.is_float:
        return result
    return where(all(isnan(array_of(a)), axis, keepdims=keepdims), math.nan, result)


def nanmax(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The largest of the elements that are not NaN; NaN where there are none. See `max`.

    Example:
        >>> sg.nanmax(sg.tensor([1.0, np.nan, 3.0]))
        tensor(3., dtype=float64)
    """
    largest = max(_without_nan(a, -math.inf), axis, keepdims=keepdims, **refused)
    return _nan_where_all_are(largest, a, axis, keepdims)


def nanmin(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The smallest of the elements that are not NaN; NaN where there are none. See `min`.

    Example:
        >>> sg.nanmin(sg.tensor([1.0, np.nan, 3.0]))
        tensor(1., dtype=float64)
    """
    smallest = min(_without_nan(a, math.inf), axis, keepdims=keepdims, **refused)
    return _nan_where_all_are(smallest, a, axis, keepdims)


def nanprod(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The product of the elements that are not NaN; 1 where there are none. See `prod`.

    Example:
        >>> sg.nanprod(sg.tensor([2.0, np.nan, 3.0]))
        tensor(6., dtype=float64)
    """
    return prod(_without_nan(a, 1.0), axis, keepdims=keepdims, **refused)


def nancumsum(a: Any, axis: int | None = None, **refused: Any) -> Tensor:
    """Running sums in which NaN counts as 0. See `cumsum`.

    Example:
        >>> sg.nancumsum(sg.tensor([1.0, np.nan, 3.0]))
        tensor([1., 1., 4.], dtype=float64)
    """
    return cumsum(_without_nan(a, 0.0), axis, **refused)


def nancumprod(a: Any, axis: int | None = None, **refused: Any) -> Tensor:
    """Running products in which NaN counts as 1. See `cumprod`.

    Example:
        >>> sg.nancumprod(sg.tensor([2.0, np.nan, 3.0]))
        tensor([2., 2., 6.], dtype=float64)
    """
    return cumprod(_without_nan(a, 1.0), axis, **refused)


def nanvar(a: Any, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The variance of the elements that are not NaN; NaN where there are no more than `ddof`.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        ddof: the sum of squares is divided by n - ddof, where n counts the elements that are not NaN.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.nanvar(sg.tensor([1.0, np.nan, 3.0]))
        tensor(1., dtype=float64)
    """
    tensor = array_of(a)
    if not tensor.equation.type.is_float:
        tensor = to_dtype(tensor, np.float64)
    deviations = tensor - nanmean(tensor, axis, keepdims=True)
    squares = square(where(isnan(tensor), 0.0, deviations))  # inf - inf is NaN, and stays so
    free = to_dtype(count_nonzero(tensor == tensor, axis, keepdims=keepdims), tensor.dtype) - float(ddof)
    return where(free > 0, sum(squares, axis, keepdims=keepdims) / free, math.nan)


def nanstd(a: Any, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation of the elements that are not NaN; see `nanvar`. Where they are equal its gradient is 0.

    Example:
        >>> sg.nanstd(sg.tensor([1.0, np.nan, 3.0]))
        tensor(1., dtype=float64)
    """
    variance = nanvar(a, axis, ddof=ddof, keepdims=keepdims)
    return where(variance == 0, 0.0, sqrt(variance))


public(nanmax, np.nanmax)
public(nanmin, np.nanmin)
public(nanprod, np.nanprod)
public(nancumsum, np.nancumsum)
public(nancumprod, np.nancumprod)
public(nanvar, np.nanvar)
public(nanstd, np.nanstd)
