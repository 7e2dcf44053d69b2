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
from stepgrad.check.health.correctness import check_network
from stepgrad.check.health.data import MOST_ROWS, describe_data, describe_outputs, repeated
from stepgrad.check.health.descent import descend, record_direction
from stepgrad.check.health.describing import Description, describe, learning_rate
from stepgrad.check.health.failing import Batch, find_cause
from stepgrad.check.health.noise import read_noise, record_noise
from stepgrad.check.health.pacing import MOST, Pace
from stepgrad.check.health.record import (
    VERSION,
    Data,
    Descent,
    EpochRecord,
    Failure,
    GradientCheck,
    Run,
    Sample,
    Settings,
)
from stepgrad.check.health.statistics import (
    clipping,
    layer_samples,
    loss_parts,
    parameter_samples,
    read_columns,
    record_statistics,
)
from stepgrad.check.health.stepping import Programs, is_recording
from stepgrad.check.health.subject import Pass, Subject, copies_of, record_pass
from stepgrad.check.health.theory import initial_loss
from stepgrad.errors import ArgumentError, StepgradError, TrainingError
from stepgrad.optim import Optimizer
from stepgrad.tensor import Array, ArrayLike

_COMPILING = 1.0
"""Seconds that it takes to make a program with statistics; it pays if a run takes this many times longer:"""
_WORTH = 25

_NOISE_EVERY = 4
"""Looks from one estimate of the noise to the next."""

_MOST_KEPT = 2**26
"""Bytes of batches that are kept to be done again, should the run break."""

_MOST_DESCENTS = 24
_DESCENTS = (1, 3, 10)
"""Steps at which the loss along the update is looked at, whatever it takes, if steps are looked at at given ones."""


@dataclass
class _Seen:
    """What was recorded so far."""

    losses: list[Array] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    checks: list[GradientCheck] = field(default_factory=list)
    descents: list[Descent] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)  # by hand: the first ones, to describe the data by
    neighbours: list[int] = field(default_factory=lambda: [0, 0])
    failure: Failure | None = None


class Health:
    """Watches a network in training. Made by `sg.health`; print it for the report.

    Attributes:
        run: what was recorded so far, as plain numbers.
    """

    def __init__(self, subject: Subject, every: int | None, compiled: bool | None) -> None:
        self._subject = subject
        self._every, self._compiled_wanted = every, compiled
        self._start_anew()

    def _start_anew(self) -> None:
        self._seen = _Seen()
        self._pace = Pace(self._every)
        self._programs = Programs(self._subject)
        self._description: Description | None = None
        self._names: list[str] = []
        self._passed: Pass | None = None
        self._course: Any = None
        self._data: Data | None = None
        self._step = 0
        self._epoch = 1
        self._looks = 0
        self._descending = 0.0  # seconds that the last look along an update took
        self._stride = 1  # every so many-th look is kept
        self._good: dict[str, Array] | None = None
        self._since: list[Any] = []  # batches since then: (x, y), or row numbers of the course's data
        self._since_bytes = 0
        self._previous: Batch | None = None
        self._pending: Batch | None = None
        self._problem = ""
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
        if sum(len(seen[0]) for seen in self._seen.batches) < MOST_ROWS and x.ndim:
            self._seen.batches.append((x.copy(), y.copy()))
        if self._pace.wait(self._step) == 0:
            self.look(self._step, self._epoch, x, y)
        self._keep((x.copy(), y.copy()), x.nbytes + y.nbytes)
        self._pending = x, y

    def after(self, loss: Any) -> None:
        """To be called after each step, with its loss: all are recorded, and one that is not finite is looked into.

        Args:
            loss: a number, or a tensor of shape ().
        """
        value = float(loss.item() if isinstance(loss, ArrayLike) else loss)
        self._seen.losses.append(np.array([value]))
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

    def wait(self, step: int, rows: int) -> int:
        """How many steps to do before it wants to look; 0: at this one."""
        waiting = self._pace.wait(step)
        if waiting == 0 and step > 1 and rows < self._course.batch_size:
            return 1  # the last batch of an epoch has fewer rows: another program, for one look
        return waiting

    def done(self, losses: Array, batches: Array) -> None:
        """Steps were done by `fit`."""
        self._seen.losses.append(np.array(losses, np.float64))
        self._keep(batches, batches.nbytes)
        self._step += len(losses)

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
        self._good, self._since, self._previous = None, [], None

    # --- looking

    def look(self, step: int, epoch: int, x: Any, y: Any) -> None:
        """Looks at a step before it is done. Model and optimizer stay as they are."""
        begin, computed = time.perf_counter(), time.thread_time()
        paid = 0.0
        try:
            if not self._problem:
                paid = self._look(step, epoch, _array(x), _array(y))
        except StepgradError as error:
            # The step itself will raise it, where the user expects it; if it does not, the report says it.
            self._problem = f"looking stopped at step {step}: {error.what.splitlines()[0]}"
        self._pace.looked(step, time.perf_counter() - begin, time.thread_time() - computed, paid)

    def _look(self, step: int, epoch: int, x: Array, y: Array) -> float:
        description = self._description
        paid = 0.0
        if description is None:
            description = self._description = describe(self._subject, x, y, False)
            self._seen.checks.append(check_network(self._subject, x, y, step))
        compiled = self._compiles()
        if compiled and not self._programs.made(self._statistics, x, y, True):
            begin = time.perf_counter()
            found = self._programs.run(self._statistics, x, y, True)
            paid = time.perf_counter() - begin
        else:
            found = self._programs.run(self._statistics, x, y, compiled)
        noise = None
        if self._looks % _NOISE_EVERY == 0 and len(x) >= 2 and len(x) == len(y):
            half = len(x) // 2
            halves = np.stack([x[:half], x[half : 2 * half]]), np.stack([y[:half], y[half : 2 * half]])
            noise = read_noise(self._programs.run(self._noise, *halves, compiled), 2 * half)
        sample = self._sample(step, epoch, x, y, found, noise)
        if self._looks % self._stride == 0:
            self._seen.samples.append(sample)
            self._thin()
        if self._wants_descent(step):
            self._descend(step, x, y)
        if math.isfinite(sample.loss) and not any(p.nonfinite or p.gradient_nonfinite for p in sample.parameters):
            self._good, self._since, self._since_bytes = copies_of(self._subject.cells()), [], 0
        same, all_of_them = repeated(y)
        self._seen.neighbours[0] += same
        self._seen.neighbours[1] += all_of_them
        self._previous = x.copy(), y.copy()
        self._looks += 1
        return paid

    def _compiles(self) -> bool:
        if self._compiled_wanted is not None:
            return self._compiled_wanted
        return self._pace.will_train() > _WORTH * _COMPILING

    def _statistics(self, x: Any, y: Any) -> Any:
        """Recorded and run as a program."""
        assert self._description is not None
        self._passed = record_pass(self._subject, x, y)
        self._names, found = record_statistics(self._subject, self._passed, self._description.activations)
        return found

    def _noise(self, x: Any, y: Any) -> Any:
        return record_noise(self._subject, x, y)

    def _sample(self, step: int, epoch: int, x: Array, y: Array, found: Any, noise: Any) -> Sample:
        description, passed = self._description, self._passed
        assert description is not None
        assert passed is not None
        groups = read_columns(self._names, found["numbers"])
        layers = layer_samples(passed.layers, groups, found["units"])
        parameters = parameter_samples([info.size for info in description.parameters], groups)
        weight_norm = math.hypot(*(p.norm for p in parameters))
        decay = description.settings.options.get("weight_decay", 0.0)
        outputs = found["outputs"]
        probabilities = description.settings.last_op in ("sigmoid", "softmax")
        return Sample(
            step=step,
            epoch=epoch,
            loss=groups[""]["loss"],
            learning_rate=learning_rate(self._subject.optimizer),
            batch_size=len(x) if x.ndim else 1,
            gradient_norm=math.hypot(*(p.gradient_norm for p in parameters)),
            update_norm=math.hypot(*(p.update_norm for p in parameters)),
            weight_norm=weight_norm,
            layers=layers,
            parameters=parameters,
            outputs=None if outputs is None else describe_outputs(outputs, x, y, probabilities),
            noise=noise,
            clipping=clipping(groups, len(parameters)),
            penalty=decay / 2 * weight_norm**2,
            decay_norm=decay * weight_norm,
            loss_parts=loss_parts(passed, groups),
        )

    def _thin(self) -> None:
        """Lets every second sample go if there are too many; the first and the last stay."""
        samples = self._seen.samples
        if len(samples) > 4 * MOST and self._every is None:
            self._seen.samples = samples[::2] if len(samples) % 2 else [*samples[:-1:2], samples[-1]]
            self._stride *= 2

    def _wants_descent(self, step: int) -> bool:
        if not isinstance(self._subject.optimizer, Optimizer):
            return False
        done, total = self._seen.descents, self._pace.total
        if len(done) < len(_DESCENTS) and self._pace.every is not None:
            return step >= _DESCENTS[len(done)]
        if len(done) < len(_DESCENTS) and step >= (1, (total or 40) // 4, (total or 400) * 3 // 4)[len(done)]:
            return True
        gap = max(total // _MOST_DESCENTS, 1) if total else done[-1].step
        return bool(done) and step >= done[-1].step + gap and self._pace.affords(self._descending, step)

    def _descend(self, step: int, x: Array, y: Array) -> None:
        begin = time.perf_counter()
        found = self._programs.run(self._direction, x, y)
        other = self._previous
        if other is not None and other[0].shape != x.shape:
            other = None
        descent = descend(self._subject, step, x, y, found["gradients"], found["changes"], other)
        if descent is not None:
            self._seen.descents.append(descent)
        self._descending = time.perf_counter() - begin

    def _direction(self, x: Any, y: Any) -> Any:
        return record_direction(self._subject)(x, y)

    # --- when it breaks

    def _keep(self, batch: Any, size: int) -> None:
        """Remembers what was done since the last good state."""
        if self._good is None:
            return
        self._since.append(batch)
        self._since_bytes += size
        if self._since_bytes > _MOST_KEPT:
            self._good, self._since, self._since_bytes = None, [], 0

    def failed(self, step: int, epoch: int, loss: float | None, error: Exception | None) -> None:
        """A step had a loss that is not finite, or raised: looks for the first cause."""
        if self._seen.failure is not None:
            return
        what = getattr(error, "what", None) or str(error or f"the loss became {loss}")
        text, facts, replayed = "", {}, 0
        if self._good is not None and loss is not None and isinstance(self._subject.optimizer, Optimizer):
            cause = find_cause(self._subject, self._good, self._batches_since())
            text, facts, replayed = cause.text, cause.facts, cause.replayed
        self._seen.failure = Failure(step, epoch, loss, what.splitlines()[0], text, facts, replayed)

    def _batches_since(self) -> list[Batch]:
        if self._course is None:
            return list(self._since)
        X, y = self._course.data
        return [(X[rows], y[rows]) for batches in self._since for rows in batches]

    # --- what was found

    def check_gradients(self, x: Any, y: Any) -> GradientCheck:
        """Question 1, asked now: compares the gradients of the network with differences, on a batch, in float64.

        Args:
            x, y: the batch; its first rows are taken, 8 to 64 by the size of the network.
        """
        check = check_network(self._subject, _array(x), _array(y), self._step + 1)
        self._seen.checks.append(check)
        return check

    @property
    def run(self) -> Run:
        """What was recorded so far.

        Raises:
            TrainingError: no step was seen yet.
        """
        description, seen = self._description, self._seen
        if description is None:
            raise TrainingError(
                "the health of a run was asked for, and no step was seen"
                + (f"; {self._problem}" if self._problem else ""),
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
            samples=tuple(seen.samples),
            epochs=tuple(seen.epochs),
            gradient_checks=tuple(seen.checks),
            descents=tuple(seen.descents),
            failure=seen.failure,
            initial_loss_expected=_initial_loss(settings, data),
            seconds=seconds,
            overhead=self._pace.spent / seconds if seconds else None,
            problem=self._problem,
        )

    def _losses(self) -> Array:
        return np.concatenate(self._seen.losses) if self._seen.losses else np.zeros(0)

    def _settings(self, settings: Settings) -> Settings:
        course = self._course
        if course is None:
            return replace(settings, compiled=self._programs.compiled)
        return replace(
            settings,
            batch_size=course.batch_size,
            epochs=course.epochs,
            steps_per_epoch=course.steps_per_epoch,
            rows=len(course.data.X),
            compiled=self._programs.compiled,
        )

    def _described_data(self) -> Data | None:
        if self._course is None:
            batches = self._seen.batches
            X, y = (np.concatenate(parts) for parts in zip(*batches, strict=True)) if batches else (None, None)
        else:
            X, y = self._course.data
            if self._data is not None:
                return self._data
        if X is None or y is None or self._description is None:
            return None
        same, neighbours = self._seen.neighbours
        self._data = describe_data(X, y, self._description.classes, same / neighbours if neighbours else None)
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
        if self._description is None:
            return "health: no step was seen yet" + (f"; {self._problem}" if self._problem else "")
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
    5 % of the time (and 0.2 seconds at most in runs that are over in a few seconds).

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
