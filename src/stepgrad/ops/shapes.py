"""Shapes: reshape, transpose, …: the same numbers, arranged otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import Axis, array_of, axes_in_order, axes_of, axis_of, whole_numbers
from stepgrad.ops.expanding import expand
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor

__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_arrays",
    "broadcast_to",
    "copy",
    "expand_dims",
    "flatten",
    "matrix_transpose",
    "moveaxis",
    "ravel",
    "reshape",
    "rollaxis",
    "squeeze",
    "swapaxes",
    "transpose",
]


def _reshape_shape(a: TensorType, shape: Shape) -> Shape:
    if math.prod(shape) != a.size or any(n < 0 for n in shape):
        raise ShapeError(
            f"shape {a.shape} can't be reshaped to {shape}",
            f"it has {a.size} elements, and that shape has {math.prod(shape)}",
            "keep the number of elements; one axis may be -1 and is then computed",
        )
    return shape


_reshape = register(
    Op(
        "reshape",
        shape=_reshape_shape,
        numpy=lambda a, shape: np.asarray(a).reshape(shape),
        rules=(lambda g, out, a, shape: reshape(g, a.shape),),
        text=lambda operands, params, equation: (
            f"({operands[0]}).reshape({', '.join(map(str, params['shape'])) or '()'})"
        ),
        samples=[
            (normal(2, 3), {"shape": (3, 2)}),
            (normal(4), {"shape": (2, 1, 2)}),
            (normal(2, 1, 3), {"shape": (6,)}),
            (normal(1), {"shape": ()}),
            (normal(), {"shape": (1, 1)}),
        ],
        analytic=True,
    )
)


def reshape(a: Any, shape: Any) -> Tensor:
    """The same elements in another shape, in C order.

    Args:
        a: a tensor or array.
        shape: the new shape, or an int for one axis; one length may be -1.

    Example:
        >>> sg.reshape(sg.tensor([1.0, 2.0, 3.0, 4.0]), (2, -1)).shape
        (2, 2)
    """
    tensor = array_of(a)
    wanted = whole_numbers(shape, "a length")
    if -1 in wanted:
        known = -math.prod(wanted)
        if wanted.count(-1) > 1 or known < 1 or tensor.size % known:
            raise ShapeError(
                f"shape {tensor.shape} can't be reshaped to {wanted}",
                f"its {tensor.size} elements do not determine the length marked -1",
                "mark one axis with -1, with the others dividing the number of elements",
            )
        wanted = tuple(tensor.size // known if n == -1 else n for n in wanted)
    if wanted == tensor.shape:
        return tensor
    return record(_reshape, (tensor,), {"shape": wanted})


def ravel(a: Any) -> Tensor:
    """All elements along one axis, in C order.

    Example:
        >>> sg.ravel(sg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 2., 3., 4.], dtype=float64)
    """
    tensor = array_of(a)
    return reshape(tensor, (tensor.size,))


def flatten(a: Any) -> Tensor:
    """All elements along one axis, in C order; the same as `ravel`, since tensors never change.

    Example:
        >>> sg.tensor([[1.0, 2.0], [3.0, 4.0]]).flatten().shape
        (4,)
    """
    return ravel(a)


def copy(a: Any) -> Tensor:
    """The tensor itself: since tensors never change, there is nothing to protect by copying.

    Example:
        >>> sg.copy(sg.tensor([1.0, 2.0]))
        tensor([1., 2.], dtype=float64)
    """
    return array_of(a)


# --- the order of axes


def _transpose_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    axes = params["axes"]
    if axes == tuple(reversed(range(len(axes)))):
        return f"({operands[0]}).T"
    if axes == (*range(len(axes) - 2), len(axes) - 1, len(axes) - 2):
        return f"({operands[0]}).mT"
    return f"({operands[0]}).transpose{axes}"


_transpose = register(
    Op(
        "transpose",
        shape=lambda a, axes: tuple(a.shape[i] for i in axes),
        numpy=lambda a, axes: a.transpose(axes),
        rules=(lambda g, out, a, axes: transpose(g, inverse(axes)),),
        text=_transpose_text,
        samples=[
            (normal(2, 3), {"axes": (1, 0)}),
            (normal(2, 3, 4), {"axes": (1, 2, 0)}),
            (normal(2, 3, 4), {"axes": (0, 2, 1)}),
        ],
        analytic=True,
    )
)


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes this one."""
    return tuple(axes.index(i) for i in range(len(axes)))


def transpose(a: Any, axes: Any = None) -> Tensor:
    """The axes in another order.

    Args:
        a: a tensor or array.
        axes: for each axis of the result, the axis of `a` it comes from; by default all in reverse.

    Example:
        >>> sg.transpose(sg.tensor([[1.0, 2.0, 3.0]])).shape
        (3, 1)
    """
    tensor = array_of(a)
    ndim = tensor.ndim
    order = tuple(reversed(range(ndim))) if axes is None else axes_in_order(axes, ndim)
    if len(order) != ndim:
        raise ArgumentError(
            f"axes={axes} was given for an array with {ndim} axes",
            "every axis has to be named exactly once",
            f"pass a permutation of {tuple(range(ndim))}",
        )
    if order == tuple(range(ndim)):
        return tensor
    return record(_transpose, (tensor,), {"axes": order})


def matrix_transpose(a: Any) -> Tensor:
    """The last two axes swapped.

    Example:
        >>> sg.matrix_transpose(sg.tensor(np.ones((5, 2, 3)))).shape
        (5, 3, 2)
    """
    tensor = array_of(a)
    n = tensor.ndim
    if n < 2:
        raise ShapeError(
            f"shape {tensor.shape} has no matrix to transpose", "there are fewer than two axes", "reshape it first"
        )
    return record(_transpose, (tensor,), {"axes": (1, 0) if n == 2 else (*range(n - 2), n - 1, n - 2)})


def swapaxes(a: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes swapped.

    Example:
        >>> sg.swapaxes(sg.tensor(np.ones((5, 2, 3))), 0, 2).shape
        (3, 2, 5)
    """
    tensor = array_of(a)
    order = list(range(tensor.ndim))
    first, second = axis_of(axis1, tensor.ndim), axis_of(axis2, tensor.ndim)
    order[first], order[second] = second, first
    return transpose(tensor, order)


def rollaxis(a: Any, axis: int, start: int = 0) -> Tensor:
    """An axis moved to stand before another one; `moveaxis` says the same more plainly.

    Example:
        >>> sg.rollaxis(sg.tensor(np.ones((5, 2, 3))), 2).shape
        (3, 5, 2)
    """
    tensor = array_of(a)
    moved, n = axis_of(axis, tensor.ndim), tensor.ndim
    place = n if start == n else axis_of(start, n)
    return moveaxis(tensor, moved, place - 1 if moved < place else place)


def moveaxis(a: Any, source: Axis, destination: Axis) -> Tensor:
    """Axes moved to other places; the others stay in order.

    Args:
        a: a tensor or array.
        source: the axis or axes to move.
        destination: where each is to stand in the result.

    Example:
        >>> sg.moveaxis(sg.tensor(np.ones((5, 2, 3))), 0, -1).shape
        (2, 3, 5)
    """
    tensor = array_of(a)
    moved, places = axes_in_order(source, tensor.ndim), axes_in_order(destination, tensor.ndim)
    if len(moved) != len(places):
        raise ArgumentError(
            f"moveaxis was called with source={source} and destination={destination}",
            f"{len(moved)} axes can't be moved to {len(places)} places",
            "name one destination for each source",
        )
    order = [i for i in range(tensor.ndim) if i not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return transpose(tensor, order)


def as_one_axis(a: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Axes flattened into one, the last."""
    kept = [i for i in range(a.ndim) if i not in axes]
    moved = transpose(a, (*kept, *axes))
    return reshape(moved, (*[a.shape[i] for i in kept], math.prod(a.shape[i] for i in axes)))


def from_one_axis(a: Tensor, shape: Shape, axes: tuple[int, ...]) -> Tensor:
    """Undoes `as_one_axis` for an array of this shape."""
    order = (*[i for i in range(len(shape)) if i not in axes], *axes)
    return transpose(reshape(a, tuple(shape[i] for i in order)), inverse(order))


# --- axes of length 1, and broadcasting


def squeeze(a: Any, axis: Axis = None) -> Tensor:
    """Leaves out axes of length 1.

    Args:
        a: a tensor or array.
        axis: which; by default all of length 1.

    Example:
        >>> sg.squeeze(sg.tensor([[[1.0], [2.0]]])).shape
        (2,)
    """
    tensor = array_of(a)
    shape = tensor.shape
    axes = tuple(i for i, n in enumerate(shape) if n == 1) if axis is None else axes_of(axis, tensor.ndim)
    if any(shape[i] != 1 for i in axes):
        raise ShapeError(
            f"shape {shape} can't be squeezed along axis={axis}",
            "only axes of length 1 can be left out",
            "reduce the axis, for example with sum, or take one element with x[0]",
        )
    return reshape(tensor, tuple(n for i, n in enumerate(shape) if i not in axes))


def expand_dims(a: Any, axis: int | tuple[int, ...]) -> Tensor:
    """New axes of length 1.

    Args:
        a: a tensor or array.
        axis: where they stand in the result.

    Example:
        >>> sg.expand_dims(sg.tensor([1.0, 2.0]), 1).shape
        (2, 1)
    """
    tensor = array_of(a)
    new = axis if isinstance(axis, (tuple, list)) else (axis,)
    ndim = tensor.ndim + len(new)
    places, lengths = axes_of(tuple(new), ndim), iter(tensor.shape)
    return reshape(tensor, tuple(1 if i in places else next(lengths) for i in range(ndim)))


def broadcast_to(a: Any, shape: Any) -> Tensor:
    """Repeats an array along new axes on the left and along axes of length 1.

    Args:
        a: a tensor or array.
        shape: the shape of the result, or an int for one axis.

    Example:
        >>> sg.broadcast_to(sg.tensor([1.0, 2.0]), (3, 2)).shape
        (3, 2)
    """
    tensor, wanted = array_of(a), whole_numbers(shape, "a length")
    return tensor if tensor.shape == wanted else record(expand, (tensor,), {"shape": wanted})


def broadcast_arrays(*args: Any) -> tuple[Tensor, ...]:
    """Arrays broadcast to one shape.

    Example:
        >>> [t.shape for t in sg.broadcast_arrays(sg.tensor([1.0, 2.0]), sg.tensor([[3.0]]))]
        [(1, 2), (1, 2)]
    """
    tensors = [array_of(a) for a in args]
    try:
        shape = np.broadcast_shapes(*[t.shape for t in tensors])
    except ValueError:
        raise ShapeError(
            "shapes " + " and ".join(str(t.shape) for t in tensors) + " do not broadcast",
            "axes are matched from the right, and have to be equal or of length 1",
            "give each array an axis of length 1 where it should be repeated, for example with b[:, None]",
        ) from None
    return tuple(broadcast_to(t, shape) for t in tensors)


def atleast_1d(*arrays: Any) -> Any:
    """Arrays with at least one axis: single numbers become arrays of length 1.

    Example:
        >>> sg.atleast_1d(sg.tensor(2.0))
        tensor([2.], dtype=float64)
    """
    return _each(arrays, lambda t: t if t.ndim else reshape(t, (1,)))


def atleast_2d(*arrays: Any) -> Any:
    """Arrays with at least two axes; new ones come first.

    Example:
        >>> sg.atleast_2d(sg.tensor([1.0, 2.0])).shape
        (1, 2)
    """
    return _each(arrays, lambda t: t if t.ndim >= 2 else reshape(t, (1, t.size)))


def atleast_3d(*arrays: Any) -> Any:
    """Arrays with at least three axes; (N,) becomes (1, N, 1), and (M, N) becomes (M, N, 1).

    Example:
        >>> sg.atleast_3d(sg.tensor([1.0, 2.0])).shape
        (1, 2, 1)
    """
    return _each(arrays, lambda t: t if t.ndim > 2 else reshape(t, (*t.shape, 1) if t.ndim == 2 else (1, t.size, 1)))


def _each(arrays: tuple[Any, ...], change: Any) -> Any:
    changed = tuple(change(array_of(a)) for a in arrays)
    return changed[0] if len(changed) == 1 else changed


public(reshape, np.reshape)
public(ravel, np.ravel)
public(flatten)
public(copy, np.copy)
public(transpose, np.transpose, np.permute_dims)
public(matrix_transpose, np.matrix_transpose, np.linalg.matrix_transpose)
public(swapaxes, np.swapaxes)
public(moveaxis, np.moveaxis)
public(rollaxis, np.rollaxis)
public(squeeze, np.squeeze)
public(expand_dims, np.expand_dims)
public(broadcast_to, np.broadcast_to)
public(broadcast_arrays, np.broadcast_arrays)
public(atleast_1d, np.atleast_1d)
public(atleast_2d, np.atleast_2d)
public(atleast_3d, np.atleast_3d)
