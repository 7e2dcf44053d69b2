"""Inverses and linear equations, and what all of linear algebra shares. The rules are collected in Giles (2008).

M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation", 2008, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.errors import DtypeError, ShapeError, StepgradError
from stepgrad.ops.arguments import array_of
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.matrices import expand_to, outer
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import Sample, normal
from stepgrad.ops.shapes import reshape
from stepgrad.tape.op import Op, Shape, TensorType, promoted_dtype
from stepgrad.tape.places import place_text, user_where
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, describe

__all__ = ["LinAlgError", "inv", "solve"]


class LinAlgError(StepgradError, np.linalg.LinAlgError):
    """A matrix for which the operation is not defined: singular, not positive definite, not finite."""


def matrices(name: str, a: Any, square: bool = False) -> Tensor:
    """An operand that has to be one matrix or a batch of them: finite, real and floating-point."""
    tensor = array_of(a)
    shape = tensor.shape
    if len(shape) < 2:
        raise ShapeError(
            f"{name} was called on {describe(tensor)}",
            "a matrix has at least two axes",
            "reshape it to (rows, columns); a batch of matrices has its batch axes in front",
        )
    if square and shape[-1] != shape[-2]:
        raise ShapeError(
            f"{name} was called on {describe(tensor)}",
            f"{name} is defined for square matrices, and these have {shape[-2]} rows and {shape[-1]} columns",
            "check the shape; for matrices that are not square there are sg.linalg.pinv, lstsq, svd and qr",
        )
    if tensor.equation.type.is_float and tensor.dtype not in (np.float32, np.float64):
        raise DtypeError(
            f"{name} was called on {describe(tensor)}",
            "it is computed by LAPACK, in float32 or float64",
            "convert first: A.astype(np.float64)",
        )
    if tensor.value is not None and not np.isfinite(tensor.value).all():
        raise LinAlgError(
            f"{name} was called on {describe(tensor)}, which contains NaN or Inf\n  at {place_text(user_where())}",
            "LAPACK returns arbitrary numbers for them",
            "find out where they come from: np.argwhere(~np.isfinite(A.numpy()))",
        )
    return tensor if tensor.equation.type.is_float else to_dtype(tensor, np.float64)


def compute(op: Op, tensors: Sequence[Tensor], why: str, instead: str, **params: Any) -> Tensor:
    """Records an equation whose NumPy meaning may find that a matrix has no such result."""
    try:
        return record(op, tuple(tensors), params)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(
            f"{op.name} of {describe(tensors[0])}{_which(tensors[0], op)}: {error}\n  at {place_text(user_where())}",
            why,
            instead,
        ) from None


def _which(tensor: Tensor, op: Op) -> str:
    """The first matrix of a batch for which the operation fails."""
    fails: Callable[[Array], Any] = np.linalg.inv if op.name == "solve" else op.numpy
    value = tensor.numpy()
    for index in np.ndindex(value.shape[:-2]):
        try:
            fails(value[index])
        except np.linalg.LinAlgError:
            return f", matrix {index} of the batch" if index else ""
    return ""


NO_CONVERGENCE = "LAPACK's iteration did not converge, which happens with numbers of very different size"
RESCALE = "scale the matrix, or compute in float64"


def per_matrix(x: Tensor) -> Tensor:
    """One number for each matrix, with the axes along which it multiplies the matrix."""
    return reshape(x, (*x.shape, 1, 1))


def batch_size(a: TensorType) -> float:
    return a.size / max(a.shape[-1] * a.shape[-2], 1)


# --- samples


def _orthogonal(rng: np.random.Generator, n: int, batch: Shape) -> Array:
    return np.linalg.qr(rng.standard_normal((*batch, n, n)))[0]


def conditioned(m: int, n: int, *batch: int) -> Sample:
    """Matrices of full rank, with singular values between 1 and a few, no two of them close."""

    def draw(rng: np.random.Generator) -> Any:
        k = min(m, n)
        s = 1.0 + 0.7 * np.arange(k) + 0.2 * rng.random((*batch, 1, k))
        return (_orthogonal(rng, m, batch)[..., :k] * s) @ _orthogonal(rng, n, batch)[..., :k].mT

    return Sample(draw, f"conditioned({m}, {n})")


def invertible(n: int, *batch: int) -> Sample:
    return conditioned(n, n, *batch)


def positive_definite(n: int, *batch: int) -> Sample:
    """Symmetric matrices with eigenvalues between 1 and a few, no two of them close."""

    def draw(rng: np.random.Generator) -> Any:
        values = 1.0 + 0.7 * np.arange(n) + 0.2 * rng.random((*batch, 1, n))
        vectors = _orthogonal(rng, n, batch)
        return (vectors * values) @ vectors.mT

    return Sample(draw, f"positive_definite({n})")


# --- inverse and solve

_SINGULAR = "its rows are linearly dependent, so it has no inverse"
_REGULARISE = "add a small multiple of the identity, A + 1e-6 * np.eye(n), or use sg.linalg.pinv or lstsq"

_inv = register(
    Op(
        "inv",
        shape=lambda a: a.shape,
        numpy=np.linalg.inv,
        rules=(lambda g, out, a: -(out.mT @ g @ out.mT),),
        text="np.linalg.inv({0})",
        samples=[(invertible(3),), (invertible(2, 2),)],
        analytic=True,
        cost=lambda a, out: 2.0 * a.size * a.shape[-1],
    )
)


def inv(a: Any) -> Tensor:
    """The inverse of a square matrix. To solve equations, `solve` is faster and more accurate.

    Args:
        a: (..., n, n)

    Raises:
        LinAlgError: it is singular, or contains NaN or Inf.

    Example:
        >>> sg.linalg.inv(sg.tensor([[2.0, 0.0], [0.0, 4.0]]))
        tensor([[0.5 , 0.  ],
                [0.  , 0.25]], dtype=float64)
    """
    return compute(_inv, [matrices("inv", a, square=True)], _SINGULAR, _REGULARISE)


def _solve_shape(a: TensorType, b: TensorType) -> Shape:
    rows = b.shape[0] if len(b.shape) == 1 else b.shape[-2]
    if rows != a.shape[-1]:
        raise ShapeError(
            f"solve got a matrix of shape {a.shape} and a right-hand side of shape {b.shape}",
            f"there are {a.shape[-1]} equations, and the right-hand side has {rows} rows",
            "check the right-hand side: it is (n,), or (..., n, m) with one column for each system",
        )
    return b.shape


def _solve_rule(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    moved = solve(a.mT, g)
    return -outer(moved, out) if out.ndim == 1 else -(moved @ out.mT)


_solve = register(
    Op(
        "solve",
        shape=_solve_shape,
        numpy=np.linalg.solve,
        rules=(_solve_rule, lambda g, out, a, b: solve(a.mT, g)),
        text="np.linalg.solve({0}, {1})",
        samples=[
            (invertible(3), normal(3)),
            (invertible(3), normal(3, 2)),
            (invertible(2, 2), normal(2, 2, 1)),
        ],
        analytic=True,
        cost=lambda a, b, out: a.size * a.shape[-1] * 2 / 3 + 2.0 * out.size * a.shape[-1],
    )
)


def solve(a: Any, b: Any) -> Tensor:
    """The solution x of the linear equations `a @ x = b`.

    Args:
        a: (..., n, n)
        b: (n,), or (..., n, m) for m right-hand sides. Leading axes are broadcast.

    Returns:
        In the shape of `b`, with the leading axes of `a`.

    Raises:
        LinAlgError: a is singular, or contains NaN or Inf.

    Example:
        >>> sg.linalg.solve(sg.tensor([[2.0, 0.0], [0.0, 4.0]]), [1.0, 1.0])
        tensor([0.5 , 0.25], dtype=float64)
    """
    left, right = matrices("solve", a, square=True), array_of(b)
    if not right.ndim:
        raise ShapeError(
            f"solve got {describe(right)} as its right-hand side",
            "a single number is not a vector",
            "pass a vector (n,) or a matrix (n, m)",
        )
    dtype = promoted_dtype(left.equation.type, right.equation.type)
    left, right = to_dtype(left, dtype), to_dtype(right, dtype)
    vector = right.ndim == 1 and left.ndim > 2
    if vector:
        right = reshape(right, (right.size, 1))
    if right.ndim > 1:
        try:
            batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        except ValueError:
            raise ShapeError(
                f"the batch axes of {describe(left)} and {describe(right)} do not broadcast",
                "all axes but the last two are matched from the right, and have to be equal or of length 1",
                "a batch of vectors needs an axis for its columns: solve(A, b[..., None])[..., 0]",
            ) from None
        left = expand_to(left, (*batch, *left.shape[-2:]))
        right = expand_to(right, (*batch, *right.shape[-2:]))
    solution = compute(_solve, [left, right], _SINGULAR, _REGULARISE)
    return reshape(solution, solution.shape[:-1]) if vector else solution


public(inv, np.linalg.inv)
public(solve, np.linalg.solve)
