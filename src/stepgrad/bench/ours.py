"""The training step in stepgrad: eager, compiled, and many steps in one call.

Each function takes a network, its weights, its batches and a number of threads, and returns what
is timed and a function that turns its result into a list of losses, one for each step.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrad.bench.networks import Array, Network

Work = tuple[Callable[[], Any], Callable[[Any], list[float]]]


def load(threads: int) -> str:
    """Imports the library, and returns its version."""
    import stepgrad  # noqa: F401

    return version("stepgrad")


def module(network: Network, weights: list[list[Array]]) -> Any:
    """The network as a module, with these weights."""
    import stepgrad as sg

    layers: list[Any] = []
    for layer, arrays in zip(network.layers, weights, strict=True):
        match layer:
            case ("linear", inputs, outputs):
                layers.append(sg.nn.Linear(inputs, outputs, dtype=network.dtype))
                layers[-1].weight.assign(arrays[0])
                layers[-1].bias.assign(arrays[1])
            case ("relu",):
                layers.append(sg.nn.ReLU())
            case ("layer norm", features):
                layers.append(sg.nn.LayerNorm(features, dtype=network.dtype))
            case ("dropout", p):
                layers.append(sg.nn.Dropout(p, key=0))
            case ("embedding", count, features):
                layers += [sg.nn.Embedding(count, features, dtype=network.dtype), sg.nn.Flatten()]
                layers[-2].weight.assign(arrays[0])
    return sg.nn.Sequential(*layers)


def loss_of(network: Network, model: Any) -> Callable[[Any, Any], Any]:
    """The forward pass: (X, Y) -> loss."""
    import stepgrad as sg

    if network.loss == "mse":
        return lambda x, y: sg.losses.mse(model(x), y)
    return lambda x, y: sg.losses.cross_entropy(model(x), y)


def training_step(network: Network, weights: list[list[Array]]) -> Callable[[Any, Any], Any]:
    """Forward pass, backward pass and update: (X, Y) -> loss."""
    import stepgrad as sg

    model = module(network, weights)
    parameters, loss_function = model.parameters(), loss_of(network, model)
    optimizer = sg.optim.Adam(parameters, lr=network.learning_rate)

    def step(x: Any, y: Any) -> Any:
        loss = loss_function(x, y)
        optimizer.step(sg.backward(loss, parameters))
        return loss

    return step


def in_turn(step: Callable[[Any, Any], Any], batches: tuple[Array, Array]) -> Work:
    """One step a call, with one batch after the other."""
    import stepgrad as sg

    pairs = cycle([(sg.tensor(x), sg.tensor(y)) for x, y in zip(*batches, strict=True)])
    return lambda: step(*next(pairs)), lambda loss: [loss.item()]


def eager(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    return in_turn(training_step(network, weights), batches)


def compiled(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    import stepgrad as sg

    return in_turn(sg.compile(training_step(network, weights), threads=threads, denormals="flush"), batches)


def scan(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """All batches in one call, without returning to Python in between."""
    import stepgrad as sg

    step = sg.compile(training_step(network, weights), threads=threads, denormals="flush")
    X, Y = (sg.tensor(array) for array in batches)
    return lambda: step.scan(X, Y), lambda losses: losses.tolist()


def forward(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """The forward pass alone; the weights stay as they are."""
    import stepgrad as sg

    return in_turn(sg.compile(loss_of(network, module(network, weights)), threads=threads, denormals="flush"), batches)


def fit(network: Network, weights: list[list[Array]], batches: tuple[Array, Array], threads: int) -> Work:
    """The digits, fitted whole: each call trains anew, and returns the last epoch's loss."""
    import stepgrad as sg

    def run() -> float:
        model = module(network, weights)
        optimizer = sg.optim.Adam(model.parameters(), lr=network.learning_rate)
        history = sg.fit(
            model,
            sg.losses.cross_entropy,
            optimizer,
            batches,
            epochs=network.epochs,
            batch_size=network.batch,
            metrics={},
            progress=False,
        )
        return history.loss[-1]

    return run, lambda loss: [loss]
