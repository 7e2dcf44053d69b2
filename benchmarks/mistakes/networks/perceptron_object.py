"""One object holds weights, activations and gradients as attributes, (batch, features); its forward is the loss."""

import numpy as np


class Network:
    def __init__(self, w1, b1, w2, b2):
        self.w1 = w1
        self.b1 = b1
        self.w2 = w2
        self.b2 = b2

    def forward(self, x, t):
        self.x = x
        self.t = t
        self.z1 = np.dot(x, self.w1) + self.b1
        self.a1 = 1 / (1 + np.exp(-self.z1))
        self.z2 = np.dot(self.a1, self.w2) + self.b2
        return np.mean((self.z2 - t) ** 2)

    def backward(self):
        n = self.t.size
        d2 = 2 * (self.z2 - self.t) / n
        self.dw2 = np.dot(self.a1.T, d2)
        self.db2 = np.sum(d2, axis=0)
        d1 = np.dot(d2, self.w2.T) * self.a1 * (1 - self.a1)
        self.dw1 = np.dot(self.x.T, d1)
        self.db1 = np.sum(d1, axis=0)


# --- what the benchmark knows about it

OBJECT = "Network"
GRADIENTS = {f"self.d{name}": f"self.{name}" for name in ("w1", "b1", "w2", "b2")}
WEIGHTS = ("self.w2",)
BIASES = ("self.db1", "self.db2")
GRADIENT_NAMES = r"d\d|self\.d.*"
DIVISORS = {"/ n": ("/ len(self.t)", "/ self.t.shape[1]", "/ self.x.size")}


def make_object(rng):
    return Network(rng.normal(size=(5, 7)), rng.normal(size=7), rng.normal(size=(7, 3)), rng.normal(size=3))


def make_inputs(rng):
    return {"x": rng.normal(size=(11, 5)), "t": rng.normal(size=(11, 3))}


PLANTS = {
    "derivative-twice": [(" * self.a1 * (1 - self.a1)", " * (self.a1 * (1 - self.a1)) ** 2")],
    "preactivation-for-activation": [("np.dot(self.a1.T, d2)", "np.dot(self.z1.T, d2)")],
    "activation-derivative-missing": [(" * self.a1 * (1 - self.a1)", "")],
    "derivative-at-activation": [("self.a1 * (1 - self.a1)", "(s := 1 / (1 + np.exp(-self.a1))) * (1 - s)")],
    "derivative-of-preactivation": [("self.a1 * (1 - self.a1)", "self.z1 * (1 - self.z1)")],
    "activation-as-mask": [(" * self.a1 * (1 - self.a1)", " * self.a1")],
    "half-of-the-loss": [("2 * (self.z2 - self.t)", "(self.z2 - self.t)")],
    "stale-cache": [
        ("        self.x = x\n", "        self.x = getattr(self, 'x', x)\n"),
        ("        self.t = t\n", "        if not hasattr(self, 't'):\n            self.t = t\n"),
    ],
    "not-reset-between-calls": [
        ("self.dw2 = np.dot(", "self.dw2 = getattr(self, 'dw2', 0) + np.dot("),
        ("self.db1 = np.sum(", "self.db1 = getattr(self, 'db1', 0) + np.sum("),
    ],
    "weights-after-update": [
        ("        d1 = np.dot", "        self.w2 = self.w2 - 0.1 * self.dw2\n        d1 = np.dot"),
        ("        d1 = np.dot", "        self.w2 -= 0.1 * self.dw2\n        d1 = np.dot"),
    ],
    "cache-mutated": [("        d1 = np.dot", "        self.a1 *= 1 - self.a1\n        d1 = np.dot")],
    "other-layers-weights": [("self.w2.T) *", "self.w1) *")],
    "rounded-predictions": [("(self.z2 - self.t)", "(np.round(self.z2) - self.t)")],
    "gradient-missing": [
        ("        self.db1 = np.sum(d1, axis=0)\n", ""),
        ("        self.dw2 = np.dot(self.a1.T, d2)\n", ""),
    ],
    "forward-disagrees-with-cache": [
        (
            "        self.a1 = 1 / (1 + np.exp(-self.z1))\n        self.z2 = np.dot(self.a1, ",
            "        a1 = 1 / (1 + np.exp(-self.z1))\n        self.a1 = np.tanh(self.z1)\n        self.z2 = np.dot(a1, ",
        )
    ],
    "batch-leakage": [("(self.z2 - self.t) / n", "(self.z2 - self.t.mean(axis=0)) / n")],
    "sign": [("(self.z2 - self.t)", "(self.t - self.z2)")],
}
