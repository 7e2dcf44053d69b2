"""The form of a rule, and what several rules measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.health.datasets import Array
from benchmarks.health.watched import Course, Layer, Snapshot


@dataclass(frozen=True)
class Rule:
    """A rule of a tool.

    Attributes:
        name: as the tool calls it.
        alarms: whether it does for this training.
        names: the planted faults that its alarm may stand for.
    """

    name: str
    alarms: Callable[[Course], bool]
    names: frozenset[str]


@dataclass(frozen=True)
class Tool:
    """A tool with its rules.

    Attributes:
        name: of the tool.
        source: where its rules are published.
        rules: those that a training of this benchmark can be judged by.
    """

    name: str
    source: str
    rules: tuple[Rule, ...]

    def alarms(self, course: Course) -> dict[str, frozenset[str]]:
        """Rule -> the faults that it may stand for, of the rules that alarm."""
        with np.errstate(all="ignore"):
            return {rule.name: rule.names for rule in self.rules if rule.alarms(course)}


def tensors(snapshot: Snapshot) -> Iterator[Array]:
    """All that a framework would save of a step."""
    yield from snapshot.after.values()
    yield from snapshot.gradients.values()
    yield snapshot.outputs
    for layer in snapshot.layers:
        yield layer.outputs


def mean_size(array: Array) -> float:
    """The mean magnitude of its elements."""
    return float(np.mean(np.abs(array), dtype=np.float64))


def layers(course: Course, *kinds: str) -> Iterator[Layer]:
    """The activation functions of these kinds, at all steps."""
    return (layer for snapshot in course.snapshots for layer in snapshot.layers if layer.kind in kinds)


def by_epoch(course: Course, name: str) -> list[float]:
    """A quantity after each epoch."""
    return [epoch[name] for epoch in course.epochs]


def label_counts(course: Course) -> Array:
    """How often each label occurs among the training rows; empty where targets are numbers."""
    if course.task != "classes":
        return np.zeros(0, int)
    return np.unique(course.data.y, return_counts=True)[1]


FLOW = frozenset({"vanishing-gradients"})
GROWTH = frozenset({"exploding-gradients", "not-finite", "exploding-loss"})
UNITS = frozenset({"dead-units", "dying-units"})
STEPS = frozenset({"learning-rate-too-high", "learning-rate-too-low"})
STUCK = frozenset({"frozen-parameters", "unused-parameters", "disconnected-parameters"})
