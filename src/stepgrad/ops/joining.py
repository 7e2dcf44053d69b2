"""Joining and taking apart: concatenate, stack, split, …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.shapes import reshape
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import as_tensor, record
from stepgrad.tape.samples import normal
from stepgrad.tensor import Tensor

__all__ = ["concatenate", "stack"]


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
        samples=[(normal(2, 3), normal(4, 3), {"axis": 0}), (normal(2, 3), normal(2, 1), normal(2, 2), {"axis": 1})],
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
    tensors = [as_tensor(a) for a in arrays]
    if not tensors:
        raise ArgumentError(
            "no arrays were given to concatenate", "there is nothing to join", "pass at least one array"
        )
    if axis is None:
        tensors, axis = [reshape(t, -1) for t in tensors], 0
    ndim = tensors[0].ndim
    if not -ndim <= axis < ndim:
        raise ArgumentError(
            f"axis={axis} was given for arrays with {ndim} axes",
            "they have no such axis",
            "use sg.stack for a new axis",
        )
    dtype = np.result_type(*[t.dtype for t in tensors])
    return record(_concatenate, tuple(to_dtype(t, dtype) for t in tensors), {"axis": axis % ndim})


def stack(arrays: Sequence[Any], axis: int = 0) -> Tensor:
    """Joins arrays of one shape along a new axis.

    Example:
        >>> sg.stack([sg.tensor([1.0, 2.0]), sg.tensor([3.0, 4.0])]).shape
        (2, 2)
    """
    tensors = [as_tensor(a) for a in arrays]
    if not tensors or any(t.shape != tensors[0].shape for t in tensors):
        raise ShapeError(
            f"arrays of shapes {[t.shape for t in tensors]} were given to stack",
            "arrays can be stacked if there is at least one and all have the same shape",
            "use sg.concatenate to join arrays of different lengths along an axis they have",
        )
    shape, ndim = tensors[0].shape, tensors[0].ndim + 1
    if not -ndim <= axis < ndim:
        raise ArgumentError(
            f"axis={axis} was given to stack", f"the result has {ndim} axes", f"use an axis from {-ndim} to {ndim - 1}"
        )
    axis %= ndim
    return concatenate([reshape(t, (*shape[:axis], 1, *shape[axis:])) for t in tensors], axis)


public(concatenate, np.concatenate, np.concat)
public(stack, np.stack)
