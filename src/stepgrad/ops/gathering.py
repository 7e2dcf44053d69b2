"""Gathering and scattering: the ops behind indexing, in pairs that are each other's inverse direction.

Integers, slices, None and Ellipsis are a parameter of `getitem`; `scatter` puts values back into zeros.
Index arrays are operands, so they may be computed on the tape: `gather` picks with them, and
`scatter_add` adds up what was picked from one place. `take_along_axis` and `add_along_axis` do the same
with one index for each element.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from stepgrad.errors import IndexingError, ShapeError
from stepgrad.ops.registry import register
from stepgrad.ops.samples import constant, integers, normal
from stepgrad.tape.op import Op, Shape, TensorType, bool_dtype, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor

Index = tuple[Any, ...]
"""A basic index as a param: integers, None, Ellipsis, and (start, stop, step) for slices."""

EVERYTHING = (None, None, None)
"""The slice `:`."""


# --- basic indexing


@functools.lru_cache(maxsize=4096)
def as_numpy(index: Index) -> tuple[Any, ...]:
    """The index as NumPy takes it."""
    return tuple(slice(*part) if isinstance(part, tuple) else part for part in index)


def index_text(index: Index) -> str:
    """`1:, ::-1`: the index as it is written between brackets."""
    return ", ".join(_part_text(part) for part in index)


def _part_text(part: Any) -> str:
    if not isinstance(part, tuple):
        return "..." if part is Ellipsis else repr(part)
    start, stop, step = ("" if bound is None else repr(bound) for bound in part)
    return f"{start}:{stop}" + (f":{step}" if step else "")


def whole_index(index: Index, ndim: int) -> Index:
    """The index with a part for every axis: Ellipsis and what is left out written as `:`."""
    used = sum(part is not None and part is not Ellipsis for part in index)
    if used > ndim:
        raise IndexingError(
            f"{used} axes were indexed, of {ndim}",
            "each integer and each slice takes one axis",
            f"use at most {ndim}; None adds an axis and takes none",
        )
    if sum(part is Ellipsis for part in index) > 1:
        raise IndexingError(
            "the index has more than one Ellipsis",
            "each stands for all the axes that are not named, so it is not clear which",
            "keep one, and write : for the others",
        )
    rest = (EVERYTHING,) * (ndim - used)
    for i, part in enumerate(index):
        if part is Ellipsis:
            return (*index[:i], *rest, *index[i + 1 :])
    return (*index, *rest)


def getitem_shape(a: TensorType, index: Index) -> Shape:
    shape: list[int] = []
    axis = 0
    for part in whole_index(index, len(a.shape)):
        if part is None:
            shape.append(1)
            continue
        length = a.shape[axis]
        if isinstance(part, tuple):
            shape.append(len(range(*slice(*part).indices(length))))
        else:
            check_range(part, part, axis, a.shape)
        axis += 1
    return tuple(shape)


def check_range(low: int, high: int, axis: int, shape: Shape) -> None:
    """Raises IndexingError unless indices from `low` to `high` point into the axis."""
    n = shape[axis]
    if -n <= low and high < n:
        return
    raise IndexingError(
        f"index {high if high >= n else low} is out of range for axis {axis} of shape {shape}",
        f"that axis has length {n}, so its indices run from {-n} to {n - 1}" if n else "that axis is empty",
        "use an index inside that range; a slice may reach beyond the end" if n else "check where it became empty",
    )


def scatter(values: Array, shape: Shape, index: Any) -> Array:
    """Zeros of `shape`, with the values where a basic index points."""
    if isinstance(index, tuple):
        index = tuple(slice(*part) if isinstance(part, tuple) else part for part in index)
    out = np.zeros(shape, values.dtype)
    out[index] = values
    return out


def _scatter_shape(values: TensorType, shape: Shape, index: Index) -> Shape:
    return shape


getitem_op = register(
    Op(
        "getitem",
        shape=getitem_shape,
        dtype=lambda a, index: a.dtype,
        numpy=lambda a, index: np.asarray(a)[as_numpy(index)],
        rules=(lambda g, out, a, index: record(scatter_op, (g,), {"shape": a.shape, "index": index}),),
        text=lambda operands, params, equation: f"({operands[0]})[{index_text(params['index'])}]",
        samples=[
            (normal(3, 4), {"index": ((1, None, None), (None, None, -1))}),
            (normal(3, 4), {"index": (-1,)}),
            (normal(3, 4), {"index": (2, 0)}),
            (normal(2, 3, 4), {"index": (Ellipsis, None, (3, 0, -2))}),
            (normal(2, 3, 4), {"index": ((None, -1, None), Ellipsis, 1)}),
            (normal(3), {"index": ((2, 2, None),)}),
            (normal(), {"index": (None, None)}),
        ],
        analytic=True,
        doc="The part of an array that integers, slices, None and Ellipsis name; a view.",
    )
)

scatter_op: Op = register(
    Op(
        "scatter",
        shape=_scatter_shape,
        dtype=lambda values, shape, index: values.dtype,
        numpy=scatter,
        rules=(lambda g, out, values, shape, index: record(getitem_op, (g,), {"index": index}),),
        text=lambda operands, params, equation: (
            f"scatter({operands[0]}, {params['shape']}, np.s_[{index_text(params['index'])}])"
        ),
        samples=[
            (normal(2, 4), {"shape": (3, 4), "index": ((1, None, None), (None, None, -1))}),
            (normal(4), {"shape": (3, 4), "index": (-1,)}),
            (normal(2, 3, 1, 2), {"shape": (2, 3, 4), "index": (Ellipsis, None, (3, 0, -2))}),
            (normal(3), {"shape": (5,), "index": ((None, None, 2),)}),
        ],
        analytic=True,
        doc="Zeros of a shape, with the values where a basic index points.",
    )
)


# --- index arrays


def _gather_numpy(a: Array, *indices: Any, axes: Shape) -> Array:
    """`a` with an index array for each of `axes` and `:` for the others."""
    index: list[Any] = [slice(None)] * np.ndim(a)
    for axis, i in zip(axes, indices, strict=True):
        index[axis] = i
    return np.asarray(a)[tuple(index)]


def scatter_add(values: Array, *indices: Any, shape: Shape, axes: Shape) -> Array:
    """Zeros of `shape`, plus the values where the index arrays for `axes` point; in the same place they add up."""
    ndim = max(np.ndim(i) for i in indices)
    if axes[0] and axes == tuple(range(axes[0], axes[0] + len(axes))):  # NumPy left them in place; bring them first
        values = np.moveaxis(values, range(axes[0], axes[0] + ndim), range(ndim))
    order = [*axes, *(i for i in range(len(shape)) if i not in axes)]
    picked, rest = [shape[i] for i in order[: len(axes)]], [shape[i] for i in order[len(axes) :]]
    places = np.arange(math.prod(picked)).reshape(picked)[indices]
    if rest:
        places = places.reshape(-1, 1) * math.prod(rest) + np.arange(math.prod(rest))
    out = np.zeros(math.prod(shape), values.dtype)
    np.add.at(out, places.ravel(), values.ravel())  # with one axis, add.at is as fast as a loop in C
    return out.reshape(picked + rest).transpose([order.index(i) for i in range(len(shape))])


def gather_shape(a: TensorType, *indices: TensorType, axes: Shape) -> Shape:
    try:
        picked = np.broadcast_shapes(*[i.shape for i in indices])
    except ValueError:
        raise IndexingError(
            "index arrays of shapes " + " and ".join(str(i.shape) for i in indices) + " were used together",
            "they are broadcast together, and these do not fit",
            "give them one shape; to pick every combination give them different axes, as np.ix_ does",
        ) from None
    others = tuple(n for i, n in enumerate(a.shape) if i not in axes)
    start = axes[0] if axes == tuple(range(axes[0], axes[0] + len(axes))) else 0
    return (*others[:start], *picked, *others[start:])


def _gather_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    index = [":"] * (max(params["axes"]) + 1)
    for axis, operand in zip(params["axes"], operands[1:], strict=True):
        index[axis] = operand
    return f"({operands[0]})[{', '.join(index)}]"


gather_op = register(
    Op(
        "gather",
        shape=gather_shape,
        dtype=lambda a, *indices, axes: a.dtype,
        numpy=_gather_numpy,
        rules=lambda operand: _gather_rule if operand == 0 else None,
        text=_gather_text,
        samples=[
            (normal(4, 3), integers(-4, 4, 6), {"axes": (0,)}),
            (normal(4, 3), integers(0, 4, 2, 5), integers(-3, 0, 5), {"axes": (0, 1)}),
            (normal(2, 3, 4), integers(0, 3, 2, 2), {"axes": (1,)}),
            (normal(2, 3, 4), integers(0, 2, 3), integers(0, 4, 3), {"axes": (0, 2)}),
            (normal(2, 3, 4), integers(0, 3), integers(0, 4), {"axes": (1, 2)}),
            (normal(2, 3, 4), 1, integers(0, 4, 2), {"axes": (0, 2)}),
        ],
        analytic=True,
        doc="Picks elements with index arrays, for some axes, by NumPy's rules.",
    )
)


def _gather_rule(g: Tensor, out: Tensor, a: Tensor, *indices: Tensor, axes: Shape) -> Tensor:
    return record(scatter_add_op, (g, *indices), {"shape": a.shape, "axes": axes})


scatter_add_op: Op = register(
    Op(
        "scatter_add",
        shape=lambda values, *indices, shape, axes: shape,
        dtype=lambda values, *indices, shape, axes: values.dtype,
        numpy=scatter_add,
        rules=lambda operand: _scatter_add_rule if operand == 0 else None,
        text=lambda operands, params, equation: (
            f"scatter_add({', '.join(operands)}, shape={params['shape']}, axes={params['axes']})"
        ),
        samples=[
            (normal(6, 3), integers(-4, 4, 6), {"shape": (4, 3), "axes": (0,)}),
            (normal(2, 5), integers(0, 4, 2, 5), integers(-3, 0, 5), {"shape": (4, 3), "axes": (0, 1)}),
            (normal(2, 2, 2, 4), integers(0, 3, 2, 2), {"shape": (2, 3, 4), "axes": (1,)}),
            (normal(3, 3), integers(0, 2, 3), integers(0, 4, 3), {"shape": (2, 3, 4), "axes": (0, 2)}),
        ],
        analytic=True,
        cost=lambda values, *rest, **params: values.size,
        doc="Zeros of a shape, plus values where index arrays point; in the same place they add up.",
    )
)


def _scatter_add_rule(g: Tensor, out: Tensor, values: Tensor, *indices: Tensor, shape: Shape, axes: Shape) -> Tensor:
    return record(gather_op, (g, *indices), {"axes": axes})


nonzero_op = register(
    Op(
        "nonzero",
        shape=lambda a, axis, count: (count,),
        dtype=lambda a, axis, count: np.dtype(np.intp),
        numpy=lambda a, axis, count: np.nonzero(a)[axis],
        rules=(None,),
        text="np.nonzero({0})[{axis}]",
        samples=[(constant(np.array([[True, False], [True, True]])), {"axis": 1, "count": 3})],
        doc="The indices along one axis of the elements that are not 0, of which there are `count`.",
    )
)


# --- one index for each element


def add_along_axis(values: Array, indices: Array, shape: Shape, axis: int) -> Array:
    """Zeros of `shape`, plus the values where the indices point along an axis; in the same place they add up."""
    places = np.take_along_axis(np.arange(math.prod(shape)).reshape(shape), indices, axis)
    out = np.zeros(math.prod(shape), values.dtype)
    np.add.at(out, places.ravel(), values.ravel())
    return out.reshape(shape)


def _along_axis_shape(a: TensorType, indices: TensorType, axis: int) -> Shape:
    if len(a.shape) != len(indices.shape) or any(
        n != m for i, (n, m) in enumerate(zip(a.shape, indices.shape, strict=True)) if i != axis
    ):
        raise ShapeError(
            f"indices of shape {indices.shape} were used along axis {axis} of shape {a.shape}",
            "there has to be one index for each element of the result, so all other axes have to agree",
            "give the indices the shape of the array except for that axis; a[indices] and sg.take pick whole rows",
        )
    return indices.shape


take_along_axis_op = register(
    Op(
        "take_along_axis",
        shape=_along_axis_shape,
        dtype=lambda a, indices, axis: a.dtype,
        numpy=lambda a, indices, axis: np.take_along_axis(a, indices, axis),
        rules=(
            lambda g, out, a, indices, axis: record(add_along_axis_op, (g, indices), {"shape": a.shape, "axis": axis}),
            None,
        ),
        text="np.take_along_axis({0}, {1}, axis={axis})",
        samples=[
            (normal(3, 4), integers(0, 4, 3, 5), {"axis": 1}),
            (normal(3, 4), integers(-3, 3, 1, 4), {"axis": 0}),
            (normal(2, 3, 2), integers(0, 3, 2, 2, 2), {"axis": 1}),
        ],
        analytic=True,
        doc="Picks one element for each index along an axis.",
    )
)

add_along_axis_op: Op = register(
    Op(
        "add_along_axis",
        shape=lambda values, indices, shape, axis: shape,
        dtype=lambda values, indices, shape, axis: values.dtype,
        numpy=add_along_axis,
        rules=(
            lambda g, out, values, indices, shape, axis: record(take_along_axis_op, (g, indices), {"axis": axis}),
            None,
        ),
        text="add_along_axis({0}, {1}, {shape}, axis={axis})",
        samples=[
            (normal(3, 5), integers(0, 4, 3, 5), {"shape": (3, 4), "axis": 1}),
            (normal(1, 4), integers(-3, 3, 1, 4), {"shape": (3, 4), "axis": 0}),
        ],
        analytic=True,
        cost=lambda values, *rest, **params: values.size,
        doc="Zeros of a shape, plus values where indices point along an axis; in the same place they add up.",
    )
)


# --- places


def last_of_equals(places: Array) -> Array:
    """True for each number that does not come again later, in C order."""
    backwards = places.ravel()[::-1]
    last = np.zeros(places.size, np.bool_)
    last[np.unique(backwards, return_index=True)[1]] = True
    return last[::-1].reshape(places.shape)


last_of_equals_op = register(
    Op(
        "last_of_equals",
        shape=same_shape,
        dtype=bool_dtype,
        numpy=last_of_equals,
        rules=(None,),
        text="last_of_equals({0})",
        samples=[(integers(0, 4, 2, 5),)],
        doc="True for each number that does not come again later: of several values for one place, the one that stays.",
    )
)
