"""The networks: chains of layers with the initial values, norms and activations that a training asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health.datasets import Data

Builder = Callable[[Data, int], sg.nn.Module]
"""(data, seed) -> a network for these inputs and targets."""

ACTIVATIONS: dict[str, type[sg.nn.Module]] = {
    "relu": sg.nn.ReLU,
    "tanh": sg.nn.Tanh,
    "sigmoid": sg.nn.Sigmoid,
    "leaky relu": sg.nn.LeakyReLU,
    "elu": sg.nn.ELU,
    "gelu": sg.nn.GELU,
    "silu": sg.nn.SiLU,
    "selu": sg.nn.SELU,
    "softplus": sg.nn.Softplus,
    "hardtanh": sg.nn.Hardtanh,
}


class BatchNorm(sg.nn.Module):
    """Mean 0 and variance 1 of each feature over the batch, then learned ones (Ioffe and Szegedy 2015)."""

    def __init__(self, features: int) -> None:
        self.weight = sg.Parameter(np.ones(features, np.float32))
        self.bias = sg.Parameter(np.zeros(features, np.float32))
        self.mean = sg.State(np.zeros(features, np.float32))
        self.variance = sg.State(np.ones(features, np.float32))

    def forward(self, x: Any) -> Any:
        mean, variance = self.mean, self.variance
        if self.training:
            mean = sg.mean(x, axis=0)
            variance = sg.mean(sg.square(x - mean), axis=0)
            self.mean.assign(sg.stop_gradient(0.9 * self.mean + 0.1 * mean))
            self.variance.assign(sg.stop_gradient(0.9 * self.variance + 0.1 * variance))
        return (x - mean) / sg.sqrt(variance + 1e-5) * self.weight + self.bias


class Residual(sg.nn.Module):
    """x + scale · layers(x)."""

    def __init__(self, layers: sg.nn.Module, scale: float = 1.0) -> None:
        self.layers, self.scale = layers, scale

    def forward(self, x: Any) -> Any:
        return x + self.scale * self.layers(x)


class Repeated(sg.nn.Module):
    """The same layer and activation again and again, as in a recurrent network."""

    def __init__(self, layer: sg.nn.Module, activation: sg.nn.Module, times: int) -> None:
        self.layer, self.activation, self.times = layer, activation, times

    def forward(self, x: Any) -> Any:
        for _ in range(self.times):
            x = self.activation(self.layer(x))
        return x


class Apply(sg.nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class WithSpare(sg.nn.Module):
    """A network that holds a layer which it never calls."""

    def __init__(self, layers: sg.nn.Module, spare: sg.nn.Module) -> None:
        self.layers, self.spare = layers, spare

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def weights(scheme: str | float) -> Any:
    """Initial values by name ("he", "xavier", "lecun", "default"), or normal with this many times He's deviation."""
    named = {
        "he": sg.nn.initialise.kaiming_normal,
        "xavier": sg.nn.initialise.xavier_normal,
        "lecun": sg.nn.initialise.lecun_normal,
        "default": None,
    }
    if isinstance(scheme, str):
        return named[scheme]
    return lambda key, shape, dtype: scheme * sg.nn.initialise.kaiming_normal(key, shape, dtype)


def same(value: float) -> Any:
    """Initial values that are all equal."""
    return lambda key, shape, dtype: np.full(shape, value, dtype)


def chain(
    *hidden: int,
    activation: str = "relu",
    init: Any = "he",
    bias: Any = 0.0,
    norm: str = "",
    dropout: float = 0.0,
    residual: float = 0.0,
    last: tuple[Any, ...] = (),
    outputs: int | None = None,
    last_init: Any = "xavier",
    last_bias: float = 0.0,
) -> Builder:
    """Linear layers with activations between them.

    Args:
        hidden: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        init: of the hidden weights: see `weights`; or a function (key, shape, dtype) -> array.
        bias: of hidden units: a number for all, or a function (key, shape, dtype) -> array.
        norm: "batch", "layer" or "".
        dropout: after each activation.
        residual: if not 0, hidden layers of equal width are added to their input, times this.
        last: modules after the last layer.
        outputs: of the last layer; by default as many as the data have.
        last_init, last_bias: of the last layer.
    """

    def values(scheme: Any) -> Any:
        return scheme if callable(scheme) else weights(scheme)

    def biases(start: Any) -> Any:
        return start if callable(start) else same(start)

    def build(data: Data, seed: int) -> sg.nn.Module:
        rng = np.random.default_rng([seed, 5])
        layers: list[Any] = []
        width = data.features
        for units in hidden:
            block: list[Any] = [sg.nn.Linear(width, units, key=rng, weight_init=values(init), bias_init=biases(bias))]
            if norm:
                block.append(BatchNorm(units) if norm == "batch" else sg.nn.LayerNorm(units))
            block.append(ACTIVATIONS[activation]())
            if dropout:
                block.append(sg.nn.Dropout(dropout, key=int(rng.integers(2**31))))
            if residual and units == width:
                layers.append(Residual(sg.nn.Sequential(*block), residual))
            else:
                layers += block
            width = units
        made = outputs or data.outputs
        layers.append(sg.nn.Linear(width, made, key=rng, weight_init=values(last_init), bias_init=biases(last_bias)))
        return sg.nn.Sequential(*layers, *(part() for part in last))

    return build


def recurrent(width: int, times: int, *, activation: str, radius: float) -> Builder:
    """One layer applied again and again, its weight orthogonal times `radius`."""

    def build(data: Data, seed: int) -> sg.nn.Module:
        rng = np.random.default_rng([seed, 5])
        first = sg.nn.Linear(data.features, width, key=rng)
        layer = sg.nn.Linear(
            width,
            width,
            key=rng,
            bias_init=sg.nn.initialise.zeros,
            weight_init=lambda key, shape, dtype: sg.nn.initialise.orthogonal(key, shape, dtype, gain=radius),
        )
        again = Repeated(layer, ACTIVATIONS[activation](), times)
        return sg.nn.Sequential(first, again, sg.nn.Linear(width, data.outputs, key=rng))

    return build


def with_spare(body: Builder, units: int = 16) -> Builder:
    """A network and a layer that it never calls."""
    return lambda data, seed: WithSpare(body(data, seed), sg.nn.Linear(units, units, key=seed))


def between(first: Builder, function: Callable[[Any], Any], second: Callable[[int], Builder]) -> Builder:
    """Two networks with a function between them; the first one's outputs are the second one's inputs."""

    def build(data: Data, seed: int) -> sg.nn.Module:
        head = first(data, seed)
        width = head(data.X[:1]).shape[-1]
        return sg.nn.Sequential(head, Apply(function), second(width)(data, seed + 1))

    return build


def chain_of(width: int, *hidden: int, **settings: Any) -> Builder:
    """A chain for inputs of this width, whatever the data's is."""
    body = chain(*hidden, **settings)

    class _Wide:
        def __init__(self, data: Data) -> None:
            self.features, self.outputs = width, data.outputs

    return lambda data, seed: body(_Wide(data), seed)  # type: ignore[arg-type]
