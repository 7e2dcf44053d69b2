"""The tiny networks in which the catalogue shows its mistakes: forward and backward passes in plain NumPy."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stepgrad.tensor import Array

Random = np.random.Generator


@dataclass(frozen=True)
class Network:
    """A forward pass and its right backward pass, as source.

    Attributes:
        name: its function names end with it.
        title: what it is.
        source: both functions: `forward(inputs…) -> loss, cache` and `backward(cache) -> gradients`.
        inputs: makes inputs for a number of examples.
    """

    name: str
    title: str
    source: str
    inputs: Callable[[Random, int], dict[str, Array]]

    def with_line(self, right: str, wrong: str) -> str:
        """The source with another line in it, or several."""
        old, new = (textwrap.indent(textwrap.dedent(text).strip("\n"), "    ") for text in (right, wrong))
        if self.source.count(old + "\n") != 1:
            raise ValueError(f"not one place of this in {self.name}:\n{old}")
        return self.source.replace(old + "\n", new + "\n" if new.strip() else "")


def _network(name: str, title: str, source: str, inputs: Callable[[Random, int], dict[str, Array]]) -> Network:
    return Network(name, title, textwrap.dedent(source).strip() + "\n", inputs)


def _labels(rng: Random, m: int, classes: int) -> Array:
    return np.eye(classes)[rng.permutation(np.arange(m) % classes)]


two_layers = _network(
    "two_layers",
    "Two layers, examples in columns, sigmoid and binary cross-entropy",
    """
    import numpy as np

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def forward(X, Y, W1, b1, W2, b2):
        Z1 = W1 @ X + b1
        A1 = np.tanh(Z1)
        Z2 = W2 @ A1 + b2
        A2 = sigmoid(Z2)
        loss = -np.mean(np.sum(Y * np.log(A2) + (1 - Y) * np.log(1 - A2), axis=0))
        return loss, (X, Y, W1, W2, Z1, A1, Z2, A2)

    def backward(cache):
        X, Y, W1, W2, Z1, A1, Z2, A2 = cache
        m = X.shape[1]
        dZ2 = (A2 - Y) / m
        dW2 = dZ2 @ A1.T
        db2 = np.sum(dZ2, axis=1, keepdims=True)
        dA1 = W2.T @ dZ2
        dZ1 = dA1 * (1 - A1**2)
        dW1 = dZ1 @ X.T
        db1 = np.sum(dZ1, axis=1, keepdims=True)
        return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(5, m)),
        "Y": (rng.random((2, m)) < 0.5).astype(float),
        "W1": rng.normal(size=(3, 5)),
        "b1": rng.normal(size=(3, 1)),
        "W2": rng.normal(size=(2, 3)),
        "b2": rng.normal(size=(2, 1)),
    },
)

square_layers = _network(
    "square_layers",
    "Three layers of one size, examples in rows, leaky ReLU and squared error",
    """
    import numpy as np

    def forward(X, Y, W1, W2, W3, lam):
        Z1 = X @ W1
        A1 = np.where(Z1 > 0, Z1, 0.1 * Z1)
        Z2 = A1 @ W2
        A2 = np.maximum(Z2, 0)
        out = A2 @ W3
        loss = np.sum((out - Y) ** 2) / (2 * len(X)) + lam / 2 * np.sum(W1**2)
        return loss, (X, Y, W1, W2, W3, lam, Z1, A1, Z2, A2, out)

    def backward(cache):
        X, Y, W1, W2, W3, lam, Z1, A1, Z2, A2, out = cache
        dout = (out - Y) / len(X)
        dW3 = A2.T @ dout
        dA2 = dout @ W3.T
        dZ2 = dA2 * (Z2 > 0)
        dW2 = A1.T @ dZ2
        dA1 = dZ2 @ W2.T
        dZ1 = dA1 * np.where(Z1 > 0, 1, 0.1)
        dW1 = X.T @ dZ1 + lam * W1
        return {"W1": dW1, "W2": dW2, "W3": dW3}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(m, 5)),
        "Y": rng.normal(size=(m, 5)),
        "W1": rng.normal(size=(5, 5)),
        "W2": rng.normal(size=(5, 5)),
        "W3": rng.normal(size=(5, 5)),
        "lam": np.array(rng.uniform(0.2, 0.9)),
    },
)

mean_at_parameters = _network(
    "mean_at_parameters",
    "A softmax layer that takes the mean over the examples where parameters' gradients are",
    """
    import numpy as np

    def forward(X, Y, W, b):
        Z = X @ W + b
        E = np.exp(Z - Z.max(axis=1, keepdims=True))
        P = E / E.sum(axis=1, keepdims=True)
        loss = -np.sum(Y * np.log(P)) / len(X)
        return loss, (X, Y, Z, P)

    def backward(cache):
        X, Y, Z, P = cache
        m = len(X)
        dZ = P - Y
        dW = X.T @ dZ / m
        db = dZ.sum(axis=0) / m
        return {"W": dW, "b": db}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(m, 3)),
        "Y": _labels(rng, m, 5),
        "W": rng.normal(size=(3, 5)),
        "b": rng.normal(size=5),
    },
)

softmax_alone = _network(
    "softmax_alone",
    "Softmax as a step of its own, with clipped probabilities",
    """
    import numpy as np

    def forward(X, Y, W):
        Z = X @ W
        E = np.exp(Z - Z.max(axis=1, keepdims=True))
        P = E / E.sum(axis=1, keepdims=True)
        C = np.clip(P, 0.05, 0.95)
        loss = -np.mean(np.sum(Y * np.log(C), axis=1))
        return loss, (X, Y, Z, P, C)

    def backward(cache):
        X, Y, Z, P, C = cache
        dC = -Y / C / len(X)
        dP = dC * ((P > 0.05) & (P < 0.95))
        dZ = P * (dP - np.sum(dP * P, axis=1, keepdims=True))
        dW = X.T @ dZ
        return {"W": dW}
    """,
    lambda rng, m: {"X": rng.normal(size=(m, 3)), "Y": _labels(rng, m, 5), "W": 2 * rng.normal(size=(3, 5))},
)

batch_norm = _network(
    "batch_norm",
    "Batch normalisation",
    """
    import numpy as np

    def forward(X, gamma, beta, T):
        mu = X.mean(axis=0)
        var = X.var(axis=0)
        xhat = (X - mu) / np.sqrt(var + 1e-5)
        out = gamma * xhat + beta
        loss = np.sum((out - T) ** 2) / 2
        return loss, (X, gamma, T, mu, var, xhat, out)

    def backward(cache):
        X, gamma, T, mu, var, xhat, out = cache
        dout = out - T
        dbeta = dout.sum(axis=0)
        dgamma = np.sum(dout * xhat, axis=0)
        dxhat = dout * gamma
        dX = (dxhat - dxhat.mean(axis=0) - xhat * np.mean(dxhat * xhat, axis=0)) / np.sqrt(var + 1e-5)
        return {"X": dX, "gamma": dgamma, "beta": dbeta}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(m, 3)),
        "gamma": rng.normal(size=3),
        "beta": rng.normal(size=3),
        "T": rng.normal(size=(m, 3)),
    },
)

residual = _network(
    "residual",
    "A residual block: X is used twice",
    """
    import numpy as np

    def forward(X, W, V, T):
        H = np.tanh(X @ W)
        out = X + H @ V
        loss = np.mean((out - T) ** 2)
        return loss, (X, W, V, T, H, out)

    def backward(cache):
        X, W, V, T, H, out = cache
        dout = 2 * (out - T) / out.size
        dV = H.T @ dout
        dH = dout @ V.T
        dS = dH * (1 - H**2)
        dW = X.T @ dS
        dX = dout
        dX = dX + dS @ W.T
        return {"X": dX, "W": dW, "V": dV}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(m, 3)),
        "W": rng.normal(size=(3, 5)),
        "V": rng.normal(size=(5, 3)),
        "T": rng.normal(size=(m, 3)),
    },
)

dropout = _network(
    "dropout",
    "Inverted dropout, with the mask as an argument",
    """
    import numpy as np

    def forward(X, W, mask, T, keep=0.8):
        A = X @ W
        D = A * mask / keep
        loss = np.sum((D - T) ** 2) / 2
        return loss, (X, W, mask, keep, T, A, D)

    def backward(cache):
        X, W, mask, keep, T, A, D = cache
        dD = D - T
        dA = dD * mask / keep
        dW = X.T @ dA
        return {"W": dW}
    """,
    lambda rng, m: {
        "X": rng.normal(size=(m, 3)),
        "W": rng.normal(size=(3, 5)),
        "mask": (rng.random((m, 5)) < 0.8).astype(float),
        "T": rng.normal(size=(m, 5)),
    },
)

NETWORKS = (
    two_layers,
    square_layers,
    mean_at_parameters,
    softmax_alone,
    batch_norm,
    residual,
    dropout,
)
