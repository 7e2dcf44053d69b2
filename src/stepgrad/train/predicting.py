"""Using a saved model on a table: what `stepgrad predict` does."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from stepgrad import files
from stepgrad.errors import DataError
from stepgrad.train import arrays, saving, tables
from stepgrad.train.arrays import Array
from stepgrad.train.columns import Classes, encode
from stepgrad.train.report import Report, count, percent, quality

SHOWN = 20
"""Rows that are shown in a terminal."""


@dataclass(frozen=True)
class Predictions:
    """One prediction per row.

    Attributes:
        header: names of the columns below.
        rows: per row, its number, what is predicted, and for classes the probability of that.
        notices: what the user should know about the data.
        measured: how good the predictions are, if the table has the target; else empty.
    """

    header: list[str]
    rows: list[list[str]]
    notices: list[str]
    measured: str


def predict(model: saving.Model, table: tables.Table) -> Predictions:
    """Predicts for every row of a table.

    Raises:
        DataError: a column that the model reads is missing, or holds what it can't read.
    """
    missing = [column.name for column in model.columns if column.name not in table.columns]
    if missing:
        raise DataError(
            f"{table.path} has no column {tables.listed(missing)}, which the model reads",
            f"its columns are {tables.listed(table.columns)}",
            f"{tables.did_you_mean(missing[0], table.columns)}add what is missing, named as in training; a value that "
            "is not known can be left empty",
        )
    if not len(table):
        raise DataError(
            f"{table.path} has no rows below its first line", "there is nothing to predict for", "add rows to it"
        )
    X, notices = encode(table, model.columns)
    used = {column.name for column in model.columns} | {model.target.name}
    unused = [name for name in table.columns if name not in used]
    if unused:
        word = "column" if len(unused) == 1 else "columns"
        notices.append(f"{word} not used by the model: {tables.listed(unused)}")
    with np.errstate(over="ignore"):
        outputs = arrays.predict(model.network, X)
    if not np.isfinite(outputs).all():
        row = int(np.argwhere(~np.isfinite(outputs))[0][0])
        raise DataError(
            f"the prediction for {table.place(row)} of {table.path} is not a finite number",
            "its values are far from those that the model was trained on",
            "check the values of that row and their units",
        )
    if isinstance(model.target, Classes):
        best = outputs.argmax(axis=1)
        probability = _softmax(outputs)[np.arange(len(best)), best]
        texts = [[model.target.classes[c], f"{p:.4f}"] for c, p in zip(best, probability, strict=True)]
        header = ["row", f"predicted {model.target.name}", "probability"]
    else:
        texts = [[f"{value:.7g}"] for value in model.target.decode(outputs)]
        header = ["row", f"predicted {model.target.name}"]
    rows = [[str(i + 1), *text] for i, text in enumerate(texts)]
    return Predictions(header, rows, [*table.notices, *notices], _measure(model, table, outputs))


def _softmax(outputs: Array) -> Array:
    e = np.exp(outputs - outputs.max(axis=1, keepdims=True), dtype=np.float64)
    return e / e.sum(axis=1, keepdims=True)


def _measure(model: saving.Model, table: tables.Table, outputs: Array) -> str:
    """Compares with the target where the table has it, on the rows that have a value."""
    target = model.target
    if target.name not in table.columns:
        return ""
    known = np.array([not tables.is_missing(text) for text in table.column(target.name)])
    if not known.any():
        return ""
    on = count(int(known.sum()), "row")
    if isinstance(target, Classes):
        y = target.encode(table)[known]
        right = int((outputs[known].argmax(axis=1) == y).sum())
        unseen = int((y < 0).sum())
        more = f"; {count(unseen, 'row')} of a class not seen in training" if unseen else ""
        return f"accuracy {percent(right / len(y))} ({right:,} of {on}){more}"
    true = np.array(table.numbers(target.name))[known]
    words = ", ".join(f"{name} {v:.4g}" for name, v in quality(target.decode(outputs[known]), true).items() if v == v)
    return f"{words} on {on}"


def run(model_path: Path, data_path: Path, out: Path | None, console: Console, errors: Console) -> None:
    """Predicts; writes to `out`, or shows a table in a terminal, or prints CSV into a pipe."""
    model = saving.load(model_path)
    table = tables.read(data_path)
    if out is not None:
        files.check_writable(out, unlike=data_path)
        files.check_writable(out, unlike=model_path)
    found = predict(model, table)
    if out is None and not console.is_terminal:
        console.file.write(_as_csv(found))
    elif out is None:
        more = f" (the first {SHOWN} of {len(found.rows):,}; --out predictions.csv writes all)"
        title = f"predictions for {data_path}" + (more if len(found.rows) > SHOWN else "")
        right = 2 if isinstance(model.target, Classes) else 1
        Report(console).table(title, found.header, found.rows[:SHOWN], numbers_from=right)
    else:
        files.write(out, _as_csv(found).encode())
    report = Report(errors)
    report.lines("notice", found.notices)
    if found.measured:
        report.line("measured", found.measured)
    if out is not None:
        report.line("saved", f"{count(len(found.rows), 'prediction')} to {out}")


def _as_csv(found: Predictions) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[h.replace(" ", "_") for h in found.header], *found.rows])
    return text.getvalue()
