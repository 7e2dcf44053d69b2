"""Scale and sign: a factor too many, too few, or another one."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import Place, places
from benchmarks.mistakes.planting.mutant import Edit, rewriting

FACTORS = (2, 0.5, 3, 10, 0.1)


def edits(network: Network) -> Iterator[Edit]:
    factors = itertools.cycle(FACTORS)
    for place in places(network):
        if place.computes:
            negated = ast.UnaryOp(ast.USub(), place.value)
            scaled = ast.BinOp(ast.Constant(next(factors)), ast.Mult(), place.value)
            for mistake, value in (("sign", negated), ("constant-factor", scaled)):
                yield rewriting(network, mistake, (place.statement, place.with_value(value)))
                if ast.unparse(place.value) in network.get("REGULARISER"):  # the same, by its other name
                    yield rewriting(network, "regulariser-mismatch", (place.statement, place.with_value(value)))
    yield from _of_divisors(network)


def missing(divisor: str) -> str:
    """The text without the division: for "/ m" nothing, for "1 / m * np." the rest."""
    if divisor.startswith("/"):
        return ""
    if "* " in divisor:
        return divisor.rpartition("* ")[2]
    return divisor.partition(" /")[0]


def twice(divisor: str) -> str:
    """The text with the division done twice."""
    return re.sub(r"(/ [\w.\[\]]+(\(\w*\))?)", r"\1 \1", divisor, count=1)


def _of_divisors(network: Network) -> Iterator[Edit]:
    code = network.code
    found: dict[str, list[Place]] = {}
    for divisor in network.get("DIVISORS", {}):
        for place in _with_text(network, divisor):
            found.setdefault(divisor, []).append(place)
    for divisor, here in found.items():
        wrong = network.get("DIVISORS")[divisor]
        for place in here:
            if not divisor.startswith("/="):
                yield _exchanged(code, "mean-missing", [place], divisor, missing(divisor))
                yield _exchanged(code, "mean-twice", [place], divisor, twice(divisor))
            for other in wrong:
                yield _exchanged(code, "wrong-divisor", [place], divisor, other)
        biases = [place for place in here if place.target in network.get("BIASES")]
        if biases and len(biases) < len(here):
            yield _exchanged(code, "mean-on-weights-only", biases, divisor, missing(divisor))


def _with_text(network: Network, text: str) -> Iterator[Place]:
    """The gradients in whose statement a text stands; whole statements that only divide in place are found as well."""
    seen = set()
    for place in places(network):
        start, end = _range(network.code, place.statement)
        if place.statement not in seen and text in network.code[start:end]:
            seen.add(place.statement)
            yield place


def _range(code: str, statement: ast.stmt) -> tuple[int, int]:
    rows = code.splitlines(keepends=True)
    start = sum(map(len, rows[: statement.lineno - 1]))
    return start, start + sum(map(len, rows[statement.lineno - 1 : statement.end_lineno]))


def _exchanged(code: str, mistake: str, here: list[Place], old: str, new: str) -> Edit:
    changes = []
    for place in here:
        start, end = _range(code, place.statement)
        at = code.index(old, start, end)
        before = 1 if not new and code[at - 1] == " " else 0
        changes.append((at - before, at + len(old), new))
    return Edit(mistake, tuple(changes))
