"""Copies of parts of a matrix in the order in which a matrix product reads them.

A matrix whose rows lie a large power of two bytes apart maps to few sets of a cache; copied into a panel, it does not.
All functions emit code at a builder; sizes are Python numbers where the code depends on them, else i64 values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from llvmlite import ir

from stepgrad.execute.cpu import instructions
from stepgrad.execute.cpu.blocking import LINE
from stepgrad.execute.cpu.target import bytes_of

I64 = ir.IntType(64)
I32 = ir.IntType(32)
Index: TypeAlias = ir.Value | int
"""A number known now, or when the code runs."""


def index(value: Index) -> ir.Value:
    """A Python number as an i64 constant; values as they are."""
    return ir.Constant(I64, value) if isinstance(value, int) else value


def add(b: ir.IRBuilder, left: Index, right: Index) -> Index:
    """left + right, folded where both are Python numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if left == 0 or right == 0:
        return right if left == 0 else left
    return b.add(index(left), index(right))


def multiply(b: ir.IRBuilder, left: Index, right: int) -> Index:
    """left * right, folded where both are Python numbers."""
    return left * right if isinstance(left, int) else b.mul(left, index(right))


def at(b: ir.IRBuilder, pointer: ir.Value, offset: Index, element: ir.Type) -> ir.Value:
    """The address of an element."""
    return pointer if offset == 0 else b.gep(pointer, [index(offset)], source_etype=element)


def load(b: ir.IRBuilder, pointer: ir.Value, type: ir.Type) -> ir.Value:
    """Reads a scalar or a vector that need not be aligned as a vector."""
    element = type.element if isinstance(type, ir.VectorType) else type
    return b.load(pointer, typ=type, align=bytes_of(element))


def store(b: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
    """Writes a scalar or a vector that need not be aligned as a vector."""
    element = value.type.element if isinstance(value.type, ir.VectorType) else value.type
    b.store(value, pointer, align=bytes_of(element))


def loop(
    b: ir.IRBuilder,
    start: Index,
    end: Index,
    step: int,
    body: Callable[[Index, list[ir.Value]], Sequence[ir.Value] | None],
    carried: Sequence[ir.Value] = (),
) -> list[ir.Value]:
    """Emits `for i in range(start, end, step)`; the body takes i and the carried values and returns the next ones.

    With Python numbers, a loop of one round is emitted without a loop, and one of none not at all.
    """
    if isinstance(start, int) and isinstance(end, int) and end - start <= step:
        return list(body(start, list(carried)) or ()) if start < end else list(carried)
    before, function = b.block, b.function
    head, inside, after = (function.append_basic_block(name) for name in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    values = [b.phi(value.type) for value in carried]
    i.add_incoming(index(start), before)
    for phi, value in zip(values, carried, strict=True):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", i, index(end)), inside, after)
    b.position_at_end(inside)
    following = body(i, list(values)) or ()
    i.add_incoming(b.add(i, index(step)), b.block)
    for phi, value in zip(values, following, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(after)
    return list(values)


def minimum(b: ir.IRBuilder, left: Index, right: Index) -> Index:
    """The smaller of two signed numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    left, right = index(left), index(right)
    return b.select(b.icmp_signed("<", left, right), left, right)


def mask_of(lanes: int, count: int) -> ir.Constant:
    """The mask whose first `count` lanes are set."""
    return ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(lane < count) for lane in range(lanes)])


def suffix(type: ir.VectorType) -> str:
    """How LLVM names a vector type in an intrinsic's name."""
    return f"v{type.count}f{8 * bytes_of(type.element)}"


def intrinsic(b: ir.IRBuilder, name: str, signature: ir.FunctionType) -> ir.Function:
    """An LLVM intrinsic, declared once in the module."""
    return b.module.globals.get(name) or ir.Function(b.module, signature, name)


def masked_load(b: ir.IRBuilder, pointer: ir.Value, type: ir.VectorType, count: int) -> ir.Value:
    """The first `count` lanes from memory, and zeros; reads nothing behind them."""
    if count == type.count:
        return load(b, pointer, type)
    mask = mask_of(type.count, count)
    alignment = ir.Constant(I32, bytes_of(type.element))
    signature = ir.FunctionType(type, [ir.PointerType(), I32, mask.type, type])
    function = intrinsic(b, f"llvm.masked.load.{suffix(type)}.p0", signature)
    return b.call(function, [pointer, alignment, mask, instructions.constant(type, 0)])


def shuffle(b: ir.IRBuilder, left: ir.Value, right: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """Lanes picked out of two vectors laid end to end."""
    return b.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def broadcast(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """A scalar in all lanes."""
    vector = ir.VectorType(scalar.type, lanes)
    empty = instructions.undefined(vector)
    first = b.insert_element(empty, scalar, ir.Constant(I32, 0))
    return b.shuffle_vector(first, empty, instructions.constant(ir.VectorType(I32, lanes), 0))


def powers_of_two(count: int, largest: int) -> list[int]:
    """Sizes that add up to count, the largest first: 14 = 8 + 4 + 2."""
    sizes = []
    while count:
        while largest > count:
            largest //= 2
        sizes.append(largest)
        count -= largest
    return sizes


def copy(b: ir.IRBuilder, source: ir.Value, target: ir.Value, count: int, element: ir.Type, lanes: int) -> None:
    """Copies a few neighbouring elements, unrolled."""
    offset, read = 0, []
    for size in powers_of_two(count, lanes):
        type = ir.VectorType(element, size) if size > 1 else element
        read.append((load(b, at(b, source, offset, element), type), offset))
        offset += size
    for value, offset in read:
        store(b, value, at(b, target, offset, element))


def copy_row(b: ir.IRBuilder, source: ir.Value, target: ir.Value, count: Index, element: ir.Type, lanes: int) -> None:
    """Copies neighbouring elements, in a loop."""
    whole = count - count % lanes if isinstance(count, int) else b.and_(count, index(-lanes))

    def move(type: ir.Type) -> Callable[[Index, list[ir.Value]], None]:
        def body(i: Index, _: list[ir.Value]) -> None:
            store(b, load(b, at(b, source, i, element), type), at(b, target, i, element))

        return body

    loop(b, 0, whole, lanes, move(ir.VectorType(element, lanes)))
    loop(b, whole, count, 1, move(element))


def transpose_panel(
    b: ir.IRBuilder,
    source: ir.Value,
    source_stride: int,
    rows: int,
    count: Index,
    target: ir.Value,
    target_stride: int,
    vector: ir.VectorType,
) -> None:
    """Writes the transpose of `rows` <= lanes rows of `count` elements: element (row, k) goes to k * stride + row.

    Lanes behind `rows` are written as zeros. Nothing is read behind an end of a row.
    """
    element, lanes = vector.element, vector.count
    chunk = min(lanes, 16 // bytes_of(element))

    def block(width: int) -> Callable[[Index, list[ir.Value]], None]:
        def body(k: Index, _: list[ir.Value]) -> None:
            for first in range(0, width, chunk):
                column = at(b, source, add(b, k, first), element)
                for i, whole in enumerate(_transposed(b, column, source_stride, rows, vector, chunk)):
                    store(b, whole, at(b, target, multiply(b, add(b, k, first + i), target_stride), element))

        return body

    def single(k: Index, _: list[ir.Value]) -> None:
        store(
            b,
            gathered(b, at(b, source, k, element), source_stride, rows, vector),
            at(b, target, multiply(b, k, target_stride), element),
        )

    # A whole cache line of every row at a time: rows a power of two apart would push each other out of the cache.
    done: Index = 0
    for width in sorted({LINE // bytes_of(element), chunk}, reverse=True):
        if isinstance(count, int):
            end: Index = count - count % width
        else:
            end = b.and_(count, index(-width))
        loop(b, done, end, width, block(width))
        done = end
    loop(b, done, count, 1, single)


def gathered(b: ir.IRBuilder, source: ir.Value, stride: int, count: int, vector: ir.VectorType) -> ir.Value:
    """A vector of elements that lie `stride` apart; zeros behind the first `count`."""
    value: ir.Value = instructions.constant(vector, 0)
    for lane in range(count):
        scalar = load(b, at(b, source, lane * stride, vector.element), vector.element)
        value = b.insert_element(value, scalar, ir.Constant(I32, lane))
    return value


def _transposed(
    b: ir.IRBuilder, source: ir.Value, stride: int, rows: int, vector: ir.VectorType, chunk: int
) -> list[ir.Value]:
    """`chunk` columns of a block of rows, each as a vector.

    16 bytes of every row are read; rows r, r + chunk, r + 2 * chunk, … are laid end to end, so that what remains
    is to transpose small blocks within 16 bytes, which processors shuffle fastest.
    """
    element, lanes = vector.element, vector.count
    piece = ir.VectorType(element, chunk)
    zeros = instructions.constant(piece, 0)
    read = [load(b, at(b, source, r * stride, element), piece) if r < rows else zeros for r in range(lanes)]
    if chunk == 1:
        return [shuffle(b, read[0], read[0], [0])]
    vectors = []
    for first in range(chunk):
        parts = read[first::chunk]
        while len(parts) > 1:
            width = parts[0].type.count
            parts = [shuffle(b, parts[i], parts[i + 1], range(2 * width)) for i in range(0, len(parts), 2)]
        vectors.append(parts[0])
    pairs = [_interleaved(b, vectors[i], vectors[i + 1], 1, chunk) for i in range(0, chunk, 2)]
    if chunk == 2:
        return list(pairs[0])
    (first, second), (third, fourth) = pairs
    return [*_interleaved(b, first, third, 2, chunk), *_interleaved(b, second, fourth, 2, chunk)]


def _interleaved(b: ir.IRBuilder, left: ir.Value, right: ir.Value, width: int, chunk: int) -> tuple[ir.Value, ir.Value]:
    """Within each chunk of lanes, the first halves of two vectors by turns, `width` lanes at a time; and the second."""
    lanes, half = left.type.count, chunk // 2

    def lanes_from(start: int) -> list[int]:
        return [
            side + group + start + first + lane
            for group in range(0, lanes, chunk)
            for first in range(0, half, width)
            for side in (0, lanes)
            for lane in range(width)
        ]

    return shuffle(b, left, right, lanes_from(0)), shuffle(b, left, right, lanes_from(half))
