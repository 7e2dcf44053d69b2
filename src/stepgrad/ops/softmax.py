"""Softmax, its logarithm, and the logarithm of its denominator.

None of them overflows. An entry of -inf counts as left out (a masked score in attention): its
softmax is 0, and no gradient flows to it. If all entries are left out, softmax is 0 everywhere, and
log_softmax and logsumexp are -inf; their gradients are finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops import plain
from stepgrad.ops.arguments import Axis, array_of, axes_of
from stepgrad.ops.exponentials import exp
from stepgrad.ops.reductions import from_first_axis, reduced_shape, sum, unreduce
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.tape.equation import Equation
from stepgrad.tape.op import Op, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions, numpy_functions

__all__ = ["log_softmax", "logsumexp", "softmax"]

SAMPLES: list[tuple[Any, dict[str, Any]]] = [
    (normal(2, 3), {"axis": (1,)}),
    (normal(2, 3, 2), {"axis": (1,)}),
    (normal(2, 3), {"axis": (0, 1)}),
    (normal(3), {"axis": (0,)}),
]


def _text(operands: list[str], params: dict[str, Any], equation: Equation) -> str:
    axis = params["axis"]
    keepdims = ", keepdims=True" if params.get("keepdims") else ""
    return f"{equation.op.name}({operands[0]}, axis={axis[0] if len(axis) == 1 else axis}{keepdims})"


def _floating(a: Any) -> Tensor:
    tensor = array_of(a)
    return tensor if tensor.equation.type.is_float else functions["astype"](tensor, np.float64)


_softmax = register(
    Op(
        "softmax",
        shape=same_shape,
        numpy=plain.softmax,
        rules=(lambda g, out, a, axis: out * (g - sum(g * out, axis=axis, keepdims=True)),),
        text=_text,
        samples=SAMPLES,
        analytic=True,
        cost=lambda a, out, **params: 5.0 * a.size,
    )
)


@public
def softmax(a: Any, axis: Axis = -1) -> Tensor:
    """exp(a), divided by its sum over an axis: positive numbers that add up to 1.

    Args:
        a: a tensor or array; -inf marks an entry that is left out and gets 0. Where all are, all
            get 0.
        axis: the axis or axes over which they add up to 1; None for all.

    Example:
        >>> sg.softmax(sg.tensor([1000.0, 1000.0, -np.inf]))
        tensor([0.5, 0.5, 0. ], dtype=float64)
    """
    tensor = _floating(a)
    return record(_softmax, (tensor,), {"axis": axes_of(axis, tensor.ndim)})


_log_softmax = register(
    Op(
        "log_softmax",
        shape=same_shape,
        numpy=plain.log_softmax,
        rules=(lambda g, out, a, axis: g - exp(out) * sum(g, axis=axis, keepdims=True),),
        text=_text,
        samples=SAMPLES,
        analytic=True,
        cost=lambda a, out, **params: 5.0 * a.size,
    )
)


@public
def log_softmax(a: Any, axis: Axis = -1) -> Tensor:
    """The logarithm of softmax, without a detour over numbers that may be too small.

    Args:
        a: a tensor or array; -inf marks an entry that is left out, and gives -inf.
        axis: the axis or axes over which softmax adds up to 1; None for all.

    Example:
        >>> sg.log_softmax(sg.tensor([0.0, 1000.0]))
        tensor([-1000.,     0.], dtype=float64)
    """
    tensor = _floating(a)
    return record(_log_softmax, (tensor,), {"axis": axes_of(axis, tensor.ndim)})


_logsumexp = register(
    Op(
        "logsumexp",
        shape=reduced_shape,
        numpy=plain.logsumexp,
        rules=(
            lambda g, out, a, axis, keepdims: (
                unreduce(g, a.shape, axis, keepdims) * record(_softmax, (a,), {"axis": axis})
            ),
        ),
        text=_text,
        samples=[(a, {**params, "keepdims": keep}) for a, params in SAMPLES for keep in (False, True)],
        analytic=True,
        cost=lambda a, out, **params: 4.0 * a.size,
    )
)


@public
def logsumexp(a: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(a))) over axes, without overflow.

    Args:
        a: a tensor or array; -inf marks an entry that is left out. Where all are, the result is -inf
            and the gradient 0.
        axis: the axis or axes to sum over; by default all.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.logsumexp(sg.tensor([1000.0, 1000.0]))
        tensor(1000.69314718, dtype=float64)
    """
    tensor = _floating(a)
    return record(_logsumexp, (tensor,), {"axis": axes_of(axis, tensor.ndim), "keepdims": bool(keepdims)})


numpy_functions[np.logaddexp, "reduce"] = from_first_axis(logsumexp)
