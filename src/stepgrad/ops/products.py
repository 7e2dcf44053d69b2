"""The product over axes, with exact gradients at zeros."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.arguments import Axis
from stepgrad.ops.cumulative import along, cumprod, recurrence, shifted_in
from stepgrad.ops.rearranging import flip
from stepgrad.ops.reductions import count, from_first_axis, reduce, reduction, unreduce, widened_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import constant, normal
from stepgrad.ops.shapes import as_one_axis, from_one_axis
from stepgrad.tape.op import Op, same_shape
from stepgrad.tensor import Array, Tensor, numpy_functions

__all__ = ["prod"]


def product_of_others(a: Array, axis: tuple[int, ...]) -> Array:
    """For each element the product of all other elements over the axes: those before it times those after it."""
    last = tuple(range(-len(axis), 0))
    moved = np.moveaxis(a, axis, last)
    row = moved.reshape(*moved.shape[: -len(axis)], -1)
    one = np.ones_like(row[..., :1])
    before = np.cumprod(np.concatenate([one, row[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([one, row[..., :0:-1]], -1), -1)[..., ::-1]
    return np.moveaxis((before * after).reshape(moved.shape), last, axis)


def _product_of_others_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...]) -> Tensor:
    # d out[k] / d a[i] is, for k after i, (what comes before i) (what comes between) (what comes after k);
    # the sum over k is a recurrence from the end. For k before i it is the same in mirror image.
    row, downstream = as_one_axis(a, axis), as_one_axis(g, axis)
    last = row.ndim - 1
    start, end = along(last, None, -1), along(last, 1, None)
    before = shifted_in(cumprod(row[start], last), last, 1, 0, 1.0)
    after = shifted_in(flip(cumprod(flip(row[end], last), last), last), last, 0, 1, 1.0)
    links = row[along(last, 1, -1)]
    later = recurrence(links, (downstream * after)[end], axis=last, reverse=True)
    earlier = recurrence(links, (downstream * before)[start], axis=last, reverse=False)
    total = before * shifted_in(later, last, 0, 1, 0.0) + after * shifted_in(earlier, last, 1, 0, 0.0)
    return from_one_axis(total, a.shape, axis)


_product_of_others = register(
    Op(
        "product_of_others",
        shape=same_shape,
        numpy=product_of_others,
        rules=(_product_of_others_rule,),
        text="product_of_others({0}, axis={axis})",
        samples=[
            (normal(4), {"axis": (0,)}),
            (normal(2), {"axis": (0,)}),
            (normal(2, 3), {"axis": (0, 1)}),
            (normal(2, 3, 2), {"axis": (0, 2)}),
            (constant(np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 2.0, 0.0, 1.5]])), {"axis": (1,)}),
        ],
        analytic=True,
        cost=lambda a, out, axis: 3 * a.size,
        doc="For each element the product of all other elements over the axes.",
    )
)


def _prod_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    spread = unreduce(g, a.shape, axis, keepdims)
    return spread if count(a.shape, axis) < 2 else spread * _product_of_others(a, axis=axis)


_prod = reduction(
    "prod",
    lambda a, axis, keepdims: np.multiply.reduce(a, axis, keepdims=keepdims),
    _prod_rule,
    dtype=widened_dtype,
    analytic=True,
)


def prod(a: Any, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False, **refused: Any) -> Tensor:
    """The product over axes; 1 over no elements. Gradients are exact where elements are zero.

    Args:
        a: a tensor or array.
        axis: the axis or axes to multiply over; by default all.
        dtype: the dtype to convert to first.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.grad(sg.prod)(np.array([2.0, 0.0, 3.0]))
        array([0., 6., 0.])
    """
    return reduce(_prod, a, axis, keepdims, refused, dtype)


public(prod, np.prod)
numpy_functions[np.multiply, "reduce"] = from_first_axis(prod)
