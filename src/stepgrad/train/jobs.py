"""The main job: what `stepgrad train` does, on the embedded digits and on a user's table."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

from stepgrad import files, losses, nn
from stepgrad.check import check_gradients
from stepgrad.errors import ArgumentError, GradientError
from stepgrad.tape.leaves import tensor
from stepgrad.train import arrays, digits, network, saving, tables
from stepgrad.train.arrays import Array, Pair
from stepgrad.train.columns import Classes, Numeric, Quantity, check_rows, choose_columns, choose_target, encode
from stepgrad.train.fit import evaluate, fit
from stepgrad.train.history import History
from stepgrad.train.report import (
    Report,
    count,
    gradient_norms,
    most_confused,
    network_text,
    norms_rows,
    percent,
    quality,
    settings_text,
)
from stepgrad.train.settings import Settings
from stepgrad.transforms import backward

CHECKED_ROWS = 8
"""Rows on which the gradients of the network are checked."""

NORM_ROWS = 4096
"""At most so many training rows enter the gradient norms."""

MOST_WEIGHTS = 100_000_000

WORTH_THREADS = 20_000_000
"""Multiplications in one matrix product from which on several threads are faster."""


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    network: nn.Sequential
    sizes: tuple[int, ...]
    history: History
    rows: list[list[str]]
    """The gradient norm of each layer at start and end, as a table."""


def train(
    data: str,
    target: str | None,
    settings: Settings,
    console: Console,
    *,
    task: str = "auto",
    ignore: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> History:
    """Trains on the embedded digits if `data` is "digits", else on a CSV file."""
    if data != "digits":
        return train_table(data, target, settings, console, task=task, ignore=ignore, categorical=categorical)
    if target or ignore or categorical or task != "auto":
        raise ArgumentError(
            "stepgrad train digits was given --target, --task, --ignore or --categorical",
            "those say how a CSV file is read, and the digits are embedded",
            "leave them out; for a file of that name write ./digits",
        )
    return train_digits(settings, console)


def train_digits(settings: Settings, console: Console) -> History:
    """Trains on the embedded digits and reports; a tenth of the training images chooses the best epoch."""
    begin, report = time.perf_counter(), Report(console)
    if settings.out:
        files.check_writable(settings.out)
    (X, y), (X_test, y_test) = digits.split()
    settings = dataclasses.replace(settings, epochs=settings.epochs or 30)
    training, validation = arrays.split(Pair(X, y), 0.1, seed=0)
    names = [str(digit) for digit in range(10)]
    parts = f"{len(training.X):,} train, {len(validation.X)} validation, {len(X_test)} test"
    report.line("data", f"{len(X) + len(X_test):,} digits of 8 × 8 pixels (UCI, CC BY 4.0): {parts}")
    run = _train(report, settings, len(names), losses.cross_entropy, training, validation)

    test_loss, outputs = evaluate(run.network, losses.cross_entropy, Pair(X_test, y_test))
    predicted = outputs.argmax(axis=1)
    right = int((predicted == y_test).sum())
    report.line("test", f"accuracy {percent(right / len(y_test))} ({right} of {len(y_test)}), loss {test_loss:.4f}")
    if right < len(y_test):
        report.line("", f"most confused: {most_confused(predicted, y_test, names)}")
    columns = tuple(Numeric(f"pixel_{i}", 0.0, 0.0, float(digits.PIXEL_MAX)) for i in range(64))
    model = saving.Model(run.network, run.sizes, columns, Classes("digit", tuple(names)))
    _finish(report, run, model, settings, begin)
    report.suggestions(
        [
            ("a larger network, for longer", "stepgrad train digits --hidden 256,128 --epochs 60"),
            ("plain steps with momentum", "stepgrad train digits --optimizer sgd --learning-rate 0.05"),
            ("a linear model, to compare", "stepgrad train digits --hidden none"),
            ("watch a backward pass", "stepgrad explain"),
            ("train on your own table", "stepgrad train data.csv --target column"),
        ]
    )
    return run.history


def train_table(
    path: str | Path,
    target: str | None,
    settings: Settings,
    console: Console,
    *,
    task: str = "auto",
    ignore: Sequence[str] = (),
    categorical: Sequence[str] = (),
) -> History:
    """Trains on a CSV file and reports."""
    begin, report = time.perf_counter(), Report(console)
    table = tables.read(path)
    if settings.out:
        files.check_writable(settings.out, unlike=path)
    if target is None:
        raise tables.no_target(table)
    table.column(target)
    check_rows(table)
    everything = np.arange(len(table))
    rows, held_back = (
        arrays.split_rows(len(table), settings.validation, settings.seed)
        if settings.validation
        else (everything, everything[:0])
    )
    wanted, why = choose_target(table, target, task, rows.tolist())
    columns, notices = choose_columns(table, target, rows.tolist(), ignore, categorical)
    X, _ = encode(table, columns)
    y = wanted.encode(table)
    settings = settings.with_epochs(len(rows))

    sizes = f"{len(rows):,} to train, {len(held_back):,} to validate"
    report.line("data", f"{path}, {count(len(table), 'row')}: {sizes}")
    numeric = sum(isinstance(column, Numeric) for column in columns)
    kinds = [f"{n} {kind}" for n, kind in ((numeric, "numeric"), (len(columns) - numeric, "categorical")) if n]
    report.line("columns", f"{', '.join(kinds)}, {count(X.shape[1], 'input')}")
    report.lines("", [*table.notices, *notices])
    classes = f", {len(wanted.classes)} classes" if isinstance(wanted, Classes) else ""
    report.line("target", f"{target}: {wanted.task}{classes}, {why}")

    loss = losses.cross_entropy if isinstance(wanted, Classes) else losses.mse
    held = Pair(X[held_back], y[held_back]) if len(held_back) else None
    run = _train(report, settings, wanted.outputs, loss, Pair(X[rows], y[rows]), held)
    measured = held_back if len(held_back) else rows
    _report_quality(report, run, wanted, X[measured], y[measured], y[rows], validated=bool(len(held_back)))
    _finish(report, run, saving.Model(run.network, run.sizes, columns, wanted), settings, begin)
    _suggest_for_table(report, str(path), target, settings)
    return run.history


def _train(report: Report, settings: Settings, outputs: int, loss: Any, training: Pair, validation: Pair | None) -> Run:
    """Builds the network, checks its gradients, and trains it."""
    sizes = (training.X.shape[1], *settings.hidden, outputs)
    _check_size(sizes)
    model = network.build(sizes, settings.seed)
    parameters = model.parameters()
    report.line("network", network_text(sizes, sum(p.size for p in parameters.values())))
    report.line("training", settings_text(settings))
    report.line("gradients", _check(model, loss, training))
    start = _norms(model, loss, training)
    report.gap()
    with _threads(sizes, settings.batch_size):
        history = fit(
            model,
            loss,
            settings.make_optimizer(parameters),
            training,
            epochs=settings.epochs or 1,
            batch_size=settings.batch_size,
            validation=validation,
            seed=settings.seed,
            progress=report.console,
        )
    report.gap()
    if history.interrupted:
        kept = f"the weights of epoch {history.best_epoch} are kept" if history.best else "no epoch was completed"
        report.line("stopped", f"interrupted after {count(len(history), 'epoch')}; {kept}")
    return Run(model, sizes, history, norms_rows(model, start, _norms(model, loss, training)))


def _check_size(sizes: Sequence[int]) -> None:
    """Raises ArgumentError for a network that would fill the memory."""
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    if weights > MOST_WEIGHTS:
        raise ArgumentError(
            f"a network {' → '.join(map(str, sizes))} was asked for",
            f"it has {weights:,} weights; with gradients and moments they take {weights * 16 / 1e9:,.0f} GB",
            "choose fewer or smaller layers with --hidden, or leave columns with many categories out with --ignore",
        )


def _threads(sizes: Sequence[int], batch_size: int) -> AbstractContextManager[Any]:
    """One thread for matrix products that are small: more would wait for each other longer than they compute."""
    products = batch_size * max(a * b for a, b in itertools.pairwise(sizes))
    return threadpool_limits(1, user_api="blas") if products < WORTH_THREADS else nullcontext()


def _check(model: nn.Sequential, loss: Any, training: Pair) -> str:
    """Checks the gradients of the network on a few rows, in float64, and says what was found."""
    x, y = training.X[:CHECKED_ROWS], training.y[:CHECKED_ROWS]
    checked = check_gradients(lambda network: loss(network(x), y), model)
    if not checked.ok:
        raise GradientError(
            "the gradients of this network are wrong; it was not trained",
            f"they were compared with differences:\n{checked}",
            "please report this, with the command and the data, or their first lines",
        )
    numbers = sum(argument.count for argument in checked.arguments)
    kinks = f", {count(len(checked.kinks), 'kink')} left out" if checked.kinks else ""
    return (
        f"{numbers:,} checked in float64, max relative error {checked.max_error:.0e}{kinks}; "
        f"{count(len(checked.equations), 'local rule')} right"
    )


def _norms(model: nn.Sequential, loss: Any, training: Pair) -> dict[str, float]:
    value = loss(model(tensor(training.X[:NORM_ROWS])), training.y[:NORM_ROWS])
    return gradient_norms(backward(value, model.parameters()))


def _report_quality(
    report: Report, run: Run, target: Classes | Quantity, X: Array, y: Array, y_training: Array, *, validated: bool
) -> None:
    """Quality on the rows held back, beside what a constant guess would reach."""
    label = "validated" if validated else "trained"
    outputs = arrays.predict(run.network, X)
    if isinstance(target, Classes):
        predicted = outputs.argmax(axis=1)
        right = int((predicted == y).sum())
        guess = float(np.mean(y == np.bincount(y_training).argmax()))
        report.line(label, f"accuracy {percent(right / len(y))} ({right:,} of {count(len(y), 'row')})")
        report.line("", f"always guessing the most frequent class: {percent(guess)}")
        if right < len(y):
            report.line("", f"most confused: {most_confused(predicted, y, target.classes)}")
    else:
        true = target.decode(y)
        measured = quality(target.decode(outputs), true)
        guess = float(np.sqrt(np.mean((true - target.mean) ** 2)))
        words = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
        report.line(label, words)
        report.line("", f"always guessing the mean: RMSE {guess:.4g}")
    if validated:
        report.line("", "the rows held back also chose the best epoch, so expect a little less on new data")


def _finish(report: Report, run: Run, model: saving.Model, settings: Settings, begin: float) -> None:
    """The best epoch, the gradient norms, the saved file and the time."""
    if settings.out:
        saving.save(settings.out, model)
        report.line("saved", f"{settings.out} ({settings.out.stat().st_size / 1000:,.0f} kB)")
    seconds = time.perf_counter() - begin
    best = f"best epoch {run.history.best_epoch} of {len(run.history)}; " if run.history.best else ""
    report.line("time", f"{seconds:.1f} s in all, {run.history.seconds:.1f} s of it training; {best}".rstrip("; "))
    report.gap()
    title = "gradient norm per layer, over the training rows"
    report.table(title, ["layer", "weights", "start", "end"], run.rows, numbers_from=2)
    report.gap()


def _suggest_for_table(report: Report, path: str, target: str, settings: Settings) -> None:
    command = f"stepgrad train {shlex.quote(path)} --target {shlex.quote(target)}"
    model = shlex.quote(str(settings.out))
    saved = settings.out is not None
    report.suggestions(
        [
            ("use it on new rows", f"stepgrad predict {model} new.csv")
            if saved
            else ("save the model", f"{command} --out model.safetensors"),
            ("a linear model, to compare", f"{command} --hidden none"),
            ("fewer weights, for few rows", f"{command} --hidden 32 --learning-rate {settings.rate / 3:.1g}"),
        ]
    )
