"""Determinants.

The derivative of a determinant is the matrix of its cofactors, det(A) * inv(A).T. Computed from the
singular values instead of the inverse, that is right for singular matrices too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import Sample, normal
from stepgrad.ops.solving import conditioned, inv, invertible, matrices, per_matrix
from stepgrad.tape.leaves import constant
from stepgrad.tape.op import Op
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor

__all__ = ["SlogdetResult", "det", "slogdet"]


def products_without_one(s: Array) -> Array:
    """Along the last axis, the product of all the others for each number; right for zeros, too."""
    ones = np.ones_like(s[..., :1])
    before = np.cumprod(np.concatenate([ones, s[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, s[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return before[..., : s.shape[-1]] * after[..., : s.shape[-1]]


def cofactors(a: Array) -> Array:
    """The matrix of cofactors, which is det(a) * inv(a).T where a has an inverse."""
    u, s, vh = np.linalg.svd(a)
    sign = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    return sign * (u * products_without_one(s)[..., None, :]) @ vh


def cofactors_change(a: Array, direction: Array) -> Array:
    """The derivative of the cofactors of a when a moves in a direction."""
    u, s, vh = np.linalg.svd(a)
    n = s.shape[-1]
    sign = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    one_out = np.where(np.eye(n, dtype=bool), 1, np.broadcast_to(s[..., None, :], a.shape))
    two_out = np.where(np.eye(n, dtype=bool), 0, products_without_one(one_out)).astype(s.dtype)
    inside = u.mT @ direction @ vh.mT
    trace_part = two_out @ np.diagonal(inside, axis1=-2, axis2=-1)[..., None]
    return sign * (u @ (np.eye(n, dtype=s.dtype) * trace_part - two_out * inside.mT) @ vh)


def _cofactors_change_rule(g: Tensor, out: Tensor, a: Tensor, direction: Tensor) -> Tensor:
    """The third derivative of the determinant, from det(a) (tr(xg) tr(xd) - tr(xgxd)) with x = inv(a)."""
    x, d = inv(a), direction
    xg, xd = x @ g, x @ d
    p, q = _trace(xg), _trace(xd)
    crossed = xg @ xd
    by_x = (p * q - _trace(crossed)) * x - xg @ x * q - xd @ x * p + crossed @ x + xd @ xg @ x
    return per_matrix(det(a)) * by_x.mT


def _trace(a: Tensor) -> Tensor:
    diagonal = a * constant(np.eye(a.shape[-1], dtype=a.dtype))
    return diagonal.sum(axis=(-2, -1), keepdims=True)


_cofactors = register(
    Op(
        "cofactors",
        shape=lambda a: a.shape,
        numpy=cofactors,
        rules=(lambda g, out, a: record(_cofactors_change, (a, g), {}),),
        text="cofactors({0})",
        samples=[(invertible(3),), (invertible(2, 2),), (conditioned(1, 1),)],
        cost=lambda a, out: 22.0 * a.size * a.shape[-1],
        doc="The derivative of the determinant. Through the singular values, it is right for singular matrices too.",
    )
)

_cofactors_change: Op = register(
    Op(
        "cofactors_change",
        shape=lambda a, direction: a.shape,
        numpy=cofactors_change,
        rules=(_cofactors_change_rule, lambda g, out, a, direction: record(_cofactors_change, (a, g), {})),
        text="cofactors_change({0}, {1})",
        samples=[(invertible(3), normal(3, 3)), (invertible(2, 2), normal(2, 2, 2))],
        cost=lambda a, direction, out: 30.0 * a.size * a.shape[-1],
        doc="The second derivative of the determinant, applied to a direction. It is symmetric in its two directions.",
    )
)

_det = register(
    Op(
        "det",
        shape=lambda a: a.shape[:-2],
        numpy=np.linalg.det,
        rules=(lambda g, out, a: per_matrix(g) * record(_cofactors, (a,), {}),),
        text="np.linalg.det({0})",
        samples=[
            (invertible(3),),
            (invertible(2, 2),),
            (Sample(lambda rng: np.outer(rng.random(3) + 1, rng.random(3) + 1) + np.diag([1.0, 0, 0]), "rank 2"),),
        ],
        analytic=True,
        cost=lambda a, out: a.size * a.shape[-1] * 2 / 3,
    )
)


def det(a: Any) -> Tensor:
    """The determinant. First and second derivatives are right for singular matrices, too.

    Args:
        a: (..., n, n)

    Returns:
        (...)

    Example:
        >>> A = np.array([[1.0, 2.0], [2.0, 4.0]])
        >>> sg.grad(sg.linalg.det)(A).round(12)
        array([[ 4., -2.],
               [-2.,  1.]])
    """
    return record(_det, (matrices("det", a, square=True),), {})


_slogdet = register(
    Op(
        "slogdet",
        shape=lambda a: (*a.shape[:-2], 2),
        numpy=lambda a: np.stack(np.linalg.slogdet(a), axis=-1),
        rules=(lambda g, out, a: per_matrix(g[..., 1]) * inv(a).mT,),
        text="np.stack(np.linalg.slogdet({0}), axis=-1)",
        samples=[(invertible(3),), (invertible(2, 2),)],
        cost=lambda a, out: a.size * a.shape[-1] * 2 / 3,
        doc="Sign, and logarithm of the absolute value, of the determinant, along a last axis.",
    )
)


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


def slogdet(a: Any) -> SlogdetResult:
    """The sign of the determinant and the logarithm of its absolute value, which do not overflow.

    Args:
        a: (..., n, n)

    Returns:
        (sign, logabsdet), each of shape (...). No gradient flows through the sign. For a singular
        matrix they are 0 and -inf, and asking for the gradient raises LinAlgError.

    Example:
        >>> sg.linalg.slogdet(sg.tensor([[2.0, 0.0], [0.0, -0.5]])).sign
        tensor(-1., dtype=float64)
    """
    packed = record(_slogdet, (matrices("slogdet", a, square=True),), {})
    return SlogdetResult(packed[..., 0], packed[..., 1])


public(det, np.linalg.det)
public(slogdet, np.linalg.slogdet)
