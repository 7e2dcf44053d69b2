"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.errors import ArgumentError, TrainingError
from stepgrad.nn import Module
from stepgrad.tape.leaves import tensor
from stepgrad.tensor import Tensor
from stepgrad.train import arrays
from stepgrad.train.arrays import Array, Pair
from stepgrad.train.history import Epoch, History
from stepgrad.train.progress import Display, display
from stepgrad.transforms import backward

if TYPE_CHECKING:
    from rich.console import Console

Metric = Callable[[Array, Array], float]


class StopTraining(Exception):  # noqa: N818 - it is not an error
    """Raised by a callback to end the training run early; the best weights are kept."""


@dataclass(frozen=True)
class Step:
    """What a callback is told after each step.

    Attributes:
        step: counted from 1 over the whole run.
        epoch: counted from 1.
        loss: of this step's batch, before the update.
        grads: the gradients of the parameters, by path.
    """

    step: int
    epoch: int
    loss: float
    grads: Mapping[str, Tensor]


Callback = Callable[[Step], Any]


def fit(
    model: Module,
    loss: Callable[[Tensor, Any], Tensor],
    optimizer: Any,
    data: tuple[Any, Any],
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Any, Any] | float | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | Console | None = None,
) -> History:
    """Trains a network, and leaves it with the weights of its best epoch.

    The best epoch is the one with the least validation loss; without validation data, with the
    least training loss. Ctrl-C ends the run early: the best weights are kept then, too.

    Args:
        model: called with a batch of inputs; switched to training and, at the end, to use.
        loss: (outputs, targets) -> tensor of shape (), such as `sg.losses.cross_entropy`.
        optimizer: its `step` is called with the gradients of `model.parameters()`.
        data: (X, y), one row per example. Numbers are converted to the dtype of the parameters;
            integers stay integers where they are class labels or indices.
        epochs: how often every row is used.
        batch_size: rows per step; the last step of an epoch takes what is left.
        validation: (X, y), or the fraction of the rows to hold back; None: no validation.
        seed: decides the order of the rows, and which are held back.
        metrics: name -> function (outputs, targets) -> float on arrays; by default the accuracy
            where targets are class labels.
        callbacks: called after each step with a `Step`; one that returns False, or raises
            `StopTraining`, ends the run.
        progress: False shows nothing; by default a bar in a terminal, and lines elsewhere.

    Returns:
        The history, one record per epoch.

    Raises:
        ShapeError, DataError, ArgumentError: the data do not fit each other or the network, or
            hold NaN; nothing was changed.
        TrainingError: the loss became NaN or infinite; the model has the best weights until then.

    Example:
        >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> model = sg.nn.Linear(1, 1)
        >>> optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
        >>> history = sg.fit(model, sg.losses.mse, optimizer, (X, 2 * X + 1), epochs=30, progress=False)
        >>> history.loss[-1] < 1e-3
        True
    """
    epochs, batch_size = _at_least_one("epochs", epochs), _at_least_one("batch_size", batch_size)
    _check_kind("model", model, isinstance(model, Module), "a module, for example sg.nn.Linear(2, 1)")
    _check_kind("loss", loss, callable(loss), "a function of outputs and targets, for example sg.losses.mse")
    training, held_back = _prepare(model, loss, data, validation, seed)
    can_step = callable(getattr(optimizer, "step", None))
    _check_kind("optimizer", optimizer, can_step, "for example sg.optim.Adam(model.parameters())")
    if metrics is None:
        metrics = {"accuracy": accuracy} if training.y.dtype.kind == "i" else {}
    run = _Run(model, loss, optimizer, dict(metrics), tuple(callbacks), training, batch_size, seed)
    history, best = History(), _Best(model)
    try:
        with display(progress, epochs, run.steps_per_epoch) as shown:
            for epoch in range(1, epochs + 1):
                record = run.epoch(epoch, held_back, shown)
                history.epochs.append(record)
                shown.epoch(record)
                best.offer(record)
                if run.stopped:
                    history.stopped = True
                    break
    except KeyboardInterrupt:
        history.interrupted = True
    except TrainingError:
        best.weights = best.weights or best.initial
        raise
    finally:
        best.restore()
        model.eval()
    return history


def accuracy(outputs: Array, targets: Array) -> float:
    """The fraction of rows in which the class with the largest output is the right one."""
    return float(np.mean(outputs.argmax(axis=1) == targets))


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        model: Module,
        loss: Callable[[Tensor, Any], Tensor],
        optimizer: Any,
        metrics: dict[str, Metric],
        callbacks: tuple[Callback, ...],
        training: Pair,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics, self.callbacks = metrics, callbacks
        self.training, self.batch_size, self.seed = training, batch_size, seed
        self.parameters = model.parameters()
        self.steps_per_epoch = -(-len(training.X) // batch_size)
        self.step = 0
        self.stopped = False

    def epoch(self, epoch: int, held_back: Pair | None, shown: Display) -> Epoch:
        """Every batch once, in an order of the epoch's own, and then the validation rows."""
        begin = time.perf_counter()
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.training.X))
        total, used = 0.0, 0
        seen: list[tuple[Array, Array]] = []
        self.model.train()
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            x, y = self.training.X[rows], self.training.y[rows]
            x.setflags(write=False)  # nobody else has it, so the tape need not copy it
            y.setflags(write=False)
            loss, outputs = self._step(epoch, x, y)
            total, used = total + loss * len(rows), used + len(rows)
            if self.metrics:
                seen.append((outputs, y))
            shown.step(epoch, self.step, loss)
            if self.stopped:
                break
        judged = self._judge(seen)
        self.model.eval()
        validation_loss, validation_metrics = self._validate(held_back) if held_back else (None, {})
        return Epoch(epoch, total / used, judged, validation_loss, validation_metrics, time.perf_counter() - begin)

    def _step(self, epoch: int, x: Array, y: Array) -> tuple[float, Array]:
        """One forward pass, backward pass and update."""
        self.step += 1
        outputs = self.model(x)
        loss = self.loss(outputs, y)
        value = float(loss.item())
        if not math.isfinite(value):
            raise self._diverged(value, epoch)
        grads = backward(loss, self.parameters)
        self.optimizer.step(grads)
        told = Step(self.step, epoch, value, grads) if self.callbacks else None
        for callback in self.callbacks:
            try:
                self.stopped |= callback(told) is False  # type: ignore[arg-type]
            except StopTraining:
                self.stopped = True
        return value, outputs.numpy() if self.metrics else x

    def _judge(self, seen: list[tuple[Array, Array]]) -> dict[str, float]:
        if not seen:
            return {}
        outputs, targets = (np.concatenate(parts) for parts in zip(*seen, strict=True))
        return {name: float(metric(outputs, targets)) for name, metric in self.metrics.items()}

    def _validate(self, data: Pair) -> tuple[float, dict[str, float]]:
        value, outputs = evaluate(self.model, self.loss, data)
        return value, {name: float(metric(outputs, data.y)) for name, metric in self.metrics.items()}

    def _diverged(self, value: float, epoch: int) -> TrainingError:
        step = self.step - (epoch - 1) * self.steps_per_epoch
        rate = getattr(self.optimizer, "lr", None)
        shown = "" if rate is None else f" (now {float(rate):g})"
        return TrainingError(
            f"the loss became {value} in epoch {epoch}, step {step} of {self.steps_per_epoch}",
            "the steps were so large that the weights grew beyond what floating-point numbers hold, or the loss is not "
            "defined there (a logarithm of 0, say); the model has its best weights again, or those it began with",
            f"divide the learning rate{shown} by 10; standardise the inputs; to find the place, call "
            "sg.health or sg.trace on this batch",
        )


def evaluate(model: Module, loss: Callable[[Tensor, Any], Tensor], data: Pair) -> tuple[float, Array]:
    """The mean loss over all rows, and the outputs, without gradients."""
    outputs = arrays.predict(model, data.X)
    total = 0.0
    for i in range(0, len(outputs), arrays.BATCH):
        part = outputs[i : i + arrays.BATCH]
        total += float(loss(tensor(part), data.y[i : i + arrays.BATCH]).item()) * len(part)
    return total / len(outputs), outputs


class _Best:
    """The weights of the best epoch so far, set aside."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.judged_by = math.inf
        self.initial = model.state_dict()
        self.weights: dict[str, Array] | None = None

    def offer(self, epoch: Epoch) -> None:
        """Sets the weights aside if this epoch is better than all before."""
        if self.weights is None or epoch.judged_by < self.judged_by:
            self.judged_by, self.weights = epoch.judged_by, self.model.state_dict()

    def restore(self) -> None:
        """Puts them back; before the end of the first epoch there are none, and the model keeps what it has."""
        if self.weights is not None:
            self.model.load_state_dict(self.weights)


def _prepare(
    model: Module, loss: Callable[[Tensor, Any], Tensor], data: Any, validation: Any, seed: int
) -> tuple[Pair, Pair | None]:
    """Checks everything before the first step, and converts the data."""
    parameters = model.parameters()
    if not parameters:
        raise ArgumentError(
            f"the model, a {type(model).__name__}, has no parameters",
            "training changes parameters, and there is nothing to change",
            "add a layer that has some, such as sg.nn.Linear(in, out)",
        )
    training = arrays.pair(data, "data")
    held_back = None
    if isinstance(validation, (int, float)):
        training, held_back = arrays.split(training, validation, seed)
    elif validation is not None:
        held_back = arrays.pair(validation, "validation")
        arrays.check_same_axes(training, held_back)
    model.eval()
    convert = arrays.converter(model, loss, training, next(iter(parameters.values())).dtype)
    return convert(training), convert(held_back) if held_back else None


def _check_kind(name: str, value: Any, fits: bool, instead: str) -> None:
    """Raises ArgumentError if one of the first three arguments of `fit` is something else."""
    if not fits:
        raise ArgumentError(
            f"fit was given {value!r:.60} as its {name}",
            "its arguments are fit(model, loss, optimizer, (X, y), epochs=…), in this order",
            f"pass {instead}",
        )


def _at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(
            f"{name}={value!r} was asked for", "it is counted in whole numbers from 1", f"{name}=10, say"
        )
    return int(value)
