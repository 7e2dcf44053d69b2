"""Indexing: everything that NumPy's `[]` takes, and new values in the places that an index names."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.errors import AbstractValueError, IndexingError, StepgradError
from stepgrad.ops.expanding import expand
from stepgrad.ops.gathering import (
    EVERYTHING,
    Index,
    check_range,
    gather_op,
    gather_shape,
    getitem_op,
    getitem_shape,
    last_of_equals_op,
    nonzero_op,
    scatter_add_op,
    scatter_op,
    whole_index,
)
from stepgrad.ops.registry import public
from stepgrad.tape.op import Shape, promoted_dtype, type_of
from stepgrad.tape.recording import as_tensor, constant, literal, place_text, record, user_where
from stepgrad.tensor import ArrayLike, Tensor, describe, functions

__all__ = ["index_add", "index_set", "nonzero"]


def getitem(a: Any, index: Any) -> Tensor:
    """`a[index]`, by NumPy's rules.

    Args:
        a: a tensor or array.
        index: integers, slices, None, Ellipsis, and arrays or lists of integers or booleans; or a
            tuple of them. Gradients of elements that are picked more than once add up.

    Raises:
        IndexingError: an index is out of range or not an integer, or there are too many.
        AbstractValueError: a mask whose values are not known yet; use `sg.where`.

    Example:
        >>> sg.tensor([[1.0, 2.0], [3.0, 4.0]])[:, -1]
        tensor([2., 4.], dtype=float64)
    """
    tensor = as_tensor(a)
    parts = index if type(index) is tuple else (index,)
    try:
        basic = _basic(parts)
        if basic is not None:
            return record(getitem_op, (tensor,), {"index": basic}) if basic not in _NOTHING else tensor
        return _Plan(tensor, parts).pick(tensor)
    except IndexingError as error:
        raise _located(error, tensor) from None


def index_add(a: Any, index: Any, values: Any) -> Tensor:
    """`a` with values added in the places that an index names; `np.add.at` as a function.

    Args:
        a: a tensor or array.
        index: what may stand in `a[index]`. In a place that is named more than once, all its values are added.
        values: numbers of the shape of `a[index]`, or that broadcast to it.

    Example:
        >>> sg.index_add(sg.tensor([0.0, 0.0, 0.0]), [0, 2, 2], [1.0, 2.0, 3.0])
        tensor([1., 0., 5.], dtype=float64)
    """
    tensor = as_tensor(a)
    shape, _, put = _places(tensor, index)
    return functions["add"](tensor, put(_fit(values, shape, tensor)))


def index_set(a: Any, index: Any, values: Any) -> Tensor:
    """`a` with other values in the places that an index names: `a[index] = values` as a function.

    Args:
        a: a tensor or array.
        index: what may stand in `a[index]`. In a place that is named more than once, the last value stays.
        values: numbers of the shape of `a[index]`, or that broadcast to it.

    Example:
        >>> sg.index_set(sg.tensor([1.0, 2.0, 3.0]), slice(1, None), 0.0)
        tensor([1., 0., 0.], dtype=float64)
    """
    tensor = as_tensor(a)
    shape, pick, put = _places(tensor, index)
    new = _fit(values, shape, tensor)
    if pick is not None:
        places = pick(constant(np.arange(tensor.size).reshape(tensor.shape)))
        new = functions["where"](last_of_equals_op(places), new, 0)
    named = put(constant(np.ones(shape, np.bool_)))
    return functions["where"](named, put(new), tensor)


def nonzero(a: Any) -> tuple[Tensor, ...]:
    """The indices of the elements that are not 0 (or are True): one integer array for each axis.

    Args:
        a: a tensor or array with at least one axis.

    Raises:
        AbstractValueError: in a function being recorded abstractly, where how many there are is not known.

    Example:
        >>> sg.nonzero(sg.tensor([0.0, 3.0, 4.0]))
        (tensor([1, 2], dtype=int64),)
    """
    tensor = as_tensor(a)
    if tensor.value is None:
        raise AbstractValueError(
            f"the places where {describe(tensor)} is not 0 were asked for while recording abstractly",
            "the shape of the result depends on values, and only shapes and dtypes are known then",
            "keep the shape and choose with sg.where(mask, x, 0), or do this part outside of the function",
        )
    if not tensor.ndim:
        raise IndexingError(
            f"the nonzero elements of {describe(tensor)} were asked for",
            "it has no axes, so there are no indices",
            "use sg.nonzero(sg.reshape(x, -1))",
        )
    count = int(np.count_nonzero(tensor.value))
    return tuple(record(nonzero_op, (tensor,), {"axis": axis, "count": count}) for axis in range(tensor.ndim))


# --- reading what stands between the brackets

_NOTHING: tuple[Index, ...] = ((), (Ellipsis,))


def _basic(parts: tuple[Any, ...]) -> Index | None:
    """The parts as a param, or None if there are arrays among them."""
    encoded: list[Any] = []
    for part in parts:
        if type(part) is int or part is None or part is Ellipsis:
            encoded.append(part)
        elif type(part) is slice:
            encoded.append(_slice(part))
        elif isinstance(part, np.integer):
            encoded.append(int(part))
        else:
            return None
    return tuple(encoded)


def _slice(part: slice) -> Index:
    bounds: list[int | None] = []
    for bound in (part.start, part.stop, part.step):
        try:
            bounds.append(None if bound is None else operator.index(bound))
        except StepgradError:  # an abstract tensor
            raise
        except TypeError:
            raise _not_an_index(bound) from None
    if bounds[2] == 0:
        raise IndexingError(
            "a slice with step 0 was used as an index",
            "it would stay in one place for ever",
            "use a step such as 1, 2 or -1",
        )
    return tuple(bounds)


def _part(part: Any) -> Any:
    """One part of an index as an int, slice, None, Ellipsis, bool, or tensor of integers or booleans."""
    basic = _basic((part,))
    if basic is not None:
        return basic[0]
    if isinstance(part, (list, tuple)):
        if any(isinstance(p, ArrayLike) for p in part):
            part = functions["stack"](part)
        else:
            part = constant(part) if len(part) else constant(np.zeros(0, np.intp))
    if isinstance(part, (bool, np.bool_)):
        return bool(part)
    if not isinstance(part, (ArrayLike, np.ndarray)) or part.dtype.kind not in "iub":
        raise _not_an_index(part)
    if part.dtype == np.bool_ and not part.ndim:
        return bool(part)
    return as_tensor(part)


def _not_an_index(part: Any) -> IndexingError:
    array = isinstance(part, (ArrayLike, np.ndarray)) and part.ndim
    return IndexingError(
        f"an array of {part.dtype} numbers was used as an index" if array else f"{part!r} was used as an index",
        "indices are integers, slices, None, Ellipsis, and arrays of integers or booleans",
        "convert it first, for example with int(i), or i.astype(np.int64) for an array",
    )


def _is_advanced(part: Any) -> bool:
    return isinstance(part, (int, Tensor))


def _takes(part: Any) -> int:
    """How many axes a part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == np.bool_ else 1


class _Plan:
    """How an index with arrays is recorded: a basic index for the rest, then `gather` for the arrays.

    Integers beside arrays count as arrays, as in NumPy.

    Attributes:
        before: the basic index, which leaves one axis for each index array.
        indices, axes: the index arrays, and the axes that they index after `before`.
        indexed: for each index array the axis of the tensor, None where `before` adds one.
        full: the shape after `before`.
        picked: the shape after `gather`.
        shape: the shape of the result. It differs from `picked` if an Ellipsis that stands for no
            axes separates index arrays: an axis of length 1 takes its place and is dropped at the end.
    """

    def __init__(self, a: Tensor, parts: tuple[Any, ...]) -> None:
        read = [_part(part) for part in parts]
        used = sum(_takes(part) for part in read)
        whole_index(tuple(part for part in read if part is Ellipsis) + (0,) * used, a.ndim)  # not too many
        if not any(part is Ellipsis for part in read):
            read.append(Ellipsis)
        before: list[Any] = []
        self.indices: list[Tensor] = []
        self.indexed: list[int | None] = []
        axes: list[int] = []
        gap: int | None = None
        axis = 0
        for i, part in enumerate(read):
            if part is Ellipsis:
                if used == a.ndim and axes and any(_is_advanced(p) for p in read[i + 1 :]):
                    gap = len(before)
                before += [None] if gap is not None else [EVERYTHING] * (a.ndim - used)
                axis += a.ndim - used
            elif not _is_advanced(part):
                before.append(part)
                axis += part is not None
            else:
                for offset, index in enumerate(_arrays(part, a, axis)):
                    axes.append(len(before))
                    self.indices.append(index)
                    self.indexed.append(None if isinstance(part, bool) else axis + offset)
                    before.append(None if isinstance(part, bool) else EVERYTHING)
                axis += _takes(part)
        self.before, self.axes = tuple(before), tuple(axes)
        self.full = getitem_shape(a.equation.type, self.before)
        self.picked = gather_shape(
            type_of(self.full, a.dtype), *[i.equation.type for i in self.indices], axes=self.axes
        )
        self.shape = self.picked
        if gap is not None:
            kept = gap - sum(axis < gap for axis in axes) + len(self.picked) - (len(self.full) - len(axes))
            self.shape = (*self.picked[:kept], *self.picked[kept + 1 :])

    def pick(self, a: Tensor) -> Tensor:
        """What the index picks from `a`."""
        full = a
        if any(part != EVERYTHING for part in self.before):
            full = record(getitem_op, (a,), {"index": self.before})
        try:
            out = record(gather_op, (full, *self.indices), {"axes": self.axes})
        except IndexError:  # NumPy's own
            self.check(a.shape)
            raise
        return functions["reshape"](out, self.shape)

    def put(self, values: Tensor, shape: Shape) -> Tensor:
        """Zeros of `shape`, plus the values where the index points."""
        values = functions["reshape"](values, self.picked)
        try:
            out = record(scatter_add_op, (values, *self.indices), {"shape": self.full, "axes": self.axes})
        except IndexError:
            self.check(shape)
            raise
        if any(part != EVERYTHING for part in self.before):
            out = record(scatter_op, (out,), {"shape": shape, "index": self.before})
        return out

    def check(self, shape: Shape) -> None:
        """Raises IndexingError where an index array points outside of its axis."""
        for index, axis in zip(self.indices, self.indexed, strict=True):
            if axis is not None and index.value is not None and index.size:
                check_range(int(np.min(index.value)), int(np.max(index.value)), axis, shape)


def _arrays(part: Any, a: Tensor, axis: int) -> Sequence[Tensor]:
    """The index arrays that one part of an index stands for, from `axis` of `a` on."""
    if isinstance(part, bool):
        return [constant(np.zeros(int(part), np.intp))]
    if isinstance(part, int):
        return [literal(part)]
    if part.dtype != np.bool_:
        return [part]
    masked = a.shape[axis : axis + part.ndim]
    if part.shape != masked:
        last = axis + part.ndim - 1
        raise IndexingError(
            f"a mask of shape {part.shape} was used for "
            + (f"axis {axis}" if last == axis else f"axes {axis} to {last}"),
            f"a mask says for each element whether it is picked, and the shape there is {masked}",
            "compute the mask from the array that it picks from",
        )
    return nonzero(part)


def _places(a: Tensor, index: Any) -> tuple[Shape, Callable[[Tensor], Tensor] | None, Callable[[Tensor], Tensor]]:
    """For an index: the shape of what it picks; how to pick, if places may repeat; how to put values into zeros."""
    parts = index if type(index) is tuple else (index,)
    try:
        basic = _basic(parts)
        if basic is not None:
            shape = getitem_shape(a.equation.type, basic)
            params = {"shape": a.shape, "index": basic or (Ellipsis,)}
            return shape, None, lambda values: record(scatter_op, (values,), params)
        plan = _Plan(a, parts)
        plan.check(a.shape)
    except IndexingError as error:
        raise _located(error, a) from None
    return plan.shape, plan.pick, lambda values: plan.put(values, a.shape)


def _fit(values: Any, shape: Shape, like: Tensor) -> Tensor:
    """Values as a tensor of this shape; Python numbers take the dtype of `like`, by NumPy's rule."""
    tensor = as_tensor(values)
    if tensor.equation.type.weak:
        dtype = promoted_dtype(tensor.equation.type, like.equation.type)
        return constant(np.full(shape, tensor.value, dtype))
    return tensor if tensor.shape == shape else expand(tensor, shape=shape)


def _located(error: IndexingError, a: Tensor) -> IndexingError:
    """The error with the name of what was indexed and the user's line."""
    if "\n  at " in error.what:
        return error
    return IndexingError(
        f"in the index of {describe(a)}, {error.what}\n  at {place_text(user_where(3))}", error.why, error.instead
    )


functions["getitem"] = getitem
public(index_add)
public(index_set)
public(nonzero, np.nonzero)
