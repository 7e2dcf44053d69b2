"""The catalogue of verdicts: what can be wrong with a training run, how it is seen, and what helps.

Everything about a verdict stands in its entry: judging, the reports, docs/verdicts and the tests are made from it.
"""

from __future__ import annotations

from stepgrad.check.health.verdicts import (
    beginning,
    breakdown,
    data,
    fitting,
    flow,
    optimizing,
    parameters,
    right,
    steps,
    targets,
    units,
)
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold

__all__ = ["CATALOGUE", "Entry", "Evidence", "Finding", "Question", "Severity", "Threshold"]

_IN_ORDER: tuple[Entry, ...] = (
    right.WRONG_GRADIENT,
    targets.LABELS,
    data.ORDER,
    beginning.UNNORMALISED,
    beginning.POOR,
    parameters.UNUSED,
    parameters.DISCONNECTED,
    parameters.FROZEN,
    optimizing.REGULARISER,
    flow.EXPLODING,
    steps.TOO_HIGH,
    units.DYING_UNITS,
    units.DEAD_UNITS,
    units.SATURATED_UNITS,
    flow.VANISHING,
    optimizing.ALWAYS_CLIPPED,
    optimizing.ADAM_EPSILON,
    steps.TOO_LOW,
    breakdown.EXPLODING_LOSS,
    breakdown.NOT_FINITE,
    data.IMBALANCE,
    data.CONSTANT,
    fitting.OVERFITTING,
    fitting.UNDERFITTING,
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _IN_ORDER}
"""Name -> entry. An entry may be brought about by those before it, never by those after it."""
