"""Moving: ops that only put elements elsewhere become slices, repetitions, and joins along one axis.

Slices and repetitions are views, and joins have a kernel of their own (see `specials`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stepgrad.ops.choosing import where
from stepgrad.ops.registry import registry
from stepgrad.passes.rewriting import Rewrite, tensors
from stepgrad.tape.equation import Equation
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor


def _reshape(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    return t if t.shape == shape else record(registry["reshape"], (t,), {"shape": shape})


def _expand(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    return t if t.shape == shape else record(registry["expand"], (t,), {"shape": shape})


def _part(t: Tensor, axis: int, start: int, stop: int) -> Tensor:
    if (start, stop) == (0, t.shape[axis]):
        return t
    return record(registry["getitem"], (t,), {"index": ((None, None, None),) * axis + ((start, stop, None),)})


def _join(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else record(registry["concatenate"], tuple(parts), {"axis": axis})


def _padded(t: Tensor, axis: int, before: int, after: int, value: float) -> Tensor:
    if not before and not after:
        return t
    widths = tuple([(before, after) if i == axis else (0, 0) for i in range(t.ndim)])
    return record(registry["pad"], (t,), {"widths": widths, "value": value})


def _tile(a: Tensor, equation: Equation) -> Tensor:
    reps = equation.params["reps"]
    apart = _reshape(a, tuple([n for size in a.shape for n in (1, size)]))
    whole = _expand(apart, tuple([n for pair in zip(reps, a.shape, strict=True) for n in pair]))
    return _reshape(whole, equation.type.shape)


def _repeat(a: Tensor, equation: Equation) -> Tensor:
    repeats, after = equation.params["repeats"], equation.params["axis"] + 1
    apart = _reshape(a, (*a.shape[:after], 1, *a.shape[after:]))
    return _reshape(_expand(apart, (*a.shape[:after], repeats, *a.shape[after:])), equation.type.shape)


def _roll(a: Tensor, equation: Equation) -> Tensor:
    for shift, axis in zip(equation.params["shift"], equation.params["axis"], strict=True):
        n = a.shape[axis]
        cut = -shift % n
        if cut:
            a = _join([_part(a, axis, cut, n), _part(a, axis, 0, cut)], axis)
    return a


def _pad(a: Tensor, equation: Equation) -> Tensor | None:
    widths, value = equation.params["widths"], equation.params["value"]
    if sum(map(any, widths)) == 1:
        return None
    for axis, (before, after) in enumerate(widths):
        a = _padded(a, axis, before, after, value)
    return a


def _scatter(values: Tensor, equation: Equation) -> Tensor | None:
    """The values, brought to where a basic index points, one axis after the other."""
    shape, index = equation.params["shape"], [part for part in equation.params["index"] if part is not None]
    if Ellipsis in index:
        place = index.index(Ellipsis)
        index[place : place + 1] = [(None, None, None)] * (len(shape) - len(index) + 1)
    index += [(None, None, None)] * (len(shape) - len(index))
    taken = [
        range(*slice(*part).indices(n)) if isinstance(part, tuple) else range(part % n, part % n + 1)
        for part, n in zip(index, shape, strict=True)
    ]
    values = _reshape(values, tuple(map(len, taken)))
    zero = np.zeros((), equation.type.dtype).item()
    for axis, (places, n) in enumerate(zip(taken, shape, strict=True)):
        if places.step < 0:
            places = places[::-1]
            values = record(registry["flip"], (values,), {"axis": (axis,)})
        if places.step > 1 and len(places) > 1:
            values = _padded(_split(values, axis, 1), axis + 1, 0, places.step - 1, zero)
            values = _reshape(values, (*shape[:axis], -(-len(places) * places.step), *values.shape[axis + 2 :]))
            values = _part(values, axis, 0, places[-1] + 1 - places[0])
        values = _padded(values, axis, places[0], n - 1 - places[-1], zero)
    return values


def _split(t: Tensor, axis: int, last: int) -> Tensor:
    return _reshape(t, (*t.shape[: axis + 1], last, *t.shape[axis + 1 :]))


def _triangle(a: Tensor, equation: Equation) -> Tensor:
    kept = np.tri(a.shape[-2], a.shape[-1], k=equation.params["k"] - (equation.op.name == "triu"), dtype=bool)
    mask = _expand(as_tensor(kept), a.shape)
    zero = np.zeros((), equation.type.dtype).item()
    return where(mask, a, zero) if equation.op.name == "tril" else where(mask, zero, a)


def _rewrite(name: str, function: Callable[[Tensor, Equation], Tensor | None], *ops: str) -> Rewrite:
    def pattern(equation: Equation, inputs: tuple[Equation, ...]) -> Tensor | Equation | None:
        if not equation.type.size or not inputs[0].type.size:
            return None
        (a,) = tensors(inputs)
        found = function(a, equation)
        return inputs[0] if found is a else found

    return Rewrite(name, "the same elements in the same places", ops, pattern)


MOVES = (
    _rewrite("a repetition", _tile, "tile"),
    _rewrite("a repetition", _repeat, "repeat"),
    _rewrite("two parts joined", _roll, "roll"),
    _rewrite("one axis after the other", _pad, "pad"),
    _rewrite("zeros around it", _scatter, "scatter"),
    _rewrite("a choice by a mask", _triangle, "tril", "triu"),
)
"""What is done by slices, repetitions and joins."""
