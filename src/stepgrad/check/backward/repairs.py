"""Repairs: small changes of a wrong line, tried one after the other until the gradients come out right.

Each is the opposite of a mistake that people make. A change is a splice of the user's own text, so that
the rest of the line stays as it was written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stepgrad.check.backward.scopes import Scope
from stepgrad.check.backward.sources import Edit, Site, Source, Span


@dataclass(frozen=True)
class Repair:
    """A change of a line.

    Attributes:
        edits: the splices.
        mistake: the catalogue's name of what it undoes; empty where that depends on the values.
        swapped: (text before, text after), where one value is read in place of another.
    """

    edits: tuple[Edit, ...]
    mistake: str
    swapped: tuple[str, str] | None = None

    def growth(self, source: Source | None) -> int:
        """How many characters it adds."""
        if source is None:
            return 0
        return sum(len(e.text) - len(source.text(e.span)) for e in self.edits)


def repairs(site: Site, source: Source, scope: Scope) -> Iterator[Repair]:
    """Changes of the statement at a site, the most usual mistakes first."""
    expression = _parsed(source, site.value)
    if expression is None:
        return
    line = _Line(site, source, expression, scope)
    yield from line.operands()
    yield from line.operators()
    yield from line.calls()
    yield from line.swaps()
    yield from line.statement()
    yield from line.whole()
    yield from line.constants()


def _parsed(source: Source, span: Span) -> ast.expr | None:
    """The expression at a place, its nodes with their positions in the file."""
    text = source.text(span)
    try:
        tree = ast.parse(f"({text}\n)", mode="eval").body
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            for begin, end in (("lineno", "col_offset"), ("end_lineno", "end_col_offset")):
                number = getattr(node, begin)
                if number == 1:
                    setattr(node, end, getattr(node, end) - 1 + span[1])
                setattr(node, begin, number - 1 + span[0])
    return tree


class _Line:
    """One expression to be changed."""

    def __init__(self, site: Site, source: Source, expression: ast.expr, scope: Scope) -> None:
        self.site, self.source, self.expression, self.scope = site, source, expression, scope
        self.arrays = {_loose(text): value for text, value in scope.arrays.items()}
        self.nodes = list(_read(expression))
        slices = _target_slices(site, source)
        self.in_target = [node for part in slices for node in _read(part)]

    # --- text

    def text(self, node: ast.AST) -> str:
        return self.source.text(_span(node))

    def closed(self, node: ast.expr) -> str:
        """The text, in parentheses where it needs them."""
        text = self.text(node)
        return text if isinstance(node, _ATOMS) else f"({text})"

    def factor(self, node: ast.expr) -> str:
        """The text as it stands to the left of * or /."""
        is_product = isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div, ast.MatMult))
        return self.text(node) if is_product else self.closed(node)

    def turned(self, node: ast.expr) -> str:
        """The text of the transpose."""
        return self.text(node.value) if _is_transpose(node) else f"{self.closed(node)}.T"  # type: ignore[attr-defined]

    def change(self, node: ast.AST, text: str, mistake: str = "", swapped: tuple[str, str] | None = None) -> Repair:
        return Repair((Edit(_span(node), text),), mistake, swapped)

    # --- changes

    def operands(self) -> Iterator[Repair]:
        """Transposes and the order of products."""
        for node in self.nodes:
            pair = _product(node)
            if pair is None:
                continue
            a, b = pair
            texts = [(self.text(a), self.text(b)), (self.turned(a), self.text(b)), (self.text(a), self.turned(b))]
            texts.append((self.turned(a), self.turned(b)))
            swapped = [(second, first) for first, second in texts]
            infix = isinstance(node, ast.BinOp)
            for number, (first, second) in enumerate([*texts[1:], *swapped]):
                weights = number < 2 and self._is_weights(a if number == 0 else b)
                mistake = "weights-not-transposed" if weights else "transposed"
                if infix:
                    first, second = _operand(first), _operand(second)
                    yield self.change(node, f"{first} @ {second}", mistake)
                else:
                    yield Repair((Edit(_span(a), first), Edit(_span(b), second)), mistake)
            if infix:
                yield self.change(node, f"{self.closed(a)} * {self.closed(b)}", "elementwise-for-matmul")
        for node in self.nodes:
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
                a, b = node.left, node.right
                for first in (self.closed(a), _operand(self.turned(a))):
                    for second in (self.closed(b), _operand(self.turned(b))):
                        yield self.change(node, f"{first} @ {second}", "elementwise-for-matmul")
                        yield self.change(node, f"{second} @ {first}", "elementwise-for-matmul")
        for node in self.nodes:
            if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and self._is_array(node, 2):
                yield self.change(node, self.turned(node), "transposed")
        if not isinstance(self.expression, ast.Name):
            yield self.change(self.expression, self.turned(self.expression), "transposed")

    def operators(self) -> Iterator[Repair]:
        """Signs, factors, comparisons."""
        for node in [*self.nodes, *self.in_target]:
            if isinstance(node, ast.Compare) and len(node.ops) == 1:
                other = _OPPOSITE.get(type(node.ops[0]))
                if other:
                    left, right = self.text(node.left), self.text(node.comparators[0])
                    yield self.change(node, f"{left} {other} {right}", "mask-inverted")
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                yield self.change(node, self.text(node.operand), "sign")
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Invert, ast.Not)):
                yield self.change(node, self.text(node.operand), "mask-inverted")
            elif isinstance(node, ast.BinOp):
                yield from self._operator(node)
        if self.site.kind != "update":
            yield self.change(self.expression, f"-{self.closed(self.expression)}", "sign")

    def _operator(self, node: ast.BinOp) -> Iterator[Repair]:
        a, b, kind = node.left, node.right, type(node.op)
        if kind is ast.Sub:
            if isinstance(a, ast.Constant) and a.value == 1:
                yield self.change(node, self.text(b), "")
            yield self.change(node, f"{self.text(b)} - {self.closed(a)}", "sign")
            yield self.change(node, f"{self.text(a)} + {self.text(b)}", "sign")
        elif kind is ast.Add:
            yield self.change(node, f"{self.text(a)} - {self.closed(b)}", "sign")
        if kind in (ast.Mult, ast.Div, ast.Add, ast.Sub):
            yield self.change(node, self.closed(a), _DROPPED.get(kind, ""))
            if kind is not ast.Sub and kind is not ast.Div:
                yield self.change(node, self.closed(b), _DROPPED.get(kind, ""))
        if kind is ast.Mult:
            if isinstance(a, ast.Constant):  # a number where the downstream gradient belongs
                for other in list(self.scope.arrays)[:12]:
                    yield self.change(a, other, "downstream-ignored")
            yield self.change(node, f"{self.text(a)} / {self.closed(b)}", "wrong-divisor")
        if kind is ast.Div:
            yield self.change(node, f"{self.text(a)} * {self.closed(b)}", "wrong-divisor")
        if kind is ast.Pow:
            yield self.change(node, self.closed(a), "")
        if kind in (ast.Mult, ast.Pow) and not isinstance(b, ast.Constant):
            yield self.change(b, f"(1 - {self.text(b)})", "mask-inverted")

    def calls(self) -> Iterator[Repair]:
        """Axes of sums, sums for means, another function."""
        for node in self.nodes:
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            name = (
                called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
            )
            if name in ("sum", "mean"):
                yield from self._sums(node, called, name)
            if isinstance(called, ast.Name):
                for other in self.scope.functions:
                    if other != name:
                        yield self.change(called, other, "derivative-at-activation")
            for argument in node.args[:2]:
                if name in _UNARY:
                    yield self.change(node, self.closed(argument), _UNARY[name])
            if name in ("astype", "round", "copy", "clip") and isinstance(called, ast.Attribute):
                yield self.change(node, self.closed(called.value), _UNARY[name])
            if name in ("maximum", "minimum", "max", "min", "argmax", "argmin"):
                other = name.replace("max", "·").replace("min", "max").replace("·", "min")
                yield self.change(called, self.text(called)[: -len(name)] + other, "")

    def _sums(self, node: ast.Call, called: ast.expr, name: str) -> Iterator[Repair]:
        is_method = not (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and called.value.id in ("np", "numpy")
        )
        inner = called.value if is_method and isinstance(called, ast.Attribute) else node.args[0] if node.args else None
        if inner is None or isinstance(called, ast.Name):
            return
        module = self.text(called.value) if isinstance(called, ast.Attribute) else ""
        head = f"{self.closed(inner)}.{{}}(" if is_method else f"{module}.{{}}({self.text(inner)}, "
        now = {k.arg: self.text(k.value) for k in node.keywords}
        if len(node.args) > (0 if is_method else 1):
            now["axis"] = self.text(node.args[0 if is_method else 1])
        for axis in ("0", "1", "-1", None, "(0, 1)", "(0, 2, 3)"):
            for keep in (None, "True"):
                new: dict[str, str] = {"axis": axis} if axis is not None else {}
                new.update({"keepdims": keep} if keep else {})
                options = [f"{k}={v}" for k, v in new.items()]
                if new == {k: v for k, v in now.items() if v != "False"}:
                    continue
                had = now.get("axis")
                mistake = (
                    "bias-summed-to-scalar" if had is None
                    else "keepdims-lost" if had == axis
                    else "bias-wrong-axis"
                )  # fmt: skip
                text = head.format(name) + ", ".join(options) + ")"
                yield self.change(node, text.replace(", )", ")"), mistake)
        other = "mean" if name == "sum" else "sum"
        yield self.change(
            called, self.text(called)[: -len(name)] + other, "mean-twice" if name == "mean" else "mean-missing"
        )
        yield self.change(node, self.closed(inner), "")

    def swaps(self) -> Iterator[Repair]:
        """Another value of the same shape, or of any shape, read instead."""
        for node in [*self.nodes, *self.in_target]:
            if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
                continue
            text = self.text(node)
            if _loose(text) in self.arrays:
                mine = self.arrays[_loose(text)]
                yield self.change(node, f"({text} > 0)", "activation-as-mask")
                for other, value in self.scope.arrays.items():
                    if _loose(other) != _loose(text) and value is not mine and np.shape(value) == np.shape(mine):
                        yield self.change(node, other, "", (text, other))
            elif text in self.scope.numbers:
                for other in self.scope.numbers:
                    if other != text:
                        yield self.change(node, other, "wrong-divisor", (text, other))
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, (ast.Slice, ast.Constant)):
                index = self.text(node.slice)
                for other in (f"{index} - 1", f"{index} + 1"):
                    yield self.change(node.slice, other, "other-layers-cache")
        for node in self.nodes:  # X.shape[0] for X.shape[1]
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and isinstance(node.slice.value, int)
            ):
                for i in range(4):
                    if i != node.slice.value:
                        yield self.change(node.slice, str(i), "wrong-divisor")

    def statement(self) -> Iterator[Repair]:
        """`=` for `+=` and back; the statement left out."""
        whole = self.source.text(self.site.span)
        span = self.site.span
        name = self.site.names[0] if self.site.names else ""
        value = self.text(self.expression)
        if self.site.kind == "update":
            target, _, _ = whole.partition("=")
            sign, target = target.rstrip()[-1], target.rstrip()[:-1].rstrip()
            for other in ("", "+", "-"):
                if other != sign:
                    mistake = "sign" if {sign, other} == {"+", "-"} else "not-reset-between-calls"
                    yield Repair((Edit(span, f"{target} {other}= {value}"),), mistake)
            yield Repair((Edit(span, "pass"),), "")
        elif self.site.kind in ("assign", "store") and self.scope.before is not None:
            yield Repair((Edit(span, f"{name} += {value}"),), "overwritten-at-fan-out")
            yield Repair((Edit(span, "pass"),), "")

    def whole(self) -> Iterator[Repair]:
        """A factor, a divisor, a mask or a term that the line lacks."""
        if self.site.kind == "call":
            return
        value = self.factor(self.expression)
        shape = np.shape(self.scope.value)
        names = {n for n in self.scope.arrays if "[" not in n or '"' in n}
        divisors = [n for n, v in self.scope.numbers.items() if isinstance(v, (int, np.integer)) and v > 1]
        divisors += [f"{n}.shape[{i}]" for n in sorted(names) for i in range(np.ndim(self.scope.arrays[n]))][:24]
        for divisor in [*divisors, "2"]:
            yield self.change(
                self.expression, f"{value} / {divisor}", "mean-missing" if divisor != "2" else "constant-factor"
            )
            yield self.change(
                self.expression, f"{value} * {divisor}", "mean-twice" if divisor != "2" else "half-of-the-loss"
            )
        alike = [n for n in self.scope.arrays if np.shape(self.scope.arrays[n]) == shape and shape]
        for n in alike:
            for factor in (f"({n} > 0)", f"{n} * (1 - {n})", f"(1 - {n} ** 2)", n):
                yield self.change(self.expression, f"{value} * {factor}", "activation-derivative-missing")
        for n in alike:
            yield self.change(self.expression, f"{self.text(self.expression)} + {n}", "path-forgotten")
        floats = [n for n, v in self.scope.numbers.items() if isinstance(v, (float, np.floating))]
        for s in floats[:6]:
            yield self.change(self.expression, f"{value} * {s}", "constant-factor")
            yield self.change(self.expression, f"{value} / {s}", "constant-factor")
            for n in alike[:8]:
                for text in (f"{s} * {n}", f"2 * {s} * {n}", *(f"{s} / {m} * {n}" for m in divisors[:3])):
                    yield self.change(self.expression, f"{self.text(self.expression)} + {text}", "regulariser-mismatch")
        for option in ("axis=0", "axis=1", "axis=1, keepdims=True", "axis=0, keepdims=True"):
            yield self.change(self.expression, f"np.sum({self.text(self.expression)}, {option})", "bias-not-summed")

    def constants(self) -> Iterator[Repair]:
        """Another number."""
        for node in [*self.nodes, *self.in_target]:
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, (int, float))
                and not isinstance(node.value, bool)
            ):
                for other in (0, 1, 2, 3, 0.5, 0.25, node.value * 2, node.value / 2, node.value + 1, node.value - 1):
                    if other != node.value:
                        yield self.change(node, f"{other:g}" if other >= 0 else f"({other:g})", "constant-factor")

    def _is_array(self, node: ast.AST, ndim: int) -> bool:
        value = self.arrays.get(_loose(self.text(node)))
        return value is not None and np.ndim(value) == ndim

    def _is_weights(self, node: ast.AST) -> bool:
        text = self.text(node.value if _is_transpose(node) else node)  # type: ignore[attr-defined]
        return text.split("[")[-1].strip("\"']").startswith(("W", "w", "U", "V", "self.W", "self.w"))


_ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant)
_OPPOSITE = {ast.Gt: "<=", ast.GtE: "<", ast.Lt: ">=", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
_DROPPED = {ast.Mult: "constant-factor", ast.Div: "mean-twice", ast.Add: "regulariser-mismatch", ast.Sub: ""}
_UNARY = {
    "float16": "low-precision", "float32": "low-precision", "astype": "low-precision", "round": "rounded-predictions",
    "rint": "rounded-predictions", "tanh": "derivative-at-activation", "sigmoid": "derivative-at-activation",
    "clip": "clip-mismatch", "exp": "", "log": "", "squeeze": "", "where": "", "sign": "", "copy": "", "sqrt": "",
}  # fmt: skip


def _span(node: ast.AST) -> Span:
    return node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0  # type: ignore[attr-defined]


def _is_transpose(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "T"


def _operand(text: str) -> str:
    return text


def _product(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """The operands of `a @ b`, np.dot(a, b) and the like."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        return node.left, node.right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("dot", "matmul"):
        if len(node.args) == 2:
            return node.args[0], node.args[1]
        if len(node.args) == 1 and node.func.attr == "dot":
            return node.func.value, node.args[0]
    return None


def _read(expression: ast.AST) -> Iterator[ast.expr]:
    """The parts of an expression that have values: no callees, no keywords' names; the whole first."""
    todo = [expression]
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.expr):
            yield node
        if isinstance(node, ast.Attribute) and not _is_transpose(node):
            continue
        for child in ast.iter_child_nodes(node):
            if isinstance(node, ast.Call) and child is node.func:
                if isinstance(child, ast.Attribute) and not _is_module(child.value):
                    todo.append(child.value)
                continue
            todo.append(child)


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("np", "numpy", "math", "scipy", "special")


def _target_slices(site: Site, source: Source) -> list[ast.expr]:
    """What stands in the brackets of `x[…] = value`, where it is a condition."""
    if site.kind not in ("store", "update"):
        return []
    line, column, end_line, end_column = site.span
    value_line, value_column = site.value[:2]
    head = source.text((line, column, value_line, value_column))
    begin = head.find("[")
    end = head.rfind("]")
    if begin < 0 or end < begin or "\n" in head:
        return []
    parsed = _parsed(source, (line, column + begin + 1, line, column + end))
    del end_line, end_column
    return [parsed] if isinstance(parsed, ast.Compare) else []


def _loose(text: str) -> str:
    return text.replace("'", '"').replace(" ", "")
