"""Taking by function call: take, take_along_axis, compress, one_hot, the named relatives of `a[index]`."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError, IndexingError, ShapeError
from stepgrad.ops.arguments import array_of, axis_of, refuse_mode, whole
from stepgrad.ops.expanding import expand
from stepgrad.ops.gathering import check_range, take_along_axis_op
from stepgrad.ops.indexing import getitem, nonzero
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import integers
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions

__all__ = ["compress", "one_hot", "take", "take_along_axis"]


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Tensor:
    """The elements at some indices along an axis, as `a[:, indices]` for axis 1.

    Args:
        a: a tensor or array.
        indices: an integer or integers of any shape, which takes the place of the axis.
        axis: the axis; None takes from the flattened array.
        mode: what an index outside of the axis does: "raise" an error, "clip" to the nearest end, or
            "wrap" around. With "clip" negative indices count as outside.

    Example:
        >>> sg.take(sg.tensor([1.0, 2.0, 3.0]), [0, 0, -1])
        tensor([1., 1., 3.], dtype=float64)
    """
    tensor = array_of(a)
    if axis is None:
        tensor, axis = functions["reshape"](tensor, (-1,)), 0
    axis = axis_of(axis, tensor.ndim)
    if mode not in ("raise", "clip", "wrap"):
        refuse_mode("take", "mode", mode, '"raise", "clip" and "wrap"')
    if isinstance(indices, (list, tuple)) and not len(indices):
        indices = np.zeros(0, np.intp)
    if mode != "raise":
        indices, n = array_of(indices), tensor.shape[axis]
        if not n and indices.size:
            check_range(0, 0, axis, tensor.shape)
        if mode == "clip":
            indices = functions["minimum"](functions["maximum"](indices, 0), n - 1)
        elif n:
            indices = functions["remainder"](indices, n)
    else:
        indices = as_tensor(indices)
    if indices.dtype == np.bool_:  # a mask in a[mask], but here the numbers 0 and 1
        indices = functions["astype"](indices, np.intp)
    return getitem(tensor, (slice(None),) * axis + (indices,))


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Tensor:
    """For each index its element along an axis: with axis 1, `out[i, j] = arr[i, indices[i, j]]`.

    Args:
        arr: a tensor or array.
        indices: integers with as many axes as `arr`; the axes other than `axis` are broadcast.
        axis: the axis; None takes from the flattened array.

    Example:
        >>> x = sg.tensor([[3.0, 1.0], [5.0, 9.0]])
        >>> sg.take_along_axis(x, sg.argmax(x, axis=1, keepdims=True), axis=1)
        tensor([[3.],
                [9.]], dtype=float64)
    """
    tensor, places = array_of(arr), array_of(indices)
    if axis is None:
        tensor, axis = functions["reshape"](tensor, (-1,)), 0
    axis = axis_of(axis, tensor.ndim)
    if places.dtype.kind not in "iu":
        raise IndexingError(
            f"indices with dtype {places.dtype} were given to take_along_axis",
            "indices are integers",
            "convert them first, for example with i.astype(np.int64)",
        )
    if places.ndim == tensor.ndim:
        shapes = [(*t.shape[:axis], 1, *t.shape[axis + 1 :]) for t in (tensor, places)]
        try:
            common = np.broadcast_shapes(*shapes)
        except ValueError:
            common = ()
        if common:
            tensor, places = (_along(t, common, axis) for t in (tensor, places))
    try:
        return record(take_along_axis_op, (tensor, places), {"axis": axis})
    except IndexError:
        if places.value is not None and places.size:
            check_range(int(np.min(places.value)), int(np.max(places.value)), axis, tensor.shape)
        raise


def _along(a: Tensor, common: Shape, axis: int) -> Tensor:
    """Broadcasts all axes but one."""
    shape = (*common[:axis], a.shape[axis], *common[axis + 1 :])
    return a if shape == a.shape else expand(a, shape=shape)


def compress(condition: Any, a: Any, axis: int | None = None) -> Tensor:
    """The slices along an axis for which a condition holds.

    Args:
        condition: booleans, one for each slice.
        a: a tensor or array.
        axis: the axis; None takes from the flattened array.

    Raises:
        AbstractValueError: how many hold is not known while recording abstractly; use `sg.where`.

    Example:
        >>> sg.compress([True, False, True], sg.tensor([1.0, 2.0, 3.0]))
        tensor([1., 3.], dtype=float64)
    """
    mask = array_of(condition)
    if mask.ndim != 1:
        raise ShapeError(
            f"a condition of shape {mask.shape} was given to compress",
            "it chooses along one axis, so it has one axis itself",
            "for a mask of the shape of the array write a[mask]",
        )
    return take(a, nonzero(mask)[0], axis)


def _one_hot_numpy(labels: Any, classes: int, dtype: np.dtype[Any]) -> Any:
    return (np.asarray(labels)[..., None] == np.arange(classes)).astype(dtype)


def _one_hot_shape(labels: TensorType, classes: int, dtype: np.dtype[Any]) -> Shape:
    return (*labels.shape, classes)


_one_hot = register(
    Op(
        "one_hot",
        shape=_one_hot_shape,
        dtype=lambda labels, classes, dtype: dtype,
        numpy=_one_hot_numpy,
        rules=(None,),
        text="(np.asarray({0})[..., None] == np.arange({classes})).astype(np.{dtype})",
        samples=[(integers(0, 4, 5), {"classes": 4, "dtype": np.dtype(np.float32)})],
        doc="For each label a row of zeros with a 1 in the place of the label.",
    )
)


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Tensor:
    """For each label a row of zeros with a 1 in the place of the label.

    Args:
        labels: integers from 0 to `classes` - 1, of any shape.
        classes: the length of a row.
        dtype: of the result, which has the shape `(*labels.shape, classes)`.

    Raises:
        IndexingError: a label is out of range.

    Example:
        >>> sg.one_hot([0, 2], 3)
        tensor([[1., 0., 0.],
                [0., 0., 1.]], dtype=float32)
    """
    tensor, length = array_of(labels), whole(classes, "the number of classes")
    if tensor.dtype.kind not in "iu":
        raise DtypeError(
            f"labels with dtype {tensor.dtype} were given to one_hot",
            "a label is the number of a class",
            "convert them first, for example with labels.astype(np.int64)",
        )
    if length < 0:
        raise ArgumentError(f"one_hot was asked for {length} classes", "a row can't be that long", "pass 0 or more")
    if tensor.value is not None and tensor.size:
        low, high = int(np.min(tensor.value)), int(np.max(tensor.value))
        if low < 0 or high >= length:
            raise IndexingError(
                f"label {low if low < 0 else high} was given to one_hot with {length} classes",
                f"labels run from 0 to {length - 1}",
                "raise the number of classes, or number the labels from 0, for example with "
                "np.unique(labels, return_inverse=True)[1]",
            )
    return record(_one_hot, (tensor,), {"classes": length, "dtype": np.dtype(dtype)})


public(take, np.take)
public(take_along_axis, np.take_along_axis)
public(compress, np.compress)
public(one_hot)
