"""How a run broke: its last steps are done again from the last good state, to find where NaN or Inf was born."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.check.births import first_nan
from stepgrad.check.health.stepping import on_a_tape
from stepgrad.check.health.subject import Subject, cells_kept, copies_of, put_back, record_pass, record_update
from stepgrad.errors import StepgradError
from stepgrad.tensor import Array

_LONGEST = 30.0
"""Seconds after which replaying is given up."""

_MOST_KEPT = 2**26
"""Bytes of batches that are kept to be done again, should the run break."""

Batch = tuple[Array, Array]


class Tail:
    """The last good state of a run, and the batches since then.

    Attributes:
        state: the values of all cells; None where there is none, or too much was done since.
    """

    def __init__(self) -> None:
        self.state: Mapping[str, Array] | None = None
        self._since: list[Any] = []
        self._bytes = 0

    def mark(self, state: Mapping[str, Array]) -> None:
        """Everything is finite before this step."""
        self.state, self._since, self._bytes = state, [], 0

    def keep(self, batch: Any, size: int) -> None:
        """Remembers a step that is being done, or several.

        Args:
            batch: (x, y); or row numbers, shape (steps, rows).
            size: bytes that it takes.
        """
        if self.state is None:
            return
        self._since.append(batch)
        self._bytes += size
        if self._bytes > _MOST_KEPT:
            self.state, self._since, self._bytes = None, [], 0

    def batches(self, data: Batch | None) -> list[Batch]:
        """The batches since the last good state; `data` is what row numbers are of."""
        if data is None:
            return list(self._since)
        X, y = data
        return [(X[rows], y[rows]) for batches in self._since for rows in batches]


@dataclass(frozen=True)
class Cause:
    """What was found.

    Attributes:
        text: for people; empty if nothing was found.
        facts: the same, by name.
        replayed: steps that were done again.
    """

    text: str
    facts: dict[str, str]
    replayed: int


def find_cause(subject: Subject, state: Mapping[str, Array], batches: Sequence[Batch]) -> Cause:
    """Does steps again until one of them is not finite, and looks into that one. Cells keep their values.

    Steps are done by NumPy. A compiled run may differ from it in the last bits, and so break a step
    earlier or later.

    Args:
        subject: the network.
        state: the values of its cells before the first of the batches.
        batches: those of the steps since, the one that went wrong included.
    """
    cells = subject.cells()
    begin = time.perf_counter()
    with cells_kept(cells), np.errstate(all="ignore"):
        put_back(cells, state)
        for replayed, (x, y) in enumerate(batches, 1):
            before = copies_of(cells)
            try:
                finite = _step(subject, x, y) and _all_finite(cells)
            except StepgradError as error:
                return Cause("", {"problem": error.what.splitlines()[0]}, replayed)
            if not finite:
                return _look_into(subject, {cell: before[name] for name, cell in cells.items()}, x, y, replayed)
            if time.perf_counter() - begin > _LONGEST:
                break
    return Cause("", {}, len(batches))


def _step(subject: Subject, x: Array, y: Array) -> bool:
    """One step in Python; whether its loss is finite."""
    with on_a_tape():
        passed = record_pass(subject, x, y)
        record_update(subject, passed)
        return bool(np.isfinite(passed.loss.value))


def _all_finite(cells: Mapping[str, Cell]) -> bool:
    return all(cell.dtype.kind != "f" or np.isfinite(cell.numpy()).all() for cell in cells.values())


def _look_into(subject: Subject, before: Mapping[Cell, Array], x: Array, y: Array, replayed: int) -> Cause:
    def step(x: Any, y: Any) -> Any:
        passed = record_pass(subject, x, y)
        record_update(subject, passed)
        return passed.loss

    birth = first_nan(step, x, y, before=before)
    if birth is None:
        return Cause("", {}, replayed)
    facts = {
        "kind": birth.kind,
        "happened": birth.happened,
        "op": birth.op,
        "text": birth.text,
        "element": str(birth.element),
        "role": birth.role,
        "file": birth.file,
        "line": str(birth.line),
        "code": birth.code,
        "remedy": birth.remedy,
    }
    return Cause(str(birth), facts, replayed)
