"""Reductions and shape ops against PyTorch: values, gradients, and gradients of gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import stepgrad as sg

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

F = torch.nn.functional


def draw(*shape: int) -> Any:
    x = np.random.default_rng(0).standard_normal(shape)
    return x + np.copysign(0.1, x)


def with_zeros(*shape: int) -> Any:
    rng = np.random.default_rng(1)
    return rng.standard_normal(shape) * (rng.random(shape) < 0.6)


def reduced(name: str, theirs: Any, axes: Any = (0, 1, -1, (0, 2), (0, 1, 2)), **more: Any) -> list[Any]:
    return [
        pytest.param(
            lambda a, axis=axis, k=keepdims: getattr(sg, name)(a, axis=axis, keepdims=k, **more),
            lambda a, axis=axis, k=keepdims: theirs(a, axis, k),
            draw(2, 3, 4),
            id=f"{name}-{axis}-{keepdims}-{more}",
        )
        for axis, keepdims in itertools.product(axes, (False, True))
    ]


def case(name: str, ours: Any, theirs: Any, x: Any) -> Any:
    return pytest.param(ours, theirs, x, id=f"{name}-{x.shape}")


REDUCTIONS = [
    *reduced("sum", lambda a, axis, k: a.sum(axis, keepdim=k)),
    *reduced("mean", lambda a, axis, k: a.mean(axis, keepdim=k)),
    *reduced("max", lambda a, axis, k: a.amax(axis, keepdim=k)),
    *reduced("min", lambda a, axis, k: a.amin(axis, keepdim=k)),
    *reduced("prod", lambda a, axis, k: a.prod(axis, keepdim=k), axes=(0, 1, -1)),
    *[c for d in (0, 1) for c in reduced("var", lambda a, x, k, d=d: a.var(x, correction=d, keepdim=k), ddof=d)],
    *[c for d in (0, 1) for c in reduced("std", lambda a, x, k, d=d: a.std(x, correction=d, keepdim=k), ddof=d)],
    *[
        c
        for p in (None, 1, 2, 3, 0.5, 1.5, -1, np.inf, -np.inf)
        for c in reduced(
            "norm",
            lambda a, x, k, p=p: torch.linalg.vector_norm(a, 2 if p is None else p, x, keepdim=k),
            axes=(0, -1),
            ord=p,
        )
    ],
    *[
        c
        for p in ("fro", 1, -1, np.inf, -np.inf)
        for c in reduced(
            "norm",
            lambda a, x, k, p=p: torch.linalg.matrix_norm(a, p, x, keepdim=k),
            axes=((0, 1), (2, 0), (-1, -2)),
            ord=p,
        )
    ],
    case("all", lambda a: sg.prod(a), lambda a: a.prod(), draw(2, 3)),
    *[case("prod of zeros", lambda a: sg.prod(a), lambda a: a.prod(), with_zeros(n)) for n in (1, 2, 3, 5)],
    case("prod of zeros", lambda a: sg.prod(a, 1), lambda a: a.prod(1), with_zeros(5, 4, 2)),
    *[
        case(f"cumsum {i}", lambda a, i=i: sg.cumsum(a, i), lambda a, i=i: a.cumsum(i), draw(2, 3, 4))
        for i in (0, 1, -1)
    ],
    *[
        case(f"cumprod {i}", lambda a, i=i: sg.cumprod(a, i), lambda a, i=i: a.cumprod(i), x)
        for i in (0, 1, -1)
        for x in (draw(2, 3, 4), with_zeros(4, 3, 5))
    ],
    case("nansum", lambda a: sg.nansum(a, 0), lambda a: a.nansum(0), np.array([[1.0, np.nan], [2.0, 3.0]])),
    case("nanmean", lambda a: sg.nanmean(a, 0), lambda a: a.nanmean(0), np.array([[1.0, np.nan], [2.0, 3.0]])),
    case("median", lambda a: sg.median(a, 1), lambda a: a.median(1).values, draw(4, 5)),
    case("diff", lambda a: sg.diff(a, 2, 1), lambda a: a.diff(2, 1), draw(3, 5)),
    case("trapezoid", lambda a: sg.trapezoid(a, dx=0.3), lambda a: torch.trapezoid(a, dx=0.3), draw(3, 5)),
    case(
        "trapezoid over x",
        lambda a: sg.trapezoid(a[0], a[1]),
        lambda a: torch.trapezoid(a[0], a[1]),
        draw(2, 5),
    ),
]

SHAPES = [
    case("reshape", lambda a: sg.reshape(a, (4, -1)), lambda a: a.reshape(4, -1), draw(2, 3, 4)),
    case("transpose", lambda a: sg.transpose(a, (2, 0, 1)), lambda a: a.permute(2, 0, 1), draw(2, 3, 4)),
    case("swapaxes", lambda a: sg.swapaxes(a, 0, -1), lambda a: a.swapaxes(0, -1), draw(2, 3, 4)),
    case("moveaxis", lambda a: sg.moveaxis(a, (0, 2), (1, 0)), lambda a: a.moveaxis((0, 2), (1, 0)), draw(2, 3, 4)),
    case("squeeze", lambda a: sg.squeeze(a, 1), lambda a: a.squeeze(1), draw(2, 1, 1)),
    case("expand_dims", lambda a: sg.expand_dims(a, -1), lambda a: a.unsqueeze(-1), draw(2, 3)),
    case("broadcast_to", lambda a: sg.broadcast_to(a, (4, 2, 3)), lambda a: a.broadcast_to((4, 2, 3)), draw(2, 1)),
    case("concatenate", lambda a: sg.concatenate([a, a * a], 1), lambda a: torch.cat([a, a * a], 1), draw(2, 3)),
    case("stack", lambda a: sg.stack([a, a * a], -1), lambda a: torch.stack([a, a * a], -1), draw(2, 3)),
    case("hstack", lambda a: sg.hstack([a, a]), lambda a: torch.hstack([a, a]), draw(2, 3)),
    case("split", lambda a: sg.split(a, [1, 3])[1], lambda a: a.tensor_split([1, 3])[1], draw(5, 2)),
    case("flip", lambda a: sg.flip(a, (0, 2)), lambda a: a.flip((0, 2)), draw(2, 3, 4)),
    case("rot90", lambda a: sg.rot90(a, 3, (2, 1)), lambda a: a.rot90(3, (2, 1)), draw(2, 3, 4)),
    case("roll", lambda a: sg.roll(a, (1, -2), (0, 2)), lambda a: a.roll((1, -2), (0, 2)), draw(2, 3, 4)),
    case("roll", lambda a: sg.roll(a, 5), lambda a: a.roll(5), draw(2, 3)),
    case("pad", lambda a: sg.pad(a, ((1, 2), (0, 1))), lambda a: F.pad(a, (0, 1, 1, 2)), draw(2, 3)),
    *[
        case(
            f"pad {mode}",
            lambda a, mode=mode: sg.pad(a, ((0, 0), (0, 0), (2, 1)), mode=mode),
            lambda a, theirs=theirs: F.pad(a, (2, 1), mode=theirs),
            draw(2, 2, 4),
        )
        for mode, theirs in (("edge", "replicate"), ("reflect", "reflect"), ("wrap", "circular"))
    ],
    case("tile", lambda a: sg.tile(a, (2, 1, 3)), lambda a: a.tile((2, 1, 3)), draw(2, 3)),
    case("repeat", lambda a: sg.repeat(a, 3, 1), lambda a: a.repeat_interleave(3, 1), draw(2, 3)),
    case(
        "repeat by counts",
        lambda a: sg.repeat(a, [2, 0, 1], 1),
        lambda a: a.repeat_interleave(torch.tensor([2, 0, 1]), 1),
        draw(2, 3),
    ),
    *[case(f"tril {k}", lambda a, k=k: sg.tril(a, k), lambda a, k=k: a.tril(k), draw(2, 3, 4)) for k in (-1, 0, 2)],
    *[case(f"triu {k}", lambda a, k=k: sg.triu(a, k), lambda a, k=k: a.triu(k), draw(2, 3, 4)) for k in (-1, 0, 2)],
    *[
        case(f"diagonal {k}", lambda a, k=k: sg.diagonal(a, k, 2, 0), lambda a, k=k: a.diagonal(k, 2, 0), draw(2, 3, 4))
        for k in (-2, -1, 0, 1)
    ],
    case("diag", lambda a: sg.diag(a, -1), lambda a: a.diag(-1), draw(3)),
    case("diag", lambda a: sg.diag(a, 1), lambda a: a.diag(1), draw(3, 3)),
    case("trace", lambda a: np.trace(a), lambda a: a.trace(), draw(3, 4)),
]


@pytest.mark.parametrize(("ours", "theirs", "x"), REDUCTIONS + SHAPES)
def test_value_gradient_and_second_order_are_pytorchs(ours: Any, theirs: Any, x: Any) -> None:
    """The loss is a cubic of the result, so that second derivatives pass through every rule."""
    rng = np.random.default_rng(2)
    direction = rng.standard_normal(x.shape)

    there = torch.tensor(x, requires_grad=True)
    value = theirs(there)
    weights = rng.standard_normal(tuple(value.shape))
    loss = (value**3 * torch.tensor(weights)).sum()
    (gradient,) = torch.autograd.grad(loss, there, create_graph=True)
    (product,) = torch.autograd.grad((gradient * torch.tensor(direction)).sum(), there)

    def cubic(a: Any) -> Any:
        result = ours(a)
        return (result * result * result * weights).sum()

    np.testing.assert_allclose(ours(sg.tensor(x)).numpy(), value.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(sg.grad(cubic)(x), gradient.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sg.hvp(cubic, x, direction), product.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_ties_are_shared_as_amax_does(axis: Any) -> None:
    x = np.random.default_rng(0).integers(0, 3, (4, 5)).astype(np.float32)
    for ours, theirs in ((sg.max, torch.amax), (sg.min, torch.amin)):
        there = torch.tensor(x, requires_grad=True)
        theirs(there, axis).sum().backward()
        gradient = sg.grad(lambda a, ours=ours: ours(a, axis).sum())(x)
        np.testing.assert_allclose(gradient, there.grad.numpy(), rtol=1e-6)


def test_float32_gradients_are_pytorchs() -> None:
    x = draw(3, 4).astype(np.float32)
    for ours, theirs in (
        (lambda a: sg.std(a, 1, ddof=1), lambda a: a.std(1)),
        (lambda a: sg.prod(a, 1), lambda a: a.prod(1)),
        (lambda a: sg.norm(a, 3, 0), lambda a: torch.linalg.vector_norm(a, 3, 0)),
        (lambda a: sg.cumprod(a, 1), lambda a: a.cumprod(1)),
    ):
        there = torch.tensor(x, requires_grad=True)
        theirs(there).sum().backward()
        gradient = sg.grad(lambda a, ours=ours: ours(a).sum())(x)
        assert gradient.dtype == np.float32
        np.testing.assert_allclose(gradient, there.grad.numpy(), rtol=2e-5, atol=1e-6)


def test_the_norm_at_zero_is_pytorchs() -> None:
    x = np.zeros((2, 3))
    x[1] = [3.0, 0.0, -4.0]
    for p in (1, 2, 3, np.inf):
        there = torch.tensor(x, requires_grad=True)
        torch.linalg.vector_norm(there, p, 1).sum().backward()
        gradient = sg.grad(lambda a, p=p: sg.norm(a, p, 1).sum())(x)
        np.testing.assert_allclose(gradient, there.grad.numpy(), rtol=1e-12)
