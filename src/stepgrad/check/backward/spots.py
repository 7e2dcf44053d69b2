"""Points at which a forward and a backward are run, and the right gradients there."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.backward.running import Run, Runner, Spot
from stepgrad.check.backward.subject import Subject
from stepgrad.check.backward.truth import Truth, truth_of
from stepgrad.check.backward.watching import Watched
from stepgrad.errors import ArgumentError, StepgradError
from stepgrad.tensor import Array
from stepgrad.tree import flatten

AGREES = 1e-4
"""A recorded gradient that is further than this from a finite difference is not believed."""

MOST_SLOPES = 400
"""How many elements of an array are compared one by one where the forward can't be recorded."""


def spots_at(subjects: Sequence[Subject], hooks: Sequence[Watched], rng: np.random.Generator) -> list[Spot]:
    """A spot for each subject, without those that the forward does not accept.

    Raises:
        ArgumentError: the forward raised, or gave NaN, at the first, which has the user's own inputs.
    """
    spots = []
    for number, subject in enumerate(subjects):
        try:
            spots.append(spot_at(subject, hooks, rng, tested=number < 2))
        except StepgradError:
            if number == 0:
                raise
        except Exception as error:
            if number == 0:
                raise _raised(subject, error) from error
    return spots


def _raised(subject: Subject, error: Exception) -> ArgumentError:
    files = {f.__code__.co_filename for f in subject.forward_functions if hasattr(f, "__code__")}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    at = f"\n  at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    return ArgumentError(
        f"forward() raised {type(error).__name__}: {error}{at}",
        "its gradient is what the backward is compared with, so it has to run",
        "pass inputs that forward can be called with"
        + (f", or run `python {os.path.basename(frames[-1].filename)}` to see the whole traceback" if frames else ""),
    )


def _check_finite(subject: Subject, outputs: Any) -> None:
    """Raises ArgumentError for NaN or infinity."""
    found = [name for name, value in subject.inputs.items() if not np.isfinite(value).all()]
    if not found and all(np.isfinite(np.asarray(leaf, np.float64)).all() for leaf in flatten(outputs)[0]):
        return
    what = f"{', '.join(found)} of {subject.name} hold" if found else f"the forward of {subject.name} returned"
    raise ArgumentError(
        f"{what} NaN or infinity",
        "there is no gradient at such a point to compare with",
        "pass numbers at which the loss is finite; sg.first_nan tells where in the forward it is not",
    )


def spot_at(subject: Subject, hooks: Sequence[Watched], rng: np.random.Generator, tested: bool) -> Spot:
    """Runs and records the forward pass at the subject's inputs.

    Args:
        subject: what is checked, and where.
        hooks: functions of the forward pass, to be watched for names.
        rng: for downstream gradients and directions.
        tested: whether the recorded gradients are compared with finite differences.

    Raises:
        Exception: what the user's forward raises on arrays.
    """
    inputs = subject.inputs
    with np.errstate(all="ignore"):
        outputs, context = subject.forward(inputs)
    _check_finite(subject, outputs)
    downstream = _downstream(outputs, rng)
    truth: Truth | None = None
    if subject.recordable:
        try:
            truth = truth_of(subject, inputs, hooks, None if downstream is None else flatten(downstream)[0])
        except Exception:  # it does something that only works on arrays
            truth = None
    difference = 0.0
    if truth is not None and tested:
        difference = _difference(subject, truth, downstream, rng)
        if difference > AGREES:  # part of the forward was computed off the tape
            truth = None
    if truth is None:
        return Spot(subject, inputs, context, None, slopes(subject, downstream, rng), downstream)
    right = {name: truth.gradient(name) for name in inputs}
    return Spot(subject, inputs, context, truth, right, downstream, difference=difference)


def _downstream(outputs: Any, rng: np.random.Generator) -> Any:
    """None for a loss; otherwise random numbers in the structure of the outputs."""
    leaves, _, rebuild = flatten(outputs)
    if len(leaves) == 1 and np.size(leaves[0]) == 1:
        return None
    return rebuild([rng.standard_normal(np.shape(leaf)) for leaf in leaves])


def _loss(subject: Subject, inputs: Mapping[str, Array], downstream: Any) -> float:
    """What the forward returns, weighted with the downstream gradient."""
    parts = flatten(subject.forward(inputs)[0])[0]
    weights = [1.0] if downstream is None else flatten(downstream)[0]
    return float(sum(np.sum(np.asarray(p, np.float64) * w) for p, w in zip(parts, weights, strict=True)))


def _difference(subject: Subject, truth: Truth, downstream: Any, rng: np.random.Generator) -> float:
    """How far the recorded gradients are from central differences along random directions, relative to the largest.

    Where a step crosses a kink, a smaller one is tried.
    """
    worst = 0.0
    largest = max((float(np.max(np.abs(truth.gradient(n)))) for n, v in subject.inputs.items() if v.size), default=0.0)
    for name, value in subject.inputs.items():
        if not value.size:
            continue
        direction = rng.standard_normal(value.shape)
        ours = float(np.vdot(truth.gradient(name), direction))
        errors = []
        for step in (1e-5, 1e-6, 1e-7):
            up = _loss(subject, {**subject.inputs, name: value + step * direction}, downstream)
            down = _loss(subject, {**subject.inputs, name: value - step * direction}, downstream)
            slope = (up - down) / (2 * step)
            scale = max(abs(ours), abs(slope), 1e-3 * largest, 1e-10 * abs(up) / step)
            errors.append(abs(ours - slope) / scale if scale else 0.0)
            if errors[-1] < 1e-6:
                break
        worst = max(worst, min(errors))
    return worst


def slopes(subject: Subject, downstream: Any, rng: np.random.Generator) -> dict[str, Array]:
    """Gradients by central differences, element by element; NaN for elements of large arrays that were left out."""
    found = {}
    for name, value in subject.inputs.items():
        gradient = np.full(value.shape, np.nan)
        places = list(np.ndindex(value.shape))
        if len(places) > MOST_SLOPES:
            places = [places[i] for i in rng.choice(len(places), MOST_SLOPES, replace=False)]
        for place in places:
            step = 6e-6 * max(1.0, abs(float(value[place])))  # near the cube root of float64's resolution
            up, down = value.copy(), value.copy()
            up[place] += step
            down[place] -= step
            difference = _loss(subject, {**subject.inputs, name: up}, downstream) - _loss(
                subject, {**subject.inputs, name: down}, downstream
            )
            gradient[place] = difference / (2 * step)
        found[name] = gradient
    return found


def is_by_chance(runner: Runner, spot: Spot, run: Run, hooks: Sequence[Watched], rng: np.random.Generator) -> bool:
    """Whether what is wrong at a point is another thing, or nothing, a tiny step beside it.

    A mistake changes smoothly with the inputs; a kink and rounding do not.
    """
    if run.error is not None:
        return False
    moved = {n: v + 1e-7 * (np.abs(v) + 1e-2) * rng.standard_normal(v.shape) for n, v in spot.inputs.items()}
    beside = spot_at(replace(spot.subject, inputs=moved), hooks, rng, tested=False)
    if spot.downstream is not None:
        return False
    again = runner.run(beside)
    for name, right in spot.right.items():
        if name not in run.gradients or name not in again.gradients:
            continue
        here, there = np.asarray(run.gradients[name]), np.asarray(again.gradients[name])
        if here.shape != right.shape or there.shape != right.shape:
            return False
        before, after = here - right, there - beside.right[name]
        size = float(np.linalg.norm(before))
        if size > 1e-6 * float(np.linalg.norm(right)) and float(np.linalg.norm(after - before)) < 0.3 * size:
            return False
    return True
