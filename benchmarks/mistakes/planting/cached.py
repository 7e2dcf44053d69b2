"""Cached values from an earlier call: a memory that the forward fills once."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import functions
from benchmarks.mistakes.planting.mutant import Edit, span


def edits(network: Network) -> Iterator[Edit]:
    if network.is_object:
        return
    function = functions(network)[network.declared["PAIR"][0]]
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            first, *rest = (ast.unparse(item) for item in node.value.elts)
            start, end = span(network.source, node)
            if len(rest) > 1:
                names = ", ".join(rest)
                new = f'{names} = memory.setdefault("cache", ({names}))\n    return {first}, {names}'
            else:
                new = f'cache = memory.setdefault("cache", {rest[0]})\n    return {first}, cache'
            top, _ = span(network.source, function)
            yield Edit("stale-cache", ((top, top, "memory = {}\n\n\n"), (start, end, new)))
