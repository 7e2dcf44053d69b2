"""Joining and taking apart: concatenate, stack, split, …"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, axis_of, refuse_mode, whole, whole_numbers
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.ops.shapes import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    broadcast_arrays,
    expand_dims,
    ravel,
    reshape,
    swapaxes,
)
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import record
from stepgrad.tensor import ArrayLike, Tensor

__all__ = [
    "append",
    "array_split",
    "column_stack",
    "concatenate",
    "dsplit",
    "dstack",
    "hsplit",
    "hstack",
    "meshgrid",
    "split",
    "stack",
    "unstack",
    "vsplit",
    "vstack",
]


def _concatenate_shape(*types: TensorType, axis: int) -> Shape:
    first = types[0].shape
    for t in types:
        if len(t.shape) != len(first) or any(
            n != m for i, (n, m) in enumerate(zip(t.shape, first, strict=True)) if i != axis
        ):
            raise ShapeError(
                "shapes " + " and ".join(str(t.shape) for t in types) + f" can't be concatenated along axis {axis}",
                "all their other axes have to agree",
                "check the axis; to join along a new axis use sg.stack",
            )
    return (*first[:axis], sum(t.shape[axis] for t in types), *first[axis + 1 :])


def _concatenate_rule(operand: int) -> Any:
    def rule(g: Tensor, out: Tensor, *inputs: Tensor, axis: int) -> Tensor:
        start = sum(t.shape[axis] for t in inputs[:operand])
        index = (slice(None),) * axis + (slice(start, start + inputs[operand].shape[axis]),)
        return g[index]

    return rule


_concatenate = register(
    Op(
        "concatenate",
        shape=_concatenate_shape,
        numpy=lambda *arrays, axis: np.concatenate(arrays, axis),
        rules=_concatenate_rule,
        text=lambda operands, params, equation: f"np.concatenate([{', '.join(operands)}], axis={params['axis']})",
        samples=[
            (normal(2, 3), normal(4, 3), {"axis": 0}),
            (normal(2, 3), normal(2, 1), normal(2, 2), {"axis": 1}),
            (normal(2, 1, 2), normal(2, 3, 2), {"axis": 1}),
        ],
        analytic=True,
    )
)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Tensor:
    """Joins arrays along an axis they have.

    Args:
        arrays: tensors or arrays that agree in all other axes.
        axis: the axis; None flattens them first.

    Example:
        >>> sg.concatenate([sg.tensor([1.0]), sg.tensor([2.0, 3.0])])
        tensor([1., 2., 3.], dtype=float64)
    """
    tensors = several(arrays, "concatenate")
    if axis is None:
        tensors, axis = [ravel(t) for t in tensors], 0
    along = axis_of(axis, tensors[0].ndim)
    dtype = np.result_type(*[t.dtype for t in tensors])
    return record(_concatenate, tuple(to_dtype(t, dtype) for t in tensors), {"axis": along})


def several(arrays: Any, function: str) -> list[Tensor]:
    """The arrays that a function is to join, one at least."""
    if not isinstance(arrays, Iterable) or (isinstance(arrays, ArrayLike) and not arrays.ndim):
        raise ArgumentError(
            f"{function} was called with a {type(arrays).__name__}",
            "it takes the arrays to join as one list",
            f"write sg.{function}([a, b])",
        )
    tensors = [array_of(a) for a in arrays]
    if not tensors:
        raise ArgumentError(
            f"no arrays were given to {function}", "there is nothing to join", "pass at least one array"
        )
    return tensors


def stack(arrays: Sequence[Any], axis: int = 0) -> Tensor:
    """Joins arrays of one shape along a new axis.

    Example:
        >>> sg.stack([sg.tensor([1.0, 2.0]), sg.tensor([3.0, 4.0])]).shape
        (2, 2)
    """
    tensors = several(arrays, "stack")
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ShapeError(
            f"arrays of shapes {', '.join(str(t.shape) for t in tensors)} were given to stack",
            "arrays can be stacked if all have the same shape",
            "use sg.concatenate to join arrays of different lengths along an axis they have",
        )
    place = axis_of(axis, tensors[0].ndim + 1)
    return concatenate([expand_dims(t, place) for t in tensors], place)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it: the inverse of `stack`.

    Example:
        >>> first, second = sg.unstack(sg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
        >>> first
        tensor([1., 3.], dtype=float64)
    """
    tensor = array_of(x)
    index = (slice(None),) * axis_of(axis, tensor.ndim)
    return tuple(tensor[(*index, i)] for i in range(tensor.shape[len(index)]))


def vstack(tup: Sequence[Any]) -> Tensor:
    """Joins arrays by rows; vectors are rows.

    Example:
        >>> sg.vstack([sg.tensor([1.0, 2.0]), sg.tensor([3.0, 4.0])]).shape
        (2, 2)
    """
    return concatenate([atleast_2d(t) for t in several(tup, "vstack")], 0)


def hstack(tup: Sequence[Any]) -> Tensor:
    """Joins arrays by columns; vectors are joined end to end.

    Example:
        >>> sg.hstack([sg.tensor([[1.0], [2.0]]), sg.tensor([[3.0], [4.0]])]).shape
        (2, 2)
    """
    tensors = [atleast_1d(t) for t in several(tup, "hstack")]
    return concatenate(tensors, 0 if tensors[0].ndim == 1 else 1)


def dstack(tup: Sequence[Any]) -> Tensor:
    """Joins arrays along the third axis.

    Example:
        >>> sg.dstack([sg.tensor([[1.0], [2.0]]), sg.tensor([[3.0], [4.0]])]).shape
        (2, 1, 2)
    """
    return concatenate([atleast_3d(t) for t in several(tup, "dstack")], 2)


def column_stack(tup: Sequence[Any]) -> Tensor:
    """Joins arrays by columns; vectors are columns.

    Example:
        >>> sg.column_stack([sg.tensor([1.0, 2.0]), sg.tensor([3.0, 4.0])]).tolist()
        [[1.0, 3.0], [2.0, 4.0]]
    """
    tensors = several(tup, "column_stack")
    return concatenate([t if t.ndim > 1 else reshape(t, (t.size, 1)) for t in tensors], 1)


def append(arr: Any, values: Any, axis: int | None = None) -> Tensor:
    """Joins values to the end of an array; axis=None flattens both first.

    Example:
        >>> sg.append(sg.tensor([1.0]), [2.0, 3.0])
        tensor([1., 2., 3.], dtype=float64)
    """
    return concatenate([arr, values], axis)


# --- taking apart


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Cuts an array along an axis.

    Args:
        ary: a tensor or array.
        indices_or_sections: the number of equal parts, or the indices at which to cut.
        axis: the axis.

    Raises:
        ArgumentError: the axis can't be cut into that many equal parts.

    Example:
        >>> [part.tolist() for part in sg.split(sg.tensor([1.0, 2.0, 3.0, 4.0]), [1, 3])]
        [[1.0], [2.0, 3.0], [4.0]]
    """
    tensor = array_of(ary)
    along = axis_of(axis, tensor.ndim)
    n, parts = tensor.shape[along], indices_or_sections
    if np.ndim(parts) == 0 and (whole(parts, "the number of parts") < 1 or n % parts):
        raise ArgumentError(
            f"axis {along} of shape {tensor.shape} was to be split into {parts} equal parts",
            f"{n} is not {parts} times a whole number",
            "use sg.array_split for parts of different lengths, or pass the indices at which to cut",
        )
    return array_split(tensor, parts, along)


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """Cuts an array along an axis into parts that may differ in length; see `split`.

    Example:
        >>> [part.size for part in sg.array_split(sg.tensor([1.0, 2.0, 3.0]), 2)]
        [2, 1]
    """
    tensor = array_of(ary)
    along = axis_of(axis, tensor.ndim)
    n = tensor.shape[along]
    if np.ndim(indices_or_sections) == 0:
        parts = whole(indices_or_sections, "the number of parts")
        if parts < 1:
            raise ArgumentError(
                f"axis {along} of shape {tensor.shape} was to be split into {parts} parts",
                "there has to be one part or more",
                "pass a positive number of parts",
            )
        cuts = [i * (n // parts) + min(i, n % parts) for i in range(1, parts)]  # the first ones are longer by one
    else:
        cuts = list(whole_numbers(indices_or_sections, "an index to cut at"))
    before = (slice(None),) * along
    return [tensor[(*before, slice(i, j))] for i, j in zip([0, *cuts], [*cuts, n], strict=True)]


def vsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cuts an array into parts of its rows; see `split`.

    Example:
        >>> [part.shape for part in sg.vsplit(sg.tensor(np.ones((4, 3))), 2)]
        [(2, 3), (2, 3)]
    """
    return split(ary, indices_or_sections, 0)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cuts an array into parts of its columns (vectors: of its elements); see `split`.

    Example:
        >>> [part.shape for part in sg.hsplit(sg.tensor(np.ones((4, 3))), [1])]
        [(4, 1), (4, 2)]
    """
    tensor = array_of(ary)
    return split(tensor, indices_or_sections, 0 if tensor.ndim == 1 else 1)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Tensor]:
    """Cuts an array along its third axis; see `split`.

    Example:
        >>> [part.shape for part in sg.dsplit(sg.tensor(np.ones((1, 1, 4))), 2)]
        [(1, 1, 2), (1, 1, 2)]
    """
    return split(ary, indices_or_sections, 2)


def meshgrid(*xi: Any, indexing: str = "xy", sparse: bool = False) -> tuple[Tensor, ...]:
    """Coordinates of a grid: for each vector, an array that varies along one axis as the vector does.

    Args:
        xi: vectors.
        indexing: "xy" lets the first vector vary along the columns, "ij" along the rows.
        sparse: leave the other axes at length 1.

    Example:
        >>> rows, columns = sg.meshgrid(sg.tensor([1.0, 2.0]), [5.0, 6.0, 7.0], indexing="ij")
        >>> rows.shape, columns.tolist()
        ((2, 3), [[5.0, 6.0, 7.0], [5.0, 6.0, 7.0]])
    """
    if indexing not in ("xy", "ij"):
        refuse_mode("meshgrid", "indexing", indexing, "'xy' and 'ij'")
    n = len(xi)
    grid = [reshape(x, (*(1,) * i, -1, *(1,) * (n - i - 1))) for i, x in enumerate(xi)]
    if indexing == "xy" and n > 1:
        grid = [swapaxes(x, 0, 1) for x in grid]
    return tuple(grid) if sparse else broadcast_arrays(*grid)


public(unstack, np.unstack)
public(concatenate, np.concatenate, np.concat)
public(stack, np.stack)
public(vstack, np.vstack)
public(hstack, np.hstack)
public(dstack, np.dstack)
public(column_stack, np.column_stack)
public(append, np.append)
public(split, np.split)
public(array_split, np.array_split)
public(vsplit, np.vsplit)
public(hsplit, np.hsplit)
public(dsplit, np.dsplit)
public(meshgrid, np.meshgrid)
