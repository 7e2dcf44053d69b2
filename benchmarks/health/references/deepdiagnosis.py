"""DeepDiagnosis' eight symptoms, and the fixes it proposes for them (Wardat et al., "DeepDiagnosis: Automatically
Diagnosing Faults and Recommending Actionable Fixes in Deep Learning Programs", ICSE 2022, arXiv:2112.04036; thresholds
as in its repository, github.com/DeepDiagnosis/ICSE2022).

Its fixes name causes: "poor weight", "normalize the data", "learning rate". Each counts as a rule of its own, which
alarms where there is a symptom and its condition holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.health.references.rule import FLOW, GROWTH, STUCK, UNITS, Rule, Tool, by_epoch, layers, mean_size
from benchmarks.health.watched import Course


def numerical_error(course: Course) -> bool:
    """Exploding tensor: the mean of outputs, weights or gradients is NaN or Inf, or the loss is."""
    if not np.isfinite(course.losses).all():
        return True
    return any(
        not np.isfinite(np.mean(t))
        for s in course.snapshots
        for t in (*s.after.values(), *s.gradients.values(), s.outputs)
    )


def dead_node(course: Course) -> bool:
    """Dead node: at the end at least 0.7 of a layer's ReLU outputs are 0."""
    last = course.snapshots[-1:]
    return any(np.mean(a.outputs <= 0) >= 0.7 for s in last for a in s.layers if a.kind == "relu")


def saturated(course: Course) -> bool:
    """Saturated activation: more than 0.5 of the inputs of tanh or sigmoid are beyond ±5."""
    return any(np.mean(np.abs(layer.inputs) >= 5) > 0.5 for layer in layers(course, "tanh", "sigmoid"))


def vanishing(course: Course) -> bool:
    """Vanishing gradient: the mean magnitude of a weight's gradient is below 1e-7."""
    return any(mean_size(s.gradients[name]) < 1e-7 for s in course.snapshots for name in course.kernels())


def out_of_range(course: Course) -> bool:
    """Out of range: targets lie outside what the last activation can give; or, for a linear one with numbers as
    targets, outputs at the beginning span more than 10 times what targets do.
    """
    limits = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, np.inf)}
    y = course.data.y
    if course.data.classes and y.ndim == 1:
        return False
    if course.last in limits:
        low, high = limits[course.last]
        return bool(y.min() < low or y.max() > high)
    first = course.snapshots[:1]
    return course.last == "linear" and any(np.ptp(s.outputs) > 10 * np.ptp(y) for s in first)


def unchanged_weight(course: Course) -> bool:
    """Unchanged weight: the mean of a weight is the same over 5 looks."""
    return any(
        len({float(np.mean(s.after[name])) for s in five}) == 1
        for name in course.kernels()
        for five in _windows(course.snapshots, 5)
    )


def loss_not_decreasing(course: Course) -> bool:
    """Loss not decreasing: over 5 epochs the loss is the same; it counts as invalid where it is NaN."""
    return any(np.mean(five) == np.max(five) for five in _windows(by_epoch(course, "loss"), 5))


def accuracy_not_increasing(course: Course) -> bool:
    """Accuracy not increasing: over 20 epochs the accuracy is the same, or it is 0."""
    if course.task != "classes":
        return False
    scores = by_epoch(course, "score")
    return any(np.mean(part) == np.max(part) < 1 for part in _windows(scores, 20)) or any(s == 0 for s in scores)


def _windows(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[i : i + size] for i in range(0, len(values) - size + 1, size))


_SYMPTOMS: dict[str, tuple[Callable[[Course], bool], frozenset[str]]] = {
    "exploding tensor": (numerical_error, GROWTH),
    "dead node": (dead_node, UNITS),
    "saturated activation": (saturated, frozenset({"saturated-units"})),
    "vanishing gradient": (vanishing, FLOW | {"disconnected-parameters"}),
    "out of range": (out_of_range, frozenset({"labels-out-of-range"})),
    "unchanged weight": (unchanged_weight, STUCK | {"learning-rate-too-low"}),
    "loss not decreasing": (loss_not_decreasing, frozenset({"constant-predictions", "underfitting"})),
    "accuracy not increasing": (
        accuracy_not_increasing,
        frozenset({"constant-predictions", "underfitting", "class-imbalance"}),
    ),
}


def _ill(course: Course) -> bool:
    return any(symptom(course) for symptom, _ in _SYMPTOMS.values())


def poor_weight(course: Course) -> bool:
    """Fix "improper weight initialization": a weight's variance is above 10 or below 1e-5, with a symptom."""
    found = [float(np.var(s.after[name], ddof=1)) for s in course.snapshots for name in course.kernels()]
    return any(v > 10 or v < 1e-5 for v in found) and _ill(course)


def normalise(course: Course) -> bool:
    """Fix "normalize the data": inputs lie outside of -1 to 1, with a symptom."""
    return bool(course.data.X.min() < -1 or course.data.X.max() > 1) and _ill(course)


def learning_rate(course: Course) -> bool:
    """Fix "learning rate": rate · |gradient| / |weight| is above 1e-3 · 100 or below 1e-3 / 100, with a symptom."""
    ratios = [
        s.learning_rate * float(np.linalg.norm(s.gradients[name])) / max(float(np.linalg.norm(s.before[name])), 1e-12)
        for s, name in itertools.product(course.snapshots, course.kernels())
    ]
    return any(r > 0.1 or r < 1e-5 for r in ratios) and _ill(course)


TOOL = Tool(
    "DeepDiagnosis",
    "Wardat et al., ICSE 2022, arXiv:2112.04036; github.com/DeepDiagnosis/ICSE2022",
    (
        *(Rule(name, alarms, names) for name, (alarms, names) in _SYMPTOMS.items()),
        Rule("fix: poor weight", poor_weight, frozenset({"poor-initialisation"})),
        Rule("fix: normalize the data", normalise, frozenset({"unnormalised-inputs"})),
        Rule("fix: learning rate", learning_rate, frozenset({"learning-rate-too-high", "learning-rate-too-low"})),
    ),
)
