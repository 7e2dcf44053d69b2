"""Layer normalisation after a linear layer, (batch, features), with a downstream gradient passed in as `dy`."""

import numpy as np


def ln_forward(x, w, g, b):
    h = x @ w
    mean = np.mean(h, axis=-1, keepdims=True)
    var = np.mean((h - mean) ** 2, axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(var + 1e-5)
    norm = (h - mean) * rstd
    y = norm * g + b
    return y, (x, norm, rstd)


def ln_backward(dy, w, g, cache):
    x, norm, rstd = cache
    db = np.sum(dy, axis=0)
    dg = np.sum(dy * norm, axis=0)
    dnorm = dy * g
    dh = dnorm - np.mean(dnorm, axis=-1, keepdims=True) - norm * np.mean(dnorm * norm, axis=-1, keepdims=True)
    dh = dh * rstd
    dx = dh @ w.T
    dw = x.T @ dh
    return dx, dw, dg, db


# --- what the benchmark knows about it

PAIR = ("ln_forward", "ln_backward")
GRADIENTS = ("x", "w", "g", "b")
WEIGHTS = ("w",)
BIASES = ("db",)
BROADCAST = ("dg",)
DIVISORS = {}


def make_inputs(rng):
    return {
        "x": rng.normal(size=(7, 5)),
        "w": rng.normal(size=(5, 11)),
        "g": rng.normal(size=11),
        "b": rng.normal(size=11),
    }


PLANTS = {
    "batch-statistics-as-constants": [
        (
            "dh = dnorm - np.mean(dnorm, axis=-1, keepdims=True) - norm * np.mean(dnorm * norm, axis=-1, keepdims=True)",
            "dh = dnorm",
        ),
        (" - norm * np.mean(dnorm * norm, axis=-1, keepdims=True)", ""),
        (" - np.mean(dnorm, axis=-1, keepdims=True)", ""),
    ],
    "batch-leakage": [
        ("np.mean(dnorm, axis=-1, keepdims=True)", "np.mean(dnorm, axis=0, keepdims=True)"),
        ("np.mean(dnorm * norm, axis=-1, keepdims=True)", "np.mean(dnorm * norm, axis=0, keepdims=True)"),
        ("dnorm = dy * g", "dnorm = (dy - dy.mean(axis=0)) * g"),
    ],
    "constant-factor": [("dh = dh * rstd", "dh = dh * rstd * 0.9")],
    "forward-disagrees-with-cache": [
        ("return y, (x, norm, rstd)", "return y, (x, y, rstd)"),
        ("return y, (x, norm, rstd)", "return y, (x, norm, var)"),
    ],
    "sign": [("- norm * np.mean(", "+ norm * np.mean(")],
    "cache-mutated": [("    dnorm = dy * g", "    norm *= g\n    dnorm = dy * g")],
}
