"""Sampled functions: linspace, gradient, interp, polyval, convolve, correlate."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import array_of, axes_in_order, refuse_mode, whole
from stepgrad.ops.choosing import where
from stepgrad.ops.cumulative import along, diff
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.joining import concatenate
from stepgrad.ops.rearranging import flip
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.ops.shapes import moveaxis, reshape
from stepgrad.ops.sorting import searchsorted
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tensor import Tensor, functions

__all__ = ["convolve", "correlate", "gradient", "interp", "linspace", "polyval"]


# --- convolution


def _convolve_shape(a: TensorType, v: TensorType) -> Shape:
    if len(a.shape) != 1 or len(v.shape) != 1 or not a.size or not v.size:
        raise ShapeError(
            f"a convolution of shapes {a.shape} and {v.shape} was asked for",
            "it is defined for two vectors, neither of them empty",
            "flatten them first, or convolve row by row",
        )
    return (a.size + v.size - 1,)


def _convolve_rule(g: Tensor, v: Tensor, length: int) -> Tensor:
    """The gradient of one vector: the downstream one against the other, where they overlap in full."""
    return _convolve(g, flip(v))[v.size - 1 : v.size - 1 + length]


_convolve: Op = register(
    Op(
        "convolve",
        shape=_convolve_shape,
        numpy=np.convolve,
        rules=(
            lambda g, out, a, v: _convolve_rule(g, v, a.size),
            lambda g, out, a, v: _convolve_rule(g, a, v.size),
        ),
        text="np.convolve({0}, {1})",
        samples=[(normal(5), normal(3)), (normal(2), normal(4)), (normal(3), normal(1))],
        prepare=lambda operands: same_dtype(*operands),
        analytic=True,
        cost=lambda a, v, out: 2.0 * a.size * v.size,
    )
)


def same_dtype(a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    wanted = np.result_type(a.dtype, v.dtype)
    if wanted.kind != "f":
        return a, v
    return to_dtype(a, wanted), to_dtype(v, wanted)


def convolve(a: Any, v: Any, mode: str = "full") -> Tensor:
    """The convolution of two vectors: `out[k]` is the sum of `a[i] * v[k - i]` over i.

    Args:
        a, v: vectors.
        mode: "full" (all that overlaps), "same" (the middle, as long as the longer one), or "valid"
            (what overlaps in full).

    Example:
        >>> sg.convolve(sg.tensor([1.0, 2.0, 3.0]), [1.0, -1.0], mode="valid")
        tensor([1., 1.], dtype=float64)
    """
    first, second = (reshape(array_of(x), -1) if array_of(x).ndim == 0 else array_of(x) for x in (a, v))
    if mode not in ("full", "same", "valid"):
        refuse_mode("convolve", "mode", mode, "'full', 'same' and 'valid'")
    full = _convolve(first, second)
    long, short = max(first.size, second.size), min(first.size, second.size)
    if mode == "full":
        return full
    return full[(short - 1) // 2 :][:long] if mode == "same" else full[short - 1 : long]


def correlate(a: Any, v: Any, mode: str = "valid") -> Tensor:
    """The correlation of two vectors: `convolve` with the second one backwards.

    Args:
        a, v: vectors.
        mode: as for `convolve`.

    Example:
        >>> sg.correlate(sg.tensor([1.0, 2.0, 4.0]), [1.0, 1.0])
        tensor([3., 6.], dtype=float64)
    """
    first, second = array_of(a), array_of(v)
    if mode == "same" and second.size > first.size:  # the middle of an even length is rounded the other way
        return flip(convolve(second, flip(first), mode))
    return convolve(first, flip(second) if second.ndim else second, mode)


# --- places


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, *, dtype: Any = None, axis: int = 0
) -> Tensor:
    """Numbers at equal distances from `start` to `stop`.

    Args:
        start, stop: numbers, tensors or arrays, broadcast together.
        num: how many.
        endpoint: whether `stop` is the last of them; if not, it is the one that would follow.
        dtype: of the result; floating by default.
        axis: where the new axis stands in the result.

    Example:
        >>> sg.linspace(sg.tensor(1.0), 2.0, 3)
        tensor([1. , 1.5, 2. ], dtype=float64)
    """
    n = whole(num, "num")
    if n < 0:
        raise ArgumentError(f"linspace was called with num={num}", "there can't be so few", "pass 0 or more")
    first, last = (as_tensor(x) * 1.0 for x in (start, stop))
    distance = last - first
    steps = max(n - 1 if endpoint else n, 1)
    counted = np.arange(n).reshape(-1, *(1,) * distance.ndim).astype(distance.dtype)
    places = first + (distance / steps) * counted
    if endpoint and n > 1:
        places = where(counted == n - 1, last, places)  # exactly
    if axis != 0:
        places = moveaxis(places, 0, axis)
    if dtype is None:
        return places
    return to_dtype(functions["floor"](places) if np.dtype(dtype).kind in "iu" else places, dtype)


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Tensor:
    """Values between points of a function, on the straight line from one point to the next.

    Args:
        x: where to evaluate.
        xp: where the points are, ascending.
        fp: the values there, of the same length.
        left, right: the values below and above all points; by default the first and the last of `fp`.

    Example:
        >>> sg.interp(sg.tensor([0.5, 9.0]), [0.0, 1.0, 2.0], [0.0, 10.0, 40.0])
        tensor([ 5., 40.], dtype=float64)
    """
    places, points, values = array_of(x), array_of(xp), array_of(fp)
    if points.ndim != 1 or points.shape != values.shape or not points.size:
        raise ShapeError(
            f"interp was given points of shape {points.shape} and values of shape {values.shape}",
            "each point has one value, and there has to be one at least",
            "pass two vectors of the same length",
        )
    below = values[0] if left is None else left
    above = values[-1] if right is None else right
    if points.size == 1:
        inside = places * 0.0 + values[0]
    else:
        i = functions["clip"](searchsorted(points, places, "right"), 1, points.size - 1)
        slope = (values[i] - values[i - 1]) / (points[i] - points[i - 1])
        inside = values[i - 1] + slope * (places - points[i - 1])
        inside = where(places == points[-1], values[-1], inside)
    return where(places < points[0], below, where(places > points[-1], above, inside))


def polyval(p: Any, x: Any) -> Tensor:
    """The value of a polynomial.

    Args:
        p: its coefficients, that of the highest power first.
        x: where to evaluate it.

    Example:
        >>> sg.polyval(sg.tensor([1.0, 0.0, 3.0]), 5.0)
        tensor(28., dtype=float64)
    """
    coefficients, value = array_of(p), as_tensor(x)
    if not coefficients.ndim:
        raise ShapeError(
            "polyval was given a single number as coefficients",
            "a polynomial has one coefficient for each power",
            "pass them as an array with one axis, for example polyval([a, b, c], x)",
        )
    total = as_tensor(0) * value
    for coefficient in coefficients:
        total = total * value + coefficient
    return total


# --- slopes


def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """The slopes of a sampled function, from central differences: `np.gradient`, not a derivative of a program.

    Args:
        f: the samples.
        varargs: how far apart they are: one number for all axes, or for each axis a number or the
            places of the samples. By default 1.
        axis: the axis or axes along which to take slopes; None for all.
        edge_order: 1 or 2, the order of accuracy at the ends.

    Returns:
        An array of f's shape; for several axes a tuple of them.

    Example:
        >>> sg.gradient(sg.tensor([1.0, 4.0, 9.0]))
        tensor([3., 4., 5.], dtype=float64)
    """
    samples = array_of(f)
    axes = tuple(range(samples.ndim)) if axis is None else axes_in_order(axis, samples.ndim)
    distances = varargs or (1.0,)
    if len(distances) == 1 and len(axes) != 1:
        distances *= len(axes)
    if len(distances) != len(axes):
        raise ArgumentError(
            f"gradient was given {len(varargs)} distances for {len(axes)} axes",
            "each axis has its own, or all have the same",
            "pass one, or one for each axis",
        )
    if edge_order not in (1, 2):
        refuse_mode("gradient", "edge_order", edge_order, "1 and 2")
    if not samples.equation.type.is_float:
        samples = to_dtype(samples, np.float64)
    slopes = tuple(_slope(samples, array_of(d), i, edge_order) for d, i in zip(distances, axes, strict=True))
    return slopes[0] if len(axes) == 1 else slopes


def _slope(f: Tensor, distance: Tensor, axis: int, edge_order: int) -> Tensor:
    n = f.shape[axis]
    if n < edge_order + 1:
        raise ShapeError(
            f"slopes of shape {f.shape} along axis {axis} were asked for",
            f"that takes {edge_order + 1} samples along the axis",
            "sample the function more often",
        )
    if distance.ndim and distance.shape != (n,):
        raise ShapeError(
            f"places of shape {distance.shape} were given for the {n} samples of axis {axis}",
            "each sample has one place",
            f"pass a number, or {n} places",
        )
    if not distance.equation.type.is_float:  # differences of unsigned integers would wrap around
        distance = to_dtype(distance, f.dtype)
    shape = [n - 1 if i == axis else 1 for i in range(f.ndim)]
    steps = reshape(diff(distance), shape) if distance.ndim else reshape(distance, [1] * f.ndim)
    steps = to_dtype(steps, f.dtype)
    slopes = diff(f, axis=axis) / steps  # between neighbours

    def part(x: Tensor, start: int | None, stop: int | None) -> Tensor:
        return x[along(axis, start, stop)] if x.shape[axis] > 1 else x

    def end(outer: Tensor, inner: Tensor, outer_step: Tensor, inner_step: Tensor) -> Tensor:
        return outer + (outer - inner) * outer_step / (outer_step + inner_step)

    before, after = (part(steps, None, -1), part(steps, 1, None)) if distance.ndim else (steps, steps)
    inner = (
        (slopes[along(axis, None, -1)] * after + slopes[along(axis, 1, None)] * before) / (before + after)
        if n > 2
        else slopes[along(axis, 0, 0)]
    )
    first, last = slopes[along(axis, None, 1)], slopes[along(axis, -1, None)]
    if edge_order == 2:
        step = [part(steps, *bounds) for bounds in ((None, 1), (1, 2), (-2, -1), (-1, None))]
        first, last = (
            end(first, slopes[along(axis, 1, 2)], step[0], step[1]),
            end(last, slopes[along(axis, -2, -1)], step[3], step[2]),
        )
    return concatenate([first, inner, last], axis)


public(convolve, np.convolve)
public(correlate, np.correlate)
public(linspace, np.linspace)
public(interp, np.interp)
public(polyval, np.polyval)
public(gradient, np.gradient)
