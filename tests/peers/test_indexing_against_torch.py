"""Indexing, scattering and sorting against PyTorch, where the two mean the same: values, gradients, second order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

K = np.array([0, 2, 2, 1])
L = np.array([[1, 0, 3, 3], [2, 2, 0, -1]])


def compare(ours: Callable[..., Any], theirs: Callable[..., Any], *shapes: tuple[int, ...], dtype: Any) -> None:
    """Value, gradients of a weighted sum of squares, and their derivative along a direction."""
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    directions = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}

    leaves = [torch.tensor(x, requires_grad=True) for x in xs]
    out = theirs(*leaves)
    weights = rng.standard_normal(tuple(out.shape)).astype(dtype)
    gradients = torch.autograd.grad((out**3 * torch.tensor(weights)).sum(), leaves, create_graph=True)
    slope = sum((g * torch.tensor(d)).sum() for g, d in zip(gradients, directions, strict=True))
    second = torch.autograd.grad(slope, leaves)

    def loss(*xs: Any) -> Any:
        y = ours(*xs)
        return sg.sum(y * y * y * weights)

    value = ours(*[sg.tensor(x) for x in xs])
    np.testing.assert_allclose(value, out.detach().numpy(), **tolerance)
    assert value.dtype == dtype
    ours_first = sg.grad(loss, tuple(range(len(xs))))(*xs)
    ours_second = sg.hvp(loss, tuple(xs), tuple(directions))
    for a, b in zip([*ours_first, *ours_second], [*gradients, *second], strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b.detach().numpy(), **tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "index",
    [
        np.s_[1],
        np.s_[-1, ..., 0],
        np.s_[:, 1:, ::2],
        np.s_[None, 2, :, None],
        np.s_[K],
        np.s_[:, K],
        np.s_[K, :, K],
        np.s_[:, K, K],
        np.s_[L],
        np.s_[K, L],
        np.s_[:2, K, 1:],
        np.s_[..., K],
        np.s_[K, None, L],
        np.s_[np.array([True, False, True, True])],
        np.s_[:, np.array([True, False, True, True])],
        np.s_[np.arange(64).reshape(4, 4, 4) % 3 == 0],
        np.s_[np.arange(16).reshape(4, 4) % 3 == 0, 1:],
    ],
    ids=str,
)
def test_indexing(index: Any, dtype: Any) -> None:
    def for_torch(part: Any) -> Any:
        return torch.tensor(part) if isinstance(part, np.ndarray) else part

    theirs = tuple(map(for_torch, index)) if isinstance(index, tuple) else for_torch(index)
    compare(lambda x: x[index], lambda x: x[theirs], (4, 4, 4), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.s_[K], np.s_[K, K], np.s_[L, K], np.s_[K[:2], :, L[:, :2]]], ids=str)
def test_index_add(index: Any, dtype: Any) -> None:
    parts = index if isinstance(index, tuple) else (index,)
    theirs = tuple(slice(None) if isinstance(p, slice) else torch.tensor(p) for p in parts)
    shape = np.zeros((4, 4, 4))[index].shape

    def add(x: Any, values: Any) -> Any:
        places = torch.arange(64).reshape(4, 4, 4)[theirs].reshape(-1)  # index_put itself knows no slices
        return x.reshape(-1).index_put((places,), values.reshape(-1), accumulate=True).reshape(4, 4, 4)

    compare(lambda x, v: sg.index_add(x, index, v), add, (4, 4, 4), shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_index_set(dtype: Any) -> None:
    once = np.array([2, 0])
    compare(
        lambda x, v: sg.index_set(x, (slice(None), once), v),
        lambda x, v: x.index_copy(1, torch.tensor(once), v),
        (3, 4),
        (3, 2),
        dtype=dtype,
    )
    mask = np.arange(12).reshape(3, 4) % 2 == 0
    compare(
        lambda x, v: sg.index_set(x, mask, v),
        lambda x, v: x.masked_scatter(torch.tensor(mask), v),
        (3, 4),
        (6,),
        dtype=dtype,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_an_axis(axis: int, dtype: Any) -> None:
    indices = np.random.default_rng(1).integers(0, 3, (3, 4, 2))
    compare(
        lambda x: sg.take_along_axis(x, indices, axis),
        lambda x: torch.take_along_dim(x, torch.tensor(indices), axis),
        tuple(5 if i == axis else n for i, n in enumerate((3, 4, 2))),
        dtype=dtype,
    )
    compare(lambda x: sg.sort(x, axis), lambda x: torch.sort(x, axis)[0], (3, 4, 5), dtype=dtype)
    compare(lambda x: sg.top_k(x, 2, axis)[0], lambda x: torch.topk(x, 2, axis)[0], (3, 4, 5), dtype=dtype)
    compare(
        lambda x: sg.take(x, K, axis), lambda x: torch.index_select(x, axis, torch.tensor(K)), (3,) * 3, dtype=dtype
    )


def test_positions() -> None:
    x = np.random.default_rng(0).integers(0, 4, (3, 5)).astype(np.float64)
    np.testing.assert_array_equal(sg.argsort(x, 1), torch.argsort(torch.tensor(x), dim=1, stable=True))
    labels = np.array([[0, 2], [1, 1]])
    np.testing.assert_array_equal(sg.one_hot(labels, 3), torch.nn.functional.one_hot(torch.tensor(labels), 3))
    edges = np.array([0.0, 1.0, 1.0, 3.0])
    for side in ("left", "right"):
        found = torch.searchsorted(torch.tensor(edges), torch.tensor(x), side=side)
        np.testing.assert_array_equal(sg.searchsorted(edges, x, side), found)
    for ours, theirs in zip(sg.nonzero(x), torch.nonzero(torch.tensor(x), as_tuple=True), strict=True):
        np.testing.assert_array_equal(ours, theirs)
