"""Looking at a step: its statistics, from a program that changes nothing, and now and then more."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.health.correctness import check_network
from stepgrad.check.health.data import by_rows, describe_outputs, repeated
from stepgrad.check.health.descent import descend, record_direction
from stepgrad.check.health.describing import Description, describe, learning_rate
from stepgrad.check.health.noise import read_noise, record_noise
from stepgrad.check.health.pacing import MOST, Pace
from stepgrad.check.health.record import Descent, GradientCheck, ParameterSample, Sample
from stepgrad.check.health.statistics import (
    clipping,
    layer_samples,
    loss_parts,
    parameter_samples,
    read_columns,
    record_statistics,
)
from stepgrad.check.health.stepping import Programs
from stepgrad.check.health.subject import Pass, Subject, record_pass
from stepgrad.errors import StepgradError
from stepgrad.optim import Optimizer
from stepgrad.tensor import Array

_COMPILING = 1.0
"""Seconds that it takes to make a program with statistics; it pays if a run takes this many times longer:"""
_WORTH = 25

_NOISE_EVERY = 4
"""Looks from one estimate of the noise to the next."""

_MOST_DESCENTS = 24
_DESCENTS = (1, 3, 10)
"""Steps at which the loss along the update is looked at, whatever it takes, if steps are looked at at given ones."""


class Looker:
    """Looks at steps of a network, and keeps what it saw.

    Args:
        subject: the network.
        pace: counts what looking takes.
        compiled: whether to make native programs; None: where it pays.

    Attributes:
        description: of the network, once a step was seen.
        samples, checks, descents: what was seen.
        same, neighbours: how many neighbours in batches had the same label, and how many there were.
        problem: why looking stopped; empty as long as it goes on.
        programs: that it made.
    """

    def __init__(self, subject: Subject, pace: Pace, compiled: bool | None) -> None:
        self._subject, self._pace, self._wanted = subject, pace, compiled
        self.programs = Programs(subject)
        self.description: Description | None = None
        self.samples: list[Sample] = []
        self.checks: list[GradientCheck] = []
        self.descents: list[Descent] = []
        self.same = self.neighbours = 0
        self.problem = ""
        self._recorded: dict[Any, tuple[list[str], Pass]] = {}  # shapes of a batch -> what was recorded for it
        self._looks = 0
        self._stride = 1  # every so many-th look is kept
        self._searching = isinstance(subject.optimizer, Optimizer)
        self._descending = 0.0  # seconds that the last look along an update took
        self._previous: tuple[Array, Array] | None = None
        self._old: dict[str, Array] | None = None  # parameters before a step whose update is not known yet

    def look(self, step: int, epoch: int, x: Array, y: Array) -> bool:
        """Looks at a step before it is done.

        Returns:
            Whether everything in it is finite.
        """
        begin, computed = time.perf_counter(), time.thread_time()
        paid, finite = 0.0, False
        try:
            if not self.problem:
                paid, finite = self._look(step, epoch, x, y)
        except StepgradError as error:
            # The step itself will raise it, where the user expects it; if it does not, the report says it.
            self.problem = f"looking stopped at step {step}: {error.what.splitlines()[0]}"
        self._pace.looked(step, time.perf_counter() - begin, time.thread_time() - computed, paid)
        return finite

    def done(self) -> None:
        """The step was done: measures the update of an optimizer that can't be looked into."""
        if self._old is None or not self.samples:
            return
        new = self._subject.parameters()
        updates = [float(np.linalg.norm(new[path].numpy() - old)) for path, old in self._old.items()]
        self._old, last = None, self.samples[-1]
        parameters = tuple(
            replace(p, update_norm=u, ratio=u / p.norm if p.norm else None)
            for p, u in zip(last.parameters, updates, strict=True)
        )
        self.samples[-1] = replace(last, parameters=parameters, update_norm=math.hypot(*updates))

    def check(self, step: int, x: Array, y: Array) -> GradientCheck:
        """Question 1, before a step."""
        self.checks.append(check_network(self._subject, x, y, step))
        return self.checks[-1]

    def _look(self, step: int, epoch: int, x: Array, y: Array) -> tuple[float, bool]:
        if self.description is None:
            self.description = describe(self._subject, x, y, False)
            self.check(step, x, y)
        compiled = self._compiles()
        begin, made = time.perf_counter(), self.programs.made(self._statistics, x, y, compiled)
        found = self.programs.run(self._statistics, x, y, compiled)
        paid = 0.0 if made or not compiled else time.perf_counter() - begin
        noise = None
        if self._looks % _NOISE_EVERY == 0 and x.ndim and y.ndim and len(x) == len(y) > 1:
            half = len(x) // 2
            halves = np.stack([x[:half], x[half : 2 * half]]), np.stack([y[:half], y[half : 2 * half]])
            noise = read_noise(self.programs.run(self._noise, *halves, compiled), 2 * half)
        sample = self._sample(step, epoch, x, y, found, noise)
        if self._looks % self._stride == 0:
            self.samples.append(sample)
            self._thin()
            if not isinstance(self._subject.optimizer, Optimizer):
                self._old = {path: cell.numpy() for path, cell in self._subject.parameters().items()}
        if self._wants_descent(step):
            self._descend(step, x, y)
        same, neighbours = repeated(y)
        self.same, self.neighbours = self.same + same, self.neighbours + neighbours
        self._previous = x.copy(), y.copy()
        self._looks += 1
        return paid, math.isfinite(sample.loss) and all(map(_finite, sample.parameters))

    def _compiles(self) -> bool:
        return self._pace.will_train() > _WORTH * _COMPILING if self._wanted is None else self._wanted

    def _statistics(self, x: Any, y: Any) -> Any:
        """Recorded, and run as a program."""
        assert self.description is not None
        passed = record_pass(self._subject, x, y)
        names, found = record_statistics(self._subject, passed, self.description.activations)
        self._recorded[x.shape, y.shape] = names, passed
        return found

    def _noise(self, x: Any, y: Any) -> Any:
        return record_noise(self._subject, x, y)

    def _direction(self, x: Any, y: Any) -> Any:
        return record_direction(self._subject)(x, y)

    def _sample(self, step: int, epoch: int, x: Array, y: Array, found: Any, noise: Any) -> Sample:
        description, (names, passed) = self.description, self._recorded[x.shape, y.shape]
        assert description is not None
        groups = read_columns(names, found["numbers"])
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
            batch_size=_rows(x, y),
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
        samples = self.samples
        if len(samples) > 4 * MOST and self._pace.every is None:
            self.samples = samples[::2] if len(samples) % 2 else [*samples[:-1:2], samples[-1]]
            self._stride *= 2

    def _wants_descent(self, step: int) -> bool:
        done, total = self.descents, self._pace.total
        if not self._searching:
            return False
        if len(done) < len(_DESCENTS) and self._pace.every is not None:
            return step >= _DESCENTS[len(done)]
        if len(done) < len(_DESCENTS) and step >= (1, (total or 40) // 4, (total or 400) * 3 // 4)[len(done)]:
            return True
        gap = max(total // _MOST_DESCENTS, 1) if total else done[-1].step
        return bool(done) and step >= done[-1].step + gap and self._pace.affords(self._descending, step)

    def _descend(self, step: int, x: Array, y: Array) -> None:
        begin = time.perf_counter()
        found = self.programs.run(self._direction, x, y)
        other = self._previous
        if other is not None and other[0].shape != x.shape:
            other = None
        descent = descend(self._subject, step, x, y, found["gradients"], found["changes"], other)
        if descent is None:
            self._searching = False  # it can't be run again, so it never can
        else:
            self.descents.append(descent)
        self._descending = time.perf_counter() - begin


def _finite(parameter: ParameterSample) -> bool:
    return not parameter.nonfinite and not parameter.gradient_nonfinite


def _rows(x: Array, y: Array) -> int:
    rows = by_rows(x, y)
    return len(x) if rows is None and x.ndim else 1 if rows is None else len(rows[0])
