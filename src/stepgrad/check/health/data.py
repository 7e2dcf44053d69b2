"""The data that a network is trained on, in numbers; and what it answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.check.health.record import Data, Outputs
from stepgrad.tensor import Array

MOST_ROWS = 4096
MOST_FEATURES = 4096
MOST_CLASSES = 4096


def describe_data(X: Array, y: Array, classes: int | None, repeats: float | None) -> Data:
    """Looks at training data.

    Args:
        X: inputs, one row per example; of many, some evenly spaced ones are looked at.
        y: their targets.
        classes: how many classes the outputs stand for, if targets are labels.
        repeats: see `record.Data`.
    """
    chosen = np.unique(np.linspace(0, len(X) - 1, min(len(X), MOST_ROWS)).astype(np.int64))
    rows, targets = X[chosen].reshape(len(chosen), -1), y[chosen]
    features = [()] * 4
    if rows.dtype.kind == "f":
        part = rows[:, :MOST_FEATURES].astype(np.float64)
        with np.errstate(all="ignore"):
            found = (part.mean(axis=0), part.std(axis=0), part.min(axis=0), part.max(axis=0))
        features = [tuple(values.tolist()) for values in found]
    all_targets = np.asarray(y, np.float64)
    return Data(
        rows=len(chosen),
        mean=features[0],
        std=features[1],
        low=features[2],
        high=features[3],
        target_kind="numbers" if classes is None else "labels",
        classes=classes,
        counts=label_counts(y, classes),
        target_mean=float(all_targets.mean()),
        target_std=float(all_targets.std()),
        target_low=float(all_targets.min()),
        target_high=float(all_targets.max()),
        repeats=repeats,
        identical_rows=_identical(rows, targets.reshape(len(chosen), -1)),
    )


def by_rows(x: Array, y: Array) -> tuple[Array, Array] | None:
    """A batch with one row for each example; where examples are columns, as in courses, they are turned round.

    Returns:
        None where inputs and targets do not go together.
    """
    if not x.ndim or not y.ndim:
        return None
    if len(x) == len(y):
        return x, y
    if x.shape[-1] == y.shape[-1]:
        return np.moveaxis(x, -1, 0), np.moveaxis(y, -1, 0)
    return None


def label_counts(y: Array, classes: int | None) -> tuple[int, ...]:
    """How often each label occurs; empty where targets are no labels, or there are too many."""
    y = np.asarray(y).reshape(-1)
    if classes is None:
        if not y.size or not np.isin(y, (0, 1)).all():
            return ()
        classes = 2
    if classes > MOST_CLASSES:
        return ()
    fitting = y[(y >= 0) & (y < classes)].astype(np.int64)
    return tuple(np.bincount(fitting, minlength=classes).tolist())


def _identical(rows: Array, targets: Array) -> float | None:
    """The share of rows whose inputs occur before."""
    if rows.shape[1] > MOST_FEATURES:
        return None
    whole = np.ascontiguousarray(rows)
    kinds = len({row.tobytes() for row in whole})
    return 1 - kinds / len(whole)


def classes_of(outputs: Any, y: Array) -> int | None:
    """How many classes the outputs stand for: with integer targets, outputs have an axis more."""
    shape = getattr(outputs, "shape", None)
    if shape is None or y.dtype.kind not in "iub" or len(shape) != y.ndim + 1:
        return None
    return int(shape[-1])


def describe_outputs(outputs: Array, x: Array, y: Array, probabilities: bool) -> Outputs:
    """Looks at the answers to a batch.

    Args:
        outputs: of the network.
        x, y: the batch.
        probabilities: outputs are those of a sigmoid or softmax.
    """
    classes = classes_of(outputs, y)
    labels = label_counts(y, classes)
    predicted: tuple[int, ...] = ()
    if classes is not None and classes <= MOST_CLASSES:
        chosen = np.argmax(outputs, axis=-1).reshape(-1)
        predicted = tuple(np.bincount(chosen, minlength=classes).tolist())
    elif labels and outputs.size == y.size:
        yes = int(np.count_nonzero(outputs > (0.5 if probabilities else 0)))
        predicted = (outputs.size - yes, yes)
    with np.errstate(all="ignore"):
        wide, targets = outputs.astype(np.float64), y.astype(np.float64)
        floats = x.dtype.kind == "f"
        return Outputs(
            mean=float(wide.mean()),
            std=float(wide.std()),
            low=float(wide.min()),
            high=float(wide.max()),
            row_std=float(wide.std(axis=0).mean()) if wide.ndim else 0.0,
            predicted=predicted,
            labels=labels,
            target_mean=float(targets.mean()),
            target_std=float(targets.std()),
            target_low=float(targets.min()),
            target_high=float(targets.max()),
            input_mean=float(x.mean()) if floats else math.nan,
            input_std=float(x.std()) if floats else math.nan,
            input_largest=float(np.abs(x).max()) if floats else math.nan,
        )


def repeated(y: Array) -> tuple[int, int]:
    """How many neighbours in a batch have the same label, and how many neighbours there are."""
    if y.ndim != 1 or len(y) < 2:
        return 0, 0
    return int(np.count_nonzero(y[1:] == y[:-1])), len(y) - 1
