"""An autoencoder with tied weights, (batch, features), half the squared error; `delta` for gradients."""

import numpy as np


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def sigmoid_prime(a):
    return sigmoid(a) * (1 - sigmoid(a))


def cost(x, W, b_hidden, b_visible):
    a_hidden = x @ W + b_hidden
    h = sigmoid(a_hidden)
    a_visible = h @ W.T + b_visible
    xhat = sigmoid(a_visible)
    E = 0.5 * np.sum((x - xhat) ** 2) / x.shape[0]
    return E, a_hidden, h, a_visible, xhat


def cost_gradients(x, W, a_hidden, h, a_visible, xhat):
    n_samples = x.shape[0]
    delta_visible = (xhat - x) * sigmoid_prime(a_visible) / n_samples
    delta_hidden = delta_visible @ W * sigmoid_prime(a_hidden)
    grad_W = delta_visible.T @ h
    grad_W += x.T @ delta_hidden
    grad_b_visible = delta_visible.sum(axis=0)
    grad_b_hidden = delta_hidden.sum(axis=0)
    return grad_W, grad_b_hidden, grad_b_visible


# --- what the benchmark knows about it

PAIR = ("cost", "cost_gradients")
GRADIENTS = ("W", "b_hidden", "b_visible")
GRADIENT_NAMES = r"(delta|grad)_.*"
BIASES = ("grad_b_visible", "grad_b_hidden")
DIVISORS = {"/ n_samples": ("/ x.shape[1]", "/ x.size")}


def make_inputs(rng):
    return {
        "x": rng.normal(size=(13, 7)),
        "W": rng.normal(size=(7, 5)),
        "b_hidden": rng.normal(size=5),
        "b_visible": rng.normal(size=7),
    }


PLANTS = {
    "half-of-the-loss": [("(xhat - x) * ", "2 * (xhat - x) * "), ("(xhat - x) * ", "0.5 * (xhat - x) * ")],
    "derivative-dropped-without-fused-loss": [(" * sigmoid_prime(a_visible)", "")],
    "activation-derivative-missing": [(" * sigmoid_prime(a_hidden)", "")],
    "derivative-at-activation": [
        ("sigmoid_prime(a_visible)", "sigmoid_prime(xhat)"),
        ("sigmoid_prime(a_hidden)", "sigmoid_prime(h)"),
    ],
    "derivative-of-preactivation": [
        ("sigmoid_prime(a_hidden)", "a_hidden * (1 - a_hidden)"),
        ("sigmoid_prime(a_visible)", "a_visible * (1 - a_visible)"),
    ],
    "activation-as-mask": [("sigmoid_prime(a_hidden)", "sigmoid(a_hidden)"), ("sigmoid_prime(a_hidden)", "h")],
    "preactivation-for-activation": [
        ("delta_visible.T @ h", "delta_visible.T @ a_hidden"),
        ("(xhat - x)", "(a_visible - x)"),
    ],
    "overwritten-at-fan-out": [("grad_W += x.T", "grad_W = x.T")],
    "path-forgotten": [("    grad_W += x.T @ delta_hidden\n", "")],
    "rounded-predictions": [("(xhat - x)", "(np.round(xhat) - x)")],
    "weights-after-update": [
        ("    delta_hidden = ", "    W = W - 0.1 * delta_visible.T @ h\n    delta_hidden = "),
    ],
    "wrong-order": [("delta_visible @ W * sigmoid_prime(a_hidden)", "delta_visible * sigmoid_prime(a_visible) @ W")],
    "cache-mutated": [("    grad_W = ", "    h *= 1 - h\n    grad_W = ")],
    "forward-disagrees-with-cache": [
        ("    return E, a_hidden,", "    a_hidden -= b_hidden\n    return E, a_hidden,"),
        ("    return E, a_hidden,", "    a_visible = xhat\n    return E, a_hidden,"),
    ],
    "batch-leakage": [("(xhat - x)", "(xhat - x.mean(axis=0))")],
    "mask-from-gradient": [("sigmoid_prime(a_hidden)", "sigmoid_prime(delta_visible @ W)")],
}
