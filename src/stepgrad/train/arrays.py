"""The data that `fit` is given: checked once up front, and converted to what the network computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stepgrad.errors import ArgumentError, DataError, ShapeError, StepgradError
from stepgrad.tape.leaves import read_only_copy
from stepgrad.tape.recording import no_grad
from stepgrad.tensor import ArrayLike, Tensor

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 1024
"""Rows at a time where no gradients are wanted."""


class Pair(NamedTuple):
    """Inputs and targets, as many of one as of the other."""

    X: Array
    y: Array


def pair(data: Any, name: str) -> Pair:
    """Checks that `data` is (X, y): arrays of as many rows, not empty, without NaN or Inf."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ArgumentError(
            f"{name} is a {type(data).__name__}" + (f" of {len(data)} parts" if hasattr(data, "__len__") else ""),
            "it has to be the pair of inputs and targets",
            f"write {name}=(X, y)" if name != "data" else "write sg.fit(model, loss, optimizer, (X, y))",
        )
    X, y = (np.asarray(read_only_copy(part.numpy() if isinstance(part, ArrayLike) else part)) for part in data)
    in_data = "" if name == "data" else f" of {name}"
    for letter, array in (("X", X), ("y", y)):
        if array.ndim == 0:
            raise ShapeError(
                f"{letter}{in_data} is a single number",
                "its first axis has to count the examples",
                f"pass an array with one row per example, such as np.array([{array}])",
            )
    if len(X) != len(y):
        raise ShapeError(
            f"X{in_data} has {len(X)} rows and y {len(y)}",
            "each row of X is one example, and y has to hold its target",
            "check how the two were made; if examples are columns, pass X.T",
        )
    if X.size == 0:
        raise DataError(
            f"X{in_data} is empty: shape {X.shape}",
            "there is nothing to learn from",
            "check the filter or file it came from",
        )
    _check_finite("X" + in_data, X)
    _check_finite("y" + in_data, y)
    return Pair(X, y)


def _check_finite(name: str, array: Array) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    index = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
    count = array.size - int(np.isfinite(array).sum())
    place = f"row {index[0]}" + (f", column {', '.join(map(str, index[1:]))}" if array.ndim > 1 else "")
    raise DataError(
        f"{name} has {array[index]} at {place}" + (f", and {count - 1} more such values" if count > 1 else ""),
        "every number computed from it would be NaN or Inf too, and so would every parameter after one step",
        f"remove the row, or fill the value in: np.nan_to_num({name[0]}), or the column's median",
    )


def split(data: Pair, fraction: float, seed: int) -> tuple[Pair, Pair]:
    """Holds back a fraction of the rows, chosen at random by the seed: (training, validation)."""
    training, held_back = split_rows(len(data.X), fraction, seed)
    return Pair(data.X[training], data.y[training]), Pair(data.X[held_back], data.y[held_back])


def split_rows(rows: int, fraction: float, seed: int) -> tuple[Array, Array]:
    """Row numbers, sorted, for training and for validation."""
    if not 0 < fraction < 1:
        raise ArgumentError(
            f"validation={fraction} was asked for",
            "it is the fraction of the rows to hold back, between 0 and 1",
            "write for example validation=0.2",
        )
    count = round(rows * fraction)
    if not 0 < count < rows:
        raise ArgumentError(
            f"validation={fraction} of {rows} rows was asked for",
            f"that leaves {count} for validation and {rows - count} for training",
            "choose another fraction, or pass validation data of your own: validation=(Xv, yv)",
        )
    order = np.random.default_rng([seed, rows]).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


Converter = Callable[[Pair], Pair]


def converter(model: Callable[..., Any], loss: Callable[..., Any], data: Pair, dtype: np.dtype[Any]) -> Converter:
    """How to convert data for this network, found by calling it once on the first rows.

    Floating-point inputs take the network's dtype, and so do integers unless the network uses them
    as indices. Integer targets stay labels where the network has one output per class, and take
    the network's dtype where it has one output per target.
    """
    x, y = data.X[:2], data.y[:2]
    with no_grad():
        outputs, floats = _call(model, x, dtype)
        labels = data.y.dtype.kind in "iub" and isinstance(outputs, Tensor) and outputs.shape[1:] != data.y.shape[1:]
        if isinstance(outputs, Tensor):
            _check_outputs(outputs, data)
        classes = outputs.shape[1] if labels and outputs.ndim == data.y.ndim + 1 else None
        if classes is not None:
            _check_labels(data.y, classes)
        value = loss(outputs, y.astype(np.int64 if labels else dtype))
    if not isinstance(value, Tensor) or value.shape != ():
        shown = f"a tensor of shape {value.shape}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ShapeError(
            f"the loss returned {shown}",
            "training makes one number smaller",
            "average it in the loss: loss.mean()",
        )

    def convert(pair: Pair) -> Pair:
        if classes is not None:
            _check_labels(pair.y, classes)
        return Pair(
            _frozen("X", pair.X, dtype if floats else pair.X.dtype),
            _frozen("y", pair.y, np.dtype(np.int64) if labels else dtype),
        )

    return convert


def _call(model: Callable[..., Any], x: Array, dtype: np.dtype[Any]) -> tuple[Any, bool]:
    """The outputs for a few rows, and whether the model takes them as floating-point numbers."""
    with np.errstate(over="ignore"):
        as_float = x.astype(dtype)
    if x.dtype.kind not in "iub":
        return model(as_float), True
    try:
        return model(as_float), True
    except StepgradError as error:
        try:
            return model(x), False  # an embedding, say, which takes indices
        except StepgradError:
            raise error from None


def _frozen(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Our own array in another dtype, read-only, so that batches and constants need no further copy."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype)
    if not np.isfinite(converted).all():
        row = int(np.argwhere(~np.isfinite(converted))[0][0])
        raise DataError(
            f"{name} has a number at row {row} that is too large: {array[row].flat[np.argmax(np.abs(array[row]))]:g}",
            f"the network computes in {dtype}, which ends at {np.finfo(dtype).max:.0e}",
            f"standardise {name}, such as ({name} - {name}.mean(axis=0)) / {name}.std(axis=0)",
        )
    converted.setflags(write=False)
    return converted


def _check_outputs(outputs: Tensor, data: Pair) -> None:
    rows = min(2, len(data.X))
    if outputs.shape[:1] != (rows,):
        raise ShapeError(
            f"for {rows} rows of X the model returned shape {outputs.shape}",
            "it has to return one row for each row of X",
            "keep the first axis as it is in the model: reduce and reshape the others only",
        )
    if outputs.shape[1:] == (*data.y.shape[1:], 1):
        raise ShapeError(
            f"the model returns shape {('rows', *outputs.shape[1:])} and y has shape {data.y.shape}".replace("'", ""),
            "compared element by element, each output would meet the targets of all rows",
            "give y the same axes: y.reshape(-1, 1)" if data.y.ndim == 1 else "give y the same axes: y[..., None]",
        )


def _check_labels(y: Array, classes: int) -> None:
    outside = (y < 0) | (y >= classes) if y.dtype.kind != "b" else np.zeros(y.shape, bool)
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        raise DataError(
            f"y has the label {y[outside][0]} at row {row}",
            f"the model has {classes} outputs, so labels are 0 to {classes - 1}",
            "count the classes from 0: np.unique(y, return_inverse=True)[1]; or give the last layer as many outputs",
        )


def check_same_axes(training: Pair, held_back: Pair) -> None:
    """Raises ShapeError unless validation rows look like training rows."""
    for name, a, b in (("X", training.X, held_back.X), ("y", training.y, held_back.y)):
        if a.shape[1:] != b.shape[1:]:
            raise ShapeError(
                f"{name} of the data has shape {a.shape}, and {name} of validation {b.shape}",
                "all axes but the first have to be the same",
                "prepare both in the same way, for example by splitting one array",
            )


def predict(model: Callable[..., Any], X: Array) -> Array:
    """The model's outputs for all rows, without gradients."""
    with no_grad():
        parts = [np.asarray(model(read_only_copy(X[i : i + BATCH])).numpy()) for i in range(0, len(X), BATCH)]
    return np.concatenate(parts)
