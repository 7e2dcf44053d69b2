"""Indexing: everything that NumPy's `[]` takes, and the scattering that is its inverse direction.

Two pairs of ops share the work. Integers, slices, None and Ellipsis are parameters of `getitem`, whose
inverse direction is `scatter`. Index arrays are operands, so they can be computed on the tape: `gather`
picks with them, and its inverse direction is `scatter_add`. An index that mixes both is recorded as a
`getitem` followed by a `gather`. Masks become index arrays by `nonzero`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.errors import AbstractValueError, IndexingError, StepgradError
from stepgrad.ops.registry import public, register
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import as_tensor, constant, literal, record
from stepgrad.tape.samples import constant as always
from stepgrad.tape.samples import integers, normal
from stepgrad.tensor import Array, ArrayLike, Tensor, describe, functions

__all__ = ["nonzero"]

Index = tuple[Any, ...]
"""A basic index as a param: integers, None, Ellipsis, and (start, stop, step) for slices."""

EVERYTHING = (None, None, None)
"""The slice `:`."""


# --- basic indexing


@functools.lru_cache(maxsize=4096)
def as_numpy(index: Index) -> tuple[Any, ...]:
    """The index as NumPy takes it."""
    return tuple(slice(*part) if isinstance(part, tuple) else part for part in index)


def index_text(index: Index) -> str:
    """`1:, ::-1`: the index as it is written between brackets."""
    return ", ".join(_part_text(part) for part in index)


def _part_text(part: Any) -> str:
    if not isinstance(part, tuple):
        return "..." if part is Ellipsis else repr(part)
    start, stop, step = ("" if bound is None else repr(bound) for bound in part)
    return f"{start}:{stop}" + (f":{step}" if step else "")


def whole_index(index: Index, ndim: int) -> Index:
    """The index with a part for every axis: Ellipsis and what is left out written as `:`."""
    used = sum(part is not None and part is not Ellipsis for part in index)
    if used > ndim:
        raise IndexingError(
            f"the index [{index_text(index)}] names {used} axes of an array with {ndim}",
            "each integer and each slice takes one axis",
            f"use at most {ndim}; None adds an axis and takes none",
        )
    rest = (EVERYTHING,) * (ndim - used)
    for i, part in enumerate(index):
        if part is Ellipsis:
            return (*index[:i], *rest, *index[i + 1 :])
    return (*index, *rest)


def getitem_shape(a: TensorType, index: Index) -> Shape:
    shape: list[int] = []
    axis = 0
    for part in whole_index(index, len(a.shape)):
        if part is None:
            shape.append(1)
            continue
        length = a.shape[axis]
        if isinstance(part, tuple):
            shape.append(len(range(*slice(*part).indices(length))))
        else:
            check_range(part, part, axis, a.shape)
        axis += 1
    return tuple(shape)


def check_range(low: int, high: int, axis: int, shape: Shape) -> None:
    """Raises IndexingError unless indices from `low` to `high` point into the axis."""
    n = shape[axis]
    if -n <= low and high < n:
        return
    raise IndexingError(
        f"index {high if high >= n else low} is out of range for axis {axis} of shape {shape}",
        f"that axis has length {n}, so its indices run from {-n} to {n - 1}" if n else "that axis is empty",
        "use an index inside that range; a slice may reach beyond the end" if n else "check where it became empty",
    )


def scatter(values: Array, shape: Shape, index: Any) -> Array:
    """Zeros of `shape`, with the values where a basic index points."""
    if isinstance(index, tuple):
        index = tuple(slice(*part) if isinstance(part, tuple) else part for part in index)
    out = np.zeros(shape, values.dtype)
    out[index] = values
    return out


def _scatter_shape(values: TensorType, shape: Shape, index: Index) -> Shape:
    return shape


_getitem = register(
    Op(
        "getitem",
        shape=getitem_shape,
        dtype=lambda a, index: a.dtype,
        numpy=lambda a, index: np.asarray(a)[as_numpy(index)],
        rules=(lambda g, out, a, index: record(_scatter, (g,), {"shape": a.shape, "index": index}),),
        text=lambda operands, params, equation: f"({operands[0]})[{index_text(params['index'])}]",
        samples=[
            (normal(3, 4), {"index": ((1, None, None), (None, None, -1))}),
            (normal(3, 4), {"index": (-1,)}),
            (normal(3, 4), {"index": (2, 0)}),
            (normal(2, 3, 4), {"index": (Ellipsis, None, (3, 0, -2))}),
            (normal(2, 3, 4), {"index": ((None, -1, None), Ellipsis, 1)}),
            (normal(3), {"index": ((2, 2, None),)}),
            (normal(), {"index": (None, None)}),
        ],
        analytic=True,
        doc="The part of an array that integers, slices, None and Ellipsis name; a view.",
    )
)

_scatter: Op = register(
    Op(
        "scatter",
        shape=_scatter_shape,
        dtype=lambda values, shape, index: values.dtype,
        numpy=scatter,
        rules=(lambda g, out, values, shape, index: record(_getitem, (g,), {"index": index}),),
        text=lambda operands, params, equation: (
            f"scatter({operands[0]}, {params['shape']}, np.s_[{index_text(params['index'])}])"
        ),
        samples=[
            (normal(2, 4), {"shape": (3, 4), "index": ((1, None, None), (None, None, -1))}),
            (normal(4), {"shape": (3, 4), "index": (-1,)}),
            (normal(2, 3, 1, 2), {"shape": (2, 3, 4), "index": (Ellipsis, None, (3, 0, -2))}),
            (normal(3), {"shape": (5,), "index": ((None, None, 2),)}),
        ],
        analytic=True,
        doc="Zeros of a shape, with the values where a basic index points.",
    )
)


# --- index arrays


def gather(a: Array, *indices: Any, axes: Shape) -> Array:
    """`a` with an index array for each of `axes` and `:` for the others."""
    index: list[Any] = [slice(None)] * np.ndim(a)
    for axis, i in zip(axes, indices, strict=True):
        index[axis] = i
    return np.asarray(a)[tuple(index)]


def scatter_add(values: Array, *indices: Any, shape: Shape, axes: Shape) -> Array:
    """Zeros of `shape`, plus the values where the index arrays for `axes` point; in the same place they add up."""
    indices = np.broadcast_arrays(*indices)
    ndim = indices[0].ndim
    if axes == tuple(range(axes[0], axes[0] + len(axes))):  # NumPy leaves the indexed axes in place; bring them first
        values = np.moveaxis(values, range(axes[0], axes[0] + ndim), range(ndim))
    order = [*axes, *(i for i in range(len(shape)) if i not in axes)]
    picked, rest = [shape[i] for i in order[: len(axes)]], [shape[i] for i in order[len(axes) :]]
    rows = np.arange(math.prod(picked)).reshape(picked)[tuple(indices)]
    places = rows.reshape(-1, 1) * math.prod(rest) + np.arange(math.prod(rest))
    out = np.zeros(math.prod(shape), values.dtype)
    np.add.at(out, places.ravel(), values.ravel())  # with one axis, add.at is as fast as a loop in C
    return out.reshape(picked + rest).transpose(np.argsort(order))


def _gather_shape(a: TensorType, *indices: TensorType, axes: Shape) -> Shape:
    try:
        picked = np.broadcast_shapes(*[i.shape for i in indices])
    except ValueError:
        raise IndexingError(
            "index arrays of shapes " + " and ".join(str(i.shape) for i in indices) + " were used together",
            "they are broadcast together, and these do not fit",
            "give them one shape; to pick every combination give them different axes, as np.ix_ does",
        ) from None
    others = tuple(n for i, n in enumerate(a.shape) if i not in axes)
    start = axes[0] if axes == tuple(range(axes[0], axes[0] + len(axes))) else 0
    return (*others[:start], *picked, *others[start:])


def _gather_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    index = [":"] * (max(params["axes"]) + 1)
    for axis, operand in zip(params["axes"], operands[1:], strict=True):
        index[axis] = operand
    return f"({operands[0]})[{', '.join(index)}]"


_gather = register(
    Op(
        "gather",
        shape=_gather_shape,
        dtype=lambda a, *indices, axes: a.dtype,
        numpy=gather,
        rules=lambda operand: _gather_rule if operand == 0 else None,
        text=_gather_text,
        samples=[
            (normal(4, 3), integers(-4, 4, 6), {"axes": (0,)}),
            (normal(4, 3), integers(0, 4, 2, 5), integers(-3, 0, 5), {"axes": (0, 1)}),
            (normal(2, 3, 4), integers(0, 3, 2, 2), {"axes": (1,)}),
            (normal(2, 3, 4), integers(0, 2, 3), integers(0, 4, 3), {"axes": (0, 2)}),
            (normal(2, 3, 4), integers(0, 3), integers(0, 4), {"axes": (1, 2)}),
            (normal(2, 3, 4), 1, integers(0, 4, 2), {"axes": (0, 2)}),
        ],
        analytic=True,
        doc="Picks elements with index arrays, for some axes, by NumPy's rules.",
    )
)


def _gather_rule(g: Tensor, out: Tensor, a: Tensor, *indices: Tensor, axes: Shape) -> Tensor:
    return record(_scatter_add, (g, *indices), {"shape": a.shape, "axes": axes})


_scatter_add: Op = register(
    Op(
        "scatter_add",
        shape=lambda values, *indices, shape, axes: shape,
        dtype=lambda values, *indices, shape, axes: values.dtype,
        numpy=scatter_add,
        rules=lambda operand: _scatter_add_rule if operand == 0 else None,
        text=lambda operands, params, equation: (
            f"scatter_add({', '.join(operands)}, shape={params['shape']}, axes={params['axes']})"
        ),
        samples=[
            (normal(6, 3), integers(-4, 4, 6), {"shape": (4, 3), "axes": (0,)}),
            (normal(2, 5), integers(0, 4, 2, 5), integers(-3, 0, 5), {"shape": (4, 3), "axes": (0, 1)}),
            (normal(2, 2, 2, 4), integers(0, 3, 2, 2), {"shape": (2, 3, 4), "axes": (1,)}),
            (normal(3, 3), integers(0, 2, 3), integers(0, 4, 3), {"shape": (2, 3, 4), "axes": (0, 2)}),
        ],
        analytic=True,
        cost=lambda values, *rest, **params: values.size,
        doc="Zeros of a shape, plus values where index arrays point; in the same place they add up.",
    )
)


def _scatter_add_rule(g: Tensor, out: Tensor, values: Tensor, *indices: Tensor, shape: Shape, axes: Shape) -> Tensor:
    return record(_gather, (g, *indices), {"axes": axes})


_nonzero = register(
    Op(
        "nonzero",
        shape=lambda a, axis, count: (count,),
        dtype=lambda a, axis, count: np.dtype(np.intp),
        numpy=lambda a, axis, count: np.nonzero(a)[axis],
        rules=(None,),
        text="np.nonzero({0})[{axis}]",
        samples=[(always(np.array([[True, False], [True, True]])), {"axis": 1, "count": 3})],
        doc="The indices along one axis of the elements that are not 0, of which there are `count`.",
    )
)


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
    return tuple(record(_nonzero, (tensor,), {"axis": axis, "count": count}) for axis in range(tensor.ndim))


# --- what the user writes between the brackets


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
    basic = _basic(parts)
    if basic is not None:
        return record(_getitem, (tensor,), {"index": basic}) if basic not in _NOTHING else tensor
    return _Plan(tensor, parts).pick(tensor)


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
    if encoded.count(Ellipsis) > 1:
        raise IndexingError(
            f"the index [{index_text(tuple(encoded))}] has more than one Ellipsis",
            "each stands for all the axes not named, so it would not be clear which",
            "keep one, and write : for the others",
        )
    return tuple(encoded)


def _slice(part: slice) -> Index:
    if part.start is None and part.stop is None and part.step is None:
        return EVERYTHING
    try:
        bounds = tuple(None if b is None else operator.index(b) for b in (part.start, part.stop, part.step))
    except StepgradError:  # an abstract tensor
        raise
    except TypeError:
        raise _not_an_index(part) from None
    if bounds[2] == 0:
        raise IndexingError(
            "a slice has step 0", "it would stay in one place for ever", "use a step such as 1, 2 or -1"
        )
    return bounds


def _not_an_index(part: Any) -> IndexingError:
    shown = f"an array of {part.dtype} numbers" if hasattr(part, "dtype") and part.ndim else repr(part)
    return IndexingError(
        f"{shown} was used as an index",
        "indices are integers, slices, None, Ellipsis, and arrays of integers or booleans",
        "convert it first, for example with x.astype(np.int64)",
    )


class _Plan:
    """How an index with arrays is recorded: a basic index for the rest, then `gather` for the arrays.

    Attributes:
        before: the basic index, which leaves one axis for each index array.
        indices, axes: the index arrays, and the axes that they index after `before`.
        full: the shape after `before`.
        picked: the shape after `gather`.
        shape: the shape of the result; it differs from `picked` if an Ellipsis that stands for no
            axes separates index arrays, because an axis of length 1 takes its place.
    """

    def __init__(self, a: Tensor, parts: tuple[Any, ...]) -> None:
        read = [_part(part) for part in parts]
        used = sum(_takes(part) for part in read)
        whole_index((0,) * used, a.ndim)  # not too many
        if not any(part is Ellipsis for part in read):
            read.append(Ellipsis)
        before: list[Any] = []
        self.indices: list[Tensor] = []
        axes: list[int] = []
        gap: int | None = None
        axis = 0
        for i, part in enumerate(read):
            if part is Ellipsis:
                if used == a.ndim and axes and any(_is_advanced(p) for p in read[i + 1 :]):
                    gap = len(before)
                before += [None] if gap is not None else [EVERYTHING] * (a.ndim - used)
                axis += a.ndim - used
                continue
            if not _is_advanced(part):
                before.append(part)
                axis += part is not None
                continue
            for index in self._arrays(part, a, axis):
                axes.append(len(before))
                self.indices.append(index)
                before.append(None if isinstance(part, bool) else EVERYTHING)
            axis += _takes(part)
        self.before, self.axes = tuple(before), tuple(axes)
        self.full = getitem_shape(a.equation.type, self.before)
        stand_in = TensorType(self.full, a.dtype, False)
        self.picked = _gather_shape(stand_in, *[i.equation.type for i in self.indices], axes=self.axes)
        self.shape = self.picked
        if gap is not None:
            kept = gap - sum(axis < gap for axis in axes) + len(self.picked) - (len(self.full) - len(axes))
            self.shape = (*self.picked[:kept], *self.picked[kept + 1 :])

    @staticmethod
    def _arrays(part: Any, a: Tensor, axis: int) -> Sequence[Tensor]:
        """The index arrays that one part stands for, from `axis` of `a` on."""
        if isinstance(part, bool):
            return [constant(np.zeros(int(part), np.intp))]
        if isinstance(part, int):
            check_range(part, part, axis, a.shape)
            return [literal(part)]
        if part.dtype != np.bool_:
            if part.value is not None and part.size:
                check_range(int(np.min(part.value)), int(np.max(part.value)), axis, a.shape)
            return [part]
        if part.shape != a.shape[axis : axis + part.ndim]:
            raise IndexingError(
                f"a mask of shape {part.shape} was used for axes {axis} to {axis + part.ndim - 1} of {describe(a)}",
                "a mask says for each element whether it is picked, so the lengths have to agree",
                f"compute the mask from the array it picks from: its shape there is {a.shape[axis : axis + part.ndim]}",
            )
        return nonzero(part)

    def pick(self, a: Tensor) -> Tensor:
        """What the index picks from `a`."""
        if self.full != a.shape or any(part != EVERYTHING for part in self.before):
            a = record(_getitem, (a,), {"index": self.before})
        out = record(_gather, (a, *self.indices), {"axes": self.axes})
        return functions["reshape"](out, self.shape)

    def put(self, values: Tensor, shape: Shape) -> Tensor:
        """Zeros of `shape`, plus the values where the index points."""
        values = functions["reshape"](values, self.picked)
        out = record(_scatter_add, (values, *self.indices), {"shape": self.full, "axes": self.axes})
        if any(part != EVERYTHING for part in self.before):
            out = record(_scatter, (out,), {"shape": shape, "index": self.before})
        return out


def _part(part: Any) -> Any:
    """One part of an index as an int, slice, None, Ellipsis, bool, or tensor of integers or booleans."""
    basic = _basic((part,)) if not isinstance(part, (bool, np.bool_)) else None
    if basic is not None:
        return basic[0]
    if isinstance(part, (list, tuple)):
        if any(isinstance(p, ArrayLike) for p in part):
            part = functions["stack"](part)
        else:
            part = np.array(part) if len(part) else np.zeros(0, np.intp)
    if not isinstance(part, (ArrayLike, np.ndarray, bool, np.bool_)):
        raise _not_an_index(part)
    tensor = as_tensor(part) if not isinstance(part, np.bool_) else as_tensor(bool(part))
    if tensor.dtype.kind not in "iub":
        raise _not_an_index(part)
    if tensor.dtype == np.bool_ and not tensor.ndim:
        return bool(tensor)
    return tensor


def _is_advanced(part: Any) -> bool:
    return isinstance(part, (int, Tensor))


def _takes(part: Any) -> int:
    """How many axes a part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == np.bool_ else 1


functions["getitem"] = getitem
public(nonzero, np.nonzero)
