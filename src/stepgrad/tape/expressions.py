"""Equations as NumPy expressions: `W1 @ X` for a matmul.

Parentheses are left to Python: texts are joined with all of them, parsed, and written out again
with those that the grammar needs.
"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.tape.equation import LITERAL, Equation


def call_text(equation: Equation, operands: list[str]) -> str:
    """One equation as NumPy, over the given texts for its operands."""
    if callable(equation.op.text):
        return equation.op.text(operands, equation.params, equation)
    shown = {k: np.dtype(v).name if isinstance(v, np.dtype) else v for k, v in equation.params.items()}
    return equation.op.text.format(*operands, **shown)


def literal_text(literal: Equation) -> str:
    """A Python number as an operand."""
    text = repr(literal.params["value"])
    return {"inf": "np.inf", "-inf": "(-np.inf)", "nan": "np.nan"}.get(text, f"({text})")


@functools.lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """The same expression with only the parentheses that it needs."""
    return ast.unparse(ast.parse(text, mode="eval"))


def helpers(equations: Any) -> list[Callable[..., Any]]:
    """The functions of `stepgrad.ops` that the texts of these equations call by name."""
    found: dict[str, Callable[..., Any]] = {}

    def take(function: Any) -> None:
        if not inspect.isfunction(function) or not function.__module__.startswith("stepgrad."):
            return
        if function.__name__ in found or function.__name__ == "<lambda>":
            return
        for name in _names(function.__code__):
            take(function.__globals__.get(name))
        found[function.__name__] = function

    for equation in equations:
        meaning = equation.op.numpy
        name = getattr(meaning, "__name__", "")
        if name.isidentifier() and f"{name}(" in call_text(equation, ["x"] * len(equation.inputs)):
            take(meaning)
    return list(found.values())


def _names(code: Any) -> list[str]:
    """The globals that a function reads; attributes such as the `eigh` of np.linalg.eigh are not among them."""
    inner = [c for c in code.co_consts if inspect.iscode(c)]
    own = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    return [*own, *(name for c in inner for name in _names(c))]


def evaluate(equation: Equation) -> Any:
    """Runs the text of one equation as Python on the values of its inputs: does it mean what it says?"""
    from scipy import special  # here, because importing it takes long

    texts = [literal_text(e) if e.op is LITERAL else f"x{i}" for i, e in enumerate(equation.inputs)]
    scope: dict[str, Any] = {f"x{i}": e.value for i, e in enumerate(equation.inputs)}
    scope |= {f.__name__: f for f in helpers([equation])} | {"np": np, "special": special}
    return eval(tidy(call_text(equation, texts)), scope)


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


def function_text(function: Callable[..., Any]) -> str:
    """The source of a plain function, without annotations."""
    text = textwrap.dedent(inspect.getsource(function))
    cuts: list[tuple[int, int, int, int]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            note, start = node.annotation, node.col_offset + len(node.arg)
            cuts.append((node.lineno, start, note.end_lineno or node.lineno, note.end_col_offset or start))
    lines = text.splitlines()
    for row, start, last, end in sorted(cuts, reverse=True):
        rest = lines[last - 1][end:]
        lines[row - 1] = lines[row - 1][:start] + re.sub(r"^ = ", "=", rest)
        del lines[row:last]
    return re.sub(r"\) -> [^\n]*:\n", "):\n", "\n".join(lines) + "\n").rstrip()
