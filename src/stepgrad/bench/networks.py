"""The networks that are timed: what they are, their initial weights and their batches.

A network is data, so that every library builds the same one: `ours.py`, `with_torch.py`,
`with_jax.py` and `with_tinygrad.py` each say in a few lines what a layer is there. This file is
also run in the processes of those libraries, where stepgrad is not imported: it needs NumPy only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

Layer = tuple[Any, ...]
"""("linear", inputs, outputs), ("relu",), ("layer norm", features), ("dropout", p) or ("embedding", count, features),
after which the vectors of an example are laid end to end."""


@dataclass(frozen=True)
class Network:
    """A network, and the batch that it is trained on.

    Attributes:
        name: what the command line calls it.
        layers: from input to output.
        batch: rows in a batch.
        words: for an embedding, how many integers an example has; otherwise 0.
        loss: "cross entropy" of class labels, or "mse".
        dtype: "float32" or "float64".
        learning_rate: of everybody's Adam, whose betas are the usual (0.9, 0.999), and eps 1e-8.
        epochs: for a network that is fitted whole, to the digits: how often every example is used.
        about: what its title calls it, if not by its name.
    """

    name: str
    layers: tuple[Layer, ...]
    batch: int
    words: int = 0
    loss: str = "cross entropy"
    dtype: str = "float32"
    learning_rate: float = 1e-3
    epochs: int = 0
    about: str = ""

    @property
    def title(self) -> str:
        return f"{self.about or self.name}, batch {self.batch}"

    @property
    def inputs(self) -> int:
        """The number of features of an example; for an embedding, the number of rows of its table."""
        return int(self.layers[0][1])

    @property
    def outputs(self) -> int:
        return int(self.layers[-1][2])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each linear layer."""
        return [layer[1:] for layer in self.layers if layer[0] == "linear"]

    def without_dropout(self) -> Network:
        """The same network with nothing dropped: no two libraries drop the same values, but this they all agree on."""
        return replace(self, layers=tuple(layer for layer in self.layers if layer[0] != "dropout"))


def linear(*sizes: int) -> tuple[Layer, ...]:
    """Linear layers of these sizes, with relu between them."""
    layers: list[Layer] = []
    for inputs, outputs in pairwise(sizes):
        layers += [("linear", inputs, outputs), ("relu",)]
    return tuple(layers[:-1])


def normalised(*sizes: int, p: float) -> tuple[Layer, ...]:
    """The same, with layer norm before each relu and dropout after it."""
    layers: list[Layer] = []
    for inputs, outputs in pairwise(sizes):
        layers += [("linear", inputs, outputs), ("layer norm", outputs), ("relu",), ("dropout", p)]
    return tuple(layers[:-3])


NETWORKS = (
    Network("2-8-2", linear(2, 8, 2), 4),
    Network("64-128-64-10", linear(64, 128, 64, 10), 64),
    Network("784-512-256-10", linear(784, 512, 256, 10), 128),
    Network("1024-2048-2048-1024", linear(1024, 2048, 2048, 1024), 256, learning_rate=1e-4),
    Network("30-layers", linear(*[64] * 31, 10), 32, learning_rate=1e-4, about="30 hidden layers of 64"),
    Network("100-layers", linear(*[32] * 101, 10), 16, learning_rate=1e-4, about="100 hidden layers of 32"),
    Network("wide", linear(256, 4096, 10), 32, about="256-4096-10"),
    Network("tiny", linear(4, 4, 2), 1, about="4-4-2"),
    Network("regression", linear(13, 64, 64, 1), 32, loss="mse", about="13-64-64-1, mean squared error"),
    Network("norm-dropout", normalised(128, 256, 256, 10, p=0.1), 64, about="128-256-256-10, layer norm, dropout"),
    Network(
        "embedding",
        (("embedding", 1000, 32), *linear(16 * 32, 64, 2)),
        32,
        words=16,
        about="embedding 1000 × 32 of 16 words, 512-64-2",
    ),
    Network("float64", linear(64, 128, 64, 10), 64, dtype="float64", about="64-128-64-10 in float64"),
)

DIGITS = Network("digits", linear(64, 128, 64, 10), 32, epochs=20, about="64-128-64-10 fitted to the digits, 20 epochs")


def find(name: str) -> Network | None:
    """The network of this name; also any sizes, such as "20-50-3", or "20-50-3b16" for a batch of 16 (otherwise 32)."""
    for network in (*NETWORKS, DIGITS):
        if network.name == name:
            return network
    sizes = re.fullmatch(r"([1-9]\d*(?:-[1-9]\d*)+)(?:b([1-9]\d*))?", name)
    if not sizes:
        return None
    return Network(name, linear(*map(int, sizes[1].split("-"))), int(sizes[2] or 32))


def weights(network: Network) -> list[list[Array]]:
    """For each layer its parameters, the same for everybody.

    Returns:
        linear: [weight (inputs, outputs), bias (outputs,)]; layer norm: [scale, shift];
        embedding: [table (count, features)]; other layers: [].
    """
    rng = np.random.default_rng(1)
    found: list[list[Array]] = []
    for kind, *sizes in network.layers:
        if kind == "linear":
            inputs, outputs = sizes
            # Variance 2 / inputs keeps the size of the signal through any number of relu layers (He et al. 2015).
            found.append([rng.standard_normal((inputs, outputs)) * math.sqrt(2 / inputs), np.zeros(outputs)])
        elif kind == "layer norm":
            found.append([np.ones(sizes), np.zeros(sizes)])
        elif kind == "embedding":
            found.append([rng.standard_normal(sizes)])
        else:
            found.append([])
    return [[array.astype(network.dtype) for array in arrays] for arrays in found]


def batches(network: Network) -> tuple[Array, Array]:
    """Several batches, which steps take in turn.

    Labels and noise are random, so that the loss keeps away from zero: a network that has learnt its
    one batch by heart has gradients so small that the processor takes longer for them.

    Returns:
        X: (count, batch, features) floats, or (count, batch, words) integers for an embedding.
        Y: (count, batch) int64 labels, or (count, batch, outputs) floats for mse.
        Where there are epochs, all the digits: X (examples, 64), Y (examples,).
    """
    if network.epochs:
        return digits()
    rng = np.random.default_rng(0)
    count = max(4, min(1024, 2_000_000 // (network.batch * (network.words or network.inputs))))
    X: Array
    if network.words:
        X = rng.integers(0, network.inputs, (count, network.batch, network.words))
    else:
        X = rng.standard_normal((count, network.batch, network.inputs)).astype(network.dtype)
    if network.loss == "mse":
        return X, rng.standard_normal((count, network.batch, network.outputs)).astype(network.dtype)
    return X, rng.integers(0, network.outputs, (count, network.batch))


def digits() -> tuple[Array, Array]:
    """The embedded digits: X float32 (1797, 64) in [0, 1], y int64 (1797,)."""
    with np.load(Path(__file__).parent.parent / "train" / "data" / "digits.npz", allow_pickle=False) as arrays:
        return (arrays["images"] / np.float32(16)).astype(np.float32), arrays["labels"].astype(np.int64)
