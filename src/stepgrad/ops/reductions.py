"""Reductions: sum, mean, …"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.expanding import expand
from stepgrad.ops.registry import public, register
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import as_tensor, record
from stepgrad.tape.samples import normal
from stepgrad.tensor import Array, Tensor, functions

__all__ = ["mean", "sum"]


_add_up: Any = np.add.reduce
Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes meant by NumPy's `axis` argument, counted from the front, in order."""
    if axis is None:
        return tuple(range(ndim))
    asked = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(sorted(operator.index(a) + (ndim if operator.index(a) < 0 else 0) for a in asked))
    if any(not 0 <= a < ndim for a in axes):
        raise ArgumentError(
            f"axis={axis} was given for an array with {ndim} axes",
            f"axes are numbered from 0 to {ndim - 1}, or from -{ndim} to -1" if ndim else "it has no axes",
            "name an axis that the array has; axis=None takes them all",
        )
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"axis={axis} names an axis twice", "each axis can be reduced once", "name each axis once")
    return axes


def reduced_shape(a: TensorType, axis: tuple[int, ...], keepdims: bool = False, **params: Any) -> Shape:
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(a.shape))
    return tuple(n for i, n in enumerate(a.shape) if i not in axis)


def unreduce(g: Tensor, shape: Shape, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    """Spreads what a reduction left over the shape that it reduced."""
    if not keepdims and axis != tuple(range(len(axis))):  # leading axes come back by broadcasting alone
        g = functions["reshape"](g, tuple(1 if i in axis else n for i, n in enumerate(shape)))
    return g if g.shape == shape else expand(g, shape=shape)


def axis_text(operands: list[str], params: dict[str, Any], name: str, ndim: int) -> str:
    """`a.sum(axis=1, keepdims=True)`, leaving out what is NumPy's default."""
    axis = params["axis"]
    settings = [] if len(axis) == ndim else [f"axis={axis[0] if len(axis) == 1 else axis}"]
    settings += ["keepdims=True"] if params.get("keepdims") else []
    settings += [f"{k}={v!r}" for k, v in params.items() if k not in ("axis", "keepdims") and v]
    return f"({operands[0]}).{name}({', '.join(settings)})"


def count(shape: Shape, axis: tuple[int, ...]) -> int:
    return math.prod(shape[i] for i in axis)


def _sum_dtype(a: TensorType, **params: Any) -> np.dtype[Any]:
    return np.sum(np.zeros(0, a.dtype)).dtype if a.dtype.kind in "biu" else a.dtype  # NumPy widens small integers


def _sum_numpy(a: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return _add_up(a, axis, keepdims=keepdims)  # what a.sum calls, without its detour


_sum = register(
    Op(
        "sum",
        shape=reduced_shape,
        dtype=_sum_dtype,
        numpy=_sum_numpy,
        rules=(lambda g, out, a, axis, keepdims: unreduce(g, a.shape, axis, keepdims),),
        text=lambda operands, params, equation: axis_text(operands, params, "sum", len(equation.inputs[0].type.shape)),
        samples=[
            (normal(2, 3), {"axis": (0, 1), "keepdims": False}),
            (normal(2, 3, 4), {"axis": (1,), "keepdims": False}),
            (normal(2, 3, 4), {"axis": (0, 2), "keepdims": True}),
        ],
        analytic=True,
        cost=lambda a, out, **params: a.size,
    )
)


def sum(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """The sum over axes.

    Args:
        a: a tensor or array.
        axis: the axis or axes to sum over; by default all.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.sum(sg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
        tensor([4., 6.], dtype=float64)
    """
    tensor = as_tensor(a)
    axes = axes_of(axis, tensor.ndim)
    return record(_sum, (tensor,), {"axis": axes, "keepdims": bool(keepdims)})


def _mean_numpy(a: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return _sum_numpy(a, axis, keepdims) / count(a.shape, axis)


def _mean_dtype(a: TensorType, **params: Any) -> np.dtype[Any]:
    return a.dtype if a.is_float else np.dtype(np.float64)


_mean = register(
    Op(
        "mean",
        shape=reduced_shape,
        dtype=_mean_dtype,
        numpy=_mean_numpy,
        rules=(lambda g, out, a, axis, keepdims: unreduce(g / count(a.shape, axis), a.shape, axis, keepdims),),
        text=lambda operands, params, equation: axis_text(operands, params, "mean", len(equation.inputs[0].type.shape)),
        samples=[
            (normal(2, 3), {"axis": (0, 1), "keepdims": False}),
            (normal(2, 3, 4), {"axis": (1,), "keepdims": True}),
        ],
        analytic=True,
        cost=lambda a, out, **params: a.size,
    )
)


def mean(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over axes.

    Args:
        a: a tensor or array.
        axis: the axis or axes to average over; by default all.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: the mean is over no elements.

    Example:
        >>> sg.mean(sg.tensor([1.0, 2.0, 6.0]))
        tensor(3., dtype=float64)
    """
    tensor = as_tensor(a)
    axes = axes_of(axis, tensor.ndim)
    if not count(tensor.shape, axes):
        raise ArgumentError(
            f"the mean over axes {axes} of shape {tensor.shape} was asked for",
            "it is over no elements, and 0/0 is not a number",
            "check where the array became empty",
        )
    return record(_mean, (tensor,), {"axis": axes, "keepdims": bool(keepdims)})


public(sum, np.sum)
public(mean, np.mean)
