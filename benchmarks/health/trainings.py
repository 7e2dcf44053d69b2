"""A training of the benchmark: what it is made of, how it is run, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health.datasets import Array, Data
from benchmarks.health.networks import Builder
from benchmarks.health.watched import Course, Watch
from stepgrad.errors import TrainingError
from stepgrad.train.fit import accuracy

HEALTHY = "healthy"

LOOKS = 30
"""At about so many steps `sg.health` looks."""


@dataclass(frozen=True)
class Training:
    """A training, healthy or with a fault planted.

    Attributes:
        fault: the name of the planted fault, or `HEALTHY`.
        network: a label for the network and how it is trained. With fault and data set it names the cell.
        data: the data set's name.
        seed: of data, initial values and order.
        prepare: makes the data.
        build: makes the network.
        loss: (outputs, targets) -> loss.
        optimizer: parameters -> optimizer.
        check: says whether the training is what it is meant to be: see `checks`.
        epochs, batch_size: how long, in which portions.
        score: how outputs are judged: see `SCORES`.
        by_hand: trained by a loop of its own instead of `sg.fit`.
        left_out: by hand, parameters that no gradient is asked for, because the loss does not depend on them, and that
            get zeros instead: `sg.fit` and `sg.backward` refuse those by name.
        sort: by hand, rows come in the order of their targets.
        clip: by hand, the norm that gradients are clipped to.
        schedule: by hand, (step, steps) -> factor of the learning rate.
        compiled: whether `sg.fit` compiles.
        penalty: times the sum of all squared parameters is added to the loss.
        also: other names that are right for this training as well, because its fault brings them along.
        why_hard: for a healthy one: what a simple rule may take for a fault.
    """

    fault: str
    network: str
    data: str
    seed: int
    prepare: Callable[[int], Data]
    build: Builder
    loss: Callable[[Any, Any], Any]
    optimizer: Callable[[Any], Any]
    check: Callable[[Outcome], Checked]
    epochs: int = 15
    batch_size: int = 32
    score: str = "accuracy"
    by_hand: bool = False
    left_out: tuple[str, ...] = ()
    sort: bool = False
    clip: float | None = None
    schedule: Callable[[int, int], float] | None = None
    compiled: bool = False
    penalty: float = 0.0
    also: tuple[str, ...] = ()
    why_hard: str = ""

    @property
    def cell(self) -> str:
        """What decides the half it belongs to: fault, network and data set, whatever the seed."""
        return f"{self.fault} | {self.network} | {self.data}"

    @property
    def name(self) -> str:
        return f"{self.cell} | {self.seed}"


@dataclass(frozen=True)
class Checked:
    """Whether a training is what it is meant to be.

    Attributes:
        ok: it is.
        text: what was found, with numbers.
    """

    ok: bool
    text: str


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        training: which.
        data: what it was trained with.
        model: with its last weights (by hand), or those of its best epoch (`sg.fit`).
        initial: the values of the parameters before the first step.
        score, training_score: of the last epochs (mean over up to three), on rows held back and training rows;
            NaN if no epoch was completed.
        recall: of the class that is recognised least, on rows held back, in the last epoch; NaN for numbers.
        losses, held_losses: by epoch.
        step_losses: by step.
        error: the message with which it ended early, or "".
        course: what the rules of other tools read.
        run: the recorded run that verdicts read, or None.
    """

    training: Training
    data: Data
    model: sg.nn.Module
    initial: Mapping[str, Array]
    score: float
    training_score: float
    recall: float
    losses: tuple[float, ...]
    held_losses: tuple[float, ...]
    step_losses: tuple[float, ...]
    error: str
    course: Course
    run: Any


# --- how outputs are judged


def _classes(outputs: Array, targets: Array) -> tuple[Array, Array]:
    return outputs.argmax(axis=1), targets


def _signs(outputs: Array, targets: Array) -> tuple[Array, Array]:
    return outputs[:, 0] > 0, targets[:, 0] > 0.5


def _halves(outputs: Array, targets: Array) -> tuple[Array, Array]:
    middle = (targets.min() + targets.max()) / 2
    return outputs[:, 0] > middle, targets[:, 0] > middle


_ANSWERS = {"accuracy": _classes, "signs": _signs, "halves": _halves}
SCORES = (*_ANSWERS, "r2")


def score_of(kind: str, outputs: Array, targets: Array) -> float:
    """Accuracy, or R² (not below -1)."""
    if kind == "r2":
        with np.errstate(all="ignore"):
            residual = float(((outputs - targets) ** 2).sum() / ((targets - targets.mean(axis=0)) ** 2).sum())
        return max(1 - residual, -1.0) if math.isfinite(residual) else -1.0
    found, right = _ANSWERS[kind](outputs, targets)
    return float(np.mean(found == right))


def recall_of(kind: str, outputs: Array, targets: Array) -> float:
    """Of the class that is recognised least."""
    if kind == "r2":
        return math.nan
    found, right = _ANSWERS[kind](outputs, targets)
    return float(min(np.mean(found[right == label] == label) for label in np.unique(right)))


# --- running


def run(training: Training, *, health: bool = True) -> Outcome:
    """Trains, with everything watched.

    Args:
        training: what.
        health: whether `sg.health` watches as well.
    """
    data = training.prepare(training.seed)
    model = training.build(data, training.seed)
    optimizer = training.optimizer(model.parameters())
    training = replace(training, loss=_with_penalty(training, model))
    steps = training.epochs * -(-len(data.X) // training.batch_size)
    watch = Watch(model, data, optimizer, training.loss, steps)
    initial = {name: np.array(p.numpy()) for name, p in model.parameters().items()}
    doctor = _doctor(training, model, optimizer, steps) if health else None
    train = _by_hand if training.by_hand else _by_fit
    record = _Record()
    try:
        with np.errstate(all="ignore"):
            train(training, data, model, optimizer, watch, doctor, record)
    except TrainingError as error:
        record.error = str(error)
        watch.broke()
    with np.errstate(all="ignore"):
        course = watch.course(record.epochs, training.score)
    last = record.epochs[-3:]

    def mean(name: str) -> float:
        return float(np.mean([epoch[name] for epoch in last])) if last else math.nan

    return Outcome(
        training,
        data,
        model,
        initial,
        mean("held score"),
        mean("score"),
        record.epochs[-1]["held recall"] if last else math.nan,
        tuple(epoch["loss"] for epoch in record.epochs),
        tuple(epoch["held loss"] for epoch in record.epochs),
        course.losses,
        record.error,
        course,
        None if doctor is None else doctor.run,
    )


@dataclass
class _Record:
    """Epoch by epoch: loss, score, held loss, held score, held recall; and the error that ended it."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    error: str = ""


def _with_penalty(training: Training, model: sg.nn.Module) -> Callable[[Any, Any], Any]:
    """The loss, with the squared parameters added to it if the training says so."""
    if not training.penalty:
        return training.loss
    parameters = list(model.parameters().values())

    def penalised(outputs: Any, targets: Any) -> Any:
        loss = training.loss(outputs, targets)
        for parameter in parameters:
            loss = loss + training.penalty * sg.sum(sg.square(parameter))
        return loss

    return penalised


def _doctor(training: Training, model: sg.nn.Module, optimizer: Any, steps: int) -> Any:
    """`sg.health`; at how many steps it looks does not depend on the machine's speed here."""
    norm = training.clip
    prepare = None if norm is None else lambda gradients: sg.optim.clip_by_norm(gradients, norm)
    every = max(1, steps // LOOKS)
    return sg.health(model, training.loss, optimizer, every=every, prepare=prepare, compiled=False)


def _by_fit(
    training: Training, data: Data, model: sg.nn.Module, optimizer: Any, watch: Watch, doctor: Any, record: _Record
) -> None:
    def after(step: Any) -> None:
        watch.step(step.loss, {name: g.numpy() for name, g in step.grads.items()})

    noted: list[dict[str, float]] = []

    def note(outputs: Array, targets: Array) -> float:
        """Called after each epoch for the training rows and then for those held back."""
        noted.append(_judged(training, outputs, targets))
        if len(noted) % 2 == 0:
            record.epochs.append(_epoch(*noted[-2:]))
        return noted[-1]["score"]

    metrics = {"accuracy": accuracy, "score": note} if training.score == "accuracy" else {"score": note}
    sg.fit(
        model,
        training.loss,
        optimizer,
        (data.X, data.y),
        epochs=training.epochs,
        batch_size=training.batch_size,
        validation=(data.X_held, data.y_held),
        seed=training.seed,
        metrics=metrics,
        callbacks=[after] if doctor is None else [doctor, after],
        progress=False,
        compiled=training.compiled,
    )


def _judged(training: Training, outputs: Array, targets: Array) -> dict[str, float]:
    with sg.no_grad():
        loss = float(training.loss(sg.tensor(outputs), targets).item())
    return {
        "loss": loss,
        "score": score_of(training.score, outputs, targets),
        "recall": recall_of(training.score, outputs, targets),
    }


def _epoch(trained: dict[str, float], held: dict[str, float]) -> dict[str, float]:
    return trained | {f"held {name}": value for name, value in held.items()}


def _by_hand(
    training: Training, data: Data, model: sg.nn.Module, optimizer: Any, watch: Watch, doctor: Any, record: _Record
) -> None:
    parameters = {name: p for name, p in model.parameters().items() if name not in training.left_out}
    trained_names = set(optimizer._names)
    rate, steps = optimizer.lr, training.epochs * -(-len(data.X) // training.batch_size)
    by_target = np.argsort(data.y if data.y.ndim == 1 else data.y[:, 0], kind="stable")
    rng = np.random.default_rng([training.seed, 3])
    nothing = {
        name: sg.tensor(np.zeros_like(p.numpy())) for name, p in model.parameters().items() if name not in parameters
    }
    taken = 0
    for epoch in range(1, training.epochs + 1):
        order = by_target if training.sort else rng.permutation(len(data.X))
        total = 0.0
        model.train()
        for begin in range(0, len(order), training.batch_size):
            rows = order[begin : begin + training.batch_size]
            x, y = data.X[rows], data.y[rows]
            if training.schedule is not None:
                optimizer.lr = rate * training.schedule(taken, steps)
            if doctor is not None:
                doctor.before(x, y)
            loss = training.loss(model(x), y)
            gradients = sg.backward(loss, parameters) | nothing
            used = gradients
            if training.clip is not None:
                used, _ = sg.optim.clip_by_norm(gradients, training.clip)
            optimizer.step({name: g for name, g in used.items() if name in trained_names})
            taken += 1
            total += float(loss.item()) * len(rows)
            watch.step(float(loss.item()), {name: g.numpy() for name, g in gradients.items()})
            if doctor is not None:
                doctor.after(loss)
            if not math.isfinite(total):
                raise _diverged(epoch)
        model.eval()
        with sg.no_grad():
            trained, kept = (np.asarray(model(X).numpy()) for X in (data.X, data.X_held))
        judged = _epoch(_judged(training, trained, data.y), _judged(training, kept, data.y_held))
        record.epochs.append(judged)
        if doctor is not None:
            accuracies = {} if training.score == "r2" else {"accuracy": judged["score"]}
            accuracies |= {f"validation_{name}": judged["held score"] for name in accuracies}
            doctor.epoch(loss=total / len(order), validation_loss=judged["held loss"], **accuracies)


def _diverged(epoch: int) -> TrainingError:
    return TrainingError(f"the loss became NaN or infinite in epoch {epoch}", "", "")
