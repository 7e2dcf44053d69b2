"""AutoTrainer's five problems (Zhang et al., "AUTOTRAINER: An Automatic DNN Training Problem Detection
and Repair System", ICSE 2021; default parameters as in its repository, github.com/shiningrain/AUTOTRAINER).

Its accuracy is the score here, so that trainings with numbers as targets are judged as well (R²). Vanishing, exploding
and dying are only reported where the training has not converged: where no epoch reached Θ = 0.7.
"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.health.references.rule import FLOW, GROWTH, UNITS, Rule, Tool, by_epoch
from benchmarks.health.watched import Course, Snapshot

_THETA = 0.7


def _poor(course: Course) -> bool:
    """Not converged: the best score, in training or validation, is below Θ; or it never rose by δ = 0.01."""
    train, held = by_epoch(course, "score"), by_epoch(course, "held score")
    return not train or max(train) < _THETA or max(held) < _THETA or _flat(course)


def _flat(course: Course) -> bool:
    scores = (by_epoch(course, "score"), by_epoch(course, "held score"))
    rises = [b - a for one in scores for a, b in itertools.pairwise(one)]
    return bool(rises) and max(rises) < 0.01


def _norms(course: Course, snapshot: Snapshot) -> tuple[float, float]:
    """Of the gradient of the first and the last weight."""
    kernels = course.kernels()
    first, last = (float(np.linalg.norm(snapshot.gradients[name])) for name in (kernels[0], kernels[-1]))
    return first, last


def vanishing(course: Course) -> bool:
    """Gradient vanish: first over last weight's gradient norm below β1 = 1e-3, and the first below β2 = 1e-4."""

    def small(snapshot: Snapshot) -> bool:
        first, last = _norms(course, snapshot)
        return first < 1e-4 and first < 1e-3 * last

    return _poor(course) and any(small(s) for s in course.snapshots)


def exploding(course: Course) -> bool:
    """Gradient explode: the same ratio above β3 = 70; or NaN or Inf in loss, weights or gradients; or loss > 1e5."""
    losses = by_epoch(course, "held loss")
    if not np.isfinite(course.losses).all() or (losses and not losses[-1] < 1e5):
        return True
    if any(not np.isfinite(t).all() for s in course.snapshots for t in (*s.after.values(), *s.gradients.values())):
        return True

    def large(snapshot: Snapshot) -> bool:
        first, last = _norms(course, snapshot)
        return first > 70 * last > 0

    return _poor(course) and any(large(s) for s in course.snapshots)


def dying(course: Course) -> bool:
    """Dying ReLU: at least γ = 0.7 of all elements of the gradients are exactly 0."""

    def zeros(snapshot: Snapshot) -> float:
        found = np.concatenate([g.ravel() for g in snapshot.gradients.values()])
        return float(np.mean(found == 0))

    return _poor(course) and any(zeros(s) >= 0.7 for s in course.snapshots)


def oscillating(course: Course) -> bool:
    """Oscillating loss: local maxima and minima of the accuracy differ by ζ = 0.03, in η = 0.2 of the epochs."""
    scores = by_epoch(course, "score")
    inner = range(1, len(scores) - 1)
    tops = [scores[i] for i in inner if scores[i] >= scores[i - 1] and scores[i] >= scores[i + 1]]
    lows = [scores[i] for i in inner if scores[i] <= scores[i - 1] and scores[i] <= scores[i + 1]]
    swings = sum(top - low >= 0.03 for top, low in zip(tops, lows, strict=False))
    return bool(scores) and not _poor(course) and swings > 0 and swings >= 0.2 * len(scores)


def slow(course: Course) -> bool:
    """Slow convergence: from one epoch to the next the accuracy never rises by δ = 0.01."""
    return _flat(course)


TOOL = Tool(
    "AutoTrainer",
    "Zhang et al., ICSE 2021; github.com/shiningrain/AUTOTRAINER",
    (
        Rule("gradient vanish", vanishing, FLOW | {"saturated-units", "poor-initialisation"}),
        Rule("gradient explode", exploding, GROWTH | {"learning-rate-too-high"}),
        Rule("dying ReLU", dying, UNITS),
        Rule("oscillating loss", oscillating, frozenset({"learning-rate-too-high"})),
        Rule("slow convergence", slow, frozenset({"learning-rate-too-low", "underfitting"})),
    ),
)
