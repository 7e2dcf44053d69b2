"""Shapes: reshape, transpose, …: the same numbers, arranged otherwise."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.registry import public, register
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import as_tensor, record
from stepgrad.tape.samples import normal
from stepgrad.tensor import Tensor

__all__ = ["matrix_transpose", "reshape", "transpose"]


def _reshape_shape(a: TensorType, shape: Shape) -> Shape:
    if math.prod(shape) != a.size:
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
        samples=[(normal(2, 3), {"shape": (3, 2)}), (normal(4), {"shape": (2, 1, 2)})],
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
    tensor = as_tensor(a)
    wanted = tuple(operator.index(n) for n in shape) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    if -1 in wanted:
        known = -math.prod(wanted)
        if wanted.count(-1) > 1 or not known or tensor.size % known:
            raise ShapeError(
                f"shape {tensor.shape} can't be reshaped to {wanted}",
                f"its {tensor.size} elements do not determine the length marked -1",
                "mark one axis with -1, with the others dividing the number of elements",
            )
        wanted = tuple(tensor.size // known if n == -1 else n for n in wanted)
    if wanted == tensor.shape:
        return tensor
    return record(_reshape, (tensor,), {"shape": wanted})


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
        samples=[(normal(2, 3), {"axes": (1, 0)}), (normal(2, 3, 4), {"axes": (1, 2, 0)})],
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
    tensor = as_tensor(a)
    ndim = tensor.ndim
    order = tuple(reversed(range(ndim))) if axes is None else tuple(operator.index(i) % max(ndim, 1) for i in axes)
    if sorted(order) != list(range(ndim)):
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
    tensor = as_tensor(a)
    n = tensor.ndim
    if n < 2:
        raise ShapeError(
            f"shape {tensor.shape} has no matrix to transpose", "there are fewer than two axes", "reshape it first"
        )
    return record(_transpose, (tensor,), {"axes": (*range(n - 2), n - 1, n - 2)})


public(reshape, np.reshape)
public(transpose, np.transpose, np.permute_dims)
public(matrix_transpose, np.matrix_transpose)
