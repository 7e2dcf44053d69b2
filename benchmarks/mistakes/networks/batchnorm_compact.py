"""Batch normalisation as an object, (batch, features), by the compact formula for dx."""

import numpy as np


class BatchNorm:
    def __init__(self, gamma, beta, eps=1e-5):
        self.gamma = gamma
        self.beta = beta
        self.eps = eps

    def forward(self, x):
        self.mean = x.mean(axis=0)
        self.var = x.var(axis=0)
        self.std_inv = 1 / np.sqrt(self.var + self.eps)
        self.x_norm = (x - self.mean) * self.std_inv
        return self.gamma * self.x_norm + self.beta

    def backward(self, grad_out):
        n = grad_out.shape[0]
        self.dgamma = (grad_out * self.x_norm).sum(axis=0)
        self.dbeta = grad_out.sum(axis=0)
        grad_norm = grad_out * self.gamma
        grad_x = (
            self.std_inv
            / n
            * (n * grad_norm - grad_norm.sum(axis=0) - self.x_norm * (grad_norm * self.x_norm).sum(axis=0))
        )
        return grad_x


# --- what the benchmark knows about it

OBJECT = "BatchNorm"
GRADIENTS = {"x": "x", "self.dgamma": "self.gamma", "self.dbeta": "self.beta"}
BIASES = ("self.dbeta",)
BROADCAST = ("self.dgamma",)
DIVISORS = {"/ n": ("/ grad_out.shape[1]", "/ (n - 1)")}


def make_object(rng):
    return BatchNorm(rng.normal(size=5), rng.normal(size=5))


def make_inputs(rng):
    return {"x": 2 * rng.normal(size=(11, 5)) + 1}


PLANTS = {
    "batch-statistics-as-constants": [
        (
            "(n * grad_norm - grad_norm.sum(axis=0) - self.x_norm * (grad_norm * self.x_norm).sum(axis=0))",
            "(n * grad_norm)",
        ),
        (" - self.x_norm * (grad_norm * self.x_norm).sum(axis=0)", ""),
        (" - grad_norm.sum(axis=0)", ""),
    ],
    "sign": [("- self.x_norm * (", "+ self.x_norm * ("), ("- grad_norm.sum(axis=0)", "+ grad_norm.sum(axis=0)")],
    "batch-leakage": [
        ("grad_norm = grad_out * self.gamma", "grad_norm = grad_out.mean(axis=0) * self.gamma + 0 * self.x_norm")
    ],
    "cache-mutated": [
        ("        grad_norm = grad_out", "        self.x_norm *= self.gamma\n        grad_norm = grad_out"),
    ],
    "forward-disagrees-with-cache": [
        (
            "        return self.gamma * self.x_norm + self.beta",
            "        out = self.gamma * self.x_norm + self.beta\n        self.x_norm = out\n        return out",
        ),
        (
            "        return self.gamma * self.x_norm + self.beta",
            "        out = self.gamma * self.x_norm + self.beta\n        self.std_inv = np.sqrt(self.var + self.eps)\n        return out",
        ),
    ],
    "not-reset-between-calls": [
        (
            "        self.dbeta = grad_out.sum(axis=0)",
            "        self.dbeta = getattr(self, 'dbeta', 0) + grad_out.sum(axis=0)",
        ),
    ],
}
