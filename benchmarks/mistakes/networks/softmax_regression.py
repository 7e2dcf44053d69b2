"""Softmax regression on one-hot targets, (batch, features); `gW`, `gb`, and a weight decay."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def loss_fn(W, b, X, T, weight_decay):
    logits = X @ W + b
    P = softmax(logits)
    n = X.shape[0]
    loss = -(T * np.log(P)).sum() / n + weight_decay / 2 * (W**2).sum()
    return loss, P, logits


def gradient(W, b, X, T, weight_decay, P, logits):
    n = X.shape[0]
    d_logits = (P - T) / n
    gW = X.T @ d_logits + weight_decay * W
    gb = d_logits.sum(axis=0)
    return gW, gb


# --- what the benchmark knows about it

PAIR = ("loss_fn", "gradient")
GRADIENTS = ("W", "b")
BIASES = ("gb",)
REGULARISER = ("weight_decay * W",)
DIVISORS = {"/ n": ("/ T.size", "/ X.shape[1]", "/ T.shape[1]")}


def make_inputs(rng):
    return {
        "W": rng.normal(size=(7, 5)),
        "b": rng.normal(size=5),
        "X": rng.normal(size=(13, 7)),
        "T": np.eye(5)[rng.integers(0, 5, size=13)],
        "weight_decay": 0.1,
    }


PLANTS = {
    "mean-twice": [
        ("gW = X.T @ d_logits + ", "gW = X.T @ d_logits / n + "),
        ("gb = d_logits.sum(axis=0)", "gb = d_logits.mean(axis=0)"),
    ],
    "preactivation-for-activation": [("(P - T)", "(logits - T)")],
    "rounded-predictions": [
        ("(P - T)", "(np.round(P) - T)"),
        ("(P - T)", "(np.eye(P.shape[1])[P.argmax(axis=1)] - T)"),
    ],
    "derivative-kept-with-fused-loss": [("(P - T) / n", "(P - T) * P * (1 - P) / n")],
    "regulariser-mismatch": [
        (" + weight_decay * W", ""),
        ("weight_decay * W", "weight_decay / 2 * W"),
        ("weight_decay * W", "2 * weight_decay * W"),
        ("weight_decay * W", "weight_decay * W**2"),
        ("weight_decay * W", "weight_decay / n * W"),
        ("gb = d_logits.sum(axis=0)", "gb = d_logits.sum(axis=0) + weight_decay * b"),
    ],
    "forward-disagrees-with-cache": [
        ("return loss, P, logits", "return loss, np.exp(logits), logits"),
        ("    return loss, P, logits", "    P = softmax(X @ W)\n    return loss, P, logits"),
    ],
    "cache-mutated": [("    d_logits = (P - T) / n\n", "    P -= T\n    d_logits = P / n\n")],
    "batch-leakage": [("(P - T) / n", "(P / P.sum(axis=0, keepdims=True) - T) / n")],
    "sign": [("(P - T)", "(P + T)")],
    "clip-mismatch": [
        ("gW = X.T @ d_logits + weight_decay * W", "gW = np.clip(X.T @ d_logits + weight_decay * W, -0.1, 0.1)")
    ],
}
