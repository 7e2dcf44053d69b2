"""Reductions: sum, mean, max, min; and what all reductions have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.arguments import Axis, array_of, axes_of, refuse
from stepgrad.ops.expanding import expand, to_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import Sample, distinct, normal
from stepgrad.tape.op import Op, Rule, Shape, TensorType, promoted_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, functions, numpy_functions

__all__ = ["amax", "amin", "max", "mean", "min", "ptp", "sum"]


# --- what reductions have in common


def reduced_shape(a: TensorType, axis: tuple[int, ...], keepdims: bool = False, **params: Any) -> Shape:
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(a.shape))
    return tuple(n for i, n in enumerate(a.shape) if i not in axis)


def nonempty_shape(name: str, why: str) -> Callable[..., Shape]:
    """Shape inference for a reduction that means nothing over no elements."""

    def shape(a: TensorType, axis: tuple[int, ...], **params: Any) -> Shape:
        if not count(a.shape, axis):
            raise ArgumentError(
                f"the {name} of shape {a.shape} over axes {axis} was asked for",
                f"it is over no elements, {why}",
                "check where the array became empty",
            )
        return reduced_shape(a, axis, **params)

    return shape


def unreduce(g: Tensor, shape: Shape, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    """Spreads what a reduction left over the shape that it reduced."""
    if not keepdims and axis != tuple(range(len(axis))):  # leading axes come back by broadcasting alone
        g = functions["reshape"](g, tuple(1 if i in axis else n for i, n in enumerate(shape)))
    return g if g.shape == shape else expand(g, shape=shape)


def axis_text(operands: list[str], params: dict[str, Any], call: str, ndim: int) -> str:
    """`a.sum(axis=1, keepdims=True)`, leaving out what is NumPy's default."""
    axis = params["axis"]
    settings = [] if len(axis) == ndim else [f"axis={axis[0] if len(axis) == 1 else axis}"]
    settings += ["keepdims=True"] if params.get("keepdims") else []
    settings += [f"{k}={v!r}" for k, v in params.items() if k not in ("axis", "keepdims") and v]
    return f"{call.format(operands[0])}{', '.join(settings)})"


def count(shape: Shape, axis: tuple[int, ...]) -> int:
    return math.prod(shape[i] for i in axis)


def widened_dtype(a: TensorType, **params: Any) -> np.dtype[Any]:
    """The dtype of sums and products: NumPy widens booleans and small integers."""
    return np.sum(np.zeros(0, a.dtype)).dtype if a.dtype.kind in "biu" else a.dtype


def averaged_dtype(a: TensorType, **params: Any) -> np.dtype[Any]:
    """The dtype of means: that of the numbers if they are floating, else float64."""
    return a.dtype if a.is_float else np.dtype(np.float64)


def reduction(
    name: str,
    numpy: Callable[..., Any],
    rule: Rule | None,
    *,
    draw: Callable[..., Sample] = normal,
    shape: Callable[..., Shape] = reduced_shape,
    dtype: Callable[..., np.dtype[Any]] = promoted_dtype,
    text: str | None = None,
    settings: tuple[dict[str, Any], ...] = ({},),
    work: float = 1.0,
    analytic: bool = False,
) -> Op:
    """An op that takes axes (params: axis, a tuple, and keepdims) together.

    Args:
        text: how the call begins, by default `{0}.name(`.
        settings: what its samples have for params beyond axis and keepdims.
        work: floating-point operations for each element.
    """
    over = [
        (draw(2, 3), (0, 1), False),
        (draw(4), (0,), False),
        (draw(2, 3, 4), (1,), False),
        (draw(2, 3, 4), (0, 2), True),
    ]
    return register(
        Op(
            name,
            shape=shape,
            dtype=dtype,
            numpy=numpy,
            rules=(rule,),
            text=lambda operands, params, equation: axis_text(
                operands, params, text or f"({{0}}).{name}(", len(equation.inputs[0].type.shape)
            ),
            samples=[
                (sample, {"axis": axis, "keepdims": keepdims, **more})
                for more in settings
                for sample, axis, keepdims in over
            ],
            analytic=analytic,
            cost=lambda a, out, **params: work * a.size,
        )
    )


def reduce(op: Op, a: Any, axis: Any, keepdims: Any, refused: dict[str, Any], dtype: Any = None, **more: Any) -> Tensor:
    """Records a reduction that was called with NumPy's arguments."""
    if refused:
        refuse(op.name, refused)
    tensor = array_of(a)
    if dtype is not None:
        tensor = to_dtype(tensor, dtype)
    result = record(op, (tensor,), {"axis": axes_of(axis, tensor.ndim), "keepdims": bool(keepdims), **more})
    return result if dtype is None or result.dtype == tensor.dtype else to_dtype(result, dtype)


# --- sum and mean

_add_up: Any = np.add.reduce


def sum_numpy(a: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return _add_up(a, axis, keepdims=keepdims)  # what a.sum calls, without its detour


_sum = reduction(
    "sum",
    sum_numpy,
    lambda g, out, a, axis, keepdims: unreduce(g, a.shape, axis, keepdims),
    dtype=widened_dtype,
    analytic=True,
)


def sum(a: Any, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False, **refused: Any) -> Tensor:
    """The sum over axes; 0 over no elements.

    Args:
        a: a tensor or array.
        axis: the axis or axes to sum over; by default all.
        dtype: the dtype to compute in, which the result has.
        keepdims: keep the axes, with length 1.

    Example:
        >>> sg.sum(sg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
        tensor([4., 6.], dtype=float64)
    """
    return reduce(_sum, a, axis, keepdims, refused, dtype)


def _mean_numpy(a: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    return sum_numpy(a, axis, keepdims) / count(a.shape, axis)


_mean = reduction(
    "mean",
    _mean_numpy,
    lambda g, out, a, axis, keepdims: unreduce(g / count(a.shape, axis), a.shape, axis, keepdims),
    shape=nonempty_shape("mean", "and 0/0 is not a number"),
    dtype=averaged_dtype,
    analytic=True,
)


def mean(a: Any, axis: Axis = None, *, dtype: Any = None, keepdims: bool = False, **refused: Any) -> Tensor:
    """The arithmetic mean over axes.

    Args:
        a: a tensor or array.
        axis: the axis or axes to average over; by default all.
        dtype: the dtype to compute in, which the result has.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: the mean is over no elements.

    Example:
        >>> sg.mean(sg.tensor([1.0, 2.0, 6.0]))
        tensor(3., dtype=float64)
    """
    return reduce(_mean, a, axis, keepdims, refused, dtype)


# --- the largest and the smallest


def _share_among_ties(g: Tensor, out: Tensor, a: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    taken = a == unreduce(out, a.shape, axis, keepdims)
    ties = to_dtype(sum(taken, axis, keepdims=keepdims), a.dtype)
    return unreduce(g / ties, a.shape, axis, keepdims) * taken


_max = reduction(
    "max",
    lambda a, axis, keepdims: np.maximum.reduce(a, axis, keepdims=keepdims),
    _share_among_ties,
    draw=distinct,
    shape=nonempty_shape("max", "of which none is the largest"),
)

_min = reduction(
    "min",
    lambda a, axis, keepdims: np.minimum.reduce(a, axis, keepdims=keepdims),
    _share_among_ties,
    draw=distinct,
    shape=nonempty_shape("min", "of which none is the smallest"),
)


def max(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The largest element over axes. Elements that tie for it share the gradient equally.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: the maximum is over no elements.

    Example:
        >>> sg.grad(sg.max)(np.array([1.0, 3.0, 3.0]))
        array([0. , 0.5, 0.5])
    """
    return reduce(_max, a, axis, keepdims, refused)


def min(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The smallest element over axes. Elements that tie for it share the gradient equally.

    Args:
        a: a tensor or array.
        axis: the axis or axes to reduce; by default all.
        keepdims: keep the axes, with length 1.

    Raises:
        ArgumentError: the minimum is over no elements.

    Example:
        >>> sg.min(sg.tensor([[1.0, 5.0], [3.0, 2.0]]), axis=1)
        tensor([1., 2.], dtype=float64)
    """
    return reduce(_min, a, axis, keepdims, refused)


def ptp(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The largest element minus the smallest, over axes.

    Example:
        >>> sg.ptp(sg.tensor([4.0, 1.0, 9.0]))
        tensor(8., dtype=float64)
    """
    return max(a, axis, keepdims=keepdims, **refused) - min(a, axis, keepdims=keepdims)


amax, amin = max, min

public(sum, np.sum)
public(mean, np.mean)
public(max, np.max, np.amax)
public(min, np.min, np.amin)
public(ptp, np.ptp)


def from_first_axis(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`np.add.reduce` and its like take the first axis by default."""
    return lambda array, axis=0, **settings: function(array, axis, **settings)


numpy_functions[np.add, "reduce"] = from_first_axis(sum)
numpy_functions[np.maximum, "reduce"] = from_first_axis(max)
numpy_functions[np.minimum, "reduce"] = from_first_axis(min)
