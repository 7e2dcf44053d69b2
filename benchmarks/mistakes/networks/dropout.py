"""Three layers with inverted dropout and L2, (features, batch); masks from a fixed seed are kept in the cache."""

import numpy as np


def relu(z):
    return np.maximum(0, z)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward_with_dropout(X, Y, W1, b1, W2, b2, W3, b3, keep_prob=0.7, lambd=0.4):
    np.random.seed(1)
    m = X.shape[1]
    Z1 = np.dot(W1, X) + b1
    A1 = relu(Z1)
    D1 = np.random.rand(A1.shape[0], A1.shape[1])
    D1 = (D1 < keep_prob).astype(int)
    A1 = A1 * D1
    A1 = A1 / keep_prob
    Z2 = np.dot(W2, A1) + b2
    A2 = relu(Z2)
    D2 = np.random.rand(A2.shape[0], A2.shape[1])
    D2 = (D2 < keep_prob).astype(int)
    A2 = A2 * D2
    A2 = A2 / keep_prob
    Z3 = np.dot(W3, A2) + b3
    A3 = sigmoid(Z3)
    cross_entropy_cost = -1.0 / m * np.sum(np.log(A3) * Y + np.log(1 - A3) * (1 - Y))
    penalty = lambd / (2 * m) * (np.sum(np.square(W1)) + np.sum(np.square(W2)) + np.sum(np.square(W3)))
    cache = (Z1, D1, A1, W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3)
    return cross_entropy_cost + penalty, cache


def backward_with_dropout(X, Y, cache, keep_prob=0.7, lambd=0.4):
    m = X.shape[1]
    (Z1, D1, A1, W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3) = cache

    dZ3 = A3 - Y
    dW3 = 1.0 / m * np.dot(dZ3, A2.T) + lambd / m * W3
    db3 = 1.0 / m * np.sum(dZ3, axis=1, keepdims=True)
    dA2 = np.dot(W3.T, dZ3)
    dA2 = dA2 * D2
    dA2 = dA2 / keep_prob
    dZ2 = np.multiply(dA2, np.int64(A2 > 0))
    dW2 = 1.0 / m * np.dot(dZ2, A1.T) + lambd / m * W2
    db2 = 1.0 / m * np.sum(dZ2, axis=1, keepdims=True)
    dA1 = np.dot(W2.T, dZ2)
    dA1 = dA1 * D1
    dA1 = dA1 / keep_prob
    dZ1 = np.multiply(dA1, np.int64(A1 > 0))
    dW1 = 1.0 / m * np.dot(dZ1, X.T) + lambd / m * W1
    db1 = 1.0 / m * np.sum(dZ1, axis=1, keepdims=True)

    gradients = {"dW3": dW3, "db3": db3, "dW2": dW2, "db2": db2, "dW1": dW1, "db1": db1}
    return gradients


# --- what the benchmark knows about it

PAIR = ("forward_with_dropout", "backward_with_dropout")
GRADIENTS = {f"d{kind}{layer}": f"{kind}{layer}" for layer in (1, 2, 3) for kind in "Wb"}
WEIGHTS = ("W2", "W3")
BIASES = ("db1", "db2", "db3")
REGULARISER = ("lambd / m * W3", "lambd / m * W2", "lambd / m * W1")
DIVISORS = {"1.0 / m * np.": ("1.0 / X.shape[0] * np.",)}


def make_inputs(rng):
    return {
        "X": rng.normal(size=(5, 13)),
        "Y": rng.integers(0, 2, size=(1, 13)) * 1.0,
        "W1": 0.4 * rng.normal(size=(11, 5)),
        "b1": rng.normal(size=(11, 1)),
        "W2": 0.4 * rng.normal(size=(7, 11)),
        "b2": rng.normal(size=(7, 1)),
        "W3": 0.4 * rng.normal(size=(1, 7)),
        "b3": rng.normal(size=(1, 1)),
    }


PLANTS = {
    "preactivation-for-activation": [
        ("np.dot(dZ3, A2.T)", "np.dot(dZ3, Z2.T)"),
        ("np.dot(dZ2, A1.T)", "np.dot(dZ2, Z1.T)"),
    ],
    "other-layers-cache": [("np.int64(A1 > 0)", "np.int64(A2 > 0)"), ("np.dot(dZ3, A2.T)", "np.dot(dZ3, A1.T)")],
    "other-layers-weights": [("np.dot(W3.T, dZ3)", "np.dot(W2.T, dZ3)"), ("lambd / m * W3", "lambd / m * W2")],
    "activation-derivative-missing": [
        ("np.multiply(dA2, np.int64(A2 > 0))", "dA2"),
        ("np.multiply(dA1, np.int64(A1 > 0))", "dA1"),
    ],
    "mask-inverted": [
        ("np.int64(A2 > 0)", "np.int64(A2 <= 0)"),
        ("np.int64(A1 > 0)", "np.int64(A1 < 0)"),
        ("dA2 * D2", "dA2 * (1 - D2)"),
    ],
    "mask-from-gradient": [("np.int64(A2 > 0)", "np.int64(dA2 > 0)"), ("np.int64(A1 > 0)", "np.int64(dA1 > 0)")],
    "activation-as-mask": [("np.multiply(dA1, np.int64(A1 > 0))", "np.multiply(dA1, A1)")],
    "dropout-mask-redrawn": [
        ("    dA2 = dA2 * D2", "    D2 = (np.random.rand(*A2.shape) < keep_prob).astype(int)\n    dA2 = dA2 * D2"),
        ("    dA1 = dA1 * D1", "    dA1 = dA1 * (np.random.rand(*dA1.shape) < keep_prob)"),
    ],
    "dropout-not-scaled": [("    dA2 = dA2 / keep_prob\n", ""), ("    dA1 = dA1 / keep_prob\n", "")],
    "path-forgotten": [("    dA2 = dA2 * D2\n", ""), ("    dA1 = dA1 * D1\n", "")],
    "regulariser-mismatch": [
        (" + lambd / m * W3", ""),
        (" + lambd / m * W1", ""),
        ("lambd / m * W2", "lambd * W2"),
        ("lambd / m * W2", "lambd / (2 * m) * W2"),
        ("lambd / m * W1", "lambd / m * np.sign(W1)"),
        ("lambd / m * W3", "lambd / m * W3**2"),
        ("np.sum(dZ2, axis=1, keepdims=True)", "np.sum(dZ2, axis=1, keepdims=True) + lambd / m * b2"),
    ],
    "derivative-kept-with-fused-loss": [("dZ3 = A3 - Y", "dZ3 = (A3 - Y) * A3 * (1 - A3)")],
    "rounded-predictions": [
        ("dZ3 = A3 - Y", "dZ3 = np.round(A3) - Y"),
        ("dZ3 = A3 - Y", "dZ3 = (A3 > 0.5).astype(float) - Y"),
    ],
    "weights-after-update": [("    dA2 = np.dot(W3.T, dZ3)", "    W3 = W3 - 0.1 * dW3\n    dA2 = np.dot(W3.T, dZ3)")],
    "cache-mutated": [("    dZ3 = A3 - Y", "    A2 *= D2 * (A2 > 1)\n    dZ3 = A3 - Y")],
    "forward-disagrees-with-cache": [
        (
            "(Z1, D1, A1, W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3)\n    return",
            "(Z1, D1, relu(Z1), W1, b1, Z2, D2, A2, W2, b2, Z3, A3, W3, b3)\n    return",
        ),
        ("Z3, A3, W3, b3)\n    return", "Z3, sigmoid(A3), W3, b3)\n    return"),
    ],
}
