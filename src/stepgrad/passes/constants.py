"""Constants: what depends on nothing that changes is computed once, before the program runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.passes.rewriting import Changes, Replacement, Rewrite, rewrite, tensors
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation
from stepgrad.tape.leaves import literal
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape

FOLDED = Rewrite("computed beforehand", "its inputs are constants, and NumPy computes it from them")
NUMBER = Rewrite("a Python number for a constant", "it takes the dtype of the other operand, which is the constant's")

_SMALL = 4096
"""Bytes that a constant may always take; more only if its inputs took as much, so that nothing is spread out."""

_TAKE_NUMBERS = frozenset(
    "add subtract multiply divide maximum minimum where greater greater_equal less less_equal equal not_equal".split()
)
"""Elementwise ops that treat a Python number as an array of the other operands' dtype."""


def constants(tape: Tape, changes: Changes) -> Tape:
    """The tape with constants in the place of what is computed from constants alone."""

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        for e in inputs:
            if e.op is CONSTANT or (e.op.name == "expand" and e.inputs[0].op is CONSTANT):
                break
        else:
            if not inputs or any(e.op is not LITERAL for e in inputs):
                return None
        if all(e.op is CONSTANT or e.op is LITERAL for e in inputs):
            folded = _folded(equation, inputs)
            return None if folded is None else (FOLDED, folded)
        if equation.op.name in _TAKE_NUMBERS:
            written = _with_numbers(equation, inputs)
            return None if written is None else (NUMBER, written)
        return None

    return rewrite(tape, replace, changes)


def _folded(equation: Equation, inputs: tuple[Equation, ...]) -> Equation | None:
    most = max(e.type.nbytes for e in inputs)
    if equation.op.name != "expand" and most < _SMALL:  # an expand costs nothing: its reader repeats
        most = _SMALL
    if equation.type.nbytes > most or any(e.value is None for e in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            value = equation.op.numpy(*[e.value for e in inputs], **equation.params)
    except Exception:  # whoever runs the program hears of it, with the line
        return None
    leaf = Equation(CONSTANT, (), {}, equation.type, False, equation.role)
    leaf.value = np.array(value, equation.type.dtype)  # its own copy: the value may be a view
    leaf.value.setflags(write=False)
    leaf.name = equation.name
    return leaf


def _with_numbers(equation: Equation, inputs: tuple[Equation, ...]) -> Replacement | None:
    """The equation with Python numbers for constants that are one number, spread or not."""
    found = [_number(e) for e in inputs]
    if not any(n is not None for n in found):
        return None
    strong = [e.type for e, n in zip(inputs, found, strict=True) if n is None and not e.type.weak]
    if equation.op.name == "where":
        if found[0] is not None:
            return None
        strong = strong[1:]
    if not strong or any(t.dtype != strong[0].dtype or t.shape != equation.type.shape for t in strong):
        return None
    if any(e.type.dtype != strong[0].dtype for e, n in zip(inputs, found, strict=True) if n is not None):
        return None
    operands = [t if n is None else literal(n.item()) for t, n in zip(tensors(inputs), found, strict=True)]
    return record(equation.op, tuple(operands), equation.params)


def _number(e: Equation) -> Any:
    if e.op.name == "expand":
        (e,) = e.inputs
    return e.value if e.op is CONSTANT and e.value is not None and e.type.size == 1 else None
