"""Pseudo-inverse, least squares and rank.

The rule is that of G. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear
least squares problems whose variables separate", 1973.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.arguments import array_of, number
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.factorisations import svdvals
from stepgrad.ops.matrices import matmul
from stepgrad.ops.registry import public, register
from stepgrad.ops.solving import NO_CONVERGENCE, RESCALE, compute, conditioned, matrices
from stepgrad.tape.op import Op, Shape, TensorType, promoted_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions

__all__ = ["lstsq", "matrix_rank", "pinv"]


def _with_cutoff(call: str) -> Any:
    def text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
        settings = "".join(f", {k}={v!r}" for k, v in params.items() if v is not None)
        return f"{call}({operands[0]}{settings})"

    return text


_matrix_rank = register(
    Op(
        "matrix_rank",
        shape=lambda a, tol, rtol: a.shape[:-2],
        dtype=lambda a, tol, rtol: np.dtype(np.intp),
        numpy=lambda a, tol, rtol: np.linalg.matrix_rank(a, tol=tol, **({} if rtol is None else {"rtol": rtol})),
        rules=(None,),
        text=_with_cutoff("np.linalg.matrix_rank"),
        samples=[(conditioned(3, 2), {"tol": None, "rtol": None}), (conditioned(2, 3, 2), {"tol": 1.5, "rtol": None})],
    )
)


def matrix_rank(A: Any, tol: float | None = None, *, rtol: float | None = None) -> Tensor:
    """The number of linearly independent rows: singular values above a tolerance. No gradient flows.

    Args:
        A: (..., m, n)
        tol: singular values up to this one count as 0; by default max(m, n) roundings of the largest.
        rtol: the tolerance as a fraction of the largest.

    Example:
        >>> int(sg.linalg.matrix_rank(sg.tensor([[1.0, 2.0], [2.0, 4.0]])))
        1
    """
    given = {"tol": tol, "rtol": rtol}
    tolerances = {name: None if value is None else number(value, name) for name, value in given.items()}
    return record(_matrix_rank, (matrices("matrix_rank", A),), tolerances)


def _pinv_shape(a: TensorType, rcond: float) -> Shape:
    return (*a.shape[:-2], a.shape[-1], a.shape[-2])


def _pinv_rule(g: Tensor, out: Tensor, a: Tensor, rcond: float) -> Tensor:
    """Golub and Pereyra (1973), equation 4.12."""
    left, right = g.mT @ out @ out.mT, out.mT @ out @ g.mT
    return left - out.mT @ (a.mT @ left) + right - (right @ out) @ a - out.mT @ g @ out.mT


_pinv = register(
    Op(
        "pinv",
        shape=_pinv_shape,
        numpy=lambda a, rcond: np.linalg.pinv(a, rcond=rcond),
        rules=(_pinv_rule,),
        text=_with_cutoff("np.linalg.pinv"),
        samples=[
            (conditioned(3, 3), {"rcond": 1e-15}),
            (conditioned(4, 2), {"rcond": 1e-15}),
            (conditioned(2, 3), {"rcond": 1e-6}),
            (conditioned(3, 2, 2), {"rcond": 1e-15}),
        ],
        cost=lambda a, out, rcond: 30.0 * a.size * min(a.shape[-2:]),
    )
)


def pinv(a: Any, rcond: float | None = None, *, rtol: float | None = None) -> Tensor:
    """The Moore-Penrose pseudo-inverse.

    Args:
        a: (..., m, n). It jumps where the rank of the matrix changes; the gradient is that along
            changes that keep the rank.
        rcond: singular values up to this fraction of the largest count as 0; 1e-15 by default.
        rtol: another name for it.

    Returns:
        (..., n, m)

    Example:
        >>> sg.linalg.pinv(sg.tensor([[2.0], [0.0]]))
        tensor([[0.5, 0. ]], dtype=float64)
    """
    given = [x for x in (rcond, rtol) if x is not None]
    if len(given) > 1:
        raise ArgumentError("pinv was called with rcond= and rtol=", "they mean the same", "pass one of them")
    cutoff = number(given[0], "rcond") if given else 1e-15
    return compute(_pinv, [matrices("pinv", a)], NO_CONVERGENCE, RESCALE, rcond=cutoff)


def lstsq(a: Any, b: Any, rcond: float | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The shortest x for which `a @ x` is closest to b.

    Args:
        a: (m, n)
        b: (m,), or (m, k) for k right-hand sides.
        rcond: singular values up to this fraction of the largest count as 0; by default max(m, n)
            roundings.

    Returns:
        (x, residuals, rank, singular values): x of shape (n,) or (n, k); the sums of squares of
        `b - a @ x`, of shape (1,) or (k,), empty for m <= n.

    Example:
        >>> sg.linalg.lstsq(sg.tensor([[1.0], [1.0]]), [1.0, 3.0])[0].numpy().round(12)
        array([2.])
    """
    left, right = matrices("lstsq", a), array_of(b)
    dtype = promoted_dtype(left.equation.type, right.equation.type)
    left, right = to_dtype(left, dtype), to_dtype(right, dtype)
    m, n = left.shape[-2:]
    cutoff = float(np.finfo(dtype).eps) * max(m, n) if rcond is None else rcond
    x = matmul(pinv(left, cutoff), right)
    squares = functions["square"](right - matmul(left, x)).sum(axis=0, keepdims=right.ndim == 1)
    residuals = squares if m > n else squares[:0]
    return x, residuals, matrix_rank(left, rtol=cutoff), svdvals(left)


public(pinv, np.linalg.pinv)
public(lstsq, np.linalg.lstsq)
public(matrix_rank, np.linalg.matrix_rank)
