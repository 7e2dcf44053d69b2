"""Matrix products as native code, with what follows them applied while a block is still in registers.

A tile of the output is held in registers: `tile_rows` rows of `tile_vectors` vectors. For each k, a row of B is read
into vectors, elements of A are broadcast, and every accumulator takes one fused multiply-add (Goto and van de Geijn,
"Anatomy of High-Performance Matrix Multiplication", 2008; Van Zee and van de Geijn, "BLIS", 2015). Every element of
the output is one chain of multiply-adds over increasing k, so its bits depend neither on the tiles nor on the threads.
Outputs of a few rows or columns are computed otherwise: see `dots`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from stepgrad.execute.cpu import instructions, packing
from stepgrad.execute.cpu.blocking import Blocking, Product, a_block, a_row, ceil, scratch_panels
from stepgrad.execute.cpu.dots import Epilogue, emit_dots
from stepgrad.execute.cpu.packing import Index, add, at, index, load, loop, multiply, store


@dataclass(frozen=True)
class _Emitter:
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


def emit_product(
    b: ir.IRBuilder,
    product: Product,
    blocking: Blocking,
    a: ir.Value,
    b_pointer: ir.Value,
    scratch: ir.Value,
    low: ir.Value,
    high: ir.Value,
    epilogue: Epilogue,
    heavy: bool,
) -> None:
    """Emits a thread's share of a product: rows or columns [low, high) of the output, as the blocking splits them.

    The product itself stores nothing but scratch: the epilogue is called for the code that takes each finished vector.

    Args:
        a, b_pointer, scratch: addresses.
        low, high: i64; multiples of `unit`, but at the very end.
        epilogue: see `Epilogue`. Masked lanes lie behind the last column: they must be neither read nor written.
        heavy: whether the epilogue's code is so long that it should stand in loops, not once for every accumulator.
    """
    if 0 in (product.rows, product.columns):
        return
    e = _Emitter(b, product, blocking, a, b_pointer, scratch, epilogue, heavy)
    with b.if_then(b.icmp_signed("<", low, high)):
        by_rows = blocking.split == "rows"
        first_row, end_row = (low, high) if by_rows else (index(0), index(product.rows))
        first_column, end_column = (index(0), index(product.columns)) if by_rows else (low, high)
        if blocking.inner_lanes:
            rows, columns = (first_row, end_row), (first_column, end_column)
            emit_dots(b, product, blocking, a, b_pointer, scratch, rows, columns, epilogue, heavy)
            return

        def chunk(row: Index, _: list[ir.Value]) -> None:
            end = packing.minimum(b, add(b, row, blocking.chunk_rows), end_row)
            if blocking.a == "chunk":
                _pack_a(e, row, end, 0, product.inner)
            _panels(e, row, end, first_column, end_column)

        loop(b, first_row, end_row, blocking.chunk_rows, chunk)


def _panels(e: _Emitter, row: Index, end_row: Index, first: Index, end: Index) -> None:
    """All panels of columns, for a chunk of rows: the whole ones in a loop, then the ragged one."""
    product, blocking, b = e.product, e.blocking, e.b
    ragged = product.columns % blocking.width
    whole = product.columns - ragged
    if whole:
        loop(
            b,
            first,
            packing.minimum(b, end, whole) if ragged else end,
            blocking.width,
            lambda column, _: _panel(e, row, end_row, column, blocking.width),
        )
    if ragged:
        with b.if_then(b.icmp_signed(">", index(end), index(whole))):
            _panel(e, row, end_row, index(whole), ragged)


def _panel(e: _Emitter, row: Index, end_row: Index, column: Index, columns: int) -> None:
    """One panel of columns, for a chunk of rows: block after block of k."""
    product, blocking, b = e.product, e.blocking, e.b
    inner, step = product.inner, blocking.inner_block

    def run(block: _Block) -> None:
        if blocking.a == "panel":
            _pack_a(e, row, end_row, block.k, block.count)
        if blocking.b == "packed":
            _pack_b(e, block.k, block.count, column, columns)

        def after(r: Index, rows: Index) -> None:
            if isinstance(block.last, bool):
                _finish_in_loops(e, block, r, rows)
            else:
                with b.if_then(block.last):
                    _finish_in_loops(e, block, r, rows)

        _row_blocks(e, row, end_row, lambda r, rows: _tile(e, block, r, rows), after if e.heavy else None)

    if inner <= step:
        run(_Block(row, column, columns, 0, inner, True, True))
        return

    def body(k: Index, _: list[ir.Value]) -> None:
        count = packing.minimum(b, b.sub(index(inner), index(k)), step) if inner % step else step
        last = b.icmp_signed(">=", add(b, k, step), index(inner))
        first = b.icmp_signed("==", index(k), index(0))
        run(_Block(row, column, columns, k, count, first, last))

    loop(b, 0, inner, step, body)


def _row_blocks(
    e: _Emitter,
    row: Index,
    end: Index,
    body: Callable[[Index, int], None],
    after: Callable[[Index, Index], None] | None = None,
) -> None:
    """Calls the body for blocks of `tile_rows` rows, and for the rows that remain at the very end.

    What comes `after` each block is emitted once for both, and takes the number of rows as a value.
    """
    b, size = e.b, e.blocking.tile_rows
    rest = e.product.rows % size
    whole = e.product.rows - rest
    if after is None or not (whole and rest):

        def block(r: Index, rows: int) -> None:
            body(r, rows)
            if after is not None:
                after(r, rows)

        if whole:
            loop(b, row, packing.minimum(b, end, whole) if rest else end, size, lambda r, _: block(r, size))
        if rest:
            with b.if_then(b.icmp_signed(">", index(end), index(whole))):
                block(index(whole), rest)
        return

    def either(r: Index, _: list[ir.Value]) -> None:
        with b.if_else(b.icmp_signed("<", index(r), index(whole))) as (then, otherwise):
            with then:
                body(r, size)
            with otherwise:
                body(r, rest)
        after(r, packing.minimum(b, b.sub(index(end), index(r)), size))

    loop(b, row, end, size, either)


def _pack_a(e: _Emitter, row: Index, end: Index, k: Index, count: Index) -> None:
    """Copies rows [row, end) of A, from k on, to the scratch panel."""
    product, blocking, b = e.product, e.blocking, e.b
    element, lanes, size = product.element, blocking.lanes, a_row(product, blocking)
    panel = e.within(scratch_panels(product, blocking).a_panel)
    if not product.a_transposed:

        def one(r: Index, _: list[ir.Value]) -> None:
            source = at(b, e.a, add(b, multiply(b, r, product.a_stride), k), element)
            target = at(b, panel, multiply(b, b.sub(index(r), index(row)), size), element)
            packing.copy_row(b, source, target, count, element, lanes)

        loop(b, row, end, 1, one)
        return
    together = 4  # k, so that a block is written a few cache lines at a time

    def some(step: int) -> Callable[[Index, list[ir.Value]], None]:
        def body(i: Index, _: list[ir.Value]) -> None:
            def block(r: Index, rows: int) -> None:
                number = b.sdiv(b.sub(index(r), index(row)), index(blocking.tile_rows))
                start = add(b, b.mul(number, index(a_block(product, blocking))), multiply(b, i, rows))
                for j in range(step):
                    where = multiply(b, add(b, add(b, k, i), j), product.a_stride)
                    source = at(b, e.a, add(b, where, r), element)
                    packing.copy(b, source, at(b, panel, add(b, start, j * rows), element), rows, element, lanes)

            _row_blocks(e, row, end, block)

        return body

    whole = count - count % together if isinstance(count, int) else b.and_(count, index(-together))
    loop(b, 0, whole, together, some(together))
    loop(b, whole, count, 1, some(1))


def _pack_b(e: _Emitter, k: Index, count: Index, column: Index, columns: int) -> None:
    """Copies rows [k, k + count) of B's columns to the scratch panel, zeros behind the last column."""
    product, blocking, b = e.product, e.blocking, e.b
    element, lanes, vector = product.element, blocking.lanes, e.vector
    panel = e.within(scratch_panels(product, blocking).b_panel)
    vectors, rest = divmod(columns, lanes)
    width = ceil(columns, lanes) * lanes
    if not product.b_transposed:

        def one(i: Index, _: list[ir.Value]) -> None:
            source = at(b, e.b_pointer, add(b, multiply(b, add(b, k, i), product.b_stride), column), element)
            target = at(b, panel, multiply(b, i, width), element)
            read = [load(b, at(b, source, lanes * v, element), vector) for v in range(vectors)]
            if rest:
                read.append(packing.masked_load(b, at(b, source, lanes * vectors, element), vector, rest))
            for v, value in enumerate(read):
                store(b, value, at(b, target, lanes * v, element))

        loop(b, 0, count, 1, one)
        return

    def transposed(v: Index, rows: int) -> None:
        source = at(b, e.b_pointer, add(b, multiply(b, add(b, column, v), product.b_stride), k), element)
        target = at(b, panel, v, element)
        packing.transpose_panel(b, source, product.b_stride, rows, count, target, width, vector)

    loop(b, 0, lanes * vectors, lanes, lambda v, _: transposed(v, lanes))
    if rest:
        transposed(lanes * vectors, rest)


@dataclass(frozen=True)
class _Block:
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


def _tile(e: _Emitter, block: _Block, row: Index, rows: int) -> None:
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


def _partial(e: _Emitter, block: _Block, row: Index) -> ir.Value:
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


def _accumulate(e: _Emitter, block: _Block, row: Index, rows: int, sums: list[ir.Value]) -> list[ir.Value]:
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


def _finish(e: _Emitter, block: _Block, row: Index, rows: int, sums: list[ir.Value]) -> None:
    """Hands the vectors of a finished tile to the epilogue, one after the other."""
    b, lanes = e.b, e.blocking.lanes
    vectors = ceil(block.columns, lanes)
    for i, value in enumerate(sums):
        m, v = divmod(i, vectors)
        count = min(lanes, block.columns - v * lanes)
        mask = packing.mask_of(lanes, count) if count < lanes else None
        e.epilogue(b, index(add(b, row, m)), index(add(b, block.column, v * lanes)), value, mask)


def _finish_in_loops(e: _Emitter, block: _Block, row: Index, rows: Index) -> None:
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
