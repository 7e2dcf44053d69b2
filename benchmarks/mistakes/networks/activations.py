"""Four layers with leaky relu, ELU, GELU and swish, (batch, features), Huber-like loss; long names."""

import numpy as np


def leaky_relu(z, slope=0.1):
    return np.where(z > 0, z, slope * z)


def leaky_relu_grad(z, slope=0.1):
    return np.where(z > 0, 1.0, slope)


def elu(z, alpha=0.7):
    return np.where(z > 0, z, alpha * (np.exp(np.minimum(z, 0)) - 1))


def elu_grad(z, alpha=0.7):
    return np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0)))


def gelu(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def gelu_grad(z):
    inner = np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)
    t = np.tanh(inner)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def swish(z):
    return z * sigmoid(z)


def swish_grad(z):
    s = sigmoid(z)
    return s + z * s * (1 - s)


def run(inputs, targets, w1, w2, w3, w4):
    pre1 = inputs.dot(w1)
    hidden1 = leaky_relu(pre1)
    pre2 = hidden1.dot(w2)
    hidden2 = elu(pre2)
    pre3 = hidden2.dot(w3)
    hidden3 = gelu(pre3)
    pre4 = hidden3.dot(w4)
    output = swish(pre4)
    error = output - targets
    loss = np.sum(np.sqrt(1 + error**2) - 1) / len(inputs)
    cache = (pre1, hidden1, pre2, hidden2, pre3, hidden3, pre4, error)
    return loss, cache


def run_backward(inputs, w1, w2, w3, w4, cache):
    pre1, hidden1, pre2, hidden2, pre3, hidden3, pre4, error = cache
    grad_output = error / np.sqrt(1 + error**2) / len(inputs)
    grad_pre4 = grad_output * swish_grad(pre4)
    grad_w4 = hidden3.T.dot(grad_pre4)
    grad_hidden3 = grad_pre4.dot(w4.T)
    grad_pre3 = grad_hidden3 * gelu_grad(pre3)
    grad_w3 = hidden2.T.dot(grad_pre3)
    grad_hidden2 = grad_pre3.dot(w3.T)
    grad_pre2 = grad_hidden2 * elu_grad(pre2)
    grad_w2 = hidden1.T.dot(grad_pre2)
    grad_hidden1 = grad_pre2.dot(w2.T)
    grad_pre1 = grad_hidden1 * leaky_relu_grad(pre1)
    grad_w1 = inputs.T.dot(grad_pre1)
    return grad_w1, grad_w2, grad_w3, grad_w4


# --- what the benchmark knows about it

PAIR = ("run", "run_backward")
GRADIENTS = ("w1", "w2", "w3", "w4")
WEIGHTS = ("w1", "w2", "w3", "w4")
DIVISORS = {"/ len(inputs)": ("/ inputs.shape[1]", "/ error.size", "/ error.shape[1]")}


def make_inputs(rng):
    return {
        "inputs": rng.normal(size=(11, 3)),
        "targets": rng.normal(size=(11, 2)),
        "w1": rng.normal(size=(3, 5)),
        "w2": rng.normal(size=(5, 7)),
        "w3": 0.5 * rng.normal(size=(7, 5)),
        "w4": rng.normal(size=(5, 2)),
    }


PLANTS = {
    "derivative-dropped-without-fused-loss": [(" * swish_grad(pre4)", "")],
    "derivative-twice": [
        ("    grad_pre2 = ", "    grad_hidden2 = grad_hidden2 * elu_grad(pre2)\n    grad_pre2 = "),
        ("* leaky_relu_grad(pre1)", "* leaky_relu_grad(pre1) ** 2"),
    ],
    "preactivation-for-activation": [
        ("hidden3.T.dot", "pre3.T.dot"),
        ("hidden2.T.dot", "pre2.T.dot"),
        ("hidden1.T.dot", "pre1.T.dot"),
    ],
    "other-layers-cache": [
        ("hidden3.T.dot", "hidden1.T.dot"),
        ("gelu_grad(pre3)", "gelu_grad(pre1)"),
        ("leaky_relu_grad(pre1)", "leaky_relu_grad(pre3)"),
    ],
    "other-layers-weights": [("grad_pre2.dot(w2.T)", "grad_pre2.dot(w3)")],
    "weights-after-update": [
        ("    grad_hidden3 = ", "    w4 = w4 - 0.1 * grad_w4\n    grad_hidden3 = "),
        ("    grad_hidden1 = ", "    w2 = w2 - 0.1 * grad_w2\n    grad_hidden1 = "),
    ],
    "activation-derivative-missing": [
        (" * swish_grad(pre4)", ""),
        (" * gelu_grad(pre3)", ""),
        (" * elu_grad(pre2)", ""),
        (" * leaky_relu_grad(pre1)", ""),
    ],
    "mask-inverted": [
        ("np.where(z > 0, 1.0, slope)", "np.where(z < 0, 1.0, slope)"),
        ("np.where(z > 0, 1.0, slope)", "np.where(z > 0, slope, 1.0)"),
    ],
    "mask-from-gradient": [("leaky_relu_grad(pre1)", "leaky_relu_grad(grad_hidden1)")],
    "derivative-at-activation": [
        ("gelu_grad(pre3)", "gelu_grad(hidden3)"),
        ("elu_grad(pre2)", "elu_grad(hidden2)"),
        ("swish_grad(pre4)", "swish_grad(swish(pre4))"),
    ],
    "activation-as-mask": [
        ("leaky_relu_grad(pre1)", "leaky_relu(pre1)"),
        ("elu_grad(pre2)", "elu(pre2)"),
        ("gelu_grad(pre3)", "gelu(pre3)"),
        ("swish_grad(pre4)", "swish(pre4)"),
    ],
    "leaky-slope-lost": [
        ("np.where(z > 0, 1.0, slope)", "np.where(z > 0, 1.0, 0.0)"),
        ("np.where(z > 0, 1.0, slope)", "1.0 * (z > 0)"),
        ("leaky_relu_grad(pre1)", "(pre1 > 0)"),
        ("leaky_relu_grad(pre1)", "leaky_relu_grad(pre1, slope=0.01)"),
    ],
    "path-forgotten": [
        ("    return s + z * s * (1 - s)", "    return s"),
        ("0.5 * (1 + t) + 0.5 * z * (1 - t**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * z**2)", "0.5 * (1 + t)"),
    ],
    "constant-factor": [("(1 + 3 * 0.044715 * z**2)", "(1 + 0.044715 * z**2)")],
    "wrong-order": [
        (
            "    grad_pre2 = grad_hidden2 * elu_grad(pre2)\n    grad_w2 = hidden1.T.dot(grad_pre2)\n    grad_hidden1 = grad_pre2.dot(w2.T)\n",
            "    grad_w2 = hidden1.T.dot(grad_hidden2)\n    grad_pre2 = grad_hidden2 * elu_grad(pre2)\n    grad_hidden1 = grad_pre2.dot(w2.T)\n",
        )
    ],
    "cache-mutated": [("    grad_w3 = ", "    hidden2 -= hidden2.mean(axis=0)\n    grad_w3 = ")],
    "forward-disagrees-with-cache": [
        ("cache = (pre1, hidden1,", "cache = (pre1, elu(pre1),"),
        ("pre4, error)\n    return", "output, error)\n    return"),
    ],
    "rounded-predictions": [("grad_output = error /", "error = np.round(error)\n    grad_output = error /")],
    "batch-leakage": [("grad_hidden2 * elu_grad(pre2)", "grad_hidden2 * elu_grad(pre2).mean(axis=0)")],
    "clip-mismatch": [
        ("    grad_w1 = inputs", "    grad_pre1 = np.clip(grad_pre1, -0.01, 0.01)\n    grad_w1 = inputs")
    ],
}
