"""Equations as NumPy expressions: `Z1 = W1 @ X + b1` out of matmul, expand and add.

Parentheses are left to Python: texts are joined with all of them, parsed, and written out again
with those that the grammar needs.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from stepgrad.tape.equation import LITERAL, Equation

Naming = Callable[[Equation], str | None]
"""What an equation is called, or None if it is to be written out in place."""


def call_text(equation: Equation, operands: list[str]) -> str:
    """One equation as NumPy, over the given texts for its operands."""
    if callable(equation.op.text):
        return equation.op.text(operands, equation.params, equation)
    shown = {k: np.dtype(v).name if isinstance(v, np.dtype) else v for k, v in equation.params.items()}
    return equation.op.text.format(*operands, **shown)


def expression(equation: Equation, naming: Naming) -> str:
    """The right-hand side for an equation, with the operands that have no name written out."""
    texts: dict[Equation, str] = {}
    todo = [equation]
    while todo:
        current = todo[-1]
        waiting = [e for e in current.inputs if naming(e) is None and e.op is not LITERAL and e not in texts]
        if waiting:
            todo.extend(waiting)
            continue
        todo.pop()
        if current not in texts:
            texts[current] = _one(current, naming, texts)
    return tidy(texts[equation])


def _one(equation: Equation, naming: Naming, texts: dict[Equation, str]) -> str:
    operands = []
    for source in equation.inputs:
        if source.op is LITERAL:
            text = repr(source.params["value"])
            operands.append({"inf": "np.inf", "-inf": "(-np.inf)", "nan": "np.nan"}.get(text, f"({text})"))
            continue
        name = naming(source)
        if name is not None:
            operands.append(name)
        elif source.op.name == "expand" and equation.op.elementwise:  # NumPy expands by itself here
            operands.append(f"({naming(source.inputs[0]) or texts.get(source.inputs[0]) or texts[source]})")
        else:
            operands.append(f"({texts[source]})")
    return call_text(equation, operands)


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
    inner = [c for c in code.co_consts if inspect.iscode(c)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]


def evaluate(equation: Equation) -> Any:
    """Runs the text of one equation as Python on the values of its inputs: does it mean what it says?"""
    names = {e: f"x{i}" for i, e in enumerate(dict.fromkeys(equation.inputs))}
    scope: dict[str, Any] = {name: e.value for e, name in names.items()}
    scope |= {f.__name__: f for f in helpers([equation])} | {"np": np, "special": special}
    return eval(expression(equation, lambda e: names.get(e)), scope)
