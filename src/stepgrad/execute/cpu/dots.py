"""Narrow matrix products as dot products: vectors run along k, where the output has few rows or columns.

With one row, or one column, there is nothing that packing B could be shared by, and an output vector would be mostly
empty. Here every element of the output is as many chains of multiply-adds as a vector has lanes, added up pairwise.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from stepgrad.execute.cpu import instructions, packing
from stepgrad.execute.cpu.blocking import Blocking, Product
from stepgrad.execute.cpu.packing import Index, add, at, index, load, loop, multiply, store

Epilogue = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value, ir.Value | None], None]
"""Emits what happens to a finished vector: (builder, row, column of its first lane, vector, mask or None)."""


def emit_dots(
    b: ir.IRBuilder,
    product: Product,
    blocking: Blocking,
    a: ir.Value,
    b_pointer: ir.Value,
    scratch: ir.Value,
    rows: tuple[Index, Index],
    columns: tuple[Index, Index],
    epilogue: Epilogue,
    heavy: bool,
) -> None:
    """Emits rows [low, high) and columns [low, high) of a product; see `emit_product` for the rest."""

    def block(row: Index, row_count: int) -> None:
        def tile(column: Index, column_count: int) -> None:
            sums = _sums(b, product, blocking, a, b_pointer, row, row_count, column, column_count)
            mask = packing.mask_of(blocking.lanes, column_count) if column_count < blocking.lanes else None
            if not heavy or len(sums) == 1:
                for m, value in enumerate(sums):
                    epilogue(b, index(add(b, row, m)), index(column), value, mask)
                return
            for m, value in enumerate(sums):
                store(b, value, at(b, scratch, m * blocking.lanes, product.element))

            def one(m: Index, _: list[ir.Value]) -> None:
                value = load(b, at(b, scratch, multiply(b, m, blocking.lanes), product.element), sums[0].type)
                epilogue(b, index(add(b, row, m)), index(column), value, mask)

            loop(b, 0, row_count, 1, one)

        _blocks(b, columns, product.columns, blocking.lanes, tile)

    _blocks(b, rows, product.rows, blocking.tile_rows, block)


def _blocks(
    b: ir.IRBuilder, ends: tuple[Index, Index], total: int, size: int, body: Callable[[Index, int], None]
) -> None:
    """Calls the body for blocks of a size, and for what remains at the very end."""
    whole = total - total % size
    if whole:
        end = packing.minimum(b, ends[1], whole) if whole < total else ends[1]
        loop(b, ends[0], end, size, lambda i, _: body(i, size))
    if whole < total:
        with b.if_then(b.icmp_signed(">", index(ends[1]), index(whole))):
            body(index(whole), total - whole)


def _sums(
    b: ir.IRBuilder,
    product: Product,
    blocking: Blocking,
    a: ir.Value,
    b_pointer: ir.Value,
    row: Index,
    rows: int,
    column: Index,
    columns: int,
) -> list[ir.Value]:
    """The dot products of a tile: for each row, a vector of the columns."""
    element, inner, lanes = product.element, product.inner, blocking.inner_lanes
    vector = ir.VectorType(element, lanes)
    zeros = instructions.constant(vector, 0)
    signature = ir.FunctionType(vector, [vector] * 3)
    multiply_add = packing.intrinsic(b, f"llvm.fmuladd.{packing.suffix(vector)}", signature)
    a_base = at(b, a, multiply(b, row, product.a_stride), element)
    b_base = at(b, b_pointer, multiply(b, column, product.b_stride), element)

    def step(count: int) -> Callable[[Index, list[ir.Value]], list[ir.Value]]:
        def body(k: Index, sums: list[ir.Value]) -> list[ir.Value]:
            def read(base: ir.Value, number: int, stride: int) -> ir.Value:
                pointer = at(b, at(b, base, k, element), number * stride, element)
                return packing.masked_load(b, pointer, vector, count)

            left = [read(a_base, m, product.a_stride) for m in range(rows)]
            for n in range(columns):
                right = read(b_base, n, product.b_stride)
                for m in range(rows):
                    i = m * columns + n
                    sums[i] = b.call(multiply_add, [left[m], right, sums[i]])
            return sums

        return body

    whole = inner - inner % lanes
    sums = loop(b, 0, whole, lanes, step(lanes), [zeros] * (rows * columns))
    if whole < inner:
        sums = step(inner - whole)(whole, sums)
    if blocking.lanes == 1:  # a column: the rows are added up side by side, and then told apart
        size = min(lanes, 1 << (rows - 1).bit_length())
        together = [_added(b, sums[m : m + size], size) for m in range(0, rows, size)]
        return [packing.shuffle(b, together[m // size], together[m // size], [m % size]) for m in range(rows)]
    return [_added(b, sums[m * columns : (m + 1) * columns], blocking.lanes) for m in range(rows)]


def _added(b: ir.IRBuilder, vectors: list[ir.Value], size: int) -> ir.Value:
    """A vector of the sums over the lanes of each of up to `size` vectors, zeros behind them."""
    parts = vectors + [instructions.constant(vectors[0].type, 0)] * (size - len(vectors))
    while parts[0].type.count > 1 and (len(parts) > 1 or parts[0].type.count > size):
        pairs = list(zip(parts[::2], parts[1::2], strict=True)) if len(parts) > 1 else [(parts[0], parts[0])]
        lanes = parts[0].type.count
        width = 2 * lanes if len(parts) > 1 else lanes  # two vectors become one, or one becomes half of itself
        parts = [
            b.fadd(
                packing.shuffle(b, left, right, range(0, width, 2)),
                packing.shuffle(b, left, right, range(1, width, 2)),
            )
            for left, right in pairs
        ]
    return parts[0]
