"""Matrix products as kernels: the product itself, and in its epilogue everything that was fused with it."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points
from stepgrad.execute.cpu.blocking import Blocking, Product, best_split, choose, scratch_bytes, unit
from stepgrad.execute.cpu.frame import FIXED, Frame, address, begin, emit_node, store
from stepgrad.execute.cpu.matmul import emit_product
from stepgrad.execute.cpu.packing import Index, add, index, loop, multiply
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

HEAVY = 12
"""An epilogue of more nodes is emitted once for a tile rather than once for each vector of it."""
WIDE = 1 << 15
"""Up to this many elements of the second matrix, threads share out rows: then a layer's results are
where the next one reads them, and there need be no barrier between the two."""
UNIT = 8
"""Threads share out rows in multiples of this, in all kernels that have no reason to do otherwise."""


def product_of(body: Body) -> Product:
    """The shapes and strides of a body's product."""
    matrices = body.matrices
    assert matrices is not None
    _, _, _, a_row, a_column = matrices.a
    _, _, _, b_row, b_column = matrices.b
    a_transposed = a_column != 1 and matrices.inner != 1
    b_transposed = b_column != 1 and body.inner != 1
    dtype = next(node[1] for node in body.nodes if node[0] == "product")
    return Product(
        rows=body.reduced,
        inner=matrices.inner,
        columns=body.inner,
        dtype=dtype,  # type: ignore[arg-type]
        a_transposed=a_transposed,
        a_stride=a_column if a_transposed else a_row,
        b_transposed=b_transposed,
        b_stride=b_column if b_transposed else b_row,
    )


def plan(body: Body, target: Target, threads: int) -> tuple[Product, Blocking, Split]:
    """How a product is computed, and shared out."""
    product = product_of(body)
    if body.rows > 1:
        return product, choose(product, target, "rows"), Split(body.rows, 1)
    large = product.inner * product.columns >= WIDE or product.a_transposed
    if large and best_split(product, target, threads) == "columns":
        blocking = choose(product, target, "columns", threads)
        split = Split(product.columns, unit(product, blocking, "columns"), axis="columns")
    elif large:
        blocking = choose(product, target, "rows", threads)
        split = Split(product.rows, unit(product, blocking, "rows"))
    else:
        blocking = choose(product, target, "rows", threads, UNIT)
        split = Split(product.rows, UNIT)
    return product, blocking, split


def scratch_product(body: Body, target: Target, threads: int) -> int:
    """Bytes of scratch memory that a thread needs."""
    product, blocking, _ = plan(body, target, threads)
    return scratch_bytes(product, blocking)


def emit(module: ir.Module, name: str, body: Body, split: Split, target: Target, threads: int) -> None:
    """Emits a kernel of kind "product"."""
    product, blocking, _ = plan(body, target, threads)
    frame = begin(module, name, body, split)
    b = frame.b
    compute = [node for node in body.nodes if node[0] not in ("load", "const", "product", "index")]
    heavy = len(compute) > HEAVY

    def one(numbers: list[Index], low: ir.Value, high: ir.Value) -> None:
        def epilogue(b: ir.IRBuilder, row: ir.Value, column: ir.Value, vector: ir.Value, mask: Any) -> None:
            _finish(frame, b, [*numbers, row, column], vector, mask)

        a, b_pointer = (_matrix(frame, matrix, numbers) for matrix in (body.matrices.a, body.matrices.b))  # type: ignore[union-attr]
        emit_product(b, product, blocking, a, b_pointer, frame.scratch, low, high, epilogue, heavy)

    if body.rows > 1:

        def matrix(row: Index, _: Any) -> None:
            numbers: list[Index] = []
            for n in reversed(body.outer[1:]):
                numbers.append(b.urem(index(row), index(n)))
                row = b.udiv(index(row), index(n))
            extent = product.columns if blocking.split == "columns" else product.rows
            one([row, *reversed(numbers)], index(0), index(extent))

        loop(b, frame.low, frame.high, 1, matrix)
    else:
        one([0] * len(body.outer), frame.low, frame.high)
    b.ret_void()


def _matrix(frame: Frame, matrix: tuple[int, int, tuple[int, ...], int, int], numbers: list[Index]) -> ir.Value:
    """The address of the first element of a matrix."""
    operand, offset, steps, _, _ = matrix
    where: Index = offset
    for step, number in zip(steps, numbers, strict=False):
        if step:
            where = add(frame.b, where, multiply(frame.b, number, step))
    return frame.b.gep(frame.operands[operand], [index(where)], source_etype=points.TYPES[frame.body.dtypes[operand]])


def _finish(frame: Frame, b: ir.IRBuilder, point: list[Index], vector: ir.Value, mask: Any) -> None:
    """Computes what follows from a finished vector of the product, and stores it."""
    lanes = vector.type.count
    values = dict(frame.fixed)
    outer, frame.b = frame.b, b
    for i, (op, _, _, _) in enumerate(frame.body.nodes):
        if op == "product":
            values[i] = vector
        elif frame.levels[i] != FIXED:
            values[i] = emit_node(frame, i, values, point, lanes, mask)
    for node, operand, offset, steps in frame.body.stores:
        where = address(b, offset, steps, point)
        store(
            b,
            points.splat(b, values[node], lanes),
            frame.operands[operand],
            frame.body.dtypes[operand],
            where,
            steps[-1],
            mask,
        )
    frame.b = outer
