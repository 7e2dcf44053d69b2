"""The gradients that a subject's backward returns, against central differences of its forward."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.check.backward.frameworks import downstream_of
from stepgrad.check.backward.subject import Subject

STEP = 1e-6


def errors(subject: Subject, seed: int = 0) -> dict[str, float]:
    """Input -> the largest difference of its gradient, relative to its largest element.

    Infinite for a wrong shape; inputs without a gradient are left out.
    """
    outputs, context = subject.forward(subject.inputs)
    downstream = downstream_of(outputs, np.random.default_rng(seed))
    gradients = subject.backward(subject.inputs, context, downstream)

    def loss(inputs: dict[str, Any]) -> float:
        out = subject.forward(inputs)[0]
        if downstream is None:
            return float(out)
        pairs = zip(out, downstream, strict=True) if isinstance(out, tuple) else [(out, downstream)]
        return float(sum(np.sum(o * g) for o, g in pairs))

    found = {}
    for name, gradient in gradients.items():
        if name not in subject.inputs:
            continue
        value = subject.inputs[name]
        if gradient.shape != value.shape:
            found[name] = float("inf")
            continue
        numerical = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = value.copy()
                moved[index] += step
                ends.append(loss({**subject.inputs, name: moved}))
            numerical[index] = (ends[0] - ends[1]) / (2 * STEP)
        found[name] = float(np.max(np.abs(gradient - numerical)) / max(1e-3, np.max(np.abs(numerical))))
    return found


def right(subject: Subject) -> bool:
    """Whether every input has a right gradient."""
    found = errors(subject)
    return set(found) == set(subject.inputs) and max(found.values()) < 1e-7
