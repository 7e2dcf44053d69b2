"""The same training step in tinygrad, by its TinyJit."""

from __future__ import annotations

import os
from importlib.metadata import version
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network
    from stepgrad.bench.ours import Work


def load(threads: int) -> str:
    """Imports the library, sets its number of threads, and returns its version; it needs clang to compile with."""
    os.environ |= {"DEV": "CPU", "NUM_CPU_THREADS": str(threads), "THREADS": str(int(threads > 1))}
    import tinygrad  # noqa: F401

    return version("tinygrad")


def layers_of(network: Network, weights: list[list[Array]]) -> list[Any]:
    """The network as functions of one tensor; linear layers keep their weights as (outputs, inputs)."""
    from tinygrad import Tensor, nn

    layers: list[Any] = []
    for layer, arrays in zip(network.layers, weights, strict=True):
        match layer:
            case ("linear", inputs, outputs):
                layers.append(nn.Linear(inputs, outputs))
                layers[-1].weight = Tensor(arrays[0].T.copy())
                layers[-1].bias = Tensor(arrays[1])
            case ("relu",):
                layers.append(Tensor.relu)
            case ("layer norm", features):
                layers.append(nn.LayerNorm(features))
                layers[-1].weight, layers[-1].bias = Tensor(arrays[0]), Tensor(arrays[1])
            case ("dropout", p):
                layers.append(lambda x, p=p: x.dropout(p))
            case ("embedding", count, features):
                layers += [nn.Embedding(count, features), lambda x: x.flatten(1)]
                layers[-2].weight = Tensor(arrays[0])
    return layers


def jit(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """One step a call."""
    from tinygrad import Context, Tensor, TinyJit, nn

    layers = layers_of(network, weights)
    optimizer = nn.optim.Adam(nn.state.get_parameters(layers), lr=network.learning_rate)
    pairs = cycle([(Tensor(x).realize(), Tensor(y).realize()) for x, y in zip(*batches, strict=True)])

    def step(x: Any, y: Any) -> Any:
        outputs = x.sequential(layers)
        loss = ((outputs - y) ** 2).mean() if network.loss == "mse" else outputs.sparse_categorical_crossentropy(y)
        optimizer.zero_grad()
        return loss.backward().realize(*optimizer.schedule_step())

    compiled = TinyJit(step)

    def run() -> Any:
        with Context(TRAINING=1):
            return compiled(*next(pairs))

    return run, lambda loss: [loss.item()]
