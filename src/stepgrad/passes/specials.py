"""Special kernels: what is neither pointwise, nor a reduction, nor a product, and yet computed natively.

- "scatter": zeros, to which rows are added in places that indices say. Threads share out the columns, so
  the rows that fall into one place are added in order.
- "random": words of the random number generator, or numbers made of them (see `ops.random`).
- "join": tensors side by side along an axis, and copies of one number before or after them.
- "running": running sums or products along an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from stepgrad.passes.bodies import Body
from stepgrad.passes.indexing import Place, row_major
from stepgrad.tape.equation import LITERAL, Equation

Special = tuple[Body, list[Equation]]
"""The body, and the operands that it reads; the result is the last operand."""

Where = Callable[[Equation], Place | None]


def special_body(equation: Equation, where: Where) -> Special | None:
    """The kernel of an equation that needs one of its own; None if NumPy has to compute it.

    Args:
        where: says where an operand is in memory.
    """
    maker = _SPECIALS.get(equation.op.name)
    return None if maker is None or any(e.op is LITERAL for e in equation.inputs) else maker(equation, where)


def has_place(equation: Equation, operand: Equation, found: Place | None) -> bool:
    """Whether a special kernel can read an operand where it is; else it has to be copied."""
    if not operand.type.size:
        return True
    if equation.op.name in ("concatenate", "pad"):
        return _blocks(operand, found, joined_axis(equation)) is not None
    if equation.op.name in _RUNNING:
        return _lines(operand, found, equation.params["axis"]) is not None
    return _lies_in_order(operand, lambda _: found)


def joined_axis(equation: Equation) -> int:
    """The axis along which a join, or a pad of one axis, puts things side by side."""
    if equation.op.name == "concatenate":
        return int(equation.params["axis"])
    return next((i for i, width in enumerate(equation.params["widths"]) if any(width)), 0)


def _lies_in_order(equation: Equation, where: Where) -> bool:
    """Its elements are in memory as in a new array."""
    found = where(equation)
    return found is not None and not found.offset and _is_dense(equation.type.shape, found.strides)


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return all(n == 1 or step == dense for n, step, dense in zip(shape, strides, row_major(shape), strict=True))


def _outer_step(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The step of all these axes taken as one; None if they can't be."""
    step = expected = None
    for n, own in zip(reversed(shape), reversed(strides), strict=True):
        if n == 1:
            continue
        if step is None:
            step = expected = own
        if own != expected:
            return None
        expected = own * n
    return step or 0


def _blocks(equation: Equation, found: Place | None, axis: int) -> tuple[int, int] | None:
    """Where the parts of a tensor along the axes from `axis` on begin: offset and step. Each is dense."""
    if found is None or not _is_dense(equation.type.shape[axis:], found.strides[axis:]):
        return None
    step = _outer_step(equation.type.shape[:axis], found.strides[:axis])
    return None if step is None else (found.offset, step)


def _lines(equation: Equation, found: Place | None, axis: int) -> tuple[int, int, int] | None:
    """Where a tensor's lines along an axis are: offset, step from block to block, step along the line."""
    shape = equation.type.shape
    if found is None or not _is_dense(shape[axis + 1 :], found.strides[axis + 1 :]):
        return None
    step = _outer_step(shape[:axis], found.strides[:axis])
    return None if step is None else (found.offset, step, found.strides[axis])


def _scatter(equation: Equation, where: Where) -> Special | None:
    values, *indices = equation.inputs
    shape, dtype = equation.type.shape, equation.type.dtype
    if equation.params["axes"] != (0,) or dtype not in _ADDED or indices[0].type.dtype not in _INDICES:
        return None
    if not values.type.size or not equation.type.size:
        return None
    if not _lies_in_order(values, where) or not _lies_in_order(indices[0], where):
        return None
    row = math.prod(shape[1:])
    body = Body(
        "scatter", (indices[0].type.size,), shape[0], row, (), (),
        (dtype.name, indices[0].type.dtype.name, dtype.name),
    )  # fmt: skip
    return body, [values, indices[0]]


def _random(equation: Equation, where: Where) -> Special | None:
    key, name, size = equation.inputs[0], equation.op.name, equation.type.size
    if not size or not all(_lies_in_order(e, where) for e in equation.inputs):
        return None
    how = {"random_uniform": "uniform", "random_integers": "integers"}.get(name, "words")
    purpose = {"random_split": 1, "random_fold_in": 2}.get(name, 0)
    settings = (how, purpose, equation.params.get("count", 0) if how == "integers" else 0)
    dtypes = ["uint64", *(e.type.dtype.name for e in equation.inputs[1:]), equation.type.dtype.name]
    if name == "random_fold_in" and dtypes[1] not in ("int64", "uint64"):
        return None
    return Body("random", (), 1, size, (), (), tuple(dtypes), settings=settings), [key, *equation.inputs[1:]]


def _join(equation: Equation, where: Where) -> Special | None:
    kind, axis = equation.type, joined_axis(equation)
    if kind.dtype not in _MOVED or not kind.size or sum(map(any, equation.params.get("widths", ()))) > 1:
        return None
    read = [e for e in equation.inputs if e.type.size]
    parts: list[tuple[int, int, int, int]] = []  # (operand, or -1 for the number; offset, step, length)
    for k, source in enumerate(read):
        found = _blocks(source, where(source), axis)
        if found is None:
            return None
        parts.append((k, *found, math.prod(source.type.shape[axis:])))
    number = 0
    if equation.op.name == "pad":
        number = int.from_bytes(np.asarray(equation.params["value"], kind.dtype).tobytes(), "little", signed=True)
        before, after = (n * math.prod(kind.shape[axis + 1 :]) for n in equation.params["widths"][axis])
        parts = [(-1, 0, 0, before), *parts, (-1, 0, 0, after)]
    moved = f"int{8 * kind.dtype.itemsize}"
    outer = math.prod(kind.shape[:axis])
    settings = (number, *(part for part in parts if part[-1]))
    body = Body(
        "join", (outer,), 1, kind.size // outer, (), (), (moved,) * (len(read) + 1), settings=settings
    )  # fmt: skip
    return body, read


def _running(equation: Equation, where: Where) -> Special | None:
    (source,), axis, kind = equation.inputs, equation.params["axis"], equation.type
    if kind.dtype not in (*_ADDED, *_INDICES) or source.type.dtype != kind.dtype or not kind.size:
        return None
    found = _lines(source, where(source), axis)
    if found is None:
        return None
    outer, inner = math.prod(kind.shape[:axis]), math.prod(kind.shape[axis + 1 :])
    dtypes = (kind.dtype.name, kind.dtype.name)
    settings = (_RUNNING[equation.op.name], *found)
    return Body("running", (outer,), kind.shape[axis], inner, (), (), dtypes, settings=settings), [source]


ORDERED = frozenset("concatenate pad cumsum cumprod scatter_add".split())
"""Ops whose kernel wants its operands in some order (see `has_place`)."""
_RUNNING = {"cumsum": "sum", "cumprod": "prod"}
_ADDED = (np.dtype(np.float32), np.dtype(np.float64))
_INDICES = (np.dtype(np.int64), np.dtype(np.int32))
_MOVED = frozenset(
    map(np.dtype, "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split())
)
_SPECIALS: dict[str, Callable[[Equation, Where], Special | None]] = {
    "scatter_add": _scatter,
    "random_uniform": _random,
    "random_integers": _random,
    "random_split": _random,
    "random_fold_in": _random,
    "concatenate": _join,
    "pad": _join,
    "cumsum": _running,
    "cumprod": _running,
}
