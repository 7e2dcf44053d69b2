"""Factorisations: Cholesky, QR, eigenvalues of symmetric matrices, singular values.

An op has one output, so a factorisation is an op that packs its factors into one array, and a
function that takes them out again.

The rules are those of M. Seeger et al., "Auto-differentiating linear algebra", 2017 (Cholesky, QR,
eigh), and of J. Townsend, "Differentiating the singular value decomposition", 2016.

Symmetric matrices are taken to be (A + A.T) / 2, so gradients with respect to them are symmetric.

Vectors that belong to equal eigenvalues or singular values are determined only up to a rotation
among themselves, and rules divide by the difference of the values. For values that are equal to
rounding that part of the gradient is left out. What remains is the gradient of functions of the
values, and of functions that treat such vectors alike; it is finite always.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stepgrad.errors import ArgumentError, UnsupportedError
from stepgrad.ops.choosing import where
from stepgrad.ops.registry import public, register
from stepgrad.ops.solving import (
    NO_CONVERGENCE,
    RESCALE,
    LinAlgError,
    batch_size,
    compute,
    conditioned,
    inv,
    matrices,
    positive_definite,
    solve,
)
from stepgrad.tape.op import Op
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, describe, functions

__all__ = [
    "EighResult",
    "QRResult",
    "SVDResult",
    "cholesky",
    "eigh",
    "eigvalsh",
    "qr",
    "svd",
    "svdvals",
]


def _symmetric(name: str, a: Any) -> Tensor:
    """A square operand that is symmetric, or so close to it that rounding may be why it is not."""
    tensor = matrices(name, a, square=True)
    if tensor.value is not None:
        value = tensor.numpy()
        if np.abs(value - value.mT).max(initial=0) > 1e-3 * np.abs(value).max(initial=0):
            raise LinAlgError(
                f"{name} was called on {describe(tensor)}, which is not symmetric",
                f"{name} is defined for symmetric matrices, A == A.T",
                "if only one triangle is filled, copy it: A + np.tril(A, -1).T; for other matrices there is svd",
            )
    return tensor


# --- Cholesky


def cholesky_of_symmetric(a: Array) -> Array:
    """The lower triangular L with L @ L.T = a, for a symmetric."""
    return np.linalg.cholesky((a + a.mT) / 2)


def _cholesky_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    """Seeger et al. (2017), section 4.1."""
    inverse, inner = inv(out), out.mT @ g
    tril = functions["tril"]
    half = (tril(inner) + tril(inner, -1)) / 2  # the lower triangle, with half of the diagonal
    gradient = inverse.mT @ half @ inverse
    return (gradient + gradient.mT) / 2


_cholesky = register(
    Op(
        "cholesky",
        shape=lambda a: a.shape,
        numpy=cholesky_of_symmetric,
        rules=(_cholesky_rule,),
        text="cholesky_of_symmetric({0})",
        samples=[(positive_definite(3),), (positive_definite(2, 2),), (positive_definite(1),)],
        cost=lambda a, out: a.size * a.shape[-1] / 3,
    )
)


def cholesky(a: Any, *, upper: bool = False) -> Tensor:
    """The triangular L with positive diagonal and `L @ L.mT = a`.

    Args:
        a: (..., n, n), symmetric and positive definite. It is taken to be (a + a.mT) / 2, and the
            gradient is symmetric.
        upper: return L.mT instead.

    Raises:
        LinAlgError: a is not symmetric, not positive definite, or contains NaN or Inf.

    Example:
        >>> sg.linalg.cholesky(sg.tensor([[4.0, 2.0], [2.0, 10.0]]))
        tensor([[2., 0.],
                [1., 3.]], dtype=float64)
    """
    lower = compute(
        _cholesky,
        [_symmetric("cholesky", a)],
        "only matrices with positive eigenvalues have a Cholesky factor",
        "add a small multiple of the identity, A + 1e-6 * np.eye(n), or use sg.linalg.eigh",
    )
    return lower.mT if upper else lower


# --- QR


def packed_qr(a: Array) -> Array:
    """Q of shape (..., m, n) above R of shape (..., n, n)."""
    return np.concatenate(np.linalg.qr(a), axis=-2)


def _qr_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    """Seeger et al. (2017), section 4.3, for Q and R in place of L and Q."""
    m = a.shape[-2]
    q, r, gq, gr = out[..., :m, :], out[..., m:, :], g[..., :m, :], g[..., m:, :]
    tril = functions["tril"]
    inner = r @ gr.mT - gq.mT @ q
    symmetric = tril(inner) + tril(inner, -1).mT
    return solve(r, (gq + q @ symmetric).mT).mT


_qr = register(
    Op(
        "qr",
        shape=lambda a: (*a.shape[:-2], a.shape[-2] + a.shape[-1], a.shape[-1]),
        numpy=packed_qr,
        rules=(_qr_rule,),
        text="packed_qr({0})",
        samples=[(conditioned(3, 3),), (conditioned(4, 2),), (conditioned(3, 2, 2),)],
        cost=lambda a, out: 4.0 * a.size * a.shape[-1],
        doc="Q above R, for matrices with at least as many rows as columns.",
    )
)


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Tensor
    R: Tensor


def qr(a: Any, mode: str = "reduced") -> Any:
    """The factors Q, with orthonormal columns, and R, upper triangular, with `Q @ R = a`.

    Args:
        a: (..., m, n). Gradients need its first min(m, n) columns to be linearly independent.
        mode: "reduced", or "r" for R alone.

    Returns:
        (Q, R) of shapes (..., m, k) and (..., k, n) with k = min(m, n).

    Example:
        >>> Q, R = sg.linalg.qr(sg.tensor([[3.0, 1.0], [4.0, 2.0]]))
        >>> (Q @ R).numpy().round(12)
        array([[3., 1.],
               [4., 2.]])
    """
    if mode not in ("reduced", "r"):
        raise UnsupportedError(
            f"qr was called with mode={mode!r}",
            "columns of Q beyond those of the matrix are arbitrary, and have no gradient",
            'use mode="reduced", or mode="r" for R alone',
        )
    tensor = matrices("qr", a)
    m, n = tensor.shape[-2:]
    packed = record(_qr, (tensor if m >= n else tensor[..., :m],), {})
    q, r = packed[..., :m, :], packed[..., m:, :]
    if m < n:  # the first columns determine Q
        r = functions["concatenate"]([r, q.mT @ tensor[..., m:]], axis=-1)
    return QRResult(q, r) if mode == "reduced" else r


# --- eigenvalues of symmetric matrices


def _inverse_gaps(values: Tensor, largest: Tensor) -> Tensor:
    """1 / (values[j] - values[i]) at (i, j); 0 where they are equal to rounding."""
    gaps = values - values.mT
    rounding = values.shape[-1] * float(np.finfo(values.dtype).eps)
    equal = functions["absolute"](gaps) <= rounding * largest
    return where(equal, 0.0, 1.0 / where(equal, 1.0, gaps))


def packed_eigh(a: Array) -> Array:
    """The eigenvalues of a symmetric matrix, as one row above the matrix of eigenvectors."""
    values, vectors = np.linalg.eigh((a + a.mT) / 2)
    return np.concatenate([values[..., None, :], vectors], axis=-2)


def _eigh_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    """Seeger et al. (2017), section 4.4."""
    values, vectors, g_values, g_vectors = out[..., :1, :], out[..., 1:, :], g[..., :1, :], g[..., 1:, :]
    largest = functions["absolute"](values).sum(axis=-1, keepdims=True)
    mixed = _inverse_gaps(values, largest) * (vectors.mT @ g_vectors)
    gradient = (vectors @ mixed + vectors * g_values) @ vectors.mT
    return (gradient + gradient.mT) / 2


_eigh = register(
    Op(
        "eigh",
        shape=lambda a: (*a.shape[:-2], a.shape[-1] + 1, a.shape[-1]),
        numpy=packed_eigh,
        rules=(_eigh_rule,),
        text="packed_eigh({0})",
        samples=[(positive_definite(3),), (positive_definite(2, 2),), (positive_definite(1),)],
        cost=lambda a, out: 9.0 * a.size * a.shape[-1],
        doc="The eigenvalues as one row above the eigenvectors.",
    )
)


class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(a: Any, UPLO: str = "L") -> EighResult:
    """Eigenvalues, in ascending order, and eigenvectors of a symmetric matrix.

    An eigenvector may be multiplied by -1, so only functions that do not depend on that have a
    gradient with a meaning. For equal eigenvalues see above in this module: the gradient stays
    finite, and is right for functions of the eigenvalues alone; second derivatives need distinct
    eigenvalues.

    Args:
        a: (..., n, n), symmetric. It is taken to be (a + a.mT) / 2, and the gradient is symmetric.
        UPLO: NumPy's choice of a triangle, which makes no difference here.

    Returns:
        (eigenvalues, eigenvectors) of shapes (..., n) and (..., n, n), the vectors as columns.

    Raises:
        LinAlgError: a is not symmetric, or contains NaN or Inf.

    Example:
        >>> sg.linalg.eigh(sg.tensor([[2.0, 1.0], [1.0, 2.0]])).eigenvalues
        tensor([1., 3.], dtype=float64)
    """
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise ArgumentError(f"eigh was called with UPLO={UPLO!r}", "a triangle is lower or upper", "pass 'L' or 'U'")
    packed = compute(_eigh, [_symmetric("eigh", a)], NO_CONVERGENCE, RESCALE)
    return EighResult(packed[..., 0, :], packed[..., 1:, :])


def eigvalsh(a: Any, UPLO: str = "L") -> Tensor:
    """The eigenvalues of a symmetric matrix, in ascending order; see `eigh`.

    Example:
        >>> sg.linalg.eigvalsh(sg.tensor([[2.0, 1.0], [1.0, 2.0]]))
        tensor([1., 3.], dtype=float64)
    """
    return eigh(a, UPLO).eigenvalues


# --- singular values


def packed_svd(a: Array) -> Array:
    """U of shape (..., m, k) above a row with the k singular values above V of shape (..., n, k)."""
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    return np.concatenate([u, s[..., None, :], vh.mT], axis=-2)


def _svd_rule(g: Tensor, out: Tensor, a: Tensor) -> Tensor:
    """Townsend (2016), equation 31."""
    m, n = a.shape[-2:]
    u, s, v = out[..., :m, :], out[..., m : m + 1, :], out[..., m + 1 :, :]
    gu, gs, gv = g[..., :m, :], g[..., m : m + 1, :], g[..., m + 1 :, :]
    sums = s + s.mT
    inverse_squares = _inverse_gaps(s, s[..., :1]) / where(sums == 0, 1.0, sums)  # 1 / (s[j]² - s[i]²)
    of_u, of_v = u.mT @ gu, v.mT @ gv
    inner = inverse_squares * (of_u - of_u.mT) * s + s.mT * (inverse_squares * (of_v - of_v.mT))
    gradient = (u @ inner + u * gs) @ v.mT
    if m == n:
        return gradient
    vanishing = s <= max(m, n) * float(np.finfo(s.dtype).eps) * s[..., :1]
    inverse = where(vanishing, 0.0, 1.0 / where(vanishing, 1.0, s))
    if m > n:
        moved = gu * inverse
        return gradient + (moved - u @ (u.mT @ moved)) @ v.mT
    moved = gv * inverse
    return gradient + u @ (moved - v @ (v.mT @ moved)).mT


_svd = register(
    Op(
        "svd",
        shape=lambda a: (*a.shape[:-2], a.shape[-2] + 1 + a.shape[-1], min(a.shape[-2:])),
        numpy=packed_svd,
        rules=(_svd_rule,),
        text="packed_svd({0})",
        samples=[(conditioned(3, 3),), (conditioned(4, 2),), (conditioned(2, 3),), (conditioned(3, 2, 2),)],
        cost=lambda a, out: 6.0 * a.size * min(a.shape[-2:]) + 20.0 * batch_size(a) * min(a.shape[-2:]) ** 3,
        doc="U above the singular values, in one row, above V.",
    )
)


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """The factors of `a = U @ diag(S) @ Vh`, with orthonormal columns in U and rows in Vh.

    A pair of singular vectors may be multiplied by -1, so only functions that do not depend on that
    have a gradient with a meaning. For equal singular values the same holds as in `eigh`.

    Args:
        a: (..., m, n)
        full_matrices: has to be False unless m = n: further vectors are arbitrary.
        compute_uv: False returns S alone.

    Returns:
        (U, S, Vh) of shapes (..., m, k), (..., k) and (..., k, n) with k = min(m, n); S descends.

    Raises:
        LinAlgError: a contains NaN or Inf.

    Example:
        >>> sg.linalg.svd(sg.tensor([[0.0, 2.0], [-1.0, 0.0]])).S
        tensor([2., 1.], dtype=float64)
    """
    tensor = matrices("svd", a)
    m, n = tensor.shape[-2:]
    if compute_uv and full_matrices and m != n:
        raise UnsupportedError(
            f"svd was called on {describe(tensor)} with full_matrices=True",
            "the vectors beyond the first min(m, n) are arbitrary, and have no gradient",
            "write sg.linalg.svd(a, full_matrices=False)",
        )
    packed = compute(_svd, [tensor], NO_CONVERGENCE, RESCALE)
    values = packed[..., m, :]
    return SVDResult(packed[..., :m, :], values, packed[..., m + 1 :, :].mT) if compute_uv else values


def svdvals(x: Any) -> Tensor:
    """The singular values, in descending order; see `svd`.

    Example:
        >>> sg.linalg.svdvals(sg.tensor([[0.0, 2.0], [-1.0, 0.0]]))
        tensor([2., 1.], dtype=float64)
    """
    return svd(x, compute_uv=False)


public(cholesky, np.linalg.cholesky)
public(qr, np.linalg.qr)
public(eigh, np.linalg.eigh)
public(eigvalsh, np.linalg.eigvalsh)
public(svd, np.linalg.svd)
public(svdvals, np.linalg.svdvals)
