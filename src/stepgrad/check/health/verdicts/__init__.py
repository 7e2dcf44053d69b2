"""The catalogue of verdicts: what can be wrong with a training run, how it is seen, and what helps.

Everything about a verdict stands in its entry: the judge, the reports, docs/verdicts and the tests are made from
it. The order is that of causes: an entry may be brought about by those before it.
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
    units,
)
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold

__all__ = ["CATALOGUE", "Entry", "Evidence", "Finding", "Question", "Severity", "Threshold"]

_IN_ORDER: tuple[Entry, ...] = (
    *right.ENTRIES,
    *data.ENTRIES[:2],
    *beginning.ENTRIES,
    *parameters.ENTRIES,
    *optimizing.ENTRIES,
    *flow.ENTRIES,
    *units.ENTRIES,
    *steps.ENTRIES,
    *breakdown.ENTRIES,
    *data.ENTRIES[2:],
    *fitting.ENTRIES,
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _IN_ORDER}
"""Name -> entry, causes before consequences."""
