"""Algebra that is exact: the same bits for all numbers, also for NaN, infinities, -0.0 and denormals.

(Which bits a NaN has beside being one is not kept.) `x + 0` is not `x` where x is -0.0, `x - x` is not 0
where x is infinite, and `0 * x` is not 0: none of these is here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.ops.arithmetic import add
from stepgrad.ops.registry import registry
from stepgrad.passes.rewriting import Changes, Replacement, Rewrite, by_op, first_of, rewrite, tensors
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation
from stepgrad.tape.leaves import literal
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape

Inputs = tuple[Equation, ...]


def algebra(tape: Tape, changes: Changes) -> Tape:
    """The tape with cheaper equations for the same values."""
    by_pattern = first_of(_TABLE)
    relus: dict[Equation, Equation] = {}

    def replace(equation: Equation, inputs: Inputs) -> tuple[Rewrite, Replacement] | None:
        name = equation.op.name
        if name == "relu":
            relus.setdefault(inputs[0], equation)
        elif name in MASK_OF_RELU.ops and inputs[0] in relus and _number(inputs[1]) == 0:
            relu = changes.moved.get(relus[inputs[0]], relus[inputs[0]])
            return MASK_OF_RELU, _recorded(name, relu, inputs[1])
        return by_pattern(equation, inputs)

    return rewrite(tape, replace, changes)


MASK_OF_RELU = Rewrite(
    "the sign of relu(z) for that of z",
    "relu(z) > 0 where z > 0, and not where z is NaN; so z need not be kept",
    ("greater", "less_equal"),
)


def _recorded(op: str, *operands: Equation, **params: Any) -> Replacement:
    return record(registry[op], tuple(tensors(operands)), params)


def _number(e: Equation) -> Any:
    """The number that an operand is, or None."""
    if e.op is LITERAL:
        return e.value
    if e.op.name == "expand":
        (e,) = e.inputs
    return e.value.item() if e.op is CONSTANT and e.value is not None and e.type.size == 1 else None


def _is(e: Equation, number: float) -> bool:
    """Whether an operand is this number; 0.0 and -0.0 are two."""
    found = _number(e)
    return found is not None and found == number and math.copysign(1, found) == math.copysign(1, number)


def _floating(*equations: Equation) -> bool:
    return all(e.type.dtype.kind == "f" for e in equations)


# --- operands that change nothing


def _times_one(equation: Equation, inputs: Inputs) -> Replacement | None:
    for x, one in (inputs, inputs[::-1]):
        if x.type is equation.type and _is(one, 1):
            return x
    return None


def _by_one(equation: Equation, inputs: Inputs) -> Replacement | None:
    return inputs[0] if inputs[0].type is equation.type and _is(inputs[1], 1) else None


def _minus_zero(equation: Equation, inputs: Inputs) -> Replacement | None:
    return inputs[0] if inputs[0].type is equation.type and _is(inputs[1], 0) else None


def _plus_negative_zero(equation: Equation, inputs: Inputs) -> Replacement | None:
    whole = equation.type.dtype.kind in "iu"  # there is one zero only
    for x, zero in (inputs, inputs[::-1]):
        if x.type is equation.type and _is(zero, 0 if whole else -0.0):
            return x
    return None


def _same_choices(equation: Equation, inputs: Inputs) -> Replacement | None:
    return inputs[1] if inputs[1] is inputs[2] and inputs[1].type is equation.type else None


def _unequal_to_zero(equation: Equation, inputs: Inputs) -> Replacement | None:
    """`mask != 0` is the mask itself, also where it had been made numbers."""
    x, zero = inputs
    if x.op.name == "astype":
        (x,) = x.inputs
    return x if x.type is equation.type and _number(zero) == 0 else None


def _as_numbers(equation: Equation, inputs: Inputs) -> Replacement | None:
    """`x * mask.astype(x.dtype)` is `x * mask`."""
    for i, mask in enumerate(inputs):
        other = inputs[1 - i]
        if mask.op.name == "astype" and mask.inputs[0].type.dtype.kind == "b" and not mask.inputs[0].type.weak:
            if other.type.weak or other.type.dtype != mask.type.dtype or other.op.name == "astype":
                continue
            return _recorded("multiply", *([mask.inputs[0], other] if i == 0 else [other, mask.inputs[0]]))
    return None


# --- signs


def _times_minus_one(equation: Equation, inputs: Inputs) -> Replacement | None:
    for x, one in (inputs, inputs[::-1]):
        if x.type is equation.type and _floating(x) and _is(one, -1):
            return _recorded("negative", x)
    return None


def _by_minus_one(equation: Equation, inputs: Inputs) -> Replacement | None:
    x, one = inputs
    return _recorded("negative", x) if x.type is equation.type and _floating(x) and _is(one, -1) else None


def _negated_term(equation: Equation, inputs: Inputs) -> Replacement | None:
    """a + -b is a - b; -a + b is b - a; a - -b is a + b."""
    a, b = inputs
    if not _floating(a, b):
        return None
    if b.op.name == "negative":
        return _recorded("subtract" if equation.op.name == "add" else "add", a, b.inputs[0])
    if a.op.name == "negative" and equation.op.name == "add":
        return _recorded("subtract", b, a.inputs[0])
    return None


def _negated_factors(equation: Equation, inputs: Inputs) -> Replacement | None:
    a, b = inputs
    if a.op.name == b.op.name == "negative" and _floating(a, b):
        return _recorded(equation.op.name, a.inputs[0], b.inputs[0])
    return None


def _sign_is_lost(equation: Equation, inputs: Inputs) -> Replacement | None:
    (x,) = inputs
    if x.op.name in ("negative", "absolute") and _floating(x):
        return _recorded(equation.op.name, *x.inputs)
    return None


# --- cheaper arithmetic


def _by_power_of_two(equation: Equation, inputs: Inputs) -> Replacement | None:
    x, divisor = inputs
    number = _number(divisor)
    if not number or x.type is not equation.type or x.type.weak or not _floating(x):
        return None
    exact = abs(math.frexp(number)[0]) == 0.5 and _fits(number, x) and _fits(1.0 / number, x)
    return _recorded("multiply", x, literal(1.0 / number).equation) if exact else None


def _fits(number: float, x: Equation) -> bool:
    """Whether a number is one of x's dtype."""
    with np.errstate(over="ignore"):
        return float(x.type.dtype.type(number)) == number != math.inf


def _named_power(equation: Equation, inputs: Inputs) -> Replacement | None:
    (x,) = inputs
    exponent = equation.params["exponent"]
    if not _floating(x) or x.type.weak:
        return None
    if exponent == 1:
        return x
    name = _POWERS.get(exponent)
    return None if name is None else _recorded(name, x)


_POWERS = {2: "square", 0.5: "sqrt", -1: "reciprocal"}


def _not_condition(equation: Equation, inputs: Inputs) -> Replacement | None:
    condition, a, b = inputs
    return _recorded("where", condition.inputs[0], b, a) if condition.op.name == "logical_not" else None


def _of_one(equation: Equation, inputs: Inputs) -> Replacement | None:
    """A reduction over axes of length 1."""
    (x,) = inputs
    shape = x.type.shape
    if x.type.dtype != equation.type.dtype or any(shape[i] != 1 for i in equation.params["axis"]):
        return None
    if equation.op.name == "sum" and _floating(x):
        x = add(*tensors([x]), 0.0).equation
    return x if equation.type.shape == shape else _recorded("reshape", x, shape=equation.type.shape)


_TWICE_IS_ONCE = "the second one changes nothing any more"


def _twice(equation: Equation, inputs: Inputs) -> Replacement | None:
    return inputs[0] if inputs[0].op is equation.op else None


def _with_itself(equation: Equation, inputs: Inputs) -> Replacement | None:
    a, b = inputs
    return a if a is b and a.type is equation.type else None


REWRITES = (
    Rewrite("x for x * 1", "1 is neutral also for NaN and -0.0", ("multiply",), _times_one),
    Rewrite("x for x / 1", "1 is neutral also for NaN and -0.0", ("divide",), _by_one),
    Rewrite("x for x - 0", "-0.0 - 0.0 is -0.0", ("subtract",), _minus_zero),
    Rewrite("x for x + -0.0", "0.0 + -0.0 is 0.0; of integers, there is one zero", ("add",), _plus_negative_zero),
    Rewrite("-x for x * -1", "the product only differs in its sign", ("multiply",), _times_minus_one),
    Rewrite("-x for x / -1", "the quotient only differs in its sign", ("divide",), _by_minus_one),
    Rewrite("a - b for a + -b", "subtraction is defined as adding the opposite", ("add", "subtract"), _negated_term),
    Rewrite("a * b for -a * -b", "the signs cancel before rounding", ("multiply", "divide"), _negated_factors),
    Rewrite("|x| for |-x|", "it does not depend on the sign", ("absolute", "square"), _sign_is_lost),
    Rewrite("x * 2**-k for x / 2**k", "both round the same number once", ("divide",), _by_power_of_two),
    Rewrite("a named function for a power", "NumPy computes this power so", ("constant_power",), _named_power),
    Rewrite("x for where(c, x, x)", "either way it is x", ("where",), _same_choices),
    Rewrite("where(c, b, a) for where(not c, a, b)", "it takes the same ones", ("where",), _not_condition),
    Rewrite("a mask for mask != 0", "True is 1 and False 0", ("not_equal",), _unequal_to_zero),
    Rewrite("x * mask for x * mask.astype(…)", "True is 1 and False 0", ("multiply",), _as_numbers),
    Rewrite("a reshape for a reduction", "every axis that it reduces has length 1", ("max", "min", "prod"), _of_one),
    Rewrite("x + 0 for a sum", "every axis has length 1; the sum of -0.0 alone is 0.0 in NumPy", ("sum",), _of_one),
    Rewrite("once for twice", _TWICE_IS_ONCE, ("relu", "absolute", "floor", "ceil", "trunc", "rint", "sign"), _twice),
    Rewrite("c for c and c", "either way it is c", ("logical_and", "logical_or"), _with_itself),
)

_TABLE = by_op(REWRITES)
