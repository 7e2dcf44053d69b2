"""Two layers, (batch, features), params in one dict, softmax, L2; gradients written over in place, rows of scores."""

import numpy as np


def two_layer_loss(X, y, params, reg):
    W1, b1 = params["W1"], params["b1"]
    W2, b2 = params["W2"], params["b2"]
    N = X.shape[0]

    hidden_layer = np.maximum(0, np.dot(X, W1) + b1)
    scores = np.dot(hidden_layer, W2) + b2
    scores = scores - np.max(scores, axis=1, keepdims=True)
    exp_scores = np.exp(scores)
    probs = exp_scores / np.sum(exp_scores, axis=1, keepdims=True)
    correct_logprobs = -np.log(probs[np.arange(N), y])
    data_loss = np.sum(correct_logprobs) / N
    reg_loss = 0.5 * reg * np.sum(W1 * W1) + 0.5 * reg * np.sum(W2 * W2)
    return data_loss + reg_loss, (hidden_layer, probs)


def two_layer_grads(X, y, params, reg, cache):
    hidden_layer, probs = cache
    W1, W2 = params["W1"], params["W2"]
    N = X.shape[0]
    grads = {}

    dscores = probs.copy()
    dscores[np.arange(N), y] -= 1
    dscores /= N

    grads["W2"] = np.dot(hidden_layer.T, dscores)
    grads["b2"] = np.sum(dscores, axis=0)
    dhidden = np.dot(dscores, W2.T)
    dhidden[hidden_layer <= 0] = 0
    grads["W1"] = np.dot(X.T, dhidden)
    grads["b1"] = np.sum(dhidden, axis=0)

    grads["W2"] += reg * W2
    grads["W1"] += reg * W1
    return grads


# --- what the benchmark knows about it

PAIR = ("two_layer_loss", "two_layer_grads")
GRADIENTS = {"W1": "params['W1']", "b1": "params['b1']", "W2": "params['W2']", "b2": "params['b2']"}
WEIGHTS = ("W2",)
BIASES = ("grads['b1']", "grads['b2']")
REGULARISER = ("reg * W2", "reg * W1")
DIVISORS = {"/= N": ("/= X.shape[1]", "/= probs.shape[1]", "/= probs.size")}


def make_inputs(rng):
    return {
        "X": rng.normal(size=(11, 5)),
        "y": rng.integers(0, 3, size=11),
        "params": {
            "W1": rng.normal(size=(5, 7)),
            "b1": rng.normal(size=7),
            "W2": rng.normal(size=(7, 3)),
            "b2": rng.normal(size=3),
        },
        "reg": 0.3,
    }


PLANTS = {
    "other-layers-cache": [("np.dot(X.T, dhidden)", "np.dot(hidden_layer.T, dhidden)")],
    "other-layers-weights": [("np.dot(dscores, W2.T)", "np.dot(dscores, W1.T)")],
    "weights-after-update": [
        ("    dhidden = np.dot(dscores, W2.T)", '    W2 = W2 - 0.1 * grads["W2"]\n    dhidden = np.dot(dscores, W2.T)'),
        ("    dhidden = np.dot(dscores, W2.T)", '    W2 -= 0.1 * grads["W2"]\n    dhidden = np.dot(dscores, W2.T)'),
    ],
    "rounded-predictions": [("dscores = probs.copy()", "dscores = np.round(probs)")],
    "activation-derivative-missing": [("    dhidden[hidden_layer <= 0] = 0\n", "")],
    "mask-inverted": [("dhidden[hidden_layer <= 0] = 0", "dhidden[hidden_layer > 0] = 0")],
    "mask-from-gradient": [("dhidden[hidden_layer <= 0] = 0", "dhidden[dhidden <= 0] = 0")],
    "activation-as-mask": [("dhidden[hidden_layer <= 0] = 0", "dhidden *= hidden_layer")],
    "derivative-kept-with-fused-loss": [
        ("    dscores /= N\n", "    dscores *= probs * (1 - probs)\n    dscores /= N\n")
    ],
    "cache-mutated": [("dscores = probs.copy()", "dscores = probs")],
    "mean-missing": [("    dscores /= N\n", "")],
    "mean-twice": [("dscores /= N", "dscores /= N * N")],
    "regulariser-mismatch": [
        ('    grads["W2"] += reg * W2\n', ""),
        ('    grads["W1"] += reg * W1\n', ""),
        ("reg * W2", "2 * reg * W2"),
        ("reg * W1", "0.5 * reg * W1"),
        ("reg * W1", "reg * W1 / N"),
        ("reg * W1", "reg * np.abs(W1)"),
        ("reg * W2", "reg * np.sign(W2)"),
        ("reg * W2", "-reg * W2"),
        ('    grads["W1"] += reg * W1\n', '    grads["W1"] += reg * W1\n    grads["b1"] += reg * params["b1"]\n'),
    ],
    "path-forgotten": [("    dscores[np.arange(N), y] -= 1\n", "")],
    "sign": [("dscores[np.arange(N), y] -= 1", "dscores[np.arange(N), y] += 1")],
    "forward-disagrees-with-cache": [
        (
            "return data_loss + reg_loss, (hidden_layer, probs)",
            "return data_loss + reg_loss, (hidden_layer, exp_scores)",
        ),
        (
            "return data_loss + reg_loss, (hidden_layer, probs)",
            "return data_loss + reg_loss, (np.dot(X, W1) + b1, probs)",
        ),
    ],
    "batch-leakage": [("dscores = probs.copy()", "dscores = probs / probs.sum(axis=0)")],
}
