"""Matrix products as native code, with what follows them applied while a block is still in registers.

A product is walked panel by panel of B's columns, and block by block of A's rows, so that what a tile needs is close
by (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; Van Zee and van de Geijn, "BLIS",
2015). The tiles themselves are in `tiles`. Every element of the output is one chain of multiply-adds over increasing k,
so its bits depend neither on the tiles nor on the threads. Outputs of a few rows or columns are computed otherwise:
see `dots`.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from stepgrad.execute.cpu import packing
from stepgrad.execute.cpu.blocking import Blocking, Product, a_block, a_row, ceil, scratch_panels
from stepgrad.execute.cpu.dots import Epilogue, emit_dots
from stepgrad.execute.cpu.packing import Index, add, at, index, load, loop, multiply, store
from stepgrad.execute.cpu.tiles import Block, Emitter, finish_in_loops, tile


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
    e = Emitter(b, product, blocking, a, b_pointer, scratch, epilogue, heavy)
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


def _panels(e: Emitter, row: Index, end_row: Index, first: Index, end: Index) -> None:
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


def _panel(e: Emitter, row: Index, end_row: Index, column: Index, columns: int) -> None:
    """One panel of columns, for a chunk of rows: block after block of k."""
    product, blocking, b = e.product, e.blocking, e.b
    inner, step = product.inner, blocking.inner_block

    def run(block: Block) -> None:
        if blocking.a == "panel":
            _pack_a(e, row, end_row, block.k, block.count)
        if blocking.b == "packed":
            _pack_b(e, block.k, block.count, column, columns)

        def after(r: Index, rows: Index) -> None:
            if isinstance(block.last, bool):
                finish_in_loops(e, block, r, rows)
            else:
                with b.if_then(block.last):
                    finish_in_loops(e, block, r, rows)

        _row_blocks(e, row, end_row, lambda r, rows: tile(e, block, r, rows), after if e.heavy else None)

    if inner <= step:
        run(Block(row, column, columns, 0, inner, True, True))
        return

    def body(k: Index, _: list[ir.Value]) -> None:
        count = packing.minimum(b, b.sub(index(inner), index(k)), step) if inner % step else step
        last = b.icmp_signed(">=", add(b, k, step), index(inner))
        first = b.icmp_signed("==", index(k), index(0))
        run(Block(row, column, columns, k, count, first, last))

    loop(b, 0, inner, step, body)


def _row_blocks(
    e: Emitter,
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


def _pack_a(e: Emitter, row: Index, end: Index, k: Index, count: Index) -> None:
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


def _pack_b(e: Emitter, k: Index, count: Index, column: Index, columns: int) -> None:
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
