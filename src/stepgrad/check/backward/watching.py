"""Watching a function line by line: every value that it assigns passes through a hook, which may exchange it.

The function's source is parsed, assignments are wrapped (`x = f(y)` becomes `x = hook.value(3, "x", f(y))`), and
the new code stands in for the old one while the function runs. So closures, methods, globals and recursion
stay as they are, and a debugger shows the user's own lines. The source file is only read.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Protocol

HOOK = "__stepgrad_hook__"
"""The global name by which watched code finds its hook."""


@dataclass(frozen=True)
class Site:
    """A place in the user's code where a value is made.

    Attributes:
        file, line: where the statement, or the entry of a dict display, begins.
        code: its source on one line.
        function: the function it is in.
        names: what it assigns, as the user calls it.
        reads: the variables that it reads.
        span: (line, column, end line, end column) of the statement.
        value: the same of the expression whose value is assigned.
        kind: "assign", "update" (`+=`), "store" (`x[i] = …`), "entry" (of a dict), "return" or "call".
    """

    file: str
    line: int
    code: str
    function: str
    names: tuple[str, ...]
    reads: frozenset[str]
    span: tuple[int, int, int, int]
    value: tuple[int, int, int, int]
    kind: str

    def __repr__(self) -> str:
        return f"line {self.line}: {self.code}"


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
class Edit:
    """Other text for a part of a function's source.

    Attributes:
        span: (line, column, end line, end column) in the file, as `ast` counts: columns in UTF-8 bytes.
        text: what stands there instead.
    """

    span: tuple[int, int, int, int]
    text: str


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
    hooks = _Hooks(function, source, edited=bool(edits))
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


# --- source


@dataclass(frozen=True)
class Source:
    """The text of a function, made such that it parses by itself with its own line and column numbers.

    Attributes:
        first, last: its lines in the file, counted from 1.
        lines: those lines.
        header: what goes before them, one line.
    """

    first: int
    last: int
    lines: tuple[str, ...]
    header: str

    @property
    def offset(self) -> int:
        """What to add to a parsed line number for the line in the file."""
        return self.first - 1 - (1 if self.header else 0)

    def edited(self, edits: Sequence[Edit]) -> str:
        """The text to parse, with other text in places. It keeps its number of lines."""
        lines = list(self.lines)
        for edit in sorted(edits, key=lambda e: e.span, reverse=True):
            line, column, end_line, end_column = edit.span
            top, bottom = lines[line - self.first].encode(), lines[end_line - self.first].encode()
            text = edit.text.replace("\n", " ")
            lines[line - self.first] = top[:column].decode() + text + bottom[end_column:].decode()
            for between in range(line + 1, end_line + 1):
                lines[between - self.first] = "\n"
        return self.header + "".join(lines)

    def text(self, span: tuple[int, int, int, int]) -> str:
        """The source of a part."""
        line, column, end_line, end_column = span
        if line == end_line:
            return self.lines[line - self.first].encode()[column:end_column].decode()
        parts = [self.lines[line - self.first].encode()[column:].decode()]
        parts += [self.lines[i - self.first] for i in range(line + 1, end_line)]
        return "".join([*parts, self.lines[end_line - self.first].encode()[:end_column].decode()])


def source_of(function: FunctionType) -> Source | None:
    """The source of a function; None where it can't be read."""
    return _source(function.__code__)


@functools.lru_cache(maxsize=512)
def _source(code: CodeType) -> Source | None:
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return None
    if not lines or not lines[0].strip() or code.co_name == "<lambda>":
        return None
    indented = lines[0][0] in " \t"
    header = f"def factory({', '.join(code.co_freevars)}):\n" if indented else ""
    if code.co_freevars and not indented:
        return None
    first = max(first, 1)
    return Source(first, first + len(lines) - 1, tuple(lines), header)


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


# --- hooks


_OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**", ast.FloorDiv: "//",
    ast.Mod: "%", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
}  # fmt: skip
_KEEPERS = ("append", "insert", "appendleft", "update", "setdefault")
_LEAVING = ("array", "asarray", "ascontiguousarray", "asanyarray", "float64", "float32", "float16", "copy")


class _Hooks:
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


def _span(node: ast.AST) -> tuple[int, int, int, int]:
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


def refresh(file: str) -> None:
    """Reads the file anew where it has changed since it was read last."""
    linecache.checkcache(file)
