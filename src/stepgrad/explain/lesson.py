"""The lesson network: two layers, written as one would on a blackboard, with numbers small enough to check by hand.

Features are rows and examples are columns: X is (3, 5), three features of five examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.activations import relu, sigmoid

PARAMETERS = ("W1", "b1", "W2", "b2")
"""What training would change, and so what gradients are taken with respect to."""


def network(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    """A hidden layer of four units, one output, and the binary cross-entropy of the five predictions."""
    Z1 = W1 @ X + b1
    A1 = relu(Z1)
    Z2 = W2 @ A1 + b2
    Y_hat = sigmoid(Z2)
    L = -(Y * np.log(Y_hat) + (1 - Y) * np.log(1 - Y_hat)).mean()
    return L  # noqa: RET504 - so that it has a name


def network_inputs() -> dict[str, Any]:
    """The numbers that the lesson is about."""
    return {
        "W1": np.array([[0.5, -0.2, 0.1], [-0.3, 0.8, 0.4], [0.7, 0.1, -0.6], [-0.4, -0.5, 0.9]]),
        "b1": np.array([[0.1], [0.0], [-0.2], [0.3]]),
        "W2": np.array([[0.6, -0.4, 0.5, 0.2]]),
        "b2": np.array([[0.1]]),
        "X": np.array([[1.0, -0.5, 2.0, 0.3, -1.2], [0.4, 1.5, -0.7, 0.9, 0.2], [-1.0, 0.8, 0.5, -0.3, 1.1]]),
        "Y": np.array([[1.0, 0.0, 1.0, 1.0, 0.0]]),
    }
