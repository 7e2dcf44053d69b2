"""The reasons for which an equation passes little or nothing on: what each is called, how it is told, what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsInt

import numpy as np

from stepgrad.check.kinds import number_text
from stepgrad.check.paths import Passed, norm
from stepgrad.check.spreading import value_of
from stepgrad.check.wording import NameOf, expression, text_of
from stepgrad.tape.equation import Equation

Explain = Callable[[Passed, NameOf], str]


@dataclass(frozen=True)
class Reason:
    """One reason for which a gradient is cut off, zero or small.

    Attributes:
        name: what it is called.
        ops: the ops that do it; none if it isn't told by an op.
        explain: what there is to see at an equation that does it; empty text if it does not.
        remedy: what to write instead.
    """

    name: str
    ops: frozenset[str]
    explain: Explain
    remedy: str


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _share(part: SupportsInt, whole: SupportsInt) -> str:
    return f"{int(part):,} of {int(whole):,}"


def _input(p: Passed) -> Any:
    """The value of the operand, if the tape kept it; for activations that keep their output, that."""
    return p.equation.inputs[p.operand].value


def _units(p: Passed, name_of: NameOf) -> str:
    """For units along the last axis, how many pass nothing on for any example."""
    passes = p.passes
    text = f"it passes on {_share(np.count_nonzero(passes), passes.size)} elements"
    if passes.ndim >= 2:
        dead = ~np.any(passes != 0, axis=tuple(range(passes.ndim - 1)))
        text += f"; {_share(dead.sum(), dead.size)} units (along the last axis) pass on nothing for any example"
    value = _input(p)
    if value is not None and np.size(value):
        text += f"; the largest element of {text_of(p.equation.inputs[p.operand], name_of)} is {_number(np.max(value))}"
    return text


def _saturated(p: Passed, name_of: NameOf) -> str:
    value, out = _input(p), p.equation.value
    text = f"its gain is {p.gain:.2g}"
    if value is not None:
        source = text_of(p.equation.inputs[p.operand], name_of)
        return f"{text}; the magnitudes in {source} are up to {_number(np.max(np.abs(value), initial=0))}"
    if out is not None:
        return f"{text}; its outputs lie between {_number(np.min(out))} and {_number(np.max(out))}"
    return text


def _others(p: Passed) -> list[Equation]:
    return [e for i, e in enumerate(p.equation.inputs) if i != p.operand]


def _factor(p: Passed, name_of: NameOf) -> str:
    other = _others(p)[0]
    value = value_of(other)
    text = text_of(other, name_of)
    if value is None:
        return f"{text} is small"
    values = np.asarray(value)
    if values.size == 1:
        return f"{'the factor' if text == number_text(float(values.reshape(-1)[0])) else text} is {_number(values)}"
    return f"the magnitudes in {text} {values.shape} are up to {_number(np.max(np.abs(values)))}"


def _zeros(p: Passed, name_of: NameOf) -> str:
    """The other factor, if it is its zeros that make zeros."""
    other = _others(p)[0]
    value = value_of(other)
    values = np.ones(()) if value is None else np.asarray(value)
    text = text_of(other, name_of)
    if values.all() or p.passes.all():
        return ""
    if not values.any():
        return f"{text} {values.shape or ''} is zero".replace("  ", " ")
    if p.equation.op.name != "matmul" or values.ndim != 2:
        return ""
    axis = 0 if p.operand == 0 else 1  # the one over which the product is summed up
    live = values.any(axis=1 - axis)
    if live.all():
        return ""
    return f"{_share(live.size - live.sum(), live.size)} {('rows', 'columns')[axis]} of {text} {values.shape} are zero"


def _is_mask(p: Passed, name_of: NameOf) -> str:
    value = value_of(_others(p)[0])
    values = np.zeros(()) if value is None else np.asarray(value)
    different = np.unique(values) if 1 < values.size < 10**7 else np.zeros(0)
    if len(different) == 2 and different[0] == 0:
        return f"{_share(np.count_nonzero(values), values.size)} elements of the mask are not zero"
    return ""


def _passed(p: Passed, name_of: NameOf) -> str:
    return f"it passes on {_share(np.count_nonzero(p.passes), p.passes.size)} elements"


def _at_minimum(p: Passed, name_of: NameOf) -> str:
    text = text_of(p.equation.inputs[p.operand], name_of)
    return f"{text} is (nearly) 0 there, and so is the slope: {p.equation.op.name} has its minimum at 0"


def _divisor(p: Passed, name_of: NameOf) -> str:
    return "it is divided: " + _factor(p, name_of) if p.operand == 0 else f"its gain is {p.gain:.2g}"


def _averaged(p: Passed, name_of: NameOf) -> str:
    count = p.passes.size // max(p.arrives.size, 1)
    return f"it averages over {count:,} elements, so each gets 1/{count:,} of the gradient"


def _any(p: Passed, name_of: NameOf) -> str:
    return f"its gain is {p.gain:.2g}"


PASSING = (
    Reason(
        "dead-units",
        _ops("relu"),
        _units,
        "lower the learning rate, start biases at 0 or a little above, use sg.nn.LeakyReLU; dead units stay dead for "
        "good if they are dead for all data",
    ),
    Reason(
        "clipped",
        _ops("clip hardtanh hardsigmoid"),
        _passed,
        "clip less, or outside of the loss; a clipped value has no slope",
    ),
    Reason(
        "not-the-largest",
        _ops("maximum minimum fmax fmin max min sort median"),
        _passed,
        "use a smooth version (sg.logsumexp, sg.softplus), or a mean: only the largest or smallest gets a gradient",
    ),
    Reason(
        "saturated",
        _ops(
            "sigmoid tanh softmax log_sigmoid softplus erf erfc ndtr log_ndtr gelu gelu_tanh silu mish elu celu selu "
            "leaky_relu softsign arctan exp hardswish cross_entropy binary_cross_entropy log_softmax logsumexp"
        ),
        _saturated,
        "scale what goes in (normalise inputs, smaller initial weights, sg.nn.init), or compute the loss from logits",
    ),
    Reason("masked", _ops("where"), _passed, "look at the condition: what is not chosen gets no gradient"),
    Reason("masked", _ops("multiply"), _is_mask, "look at the mask: what it multiplies by 0 gets no gradient"),
    Reason(
        "not-selected",
        _ops("getitem gather take_along_axis diagonal tril triu"),
        _passed,
        "look at the index: only what it selects gets a gradient",
    ),
    Reason(
        "multiplied-by-zero",
        _ops("multiply matmul einsum tensordot outer convolve"),
        _zeros,
        "look at why it is zero: weights that start at 0, units that are dead, a mask, missing data",
    ),
    Reason(
        "scaled-down",
        _ops("multiply matmul einsum tensordot outer convolve"),
        _factor,
        "look at what it is multiplied by: its scale, and whether it is meant to be zero",
    ),
    Reason("scaled-down", _ops("divide"), _divisor, "look at the divisor"),
    Reason(
        "at-its-minimum",
        _ops("square absolute fabs constant_power norm p_norm"),
        _at_minimum,
        "nothing, if the loss is at its minimum; otherwise look at why prediction and target agree",
    ),
    Reason("averaged", _ops("mean sum"), _averaged, "nothing: a mean shares the gradient; raise the learning rate"),
    Reason("flat", frozenset(), _any, "look at this equation: it has hardly a slope at these values"),
)
"""Reasons at an equation that passes on little or nothing; the first that fits."""


def reason_at(p: Passed, name_of: NameOf, zero: bool = False) -> tuple[Reason, str]:
    """Why an equation passes on what it does, and what there is to see.

    Args:
        p: what it passes on.
        name_of: the user's names.
        zero: the whole gradient of the operand is zero.
    """
    text = expression(p.equation, name_of)
    if zero and norm(p.passes):
        return CANCELS, f"{text} and what else reads it contribute to its gradient, and the contributions add up to 0"
    for reason in PASSING:
        if not reason.ops or p.equation.op.name in reason.ops:
            seen = reason.explain(p, name_of)
            if seen and reason.name == "scaled-down" and not norm(p.passes):
                return UNDERFLOW, f"{text}: {seen}; what it should pass on is too small for {p.passes.dtype}"
            if seen:
                return reason, f"{text}: {seen}"
    raise AssertionError("the last reason fits everything")


def _reason(name: str, remedy: str) -> Reason:
    return Reason(name, frozenset(), _any, remedy)


UNDERFLOW = _reason("underflow", "multiply by larger numbers, scale the loss up, or use float64")
CANCELS = _reason("cancels", "look at whether this value is meant to be used in ways that cancel, as in x - x")
GRADUALLY = _reason(
    "shrinks-gradually",
    "use activations that do not saturate (sg.relu, sg.gelu), larger initial weights, residual connections x + f(x), "
    "or normalisation",
)
FINE = _reason("nothing-wrong", "nothing: look at the learning rate, and at what the optimizer makes of the gradient")
NOT_FINITE = _reason("not-finite", "sg.first_nan(fn, x, y) names the equation where it was born")

CUTS = {
    "stop_gradient": _reason("stop-gradient", "leave sg.stop_gradient out, or use the tensor from before it"),
    "no_grad": _reason("no-grad", "compute this outside of sg.no_grad()"),
    "astype": _reason("integer", "keep floating-point numbers on the way: integers and booleans change in steps"),
    "argmax": _reason("argmax", "use sg.softmax, or select with a mask that is computed from the values"),
    "argmin": _reason("argmax", "use sg.softmax, or select with a mask that is computed from the values"),
    "a compiled function": _reason(
        "compiled", "take the gradient inside of the compiled function, or call the function itself: compiled.fn"
    ),
}
"""What cuts a path off altogether, by the op or the reason that the tape gives."""

_ROUNDING = _ops("floor ceil trunc rint round floor_divide sign heaviside one_hot")
_COMPARISONS = _ops("greater greater_equal less less_equal equal not_equal isclose logical_and logical_or logical_not "
                    "logical_xor isnan isinf isfinite signbit any all")  # fmt: skip
ROUNDING = _reason("rounding", "leave the rounding out while training: a step function has no slope")
COMPARISON = _reason("comparison", "use a smooth version, such as sg.sigmoid(k * (a - b)): a comparison has no slope")
NO_RULE = _reason("no-derivative", "use an op that has a local rule, or give it one with sg.custom_rule")
NOT_USED = _reason(
    "not-used",
    "use it in the loss; if it was, the value left the tape on the way: through float(), .numpy(), .item(), np.asarray",
)
NOT_TRAINED = _reason("state", "use sg.Parameter for what is trained; a sg.State gets no gradient")
NOT_FLOATING = _reason("integer", "convert first: x.astype(np.float32)")


MOVING = _ops("concatenate stack reshape transpose expand pad tile repeat roll flip alias sum mean add subtract astype")
"""Ops that pass on what arrives as it is, and are not to blame for zeros in it."""


def cut_of(name: str) -> Reason:
    """The reason for a cut that the tape gives as a name: of an op, or of a context."""
    if name in CUTS:
        return CUTS[name]
    return ROUNDING if name in _ROUNDING else COMPARISON if name in _COMPARISONS else NO_RULE


def _number(value: Any) -> str:
    return number_text(float(np.asarray(value).reshape(-1)[0]))


def steepest(way: Sequence[Passed]) -> Passed | None:
    """The equation with the smallest gain; one that only averages or repeats, if there is no other."""
    told = [p for p in way if p.equation.op.name not in ("mean", "sum", "expand", "reshape", "transpose", "alias")]
    return min(told or way, key=lambda p: p.gain, default=None)
