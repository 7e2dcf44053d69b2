"""Sorting: sort, argsort, top_k, unique, searchsorted. Gradients follow each element to where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import AbstractValueError, ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, axis_of, refuse_mode, whole
from stepgrad.ops.gathering import add_along_axis_op
from stepgrad.ops.indexing import getitem
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import constant as always
from stepgrad.ops.samples import distinct, normal
from stepgrad.ops.taking import take_along_axis
from stepgrad.tape.leaves import constant
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, describe, functions

__all__ = ["argsort", "digitize", "searchsorted", "sort", "top_k", "unique"]


def _axis_kept(a: TensorType, axis: int) -> Shape:
    return a.shape


def _positions(*types: TensorType, **params: Any) -> np.dtype[Any]:
    return np.dtype(np.intp)


_argsort = register(
    Op(
        "argsort",
        shape=_axis_kept,
        dtype=_positions,
        numpy=lambda a, axis: np.argsort(a, axis, stable=True),
        rules=(None,),
        text="np.argsort({0}, axis={axis}, stable=True)",
        samples=[(normal(3, 4), {"axis": 1}), (normal(3, 4), {"axis": 0})],
        doc="The indices that would sort an array; equal elements keep their order.",
    )
)

_sort = register(
    Op(
        "sort",
        shape=_axis_kept,
        numpy=lambda a, axis: np.sort(a, axis),
        rules=(
            lambda g, out, a, axis: record(
                add_along_axis_op, (g, record(_argsort, (a,), {"axis": axis})), {"shape": a.shape, "axis": axis}
            ),
        ),
        text="np.sort({0}, axis={axis})",
        samples=[(distinct(3, 4), {"axis": 1}), (distinct(3, 4), {"axis": 0}), (distinct(2, 3, 2), {"axis": 1})],
        analytic=True,
        doc="The elements in ascending order along an axis.",
    )
)


def sort(a: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Tensor:
    """The elements in ascending order along an axis; NaN comes last.

    The gradient of each element goes to where it came from; equal elements count as in their order.

    Args:
        a: a tensor or array.
        axis: the axis; None sorts the flattened array.
        kind, stable: taken for NumPy's sake; sorting is always stable.

    Example:
        >>> sg.grad(lambda x: sg.sort(x)[-1])(np.array([3.0, 9.0, 5.0]))
        array([0., 1., 0.])
    """
    return _sorted(_sort, a, axis, kind)


def argsort(a: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Tensor:
    """The indices that would sort an array along an axis; equal elements keep their order.

    Args:
        a: a tensor or array.
        axis: the axis; None sorts the flattened array.
        kind, stable: taken for NumPy's sake; sorting is always stable.

    Returns:
        Integers of the shape of `a`, to which no gradient flows.

    Example:
        >>> sg.argsort(sg.tensor([3.0, 9.0, 5.0]))
        tensor([0, 2, 1], dtype=int64)
    """
    return _sorted(_argsort, a, axis, kind)


def _sorted(op: Op, a: Any, axis: int | None, kind: str | None) -> Tensor:
    tensor = array_of(a)
    if kind not in (None, "quicksort", "mergesort", "heapsort", "stable"):
        refuse_mode(op.name, "kind", kind, "NumPy's kinds, which all give the same result")
    if axis is None:
        tensor, axis = functions["reshape"](tensor, (-1,)), 0
    return record(op, (tensor,), {"axis": axis_of(axis, tensor.ndim)})


def top_k(a: Any, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The `k` largest elements along an axis, in descending order, and their indices.

    Of equal elements the one with the lower index comes first; NaN counts as smallest.

    Args:
        a: a tensor or array of real numbers.
        k: how many; from 0 to the length of the axis.
        axis: the axis.

    Example:
        >>> values, indices = sg.top_k(sg.tensor([3.0, 9.0, 5.0]), 2)
        >>> values, indices
        (tensor([9., 5.], dtype=float64), tensor([1, 2], dtype=int64))
    """
    tensor, count = array_of(a), whole(k, "k")
    axis = axis_of(axis, tensor.ndim)
    if not 0 <= count <= tensor.shape[axis]:
        raise ArgumentError(
            f"the {count} largest along axis {axis} of shape {tensor.shape} were asked for",
            f"that axis has {tensor.shape[axis]} elements",
            "ask for a number between 0 and that",
        )
    # Small and unsigned integers have no negative of every value, int64 does.
    ordered = tensor if tensor.equation.type.is_float else functions["astype"](tensor, np.int64)
    order = record(_argsort, (functions["negative"](ordered),), {"axis": axis})
    indices = getitem(order, (slice(None),) * axis + (slice(count),))
    return take_along_axis(tensor, indices, axis), indices


def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False
) -> Tensor | tuple[Tensor, ...]:
    """The different elements of an array, in ascending order.

    The gradient of each goes to where it occurs first in the flattened array.

    Args:
        ar: a tensor or array.
        return_index: also return where each occurs first in the flattened array.
        return_inverse: also return for each element of the array the position of its value in the result.
        return_counts: also return how often each occurs.

    Raises:
        AbstractValueError: in a function being recorded abstractly, where how many there are is not known.

    Example:
        >>> sg.unique(sg.tensor([3.0, 1.0, 3.0]))
        tensor([1., 3.], dtype=float64)
    """
    tensor = array_of(ar)
    if tensor.value is None:
        raise AbstractValueError(
            f"the different elements of {describe(tensor)} were asked for while recording abstractly",
            "how many there are depends on values, and only shapes and dtypes are known then",
            "do this outside of the function, and pass the result in",
        )
    _, index, inverse, counts = np.unique(tensor.value, return_index=True, return_inverse=True, return_counts=True)
    values = getitem(functions["reshape"](tensor, (-1,)), index)
    asked = ((return_index, index), (return_inverse, inverse), (return_counts, counts))
    more = [constant(array) for wanted, array in asked if wanted]
    return (values, *more) if more else values


def _searchsorted_shape(a: TensorType, v: TensorType, side: str) -> Shape:
    if len(a.shape) != 1:
        raise ShapeError(
            f"shape {a.shape} was given to search in",
            "values are looked up in one ascending sequence",
            "pass an array with one axis, for example sg.sort(x, axis=None)",
        )
    return v.shape


_searchsorted = register(
    Op(
        "searchsorted",
        shape=_searchsorted_shape,
        dtype=_positions,
        numpy=lambda a, v, side: np.searchsorted(a, v, side),
        rules=(None, None),
        text="np.searchsorted({0}, {1}, side={side!r})",
        samples=[(always(np.array([-1.0, 0.0, 0.0, 1.0])), normal(2, 3), {"side": "right"})],
        doc="Where values would have to be inserted into an ascending array.",
    )
)


def searchsorted(a: Any, v: Any, side: str = "left") -> Tensor:
    """Where values would have to be inserted into an ascending array to keep it so.

    Args:
        a: an ascending tensor or array with one axis.
        v: the values, of any shape.
        side: "left" to insert before equal elements, "right" to insert after them.

    Returns:
        Integers of the shape of `v`, to which no gradient flows.

    Example:
        >>> sg.searchsorted([1.0, 2.0, 4.0], sg.tensor([0.5, 3.0]))
        tensor([0, 2], dtype=int64)
    """
    if side not in ("left", "right"):
        refuse_mode("searchsorted", "side", side, '"left" and "right"')
    among = array_of(a)
    if among.value is not None and among.ndim == 1 and np.any(among.value[1:] < among.value[:-1]):
        raise ArgumentError(
            f"values were to be looked up in {describe(among)}, which is not ascending",
            "the search halves the array at every step, so it would return wrong places",
            "sort it first with sg.sort",
        )
    return record(_searchsorted, (among, array_of(v)), {"side": side})


def digitize(x: Any, bins: Any, right: bool = False) -> Tensor:
    """The number of the bin that each value falls into: 0 below all edges, `len(bins)` above.

    Args:
        x: a tensor or array.
        bins: the edges, ascending.
        right: a value equal to an edge belongs to the bin below it, not above.

    Example:
        >>> sg.digitize(sg.tensor([0.5, 1.5]), [0.0, 1.0, 2.0])
        tensor([1, 2], dtype=int64)
    """
    return searchsorted(bins, x, "left" if right else "right")


public(sort, np.sort)
public(argsort, np.argsort)
public(top_k)
public(unique, np.unique)
public(searchsorted, np.searchsorted)
public(digitize, np.digitize)
