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
from stepgrad.optim import Optimizer
from stepgrad.tensor import Tensor
from stepgrad.train import arrays
from stepgrad.train.arrays import Array, Pair
from stepgrad.train.compiled import Choice
from stepgrad.train.history import Epoch, History
from stepgrad.train.judging import Judged, Loss, Metric, Validation, accuracy, evaluate
from stepgrad.train.observers import Course, Observer, Observers
from stepgrad.train.progress import Display, display
from stepgrad.train.steps import Done, Steps

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Callback", "Metric", "Step", "StopTraining", "accuracy", "evaluate", "fit"]


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
    loss: Loss,
    optimizer: Any,
    data: tuple[Any, Any],
    *,
    epochs: int = 10,
    batch_size: int = 32,
    validation: tuple[Any, Any] | float | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Iterable[Callback | Observer] = (),
    progress: bool | Console | None = None,
    compiled: bool | None = None,
) -> History:
    """Trains a network, and leaves it with the weights of its best epoch.

    The best epoch is the one with the least validation loss; without validation data, with the
    least training loss. Ctrl-C ends the run early: the best weights are kept then, too.

    Long runs are compiled: model, loss and optimizer are recorded twice, without values, and the
    steps of a batch size become one program that takes its rows out of the data and runs many steps
    without Python. It computes what Python would, up to rounding. Code in the model or loss that has
    an effect on Python objects, such as counting calls, has it when it is recorded, and not at each
    step. Where recording shows that this matters, or that a value is asked for, steps are done in
    Python, and a notice (a warning, if progress=False) names the line. With callbacks, which may
    change anything, steps are run one by one: attributes of modules and of the optimizer are looked
    at before each, and the whole step is recorded again at the beginning of each epoch.

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
            `StopTraining`, ends the run. `sg.health(model, loss, optimizer)` is one that only looks, at a few
            steps, and so does not slow the others down.
        progress: False shows nothing; by default a bar in a terminal, and lines elsewhere.
        compiled: True compiles where that is possible, False never. By default, what is compiled is what
            is done so often that it pays, judged by the size of the network and the number of steps
            (about 1,000 of a small network); not with an optimizer that is no `sg.optim.Optimizer`.

    Returns:
        The history, one record per epoch.

    Raises:
        ShapeError, DataError, ArgumentError: the data do not fit each other or the network, or
            hold NaN; nothing was changed.
        TrainingError: the loss became NaN or infinite; the model has the best weights until then, and
            the optimizer its moments and number of steps from before the run.

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
    wanted = _as_wanted(compiled, optimizer)
    if metrics is None:
        metrics = {"accuracy": accuracy} if training.y.dtype.kind == "i" else {}
    callbacks = tuple(callbacks)
    observers = Observers([c for c in callbacks if isinstance(c, Observer)], training)
    told = tuple([c for c in callbacks if not isinstance(c, Observer)])
    settings = _Settings(epochs, batch_size, seed, dict(metrics), told, observers)
    history, best = History(), _Best(model, optimizer)
    try:
        with display(progress, epochs, -(-len(training.X) // batch_size)) as shown:
            choice = Choice(wanted, shown.notice)
            run = _Run(model, loss, optimizer, training, held_back, settings, choice)
            for epoch in range(1, epochs + 1):
                record = run.epoch(epoch, shown)
                observers.end_epoch(record, run.step)
                history.epochs.append(record)
                shown.epoch(record)
                best.offer(record)
                if run.stopped:
                    history.stopped = True
                    break
    except KeyboardInterrupt:
        history.interrupted = True
    except TrainingError:
        best.diverged()
        raise
    finally:
        best.restore()
        model.eval()
        observers.end()
    return history


@dataclass(frozen=True)
class _Settings:
    """The arguments of `fit` that a run needs, checked."""

    epochs: int
    batch_size: int
    seed: int
    metrics: dict[str, Metric]
    callbacks: tuple[Callback, ...]
    observers: Observers


class _Run:
    """What stays the same from step to step."""

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Any,
        data: Pair,
        held_back: Pair | None,
        settings: _Settings,
        choice: Choice,
    ) -> None:
        self.model, self.optimizer, self.data, self.settings = model, optimizer, data, settings
        self.parameters = model.parameters()
        rows, batch, epochs = len(data.X), settings.batch_size, settings.epochs
        self.steps_per_epoch = -(-rows // batch)
        size = sum(p.size for p in model.parameters().values())
        sizes = {batch: epochs * (rows // batch), rows % batch: epochs}
        self.steps = Steps(
            model,
            loss,
            optimizer,
            data,
            outputs=bool(settings.metrics),
            grads=bool(settings.callbacks),
            choice=choice,
            compiled=[n for n, steps in sizes.items() if n and steps and choice(size, n, steps)],
        )
        course = Course(model, loss, optimizer, data, epochs, batch, self.steps_per_epoch, self.steps.compiled)
        settings.observers.begin(course)
        self.validation = (
            Validation(model, loss, held_back, settings.metrics, choice, size, epochs) if held_back else None
        )
        self.step = 0
        self.stopped = False

    def epoch(self, epoch: int, shown: Display) -> Epoch:
        """Every batch once, in an order of the epoch's own, and then the validation rows."""
        begin, rows, batch = time.perf_counter(), len(self.data.X), self.settings.batch_size
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(rows)
        whole = rows // batch * batch
        judged, total, used = Judged(self.settings.metrics, rows), 0.0, 0
        self.model.train()
        self.steps.begin_epoch()
        for batches in (order[:whole].reshape(-1, batch), order[whole:].reshape(1, -1)):
            while batches.size and not self.stopped:
                done = self._take(epoch, batches)
                taken = batches[: len(done.losses)]
                total += self._after(epoch, done, taken) * batches.shape[1]
                used += taken.size
                if done.outputs is not None:
                    judged.add(done.outputs, self.data.y[taken.reshape(-1)])
                shown.step(epoch, self.step, float(done.losses[-1]))
                batches = batches[len(taken) :]
        of_training = judged.result()
        validation_loss, of_validation = self._validate()
        seconds = time.perf_counter() - begin
        return Epoch(epoch, total / used, of_training, validation_loss, of_validation, seconds)

    def _take(self, epoch: int, batches: Array) -> Done:
        """Does at least the first step of these."""
        observers = self.settings.observers
        try:
            return self.steps.take(observers.before(self.step + 1, epoch, batches))
        except Exception as error:
            observers.failed(self.step + 1, epoch, None, error)
            raise

    def _after(self, epoch: int, done: Done, taken: Array) -> float:
        """Counts steps that were done, tells callbacks of them, and returns the sum of their losses."""
        self.settings.observers.done(done.losses, taken)
        total = float(done.losses.sum(dtype=np.float64))
        if not math.isfinite(total) and not np.isfinite(done.losses).all():
            first = int(np.argmin(np.isfinite(done.losses)))
            self.step += first + 1
            value = float(done.losses[first])
            error = self._diverged(value, epoch)
            self.settings.observers.failed(self.step, epoch, value, error)
            raise error
        self.step += len(done.losses)
        if self.settings.callbacks:
            told = Step(self.step, epoch, float(done.losses[0]), done.grads)
            for callback in self.settings.callbacks:
                try:
                    self.stopped |= callback(told) is False
                except StopTraining:
                    self.stopped = True
        return total

    def _validate(self) -> tuple[float | None, dict[str, float]]:
        if self.validation is None:
            return None, {}
        self.model.eval()
        return self.validation()

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


class _Best:
    """The weights of the best epoch so far, set aside; and for the worst case what there was at the beginning."""

    def __init__(self, model: Module, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer
        self.judged_by = math.inf
        self.initial = model.state_dict()
        self.moments = optimizer.state_dict() if isinstance(optimizer, Optimizer) else None
        self.weights: dict[str, Array] | None = None

    def offer(self, epoch: Epoch) -> None:
        """Sets the weights aside if this epoch is better than all before."""
        if self.weights is None or epoch.judged_by < self.judged_by:
            self.judged_by, self.weights = epoch.judged_by, self.model.state_dict()

    def diverged(self) -> None:
        """The optimizer's moments are NaN or huge now, and would ruin the next run with it: puts the old ones back."""
        self.weights = self.weights or self.initial
        if self.moments is not None:
            self.optimizer.load_state_dict({**self.moments, "lr": self.optimizer.state_dict()["lr"]})

    def restore(self) -> None:
        """Puts them back; before the end of the first epoch there are none, and the model keeps what it has."""
        if self.weights is not None:
            self.model.load_state_dict(self.weights)


def _prepare(model: Module, loss: Loss, data: Any, validation: Any, seed: int) -> tuple[Pair, Pair | None]:
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


def _as_wanted(compiled: Any, optimizer: Any) -> bool | None:
    """Whether to compile; None where it pays."""
    if compiled is None:
        # Another optimizer may well count steps in Python, and to record it would count two too many.
        return None if isinstance(optimizer, Optimizer) else False
    if not isinstance(compiled, bool):
        raise ArgumentError(
            f"compiled={compiled!r} was asked for",
            "it is True, False, or None, which compiles where that pays",
            "leave it out, or write compiled=False",
        )
    return compiled


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
