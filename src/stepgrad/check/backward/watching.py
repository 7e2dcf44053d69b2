"""Watching a function line by line: every value that it assigns passes through a hook, which may exchange it.

The function's source is parsed, assignments are wrapped (`x = f(y)` becomes `x = hook.value(3, "x", f(y))`), and
the new code stands in for the old one while the function runs. So closures, methods, globals and recursion
stay as they are, and a debugger shows the user's own lines. The source file is only read.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Protocol

from stepgrad.check.backward.hooks import HOOK, Hooks
from stepgrad.check.backward.sources import Edit, Site, source_of


class Hook(Protocol):
    """What watched code calls. `site` is the number of a `Site` in the function's list."""

    def value(self, site: Any, name: str, value: Any) -> Any: ...
    def values(self, site: Any, names: tuple[str, ...], value: Any) -> Any: ...
    def update(self, site: Any, name: str, operator: str, old: Any, value: Any) -> Any: ...
    def store(self, site: Any, name: str, base: Any, key: Any, value: Any) -> Any: ...
    def update_store(self, site: Any, name: str, operator: str, base: Any, key: Any, value: Any) -> Any: ...
    def touched(self, site: Any, name: str, value: Any) -> Any: ...
    def leave(self, what: Any, value: Any, *more: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Watched:
    """A function with hooks in it.

    Attributes:
        function: the user's function.
        code: its code with hooks.
        sites: where they are.
    """

    function: FunctionType
    code: CodeType
    sites: tuple[Site, ...]


def watched(function: FunctionType, edits: Sequence[Edit] = ()) -> Watched | None:
    """The function with hooks in it; None where its source can't be read.

    Args:
        function: a plain Python function (of a method, `method.__func__`).
        edits: other text for parts of it.

    Raises:
        SyntaxError: an edit made the source something that is not Python.
    """
    source = source_of(function)
    if source is None:
        return None
    text, offset = source.edited(edits), source.offset
    tree = ast.parse(text)
    ast.increment_lineno(tree, offset)
    definition = _definition(tree, function)
    if definition is None:
        return None
    hooks = Hooks(function, source, edited=bool(edits))
    definition.decorator_list = []
    hooks.body(definition)
    ast.fix_missing_locations(tree)
    code = _code(compile(tree, function.__code__.co_filename, "exec"), function)
    if code is None or code.co_freevars != function.__code__.co_freevars:
        return None
    return Watched(function, code, tuple(hooks.sites))


@contextmanager
def watching(functions: Sequence[Watched], hook: Hook) -> Iterator[None]:
    """While inside, calls of the functions run the code with hooks, on this thread's behalf only in the sense
    that nobody else may call them meanwhile."""
    before = [w.function.__code__ for w in functions]
    spaces = {id(w.function.__globals__): w.function.__globals__ for w in functions}
    outer = {number: space.get(HOOK) for number, space in spaces.items()}
    try:
        for space in spaces.values():
            space[HOOK] = hook
        for w in functions:
            w.function.__code__ = w.code
        yield
    finally:
        for w, code in zip(functions, before, strict=True):
            w.function.__code__ = code
        for number, space in spaces.items():
            if outer[number] is None:
                space.pop(HOOK, None)
            else:
                space[HOOK] = outer[number]


def functions_of(function: FunctionType) -> list[FunctionType]:
    """The function and what it may call of the same file, by name: functions, and methods of classes."""
    file = function.__code__.co_filename
    known: dict[str, list[FunctionType]] = {}
    for f in _defined(function.__globals__, file):
        known.setdefault(f.__name__, []).append(f)
    found: dict[int, FunctionType] = {}
    todo = [function]
    while todo:
        current = todo.pop()
        if id(current) in found:
            continue
        found[id(current)] = current
        todo += [f for name in _mentioned(current.__code__) for f in known.get(name, ())]
        todo += [f for f in _closed_over(current) if f.__code__.co_filename == file]
    return list(found.values())


def _defined(space: Mapping[str, Any], file: str) -> Iterator[FunctionType]:
    for value in list(space.values()):
        if inspect.isclass(value):
            for member in vars(value).values():
                member = getattr(member, "__func__", member)
                if isinstance(member, FunctionType) and member.__code__.co_filename == file:
                    yield member
        elif isinstance(value, FunctionType) and value.__code__.co_filename == file:
            yield value


def _closed_over(function: FunctionType) -> list[FunctionType]:
    found = []
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(content, FunctionType):
            found.append(content)
    return found


def _mentioned(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _mentioned(constant)
    return names


def _definition(tree: ast.Module, function: FunctionType) -> ast.FunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__code__.co_name:
            return node
    return None


def _code(outer: CodeType, function: FunctionType) -> CodeType | None:
    for constant in outer.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_name == function.__code__.co_name and constant.co_name != "factory":
                return constant
            found = _code(constant, function)
            if found is not None:
                return found
    return None
