"""How a matrix product is cut up: the tile held in registers, the panels held in caches, the shares of the threads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from llvmlite import ir

from stepgrad.execute.cpu.target import Target

Split = Literal["rows", "columns"]
LINE = 64
"""Bytes of a cache line: that of every processor we know of, or half of it."""


@dataclass(frozen=True)
class Product:
    """C[m, n] = sum over k of A[m, k] * B[k, n].

    Attributes:
        rows, inner, columns: the ranges of m, k and n.
        dtype: of all three.
        a_transposed, a_stride: A[m, k] is a[m * a_stride + k], or a[k * a_stride + m] if transposed.
        b_transposed, b_stride: B[k, n] is b[k * b_stride + n], or b[n * b_stride + k] if transposed.
    """

    rows: int
    inner: int
    columns: int
    dtype: Literal["float32", "float64"]
    a_transposed: bool
    a_stride: int
    b_transposed: bool
    b_stride: int

    @property
    def element(self) -> ir.Type:
        """The IR type of an element."""
        return ir.DoubleType() if self.dtype == "float64" else ir.FloatType()

    @property
    def bytes(self) -> int:
        """Of an element."""
        return 8 if self.dtype == "float64" else 4


@dataclass(frozen=True)
class Blocking:
    """How a product is cut up.

    Attributes:
        split: what the threads share out.
        lanes: elements of a vector; fewer than the processor's where the output is narrow.
        tile_rows, tile_vectors: the tile of the output that is held in registers.
        inner_block: how many k a panel of B holds.
        unroll: how many k one round of the inner loop takes.
        chunk_rows: how many rows go through all columns before the next ones; a multiple of `tile_rows`.
        a: how A is read: where it "lies"; copied once for a "chunk" of rows; or once for every "panel" of B.
        b: how B is read: where it "lies"; "packed" into panels; or "gathered" element by element, for tiny products.
        inner_lanes: if not 0, vectors run along k and have so many lanes; see `dots`.
    """

    split: Split
    lanes: int
    tile_rows: int
    tile_vectors: int
    inner_block: int
    unroll: int
    chunk_rows: int
    a: Literal["lies", "chunk", "panel"]
    b: Literal["lies", "packed", "gathered"]
    inner_lanes: int = 0

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.lanes * self.tile_vectors


def ceil(count: int, step: int) -> int:
    """count / step, rounded up."""
    return -(-count // step)


def unit(product: Product, blocking: Blocking, split: Split) -> int:
    """What low and high of a thread's share must be multiples of, but at the very end."""
    return blocking.tile_rows if split == "rows" else blocking.width


# --- scratch memory


@dataclass(frozen=True)
class Panels:
    """Where in a thread's scratch memory its panels begin, and the end of all, in elements."""

    a_panel: int
    b_panel: int
    partial: int
    end: int


def a_row(product: Product, blocking: Blocking) -> int:
    """Elements of packed A for one row: its k, and padding so that rows do not meet in one set of a cache."""
    count = product.inner if blocking.a == "chunk" else blocking.inner_block
    line = LINE // product.bytes
    return count if product.a_transposed else ceil(count, line) * line + line


def a_block(product: Product, blocking: Blocking) -> int:
    """Elements of packed A for one block of rows."""
    padding = LINE // product.bytes if product.a_transposed else 0
    return blocking.tile_rows * a_row(product, blocking) + padding


@functools.cache
def scratch_panels(product: Product, blocking: Blocking) -> Panels:
    """The layout of a thread's scratch memory."""
    line = LINE // product.bytes
    blocks = blocking.chunk_rows // blocking.tile_rows
    sums = blocking.chunk_rows if product.inner > blocking.inner_block else blocking.tile_rows
    a_panel = 0 if blocking.a == "lies" else blocks * a_block(product, blocking)
    b_panel = blocking.inner_block * blocking.width if blocking.b == "packed" else 0
    starts = [0]
    for size in (a_panel, b_panel, sums * blocking.width):
        starts.append(starts[-1] + ceil(size, line) * line)
    return Panels(*starts)


def scratch_bytes(product: Product, blocking: Blocking) -> int:
    """Bytes of scratch memory that each thread needs, aligned to a cache line."""
    return scratch_panels(product, blocking).end * product.bytes


# --- the choice
# The figures were measured with AVX-512, in cycles; what matters is their proportion.

_INNER = 256
"""Rows of a panel of B: it stays in the first cache, or nearly."""
_FAST_BYTES = 32 << 10
"""Of a panel of B that is read as fast as it can be."""
_LYING_BYTES = 48 << 10
"""A matrix up to this size need not be packed: it stays in the first cache as it lies."""
_CHUNK_BYTES = 1 << 20
"""Of a chunk of A: it stays in the second cache."""
_TINY = 128
"""Multiply-adds of vectors that are emitted without a loop, and elements that are gathered one by one."""


def choose(product: Product, target: Target, split: Split, threads: int = 1, fitting: int = 0) -> Blocking:
    """The blocking for a shape and a processor.

    Args:
        threads: how many will share the product; it decides how evenly the tiles can be dealt out. The bits of the
            result do not depend on it.
        fitting: if not 0, the rows of a tile divide this number, so that shares may begin at multiples of it.
    """
    return _cheapest(product, target, split, threads, fitting)[1]


def best_split(product: Product, target: Target, threads: int) -> Split:
    """Whether threads had better share rows or columns."""
    rows, columns = (_cheapest(product, target, split, threads)[0] for split in ("rows", "columns"))
    return "rows" if rows < columns else "columns"


@functools.cache
def _cheapest(product: Product, target: Target, split: Split, threads: int, fitting: int = 0) -> tuple[float, Blocking]:
    # Dot products are added up in another order, so whether they are used must depend neither on the threads nor on
    # what the tiles have to fit.
    if (split, threads, fitting) == ("rows", 1, 0):
        tiles, dots = _tiles(product, target, split, threads), _dots(product, target, split)
    elif _cheapest(product, target, "rows", 1)[1].inner_lanes:
        tiles, dots = [], _dots(product, target, split)
    else:
        tiles, dots = _tiles(product, target, split, threads), []
    if fitting:
        tiles = [tile for tile in tiles if fitting % tile.tile_rows == 0]
        dots = [tile for tile in dots if fitting % tile.tile_rows == 0]
    costs = [_cycles(product, blocking, threads) for blocking in tiles]
    costs += [_dots_cycles(product, blocking, threads) for blocking in dots]
    best = min(range(len(costs)), key=costs.__getitem__)
    return costs[best], (tiles + dots)[best]


def _tiles(product: Product, target: Target, split: Split, threads: int) -> list[Blocking]:
    """All tiles that fit the registers."""
    lanes = min(target.lanes(product.element), _power_of_two(product.columns))
    return [
        _blocking(product, target, split, threads, lanes, rows, vectors)
        for vectors in range(1, 9)
        for rows in range(1, target.registers)
        # accumulators, a row of B and an element of A
        if rows * vectors + vectors + 1 < target.registers
        and (rows == 1 or rows <= product.rows)
        and (vectors == 1 or (vectors - 1) * lanes < product.columns)
    ]


def _dots(product: Product, target: Target, split: Split) -> list[Blocking]:
    """All tiles of dot products, where both operands have their k side by side."""
    lanes = target.lanes(product.element)
    column = product.columns == 1 and (product.b_transposed or product.b_stride == 1)
    narrow = product.rows <= 4 or product.columns <= max(1, lanes // 4)  # measured: from 8 on, tiles are faster
    if product.a_transposed or not (product.b_transposed or column) or product.inner < lanes or not narrow:
        return []
    sizes = [1 << i for i in range(lanes.bit_length()) if 1 << i <= _power_of_two(product.columns)]
    return [
        Blocking(split, columns, rows, 1, product.inner, 1, rows, "lies", "lies", lanes)
        for columns in sizes
        for rows in range(1, target.registers)
        # accumulators, and what is loaded
        if rows * columns + rows + 1 < target.registers and (rows == 1 or rows <= product.rows)
    ]


def _power_of_two(count: int) -> int:
    """The smallest that is not less."""
    return 1 << max(0, count - 1).bit_length()


def _blocking(
    product: Product, target: Target, split: Split, threads: int, lanes: int, rows: int, vectors: int
) -> Blocking:
    """The blocking around a tile."""
    size, inner = product.bytes, max(1, product.inner)
    inner_block = ceil(inner, ceil(inner, _INNER))
    row_blocks = ceil(ceil(product.rows, rows), threads if split == "rows" else 1)
    fused = inner * rows * vectors
    unroll = inner if fused <= _TINY else 2 if (vectors == 1 or rows * vectors <= 12) and inner_block > 8 else 1

    b: Literal["lies", "packed", "gathered"] = "packed"
    ragged = product.columns % lanes != 0 and target.vector_bytes < 64  # only AVX-512 masks at no cost
    if product.b_transposed:
        if inner * product.columns * row_blocks <= _TINY:
            b = "gathered"
    elif row_blocks <= 2 or (inner * product.columns * size <= _LYING_BYTES and not ragged):
        b = "lies"

    a: Literal["lies", "chunk", "panel"] = "lies"
    chunk = max(192, _CHUNK_BYTES // (inner * size))
    if product.a_transposed and product.rows * inner * size > _CHUNK_BYTES // 2:
        chunk = _CHUNK_BYTES // 4 // (inner * size)
        a = "chunk" if chunk >= 4 * rows else "panel"
        chunk = max(256, chunk) if a == "panel" else chunk
    chunk_blocks = ceil(row_blocks, ceil(row_blocks, max(1, chunk // rows)))  # chunks of equal size
    return Blocking(split, lanes, rows, vectors, inner_block, unroll, chunk_blocks * rows, a, b)


def _largest_share(product: Product, blocking: Blocking, threads: int) -> tuple[int, int]:
    """Rows and columns of the largest share."""
    size = unit(product, blocking, blocking.split)
    if blocking.split == "rows":
        return min(product.rows, ceil(ceil(product.rows, size), threads) * size), product.columns
    return product.rows, min(product.columns, ceil(ceil(product.columns, size), threads) * size)


def _parts(total: int, step: int) -> list[tuple[int, int]]:
    """How often which size occurs where a total is cut into steps."""
    return [(total // step, step), (1, total % step)] if total % step else [(total // step, step)]


def _cycles(product: Product, blocking: Blocking, threads: int) -> float:
    """About how long the thread with the largest share takes."""
    inner = max(1, product.inner)
    rows, columns = _largest_share(product, blocking, threads)
    cycles, code = 0.0, 0
    blocks = ceil(inner, blocking.inner_block)
    for row_count, tile_rows in _parts(rows, blocking.tile_rows):
        for column_count, tile_columns in _parts(columns, blocking.width):
            vectors = ceil(tile_columns, blocking.lanes)
            sums = tile_rows * vectors
            # two multiply-adds a cycle, each of which takes four and a little; what is loaded costs a little, and
            # vectors of B more where their panel leaves no room for A in the first cache
            panel = blocking.inner_block * tile_columns * product.bytes
            each = max(5.0, 0.5 * sums) + 0.1 * (tile_rows + vectors)
            each += 0.3 * vectors * max(0.0, 1 - _FAST_BYTES / panel)
            cycles += row_count * column_count * (inner * each + blocks * (20 + 1.5 * sums))
            code += sums
    cycles *= 1 + 0.0003 * code  # of two that are nearly as fast, the one that compiles faster
    vectors = ceil(columns, blocking.lanes)
    if blocking.b == "packed":
        chunks = ceil(rows, blocking.chunk_rows)
        cycles += chunks * inner * vectors * (7.0 if product.b_transposed else 4.0)
    if blocking.b == "gathered":
        cycles += ceil(rows, blocking.tile_rows) * inner * columns * 1.5
    if blocking.a == "chunk":
        cycles += rows * inner / blocking.lanes * 3
    if blocking.a == "panel":
        cycles += ceil(columns, blocking.width) * rows * inner / blocking.lanes * 3
    return cycles


def _dots_cycles(product: Product, blocking: Blocking, threads: int) -> float:
    """About how long dot products take the thread with the largest share."""
    rows, columns = _largest_share(product, blocking, threads)
    cycles = 0.0
    for row_count, tile_rows in _parts(rows, blocking.tile_rows):
        for column_count, tile_columns in _parts(columns, blocking.lanes):
            sums = tile_rows * tile_columns
            # as above; and two loads a cycle
            each = max(5.0, 0.5 * sums, 0.5 * (tile_rows + tile_columns)) + 0.07 * (tile_rows + tile_columns)
            added = 3.0 * sums + (10.0 * tile_rows if blocking.lanes > 1 else 2.0 * tile_rows)
            cycles += row_count * column_count * (ceil(product.inner, blocking.inner_lanes) * each + 20 + added)
    return cycles
