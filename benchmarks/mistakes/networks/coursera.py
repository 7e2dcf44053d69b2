"""Two layers, (features, batch), dictionaries everywhere, tanh and sigmoid; 1/m in each dW and db."""

import numpy as np


def sigmoid(z):
    s = 1 / (1 + np.exp(-z))
    return s


def forward_propagation(X, Y, parameters):
    W1 = parameters["W1"]
    b1 = parameters["b1"]
    W2 = parameters["W2"]
    b2 = parameters["b2"]

    Z1 = np.dot(W1, X) + b1
    A1 = np.tanh(Z1)
    Z2 = np.dot(W2, A1) + b2
    A2 = sigmoid(Z2)

    m = Y.shape[1]
    logprobs = np.multiply(np.log(A2), Y) + np.multiply(np.log(1 - A2), 1 - Y)
    cost = -np.sum(logprobs) / m

    cache = {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}
    return cost, cache


def backward_propagation(parameters, cache, X, Y):
    m = X.shape[1]
    W1 = parameters["W1"]
    W2 = parameters["W2"]
    A1 = cache["A1"]
    A2 = cache["A2"]

    dZ2 = A2 - Y
    dW2 = (1 / m) * np.dot(dZ2, A1.T)
    db2 = (1 / m) * np.sum(dZ2, axis=1, keepdims=True)
    dZ1 = np.multiply(np.dot(W2.T, dZ2), (1 - np.power(A1, 2)))
    dW1 = (1 / m) * np.dot(dZ1, X.T)
    db1 = (1 / m) * np.sum(dZ1, axis=1, keepdims=True)

    grads = {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}
    return grads


# --- what the benchmark knows about it

PAIR = ("forward_propagation", "backward_propagation")
GRADIENTS = {
    "dW1": "parameters['W1']",
    "db1": "parameters['b1']",
    "dW2": "parameters['W2']",
    "db2": "parameters['b2']",
}
WEIGHTS = ("W2",)
BIASES = ("db1", "db2")
DIVISORS = {"(1 / m) * ": ("(1 / X.shape[0]) * ", "(1 / (2 * m)) * ")}


def make_inputs(rng):
    return {
        "X": rng.normal(size=(3, 13)),
        "Y": rng.integers(0, 2, size=(1, 13)) * 1.0,
        "parameters": {
            "W1": rng.normal(size=(5, 3)),
            "b1": rng.normal(size=(5, 1)),
            "W2": rng.normal(size=(1, 5)),
            "b2": rng.normal(size=(1, 1)),
        },
    }


PLANTS = {
    "derivative-twice": [("(1 - np.power(A1, 2))", "(1 - np.power(A1, 2)) ** 2")],
    "preactivation-for-activation": [
        ('A1 = cache["A1"]', 'A1 = cache["Z1"]'),
        ('A2 = cache["A2"]', 'A2 = cache["Z2"]'),
    ],
    "other-layers-cache": [("np.dot(dZ2, A1.T)", "np.dot(dZ2, X.T)"), ("np.power(A1, 2)", "np.power(A2, 2)")],
    "other-layers-weights": [("np.dot(W2.T, dZ2)", "np.dot(W1.T, dZ2)"), ("np.dot(W2.T, dZ2)", "np.dot(W1, dZ2)")],
    "weights-after-update": [
        ("    dZ1 = np.multiply(", '    W2 = parameters["W2"] - 1.2 * dW2\n    dZ1 = np.multiply('),
    ],
    "rounded-predictions": [("dZ2 = A2 - Y", "dZ2 = np.round(A2) - Y"), ("dZ2 = A2 - Y", "dZ2 = (A2 > 0.5) - Y")],
    "activation-derivative-missing": [
        ("np.multiply(np.dot(W2.T, dZ2), (1 - np.power(A1, 2)))", "np.dot(W2.T, dZ2)"),
    ],
    "derivative-at-activation": [("(1 - np.power(A1, 2))", "(1 - np.power(np.tanh(A1), 2))")],
    "derivative-of-preactivation": [("(1 - np.power(A1, 2))", '(1 - np.power(cache["Z1"], 2))')],
    "derivative-kept-with-fused-loss": [
        ("dZ2 = A2 - Y", "dZ2 = (A2 - Y) * A2 * (1 - A2)"),
        ("dZ2 = A2 - Y", "dZ2 = (A2 - Y) * sigmoid(cache['Z2']) * (1 - sigmoid(cache['Z2']))"),
    ],
    "cache-mutated": [("    dZ2 = A2 - Y", "    A1 /= np.max(A1)\n    dZ2 = A2 - Y")],
    "forward-disagrees-with-cache": [
        ('"A1": A1, "Z2"', '"A1": np.tanh(A1), "Z2"'),
        ('"A2": A2}', '"A2": sigmoid(A2)}'),
    ],
    "clip-mismatch": [("dW1 = (1 / m) * np.dot(dZ1, X.T)", "dW1 = np.clip((1 / m) * np.dot(dZ1, X.T), -0.05, 0.05)")],
    "batch-leakage": [("dZ2 = A2 - Y", "dZ2 = A2 - Y.mean(axis=1, keepdims=True)")],
}
