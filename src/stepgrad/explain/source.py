"""Source: the recorded passes as a NumPy module that runs on its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.explain.arrange import Arranged, arguments_of, is_inline, leaf_text
from stepgrad.explain.formulas import Line
from stepgrad.explain.ledger import cached, is_stored
from stepgrad.explain.steps import Step
from stepgrad.tape.equation import Equation
from stepgrad.tape.expressions import function_text, helpers
from stepgrad.tape.layout import WIDTH

if TYPE_CHECKING:
    from stepgrad.explain.trace import Trace


def source(trace: Trace) -> str:
    """The text of the module; see `Trace.source`."""
    made = trace.arranged
    parts = _Parts(made)
    body = [parts.forward(trace), parts.backward()]
    if made.assigned:
        body.append(parts.update())
    functions = [function_text(f) for f in helpers([*made.forward, *made.backward, *made.update])]
    constants = [f"{n} = {array_text(np.asarray(e.value))}" for n, e in made.constants.items() if is_inline(e)]
    text = "\n\n\n".join([*functions, *body])
    imports = ["import math"] * bool(re.search(r"\bmath\.", text)) + ["import numpy as np"]
    imports += ["from scipy import special"] * bool(re.search(r"\bspecial\.", text))
    if imports[0] == "import math":
        imports.insert(1, "")
    head = f'"""The forward and backward pass of `{trace.function}`, written out by stepgrad."""'
    return "\n".join([head, "", *imports, *[""] * bool(constants), *constants, "", "", text]).rstrip() + "\n"


class _Parts:
    """Writes the functions of the module."""

    def __init__(self, made: Arranged) -> None:
        self.made, self.names, self.lines = made, made.names.of, made.written.lines
        self.cache = [self.names[e] for e in cached(made)]

    def forward(self, trace: Trace) -> str:
        made = self.made
        wanted = [*made.outputs, *cached(made), *self._read_by_update()]
        values = [self._text(e) for e in made.outputs]
        cache = _tuple("    cache = ", self.cache)
        place = f" ({trace.place[0]}:{trace.place[1]})" if trace.place else ""
        return "\n".join(
            [
                _call("def forward", list(arguments_of(made)), ":"),
                f'    """The forward pass of {trace.function}{place}: its value, and what backward will read."""',
                *self._body([s.lines for s in made.steps if s.kind == "forward"], wanted),
                cache,
                f"    return {', '.join(values) if len(values) == 1 else '(' + ', '.join(values) + ')'}, cache",
            ]
        )

    def backward(self) -> str:
        made = self.made
        settings = [f"{self.names[g]}={_seed(g)}" for g in dict.fromkeys(made.seeds.values())]
        gradients = made.wanted_gradients()
        lines = [
            _call("def backward", ["cache", *settings], ":"),
            '    """The backward pass: the gradients, from the cache and the downstream gradient."""',
        ]
        if self.cache:
            lines.append(_tuple("    ", self.cache, " = cache"))
        lines += self._body([s.backward_lines for s in self._backward_order()], list(gradients.values()))
        for leaf, equation in gradients.items():
            name = made.targets[self._leaf(leaf)]
            if self._text(equation) != name:
                lines.append(f"    {name} = {self._text(equation)}")
        entries = [f"{leaf!r}: {made.targets[self._leaf(leaf)]}".replace("'", '"') for leaf in gradients]
        return "\n".join([*lines, _wrapped("    return {", entries, "}")])

    def update(self) -> str:
        made = self.made
        body = self._body([s.lines for s in made.steps if s.kind == "update"], list(made.assigned.values()))
        entries = [f'"{cell}": {self._text(e)}' for cell, e in made.assigned.items()]
        return "\n".join(
            [
                _call("def update", [self._text(e) for e in self._read_by_update()], ":"),
                '    """What is put into the parameters and states, by name."""',
                *body,
                _wrapped("    return {", entries, "}"),
            ]
        )

    def _backward_order(self) -> list[Step]:
        return sorted(
            (s for s in self.made.steps if s.backward_lines), key=lambda s: s.backward_lines[0].equation.serial
        )

    def _leaf(self, name: str) -> Equation:
        return self.made.inputs.get(name) or self.made.parameters[name]

    def _text(self, equation: Equation) -> str:
        return self.made.text(equation)

    def _read_by_update(self) -> list[Equation]:
        """What the update reads from the passes before it."""
        lines = [self.lines[e] for e in self.made.update if e in self.lines]
        inside = {line.equation for line in lines}
        read = dict.fromkeys(s for line in lines for s in line.reads if s not in inside)
        read.update(dict.fromkeys(e for e in self.made.assigned.values() if e not in inside))
        return [e for e in read if is_stored(self.made, e)]

    def _body(self, groups: Sequence[Sequence[Line]], wanted: Sequence[Equation]) -> list[str]:
        """The lines that are needed, with the groups set apart where they are long."""
        needed = set(wanted)
        for group in reversed(groups):
            for line in reversed(group):
                if line.equation in needed:
                    needed.update(line.reads)
        written = []
        for group in groups:
            written += [f"    {line}" for line in group if line.equation in needed]
        return written


def _seed(seed: Equation) -> str:
    """A downstream gradient, as the default of an argument."""
    value = np.asarray(seed.value)
    if not value.shape:
        return leaf_text(seed)
    if (value == 1).all():
        return f"np.ones({value.shape}, np.{value.dtype.name})"
    return array_text(value)


def array_text(value: Any) -> str:
    """An array as an expression that gives the same bits."""
    if not value.size:
        return f"np.zeros({value.shape}, dtype=np.{value.dtype.name})"

    def element(x: Any) -> str:
        text = repr(complex(x)) if value.dtype.kind == "c" else str(x)
        return {"nan": "np.nan", "inf": "np.inf", "-inf": "-np.inf"}.get(text, text)

    def nested(x: Any) -> str:
        return "[" + ", ".join(nested(row) for row in x) + "]" if x.ndim else element(x[()])

    return f"np.array({nested(value)}, dtype=np.{value.dtype.name})"


# --- layout


def _call(start: str, arguments: Sequence[str], end: str) -> str:
    return _wrapped(f"{start}(", list(arguments), ")" + end)


def _tuple(start: str, names: Sequence[str], end: str = "") -> str:
    one = f"{start}({names[0]},){end}" if len(names) == 1 else f"{start}{', '.join(names) or '()'}{end}"
    return one if len(one) <= WIDTH else _wrapped(f"{start}(", list(names), ")" + end)


def _wrapped(start: str, items: list[str], end: str) -> str:
    one = f"{start}{', '.join(items)}{end}"
    if len(one) <= WIDTH or not items:
        return one
    indent = " " * (len(start) - len(start.lstrip()))
    inner = textwrap.wrap(
        " ".join(f"{i}," for i in (item.replace(" ", "\0") for item in items)),
        WIDTH - len(indent) - 4,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join([start, *(f"{indent}    {line}" for line in inner), indent + end]).replace("\0", " ")
