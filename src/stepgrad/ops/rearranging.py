"""Rearranging elements along axes: flip, roll, pad, tile, repeat, …"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, UnsupportedError
from stepgrad.ops.arguments import Axis, array_of, axes_in_order, axes_of, axis_of, refuse_mode, whole, whole_numbers
from stepgrad.ops.reductions import sum as sum_over
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.ops.shapes import ravel, reshape, swapaxes
from stepgrad.tape.op import Op, Shape, TensorType, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor

__all__ = ["flip", "fliplr", "flipud", "pad", "repeat", "roll", "rot90", "tile"]


# --- the other way round

_flip = register(
    Op(
        "flip",
        shape=same_shape,
        numpy=np.flip,
        rules=(lambda g, out, a, axis: flip(g, axis),),
        text=lambda operands, params, equation: (
            f"np.flip({operands[0]}, {params['axis'][0] if len(params['axis']) == 1 else params['axis']})"
        ),
        samples=[(normal(4), {"axis": (0,)}), (normal(2, 3), {"axis": (0, 1)}), (normal(2, 3, 2), {"axis": (1,)})],
        analytic=True,
    )
)


def flip(m: Any, axis: Axis = None) -> Tensor:
    """The elements in reverse order along axes.

    Args:
        m: a tensor or array.
        axis: the axis or axes; by default all.

    Example:
        >>> sg.flip(sg.tensor([1.0, 2.0, 3.0]))
        tensor([3., 2., 1.], dtype=float64)
    """
    tensor = array_of(m)
    axes = axes_of(axis, tensor.ndim)
    return record(_flip, (tensor,), {"axis": axes}) if axes else tensor


def flipud(m: Any) -> Tensor:
    """The rows in reverse order.

    Example:
        >>> sg.flipud(sg.tensor([[1.0], [2.0]])).tolist()
        [[2.0], [1.0]]
    """
    return flip(m, 0)


def fliplr(m: Any) -> Tensor:
    """The columns in reverse order.

    Example:
        >>> sg.fliplr(sg.tensor([[1.0, 2.0]])).tolist()
        [[2.0, 1.0]]
    """
    return flip(m, 1)


def rot90(m: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Tensor:
    """Turned by 90 degrees k times, from the first of two axes towards the second.

    Example:
        >>> sg.rot90(sg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    tensor = array_of(m)
    plane = axes_in_order(tuple(axes), tensor.ndim)
    if len(plane) != 2:
        raise ArgumentError(f"rot90 was called with axes={axes}", "a plane has two axes", "name two different axes")
    turns = whole(k, "k") % 4
    if turns == 0:
        return tensor
    if turns == 2:
        return flip(tensor, plane)
    if turns == 1:
        return swapaxes(flip(tensor, plane[1]), *plane)
    return flip(swapaxes(tensor, *plane), plane[1])


_roll = register(
    Op(
        "roll",
        shape=same_shape,
        numpy=np.roll,
        rules=(lambda g, out, a, shift, axis: roll(g, tuple(-n for n in shift), axis),),
        text=lambda operands, params, equation: (
            f"np.roll({operands[0]}, {params['shift'][0]}, axis={params['axis'][0]})"
            if len(params["axis"]) == 1
            else f"np.roll({operands[0]}, {params['shift']}, axis={params['axis']})"
        ),
        samples=[
            (normal(4), {"shift": (1,), "axis": (0,)}),
            (normal(2, 3), {"shift": (-1, 1), "axis": (1, 0)}),
            (normal(2, 5, 2), {"shift": (-7,), "axis": (1,)}),
        ],
        analytic=True,
    )
)


def roll(a: Any, shift: Any, axis: Axis = None) -> Tensor:
    """Elements moved on along axes; those that fall off one end come back at the other.

    Args:
        a: a tensor or array.
        shift: by how many places; an int, or one for each axis.
        axis: the axis or axes; None rolls the flattened array.

    Example:
        >>> sg.roll(sg.tensor([1.0, 2.0, 3.0]), 1)
        tensor([3., 1., 2.], dtype=float64)
    """
    tensor, places = array_of(a), whole_numbers(shift, "shift")
    if axis is None:
        return reshape(roll(ravel(tensor), sum(places), 0), tensor.shape)
    named = whole_numbers(axis, "axis")
    if not named:
        return tensor
    if len(places) != len(named) and 1 not in (len(places), len(named)):
        raise ArgumentError(
            f"roll was called with shift={shift} and axis={axis}",
            f"{len(places)} shifts do not belong to {len(named)} axes",
            "pass one shift for each axis, or one for all",
        )
    n = max(len(places), len(named))
    axes = tuple(axis_of(i, tensor.ndim) for i in (named if len(named) == n else named * n))
    return record(_roll, (tensor,), {"shift": places if len(places) == n else places * n, "axis": axes})


# --- more at the ends

Widths = tuple[tuple[int, int], ...]


def _pad_numpy(a: Array, widths: Widths, value: float) -> Array:
    padded = np.full([b + n + e for (b, e), n in zip(widths, a.shape, strict=True)], value, a.dtype)
    padded[_inside(widths, a.shape)] = a
    return padded


def _inside(widths: Widths, shape: Shape) -> tuple[slice, ...]:
    """The index that takes the original out of a padded array."""
    return tuple(slice(b, b + n) for (b, _), n in zip(widths, shape, strict=True))


_pad = register(
    Op(
        "pad",
        shape=lambda a, widths, value: tuple(b + n + e for (b, e), n in zip(widths, a.shape, strict=True)),
        dtype=lambda a, widths, value: a.dtype,
        numpy=_pad_numpy,
        rules=(lambda g, out, a, widths, value: g[_inside(widths, a.shape)],),
        text=lambda operands, params, equation: (
            f"np.pad({operands[0]}, {params['widths']}"
            + (f", constant_values={params['value']!r})" if params["value"] else ")")
        ),
        samples=[
            (normal(3), {"widths": ((2, 1),), "value": 0.0}),
            (normal(2, 3), {"widths": ((0, 0), (1, 0)), "value": 1.5}),
            (normal(1, 2, 2), {"widths": ((1, 2), (0, 3), (0, 0)), "value": 0.0}),
        ],
        analytic=True,
    )
)


def pad(
    array: Any, pad_width: Any, mode: str = "constant", *, constant_values: float = 0.0, reflect_type: str = "even"
) -> Tensor:
    """Lengthens axes at both ends.

    Args:
        array: a tensor or array.
        pad_width: by how much: ((before, after), …) for each axis, or (before, after), or one int.
        mode: with what: "constant" (a value), "edge" (the outermost element), "reflect" (mirrored at
            the outermost element), "symmetric" (mirrored beyond it), or "wrap" (the other end).
        constant_values: the value in mode "constant".

    Example:
        >>> sg.pad(sg.tensor([1.0, 2.0]), (1, 2))
        tensor([0., 1., 2., 0., 0.], dtype=float64)
    """
    tensor = array_of(array)
    widths = _widths(pad_width, tensor.shape)
    if not any(b or e for b, e in widths):
        return tensor
    if mode == "constant":
        return record(_pad, (tensor,), {"widths": widths, "value": _padding(constant_values, tensor)})
    if mode not in _MODES or reflect_type != "even":
        refuse_mode("pad", "mode", mode, f"constant, {', '.join(_MODES)} (with reflect_type='even')")
    for axis, ends in enumerate(widths):
        if any(ends):
            if not tensor.shape[axis]:
                raise ArgumentError(
                    f"axis {axis} of shape {tensor.shape} was to be padded with mode={mode!r}",
                    "it has no element to repeat",
                    "use mode='constant'",
                )
            places = np.pad(np.arange(tensor.shape[axis]), ends, mode=mode)  # type: ignore[call-overload]
            tensor = tensor[(*(slice(None),) * axis, places)]
    return tensor


_MODES = ("edge", "reflect", "symmetric", "wrap")


def _widths(pad_width: Any, shape: Shape) -> Widths:
    try:
        given = np.asarray(pad_width)
        pairs = np.broadcast_to(given, (len(shape), 2)).tolist()
    except ValueError:
        pairs = []
    if len(pairs) != len(shape) or any(type(n) is not int or n < 0 for pair in pairs for n in pair):
        raise ArgumentError(
            f"pad_width={pad_width} was given for an array of shape {shape}",
            f"each of its {len(shape)} axes needs two whole numbers that are not negative",
            f"pass {((1, 1),) * len(shape)}, or (1, 1), or 1, for one more at every end; cut with x[1:-1]",
        )
    return tuple((b, e) for b, e in pairs)


def _padding(value: Any, tensor: Tensor) -> float:
    if not isinstance(value, (int, float, np.number)):
        raise UnsupportedError(
            f"pad was called with constant_values={value!r:.60}",
            "it pads with one constant number, to which no gradient flows",
            "pass a number; to pad with other tensors use sg.concatenate",
        )
    return tensor.dtype.type(value).item()


# --- repetition


def _tile_rule(g: Tensor, out: Tensor, a: Tensor, reps: tuple[int, ...]) -> Tensor:
    interleaved = tuple(n for pair in zip(reps, a.shape, strict=True) for n in pair)
    return sum_over(reshape(g, interleaved), tuple(range(0, 2 * a.ndim, 2)))


_tile = register(
    Op(
        "tile",
        shape=lambda a, reps: tuple(n * r for n, r in zip(a.shape, reps, strict=True)),
        numpy=np.tile,
        rules=(_tile_rule,),
        text="np.tile({0}, {reps})",
        samples=[(normal(3), {"reps": (2,)}), (normal(2, 3), {"reps": (3, 1)}), (normal(1, 2, 2), {"reps": (2, 1, 3)})],
        analytic=True,
    )
)


def tile(A: Any, reps: Any) -> Tensor:
    """The whole array repeated along axes.

    Args:
        A: a tensor or array.
        reps: how often along each axis, counted from the last; more of them add axes on the left.

    Example:
        >>> sg.tile(sg.tensor([1.0, 2.0]), 2)
        tensor([1., 2., 1., 2.], dtype=float64)
    """
    tensor, counts = array_of(A), _counts(reps, "reps")
    counts = (1,) * (tensor.ndim - len(counts)) + counts
    tensor = reshape(tensor, (1,) * (len(counts) - tensor.ndim) + tensor.shape)
    return tensor if all(r == 1 for r in counts) else record(_tile, (tensor,), {"reps": counts})


def _counts(counts: Any, meaning: str) -> tuple[int, ...]:
    found = whole_numbers(counts, meaning)
    if any(n < 0 for n in found):
        raise ArgumentError(
            f"{meaning}={counts} was given", "nothing can be repeated fewer than 0 times", "pass 0 or more"
        )
    return found


def _repeat_shape(a: TensorType, repeats: int, axis: int) -> Shape:
    return (*a.shape[:axis], a.shape[axis] * repeats, *a.shape[axis + 1 :])


def _repeat_rule(g: Tensor, out: Tensor, a: Tensor, repeats: int, axis: int) -> Tensor:
    return sum_over(reshape(g, (*a.shape[: axis + 1], repeats, *a.shape[axis + 1 :])), axis + 1)


_repeat = register(
    Op(
        "repeat",
        shape=_repeat_shape,
        numpy=np.repeat,
        rules=(_repeat_rule,),
        text="np.repeat({0}, {repeats}, axis={axis})",
        samples=[
            (normal(3), {"repeats": 2, "axis": 0}),
            (normal(2, 3), {"repeats": 3, "axis": 0}),
            (normal(2, 3, 2), {"repeats": 2, "axis": 1}),
        ],
        analytic=True,
    )
)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Each element repeated, next to itself.

    Args:
        a: a tensor or array.
        repeats: how often; an int, or one for each element of the axis.
        axis: the axis along which; None flattens the array first.

    Example:
        >>> sg.repeat(sg.tensor([1.0, 2.0]), [1, 3])
        tensor([1., 2., 2., 2.], dtype=float64)
    """
    tensor, counts = array_of(a), _counts(repeats, "repeats")
    if axis is None:
        tensor, axis = ravel(tensor), 0
    along = axis_of(axis, tensor.ndim)
    if len(counts) == 1:
        return record(_repeat, (tensor,), {"repeats": counts[0], "axis": along})
    if len(counts) != tensor.shape[along]:
        raise ArgumentError(
            f"{len(counts)} repeats were given for the {tensor.shape[along]} elements of axis {along}",
            "each element needs to know how often it is repeated",
            "pass one int for all, or one for each element",
        )
    return tensor[(*(slice(None),) * along, np.repeat(np.arange(len(counts)), counts))]


public(flip, np.flip)
public(flipud, np.flipud)
public(fliplr, np.fliplr)
public(rot90, np.rot90)
public(roll, np.roll)
public(pad, np.pad)
public(tile, np.tile)
public(repeat, np.repeat)
