"""Question 3: does the optimizer use the gradients well? The loss along its update, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stepgrad.check.health.record import Descent
from stepgrad.check.health.subject import Subject, record_pass, record_update
from stepgrad.check.replay import record_call
from stepgrad.errors import StepgradError
from stepgrad.execute.numpy import Program
from stepgrad.tape.equation import CELL
from stepgrad.tensor import Array

FURTHEST = 1024.0
"""The line search doubles the step at most this far, and halves it at most to its reciprocal."""
_NEAR = 1e-2
"""The factor at which curvature is measured."""

Line = Callable[[float], float]
"""factor -> loss at parameters + factor · update."""


def record_direction(subject: Subject) -> Callable[[Any, Any], Any]:
    """What to run for a batch: the gradients, and what the optimizer makes of them."""

    def direction(x: Any, y: Any) -> dict[str, Any]:
        passed = record_pass(subject, x, y)
        record_update(subject, passed)
        gradients = {path: passed.gradient(path) for path in passed.leaves}
        parameters = subject.parameters()
        return {
            "gradients": {path: g for path, g in gradients.items() if g is not None},
            "changes": {path: parameters[path]._tensor - leaf for path, leaf in passed.leaves.items()},
        }

    return direction


def descend(
    subject: Subject,
    step: int,
    x: Array,
    y: Array,
    gradients: Mapping[str, Array],
    changes: Mapping[str, Array],
    other: tuple[Array, Array] | None,
) -> Descent | None:
    """Evaluates the loss along an update that was not done yet.

    Args:
        subject: the network, with the parameters before the update.
        step: which.
        x, y: the batch of the update.
        gradients, changes: of the parameters, by path.
        other: another batch, or None.

    Returns:
        None where the loss could not be run again, or is not finite at the start.
    """
    wide = {path: np.asarray(change, np.float64) for path, change in changes.items()}
    try:
        line = _line(subject, x, y, wide)
        start = line(0.0)
        if not math.isfinite(start):
            return None
        known = _searched(line, start)
        around = line(_NEAR), line(-_NEAR)
        beyond = None if other is None else _line(subject, *other, wide)
        elsewhere = None if beyond is None else beyond(1.0) - beyond(0.0)
    except StepgradError:
        return None
    length = math.sqrt(sum(float(np.sum(np.square(change))) for change in wide.values()))
    slope = sum(float(np.sum(np.asarray(g, np.float64) * wide[path])) for path, g in gradients.items())
    steepness = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients.values()))
    factors = sorted(known)
    best = min((f for f in factors if math.isfinite(known[f])), key=lambda f: known[f])
    return Descent(
        step=step,
        loss=start,
        predicted=slope,
        actual=known[1.0] - start,
        best_factor=best,
        best_loss=known[best],
        factors=tuple(factors),
        losses=tuple(known[f] for f in factors),
        cosine=-slope / (length * steepness) if length and steepness else 0.0,
        curvature=(around[0] - 2 * start + around[1]) / (_NEAR * length) ** 2 if length else 0.0,
        next_batch_change=elsewhere,
    )


def _line(subject: Subject, x: Array, y: Array, changes: Mapping[str, Array]) -> Line:
    """The loss as a function of how much of the changes is made."""

    def network_loss() -> Any:
        return subject.loss(subject.model(x), y)

    recorded = record_call(network_loss, (), None)
    program = Program(recorded.tape, np.float64)
    paths = {cell: path for path, cell in subject.parameters().items()}
    read = [e for e in recorded.tape.leaves() if e.op is CELL and e.params["cell"] in paths]
    places = {e: paths[e.params["cell"]] for e in read}
    start = {e: np.asarray(e.value, np.float64) for e in read}

    def line(factor: float) -> float:
        moved = {e: start[e] + factor * changes[path] for e, path in places.items()}
        with np.errstate(all="ignore"):
            return float(program.run(moved)[0])

    return line


def _searched(line: Line, start: float) -> dict[float, float]:
    """Losses at 0, 1 and factors around the best: each twice the last, and then the vertex of a parabola."""
    known = {0.0: start, 1.0: line(1.0), 0.5: line(0.5), 2.0: line(2.0)}

    def lower(one: float, other: float) -> bool:
        return known[one] < known[other] or not math.isfinite(known[other])

    factor = 2.0
    while factor < FURTHEST and lower(factor, factor / 2):
        factor *= 2
        known[factor] = line(factor)
    factor = 0.5
    while factor > 1 / FURTHEST and (not lower(factor, 0.0) or lower(factor, 2 * factor)):
        factor /= 2
        known[factor] = line(factor)
    factors = sorted(known)
    best = min((f for f in factors if math.isfinite(known[f])), key=lambda f: known[f])
    at = factors.index(best)
    if 0 < at < len(factors) - 1:
        vertex = _vertex(*[(f, known[f]) for f in factors[at - 1 : at + 2]])
        if vertex is not None:
            known[vertex] = line(vertex)
    return known


def _vertex(*points: tuple[float, float]) -> float | None:
    """Where the parabola through three points is lowest, if that is between them."""
    (a, fa), (b, fb), (c, fc) = points
    above = (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa)
    below = (b - a) * (fb - fc) - (b - c) * (fb - fa)
    if not all(map(math.isfinite, (fa, fb, fc))) or below == 0:
        return None
    vertex = b - above / (2 * below)
    return vertex if a < vertex < c and vertex not in (a, b, c) else None
