"""Nested structures of tensors: lists, tuples, dicts and modules, taken apart and put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rebuild = Callable[[list[Any]], Any]


def flatten(tree: Any) -> tuple[list[Any], list[str], Rebuild]:
    """Takes a nested structure apart.

    Args:
        tree: tensors, arrays or numbers in nested lists, tuples, named tuples and dicts; an object
            with a `parameters()` method (a module) counts as the dict that it returns.

    Returns:
        The leaves; a path for each, such as `[0]['W']`; and a function that builds the same
        structure from as many other leaves.
    """
    leaves: list[Any] = []
    paths: list[str] = []

    def take(node: Any, path: str) -> Rebuild:
        if callable(getattr(type(node), "parameters", None)):
            node = node.parameters()
        if isinstance(node, dict):
            parts = {key: take(value, f"{path}[{key!r}]") for key, value in node.items()}
            return lambda new: {key: part(new) for key, part in parts.items()}
        if isinstance(node, (list, tuple)):
            items = [take(value, f"{path}[{i}]") for i, value in enumerate(node)]
            if isinstance(node, list):
                return lambda new: [item(new) for item in items]
            kind = type(node)
            if hasattr(kind, "_fields"):  # a named tuple
                return lambda new: kind(*[item(new) for item in items])
            return lambda new: tuple(item(new) for item in items)
        position = len(leaves)
        leaves.append(node)
        paths.append(path)
        return lambda new: new[position]

    return leaves, paths, take(tree, "")


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same structure, with `function` applied to every leaf."""
    leaves, _, rebuild = flatten(tree)
    return rebuild([function(leaf) for leaf in leaves])


def leaves_in_order(given: Any, like: Any) -> list[Any]:
    """The leaves of a structure, in the order in which those of another come: dicts go by their keys."""
    (leaves, paths, _), wanted = flatten(given), flatten(like)[1]
    if paths == wanted or sorted(paths) != sorted(wanted):
        return leaves
    return [leaves[paths.index(path)] for path in wanted]
