"""What a line of the user's code mentions: its names, and the keys that it makes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any


def mentions(code: str, loop: Mapping[str, Any]) -> frozenset[str]:
    """The names and text keys in a line of code.

    Args:
        code: a statement, perhaps only the beginning of one.
        loop: values of loop variables, so that keys made from them are known.

    Example:
        >>> sorted(mentions('dZ = dA * (cache["Z" + str(l)] > 0)', {"l": 2}))
        ['Z2', 'cache', 'dA', 'dZ', 'l', 'str']
    """
    text = code.strip()
    for attempt in (text, text.rstrip(":") + ":\n pass", text.rstrip(",")):
        try:
            tree = ast.parse(attempt)
            break
        except SyntaxError:
            continue
    else:
        return frozenset()
    found = set()
    inside_keys: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Subscript):
            key = _key(node.slice, loop)
            inside_keys.update(id(n) for n in ast.walk(node.slice))
            if isinstance(key, str):
                found.add(key)
            elif isinstance(key, int) and isinstance(node.value, ast.Name):
                found.add(f"{node.value.id}[{key}]")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside_keys:
            found.add(node.value)
    return frozenset(found)


def _key(node: ast.expr, loop: Mapping[str, Any]) -> Any:
    """The value of a key such as `"W" + str(l - 1)` or `f"W{l}"`; None if it is not one."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return loop.get(node.id)
    if isinstance(node, ast.JoinedStr):
        parts = [_key(v.value if isinstance(v, ast.FormattedValue) else v, loop) for v in node.values]
        return None if None in parts else "".join(map(str, parts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        inner = _key(node.args[0], loop)
        return None if inner is None else str(inner)
    if isinstance(node, ast.BinOp):
        left, right = _key(node.left, loop), _key(node.right, loop)
        try:
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
        except TypeError:
            return None
    return None
