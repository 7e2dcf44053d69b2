"""A linear classifier by the multiclass hinge loss, (batch, features), written over in place."""

import numpy as np


def svm_loss(W, X, y, reg):
    num_train = X.shape[0]
    scores = X.dot(W)
    correct = scores[np.arange(num_train), y].reshape(-1, 1)
    margins = np.maximum(0, scores - correct + 1)
    loss = (np.sum(margins) - num_train) / num_train
    loss += reg * np.sum(W * W)
    return loss, margins


def svm_grad(W, X, y, reg, margins):
    num_train = X.shape[0]
    dmargins = 1.0 * (margins > 0)
    dmargins[np.arange(num_train), y] = 0
    dmargins[np.arange(num_train), y] = -np.sum(dmargins, axis=1)
    dW = X.T.dot(dmargins)
    dW /= num_train
    dW += 2 * reg * W
    return dW


# --- what the benchmark knows about it

PAIR = ("svm_loss", "svm_grad")
GRADIENTS = ("W",)
REGULARISER = ("2 * reg * W",)
DIVISORS = {"/= num_train": ("/= X.shape[1]", "/= margins.size")}


def make_inputs(rng):
    return {"W": rng.normal(size=(5, 7)), "X": rng.normal(size=(11, 5)), "y": rng.integers(0, 7, size=11), "reg": 0.2}


PLANTS = {
    "mean-missing": [("    dW /= num_train\n", "")],
    "mean-twice": [("dW /= num_train", "dW /= num_train**2")],
    "mask-inverted": [("(margins > 0)", "(margins <= 0)")],
    "activation-as-mask": [("1.0 * (margins > 0)", "margins.copy()")],
    "path-forgotten": [("    dmargins[np.arange(num_train), y] = -np.sum(dmargins, axis=1)\n", "")],
    "regulariser-mismatch": [
        ("2 * reg * W", "reg * W"),
        ("    dW += 2 * reg * W\n", ""),
        ("2 * reg * W", "2 * reg * np.sign(W)"),
        ("2 * reg * W", "2 * reg * W / num_train"),
    ],
    "overwritten-at-fan-out": [("dW += 2 * reg * W", "dW = 2 * reg * W")],
    "sign": [("-np.sum(dmargins, axis=1)", "np.sum(dmargins, axis=1)")],
    "batch-leakage": [("-np.sum(dmargins, axis=1)", "-np.sum(dmargins) / num_train")],
    "forward-disagrees-with-cache": [("    return loss, margins", "    margins = scores\n    return loss, margins")],
}
