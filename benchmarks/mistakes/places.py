"""Where in a backward pass a mistake can be planted: its statements that compute gradients."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.mistakes.network import Network

EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "copy", "reshape", "dict", "append"}


@dataclass(frozen=True, eq=False)
class Place:
    """A value of the backward pass that is some gradient.

    Attributes:
        function: the function it stands in.
        statement: the assignment, or the return.
        value: the expression.
        target: what the value is assigned to, as text; "" in a return.
    """

    function: ast.FunctionDef
    statement: ast.stmt
    value: ast.expr
    target: str

    @property
    def computes(self) -> bool:
        """Whether the value is computed here, and not only made empty, copied or given another name."""
        return not is_bare(self.value)

    def with_value(self, value: ast.expr) -> str:
        """The statement with another value."""
        return replaced(self.statement, self.value, value)

    def replaced(self, old: ast.AST, new: ast.AST) -> str:
        """The statement with another expression in place of one of its own."""
        return replaced(self.statement, old, new)


def replaced(statement: ast.AST, old: ast.AST, new: ast.AST) -> str:
    """Source text of a statement in which one node is another."""
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(statement, {id(old): new})))


def is_bare(value: ast.expr) -> bool:
    """Whether an expression only names, copies or makes room for something."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in EMPTY
    return isinstance(value, (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Dict, ast.List, ast.ListComp))


def functions(network: Network) -> dict[str, ast.FunctionDef]:
    """The functions and methods of a network, by name; of methods, only those of one name in one class each."""
    found = {}
    for node in network.tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}": item for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def reachable(network: Network, start: str) -> set[str]:
    """The functions that a function calls, and itself; a method by its name alone, in whatever class."""
    known = functions(network)
    found: set[str] = set()
    waiting = [name for name in known if name.rpartition(".")[2] == start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(known[name]):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                waiting += [other for other in known if other.rpartition(".")[2] == called]
    return found


def backward_functions(network: Network) -> list[ast.FunctionDef]:
    """The functions that only the backward pass calls: a mistake in them leaves the forward as it is."""
    forward, backward = ("forward", "backward") if network.is_object else network.declared["PAIR"]
    known = functions(network)
    names = reachable(network, backward) - reachable(network, forward)
    return [known[name] for name in sorted(names, key=lambda name: known[name].lineno)]


def places(network: Network) -> Iterator[Place]:
    """Every gradient that the backward pass computes, in the order of the lines."""
    for function in backward_functions(network):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = ast.unparse(node.targets[0])
                if network.gradient_pattern.fullmatch(target):
                    yield Place(function, node, node.value, target)
            elif isinstance(node, ast.AugAssign):
                target = ast.unparse(node.target)
                if network.gradient_pattern.fullmatch(target):
                    yield Place(function, node, node.value, target)
            elif isinstance(node, ast.Return) and node.value is not None:
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                for value in values:
                    if not is_bare(value) and not isinstance(value, ast.Starred):
                        yield Place(function, node, value, "")


def returned_names(network: Network) -> set[str]:
    """Variables that the backward returns as they are."""
    found = set()
    for function in backward_functions(network):
        for node in ast.walk(function):
            if isinstance(node, (ast.Return, ast.Assign)) and isinstance(node.value, (ast.Tuple, ast.Dict)):
                items = node.value.elts if isinstance(node.value, ast.Tuple) else node.value.values
                found |= {item.id for item in items if isinstance(item, ast.Name)}
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
                found.add(node.value.id)
    return found
