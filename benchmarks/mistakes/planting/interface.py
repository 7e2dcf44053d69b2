"""Interface and precision: gradients that are missing, too many, of another dtype, or different each time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from benchmarks.mistakes.network import Network
from benchmarks.mistakes.places import Place, backward_functions, is_bare, places, returned_names
from benchmarks.mistakes.planting.mutant import Edit, deleting, rewriting

DATA = ("x", "X", "x1", "x2", "h0", "inputs")  # their gradient is a service, and may be left out


def edits(network: Network) -> Iterator[Edit]:
    last = returned_names(network)
    for place in places(network):
        if not place.computes:
            continue
        final = place.target in last or place.target.startswith(("grads[", "self.d"))
        if final and isinstance(place.statement, ast.Assign):
            yield _wrapped(network, "wrong-dtype", place, "({}).astype(np.float32)")
            yield _wrapped(network, "low-precision", place, "({}).astype(np.float32)")  # the same, by its other name
            yield _wrapped(network, "wrong-dtype", place, "({}).astype(int)")
            yield _wrapped(network, "not-deterministic", place, "({}) * (1 + 0.01 * np.random.randn())")
        elif isinstance(place.statement, ast.Assign):
            yield _wrapped(network, "low-precision", place, "({}).astype(np.float32)")
            yield _wrapped(network, "low-precision", place, "np.float16({}).astype(np.float64)")
    yield from _of_results(network)


def _wrapped(network: Network, mistake: str, place: Place, template: str) -> Edit:
    value = ast.parse(template.format(ast.unparse(place.value)), mode="eval").body
    return rewriting(network, mistake, (place.statement, place.with_value(value)))


def _of_results(network: Network) -> Iterator[Edit]:
    """Entries of the returned dict or tuple that are left out, exchanged, or too many."""
    if network.is_object:
        return
    pair = network.declared["PAIR"][1]
    (function,) = [f for f in backward_functions(network) if f.name == pair and not f.col_offset]
    names = network.declared["GRADIENTS"]
    for node in ast.walk(function):
        if isinstance(node, (ast.Return, ast.Assign)) and isinstance(node.value, ast.Dict):
            for place, key in enumerate(node.value.keys):
                if isinstance(key, ast.Constant) and names.get(key.value, key.value) not in DATA:
                    yield rewriting(network, "gradient-missing", (node, _without_entry(node, place)))
            if node.value.keys:
                more = copy.deepcopy(node)
                assert isinstance(more.value, ast.Dict)
                more.value.keys.append(ast.Constant("dW9"))
                more.value.values.append(more.value.values[-1])
                yield rewriting(network, "gradient-extra", (node, ast.unparse(more)))
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and isinstance(names, tuple):
            items = node.value.elts
            for place in range(len(items)):
                if names[place] not in DATA:
                    none = place_none(node, place)
                    yield rewriting(network, "gradient-missing", (node, none))
            if names[-1] not in DATA:
                shorter = copy.deepcopy(node)
                shorter.value.elts = shorter.value.elts[:-1]
                yield rewriting(network, "gradient-missing", (node, ast.unparse(shorter)))
            longer = copy.deepcopy(node)
            longer.value.elts.append(longer.value.elts[-1])
            yield rewriting(network, "gradient-extra", (node, ast.unparse(longer)))
            for place in range(len(items) - 1):
                other = copy.deepcopy(node)
                elements = other.value.elts
                elements[place], elements[place + 1] = elements[place + 1], elements[place]
                yield rewriting(network, "wrong-order", (node, ast.unparse(other)))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("grads[") and not is_bare(node):
            target = ast.unparse(node.targets[0])
            key = target.split("'")[1]
            returned = any(name.startswith(key) and of not in DATA for name, of in names.items())
            if returned and ast.unparse(function).count(target) == 1:
                yield deleting(network, "gradient-missing", node)


def place_none(node: ast.Return, place: int) -> str:
    other = copy.deepcopy(node)
    assert isinstance(other.value, ast.Tuple)
    other.value.elts[place] = ast.Constant(None)
    return ast.unparse(other)


def _without_entry(node: ast.Return | ast.Assign, place: int) -> str:
    other = copy.deepcopy(node)
    assert isinstance(other.value, ast.Dict)
    del other.value.keys[place], other.value.values[place]
    return ast.unparse(other)
