"""Putting hooks into a function's statements, so that every value it assigns can be seen and exchanged."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from stepgrad.check.backward.sources import Site, Source, Span

HOOK = "__stepgrad_hook__"
"""The global name by which watched code finds its hook."""


_OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**", ast.FloorDiv: "//",
    ast.Mod: "%", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
}  # fmt: skip
_KEEPERS = ("append", "insert", "appendleft", "update", "setdefault")
_LEAVING = ("array", "asarray", "ascontiguousarray", "asanyarray", "float64", "float32", "float16", "copy")


class Hooks:
    """Puts hooks into a function's statements, and notes their sites."""

    def __init__(self, function: FunctionType, source: Source, edited: bool) -> None:
        self.function, self.source, self.edited = function, source, edited
        self._code = function.__code__
        self.sites: list[Site] = []
        self.locals: set[str] = set()

    def body(self, definition: ast.FunctionDef) -> None:
        outer, self.locals = self.locals, _local_names(definition)
        definition.body = self._block(definition.body)
        self.locals = outer

    def _block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        return [new for statement in statements for new in self._statement(statement)]

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.FunctionDef):
            self.body(node)
            return [node]
        if isinstance(node, ast.Assign):
            return self._assign(node)
        if isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            site = self._site(node, (node.target.id,), "assign")
            node.value = self._call("value", site, node.target.id, self._expression(node.value))
            return [node]
        if isinstance(node, ast.AugAssign):
            return self._update(node)
        if isinstance(node, ast.Return) and node.value is not None:
            node.value = self._returned(node, node.value)
            return [node]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._effect(node, node.value)
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(node, field, None)
            if isinstance(inner, list) and inner and isinstance(inner[0], ast.stmt):
                setattr(node, field, self._block(inner))
        for handler in getattr(node, "handlers", ()):
            handler.body = self._block(handler.body)
        for name in ("test", "iter", "value", "exc"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                setattr(node, name, self._expression(part))
        return [node]

    def _assign(self, node: ast.Assign) -> list[ast.stmt]:
        target = node.targets[0]
        if len(node.targets) == 1 and isinstance(target, ast.Subscript):
            site = self._site(node, (_text(target),), "store")
            value = self._display(node, node.value)
            return [self._rebound(node, target, "store", site, value)]
        if len(node.targets) == 1 and isinstance(target, (ast.Tuple, ast.List)):
            names = tuple(_text(t) for t in target.elts)
            if any(isinstance(t, ast.Starred) for t in target.elts):
                node.value = self._expression(node.value)
                return [node]
            if isinstance(node.value, ast.Tuple) and len(node.value.elts) == len(names):
                for i, (name, part) in enumerate(zip(names, list(node.value.elts), strict=True)):
                    site = self._site(node, (name,), "assign", part)
                    node.value.elts[i] = self._call("value", site, name, self._display(node, part))
                return [node]
            site, *_ = [self._site(node, (name,), "assign") for name in names]  # one after the other
            node.value = self._call("values", site, names, self._expression(node.value))
            return [node]
        names = tuple(_text(t) for t in node.targets)
        site = self._site(node, names, "assign")
        node.value = self._call("value", site, names[0], self._display(node, node.value))
        return [node]

    def _update(self, node: ast.AugAssign) -> list[ast.stmt]:
        operator = _OPERATORS[type(node.op)]
        target, value = node.target, self._expression(node.value)
        site = self._site(node, (_text(target),), "update", extra={_root(target)})
        if isinstance(target, ast.Subscript):
            return [self._rebound(node, target, "update_store", site, value, operator)]
        old = _loaded(target)
        call = self._call("update", site, _text(target), ast.Constant(operator), old, value)
        return [ast.copy_location(ast.Assign([target], call), node)]

    def _rebound(
        self,
        node: ast.stmt,
        target: ast.Subscript,
        method: str,
        site: int,
        value: ast.expr,
        operator: str | None = None,
    ) -> ast.stmt:
        """`x[key] = value` as `x = hook.store(…, x, key, value)`, or without assigning where x is no local name."""
        arguments = [] if operator is None else [ast.Constant(operator)]
        key = self._expression(_key(target.slice))
        call = self._call(method, site, _text(target.value), *arguments, _loaded(target.value), key, value)
        new: ast.stmt = ast.Expr(call)
        if isinstance(target.value, ast.Attribute) or _text(target.value) in self.locals:
            place = _loaded(target.value)
            place.ctx = ast.Store()  # type: ignore[attr-defined]
            new = ast.Assign([place], call)
        return ast.copy_location(new, node)

    def _returned(self, node: ast.Return, value: ast.expr) -> ast.expr:
        if isinstance(value, ast.Name):
            return value
        if isinstance(value, ast.Tuple):
            for i, part in enumerate(list(value.elts)):
                if not isinstance(part, ast.Name):
                    site = self._site(node, (f"return[{i}]",), "return", part)
                    value.elts[i] = self._call("value", site, f"return[{i}]", self._display(node, part))
            return value
        if isinstance(value, (ast.Dict, ast.Call)) and _entries(value):
            return self._display(node, value)
        site = self._site(node, ("return",), "return", value)
        return self._call("value", site, "return", self._expression(value))

    def _display(self, node: ast.stmt, value: ast.expr) -> ast.expr:
        """Each entry of a dict display passes through a hook of its own."""
        entries = _entries(value)
        if not entries:
            return self._expression(value)
        for name, part, put in entries:
            if isinstance(part, ast.Name):
                continue
            site = self._site(node, (name,), "entry", part)
            put(self._call("value", site, name, self._expression(part)))
        return value

    def _effect(self, node: ast.Expr, call: ast.Call) -> list[ast.stmt]:
        """`dWs.append(x)`, `grads.update(…)`, `np.add.at(x, i, v)`."""
        called = call.func
        touched = [a.id for a in call.args if isinstance(a, ast.Name) and a.id in self.locals]
        touched += [k.value.id for k in call.keywords if k.arg == "out" and isinstance(k.value, ast.Name)]
        if isinstance(called, ast.Attribute) and called.attr in _KEEPERS and call.args:
            name = f"{_text(called.value)}.{called.attr}"
            last = call.args[-1]
            if _entries(last):
                call.args[-1] = self._display(node, last)
            elif not isinstance(last, ast.Name):
                site = self._site(node, (name,), "call", last)
                call.args[-1] = self._call("value", site, name, self._expression(last))
            return [node]
        node.value = self._expression(call)
        if not touched or (isinstance(called, ast.Name) and called.id == "print"):
            return [node]
        after: list[ast.stmt] = []
        for name in touched:
            site = self._site(node, (name,), "call")
            look = self._call("touched", site, name, ast.Name(name, ast.Load()))
            after.append(ast.copy_location(ast.Expr(look), node))
        return [node, *after]

    def _expression(self, node: ast.expr) -> ast.expr:
        """Calls that would take a tensor off the tape, such as `float(loss)`, ask the hook first."""
        return _Leaving().visit(node)

    def _call(self, method: str, site: int, *arguments: Any) -> ast.Call:
        parts = [a if isinstance(a, ast.expr) else ast.Constant(a) for a in arguments]
        return ast.Call(_hook(method), [ast.Constant(self._key(site)), *parts], [])

    def _key(self, site: int) -> Any:
        return (self.function.__qualname__, self.function.__code__.co_firstlineno, site)

    def _site(
        self, node: ast.stmt, names: tuple[str, ...], kind: str, part: ast.expr | None = None, extra: Any = ()
    ) -> int:
        if self.edited:  # the sites are those of the function without edits
            self.sites.append(_NO_SITE)
            return len(self.sites) - 1
        spanned = node if part is None or kind == "assign" else part
        span, value = _span(spanned), _span(part or getattr(node, "value", None) or node)
        text = _one_line(self.source.text(span))
        if kind == "return":
            text = f"return {text}" if part is node.value else text  # type: ignore[attr-defined]
        reads = frozenset(
            n.id for n in ast.walk(spanned) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id != HOOK
        ) | frozenset(extra)
        self.sites.append(
            Site(self._code.co_filename, span[0], text, self._code.co_name, names, reads, span, value, kind)
        )
        return len(self.sites) - 1


_NO_SITE = Site("", 0, "", "", (), frozenset(), (0, 0, 0, 0), (0, 0, 0, 0), "")


class _Leaving(ast.NodeTransformer):
    """Rewrites `float(x)`, `x.item()` and `np.array(x)`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func
        if isinstance(called, ast.Name) and called.id == "float" and len(node.args) == 1:
            return ast.copy_location(ast.Call(_hook("leave"), [called, *node.args], []), node)
        if isinstance(called, ast.Attribute) and called.attr == "item" and not node.args:
            return ast.copy_location(ast.Call(_hook("leave"), [ast.Constant("item"), called.value], []), node)
        if not isinstance(called, ast.Attribute) or _text(called.value) not in ("np", "numpy"):
            return node
        if called.attr in _LEAVING and node.args:
            if any(isinstance(a, ast.Starred) for a in node.args):
                return node
            return ast.copy_location(ast.Call(_hook("leave"), [called, *node.args], node.keywords), node)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node


def _hook(method: str) -> ast.expr:
    return ast.Attribute(ast.Name(HOOK, ast.Load()), method, ast.Load())


def _entries(value: ast.expr) -> list[tuple[str, ast.expr, Callable[[ast.expr], None]]]:
    """The named entries of `{"dW": …}` or `dict(dW=…)`, each with a function that exchanges its value."""
    if isinstance(value, ast.Dict):
        return [
            (_named(key), part, functools.partial(value.values.__setitem__, i))
            for i, (key, part) in enumerate(zip(value.keys, value.values, strict=True))
            if key is not None
        ]
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        return [(k.arg, k.value, functools.partial(setattr, k, "value")) for k in value.keywords if k.arg is not None]
    return []


def _named(key: ast.expr) -> str:
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else _text(key)


def _key(node: ast.expr) -> ast.expr:
    """A subscript as an expression that can be passed as an argument."""
    if isinstance(node, ast.Slice):
        parts = [part or ast.Constant(None) for part in (node.lower, node.upper, node.step)]
        return ast.Call(_hook("slice"), parts, [])
    if isinstance(node, ast.Tuple):
        return ast.Tuple([_key(part) for part in node.elts], ast.Load())
    return node


def _span(node: ast.AST) -> Span:
    return node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0  # type: ignore[attr-defined]


def _loaded(node: ast.expr) -> ast.expr:
    """A copy of the target of an assignment, to be read."""
    copied = copy.deepcopy(node)
    for part in ast.walk(copied):
        if isinstance(part, (ast.Name, ast.Attribute, ast.Subscript)):
            part.ctx = ast.Load()
    return copied


def _text(node: ast.expr) -> str:
    return ast.unparse(node)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _one_line(text: str) -> str:
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    return " ".join(line.rstrip("\\").strip() for line in lines if line)


def _local_names(definition: ast.FunctionDef) -> set[str]:
    """Parameters and assigned names, without those declared global or nonlocal."""
    every = definition.args
    found = {a.arg for a in [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg] if a}
    elsewhere: set[str] = set()
    todo: list[ast.AST] = list(definition.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif not isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            todo.extend(ast.iter_child_nodes(node))
    return found - elsewhere
