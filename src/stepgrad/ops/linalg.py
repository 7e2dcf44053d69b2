"""Linear algebra under NumPy's names: `sg.linalg.solve` is to tensors what `np.linalg.solve` is to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, whole
from stepgrad.ops.determinants import SlogdetResult, det, slogdet
from stepgrad.ops.factorisations import (
    EighResult,
    QRResult,
    SVDResult,
    cholesky,
    eigh,
    eigvalsh,
    qr,
    svd,
    svdvals,
)
from stepgrad.ops.joining import several
from stepgrad.ops.least_squares import lstsq, matrix_rank, pinv
from stepgrad.ops.matrices import cross, matmul, outer, tensordot, vecdot
from stepgrad.ops.norms import matrix_norm, norm, vector_norm
from stepgrad.ops.registry import public
from stepgrad.ops.shapes import matrix_transpose
from stepgrad.ops.solving import LinAlgError, inv, solve
from stepgrad.tape.leaves import constant
from stepgrad.tensor import Tensor, describe, functions, numpy_functions

__all__ = [
    "EighResult",
    "LinAlgError",
    "QRResult",
    "SVDResult",
    "SlogdetResult",
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "multi_dot",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


def diagonal(x: Any, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices.

    Args:
        x: (..., m, n)
        offset: how far to the right of the main diagonal.

    Example:
        >>> sg.linalg.diagonal(sg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.], dtype=float64)
    """
    return functions["diagonal"](x, offset, -2, -1)


def trace(x: Any, *, offset: int = 0) -> Tensor:
    """The sums over the diagonals of matrices.

    Args:
        x: (..., m, n)
        offset: how far to the right of the main diagonal.

    Example:
        >>> sg.linalg.trace(sg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor(5., dtype=float64)
    """
    return diagonal(x, offset=offset).sum(axis=-1)


def matrix_power(a: Any, n: int) -> Tensor:
    """A square matrix multiplied with itself n times, by repeated squaring.

    Args:
        a: (..., m, m)
        n: an integer; a negative power is one of the inverse, and the power 0 a constant identity.

    Example:
        >>> sg.linalg.matrix_power(sg.tensor([[1.0, 1.0], [0.0, 1.0]]), 5)
        tensor([[1., 5.],
                [0., 1.]], dtype=float64)
    """
    square, left = array_of(a), whole(n, "n, the power,")
    if left < 0:
        square, left = inv(square), -left
    if square.ndim < 2 or square.shape[-1] != square.shape[-2]:
        raise ShapeError(
            f"matrix_power was called on {describe(square)}",
            "only a square matrix can be multiplied with itself",
            "for the powers of single elements write x ** n",
        )
    if not left:
        return constant(np.broadcast_to(np.eye(square.shape[-1], dtype=square.dtype), square.shape))
    power: Tensor | None = None
    while left:
        if left % 2:
            power = square if power is None else power @ square
        left //= 2
        square = square @ square if left else square
    assert power is not None
    return power


def multi_dot(arrays: Sequence[Any]) -> Tensor:
    """The product of several matrices, in the order that takes the fewest multiplications.

    Args:
        arrays: at least two matrices; the first and the last may be vectors.

    Example:
        >>> A = sg.tensor(np.ones((10, 2)))
        >>> sg.linalg.multi_dot([A, A.T, A]).shape
        (10, 2)
    """
    tensors = several(arrays, "multi_dot")
    wanted = [(1, 2) if i in (0, len(tensors) - 1) else (2,) for i in range(len(tensors))]
    if len(tensors) < 2 or any(t.ndim not in n for t, n in zip(tensors, wanted, strict=True)):
        raise ArgumentError(
            f"multi_dot was called with arrays of shapes {[t.shape for t in tensors]}",
            "it multiplies two or more matrices, of which only the first and the last may be vectors",
            "write a batch of products with @",
        )
    lengths = [t.shape[0] for t in tensors] + [tensors[-1].shape[-1]]
    lengths[0] = 1 if tensors[0].ndim == 1 else lengths[0]
    lengths[-1] = 1 if tensors[-1].ndim == 1 else lengths[-1]

    # best[i, j]: the fewest multiplications for tensors i to j, and where to split them last
    best = {(i, i): (0, i) for i in range(len(tensors))}
    for span in range(1, len(tensors)):
        for i in range(len(tensors) - span):
            j = i + span
            best[i, j] = min(
                (best[i, k][0] + best[k + 1, j][0] + lengths[i] * lengths[k + 1] * lengths[j + 1], k)
                for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        split = best[i, j][1]
        return tensors[i] if i == j else matmul(product(i, split), product(split + 1, j))

    return product(0, len(tensors) - 1)


public(matrix_power, np.linalg.matrix_power)
public(multi_dot, np.linalg.multi_dot)
numpy_functions[np.linalg.diagonal] = diagonal
numpy_functions[np.linalg.trace] = trace
numpy_functions[np.linalg.matrix_transpose] = matrix_transpose
