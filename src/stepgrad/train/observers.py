"""Observers: callbacks that look at some steps before they are done, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from stepgrad.train.arrays import Array, Pair
from stepgrad.train.history import Epoch


@dataclass(frozen=True)
class Course:
    """What a run is about to do.

    Attributes:
        model, loss, optimizer: what is trained, and how.
        data: all rows.
        epochs, batch_size, steps_per_epoch: how they are used.
        compiled: steps are compiled.
    """

    model: Any
    loss: Any
    optimizer: Any
    data: Pair
    epochs: int
    batch_size: int
    steps_per_epoch: int
    compiled: bool


@runtime_checkable
class Observer(Protocol):
    """What `fit` tells a callback that is no plain function, such as `sg.health`.

    Because it changes nothing, steps are compiled and run many at a time in between.
    """

    def begin(self, course: Course) -> None:
        """Before the first step, when everything was checked."""

    def wait(self, step: int, rows: int) -> int:
        """How many steps to do before it wants to look at one; 0: at this one.

        Args:
            step: the one that comes next, from 1.
            rows: in its batch.
        """

    def look(self, step: int, epoch: int, x: Array, y: Array) -> None:
        """Before a step that it wants to look at. It leaves model and optimizer as they are."""

    def done(self, losses: Array, batches: Array) -> None:
        """After some steps: their losses, shape (steps,), and row numbers, shape (steps, rows)."""

    def end_epoch(self, record: Epoch, step: int) -> None:
        """After an epoch and its validation; `step` is its last."""

    def failed(self, step: int, epoch: int, loss: float | None, error: Exception) -> None:
        """A step had a loss that is not finite, or raised (loss None); the run ends with this error."""

    def end(self) -> None:
        """After the run, however it ended."""


class Observers:
    """Those of one run.

    Args:
        observers: any number.
        data: the rows.
    """

    def __init__(self, observers: Sequence[Observer], data: Pair) -> None:
        self._all, self._data = tuple(observers), data

    def before(self, step: int, epoch: int, batches: Array) -> Array:
        """Lets those look who want to, and returns the batches until the next one does.

        Args:
            step: of the first batch.
            batches: row numbers, shape (steps, rows).
        """
        most = len(batches)
        for observer in self._all:
            waiting = observer.wait(step, batches.shape[1])
            if waiting == 0:
                rows = batches[0]
                observer.look(step, epoch, self._data.X[rows], self._data.y[rows])
                waiting = 1 + observer.wait(step + 1, batches.shape[1])
            most = min(most, waiting)
        return batches[:most]

    def begin(self, course: Course) -> None:
        for observer in self._all:
            observer.begin(course)

    def done(self, losses: Array, batches: Array) -> None:
        for observer in self._all:
            observer.done(losses, batches)

    def end_epoch(self, record: Epoch, step: int) -> None:
        for observer in self._all:
            observer.end_epoch(record, step)

    def failed(self, step: int, epoch: int, loss: float | None, error: Exception) -> None:
        for observer in self._all:
            observer.failed(step, epoch, loss, error)

    def end(self) -> None:
        for observer in self._all:
            observer.end()
