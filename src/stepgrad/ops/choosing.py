"""Choosing between values: where, and the masked gradients behind its promise.

The promise: NaN or Inf from the branch that was not taken never reaches a gradient. `where`'s rule
sets the downstream gradient of that branch to zero there; but the local derivatives of the branch's
own equations may be infinite at the same places (log at 0), and 0 * inf is NaN. So the backward walk
remembers which gradients are masked, and masks what elementwise equations pass upstream once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.arguments import number
from stepgrad.ops.arithmetic import binary, numpy_dtype
from stepgrad.ops.comparisons import isfinite, isnan
from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import booleans, constant, normal
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, TensorType, promoted_dtype, same_shape
from stepgrad.tape.recording import RECORDING, record
from stepgrad.tensor import Tensor, functions, numpy_functions

__all__ = ["clip", "fmax", "fmin", "maximum", "minimum", "nan_to_num", "select", "where"]


def mask(g: Tensor, condition: Tensor) -> Tensor:
    """A gradient set to zero outside of a condition; the backward walk keeps it so further up."""
    masked = where(condition, g, 0.0)
    masks = RECORDING.get().masks
    if masks is not None:
        masks[masked.equation] = condition
    return masked


def _prepare(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    condition, a, b = tensors
    if condition.dtype != np.bool_:
        condition = functions["not_equal"](condition, 0)
    return broadcast((condition, a, b))


def _dtype(condition: TensorType, a: TensorType, b: TensorType) -> np.dtype[Any]:
    return promoted_dtype(a, b)


_where = register(
    Op(
        "where",
        shape=broadcast_shape,
        dtype=_dtype,
        numpy=np.where,
        rules=(
            None,
            lambda g, out, condition, a, b: mask(g, condition),
            lambda g, out, condition, a, b: mask(g, functions["logical_not"](condition)),
        ),
        text="np.where({0}, {1}, {2})",
        samples=[(booleans(2, 3), normal(2, 3), normal(2, 3)), (booleans(3), normal(2, 1), normal(3))],
        elementwise=True,
        prepare=_prepare,
    )
)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """Takes from `x` where the condition holds, and from `y` elsewhere.

    NaN and Inf in the branch that is not taken, or in its derivative, never reach a gradient.

    Args:
        condition: booleans, or numbers of which those other than 0 count as true.
        x, y: what to take; the three are broadcast together.

    Example:
        >>> x = np.array([0.0, 2.0])
        >>> sg.grad(lambda x: sg.sum(sg.where(x > 0, sg.log(x), 0.0)))(x)
        array([0. , 0.5])
    """
    return _where(condition, x, y)


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    """Takes from the first choice whose condition holds, and from `default` where none does.

    Args:
        condlist: conditions.
        choicelist: what to take, one for each condition; all are broadcast together.
        default: what to take elsewhere.

    Raises:
        ArgumentError: there are not as many choices as conditions.

    Example:
        >>> x = sg.tensor([-2.0, 0.5, 3.0])
        >>> sg.select([x < 0, x < 1], [-x, x**2])
        tensor([2.  , 0.25, 0.  ], dtype=float64)
    """
    lengths = [len(x) if isinstance(x, (Sequence, np.ndarray)) else 0 for x in (condlist, choicelist)]
    if lengths[0] != lengths[1] or not lengths[0]:
        raise ArgumentError(
            f"select was given {lengths[0]} conditions and {lengths[1]} choices",
            "each condition has its choice, and there has to be one at least",
            "pass two lists of the same length",
        )
    taken = as_tensor(default)
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        taken = where(condition, choice, taken)
    return taken


def _where_in_numpy(condition: Any, *choices: Any) -> Any:
    """np.where, which with a condition alone says where it holds."""
    return where(condition, *choices) if choices else functions["nonzero"](condition)


public(where)
numpy_functions[np.where] = _where_in_numpy
public(select, np.select)
functions["mask"] = mask


# --- the larger, the smaller: ties share the gradient equally


def _halved_at_ties(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return where(a == b, g / 2, g)


_maximum = binary(
    np.maximum,
    "np.maximum({0}, {1})",
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), a >= b),
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), b >= a),
)


def maximum(x1: Any, x2: Any, **refused: Any) -> Tensor:
    """The larger of two, element by element. Ties share the gradient equally.

    With the Python number 0 it is `sg.relu`, whose derivative at 0 is 0: nothing shares a tie with
    a number.

    Args:
        x1, x2: tensors, arrays or numbers, broadcast together.

    Example:
        >>> sg.grad(lambda x: sg.sum(np.maximum(x, 0)))(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 1.])
    """
    for zero, other in ((x1, x2), (x2, x1)):
        if type(zero) in (int, float) and zero == 0 and not refused:
            tensor = as_tensor(other)
            if tensor.equation.type.is_float and not tensor.equation.type.weak:
                return functions["relu"](tensor)
    return _maximum(x1, x2, **refused)


public(maximum, np.maximum)

minimum = binary(
    np.minimum,
    "np.minimum({0}, {1})",
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), a <= b),
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), b <= a),
    doc="The smaller of two. Ties share the gradient equally.",
)

fmax = binary(
    np.fmax,
    "np.fmax({0}, {1})",
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), (a >= b) | isnan(b)),
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), (b >= a) | isnan(a)),
    doc="The larger of two, and the other one where one is NaN. Ties share the gradient equally.",
)

fmin = binary(
    np.fmin,
    "np.fmin({0}, {1})",
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), (a <= b) | isnan(b)),
    lambda g, out, a, b: mask(_halved_at_ties(g, a, b), (b <= a) | isnan(a)),
    doc="The smaller of two, and the other one where one is NaN. Ties share the gradient equally.",
)


# --- clip

_clip = register(
    Op(
        "clip",
        shape=broadcast_shape,
        dtype=numpy_dtype(np.clip),
        numpy=np.clip,
        rules=(
            lambda g, out, a, low, high: mask(g, (a >= low) & (a <= high)),
            lambda g, out, a, low, high: mask(g, (a < low) & (low <= high)),
            lambda g, out, a, low, high: mask(g, (a > high) | (low > high)),
        ),
        text="np.clip({0}, {1}, {2})",
        samples=[
            (normal(2, 3), constant(-0.5), constant(0.7)),
            (normal(2, 3), normal(3), constant(math.inf)),
            (normal(3), normal(2, 3), normal(2, 1)),
        ],
        elementwise=True,
        prepare=broadcast,
    )
)


def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Tensor:
    """Brings values that lie outside of an interval to its ends.

    The derivative is 1 inside and at the ends, 0 outside; NaN and Inf from outside never reach a
    gradient.

    Args:
        a: a tensor or array.
        a_min, a_max: the ends, broadcast with `a`; None for no end. `min` and `max` mean the same.

    Raises:
        ArgumentError: an end is given twice.

    Example:
        >>> sg.clip(sg.tensor([-2.0, 0.5, 2.0]), 0, 1)
        tensor([0. , 0.5, 1. ], dtype=float64)
    """
    if (a_min is not None and min is not None) or (a_max is not None and max is not None):
        raise ArgumentError(
            "clip was given an end of the interval twice",
            "min and a_min mean the same, and so do max and a_max",
            "pass each once, for example sg.clip(x, 0, 1)",
        )
    tensor, low, high = as_tensor(a), min if a_min is None else a_min, max if a_max is None else a_max
    if low is None and high is None:
        return functions["positive"](tensor)
    if not tensor.equation.type.is_float and (low is None or high is None):  # integers have no infinity
        return maximum(tensor, low) if high is None else minimum(tensor, high)
    return _clip(tensor, -math.inf if low is None else low, math.inf if high is None else high)


public(clip, np.clip)


# --- replacing what is not a number

_nan_to_num = register(
    Op(
        "nan_to_num",
        shape=same_shape,
        numpy=lambda a, nan, posinf, neginf: np.nan_to_num(a, nan=nan, posinf=posinf, neginf=neginf),
        rules=(lambda g, out, a, **params: mask(g, isfinite(a)),),
        text="np.nan_to_num({0}, nan={nan}, posinf={posinf}, neginf={neginf})",
        samples=[(normal(2, 3), {"nan": 0.0, "posinf": None, "neginf": -5.0})],
        elementwise=True,
    )
)


def nan_to_num(x: Any, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Replaces NaN and infinities by numbers; no gradient flows where something was replaced.

    Args:
        x: a tensor or array.
        nan, posinf, neginf: the replacements; by default 0 and the largest and smallest finite number.

    Example:
        >>> sg.nan_to_num(sg.tensor([1.0, np.nan]), nan=-1.0)
        tensor([ 1., -1.], dtype=float64)
    """
    replacements = {"nan": nan, "posinf": posinf, "neginf": neginf}
    params = {name: None if r is None and name != "nan" else number(r, name) for name, r in replacements.items()}
    return record(_nan_to_num, (as_tensor(x),), params)


public(nan_to_num, np.nan_to_num)
