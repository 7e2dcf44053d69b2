"""Running sums and products along an axis, and their inverse direction: cumsum, cumprod, diff, trapezoid."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, axis_of, refuse, whole
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.joining import concatenate
from stepgrad.ops.rearranging import flip, pad
from stepgrad.ops.reductions import sum, widened_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import constant, normal
from stepgrad.ops.shapes import broadcast_to, expand_dims, reshape
from stepgrad.tape.op import Op, Shape, TensorType, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, numpy_functions

__all__ = ["cumprod", "cumsum", "cumulative_prod", "cumulative_sum", "diff", "trapezoid"]


def along(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """The index that takes `start:stop` along one axis."""
    return (*(slice(None),) * axis, slice(start, stop))


def shifted_in(part: Tensor, axis: int, before: int, after: int, value: float) -> Tensor:
    """Lengthens an axis with a value at its start or end."""
    widths = [(0, 0)] * part.ndim
    widths[axis] = (before, after)
    return pad(part, widths, constant_values=value)


_cumsum = register(
    Op(
        "cumsum",
        shape=same_shape,
        dtype=widened_dtype,
        numpy=lambda a, axis: np.add.accumulate(a, axis),
        rules=(lambda g, out, a, axis: flip(cumsum(flip(g, axis), axis), axis),),
        text="({0}).cumsum(axis={axis})",
        samples=[(normal(4), {"axis": 0}), (normal(2, 3), {"axis": 0}), (normal(2, 3, 4), {"axis": 1})],
        analytic=True,
        cost=lambda a, out, axis: a.size,
    )
)


def cumsum(a: Any, axis: int | None = None, *, dtype: Any = None, **refused: Any) -> Tensor:
    """Running sums: each element is the sum of those up to it.

    Args:
        a: a tensor or array.
        axis: the axis to run along; None flattens the array first.
        dtype: the dtype to compute in, which the result has.

    Example:
        >>> sg.cumsum(sg.tensor([1.0, 2.0, 3.0]))
        tensor([1., 3., 6.], dtype=float64)
    """
    return _run(_cumsum, a, axis, dtype, refused)


def linear_recurrence(links: Array, b: Array, axis: int, reverse: bool) -> Array:
    """s[0] = b[0] and s[k+1] = b[k+1] + links[k] * s[k] along an axis; from the end if reverse.

    Computed by doubling: after the steps 1, 2, 4, … each s covers that many elements before it.
    """
    order = slice(None, None, -1) if reverse else slice(None)
    s = np.moveaxis(b, axis, 0)[order].astype(np.result_type(links, b))
    product, step = np.moveaxis(links, axis, 0)[order], 1
    while step < len(s):
        s[step:] += product * s[:-step]
        product = product[step:] * product[:-step]
        step *= 2
    return np.moveaxis(s[order], 0, axis)


def _recurrence_shape(links: TensorType, b: TensorType, axis: int, reverse: bool) -> Shape:
    n = b.shape[axis]
    if links.shape != (*b.shape[:axis], n - 1, *b.shape[axis + 1 :]):
        raise ShapeError(
            f"a recurrence over shape {b.shape} along axis {axis} was given links of shape {links.shape}",
            "there is one link between each two neighbours",
            "pass links that are one element shorter along the axis",
        )
    return b.shape


def _recurrence_links(g: Tensor, out: Tensor, links: Tensor, b: Tensor, axis: int, reverse: bool) -> Tensor:
    back = recurrence(links, g, axis=axis, reverse=not reverse)
    first, last = along(axis, None, -1), along(axis, 1, None)
    return back[first] * out[last] if reverse else back[last] * out[first]


recurrence: Op = register(
    Op(
        "linear_recurrence",
        shape=_recurrence_shape,
        numpy=linear_recurrence,
        rules=(
            _recurrence_links,
            lambda g, out, links, b, axis, reverse: recurrence(links, g, axis=axis, reverse=not reverse),
        ),
        text="linear_recurrence({0}, {1}, axis={axis}, reverse={reverse})",
        samples=[
            (normal(4), normal(5), {"axis": 0, "reverse": False}),
            (normal(2, 3), normal(2, 4), {"axis": 1, "reverse": True}),
            (normal(2, 3, 2), normal(2, 4, 2), {"axis": 1, "reverse": False}),
            (normal(1, 2), normal(2, 2), {"axis": 0, "reverse": True}),
        ],
        analytic=True,
        cost=lambda links, b, out, **params: 2 * b.size,
        doc="s[0] = b[0], s[k+1] = b[k+1] + links[k] * s[k]: what the gradients of running products are made of.",
    )
)


def _cumprod_rule(g: Tensor, out: Tensor, a: Tensor, axis: int) -> Tensor:
    # d out[k] / d a[i] is (what comes before i) times (what comes between i and k, k included), so
    # zeros need no division; the sum over k of the second factor is a recurrence from the end.
    if a.shape[axis] < 2:
        return g
    before = shifted_in(out[along(axis, None, -1)], axis, 1, 0, 1.0)
    return before * recurrence(a[along(axis, 1, None)], g, axis=axis, reverse=True)


_cumprod = register(
    Op(
        "cumprod",
        shape=same_shape,
        dtype=widened_dtype,
        numpy=lambda a, axis: np.multiply.accumulate(a, axis),
        rules=(_cumprod_rule,),
        text="({0}).cumprod(axis={axis})",
        samples=[
            (normal(5), {"axis": 0}),
            (normal(3, 2), {"axis": 0}),
            (normal(2, 3, 2), {"axis": 1}),
            (normal(2, 1), {"axis": 1}),
            (constant(np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 2.0, 0.0, 1.5]])), {"axis": 1}),
        ],
        analytic=True,
        cost=lambda a, out, axis: a.size,
    )
)


def cumprod(a: Any, axis: int | None = None, *, dtype: Any = None, **refused: Any) -> Tensor:
    """Running products: each element is the product of those up to it. Zeros have exact gradients.

    Args:
        a: a tensor or array.
        axis: the axis to run along; None flattens the array first.
        dtype: the dtype to compute in, which the result has.

    Example:
        >>> sg.cumprod(sg.tensor([1.0, 2.0, 3.0]))
        tensor([1., 2., 6.], dtype=float64)
    """
    return _run(_cumprod, a, axis, dtype, refused)


def _run(op: Op, a: Any, axis: int | None, dtype: Any, refused: dict[str, Any]) -> Tensor:
    refuse(op.name, refused)
    tensor = array_of(a)
    if dtype is not None:
        tensor = to_dtype(tensor, dtype)
    if axis is None:
        tensor, axis = reshape(tensor, -1), 0
    result = record(op, (tensor,), {"axis": axis_of(axis, tensor.ndim)})
    return result if dtype is None or result.dtype == tensor.dtype else to_dtype(result, dtype)


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False, **refused: Any
) -> Tensor:
    """Running sums, perhaps with the 0 that they start from; see `cumsum`.

    Example:
        >>> sg.cumulative_sum(sg.tensor([1.0, 2.0]), include_initial=True)
        tensor([0., 1., 3.], dtype=float64)
    """
    return _from_initial("cumulative_sum", _cumsum, x, axis, dtype, 0 if include_initial else None, refused)


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False, **refused: Any
) -> Tensor:
    """Running products, perhaps with the 1 that they start from; see `cumprod`.

    Example:
        >>> sg.cumulative_prod(sg.tensor([2.0, 3.0]), include_initial=True)
        tensor([1., 2., 6.], dtype=float64)
    """
    return _from_initial("cumulative_prod", _cumprod, x, axis, dtype, 1 if include_initial else None, refused)


def _from_initial(
    name: str, op: Op, x: Any, axis: int | None, dtype: Any, initial: float | None, refused: dict[str, Any]
) -> Tensor:
    tensor = array_of(x)
    if axis is None and tensor.ndim != 1:
        raise ArgumentError(
            f"{name} was called on shape {tensor.shape} without an axis",
            "sums run along one axis, and only of a vector it is clear which",
            "name it: axis=0",
        )
    wanted = 0 if axis is None else axis
    result = _run(op, tensor, wanted, dtype, refused)
    return result if initial is None else shifted_in(result, axis_of(wanted, tensor.ndim), 1, 0, initial)


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    """Differences between neighbours, `a[1:] - a[:-1]`, taken n times.

    Args:
        a: a tensor or array.
        n: how many times.
        axis: the axis along which elements are neighbours.
        prepend, append: values put at the ends of the axis first.

    Example:
        >>> sg.diff(sg.tensor([1.0, 4.0, 9.0]))
        tensor([3., 5.], dtype=float64)
    """
    tensor, times = array_of(a), whole(n, "n")
    wanted = axis_of(axis, tensor.ndim)
    if times < 0:
        raise ArgumentError(f"diff was called with n={n}", "it takes differences n times", "pass n=1 or more")
    if times == 0:
        return tensor
    ends = [_end(end, tensor, wanted) for end in (prepend, append)]
    if ends[0] is not None or ends[1] is not None:
        tensor = concatenate([t for t in (ends[0], tensor, ends[1]) if t is not None], wanted)
    for _ in range(times):
        later, earlier = tensor[along(wanted, 1, None)], tensor[along(wanted, None, -1)]
        tensor = later != earlier if tensor.dtype == np.bool_ else later - earlier
    return tensor


def _end(end: Any, tensor: Tensor, axis: int) -> Tensor | None:
    if end is None:
        return None
    values = array_of(end)
    return values if values.ndim else broadcast_to(values, (*tensor.shape[:axis], 1, *tensor.shape[axis + 1 :]))


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Tensor:
    """The integral by the trapezoidal rule: the mean of neighbours times their distance, added up.

    Args:
        y: values of the function.
        x: where they are; an array of y's shape, or one for the axis. None: they are `dx` apart.
        dx: the distance if `x` is None.
        axis: the axis to integrate along.

    Example:
        >>> sg.trapezoid(sg.tensor([1.0, 2.0, 3.0]))
        tensor(4., dtype=float64)
    """
    values = array_of(y)
    wanted = axis_of(axis, values.ndim)
    distance = dx
    if x is not None:
        places = array_of(x)
        if places.ndim == 1:
            distance = diff(places)
            if values.ndim > 1:
                distance = expand_dims(distance, tuple(i for i in range(values.ndim) if i != wanted))
        else:
            distance = diff(places, axis=axis)
    neighbours = values[along(wanted, 1, None)] + values[along(wanted, None, -1)]
    return sum(distance * neighbours / 2.0, axis)


public(cumsum, np.cumsum)
public(cumprod, np.cumprod)
public(cumulative_sum, np.cumulative_sum)
public(cumulative_prod, np.cumulative_prod)
public(diff, np.diff)
public(trapezoid, np.trapezoid)

numpy_functions[np.add, "accumulate"] = lambda array, axis=0, **settings: cumsum(array, axis, **settings)
numpy_functions[np.multiply, "accumulate"] = lambda array, axis=0, **settings: cumprod(array, axis, **settings)
