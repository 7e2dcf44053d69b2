"""What the rules of other tools read: whole weights, gradients and activations of a training, at many steps.

They were written for frameworks that save tensors, so they get tensors: more of them, and more often, than
their tools save by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health.datasets import Array, Data
from benchmarks.health.networks import ACTIVATIONS

PROBE = 128
"""Training rows on which activations are looked at."""

_FIRST, _LATER = 10, 40
"""Each of the first steps is kept, and about so many of the later ones."""


@dataclass(frozen=True)
class Layer:
    """An activation function at work on the probe rows.

    Attributes:
        kind: "relu", "tanh", …
        inputs, outputs: of shape (rows, units).
    """

    kind: str
    inputs: Array
    outputs: Array


@dataclass(frozen=True)
class Snapshot:
    """The network after a step.

    Attributes:
        step: counted from 1.
        learning_rate: of the step.
        before, after: the parameters before and after its update, by name.
        gradients: of the step.
        layers: the activation functions, in the order in which they run.
        outputs: of the network on the probe rows.
    """

    step: int
    learning_rate: float
    before: Mapping[str, Array]
    after: Mapping[str, Array]
    gradients: Mapping[str, Array]
    layers: tuple[Layer, ...]
    outputs: Array


@dataclass(frozen=True)
class Course:
    """A training as other tools see it.

    Attributes:
        data: what it was trained with.
        task: "classes" or "numbers".
        last: kind of the module that makes the outputs: "linear", "relu", "softmax", …
        loss: name of the loss function.
        weight_decay: of the optimizer, 0 without.
        initial: the parameters before the first step.
        losses: by step.
        epochs: one for each: "loss", "score", "recall" and the same of rows held back, "held loss", ….
        snapshots: in order.
        predictions: of the trained network for the training rows: labels, or outputs where targets are numbers.
    """

    data: Data
    task: str
    last: str
    loss: str
    weight_decay: float
    initial: Mapping[str, Array]
    losses: tuple[float, ...]
    epochs: Sequence[Mapping[str, float]]
    snapshots: tuple[Snapshot, ...]
    predictions: Array

    def kernels(self) -> list[str]:
        """The names of weights, in the order of the layers, without biases."""
        return [name for name, value in self.initial.items() if value.ndim > 1]


class Watch:
    """Looks on while a network is trained."""

    def __init__(self, model: sg.nn.Module, data: Data, optimizer: Any, loss: Any, steps: int) -> None:
        self._model, self._data, self._optimizer, self._loss = model, data, optimizer, loss
        self._every = max(1, steps // _LATER)
        self._initial = self._now = self._values()
        self._losses: list[float] = []
        self._snapshots: list[Snapshot] = []

    def step(self, loss: float, gradients: Mapping[str, Array]) -> None:
        """Is told of each step after its update."""
        self._losses.append(loss)
        number = len(self._losses)
        before, self._now = self._now, self._values()
        if number <= _FIRST or number % self._every == 0:
            layers, outputs = self._look(self._data.X[:PROBE])
            rate = float(getattr(self._optimizer, "lr", 0.0))
            kept = {name: np.array(g) for name, g in gradients.items()}
            self._snapshots.append(Snapshot(number, rate, before, self._now, kept, layers, outputs))

    def broke(self) -> None:
        """A loss was not finite; `sg.fit` tells callbacks of good steps only."""
        if not self._losses or np.isfinite(self._losses[-1]):
            self._losses.append(float("nan"))

    def course(self, epochs: Sequence[Mapping[str, float]], score: str) -> Course:
        """All that was seen."""
        outputs = self._look(self._data.X)[1]
        classes = self._data.classes is not None
        return Course(
            self._data,
            "numbers" if score == "r2" else "classes",
            _kind(_last(self._model)),
            getattr(self._loss, "__name__", ""),
            float(getattr(self._optimizer, "weight_decay", 0.0)),
            self._initial,
            tuple(self._losses),
            tuple(epochs),
            tuple(self._snapshots),
            outputs.argmax(axis=1) if classes and outputs.shape[1] > 1 else outputs,
        )

    def _values(self) -> dict[str, Array]:
        return {name: np.array(p.numpy()) for name, p in self._model.parameters().items()}

    def _look(self, X: Array) -> tuple[tuple[Layer, ...], Array]:
        """Runs the network in use, and sees what goes into its activation functions and comes out."""
        seen: list[Layer] = []
        training, forward = self._model.training, sg.nn.Activation.forward

        def look(module: sg.nn.Activation, x: Any) -> Any:
            out = forward(module, x)
            seen.append(Layer(_kind(module), np.asarray(x.numpy()), np.asarray(out.numpy())))
            return out

        try:
            sg.nn.Activation.forward = look  # type: ignore[method-assign]
            self._model.eval()
            with sg.no_grad(), np.errstate(all="ignore"):
                outputs = np.asarray(self._model(X).numpy())
        finally:
            sg.nn.Activation.forward = forward  # type: ignore[method-assign]
            self._model.train(training)
        return tuple(seen), outputs


def _last(module: sg.nn.Module) -> sg.nn.Module:
    while isinstance(module, sg.nn.Sequential):
        module = module[len(module) - 1]
    return module


def _kind(module: sg.nn.Module) -> str:
    """How papers call a module: "relu", "linear", …"""
    names = {kind: name for name, kind in ACTIVATIONS.items()}
    return names.get(type(module), type(module).__name__.lower())
