"""Norms of vectors and matrices. At zero, where a norm has a kink, its gradient is 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.arguments import Axis, array_of, axes_in_order
from stepgrad.ops.choosing import mask
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.reductions import averaged_dtype, max, min, reduction, sum, sum_numpy, unreduce
from stepgrad.ops.registry import public
from stepgrad.ops.shapes import as_one_axis, expand_dims, squeeze
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, functions

__all__ = ["norm"]


def _norm_numpy(a: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.sqrt(sum_numpy(a * a, axis, keepdims))


def _norm_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    return unreduce(mask(g / out, out != 0), a.shape, axis, keepdims) * a


_norm = reduction(
    "norm",
    _norm_numpy,
    _norm_rule,
    dtype=averaged_dtype,
    text="np.linalg.norm({0}, ",
    work=2.0,
    analytic=True,
)


def _p_norm_numpy(a: Array, axis: tuple[int, ...], keepdims: bool, ord: float) -> Any:
    return sum_numpy(np.abs(a) ** ord, axis, keepdims) ** (1 / ord)


def _p_norm_rule(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool, ord: float) -> Tensor:
    largest = unreduce(out, a.shape, axis, keepdims)
    slope = functions["sign"](a) * functions["power"](functions["absolute"](a) / largest, ord - 1)
    return mask(unreduce(g, a.shape, axis, keepdims) * slope, a != 0)


_p_norm = reduction(
    "p_norm",
    _p_norm_numpy,
    _p_norm_rule,
    dtype=averaged_dtype,
    text="np.linalg.vector_norm({0}, ",
    settings=({"ord": 3.0}, {"ord": 1.5}),
    work=10.0,
)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The norm of a vector or matrix, or of each of those along axes.

    Args:
        x: a tensor or array.
        ord: which norm. For vectors: None or 2, any other p, inf (the largest absolute value), -inf,
            or 0 (how many elements are not 0). For matrices: None or "fro" (Frobenius), 1 and -1
            (largest and smallest column sum), inf and -inf (row sums), 2 and -2 (largest and smallest
            singular value), or "nuc" (their sum).
        axis: an int for vectors along that axis, two for matrices; None takes x as a whole.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.grad(sg.norm)(np.array([3.0, 4.0]))
        array([0.6, 0.8])
    """
    tensor = array_of(x)
    if not tensor.equation.type.is_float:
        tensor = to_dtype(tensor, np.float64)
    axes = tuple(range(tensor.ndim)) if axis is None else axes_in_order(axis, tensor.ndim)
    if ord is None and (axis is None or len(axes) in (1, 2)):
        return _recorded(_norm, tensor, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(tensor, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(tensor, ord, axes, keepdims)
    raise ArgumentError(
        f"a norm with ord={ord!r} over axes {axes} of shape {tensor.shape} was asked for",
        "norms other than the square root of the sum of squares are defined for vectors (one axis) and matrices (two)",
        "pass axis=, or flatten the array first: sg.norm(x.ravel(), ord)",
    )


def _recorded(op: Any, tensor: Tensor, axes: tuple[int, ...], keepdims: bool, **more: Any) -> Tensor:
    return record(op, (tensor,), {"axis": tuple(sorted(axes)), "keepdims": bool(keepdims), **more})


def _vector_norm(x: Tensor, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if isinstance(ord, str) or not isinstance(ord, (int, float, np.integer, np.floating)):
        raise ArgumentError(
            f"a vector norm with ord={ord!r} was asked for", "it is not a number", "pass 1, 2, another p, or np.inf"
        )
    magnitude = functions["absolute"]
    if ord == 2:
        return _recorded(_norm, x, axes, keepdims)
    if ord == 1:
        return sum(magnitude(x), axes, keepdims=keepdims)
    if ord == 0:
        return to_dtype(sum(x != 0, axes, keepdims=keepdims), x.dtype)
    if math.isinf(ord):
        return (max if ord > 0 else min)(magnitude(x), axes, keepdims=keepdims)
    return _recorded(_p_norm, x, axes, keepdims, ord=float(ord))


def _matrix_norm(x: Tensor, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if not isinstance(ord, (str, int, float, np.integer, np.floating)):
        ord = repr(ord)  # not one of those below, and perhaps nothing that == can tell
    if ord == "fro":
        return _recorded(_norm, x, axes, keepdims)
    rows, columns = axes
    if ord == "nuc" or ord in (2, -2):
        values = functions["svdvals"](functions["moveaxis"](x, axes, (-2, -1)))
        result = sum(values, -1) if ord == "nuc" else values[..., 0 if ord == 2 else -1]
        return expand_dims(result, tuple(sorted(axes))) if keepdims else result
    if ord not in (1, -1, np.inf, -np.inf):
        raise ArgumentError(
            f"a matrix norm with ord={ord!r} was asked for",
            "matrices have the norms None, 'fro', 'nuc', 1, -1, 2, -2, np.inf and -np.inf",
            "name one of these; for the norm of each row use sg.norm(x, ord, axis=1)",
        )
    added, compared = (rows, columns) if ord in (1, -1) else (columns, rows)
    sums = sum(functions["absolute"](x), added, keepdims=True)
    result = (max if ord > 0 else min)(sums, compared, keepdims=True)
    return result if keepdims else squeeze(result, axes)


def vector_norm(x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Tensor:
    """The norm of a vector, or of all elements over axes as one vector: `np.linalg.vector_norm`."""
    tensor = array_of(x)
    axes = tuple(range(tensor.ndim)) if axis is None else axes_in_order(axis, tensor.ndim)
    if not tensor.equation.type.is_float:
        tensor = to_dtype(tensor, np.float64)
    if len(axes) < 2:
        return _vector_norm(tensor, ord, axes, keepdims)
    result = _vector_norm(as_one_axis(tensor, axes), ord, (tensor.ndim - len(axes),), False)
    return expand_dims(result, axes) if keepdims else result


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The norm of each matrix in the last two axes: `np.linalg.matrix_norm`."""
    return norm(x, "fro" if ord is None else ord, (-2, -1), keepdims)


public(norm, np.linalg.norm)
public(vector_norm, np.linalg.vector_norm)
public(matrix_norm, np.linalg.matrix_norm)
