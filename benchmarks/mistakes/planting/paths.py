"""Paths: contributions that are overwritten, forgotten, kept too long, or cut off from what arrives."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import Place, is_bare, places, returned_names
from benchmarks.mistakes.planting.mutant import Edit, deleting, rewriting, span


def edits(network: Network) -> Iterator[Edit]:
    for place in places(network):
        yield from _of_contributions(network, place)
        yield from _of_what_arrives(network, place)
    yield from _accumulating(network)


def _of_contributions(network: Network, place: Place) -> Iterator[Edit]:
    statement = place.statement
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
        text = f"{ast.unparse(statement.target)} = {ast.unparse(statement.value)}"
        yield rewriting(network, "overwritten-at-fan-out", (statement, text))
        yield deleting(network, _of_dropped(network, place.value), statement)
    for node in ast.walk(place.value):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if any(isinstance(side, ast.Constant) for side in (node.left, node.right)):
                continue
            for kept, dropped in ((node.left, node.right), (node.right, node.left)):
                text = place.replaced(node, kept)
                yield rewriting(network, _of_dropped(network, dropped), (statement, text))


def _of_dropped(network: Network, term: ast.expr) -> str:
    return "regulariser-mismatch" if ast.unparse(term) in network.get("REGULARISER") else "path-forgotten"


def _is_gradient(network: Network, node: ast.expr) -> bool:
    return is_bare(node) and bool(network.gradient_pattern.fullmatch(ast.unparse(node)))


def _of_what_arrives(network: Network, place: Place) -> Iterator[Edit]:
    """`dA1 * (Z1 > 0)` becomes `1.0 * (Z1 > 0)`."""
    for node in ast.walk(place.value):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            sides = [(node.left, node.right), (node.right, node.left)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "np.multiply":
            sides = [(node.args[0], node.args[1]), (node.args[1], node.args[0])]
        else:
            continue
        for gradient, other in sides:
            if not _is_gradient(network, gradient) or _is_gradient(network, other):
                continue
            if not isinstance(other, ast.Constant) and "np.ones" not in ast.unparse(other):
                text = place.replaced(node, ast.BinOp(ast.Constant(1.0), ast.Mult(), other))
                yield rewriting(network, "downstream-ignored", (place.statement, text))


def _accumulating(network: Network) -> Iterator[Edit]:
    """A gradient that is returned is added to what an earlier call left in a dictionary of the module."""
    if network.is_object:
        return
    returned = returned_names(network)
    plain = [p for p in places(network) if p.computes and p.target in returned and p.statement in p.function.body]
    for place in plain[:1] + plain[1:][-1:]:
        if place.function.col_offset or not isinstance(place.statement, ast.Assign):
            continue
        top, _ = span(network.source, place.function)
        start, end = span(network.source, place.statement)
        target, value = place.target, ast.unparse(place.value)
        new = f'{target} = totals["{target}"] = totals.get("{target}", 0) + {value}'
        yield Edit("not-reset-between-calls", ((top, top, "totals = {}\n\n\n"), (start, end, new)))
