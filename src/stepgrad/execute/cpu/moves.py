"""The code of special kernels that walk along an axis: joins, and running sums and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points
from stepgrad.execute.cpu.frame import Frame, load, store
from stepgrad.execute.cpu.packing import Index, add, index, loop, mask_of, minimum, multiply
from stepgrad.execute.cpu.reducing import combine
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

ALONE = 4096
"""Fewer elements than this are moved by one thread."""


def split_move(body: Body, target: Target) -> Split:
    """How a kernel along an axis is shared out: by blocks; a single block by elements, or by columns."""
    rows, size = body.rows, body.rows * body.reduced * body.inner
    lanes = target.lanes(points.TYPES[body.dtypes[-1]])
    if size < ALONE:
        return Split(0)
    if rows > 1:
        return Split(rows)
    if body.kind == "join":
        return Split(body.inner, 64)
    return Split(body.inner, lanes, axis="columns") if body.inner > lanes else Split(0)


def vectors(
    b: ir.IRBuilder, low: Index, high: Index, size: int, lanes: int, emit: Callable[[Index, Any], None]
) -> None:
    """Walks over elements [low, high) of `size`, a vector at a time. Both ends are multiples of lanes, or the size."""
    lanes = _fitting(lanes, size)
    whole = size - size % lanes
    loop(b, low, minimum(b, high, whole), lanes, lambda i, _: emit(i, None))
    if size > whole:
        mask = mask_of(lanes, size - whole)
        if isinstance(high, int) and isinstance(low, int):
            emit(whole, mask)
        else:
            with b.if_then(
                b.and_(b.icmp_signed("==", index(high), index(size)), b.icmp_signed("<", index(low), index(high)))
            ):
                emit(whole, mask)


def emit_join(frame: Frame, split: Split, target: Target) -> None:
    """Copies each part of each block of the result to its place."""
    body, b, dtype = frame.body, frame.b, frame.body.dtypes[-1]
    number, *parts = body.settings
    lanes = target.lanes(points.TYPES[dtype])
    *sources, out = frame.operands

    def block(row: Index, low: Index, high: Index) -> None:
        begin = 0
        for operand, offset, step, length in parts:
            width = _fitting(lanes, length)
            first, end = _within(b, low, high, begin, length, width)

            def move(i: Index, mask: Any, part: Any = (operand, offset, step, begin, width)) -> None:
                operand, offset, step, begin, width = part
                value = points.constant(dtype, number, width)
                if operand >= 0:
                    place = add(b, add(b, multiply(b, row, step), offset), i)
                    value = load(b, sources[operand], dtype, place, 1, width, mask)
                store(b, value, out, dtype, add(b, add(b, multiply(b, row, body.inner), begin), i), 1, mask)

            vectors(b, first, end, length, lanes, move)
            begin += length

    if not split.length:
        loop(b, 0, body.rows, 1, lambda row, _: block(row, 0, body.inner))
    elif body.rows > 1:
        loop(b, frame.low, frame.high, 1, lambda row, _: block(row, 0, body.inner))
    else:
        block(0, frame.low, frame.high)


def _fitting(lanes: int, size: int) -> int:
    while lanes > 1 and lanes // 2 >= size:
        lanes //= 2
    return lanes


def _within(b: ir.IRBuilder, low: Index, high: Index, begin: int, length: int, lanes: int) -> tuple[Index, Index]:
    """Elements [low, high) of a block, as far as they are of a part of it, counted from the part's beginning.

    Both are brought to whole vectors of the part: whoever begins where another one ends finds the same place.
    """
    if isinstance(low, int) and isinstance(high, int):
        return 0, length

    def placed(bound: Index) -> ir.Value:
        inside = b.sub(index(bound), index(begin))
        inside = b.select(b.icmp_signed(">", inside, index(0)), inside, index(0))
        return b.select(b.icmp_signed(">=", inside, index(length)), index(length), b.and_(inside, index(-lanes)))

    return placed(low), placed(high)


def emit_running(frame: Frame, split: Split, target: Target) -> None:
    """Running sums or products: one chain of operations along each line, as NumPy's."""
    body, b, dtype = frame.body, frame.b, frame.body.dtypes[0]
    how, offset, block, step = body.settings
    source, out = frame.operands
    lanes = _fitting(target.lanes(points.TYPES[dtype]), body.inner)

    def lines(row: Index, column: Index, mask: Any) -> None:
        def one(k: Index, carried: list[ir.Value]) -> list[ir.Value]:
            place = add(b, add(b, multiply(b, row, block), offset), add(b, multiply(b, k, step), column))
            value = load(b, source, dtype, place, 1, lanes, mask)
            if carried:
                value = combine(b, carried[0], value, how)
            inside = add(b, multiply(b, add(b, multiply(b, row, body.reduced), k), body.inner), column)
            store(b, value, out, dtype, inside, 1, mask)
            return [value]

        loop(b, 1, body.reduced, 1, one, one(0, []))

    by_columns = split.length and split.axis == "columns"
    low, high = (frame.low, frame.high) if by_columns else (0, body.inner)
    rows = (frame.low, frame.high) if split.length and not by_columns else (0, body.rows)
    loop(b, rows[0], rows[1], 1, lambda row, _: vectors(b, low, high, body.inner, lanes, lambda c, m: lines(row, c, m)))
