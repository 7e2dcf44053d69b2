"""Formulas: equations as lines of NumPy, `Z2 = W2 @ A1 + b2`.

Each line computes one value that has a name. What has no name of its own is written out where it is
used, unless that would write it twice, carry it from one step to another, or make the line too long;
then it gets a line and a temporary name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from stepgrad.explain.names import Names
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.expressions import call_text, literal_text, tidy

Shape = tuple[int, ...]
_LONGEST = 84
_VIEWS = frozenset(["transpose", "expand", "reshape"])


def is_view(equation: Equation) -> bool:
    """It computes nothing: the same numbers, arranged otherwise or under another identity."""
    return equation.op.name in _VIEWS or equation.op.text == "{0}"


@dataclass(frozen=True, eq=False)
class Line:
    """One line of NumPy.

    Attributes:
        name, text: `name = text`.
        equation: the equation whose value it is.
        reads: the values with names (and leaves) that the text reads.
        equations: every equation that the text computes, `equation` last.
    """

    name: str
    text: str
    equation: Equation
    reads: tuple[Equation, ...]
    equations: tuple[Equation, ...]

    def __str__(self) -> str:
        return f"{self.name} = {self.text}"


@dataclass(frozen=True, eq=False)
class _Text:
    """An expression: its text, the shape NumPy gives it, what it reads, and the equations in it.

    The shape can be smaller than that of the equation: NumPy will expand it where it is used.
    """

    text: str
    shape: Shape
    reads: dict[Equation, None]
    equations: tuple[Equation, ...] = ()


@dataclass(frozen=True)
class Written:
    """What `write` made.

    Attributes:
        lines: by the equation whose value they compute, in order.
        inline: the texts of equations that have no line.
    """

    lines: dict[Equation, Line]
    inline: dict[Equation, str]


def write(
    equations: Iterable[Equation],
    names: Names,
    block: Callable[[Equation], Hashable],
    outputs: Iterable[Equation],
    hints: Mapping[Equation, Callable[[], str | None]],
    leaf: Callable[[Equation], str],
) -> Written:
    """Writes equations as lines.

    Args:
        equations: what is to be computed, in order.
        names: names that equations have; temporaries are added to them.
        block: the part that an equation belongs to; a value read by another part gets a line.
        outputs: values that are wanted: each gets a line.
        hints: what to call a value if it needs a temporary name.
        leaf: how a leaf without a name is written.

    Returns:
        The lines, in order, and the texts of what has none.
    """
    writer = _Writer(list(equations), names, block, set(outputs), hints, leaf)
    for equation in writer.equations:
        writer.add(equation)
    return Written(writer.lines, {e: t.text for e, t in writer.pending.items()})


class _Writer:
    def __init__(
        self,
        equations: list[Equation],
        names: Names,
        block: Callable[[Equation], Hashable],
        outputs: set[Equation],
        hints: Mapping[Equation, Callable[[], str | None]],
        leaf: Callable[[Equation], str],
    ) -> None:
        self.equations, self.names, self.hints, self.leaf = equations, names, hints, leaf
        self.lines: dict[Equation, Line] = {}
        self.kept: dict[Equation, _Text] = {}
        self.pending: dict[Equation, _Text] = {}
        self.shared = set(outputs)
        uses: dict[Equation, int] = {}
        for equation in equations:
            for source in equation.inputs:
                uses[source] = uses.get(source, 0) + 1
                if uses[source] > 1 or (source.inputs and block(source) != block(equation)):
                    self.shared.add(source)
        self.outputs = outputs

    def add(self, equation: Equation) -> None:
        text = self._expression(equation)
        viewed = is_view(equation) and equation.inputs[0] not in self.pending and equation not in self.outputs
        self.pending[equation] = text
        if equation in self.names.of or (equation in self.shared and not viewed):
            self._assign(equation)

    def _assign(self, equation: Equation) -> None:
        pending = self.pending.pop(equation)
        text, shape = pending.text, pending.shape
        if equation not in self.names.of:
            hint = self.hints.get(equation, lambda: None)()
            self.names.of[equation] = self.names.unique(hint) if hint else self.names.numbered("t")
        elif shape != equation.type.shape:
            text, shape = _expanded(text, equation.type.shape), equation.type.shape
        name = self.names.of[equation]
        self.lines[equation] = Line(name, text, equation, tuple(pending.reads), pending.equations)
        self.kept[equation] = _Text(name, shape, {equation: None})

    def _expression(self, equation: Equation) -> _Text:
        made = self._compose(equation)
        while len(made.text) > _LONGEST:
            longest = max(
                (e for e in equation.inputs if e in self.pending and len(self.pending[e].text) > 12),
                key=lambda e: len(self.pending[e].text),
                default=None,
            )
            if longest is None:
                break
            self._assign(longest)
            made = self._compose(equation)
        return made

    def _compose(self, equation: Equation) -> _Text:
        if (same := self._undone(equation)) is not None and equation not in self.outputs:
            return self._operand(same)
        plain = equation.op.elementwise and any(e.op is not LITERAL for e in equation.inputs)
        texts: list[str] = []
        shapes: list[Shape] = []
        reads: dict[Equation, None] = {}
        inner: list[Equation] = []
        for source in equation.inputs:
            if source.op is LITERAL:
                text = literal_text(source)
                texts.append(text if plain else f"np.asarray({text})")
                shapes.append(())
                continue
            operand = self._operand(source)
            if equation.op.name == "expand":  # left to NumPy, where the result is used
                return _Text(operand.text, operand.shape, operand.reads, (*operand.equations, equation))
            text = f"({operand.text})" if source in self.pending else operand.text
            if not plain and operand.shape != source.type.shape:
                text = _expanded(text, source.type.shape)
            texts.append(text)
            shapes.append(operand.shape)
            reads.update(operand.reads)
            inner.extend(operand.equations)
        inner.append(equation)
        text = tidy(call_text(equation, texts))
        shape = np.broadcast_shapes(*shapes) if plain else equation.type.shape
        return _Text(text, shape, reads, tuple(dict.fromkeys(inner)))

    def _undone(self, equation: Equation) -> Equation | None:
        """What a transpose of a transpose written in place gives back, if it is the same axes again."""
        source = equation.inputs[0] if equation.op.name == "transpose" else equation
        if source is equation or source.op.name != "transpose" or source not in self.pending:
            return None
        inner, outer = source.params["axes"], equation.params["axes"]
        return source.inputs[0] if all(inner[i] == n for n, i in enumerate(outer)) else None

    def _operand(self, source: Equation) -> _Text:
        found = self.pending.get(source) or self.kept.get(source)
        if found is None:
            found = self.kept[source] = _Text(
                self.names.of.get(source) or self.leaf(source), source.type.shape, {source: None}
            )
        return found


def _expanded(text: str, shape: Shape) -> str:
    return tidy(f"np.broadcast_to({text}, {shape})")
