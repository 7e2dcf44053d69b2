"""NumPy as the language: plain NumPy code differentiates as it stands, or says by name what it can't do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import UnsupportedError

X = np.random.default_rng(0).standard_normal((3, 4))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.sum(np.exp(-(x**2))),
        lambda x: np.mean(np.maximum(x, 0) * np.tanh(x)),
        lambda x: np.sum(np.where(x > 0, np.sqrt(np.abs(x)), x * 2)),
        lambda x: np.sum(np.log1p(np.exp(x)) @ np.ones((4, 2))),
        lambda x: np.linalg.norm(x - 1.0),
        lambda x: np.einsum("ij,kj->", x, x),
        lambda x: np.sum(np.concatenate([x, x * 2], axis=1)[:, ::2]),
        lambda x: np.sum(np.stack([x[0], x[1]]) * np.arange(4.0)),
        lambda x: np.sum(x.T @ x) + x.max() + x[1, 2] * np.float64(3.0),
        lambda x: np.sum(np.reshape(x, -1)[np.array([0, 0, 5])] ** 3),
        lambda x: np.sum(np.square(x - np.mean(x, axis=0, keepdims=True))) / np.var(x),
        lambda x: np.logaddexp(x[0, 0], x[0, 1]) + np.add.reduce(x, axis=None),
    ],
)
def test_plain_numpy_code_differentiates(f: Any) -> None:
    gradient = sg.grad(f)(X)
    numerical = np.zeros_like(X)
    for i in np.ndindex(X.shape):
        up, down = X.copy(), X.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numerical[i] = (f(up) - f(down)) / 2e-6
    np.testing.assert_allclose(gradient, numerical, rtol=1e-5, atol=1e-6)
    assert float(sg.value_and_grad(f)(X)[0]) == pytest.approx(float(f(X)), rel=1e-13)


def test_arrays_on_the_left_of_operators() -> None:
    x = sg.tensor([1.0, 2.0])
    for made in (np.array([3.0, 4.0]) + x, np.float64(3.0) * x, np.array([[1.0, 1.0]]) @ x, 2 - x, 1 / x):
        assert isinstance(made, sg.Tensor)


def test_what_is_not_supported_says_so_by_name() -> None:
    x = sg.tensor([1.0, 2.0], name="x")
    with pytest.raises(UnsupportedError, match=r"np.frexp was called on x \(2,\) float64"):
        np.frexp(x)
    with pytest.raises(UnsupportedError, match=r"numpy.histogram was called on x"):
        np.histogram(x)
    with pytest.raises(UnsupportedError, match=r"np.exp was called with out="):
        np.exp(x, out=np.ones(2))
    with pytest.raises(UnsupportedError, match=r"instead: use sg.index_add"):
        np.add.at(x, 0, 1.0)
    with pytest.raises(UnsupportedError, match=r"\.fill, which changes an array in place"):
        x.fill(0)
    with pytest.raises(AttributeError, match="has no attribute 'frobnicate'"):
        x.frobnicate


def test_keyword_arguments_that_are_not_supported_are_named() -> None:
    with pytest.raises((UnsupportedError, TypeError), match="where"):
        np.sum(sg.tensor([1.0]), where=np.array([True]))


def test_operators_on_integers_work_bit_by_bit() -> None:
    n = sg.tensor([1, 2, 3])
    assert (n & 1).tolist() == [1, 0, 1]
    assert (n | 4).tolist() == [5, 6, 7]
    assert (~n).tolist() == [-2, -3, -4]
    assert (~(n > 1) & (n < 3)).tolist() == [True, False, False]
    assert n.compress([True, False, True]).tolist() == [1, 3]
    assert [t.tolist() for t in divmod(n, 2)] == [[0, 1, 1], [1, 0, 1]]
