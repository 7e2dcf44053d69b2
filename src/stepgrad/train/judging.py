"""How good a network is: its loss and metrics, over rows it is trained on and rows held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stepgrad.nn import Module
from stepgrad.tape.leaves import tensor
from stepgrad.tape.recording import no_grad
from stepgrad.tensor import Tensor
from stepgrad.train import arrays
from stepgrad.train.arrays import BATCH, Array, Pair
from stepgrad.train.compiled import CanNotCompile, Choice, Paced

Loss = Callable[[Tensor, Any], Tensor]
Metric = Callable[[Array, Array], float]


def accuracy(outputs: Array, targets: Array) -> float:
    """The fraction of rows in which the class with the largest output is the right one."""
    return float(np.mean(_right(outputs, targets)))


def _right(outputs: Array, targets: Array) -> Array:
    return outputs.argmax(axis=1) == targets


class Judged:
    """Metrics over rows that come bit by bit.

    The accuracy is counted as they come. Other metrics are functions of all rows, so for those the
    outputs are kept, once.

    Args:
        metrics: name -> function.
        rows: at most so many will come.
    """

    def __init__(self, metrics: Mapping[str, Metric], rows: int) -> None:
        self._metrics, self._rows = metrics, rows
        self._right = self._counted = self._kept = 0
        self._counts = accuracy in metrics.values()
        self._keeps = any(metric is not accuracy for metric in metrics.values())
        self._whole: tuple[Array, Array] | None = None

    def add(self, outputs: Array, targets: Array) -> None:
        """A few more rows."""
        if self._counts:
            right = _right(outputs, targets)
            self._right, self._counted = self._right + int(np.count_nonzero(right)), self._counted + right.size
        if self._keeps:
            if self._whole is None:
                parts = (outputs, targets)
                self._whole = tuple(np.empty((self._rows, *p.shape[1:]), p.dtype) for p in parts)  # type: ignore[assignment]
            begin, self._kept = self._kept, self._kept + len(outputs)
            for whole, part in zip(self._whole, (outputs, targets), strict=True):  # type: ignore[arg-type]
                whole[begin : self._kept] = part

    def result(self) -> dict[str, float]:
        """Name -> value, over all rows that came."""
        found = {}
        for name, metric in self._metrics.items():
            if metric is accuracy:
                found[name] = self._right / self._counted
            elif self._whole is not None:
                outputs, targets = self._whole
                found[name] = float(metric(outputs[: self._kept], targets[: self._kept]))
        return found


def evaluate(model: Module, loss: Loss, data: Pair) -> tuple[float, Array]:
    """The mean loss over all rows, and the outputs, without gradients."""
    outputs = arrays.predict(model, data.X)
    total = 0.0
    for i in range(0, len(outputs), BATCH):
        part = outputs[i : i + BATCH]
        total += float(loss(tensor(part), data.y[i : i + BATCH]).item()) * len(part)
    return total / len(outputs), outputs


class Validation:
    """Judges a network after each epoch by rows held back.

    Args:
        model, loss: the network, switched to use when it is judged, and its loss.
        data: the rows.
        metrics: name -> function.
        choice: whether this is compiled.
        size: of all parameters.
        epochs: how often it will be judged.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        data: Pair,
        metrics: Mapping[str, Metric],
        choice: Choice,
        size: int,
        epochs: int,
    ) -> None:
        self._model, self._loss, self._data, self._metrics, self._choice = model, loss, data, metrics, choice
        whole = len(data.X) // BATCH * BATCH
        self._parts = [
            tuple(a[:whole].reshape(-1, BATCH, *a.shape[1:]) for a in data),
            tuple(a[whole:][None] for a in data),
        ]
        self._programs = [Paced(self._judge), Paced(self._judge)]
        self._compile = choice(size, min(BATCH, len(data.X)), epochs * -(-len(data.X) // BATCH))

    def __call__(self) -> tuple[float, dict[str, float]]:
        """The mean loss over all rows, and the metrics."""
        if self._compile:
            try:
                return self._compiled()
            except CanNotCompile as problem:
                self._compile, can_not = False, problem
            result = self._in_python()
            self._choice.give_up("validation runs", can_not)
            return result
        return self._in_python()

    def _in_python(self) -> tuple[float, dict[str, float]]:
        value, outputs = evaluate(self._model, self._loss, self._data)
        return value, {name: float(metric(outputs, self._data.y)) for name, metric in self._metrics.items()}

    def _compiled(self) -> tuple[float, dict[str, float]]:
        rows = len(self._data.X)
        judged, total = Judged(self._metrics, rows), 0.0
        for program, (X, y) in zip(self._programs, self._parts, strict=True):
            while X.size:
                (losses, outputs), done = program(X, y)
                total += float(losses.numpy().sum(dtype=np.float64)) * X.shape[1]
                if outputs is not None:
                    judged.add(rows_of(outputs), y[:done].reshape(-1, *y.shape[2:]))
                X, y = X[done:], y[done:]
        return total / rows, judged.result()

    def _judge(self, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
        """The compiled program: loss and outputs of some rows."""
        with no_grad():
            outputs = self._model(x)
            return self._loss(outputs, y), outputs if self._metrics else None


def rows_of(outputs: Tensor) -> Array:
    """The outputs of several steps, shape (steps, rows, …), row by row."""
    array = np.asarray(outputs.numpy())
    return array.reshape(-1, *array.shape[2:])
