"""How to speak of a value that has no name: as the expression of names that computes it."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Callable

import numpy as np

from stepgrad.explain.watch import Statement
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, leaves
from stepgrad.tape.expressions import call_text, literal_text, tidy

NameOf = Callable[[Equation], str | None]

_LONGEST = 72
_ELIDED = "..."


def text_of(equation: Equation, name_of: NameOf, depth: int = 3) -> str:
    """How a value is written where it is read: its name, or an expression of names.

    Args:
        equation: what computed it.
        name_of: the user's name for a value, if there is one.
        depth: so many expressions are written inside of each other; beyond that stands an ellipsis.
    """
    return name_of(equation) or expression(equation, name_of, depth)


def expression(equation: Equation, name_of: NameOf, depth: int = 3) -> str:
    """An equation as NumPy, of the names of what it reads: `np.log(Y_hat)`."""
    if equation.op is LITERAL:
        return literal_text(equation).strip("()")
    if equation.op in leaves:
        if equation.type.shape or equation.value is None:
            return equation.name or f"a {equation.op.name} of shape {equation.type.shape}"
        return f"{np.asarray(equation.value)[()]}"
    if is_passed_on(equation):
        return text_of(equation.inputs[0], name_of, depth)
    if not depth:
        return _ELIDED
    operands = [text_of(e, name_of, depth - 1) for e in equation.inputs]
    stand_ins = [f"({t})" if _is_python(t) else f"operand_{i}_" for i, t in enumerate(operands)]
    try:
        text = tidy(call_text(equation, stand_ins))
    except Exception:  # a text that needs more than a text of each operand
        text = ""
    written_out = equation.op.elementwise and "(" in text and equation.op.name not in text
    if not text or written_out:  # sigmoid(z), rather than its formula
        text = f"{equation.op.name}({', '.join(operands)})"
    for i, operand in enumerate(operands):
        text = text.replace(f"operand_{i}_", operand)
    if len(text) > _LONGEST and depth > 1:
        return expression(equation, name_of, depth - 1)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


@functools.lru_cache(maxsize=4096)
def _is_python(text: str) -> bool:
    """Whether it can be read as an expression; names such as `0.weight` can't."""
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def is_passed_on(equation: Equation) -> bool:
    """The same numbers, repeated or under another identity: nothing a reader would call a computation."""
    return bool(equation.inputs) and equation.op.name in ("expand", "alias")


def is_number(equation: Equation) -> bool:
    """Whether it is a number that was written down, and not a value with a name."""
    return equation.op is LITERAL or (equation.op is CONSTANT and not equation.type.shape)


def place_of(statement: Statement) -> str:
    """`net.py:12: Z = W @ X`."""
    code = f": {statement.text}" if statement.text else ""
    return f"{os.path.basename(statement.file)}:{statement.line}{code}"
