"""Linear algebra against PyTorch in float64: values, gradients, and Hessians along a direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.ops.samples import normal
from stepgrad.ops.solving import conditioned, invertible, positive_definite

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

L, T = np.linalg, torch.linalg


def projections(vectors: Any, values: Any) -> Any:
    """A function of eigenvectors that does not depend on their signs: the matrix of squares, weighted."""
    return (vectors * vectors) * values[..., None, :]


def rebuilt(left: Any, values: Any, right: Any) -> Any:
    """The product of the factors with the values changed: no sign is left in it."""
    return (left * (values**3)[..., None, :]) @ right


def symmetric(a: Any) -> Any:
    return (a + a.mT) / 2


def eigh_parts(linalg: Any, a: Any) -> Any:
    values, vectors = linalg.eigh(symmetric(a))
    return projections(vectors, values)


def svd_parts(linalg: Any, a: Any) -> Any:
    u, s, vh = linalg.svd(a, full_matrices=False)
    return rebuilt(u, s, vh)


def svd_left(linalg: Any, a: Any) -> Any:
    u, s, _ = linalg.svd(a, full_matrices=False)
    return projections(u, s)


def svd_right(linalg: Any, a: Any) -> Any:
    _, s, vh = linalg.svd(a, full_matrices=False)
    return projections(vh.mT, s)


def qr_parts(linalg: Any, a: Any) -> Any:
    q, r = linalg.qr(a)
    return (q * q) @ (r * r)


SQUARES = [invertible(1), invertible(3), invertible(4), invertible(3, 2), invertible(2, 2, 2)]
DEFINITE = [positive_definite(1), positive_definite(3), positive_definite(4), positive_definite(3, 2)]
TALL = [conditioned(3, 3), conditioned(5, 3), conditioned(4, 1), conditioned(4, 3, 2)]
WIDE = [conditioned(3, 5), conditioned(1, 4), conditioned(2, 3, 2)]

CASES: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
    ("inv", lambda m, a: m.inv(a), [(s,) for s in SQUARES]),
    ("det", lambda m, a: m.det(a), [(s,) for s in SQUARES]),
    ("slogdet", lambda m, a: m.slogdet(a)[1], [(s,) for s in SQUARES]),
    (
        "solve",
        lambda m, a, b: m.solve(a, b),
        [
            (invertible(3), normal(3)),
            (invertible(3), normal(3, 2)),
            (invertible(3, 2), normal(2, 3, 2)),
            (invertible(3, 2), normal(3, 2)),
            (invertible(3), normal(2, 3, 2)),
        ],
    ),
    ("cholesky", lambda m, a: m.cholesky(symmetric(a)), [(s,) for s in DEFINITE]),
    ("eigvalsh", lambda m, a: m.eigvalsh(symmetric(a)), [(s,) for s in DEFINITE]),
    ("eigh", eigh_parts, [(s,) for s in DEFINITE]),
    ("qr", qr_parts, [(s,) for s in TALL + WIDE]),
    ("svdvals", lambda m, a: m.svdvals(a), [(s,) for s in TALL + WIDE]),
    ("svd", svd_parts, [(s,) for s in TALL + WIDE]),
    ("svd left", svd_left, [(s,) for s in TALL + WIDE]),
    ("svd right", svd_right, [(s,) for s in TALL + WIDE]),
    ("pinv", lambda m, a: m.pinv(a), [(s,) for s in TALL + WIDE]),
    ("matrix_power", lambda m, a: m.matrix_power(a, 5), [(s,) for s in SQUARES]),
    ("matrix_power -2", lambda m, a: m.matrix_power(a, -2), [(s,) for s in SQUARES]),
    ("multi_dot", lambda m, a, b, c: m.multi_dot([a, b, c]), [(normal(4, 2), normal(2, 4), normal(4, 3))]),
    ("cross", lambda m, a, b: m.cross(a, b), [(normal(2, 3), normal(2, 3))]),
    ("vecdot", lambda m, a, b: m.vecdot(a, b), [(normal(2, 3), normal(2, 3)), (normal(2, 3), normal(3))]),
]

PRODUCTS: list[tuple[str, Any, list[tuple[Any, ...]]]] = [
    (
        "matmul",
        lambda m, a, b: m.matmul(a, b),
        [
            (normal(*a), normal(*b))
            for a, b in [
                ((3,), (3,)),
                ((2, 3), (3,)),
                ((3,), (3, 4)),
                ((5, 2, 3), (3,)),
                ((5, 2, 3), (3, 4)),
                ((3,), (5, 3, 4)),
                ((2, 3), (5, 3, 4)),
                ((4, 1, 2, 3), (5, 3, 4)),
            ]
        ],
    ),
    ("kron", lambda m, a, b: m.kron(a, b), [(normal(2, 3), normal(2, 2)), (normal(2), normal(2, 3))]),
    ("outer", lambda m, a, b: m.outer(a, b), [(normal(2), normal(3))]),
    ("inner", lambda m, a, b: m.inner(a, b), [(normal(2, 3), normal(4, 3)), (normal(2, 2, 3), normal(3))]),
    *[
        (
            f"tensordot {axes}",
            lambda m, a, b, axes=axes: m.tensordot(a, b, axes),
            [(normal(2, 3, 4), normal(*shape))],
        )
        for axes, shape in [(2, (3, 4, 2)), (([0, 2], [1, 0]), (4, 2, 2)), (([2, 1, 0], [0, 1, 2]), (4, 3, 2))]
    ],
    *[
        (
            f"einsum {subscripts}",
            lambda m, *xs, subscripts=subscripts: m.einsum(subscripts, *xs),
            [tuple(normal(*shape) for shape in shapes)],
        )
        for subscripts, *shapes in [
            ("ij,jk->ik", (2, 3), (3, 4)),
            ("ii->i", (3, 3)),
            ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 3, 4)),
            ("...ij,...jk->...ik", (4, 2, 3), (3, 2)),
            ("i,ij,j->", (2,), (2, 3), (3,)),
            ("ij,k->i", (2, 3), (4,)),
            ("iijj->ij", (2, 2, 3, 3)),
        ]
    ],
]


def cases() -> list[Any]:
    listed = [(L, T, name, f, s) for name, f, samples in CASES for s in samples]
    listed += [(np, torch, name, f, s) for name, f, samples in PRODUCTS for s in samples]
    return [pytest.param(*case, id=f"{case[2]}-{i}") for i, case in enumerate(listed)]


@pytest.mark.parametrize(("ours", "theirs", "name", "f", "samples"), cases())
def test_values_gradients_and_hessians(ours: Any, theirs: Any, name: str, f: Any, samples: Any) -> None:
    rng = np.random.default_rng(0)
    xs = [s.draw(rng) for s in samples]
    directions = [rng.standard_normal(x.shape) for x in xs]

    leaves = [torch.tensor(x, requires_grad=True) for x in xs]
    value = f(theirs, *leaves)
    weights = rng.standard_normal(value.shape)
    loss = (value**2 * torch.tensor(weights)).sum()
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    slope = sum((g * torch.tensor(d)).sum() for g, d in zip(slopes, directions, strict=True))
    products = torch.autograd.grad(slope, leaves)

    def our_loss(*xs: Any) -> Any:
        return np.sum(f(ours, *xs) ** 2 * weights)

    np.testing.assert_allclose(f(ours, *xs), value.detach().numpy(), rtol=1e-9, atol=1e-10)
    everything = tuple(range(len(xs)))
    for mine, reference in zip(sg.grad(our_loss, everything)(*xs), slopes, strict=True):
        np.testing.assert_allclose(mine, reference.detach().numpy(), rtol=1e-8, atol=1e-8)
    scale = max(float(p.abs().max()) for p in products)
    for mine, reference in zip(sg.hvp(our_loss, tuple(xs), tuple(directions)), products, strict=True):
        np.testing.assert_allclose(mine, reference.numpy(), rtol=1e-7, atol=1e-9 * max(scale, 1))
