"""Two layers, (features, batch), relu and sigmoid; the loss is fused with the sigmoid, and 1/m is in dZ2."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(X, Y, W1, b1, W2, b2):
    m = X.shape[1]
    Z1 = W1 @ X + b1
    A1 = np.maximum(Z1, 0)
    Z2 = W2 @ A1 + b2
    A2 = sigmoid(Z2)
    loss = -np.sum(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)) / m
    return loss, (Z1, A1, Z2, A2)


def backward(X, Y, W1, b1, W2, b2, cache):
    Z1, A1, Z2, A2 = cache
    m = X.shape[1]
    dZ2 = (A2 - Y) / m
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dA1 = W2.T @ dZ2
    dZ1 = dA1 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


# --- what the benchmark knows about it

PAIR = ("forward", "backward")
GRADIENTS = {"dW1": "W1", "db1": "b1", "dW2": "W2", "db2": "b2"}
WEIGHTS = ("W2",)
BIASES = ("db1", "db2")
DIVISORS = {"/ m": ("/ X.shape[0]", "/ (m - 1)")}


def make_inputs(rng):
    return {
        "X": rng.normal(size=(5, 11)),
        "Y": rng.integers(0, 2, size=(3, 11)) * 1.0,
        "W1": 0.4 * rng.normal(size=(7, 5)),
        "b1": rng.normal(size=(7, 1)),
        "W2": 0.4 * rng.normal(size=(3, 7)),
        "b2": rng.normal(size=(3, 1)),
    }


PLANTS = {
    "mean-twice": [
        ("dW2 = dZ2 @ A1.T", "dW2 = dZ2 @ A1.T / m"),
        ("db1 = dZ1.sum(axis=1, keepdims=True)", "db1 = dZ1.mean(axis=1, keepdims=True)"),
    ],
    "preactivation-for-activation": [("dZ2 @ A1.T", "dZ2 @ Z1.T"), ("(A2 - Y)", "(Z2 - Y)")],
    "other-layers-cache": [
        ("dZ2 @ A1.T", "dZ2 @ A2.T"),
        ("dZ1 @ X.T", "dZ1 @ A1.T"),
        ("dZ2 @ A1.T", "dZ2 @ X.T"),
        ("(Z1 > 0)", "(Z2 > 0)"),
    ],
    "other-layers-weights": [("W2.T @ dZ2", "W1.T @ dZ2")],
    "weights-after-update": [
        ("    dA1 = W2.T @ dZ2", "    W2 = W2 - 0.5 * dW2\n    dA1 = W2.T @ dZ2"),
        ("    dA1 = W2.T @ dZ2", "    dA1 = (W2 - 0.1 * dW2).T @ dZ2"),
    ],
    "rounded-predictions": [("(A2 - Y)", "(np.round(A2) - Y)"), ("(A2 - Y)", "((A2 > 0.5) - Y)")],
    "activation-derivative-missing": [("dA1 * (Z1 > 0)", "dA1")],
    "mask-inverted": [("(Z1 > 0)", "(Z1 < 0)"), ("(Z1 > 0)", "(Z1 <= 0)")],
    "mask-from-gradient": [("(Z1 > 0)", "(dA1 > 0)")],
    "activation-as-mask": [("dA1 * (Z1 > 0)", "dA1 * A1"), ("dA1 * (Z1 > 0)", "dA1 * np.maximum(Z1, 0)")],
    "derivative-kept-with-fused-loss": [("(A2 - Y) / m", "(A2 - Y) * A2 * (1 - A2) / m")],
    "clip-mismatch": [("    dW1 = dZ1 @ X.T", "    dW1 = np.clip(dZ1 @ X.T, -0.1, 0.1)")],
    "cache-mutated": [
        ("    dW2 = dZ2 @ A1.T", "    A1 *= A1 > 0.5\n    dW2 = dZ2 @ A1.T"),
        ("    dZ1 = dA1 * (Z1 > 0)", "    Z1 -= Z1.mean()\n    dZ1 = dA1 * (Z1 > 0)"),
    ],
    "forward-disagrees-with-cache": [
        ("return loss, (Z1, A1, Z2, A2)", "return loss, (Z1, 2 * A1, Z2, A2)"),
        ("return loss, (Z1, A1, Z2, A2)", "return loss, (Z1, A1, Z2, np.round(A2, 1))"),
        ("return loss, (Z1, A1, Z2, A2)", "return loss, (Z1 - b1, A1, Z2, A2)"),
    ],
    "batch-leakage": [
        ("(A2 - Y) / m", "(A2 - Y).mean(axis=1, keepdims=True) / m + 0 * Y"),
        ("dA1 * (Z1 > 0)", "dA1 * (Z1 > 0) - (dA1 * (Z1 > 0)).mean(axis=1, keepdims=True)"),
    ],
}
