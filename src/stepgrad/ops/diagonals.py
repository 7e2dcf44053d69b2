"""Diagonals and triangles of matrices: diagonal, diag, trace, tril, triu."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, axis_of, whole
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.reductions import sum
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.tape.op import Op, Shape, TensorType, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, numpy_functions

__all__ = ["diag", "diagonal", "tril", "triu"]


def _diagonal_shape(a: TensorType, offset: int, axis1: int, axis2: int) -> Shape:
    rows, columns = a.shape[axis1], a.shape[axis2]
    length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    return (*(n for i, n in enumerate(a.shape) if i not in (axis1, axis2)), length)


_diagonal = register(
    Op(
        "diagonal",
        shape=_diagonal_shape,
        numpy=np.diagonal,
        rules=(lambda g, out, a, **params: _on_diagonal(g, shape=a.shape, **params),),
        text=lambda operands, params, equation: (
            f"({operands[0]}).diagonal({', '.join(map(str, _settings(params, (0, 0, 1))))})"
        ),
        samples=[
            (normal(3, 3), {"offset": 0, "axis1": 0, "axis2": 1}),
            (normal(3, 4), {"offset": 1, "axis1": 0, "axis2": 1}),
            (normal(2, 3, 4), {"offset": -1, "axis1": 1, "axis2": 2}),
            (normal(3, 2, 2), {"offset": 0, "axis1": 2, "axis2": 0}),
        ],
        analytic=True,
    )
)


def _settings(params: dict[str, Any], defaults: tuple[int, ...]) -> list[int]:
    """The values of params, without those at the end that are at their defaults."""
    values = [params[name] for name in ("offset", "axis1", "axis2")]
    while values and values[-1] == defaults[len(values) - 1]:
        values.pop()
    return values


def on_diagonal(values: Array, shape: Shape, offset: int, axis1: int, axis2: int) -> Array:
    """Zeros of a shape with values on a diagonal."""
    out = np.zeros(shape, values.dtype)
    i = np.arange(values.shape[-1])
    np.moveaxis(out, (axis1, axis2), (-2, -1))[..., i + max(-offset, 0), i + max(offset, 0)] = values
    return out


def _on_diagonal_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    shape, offset = params["shape"], params["offset"]
    length = equation.inputs[0].type.shape[-1]
    if shape == (length + abs(offset),) * 2 and params["axis1"] < params["axis2"]:
        return f"np.diag({operands[0]}{f', {offset}' if offset else ''})"
    return f"on_diagonal({operands[0]}, {', '.join(f'{k}={v}' for k, v in params.items())})"


_on_diagonal: Op = register(
    Op(
        "on_diagonal",
        shape=lambda values, shape, offset, axis1, axis2: shape,
        numpy=on_diagonal,
        rules=(
            lambda g, out, values, shape, offset, axis1, axis2: record(
                _diagonal, (g,), {"offset": offset, "axis1": axis1, "axis2": axis2}
            ),
        ),
        text=_on_diagonal_text,
        samples=[
            (normal(3), {"shape": (3, 3), "offset": 0, "axis1": 0, "axis2": 1}),
            (normal(2), {"shape": (4, 4), "offset": -2, "axis1": 0, "axis2": 1}),
            (normal(2), {"shape": (2, 3), "offset": 1, "axis1": 0, "axis2": 1}),
            (normal(2, 3), {"shape": (3, 2, 4), "offset": 1, "axis1": 0, "axis2": 2}),
            (normal(2, 2), {"shape": (3, 2, 2), "offset": 0, "axis1": 2, "axis2": 0}),
        ],
        analytic=True,
        doc="Zeros of a shape with values on a diagonal.",
    )
)


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements on a diagonal.

    Args:
        a: a tensor or array with two axes or more.
        offset: which diagonal; positive ones lie above the main one.
        axis1, axis2: rows and columns of the matrices.

    Returns:
        The other axes of `a`, and the diagonal as the last.

    Example:
        >>> sg.diagonal(sg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.], dtype=float64)
    """
    tensor = array_of(a)
    if tensor.ndim < 2:
        raise ShapeError(f"shape {tensor.shape} has no diagonal", "there are fewer than two axes", "use sg.diag(x)")
    first, second = axis_of(axis1, tensor.ndim), axis_of(axis2, tensor.ndim)
    if first == second:
        raise ArgumentError(
            f"axis1={axis1} and axis2={axis2} were given for shape {tensor.shape}",
            "rows and columns are the same axis",
            "name two different axes",
        )
    return record(_diagonal, (tensor,), {"offset": whole(offset, "offset"), "axis1": first, "axis2": second})


def diag(v: Any, k: int = 0) -> Tensor:
    """A matrix with a vector on its diagonal; or, of a matrix, its diagonal.

    Args:
        v: a vector or a matrix.
        k: which diagonal; positive ones lie above the main one.

    Example:
        >>> sg.diag(sg.tensor([1.0, 2.0])).tolist()
        [[1.0, 0.0], [0.0, 2.0]]
    """
    tensor, offset = array_of(v), whole(k, "k")
    if tensor.ndim == 2:
        return diagonal(tensor, offset)
    if tensor.ndim != 1:
        raise ShapeError(
            f"diag was called with an array of shape {tensor.shape}",
            "it takes a vector or a matrix",
            "for the diagonals of many matrices use sg.diagonal(x, axis1=-2, axis2=-1)",
        )
    n = tensor.size + abs(offset)
    return record(_on_diagonal, (tensor,), {"shape": (n, n), "offset": offset, "axis1": 0, "axis2": 1})


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Tensor:
    """The sum of a diagonal; arguments as for `diagonal`.

    Example:
        >>> np.trace(sg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor(5., dtype=float64)
    """
    tensor = array_of(a) if dtype is None else to_dtype(array_of(a), dtype)
    return sum(diagonal(tensor, offset, axis1, axis2), -1)


def _triangle(name: str) -> Op:
    def text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
        return f"np.{name}({operands[0]}" + (f", {params['k']})" if params["k"] else ")")

    op = Op(
        name,
        shape=same_shape,
        numpy=getattr(np, name),
        rules=(lambda g, out, m, k: record(op, (g,), {"k": k}),),
        text=text,
        samples=[(normal(3, 3), {"k": 0}), (normal(3, 4), {"k": 1}), (normal(2, 4, 3), {"k": -1})],
        analytic=True,
    )
    return register(op)


_tril, _triu = _triangle("tril"), _triangle("triu")


def tril(m: Any, k: int = 0) -> Tensor:
    """The lower triangle of matrices; zeros above it.

    Args:
        m: a tensor or array with two axes or more.
        k: the last diagonal that is kept; 0 is the main one, 1 the one above it.

    Example:
        >>> sg.tril(sg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 0.0], [3.0, 4.0]]
    """
    return _cut(_tril, m, k)


def triu(m: Any, k: int = 0) -> Tensor:
    """The upper triangle of matrices; zeros below it.

    Args:
        m: a tensor or array with two axes or more.
        k: the first diagonal that is kept; 0 is the main one, 1 the one above it.

    Example:
        >>> sg.triu(sg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 2.0], [0.0, 4.0]]
    """
    return _cut(_triu, m, k)


def _cut(op: Op, m: Any, k: int) -> Tensor:
    tensor = array_of(m)
    if tensor.ndim < 2:
        raise ShapeError(
            f"{op.name} was called with an array of shape {tensor.shape}",
            "triangles are parts of matrices, and there are fewer than two axes",
            "reshape it first, or use sg.broadcast_to(x, (n, n)) for a matrix of equal rows",
        )
    return record(op, (tensor,), {"k": whole(k, "k")})


public(diagonal, np.diagonal)
public(diag, np.diag)
public(trace, np.trace)
public(tril, np.tril)
public(triu, np.triu)
numpy_functions[np.linalg.diagonal] = lambda x, *, offset=0: diagonal(x, offset, -2, -1)
numpy_functions[np.linalg.trace] = lambda x, *, offset=0, dtype=None: trace(x, offset, -2, -1, dtype)
