"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ShapeError
from stepgrad.ops.expanding import expand
from stepgrad.ops.registry import public, register
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import as_tensor, record
from stepgrad.tape.samples import normal
from stepgrad.tensor import Tensor, functions

__all__ = ["matmul"]


def matmul_shape(a: TensorType, b: TensorType) -> Shape:
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"the inner lengths differ: {a.shape} @ {b.shape}",
            f"it adds up over the columns of the first ({a.shape[-1]}) and the rows of the second ({b.shape[-2]})",
            "transpose one of them (x.T), or check which axis is the batch",
        )
    return (*a.shape[:-1], b.shape[-1])


_matmul = register(
    Op(
        "matmul",
        shape=matmul_shape,
        numpy=np.matmul,
        rules=(lambda g, out, a, b: g @ b.mT, lambda g, out, a, b: a.mT @ g),
        text="{0} @ {1}",
        samples=[(normal(2, 3), normal(3, 4)), (normal(5, 2, 3), normal(5, 3, 4))],
        analytic=True,
        cost=lambda a, b, out: 2.0 * out.size * a.shape[-1],
    )
)


def matmul(x1: Any, x2: Any) -> Tensor:
    """The matrix product `x1 @ x2`, with all of NumPy's shapes: vectors, matrices and batches.

    Args:
        x1: (..., n, k), or a vector (k,).
        x2: (..., k, m), or a vector (k,). Leading axes are broadcast.

    Returns:
        (..., n, m); the axis of a vector is left out.

    Example:
        >>> sg.matmul(sg.tensor([[1.0, 2.0]]), sg.tensor([3.0, 4.0]))
        tensor([11.], dtype=float64)
    """
    a, b = as_tensor(x1), as_tensor(x2)
    if a.ndim == b.ndim == 2 and a.dtype == b.dtype:
        return record(_matmul, (a, b), {})
    if not a.ndim or not b.ndim:
        raise ShapeError(
            f"a matrix product of shapes {a.shape} and {b.shape} was asked for",
            "a single number is not a matrix",
            "multiply with * instead",
        )
    left, right = a.ndim == 1, b.ndim == 1
    rows = functions["reshape"](a, (1, a.size)) if left else a
    columns = functions["reshape"](b, (b.size, 1)) if right else b
    rows, columns = _promote(rows, columns)
    if rows.ndim > 2 or columns.ndim > 2:
        rows, columns = _batch(rows, columns)
    product = record(_matmul, (rows, columns), {})
    if left or right:
        shape = product.shape[: -2 if left else -1]
        product = functions["reshape"](product, shape if right else (*shape, product.shape[-1]))
    return product


def _promote(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = np.result_type(a.dtype, b.dtype)
    return functions["astype"](a, dtype), functions["astype"](b, dtype)


def _batch(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"the batch axes of {a.shape} and {b.shape} do not broadcast",
            "all axes but the last two are matched from the right, and have to be equal or of length 1",
            "add axes of length 1 where a matrix should be repeated, for example W[None]",
        ) from None
    pairs = [(t, (*batch, *t.shape[-2:])) for t in (a, b)]
    first, second = (t if t.shape == shape else expand(t, shape=shape) for t, shape in pairs)
    return first, second


public(matmul, np.matmul)
