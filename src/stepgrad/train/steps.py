"""Training steps: compiled, many in one native call; or one by one in Python."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.compile.recorded import Recorded, record_step
from stepgrad.compile.stale import check
from stepgrad.nn import Module
from stepgrad.tape.leaves import constant
from stepgrad.tensor import Tensor
from stepgrad.train.arrays import Array, Pair
from stepgrad.train.compiled import CanNotCompile, Choice, Paced
from stepgrad.train.judging import Loss, rows_of
from stepgrad.transforms import backward


@dataclass(frozen=True)
class Done:
    """What some steps gave.

    Attributes:
        losses: shape (steps,), of each step's batch, before its update. A step whose loss is not finite
            is the last that counts.
        outputs: shape (rows, …), for all steps' batches, if they were asked for.
        grads: of the parameters, by path, if they were asked for; then this was one step.
    """

    losses: Array
    outputs: Array | None
    grads: Mapping[str, Tensor] = field(default_factory=dict)


class Steps:
    """Does training steps: forward pass, backward pass and update.

    Args:
        model, loss, optimizer: what is trained, and how.
        data: the rows; a step takes some of them. A compiled step gathers them by itself, out of
            these very arrays, so that there is no second copy of the data.
        outputs, grads: whether they are asked for. Gradients are for callbacks: Python code that is run
            after each step, so that steps are compiled one by one.
        choice: whether steps are compiled.
        compiled: the numbers of rows for which they are, if so.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Any,
        data: Pair,
        *,
        outputs: bool,
        grads: bool,
        choice: Choice,
        compiled: Collection[int],
    ) -> None:
        self._model, self._loss, self._optimizer, self._data = model, loss, optimizer, data
        self._outputs, self._grads = outputs, grads
        self._parameters = model.parameters()
        self._choice = choice
        self._programs = {rows: Paced(self._step) for rows in compiled}
        self._X, self._y = constant(data.X), constant(data.y)
        self._guard = _Guard(self._step, model, optimizer) if grads else None

    @property
    def compiled(self) -> bool:
        """Whether there are programs, at least for some numbers of rows."""
        return bool(self._programs)

    def begin_epoch(self) -> None:
        """To be called before each epoch's first step."""
        if self._guard:
            self._guard.suspicious = True

    def take(self, batches: Array) -> Done:
        """Does at least the first step of these.

        Args:
            batches: row numbers, shape (steps, rows).
        """
        program = self._programs.get(batches.shape[1])
        if program is None:
            return self._in_python(batches[0])
        try:
            return self._compiled(program, batches)
        except CanNotCompile as problem:
            can_not = problem
        done = self._in_python(batches[0])  # if that raises, too, compiling is not the point
        self._choice.give_up("training steps run", can_not)
        self._programs = {}
        return done

    def _compiled(self, program: Paced, batches: Array) -> Done:
        if self._guard:
            self._guard.look(batches[0])
            loss, outputs, grads = program.once(batches[0])
            return Done(loss.numpy().reshape(1), None if outputs is None else outputs.numpy(), grads)
        # If the loss stops being finite in the middle of a slice, the steps after that one are done all the
        # same. What they do to the weights does not matter: the best ones until then were set aside before.
        (losses, outputs, _), _ = program(batches)
        return Done(losses.numpy(), None if outputs is None else rows_of(outputs))

    def _step(self, rows: Any) -> tuple[Tensor, Tensor | None, dict[str, Tensor] | None]:
        """What is compiled: a step as a function of row numbers."""
        outputs = self._model(self._X[rows])
        loss = self._loss(outputs, self._y[rows])
        grads = backward(loss, self._parameters)
        self._optimizer.step(grads)
        return loss, outputs if self._outputs else None, grads if self._grads else None

    def _in_python(self, rows: Array) -> Done:
        x, y = self._data.X[rows], self._data.y[rows]
        x.setflags(write=False)  # nobody else has it, so the tape need not copy it
        y.setflags(write=False)
        outputs = self._model(x)
        loss = self._loss(outputs, y)
        value, grads = float(loss.item()), {}
        if math.isfinite(value):
            grads = backward(loss, self._parameters)
            self._optimizer.step(grads)
        return Done(np.array([value]), outputs.numpy() if self._outputs else None, grads)


class _Guard:
    """Notices that a callback changed something that is built into the compiled step.

    Attributes of modules and of the optimizer are looked at before each step. Whether anything else has
    changed, such as a variable that the loss reads, takes as long to find out as a step in Python, and is
    found out once in an epoch.

    Attributes:
        suspicious: something may have changed.
    """

    def __init__(self, step: Any, model: Module, optimizer: Any) -> None:
        self.suspicious = True
        self._step = step
        self._recorded: dict[int, Recorded] = {}  # number of rows -> the step as it is compiled
        held = [vars(module) for module in model.named_modules().values()]
        self._watched = [*held, getattr(optimizer, "__dict__", {})]
        self._seen: list[dict[str, Any]] = []

    def look(self, rows: Array) -> None:
        """Before a step.

        Raises:
            CanNotCompile: the step is not what was compiled.
        """
        same = len(self._seen) == len(self._watched) and all(map(_identical, self._watched, self._seen))
        if same and not self.suspicious:
            return
        self._seen, self.suspicious = [dict(watched) for watched in self._watched], False
        try:
            now = record_step(self._step, (rows,), {}, ("rows",))
            check(self._recorded.setdefault(len(rows), now), now, "the training step")
        except Exception as error:
            raise CanNotCompile from error


def _identical(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one.values(), other.values()))
