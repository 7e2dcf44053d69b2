"""One tile of a matrix product: its sums in registers, and what happens to them when they are complete.

A tile is `tile_rows` rows of `tile_vectors` vectors of the output. For each k, a row of B is read into vectors,
elements of A are broadcast, and every accumulator takes one fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from stepgrad.execute.cpu import instructions, packing
from stepgrad.execute.cpu.blocking import Blocking, Product, a_block, a_row, ceil, scratch_panels
from stepgrad.execute.cpu.dots import Epilogue
from stepgrad.execute.cpu.packing import Index, add, at, index, load, loop, multiply, store


@dataclass(frozen=True)
class Emitter:
    """What all parts of one product's code share."""

    b: ir.IRBuilder
    product: Product
    blocking: Blocking
    a: ir.Value
    b_pointer: ir.Value
    scratch: ir.Value
    epilogue: Epilogue
    heavy: bool

    @property
    def vector(self) -> ir.VectorType:
        return ir.VectorType(self.product.element, self.blocking.lanes)

    def within(self, offset: int) -> ir.Value:
        return at(self.b, self.scratch, offset, self.product.element)


@dataclass(frozen=True)
class Block:
    """One block of k of one panel of columns, for a chunk of rows.

    Attributes:
        chunk: the first row of the chunk.
        column, columns: the panel.
        k, count: the block.
        first, last: whether it is the first and the last of the panel; values where that is known in a loop only.
    """

    chunk: Index
    column: Index
    columns: int
    k: Index
    count: Index
    first: ir.Value | bool
    last: ir.Value | bool


def tile(e: Emitter, block: Block, row: Index, rows: int) -> None:
    """One tile for one block of k: its sums go on where the block before left them, and end in the epilogue."""
    b, vector = e.b, e.vector
    sums: list[ir.Value] = [instructions.constant(vector, 0)] * (rows * ceil(block.columns, vector.count))
    partial = _partial(e, block, row)
    if not isinstance(block.first, bool):
        zeros = sums
        sums = _either(b, block.first, lambda: zeros, lambda: _read_tile(b, partial, zeros))
    sums = _accumulate(e, block, row, rows, sums)
    if e.heavy:
        _write_tile(b, partial, sums)
    elif isinstance(block.last, bool):
        _finish(e, block, row, rows, sums)
    else:
        with b.if_else(block.last) as (then, otherwise):
            with then:
                _finish(e, block, row, rows, sums)
            with otherwise:
                _write_tile(b, partial, sums)


def _partial(e: Emitter, block: Block, row: Index) -> ir.Value:
    """Where the sums of a tile wait for the next block of k, or for a heavy epilogue."""
    b, panels = e.b, scratch_panels(e.product, e.blocking)
    if isinstance(block.last, bool):
        return e.within(panels.partial)  # a single block: the tile does not wait for others
    within_chunk = b.sub(index(row), index(block.chunk))
    return at(b, e.within(panels.partial), b.mul(within_chunk, index(e.blocking.width)), e.product.element)


def _write_tile(b: ir.IRBuilder, pointer: ir.Value, values: list[ir.Value]) -> None:
    for i, value in enumerate(values):
        store(b, value, at(b, pointer, i * value.type.count, value.type.element))


def _read_tile(b: ir.IRBuilder, pointer: ir.Value, like: list[ir.Value]) -> list[ir.Value]:
    return [load(b, at(b, pointer, i * v.type.count, v.type.element), v.type) for i, v in enumerate(like)]


def _either(
    b: ir.IRBuilder, condition: ir.Value, then: Callable[[], list[ir.Value]], otherwise: Callable[[], list[ir.Value]]
) -> list[ir.Value]:
    """The values of one of two branches."""
    with b.if_else(condition) as (left, right):
        with left:
            left_values, left_block = then(), b.block
        with right:
            right_values, right_block = otherwise(), b.block
    phis = [b.phi(value.type) for value in left_values]
    for phi, left_value, right_value in zip(phis, left_values, right_values, strict=True):
        phi.add_incoming(left_value, left_block)
        phi.add_incoming(right_value, right_block)
    return phis


def _accumulate(e: Emitter, block: Block, row: Index, rows: int, sums: list[ir.Value]) -> list[ir.Value]:
    """The multiply-adds of a tile for one block of k."""
    product, blocking, b = e.product, e.blocking, e.b
    element, lanes, vector = product.element, blocking.lanes, e.vector
    column, columns, k, count = block.column, block.columns, block.k, block.count
    vectors = ceil(columns, lanes)
    panels = scratch_panels(product, blocking)
    signature = ir.FunctionType(vector, [vector] * 3)
    multiply_add = packing.intrinsic(b, f"llvm.fmuladd.{packing.suffix(vector)}", signature)

    # where A[row + m, k + i] and B[k + i, column + n] are: base + m * row_step + i * k_step and base + i * b_step + n
    if blocking.a == "lies":
        row_step, k_step = (1, product.a_stride) if product.a_transposed else (product.a_stride, 1)
        a_base = at(b, e.a, add(b, multiply(b, row, row_step), multiply(b, k, k_step)), element)
    else:
        number = b.sdiv(b.sub(index(row), index(block.chunk)), index(blocking.tile_rows))
        start: Index = b.mul(number, index(a_block(product, blocking)))
        row_step, k_step = (1, rows) if product.a_transposed else (a_row(product, blocking), 1)
        if blocking.a == "chunk":
            start = add(b, start, multiply(b, k, k_step))
        a_base = at(b, e.within(panels.a_panel), start, element)
    if blocking.b == "packed":
        b_step, b_base = vectors * lanes, e.within(panels.b_panel)
    elif product.b_transposed:
        b_step = 1
        b_base = at(b, e.b_pointer, add(b, multiply(b, column, product.b_stride), k), element)
    else:
        b_step = product.b_stride
        b_base = at(b, e.b_pointer, add(b, multiply(b, k, product.b_stride), column), element)

    def vector_of_b(pointer: ir.Value, v: int) -> ir.Value:
        present = min(lanes, columns - v * lanes)
        if blocking.b == "gathered":
            first = at(b, pointer, v * lanes * product.b_stride, element)
            return packing.gathered(b, first, product.b_stride, present, vector)
        pointer = at(b, pointer, v * lanes, element)
        return load(b, pointer, vector) if blocking.b == "packed" else packing.masked_load(b, pointer, vector, present)

    def step(size: int) -> Callable[[Index, list[ir.Value]], list[ir.Value]]:
        def body(i: Index, sums: list[ir.Value]) -> list[ir.Value]:
            a_now = at(b, a_base, multiply(b, i, k_step), element)
            b_now = at(b, b_base, multiply(b, i, b_step), element)
            for j in range(size):
                b_pointer = at(b, b_now, j * b_step, element)
                right = [vector_of_b(b_pointer, v) for v in range(vectors)]
                for m in range(rows):
                    scalar = load(b, at(b, a_now, m * row_step + j * k_step, element), element)
                    left = packing.broadcast(b, scalar, lanes)
                    for v in range(vectors):
                        sums[m * vectors + v] = b.call(multiply_add, [left, right[v], sums[m * vectors + v]])
            return sums

        return body

    unroll = blocking.unroll
    whole = count - count % unroll if isinstance(count, int) else b.and_(count, index(-unroll))
    sums = loop(b, 0, whole, unroll, step(unroll), sums)
    if isinstance(count, int) and count - whole:  # known, so emitted without a loop
        return step(count - whole)(whole, sums)
    if not isinstance(count, int) and (blocking.inner_block % unroll or product.inner % unroll):
        return loop(b, whole, count, 1, step(1), sums)
    return sums


def _finish(e: Emitter, block: Block, row: Index, rows: int, sums: list[ir.Value]) -> None:
    """Hands the vectors of a finished tile to the epilogue, one after the other."""
    b, lanes = e.b, e.blocking.lanes
    vectors = ceil(block.columns, lanes)
    for i, value in enumerate(sums):
        m, v = divmod(i, vectors)
        count = min(lanes, block.columns - v * lanes)
        mask = packing.mask_of(lanes, count) if count < lanes else None
        e.epilogue(b, index(add(b, row, m)), index(add(b, block.column, v * lanes)), value, mask)


def finish_in_loops(e: Emitter, block: Block, row: Index, rows: Index) -> None:
    """Hands the vectors of a finished tile that was written to scratch to the epilogue."""
    b, lanes, vector = e.b, e.blocking.lanes, e.vector
    whole, rest = divmod(block.columns, lanes)
    partial = _partial(e, block, row)

    def one(m: Index, v: Index, mask: ir.Value | None) -> None:
        offset = multiply(b, add(b, multiply(b, m, ceil(block.columns, lanes)), v), lanes)
        value = load(b, at(b, partial, offset, vector.element), vector)
        e.epilogue(b, index(add(b, row, m)), index(add(b, block.column, multiply(b, v, lanes))), value, mask)

    def line(m: Index, _: list[ir.Value]) -> None:
        loop(b, 0, whole, 1, lambda v, _: one(m, v, None))
        if rest:
            one(m, whole, packing.mask_of(lanes, rest))

    loop(b, 0, rows, 1, line)
