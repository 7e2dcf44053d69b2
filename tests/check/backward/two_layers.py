"""A two-layer network as users write it, with a right backward pass, for the tests of `sg.check_backward`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stepgrad.check import BackwardReport

Values = dict[str, Any]


def two_layers(seed: int = 0) -> Values:
    """Inputs with distinct prime sizes: 5 features, 3 hidden units, 2 outputs, 7 examples."""
    rng = np.random.default_rng(seed)
    shapes = {"X": (5, 7), "Y": (2, 7), "W1": (3, 5), "b1": (3, 1), "W2": (2, 3), "b2": (2, 1)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def forward(X: Any, Y: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = np.maximum(Z1, 0)
    Z2 = W2 @ A1 + b2
    loss = np.sum((Z2 - Y) ** 2) / X.shape[1]
    return loss, (Z1, A1, Z2)


def right(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y) / m
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def line_of(function: Callable[..., Any], text: str) -> int:
    """The number of the first line in a function's file, from its start on, that has the text."""
    start = function.__code__.co_firstlineno
    lines = Path(function.__code__.co_filename).read_text(encoding="utf-8").splitlines()
    return next(n for n in range(start, len(lines) + 1) if text in lines[n - 1])


def mistakes(report: BackwardReport) -> list[tuple[str | None, str]]:
    return [(f.gradient, f.mistake) for f in report.findings]
