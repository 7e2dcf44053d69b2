"""Layers on inputs with more than two axes: what follows a product is computed with it, wherever the rows lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg

LAYER = sg.nn.Linear(8, 16, key=0)
PLACES = sg.Parameter(np.arange(80, dtype=np.float32).reshape(5, 16))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 8)).astype(np.float32)

CASES: dict[str, tuple[Any, np.ndarray, int]] = {
    "bias and activation": (lambda x: sg.relu(LAYER(x)), X, 1),
    "a residual": (lambda x: x + sg.relu(LAYER(x)) @ LAYER.weight.T, X, 2),
    "four axes": (lambda x: np.tanh(LAYER(x)), X.reshape(2, 2, 5, 8), 1),
    "a batch of one": (lambda x: np.tanh(LAYER(x)), X[:1], 1),
    "rows of one": (lambda x: np.tanh(LAYER(x)), X[:, :1].copy(), 1),
    "rows that lie apart": (lambda x: sg.relu(LAYER(x[:, ::2])), X, 2),
    "one row of each": (lambda x: sg.relu(LAYER(x[::2, :1])), X, 1),
    "axes that changed places": (lambda x: sg.relu(LAYER(np.swapaxes(x, 0, 1))), X, 2),
    "something for each place": (lambda x: sg.relu(LAYER(x) + PLACES), X, 2),
    "a batch of matrices": (lambda x: sg.relu(x @ np.swapaxes(x, 1, 2)), X, 1),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_kernels_and_values(name: str, threads: int) -> None:
    function, x, kernels = CASES[name]
    compiled = sg.compile(function, threads=threads, shadow=True)
    np.testing.assert_allclose(compiled(x).numpy(), function(sg.tensor(x)).numpy(), rtol=1e-5, atol=1e-5)
    assert len(compiled.program._plan.steps) == kernels, compiled.program
    assert not compiled.program.fallbacks()


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, x, _ = CASES[name]

    def loss(x: Any, weight: Any) -> Any:
        with_weight = sg.sum(x @ weight) if name == "a batch of matrices" else 0
        return sg.sum(function(x) ** 2) + with_weight

    def gradients(x: Any) -> Any:
        value = loss(x, LAYER.weight)
        return sg.backward(value, LAYER.weight), sg.grad(loss)(x, LAYER.weight)

    compiled = sg.compile(gradients, shadow=True)
    for one, other in zip(compiled(x), gradients(sg.tensor(x)), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-3)
    assert not compiled.program.fallbacks()
