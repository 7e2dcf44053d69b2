"""Mistakes that a network's own list spells out: which value is which, no general rule can know."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.planting.mutant import Edit


def edits(network: Network) -> Iterator[Edit]:
    for mistake, plants in network.get("PLANTS", {}).items():
        for old, new in plants:
            found = list(re.finditer(_bounded(old), network.code))
            if not found:
                raise ValueError(f"{network.name}: {mistake}: the text {old!r} does not occur")
            for match in found:
                yield Edit(mistake, ((match.start(), match.end(), new),), context=bool(new.strip()))


def _bounded(text: str) -> str:
    """A pattern for a text that doesn't start or end in the middle of a name."""
    start = r"(?<![\w.])" if re.match(r"\w", text) else ""
    end = r"(?!\w)" if re.search(r"\w$", text) else ""
    return start + re.escape(text) + end
