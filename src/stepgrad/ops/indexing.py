"""Indexing: everything that NumPy's `[]` takes, and new values in the places that an index names."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from stepgrad.tape.leaves import as_tensor, constant, literal
from stepgrad.tape.op import Shape, TensorType, promoted_dtype, type_of
from stepgrad.tape.places import place_text, user_where
from stepgrad.tape.recording import record
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
        kinds, indices = _read(parts)
        return _pick(tensor, _layout(tensor.equation.type, kinds), indices)
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
    if isinstance(part, (list, tuple, range)):
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


class _Arrays(NamedTuple):
    """The index arrays that one part of an index stands for: how many, of which shape, for how many axes.

    An integer or array stands for itself; a mask for one array per axis; True and False for an array
    along an axis of length 1 that is added. Integers beside arrays count as arrays, as in NumPy.
    """

    number: int
    shape: Shape
    axes: int
    mask: Shape = ()


def _read(parts: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Tensor]]:
    """What each part is, and the index arrays among them."""
    kinds: list[Any] = []
    indices: list[Tensor] = []
    for part in map(_part, parts):
        if isinstance(part, bool):
            kinds.append(_Arrays(1, (int(part),), 0))
            indices.append(constant(np.zeros(int(part), np.intp)))
        elif isinstance(part, int):
            kinds.append(_Arrays(1, (), 1))
            indices.append(literal(part))
        elif not isinstance(part, Tensor):
            kinds.append(part)
        elif part.dtype == np.bool_:
            found = nonzero(part)
            kinds.append(_Arrays(part.ndim, found[0].shape, part.ndim, part.shape))
            indices += found
        else:
            kinds.append(_Arrays(1, part.shape, 1))
            indices.append(part)
    return tuple(kinds), indices


@dataclass(frozen=True)
class _Layout:
    """How an index with arrays is recorded: a basic index for the rest, then `gather` for the arrays.

    Attributes:
        before: the basic index, which leaves one axis for each index array; None if it changes nothing.
        full: the shape after `before`.
        axes: the axes of it that the arrays index.
        indexed: the same axes of the tensor itself; None where `before` adds one.
        picked: the shape after `gather`.
        shape: the shape of the result. It differs from `picked` if an Ellipsis that stands for no
            axes separates index arrays: an axis of length 1 takes its place and is dropped at the end.
    """

    before: Index | None
    full: Shape
    axes: tuple[int, ...]
    indexed: tuple[int | None, ...]
    picked: Shape
    shape: Shape


@functools.lru_cache(maxsize=4096)
def _layout(a: TensorType, kinds: tuple[Any, ...]) -> _Layout:
    ndim = len(a.shape)
    used = sum(_axes_taken(kind) for kind in kinds)
    whole_index(tuple(kind for kind in kinds if kind is Ellipsis) + (0,) * used, ndim)  # neither too many nor two ...
    if not any(kind is Ellipsis for kind in kinds):
        kinds = (*kinds, Ellipsis)
    before: list[Any] = []
    axes: list[int] = []
    indexed: list[int | None] = []
    shapes: list[Shape] = []
    gap: int | None = None
    axis = 0
    for i, kind in enumerate(kinds):
        if kind is Ellipsis:
            if used == ndim and axes and any(isinstance(k, _Arrays) for k in kinds[i + 1 :]):
                gap = len(before)
            before += [None] if gap is not None else [EVERYTHING] * (ndim - used)
            axis += ndim - used
        elif isinstance(kind, _Arrays):
            masked = zip(kind.mask, a.shape[axis:], strict=False)
            if any(n not in (0, m) for n, m in masked):  # NumPy lets masks of length 0 pass
                raise _wrong_mask(kind.mask, a.shape, axis)
            for offset in range(kind.number):
                axes.append(len(before))
                indexed.append(axis + offset if kind.axes else None)
                shapes.append(kind.shape)
                before.append(EVERYTHING if kind.axes else None)
            axis += kind.axes
        else:
            before.append(kind)
            axis += kind is not None
    full = getitem_shape(a, tuple(before))
    picked = gather_shape(
        type_of(full, a.dtype), *[type_of(shape, np.dtype(np.intp)) for shape in shapes], axes=tuple(axes)
    )
    shape = picked
    if gap is not None:
        dropped = gap - sum(axis < gap for axis in axes) + len(picked) - (len(full) - len(axes))
        shape = (*picked[:dropped], *picked[dropped + 1 :])
    changes = any(part != EVERYTHING for part in before)
    return _Layout(tuple(before) if changes else None, full, tuple(axes), tuple(indexed), picked, shape)


def _axes_taken(kind: Any) -> int:
    return kind.axes if isinstance(kind, _Arrays) else int(kind is not None and kind is not Ellipsis)


def _wrong_mask(mask: Shape, shape: Shape, axis: int) -> IndexingError:
    last = axis + len(mask) - 1
    return IndexingError(
        f"a mask of shape {mask} was used for " + (f"axis {axis}" if last == axis else f"axes {axis} to {last}"),
        f"a mask says for each element whether it is picked, and the shape there is {shape[axis : last + 1]}",
        "compute the mask from the array that it picks from",
    )


def _pick(a: Tensor, layout: _Layout, indices: list[Tensor]) -> Tensor:
    """What an index with arrays picks from `a`."""
    full = a if layout.before is None else record(getitem_op, (a,), {"index": layout.before})
    try:
        out = record(gather_op, (full, *indices), {"axes": layout.axes})
    except IndexError as error:
        raise _out_of_range(error, a, layout, indices) from None
    return out if layout.shape == layout.picked else functions["reshape"](out, layout.shape)


def _put(values: Tensor, a: Tensor, layout: _Layout, indices: list[Tensor]) -> Tensor:
    """Zeros of the shape of `a`, plus the values where an index with arrays points."""
    values = functions["reshape"](values, layout.picked)
    try:
        out = record(scatter_add_op, (values, *indices), {"shape": layout.full, "axes": layout.axes})
    except IndexError as error:
        raise _out_of_range(error, a, layout, indices) from None
    if layout.before is not None:
        out = record(scatter_op, (out,), {"shape": a.shape, "index": layout.before})
    return out


def _out_of_range(error: IndexError, a: Tensor, layout: _Layout, indices: list[Tensor]) -> IndexError:
    """The error that says which index is out of range, where NumPy found one."""
    for index, axis in zip(indices, layout.indexed, strict=True):
        if axis is not None and index.value is not None and index.size:
            try:
                check_range(int(np.min(index.value)), int(np.max(index.value)), axis, a.shape)
            except IndexingError as found:
                return _located(found, a)
    return error


def _places(a: Tensor, index: Any) -> tuple[Shape, Callable[[Tensor], Tensor] | None, Callable[[Tensor], Tensor]]:
    """For an index: the shape of what it picks; how to pick, if places may repeat; how to put values into zeros."""
    parts = index if type(index) is tuple else (index,)
    try:
        basic = _basic(parts)
        if basic is not None:
            shape = getitem_shape(a.equation.type, basic)
            params = {"shape": a.shape, "index": basic or (Ellipsis,)}
            return shape, None, lambda values: record(scatter_op, (values,), params)
        kinds, indices = _read(parts)
        layout = _layout(a.equation.type, kinds)
    except IndexingError as error:
        raise _located(error, a) from None
    return layout.shape, lambda x: _pick(x, layout, indices), lambda values: _put(values, a, layout, indices)


def _fit(values: Any, shape: Shape, like: Tensor) -> Tensor:
    """Values as a tensor of this shape; Python numbers take the dtype of `like`, by NumPy's rule."""
    tensor = as_tensor(values)
    if tensor.equation.type.weak:
        dtype = promoted_dtype(tensor.equation.type, like.equation.type)
        if tensor.value is None:  # a float argument of a function that is being recorded
            return expand(functions["astype"](tensor, dtype), shape=shape)
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
