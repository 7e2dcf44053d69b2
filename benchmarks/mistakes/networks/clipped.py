"""Logistic regression whose predictions are clipped before the logarithm, and whose derivative knows it."""

import numpy as np

LOW, HIGH = 0.05, 0.95


def logistic_loss(w, b, x, y):
    z = x @ w + b
    p = 1 / (1 + np.exp(-z))
    q = np.clip(p, LOW, HIGH)
    loss = -np.mean(y * np.log(q) + (1 - y) * np.log(1 - q))
    return loss, {"p": p, "q": q}


def logistic_grad(x, y, cache):
    p, q = cache["p"], cache["q"]
    dq = (q - y) / (q * (1 - q)) / y.size
    dp = dq * ((p > LOW) & (p < HIGH))
    dz = dp * p * (1 - p)
    return x.T @ dz, dz.sum()


# --- what the benchmark knows about it

PAIR = ("logistic_loss", "logistic_grad")
GRADIENTS = ("w", "b")
DIVISORS = {"/ y.size": ("/ x.shape[1]", "/ x.size")}


def make_inputs(rng):
    return {"w": rng.normal(size=5), "b": 0.3, "x": rng.normal(size=(29, 5)), "y": rng.integers(0, 2, size=29) * 1.0}


PLANTS = {
    "clip-mismatch": [
        ("dp = dq * ((p > LOW) & (p < HIGH))", "dp = dq"),
        ("(p > LOW) & (p < HIGH)", "(p > LOW)"),
        ("(p > LOW) & (p < HIGH)", "(p > 0.2) & (p < 0.8)"),
    ],
    "derivative-dropped-without-fused-loss": [("dz = dp * p * (1 - p)", "dz = dp")],
    "derivative-at-activation": [("dz = dp * p * (1 - p)", "s = 1 / (1 + np.exp(-p))\n    dz = dp * s * (1 - s)")],
    "mask-inverted": [("((p > LOW) & (p < HIGH))", "((p < LOW) | (p > HIGH))")],
    "rounded-predictions": [("(q - y)", "(np.round(q) - y)")],
    "path-forgotten": [("(q - y) / (q * (1 - q))", "-y / q")],
    "sign": [("(q - y)", "(y - q)")],
    "activation-as-mask": [("p * (1 - p)", "p")],
    "forward-disagrees-with-cache": [
        ('{"p": p, "q": q}', '{"p": q, "q": p}'),
        ('{"p": p, "q": q}', '{"p": z, "q": q}'),
    ],
}
