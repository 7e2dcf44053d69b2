"""Aliases: equations whose value is that of another one, and views of views."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.expanding import expand
from stepgrad.ops.registry import registry
from stepgrad.ops.shapes import inverse
from stepgrad.passes.rewriting import Changes, Replacement, Rewrite, by_op, first_of, rewrite, tensors
from stepgrad.tape.equation import Equation
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape

Inputs = tuple[Equation, ...]


def aliases(tape: Tape, changes: Changes) -> Tape:
    """The tape without equations that only pass a value on."""
    return rewrite(tape, first_of(_TABLE), changes)


def _itself(equation: Equation, inputs: Inputs) -> Replacement | None:
    return inputs[0] if inputs[0].type is equation.type else None


def _unmoved(equation: Equation, inputs: Inputs) -> Replacement | None:
    """A transpose that moves no axis, or none that is longer than 1, is a reshape."""
    axes, shape = equation.params["axes"], inputs[0].type.shape
    if axes == tuple(range(len(axes))):
        return inputs[0]
    long = [i for i in axes if shape[i] != 1]
    return _reshaped(inputs[0], equation.type.shape) if long == sorted(long) else None


def _transposed_twice(equation: Equation, inputs: Inputs) -> Replacement | None:
    (inner,) = inputs
    if inner.op is not equation.op:
        return None
    outer_axes, inner_axes = equation.params["axes"], inner.params["axes"]
    if outer_axes == inverse(inner_axes):
        return inner.inputs[0]
    return record(equation.op, tuple(tensors(inner.inputs)), {"axes": tuple(inner_axes[i] for i in outer_axes)})


def _reshaped_twice(equation: Equation, inputs: Inputs) -> Replacement | None:
    (inner,) = inputs
    return _reshaped(inner.inputs[0], equation.type.shape) if inner.op is equation.op else None


def _reshaped(a: Equation, shape: tuple[int, ...]) -> Replacement:
    return a if a.type.shape == shape else record(registry["reshape"], tuple(tensors([a])), {"shape": shape})


def _expanded_twice(equation: Equation, inputs: Inputs) -> Replacement | None:
    (inner,) = inputs
    if inner.op is not equation.op:
        return None
    return expand(*tensors(inner.inputs), shape=equation.type.shape)


def _lengthless(equation: Equation, inputs: Inputs) -> Replacement | None:
    """An expand that only adds axes of length 1 is a reshape."""
    return _reshaped(inputs[0], equation.type.shape) if inputs[0].type.size == equation.type.size else None


def _undone(equation: Equation, inputs: Inputs) -> Replacement | None:
    (inner,) = inputs
    return inner.inputs[0] if inner.op is equation.op and inner.inputs[0].type is equation.type else None


def _through_wider(equation: Equation, inputs: Inputs) -> Replacement | None:
    (inner,) = inputs
    if inner.op is not equation.op or inner.inputs[0].type.weak:
        return None
    first = inner.inputs[0]
    if not _holds_all(inner.type.dtype, first.type.dtype):
        return None
    if first.type.is_float and equation.type.dtype.kind in "iu":  # what NaN becomes depends on the float's dtype
        return None
    if first.type is equation.type:
        return first
    return record(equation.op, tuple(tensors([first])), {"dtype": equation.type.dtype})


def _holds_all(wide: np.dtype[Any], narrow: np.dtype[Any]) -> bool:
    """Whether every number of one dtype is a number of the other."""
    if narrow.kind == "b" or wide == narrow:
        return True
    if narrow.kind in "iu" and wide.kind == "f":
        return np.iinfo(narrow).bits <= np.finfo(wide).nmant
    return np.can_cast(narrow, wide, "safe")


REWRITES = (
    Rewrite(
        "the value itself",
        "it passes its operand on, with the same shape and dtype",
        ("alias", "stop_gradient", "positive", "reshape", "expand", "astype"),
        _itself,
    ),
    Rewrite(
        "a transpose that leaves the order of the elements", "only axes of length 1 move", ("transpose",), _unmoved
    ),
    Rewrite("one transpose for two", "moving axes twice is moving them once", ("transpose",), _transposed_twice),
    Rewrite("one reshape for two", "the order of the elements is the same in all three", ("reshape",), _reshaped_twice),
    Rewrite("a reshape for an expand", "every axis that it adds has length 1", ("expand",), _lengthless),
    Rewrite("one expand for two", "what is repeated twice can be repeated at once", ("expand",), _expanded_twice),
    Rewrite("the value itself, for - - a", "two changes of sign cancel, also of zeros", ("negative",), _undone),
    Rewrite("the value itself, for not not a", "of booleans, two negations cancel", ("logical_not",), _undone),
    Rewrite(
        "one conversion for two",
        "the dtype in between holds every number of the first",
        ("astype",),
        _through_wider,
    ),
)

_TABLE = by_op(REWRITES)
