"""Common subexpressions: what is computed twice from the same values is computed once."""

from __future__ import annotations

from typing import Any

from stepgrad.cells import ASSIGN
from stepgrad.passes.rewriting import Changes, Replacement, Rewrite, rewrite
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, Role
from stepgrad.tape.tape import Tape

SAME = Rewrite("computed once", "the same operation on the same values with the same settings gives the same bits")

_COMMUTATIVE = frozenset("add multiply equal not_equal logical_and logical_or logical_xor".split())
"""Ops whose operands may change places. The larger of 0.0 and -0.0 depends on which comes first."""

_MOST_COMPARED = 4096
"""Constants with more bytes than this are told apart by identity only."""


def common(tape: Tape, changes: Changes) -> Tape:
    """The tape with each distinct equation once.

    Equations inside `sg.checkpoint` are not what its backward pass reads: that one records them
    again, so as not to keep their values, and merging the two would keep them.
    """
    seen: dict[Any, Equation] = {}
    numbers: dict[Any, int] = {}  # what a leaf is the same as: leaf, or what it holds -> a number

    def identity(e: Equation) -> int:
        if e.op is LITERAL:
            return _number(numbers, (type(e.value), repr(e.value)))
        if e.op is CONSTANT and e.value is not None and e.type.nbytes <= _MOST_COMPARED:
            return _number(numbers, (e.type, e.value.tobytes()))
        return e.serial

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        op = equation.op
        if op is ASSIGN:
            return None
        operands = [e.serial if e.inputs else identity(e) for e in inputs]
        if op.name in _COMMUTATIVE:
            operands.sort()
        checkpoint = equation.region if equation.role is Role.FORWARD else None
        params = equation.params
        key = (op, checkpoint, *operands, *params.items()) if params else (op, checkpoint, *operands)
        try:
            first = seen.setdefault(key, equation)
        except TypeError:  # a setting that can't be hashed
            return None
        return None if first is equation or not _agree(first.params, params) else (SAME, first)

    return rewrite(tape, replace, changes)


def _number(numbers: dict[Any, int], key: Any) -> int:
    """Negative numbers, which no serial number is."""
    return numbers.setdefault(key, -1 - len(numbers))


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether settings that compare equal are the same: 1 == 1.0 == True, and 0.0 == -0.0."""
    return not one or repr(one) == repr(other)
