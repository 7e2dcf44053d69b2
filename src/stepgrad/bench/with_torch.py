"""The same training step in PyTorch: eager, eager with its fused Adam, and by torch.compile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network
    from stepgrad.bench.ours import Work


def load(threads: int) -> str:
    """Imports the library, sets its number of threads, and returns its version."""
    import torch

    torch.set_num_threads(threads)
    return str(torch.__version__)


def module(network: Network, weights: list[list[Array]]) -> Any:
    """The network as a module, with these weights; PyTorch keeps them as (outputs, inputs)."""
    import torch

    dtype = getattr(torch, network.dtype)
    layers: list[Any] = []
    for layer, arrays in zip(network.layers, weights, strict=True):
        match layer:
            case ("linear", inputs, outputs):
                layers.append(torch.nn.Linear(inputs, outputs, dtype=dtype))
                layers[-1].weight.data.copy_(torch.from_numpy(arrays[0].T))
                layers[-1].bias.data.copy_(torch.from_numpy(arrays[1]))
            case ("relu",):
                layers.append(torch.nn.ReLU())
            case ("layer norm", features):
                layers.append(torch.nn.LayerNorm(features, dtype=dtype))
            case ("dropout", p):
                layers.append(torch.nn.Dropout(p))
            case ("embedding", count, features):
                layers += [torch.nn.Embedding(count, features, dtype=dtype), torch.nn.Flatten()]
                layers[-2].weight.data.copy_(torch.from_numpy(arrays[0]))
    return torch.nn.Sequential(*layers)


def loss_of(network: Network, model: Any) -> Callable[[Any, Any], Any]:
    """The forward pass: (X, Y) -> loss."""
    import torch

    loss = torch.nn.MSELoss() if network.loss == "mse" else torch.nn.CrossEntropyLoss()
    return lambda x, y: loss(model(x), y)


def in_turn(step: Callable[[Any, Any], Any], batches: tuple[Array, Array]) -> Work:
    """One step a call, with one batch after the other."""
    import torch

    pairs = cycle([(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(*batches, strict=True)])
    return lambda: step(*next(pairs)), lambda loss: [loss.item()]


def training(
    network: Network,
    weights: list[list[Array]],
    batches: tuple[Array, Array],
    *,
    fused: bool,
    compiler: Callable[[Any], Any] = lambda function: function,
) -> Work:
    """Forward pass, backward pass and update.

    Args:
        fused: Adam as one kernel over all parameters, which has to be asked for.
        compiler: compiles the loss function, and with it its backward pass.
    """
    import torch

    model = module(network, weights)
    loss_function = compiler(loss_of(network, model))
    optimizer = torch.optim.Adam(model.parameters(), lr=network.learning_rate, fused=fused)

    def step(x: Any, y: Any) -> Any:
        loss = loss_function(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return in_turn(step, batches)


def eager(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    return training(network, weights, batches, fused=False)


def eager_fused(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    return training(network, weights, batches, fused=True)


def compiled(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    import torch

    if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        raise RuntimeError("torch.compile needs a C++ compiler, and there is none")
    return training(network, weights, batches, fused=True, compiler=torch.compile)
