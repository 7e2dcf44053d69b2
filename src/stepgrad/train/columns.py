"""From a table's columns to the numbers a network reads, and back from its outputs to predictions.

Numeric columns are filled with their median where a value is missing, and standardised: mean 0 and
standard deviation 1 over the training rows. Categorical columns become one number per category
(one-hot); a missing value is a category of its own. Everything that this needs later is in the
frozen classes below, which are saved with the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DataError
from stepgrad.train.tables import Table, is_missing, listed

Array = np.ndarray[Any, np.dtype[Any]]

FEWEST_ROWS = 10
MOST_CLASSES = 10
"""A target of integers with more distinct values than this is taken for a quantity."""
MOST_CATEGORIES = 100
"""Of a column with more categories, the rarer ones read as zeros."""


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (x - mean) / std, the median in place of a missing x."""

    name: str
    median: float
    mean: float
    std: float

    width = 1

    def encode(self, table: Table) -> tuple[Array, str]:
        """float32 (rows, 1), and a notice or an empty string."""
        x = np.array(table.numbers(self.name), np.float64)
        x[np.isnan(x)] = self.median
        with np.errstate(over="ignore"):
            standardised = ((x - self.mean) / self.std).astype(np.float32)[:, None]
        if not np.isfinite(standardised).all():
            row = int(np.argmin(np.isfinite(standardised)))
            raise DataError(
                f"{table.place(row)} of {table.path} has {x[row]:g} in column {self.name!r}",
                f"in training the column was around {self.mean:g}, with a standard deviation of {self.std:g}",
                "check the value and its unit",
            )
        return standardised, ""


@dataclass(frozen=True)
class Categorical:
    """A column of texts: one-hot over the categories; the empty text is a missing value."""

    name: str
    categories: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.categories)

    def encode(self, table: Table) -> tuple[Array, str]:
        """float32 (rows, categories), and a notice or an empty string."""
        position = {category: i for i, category in enumerate(self.categories)}
        values = _categories(table, self.name)
        x = np.zeros((len(values), self.width), np.float32)
        unseen: Counter[str] = Counter()
        for row, value in enumerate(values):
            if value in position:
                x[row, position[value]] = 1.0
            else:
                unseen[value or "(missing)"] += 1
        if not unseen:
            return x, ""
        rows = "1 row has" if unseen.total() == 1 else f"{unseen.total()} rows have"
        return x, f"{self.name}: {rows} a category not seen in training ({listed(list(unseen), 3)}), read as none"


@dataclass(frozen=True)
class Classes:
    """A target that is one of several classes."""

    name: str
    classes: tuple[str, ...]

    task = "classification"

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def encode(self, table: Table) -> Array:
        """int64 (rows,): the position of each row's class; -1 for a class not seen in training."""
        position = {name: i for i, name in enumerate(self.classes)}
        return np.array([position.get(label, -1) for label in _labels(table, self.name)], np.int64)


@dataclass(frozen=True)
class Quantity:
    """A target that is a number: the network predicts (y - mean) / std."""

    name: str
    mean: float
    std: float

    task = "regression"
    outputs = 1

    def encode(self, table: Table) -> Array:
        """float32 (rows, 1), standardised."""
        y = np.array(table.numbers(self.name), np.float64)
        return ((y - self.mean) / self.std).astype(np.float32)[:, None]

    def decode(self, outputs: Array) -> Array:
        """Outputs of the network (rows, 1) in the unit of the column: float64 (rows,)."""
        return outputs[:, 0].astype(np.float64) * self.std + self.mean


Column = Numeric | Categorical
Target = Classes | Quantity


def encode(table: Table, columns: Sequence[Column]) -> tuple[Array, list[str]]:
    """The network's input, float32 (rows, sum of widths), and notices for the user."""
    parts, notices = [], []
    for column in columns:
        x, notice = column.encode(table)
        parts.append(x)
        notices += [notice] if notice else []
    return np.ascontiguousarray(np.concatenate(parts, axis=1)), notices


# --- finding out what a table holds


def check_rows(table: Table) -> None:
    """Raises DataError if there are too few rows to learn from."""
    if len(table) < FEWEST_ROWS:
        rows = "no rows" if not len(table) else "1 row" if len(table) == 1 else f"{len(table)} rows"
        raise DataError(
            f"{table.path} has {rows} below its first line",
            f"at least {FEWEST_ROWS} are needed, to learn from some and to measure on others",
            "collect more rows",
        )


def choose_target(table: Table, name: str, task: str, training: Sequence[int]) -> tuple[Target, str]:
    """What the target column is, and why.

    Args:
        table: all rows.
        name: the target column.
        task: "auto", "classification" or "regression".
        training: the rows from which mean and standard deviation are taken.

    Raises:
        DataError: no such column, missing values, one value only, or text where numbers are needed.
    """
    values = table.column(name)
    for row, text in enumerate(values):
        if is_missing(text):
            raise DataError(
                f"{table.place(row)} of {table.path} has no value in the target column {name!r}"
                + (f": {text!r} means missing" if text else ""),
                "a row without the value to be learned teaches nothing",
                "fill the value in, or remove the row (stepgrad predict fills such rows in later)",
            )
    kind, why = _kind_of_target(table, name) if task == "auto" else (task, "as --task says")
    if kind == "regression":
        y = np.array(table.numbers(name))
        _check_not_constant(table, name, len(set(y.tolist())), values[0])
        y = y[np.asarray(training)]
        return Quantity(name, float(y.mean()), float(y.std()) or 1.0), why
    labels = _labels(table, name)
    classes = sorted(set(labels), key=_number_first)
    _check_not_constant(table, name, len(classes), values[0])
    if len(classes) > max(MOST_CATEGORIES, 2) or len(classes) > len(labels) / 2:
        raise DataError(
            f"the target column {name!r} has {len(classes)} different values in {len(labels)} rows",
            "as classes, most of them would have too few examples to learn from",
            "name another target; or, if the column holds numbers, predict their value: --task regression",
        )
    return Classes(name, tuple(classes)), why


def _kind_of_target(table: Table, name: str) -> tuple[str, str]:
    """The task, and why; where it could be otherwise, how to say so."""
    numbers = table.parsed(name)
    known = {x for x in numbers if x is not None}
    if None in numbers:
        if len(known) > len(numbers) / 2:  # mostly numbers: numbers() will name the one that isn't
            return "regression", "since it holds numbers"
        return "classification", "since it holds text"
    if all(x.is_integer() for x in known) and len(known) <= MOST_CLASSES:
        return (
            "classification",
            f"since it holds {len(known)} different whole numbers (otherwise: --task regression)",
        )
    otherwise = " (otherwise: --task classification)" if len(known) <= MOST_CATEGORIES else ""
    return "regression", f"since it holds {len(known)} different numbers{otherwise}"


def _check_not_constant(table: Table, name: str, distinct: int, value: str) -> None:
    if distinct == 1:
        raise DataError(
            f"the target column {name!r} of {table.path} is {value!r} in every row",
            "there is nothing to tell apart",
            "name another target, or add rows with other values",
        )


def choose_columns(
    table: Table, target: str, training: Sequence[int], ignore: Sequence[str] = (), categorical: Sequence[str] = ()
) -> tuple[tuple[Column, ...], list[str]]:
    """How each column except the target is read, from the training rows, and notices for the user.

    Args:
        table: all rows.
        target: the column to leave out.
        training: the rows from which means, deviations, medians and categories are taken.
        ignore, categorical: columns to leave out, and columns to read as text.

    Raises:
        DataError: no column is left, or one has a few texts among numbers.
    """
    for name in (*ignore, *categorical):
        table.column(name)
        if name == target:
            raise ArgumentError(
                f"{name!r} is the target, and also given to --ignore or --categorical",
                "those say how the other columns are read",
                "take it out there; for the target there is --task",
            )
    columns: list[Column] = []
    notices: list[str] = []
    for name in table.columns:
        if name == target or name in ignore:
            continue
        column, notice = _choose_column(table, name, training, as_text=name in categorical)
        columns += [column] if column else []
        notices += [notice] if notice else []
    if not columns:
        left_out = "; ".join(notices)
        raise DataError(
            f"{table.path} has no column to learn from besides {target!r}" + (f" ({left_out})" if left_out else ""),
            "a prediction needs something to be made from",
            "add columns" + (", or leave fewer out with --ignore" if ignore else ""),
        )
    return tuple(columns), notices


def _choose_column(table: Table, name: str, training: Sequence[int], as_text: bool) -> tuple[Column | None, str]:
    values = table.column(name)
    numbers = table.parsed(name)
    present = [text for text, number in zip(values, numbers, strict=True) if number is None or number == number]
    if not present:
        return None, f"{name}: no row has a value, left out"
    numeric = len(present) - numbers.count(None)
    if not as_text and numeric == len(present):
        return _numeric(table, name, training)
    if not as_text and numeric >= 0.9 * len(present):
        row = numbers.index(None)
        raise DataError(
            f"{table.place(row)} of {table.path} has {values[row]!r} in column {name!r}",
            f"{numeric} of its {len(present)} values are numbers, and this one is not",
            f"correct the field or leave it empty; or read the column as text: --categorical {name}",
        )
    counts = Counter(_categories(table, name)[i] for i in training)
    if not as_text and len(set(present)) > max(20, len(present) / 2):
        return None, f"{name}: {len(set(present))} different texts, left out (to use it: --categorical {name})"
    if len(counts) == 1:
        return None, f"{name}: the same in every row, left out"
    kept = sorted([category for category, _ in counts.most_common(MOST_CATEGORIES)], key=_number_first)
    notice = (
        f"{name}: the {MOST_CATEGORIES} most frequent of {len(counts)} categories" if len(counts) > len(kept) else ""
    )
    return Categorical(name, tuple(kept)), notice


def _numeric(table: Table, name: str, training: Sequence[int]) -> tuple[Column | None, str]:
    x = np.array(table.numbers(name))[np.asarray(training)]
    missing = np.isnan(x)
    if missing.all():
        return None, f"{name}: no training row has a value, left out"
    median = float(np.median(x[~missing]))
    x[missing] = median
    if np.ptp(x) == 0:
        return None, f"{name}: the same in every row, left out"
    notice = f"{name}: {missing.sum()} missing, filled with the median {median:.4g}" if missing.any() else ""
    return Numeric(name, median, float(x.mean()), float(x.std())), notice


def _categories(table: Table, name: str) -> list[str]:
    return ["" if is_missing(text) else text for text in table.column(name)]


def _labels(table: Table, name: str) -> list[str]:
    """Class names; a whole number has one name however it is written: 1, 1.0, 01."""
    return [
        str(int(number)) if number is not None and abs(number) < 1e15 and number.is_integer() else text
        for text, number in zip(table.column(name), table.parsed(name), strict=True)
    ]


def _number_first(text: str) -> tuple[float, str]:
    """Sorts 2 before 10, and texts behind numbers."""
    try:
        return (float(text), text)
    except ValueError:
        return (float("inf"), text)
