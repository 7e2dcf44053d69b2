"""`sg.health`: watches a network in training."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepgrad.check.health import saving
from stepgrad.check.health.data import MOST_ROWS, by_rows, describe_data
from stepgrad.check.health.failing import Batch, Tail, find_cause
from stepgrad.check.health.looking import Looker
from stepgrad.check.health.pacing import Pace
from stepgrad.check.health.record import VERSION, Data, EpochRecord, Failure, GradientCheck, Run, Settings
from stepgrad.check.health.stepping import is_recording
from stepgrad.check.health.subject import Subject, copies_of
from stepgrad.check.health.theory import initial_loss
from stepgrad.errors import ArgumentError, TrainingError
from stepgrad.optim import Optimizer
from stepgrad.tensor import Array, ArrayLike


@dataclass
class _Seen:
    """What was recorded so far."""

    losses: list[Array] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)  # by hand: the first ones, to describe the data by
    failure: Failure | None = None


class Health:
    """Watches a network in training. Made by `sg.health`; print it for the report.

    Attributes:
        run: what was recorded so far, as plain numbers.
    """

    def __init__(self, subject: Subject, every: int | None, compiled: bool | None) -> None:
        self._subject = subject
        self._every, self._compiled = every, compiled
        self._start_anew()

    def _start_anew(self) -> None:
        self._seen = _Seen()
        self._pace = Pace(self._every)
        self._looker = Looker(self._subject, self._pace, self._compiled)
        self._tail = Tail()
        self._course: Any = None
        self._data: Data | None = None
        self._step = 0
        self._epoch = 1
        self._begun = time.perf_counter()
        self._ended: float | None = None

    # --- by hand

    def before(self, x: Any, y: Any) -> None:
        """To be called before each step of a loop of one's own; it looks at some of them.

        Args:
            x, y: the batch, as the model and the loss get it.
        """
        if is_recording():
            raise ArgumentError(
                "health.before was called inside of a function that is being compiled or differentiated",
                "it would be recorded, and run only then",
                "call it in the loop, before the compiled step: health.before(x, y); loss = step(x, y)",
            )
        x, y = _array(x), _array(y)
        self._step += 1
        rows = by_rows(x, y)
        if rows is not None and sum(len(seen[0]) for seen in self._seen.batches) < MOST_ROWS:
            self._seen.batches.append((rows[0].copy(), rows[1].copy()))
        if self._pace.wait(self._step) == 0:
            self.look(self._step, self._epoch, x, y)
        self._tail.keep((x.copy(), y.copy()), x.nbytes + y.nbytes)

    def after(self, loss: Any) -> None:
        """To be called after each step, with its loss: all are recorded, and one that is not finite is looked into.

        Args:
            loss: a number, or a tensor of shape ().
        """
        value = float(loss.item() if isinstance(loss, ArrayLike) else loss)
        self._seen.losses.append(np.array([value]))
        self._looker.done()
        if not math.isfinite(value) and self._seen.failure is None:
            self.failed(self._step, self._epoch, value, None)

    def epoch(self, *, loss: float | None = None, validation_loss: float | None = None, **metrics: float) -> None:
        """To be called at the end of each epoch.

        Args:
            loss: mean over the epoch; by default that of the steps since the last epoch.
            validation_loss: after it, if there are validation data.
            metrics: others, by name; those that begin with `validation_` are counted as such.
        """
        if loss is None:
            since = self._seen.epochs[-1].step if self._seen.epochs else 0
            losses = self._losses()[since:]
            loss = float(np.mean(losses)) if len(losses) else math.nan
        validation = {
            n.removeprefix("validation_"): float(v) for n, v in metrics.items() if n.startswith("validation_")
        }
        own = {n: float(v) for n, v in metrics.items() if not n.startswith("validation_")}
        late = None if validation_loss is None else float(validation_loss)
        self._seen.epochs.append(EpochRecord(self._epoch, self._step, float(loss), late, own, validation))
        self._epoch += 1

    # --- what `fit` tells

    def begin(self, course: Any) -> None:
        """A run of `sg.fit` begins: what was recorded until now is let go."""
        for name, own, theirs in (
            ("model", self._subject.model, course.model),
            ("optimizer", self._subject.optimizer, course.optimizer),
            ("loss", self._subject.loss, course.loss),
        ):
            if own is not theirs:
                raise ArgumentError(
                    f"fit was given a health of another {name}",
                    "it would look at something other than what is trained",
                    "make it from what fit gets: sg.health(model, loss, optimizer)",
                )
        self._start_anew()
        self._course = course
        self._pace = Pace(self._every, course.epochs * course.steps_per_epoch)
        self._looker = Looker(self._subject, self._pace, self._compiled)

    def wait(self, step: int, rows: int) -> int:
        """How many steps to do before it wants to look; 0: at this one."""
        waiting = self._pace.wait(step)
        if waiting == 0 and step > 1 and rows < self._course.batch_size:
            return 1  # the last batch of an epoch has fewer rows: another program, for one look
        return waiting

    def done(self, losses: Array, batches: Array) -> None:
        """Steps were done by `fit`."""
        self._seen.losses.append(np.array(losses, np.float64))
        self._tail.keep(batches, batches.nbytes)
        self._step += len(losses)
        if len(losses) == 1:
            self._looker.done()

    def end_epoch(self, record: Any, step: int) -> None:
        """An epoch of `fit` has ended."""
        self._seen.epochs.append(
            EpochRecord(
                epoch=record.epoch,
                step=step,
                loss=record.loss,
                validation_loss=record.validation_loss,
                metrics=dict(record.metrics),
                validation_metrics=dict(record.validation_metrics),
            )
        )

    def end(self) -> None:
        """The run of `fit` has ended."""
        self._ended = time.perf_counter()
        self._tail = Tail()

    def look(self, step: int, epoch: int, x: Any, y: Any) -> None:
        """Looks at a step before it is done. Model and optimizer stay as they are."""
        if self._looker.look(step, epoch, _array(x), _array(y)):
            self._tail.mark(copies_of(self._subject.cells()))

    # --- when it breaks

    def failed(self, step: int, epoch: int, loss: float | None, error: Exception | None) -> None:
        """A step had a loss that is not finite, or raised: looks for the first cause."""
        if self._seen.failure is not None:
            return
        what = getattr(error, "what", None) or str(error or f"the loss became {loss}")
        text, facts, replayed = "", {}, 0
        if self._tail.state is not None and loss is not None and isinstance(self._subject.optimizer, Optimizer):
            batches = self._tail.batches(None if self._course is None else self._course.data)
            cause = find_cause(self._subject, self._tail.state, batches)
            text, facts, replayed = cause.text, cause.facts, cause.replayed
        self._seen.failure = Failure(step, epoch, loss, what.splitlines()[0], text, facts, replayed)

    # --- what was found

    def check_gradients(self, x: Any, y: Any) -> GradientCheck:
        """Question 1, asked now: compares the gradients of the network with differences, on a batch, in float64.

        Args:
            x, y: the batch; its first rows are taken, 8 to 64 by the size of the network.
        """
        return self._looker.check(self._step + 1, _array(x), _array(y))

    @property
    def run(self) -> Run:
        """What was recorded so far.

        Raises:
            TrainingError: no step was seen yet.
        """
        looker, seen = self._looker, self._seen
        description = looker.description
        if description is None:
            raise TrainingError(
                "the health of a run was asked for, and no step was seen"
                + (f"; {looker.problem}" if looker.problem else ""),
                "there is nothing to judge by",
                "pass it to sg.fit(…, callbacks=[health]), or call health.before(x, y) before each step of a loop",
            )
        data, settings = self._described_data(), self._settings(description.settings)
        seconds = (self._ended or time.perf_counter()) - self._begun
        losses = self._losses()
        if seen.failure is not None and seen.failure.loss is not None:
            losses = losses[: seen.failure.step]
        return Run(
            version=VERSION,
            settings=settings,
            data=data,
            layers=description.layers,
            parameters=description.parameters,
            losses=tuple(losses.tolist()),
            samples=tuple(looker.samples),
            epochs=tuple(seen.epochs),
            gradient_checks=tuple(looker.checks),
            descents=tuple(looker.descents),
            failure=seen.failure,
            initial_loss_expected=_initial_loss(settings, data),
            seconds=seconds,
            overhead=self._pace.spent / seconds if seconds else None,
            problem=looker.problem,
        )

    def _losses(self) -> Array:
        return np.concatenate(self._seen.losses) if self._seen.losses else np.zeros(0)

    def _settings(self, settings: Settings) -> Settings:
        course = self._course
        if course is None:
            return replace(settings, compiled=self._looker.programs.compiled)
        return replace(
            settings,
            batch_size=course.batch_size,
            epochs=course.epochs,
            steps_per_epoch=course.steps_per_epoch,
            rows=len(course.data.X),
            compiled=self._looker.programs.compiled,
        )

    def _described_data(self) -> Data | None:
        if self._course is None:
            batches = [b for b in self._seen.batches if b[0].shape[1:] == self._seen.batches[0][0].shape[1:]]
            X, y = (np.concatenate(parts) for parts in zip(*batches, strict=True)) if batches else (None, None)
        else:
            X, y = self._course.data
            if self._data is not None:
                return self._data
        looker = self._looker
        if X is None or y is None or looker.description is None:
            return None
        repeats = looker.same / looker.neighbours if looker.neighbours else None
        self._data = describe_data(X, y, looker.description.classes, repeats)
        return self._data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what was recorded to a JSON file, for `stepgrad doctor`.

        Raises:
            FileError: it can't be written.
        """
        saving.save(self.run, path)

    def report(self) -> Any:
        """The three questions answered, with verdicts; print it, or write it with its `to_html` and others."""
        from stepgrad.check.health.diagnosis import diagnose

        return diagnose(self.run)

    def __repr__(self) -> str:
        if self._looker.description is None:
            problem = self._looker.problem
            return "health: no step was seen yet" + (f"; {problem}" if problem else "")
        return str(self.report())


def _initial_loss(settings: Settings, data: Data | None) -> float | None:
    if data is None:
        return None
    return initial_loss(settings.loss_ops, settings.loss, data.classes, data.target_mean, data.target_std)


def _array(value: Any) -> Array:
    return np.asarray(value.numpy() if isinstance(value, ArrayLike) else value)


def health(
    model: Callable[..., Any],
    loss: Callable[..., Any],
    optimizer: Any,
    *,
    every: int | None = None,
    prepare: Callable[[dict[str, Any]], Any] | None = None,
    compiled: bool | None = None,
) -> Health:
    """Watches a network in training: are its gradients right, do they flow, and does the optimizer use them well?

    As a callback of `sg.fit`, or by hand in a loop of one's own: `health.before(x, y)` before each step,
    `health.after(loss)` after it, and `health.epoch(validation_loss=…)` at the end of each epoch.

    It looks at a few steps before they are done: both passes and the update are recorded a second time with
    their statistics, as a program of their own, which changes nothing; so training takes the same course
    with it and without, to the last bit. How many steps it looks at is chosen so that it takes less than
    5 % of the time of longer runs. A few looks are taken at any rate, and gradients are compared with
    differences once: about 0.2 seconds for a small network, and a second for one with half a million parameters.

    Args:
        model: a module, or any function of a batch of inputs. Its layers are found on the tape.
        loss: (outputs, targets) -> tensor of shape ().
        optimizer: what trains it. What an optimizer that is not one of `sg.optim` does is not looked at.
        every: look at step 1 and at every so many-th after it, whatever that costs.
        prepare: what a loop of one's own makes of the gradients before the optimizer gets them:
            `lambda grads: sg.optim.clip_by_norm(grads, 1.0)`.
        compiled: True makes native programs of steps with statistics, False lets NumPy run them; by default
            they are compiled where training takes so long that it pays.

    Returns:
        A `Health`: print it, or see `.report()`, `.run` and `.save("run.json")`.

    Example:
        >>> X = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
        >>> model = sg.nn.Sequential(sg.nn.Linear(4, 8), sg.nn.ReLU(), sg.nn.Linear(8, 1))
        >>> optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
        >>> health = sg.health(model, sg.losses.mse, optimizer)
        >>> _ = sg.fit(model, sg.losses.mse, optimizer, (X, X[:, :1]), callbacks=[health], epochs=5, progress=False)
        >>> [layer.name for layer in health.run.layers], health.run.gradient_checks[0].ok
        (['0', '2'], True)
    """
    if not callable(model) or not callable(loss) or not callable(getattr(optimizer, "step", None)):
        raise ArgumentError(
            f"health was given {model!r:.40}, {loss!r:.40} and {optimizer!r:.40}",
            "it takes a network, its loss, and an optimizer with a method step",
            "write sg.health(model, sg.losses.mse, optimizer)",
        )
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ArgumentError(f"every={every!r} was asked for", "steps are counted from 1", "use for example every=10")
    subject = Subject(model, loss, optimizer, prepare)
    if not subject.parameters():
        raise ArgumentError(
            "health was given a model without parameters",
            "there is nothing that is trained",
            "pass a module with layers; for a plain function, an optimizer of sg.optim that has its parameters",
        )
    return Health(subject, every, compiled)
