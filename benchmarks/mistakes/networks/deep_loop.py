"""Any number of layers, (features, batch), helper functions for each step, and gradients as grads["dW" + str(l)]."""

import numpy as np


def sigmoid(Z):
    A = 1 / (1 + np.exp(-Z))
    cache = Z
    return A, cache


def relu(Z):
    A = np.maximum(0, Z)
    cache = Z
    return A, cache


def relu_backward(dA, cache):
    Z = cache
    dZ = np.array(dA, copy=True)
    dZ[Z <= 0] = 0
    return dZ


def sigmoid_backward(dA, cache):
    Z = cache
    s = 1 / (1 + np.exp(-Z))
    dZ = dA * s * (1 - s)
    return dZ


def linear_forward(A, W, b):
    Z = np.dot(W, A) + b
    cache = (A, W, b)
    return Z, cache


def linear_activation_forward(A_prev, W, b, activation):
    Z, linear_cache = linear_forward(A_prev, W, b)
    if activation == "sigmoid":
        A, activation_cache = sigmoid(Z)
    else:
        A, activation_cache = relu(Z)
    cache = (linear_cache, activation_cache)
    return A, cache


def model_forward(X, Y, parameters):
    caches = []
    A = X
    L = len(parameters) // 2
    for l in range(1, L):
        A_prev = A
        A, cache = linear_activation_forward(A_prev, parameters["W" + str(l)], parameters["b" + str(l)], "relu")
        caches.append(cache)
    AL, cache = linear_activation_forward(A, parameters["W" + str(L)], parameters["b" + str(L)], "sigmoid")
    caches.append(cache)
    m = Y.shape[1]
    cost = -1 / m * np.sum(Y * np.log(AL) + (1 - Y) * np.log(1 - AL))
    return np.squeeze(cost), AL, caches


def linear_backward(dZ, cache):
    A_prev, W, b = cache
    m = A_prev.shape[1]
    dW = 1 / m * np.dot(dZ, A_prev.T)
    db = 1 / m * np.sum(dZ, axis=1, keepdims=True)
    dA_prev = np.dot(W.T, dZ)
    return dA_prev, dW, db


def linear_activation_backward(dA, cache, activation):
    linear_cache, activation_cache = cache
    if activation == "relu":
        dZ = relu_backward(dA, activation_cache)
        dA_prev, dW, db = linear_backward(dZ, linear_cache)
    else:
        dZ = sigmoid_backward(dA, activation_cache)
        dA_prev, dW, db = linear_backward(dZ, linear_cache)
    return dA_prev, dW, db


def model_backward(AL, Y, caches):
    grads = {}
    L = len(caches)
    Y = Y.reshape(AL.shape)
    dAL = -(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))
    current_cache = caches[L - 1]
    dA_prev, dW, db = linear_activation_backward(dAL, current_cache, "sigmoid")
    grads["dA" + str(L - 1)] = dA_prev
    grads["dW" + str(L)] = dW
    grads["db" + str(L)] = db
    for l in reversed(range(L - 1)):
        current_cache = caches[l]
        dA_prev, dW, db = linear_activation_backward(grads["dA" + str(l + 1)], current_cache, "relu")
        grads["dA" + str(l)] = dA_prev
        grads["dW" + str(l + 1)] = dW
        grads["db" + str(l + 1)] = db
    return grads


# --- what the benchmark knows about it

PAIR = ("model_forward", "model_backward")
GRADIENTS = {f"d{kind}{layer}": f"parameters['{kind}{layer}']" for layer in (1, 2, 3) for kind in "Wb"}
WEIGHTS = ("W",)
BIASES = ("db",)
DIVISORS = {"1 / m * np.": ("1 / A_prev.shape[0] * np.", "1 / W.size * np.")}


def make_inputs(rng):
    sizes = (5, 7, 3, 1)
    parameters = {}
    for layer in (1, 2, 3):
        parameters["W" + str(layer)] = rng.normal(size=(sizes[layer], sizes[layer - 1]))
        parameters["b" + str(layer)] = rng.normal(size=(sizes[layer], 1))
    return {"X": rng.normal(size=(5, 11)), "Y": rng.integers(0, 2, size=(1, 11)) * 1.0, "parameters": parameters}


PLANTS = {
    "preactivation-for-activation": [("cache = (A, W, b)", "cache = (Z, W, b)")],
    "other-layers-cache": [
        ("current_cache = caches[l]", "current_cache = caches[l + 1]"),
        ("current_cache = caches[l]", "current_cache = caches[l - 1]"),
        ("current_cache = caches[L - 1]", "current_cache = caches[L - 2]"),
    ],
    "activation-derivative-missing": [
        ("    dZ[Z <= 0] = 0\n", ""),
        ("dZ = dA * s * (1 - s)", "dZ = dA"),
        ("dZ = relu_backward(dA, activation_cache)", "dZ = dA"),
    ],
    "mask-inverted": [("dZ[Z <= 0] = 0", "dZ[Z > 0] = 0")],
    "mask-from-gradient": [("dZ[Z <= 0] = 0", "dZ[dZ <= 0] = 0"), ("dZ[Z <= 0] = 0", "dZ[dA < 0] = 0")],
    "activation-as-mask": [("    dZ[Z <= 0] = 0\n", "    dZ *= np.maximum(0, Z)\n")],
    "derivative-at-activation": [
        (
            "    s = 1 / (1 + np.exp(-Z))\n    dZ = dA * s",
            "    A = 1 / (1 + np.exp(-Z))\n    s = 1 / (1 + np.exp(-A))\n    dZ = dA * s",
        ),
    ],
    "derivative-of-preactivation": [("dZ = dA * s * (1 - s)", "dZ = dA * Z * (1 - Z)")],
    "derivative-dropped-without-fused-loss": [
        ("dZ = sigmoid_backward(dA, activation_cache)", "dZ = dA"),
        ("dZ = dA * s * (1 - s)", "dZ = dA"),
    ],
    "wrong-order": [("in reversed(range(L - 1))", "in range(L - 1)")],
    "sign": [("(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))", "(np.divide(Y, AL) + np.divide(1 - Y, 1 - AL))")],
    "path-forgotten": [("-(np.divide(Y, AL) - np.divide(1 - Y, 1 - AL))", "-np.divide(Y, AL)")],
    "cache-mutated": [
        ("    dA_prev = np.dot(W.T, dZ)", "    W -= 0.1 * dW\n    dA_prev = np.dot(W.T, dZ)"),
        (
            "    dW = 1 / m * np.dot(dZ, A_prev.T)",
            "    A_prev -= np.mean(A_prev)\n    dW = 1 / m * np.dot(dZ, A_prev.T)",
        ),
    ],
    "weights-after-update": [
        ("    dA_prev = np.dot(W.T, dZ)", "    W = W - 0.1 * dW\n    dA_prev = np.dot(W.T, dZ)"),
    ],
    "forward-disagrees-with-cache": [
        ("cache = (A, W, b)", "cache = (A - np.mean(A), W, b)"),
        ("cache = (linear_cache, activation_cache)", "cache = (linear_cache, A)"),
        ("return np.squeeze(cost), AL, caches", "return np.squeeze(cost), np.round(AL, 1) * 0.98 + 0.01, caches"),
    ],
    "rounded-predictions": [("    dAL = -(", "    AL = 0.01 + 0.98 * (AL > 0.5)\n    dAL = -(")],
}
