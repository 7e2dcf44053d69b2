"""Plants mistakes in the source text of a network: at every place where one is possible."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.planting import cached, declared, interface, layout, paths, scale
from benchmarks.mistakes.planting.mutant import Edit, Mutant, planted

RULES = (
    layout.edits,
    cached.edits,
    scale.edits,
    paths.edits,
    interface.edits,
    declared.edits,
)


def mutants(network: Network) -> list[Mutant]:
    """Every mistake that the rules and the network's own list can plant, equal texts once."""
    found: dict[str, Mutant] = {}
    for edit in edits(network):
        mutant = planted(network, edit)
        same = found.get(mutant.source)
        found[mutant.source] = mutant if same is None else same.also(mutant)
    found.pop(network.source, None)
    return list(found.values())


def edits(network: Network) -> Iterator[Edit]:
    for rule in RULES:
        yield from rule(network)
