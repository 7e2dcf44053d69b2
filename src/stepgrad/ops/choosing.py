"""Choosing between values: where, and the masked gradients behind its promise.

The promise: NaN or Inf from the branch that was not taken never reaches a gradient. `where`'s rule
sets the downstream gradient of that branch to zero there; but the local derivatives of the branch's
own equations may be infinite at the same places (log at 0), and 0 * inf is NaN. So the backward walk
remembers which gradients are masked, and masks what elementwise equations pass upstream once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import public, register
from stepgrad.tape.op import Op, TensorType, promoted_dtype
from stepgrad.tape.recording import RECORDING
from stepgrad.tape.samples import booleans, normal
from stepgrad.tensor import Tensor, functions

__all__ = ["where"]


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


public(where, np.where)
functions["mask"] = mask
