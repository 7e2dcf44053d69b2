"""Classes with forward and backward, stacked by a model object: Linear, Sigmoid, SoftmaxCrossEntropy."""

import numpy as np


class Linear:
    def __init__(self, W, b):
        self.W = W
        self.b = b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = np.sum(dout, axis=0)
        return dout @ self.W.T


class ReLU:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * self.out * (1.0 - self.out)


class SoftmaxCrossEntropy:
    def forward(self, logits, targets):
        shifted = logits - np.max(logits, axis=1, keepdims=True)
        e = np.exp(shifted)
        self.probs = e / np.sum(e, axis=1, keepdims=True)
        self.targets = targets
        return -np.mean(np.sum(targets * np.log(self.probs), axis=1))

    def backward(self):
        batch_size = self.targets.shape[0]
        return (self.probs - self.targets) / batch_size


def forward(x, t, W1, b1, W2, b2, W3, b3):
    layers = [Linear(W1, b1), ReLU(), Linear(W2, b2), Sigmoid(), Linear(W3, b3)]
    h = x
    for layer in layers:
        h = layer.forward(h)
    loss_layer = SoftmaxCrossEntropy()
    loss = loss_layer.forward(h, t)
    return loss, (layers, loss_layer)


def backward(cache):
    layers, loss_layer = cache
    dout = loss_layer.backward()
    for layer in reversed(layers):
        dout = layer.backward(dout)
    return {
        "W1": layers[0].dW,
        "b1": layers[0].db,
        "W2": layers[2].dW,
        "b2": layers[2].db,
        "W3": layers[4].dW,
        "b3": layers[4].db,
        "x": dout,
    }


# --- what the benchmark knows about it

PAIR = ("forward", "backward")
GRADIENTS = {name: name for name in ("W1", "b1", "W2", "b2", "W3", "b3", "x")}
WEIGHTS = ("self.W",)
BIASES = ("self.db",)
DIVISORS = {"/ batch_size": ("/ self.targets.shape[1]", "/ self.targets.size")}


def make_inputs(rng):
    return {
        "x": rng.normal(size=(11, 5)),
        "t": np.eye(3)[rng.integers(0, 3, size=11)],
        "W1": rng.normal(size=(5, 7)),
        "b1": rng.normal(size=7),
        "W2": rng.normal(size=(7, 13)),
        "b2": rng.normal(size=13),
        "W3": rng.normal(size=(13, 3)),
        "b3": rng.normal(size=3),
    }


PLANTS = {
    "preactivation-for-activation": [
        (
            "        self.out = 1 / (1 + np.exp(-x))\n        return self.out",
            "        self.out = x\n        return 1 / (1 + np.exp(-x))",
        ),
    ],
    "activation-derivative-missing": [
        ("dout * self.mask", "dout"),
        ("dout * self.out * (1.0 - self.out)", "dout"),
    ],
    "mask-inverted": [("dout * self.mask", "dout * ~self.mask"), ("dout * self.mask", "dout * (1 - self.mask)")],
    "mask-from-gradient": [("dout * self.mask", "dout * (dout > 0)")],
    "derivative-at-activation": [
        ("dout * self.out * (1.0 - self.out)", "dout * (s := 1 / (1 + np.exp(-self.out))) * (1.0 - s)"),
    ],
    "derivative-kept-with-fused-loss": [
        (
            "(self.probs - self.targets) / batch_size",
            "(self.probs - self.targets) * self.probs * (1 - self.probs) / batch_size",
        ),
    ],
    "rounded-predictions": [("(self.probs - self.targets)", "(np.round(self.probs) - self.targets)")],
    "wrong-order": [("in reversed(layers)", "in layers")],
    "cache-mutated": [
        ("        self.dW = self.x.T @ dout\n", "        self.x -= self.x.mean()\n        self.dW = self.x.T @ dout\n"),
        (
            "        return dout * self.out * (1.0 - self.out)",
            "        self.out *= 1.0 - self.out\n        return dout * self.out",
        ),
    ],
    "weights-after-update": [
        ("        return dout @ self.W.T", "        self.W = self.W - 0.1 * self.dW\n        return dout @ self.W.T"),
        ("        return dout @ self.W.T", "        self.W -= 0.1 * self.dW\n        return dout @ self.W.T"),
    ],
    "forward-disagrees-with-cache": [
        ("        self.x = x\n", "        self.x = x - x.mean()\n"),
    ],
    "batch-leakage": [
        ("dout * self.mask", "(dout - dout.mean(axis=0)) * self.mask"),
    ],
}
