"""What all kernels have in common: where operands are, which part a thread computes, and nodes becoming values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir

from stepgrad.execute.cpu import instructions, points
from stepgrad.execute.cpu.instructions import declared, suffix
from stepgrad.execute.cpu.packing import I32, I64, add, index, multiply
from stepgrad.execute.cpu.points import I1, I8, TYPES, lanes_of
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

POINTER = ir.PointerType()
KERNEL = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64])
"""void kernel(slots, ids, thread, threads): operand k is at slots[ids[k]]; slots[0] is the thread's scratch memory."""


def share(b: ir.IRBuilder, split: Split, thread: ir.Value, threads: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The first thing that a thread computes, and the first that it doesn't."""
    blocks = -(-split.length // split.unit)

    def bound(number: ir.Value) -> ir.Value:
        block = b.sdiv(b.mul(number, index(blocks)), threads)
        end = b.mul(block, index(split.unit))
        end = b.select(b.icmp_signed("<", end, index(split.length)), end, index(split.length))
        return b.mul(end, index(split.scale)) if split.scale != 1 else end

    return bound(thread), bound(b.add(thread, index(1)))


@dataclass
class Frame:
    """A kernel being emitted.

    Attributes:
        body: what it computes.
        b: the builder.
        operands: the address of each operand.
        scratch: the thread's own memory.
        low, high: the thread's share.
    """

    body: Body
    b: ir.IRBuilder
    operands: list[ir.Value]
    scratch: ir.Value
    low: ir.Value
    high: ir.Value
    fixed: dict[int, ir.Value] = field(default_factory=dict)
    levels: list[int] = field(default_factory=list)


def begin(module: ir.Module, name: str, body: Body, split: Split) -> Frame:
    """Starts a kernel's function; loads what does not change during it."""
    function = ir.Function(module, KERNEL, name)
    slots, ids, thread, threads = function.args
    for pointer in (slots, ids):
        pointer.add_attribute("noalias")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    addresses = []
    for k in range(len(body.dtypes)):
        number = b.load(b.gep(ids, [index(k)], source_etype=I64), typ=I64)
        addresses.append(b.load(b.gep(slots, [number], source_etype=POINTER), typ=POINTER))
    scratch = b.load(slots, typ=POINTER)
    if split.length:
        low, high = share(b, split, thread, threads)
    else:
        low = high = index(0)
    frame = Frame(body, b, addresses, scratch, low, high)
    frame.levels = levels_of(body)
    for i, level in enumerate(frame.levels):
        if level == FIXED:
            frame.fixed[i] = emit_node(frame, i, frame.fixed, [], 0)
    return frame


FIXED, ROW, FULL, DEEP = range(4)
"""What a node depends on: nothing; the row; the element along the inner axis; also the reduced axis of a column."""


def levels_of(body: Body) -> list[int]:
    """The level of each node (see FIXED)."""
    levels: list[int] = []
    outer = len(body.outer)
    for op, _, arguments, params in body.nodes:
        level = FIXED
        if op == "load":
            level = _level_of_steps(params[2], outer, body.kind)
        elif op == "pick":
            level = max(_level_of_steps(params[2], outer, body.kind), *(levels[i] for i in arguments))
        elif op == "index":
            steps = [0] * (outer + (2 if body.kind != "rows" else 1))
            if params[1] >= 0:
                steps[params[1]] = 1
            level = _level_of_steps(tuple(steps), outer, body.kind)
        elif op == "product":
            level = FULL
        elif op == "reduce":
            level = FULL if body.kind == "columns" else ROW
        elif arguments:
            level = max(levels[i] for i in arguments)
        levels.append(level)
    return levels


def _level_of_steps(steps: tuple[int, ...], outer: int, kind: str) -> int:
    if kind == "columns" and steps[outer]:
        return DEEP
    if steps[-1]:
        return FULL
    if any(steps[:outer]) or (kind == "product" and steps[outer]):
        return ROW
    return FIXED


def emit_node(
    frame: Frame,
    number: int,
    values: dict[int, ir.Value],
    point: Sequence[Any],
    lanes: int,
    mask: ir.Constant | None = None,
) -> ir.Value:
    """The value of one node at a point, given those of its arguments.

    Args:
        point: the number along each axis, i64 values or Python numbers; empty for fixed nodes.
        lanes: of the result; 0 for a scalar.
        mask: the lanes that exist.
    """
    b = frame.b
    op, dtype, arguments, params = frame.body.nodes[number]
    if op == "const":
        return points.constant(dtype, params[0], lanes)
    if op == "load":
        operand, offset, steps = params
        return load(b, frame.operands[operand], dtype, address(b, offset, steps, point), steps[-1], lanes, mask)
    if op == "index":
        start, axis, step = params
        if axis < 0:
            return points.constant("int64", start, lanes)
        first = index(add(b, multiply(b, point[axis], step), start))
        if not lanes:
            return first
        ramp = ir.Constant(ir.VectorType(I64, lanes), [lane * step for lane in range(lanes)])
        return b.add(points.splat(b, first, lanes), ramp)
    found = [values[i] for i in arguments]
    if op == "pick":
        return _pick(frame, number, found, point, lanes, mask)
    if lanes:
        found = [points.splat(b, x, lanes) for x in found]
    if op == "cast":
        return points.cast(b, found[0], dtype, unsigned=bool(params))
    return points.emit(b, op, found, dict(params))


def _pick(
    frame: Frame, number: int, numbers: list[ir.Value], point: Sequence[Any], lanes: int, mask: ir.Constant | None
) -> ir.Value:
    """An element whose place is computed. A number out of range reads the first element: a check says so before."""
    b = frame.b
    _, dtype, _, (operand, offset, steps, strides) = frame.body.nodes[number]

    def further(numbers: list[ir.Value]) -> ir.Value:
        where = index(address(b, offset, steps, point))
        for n, (stride, length) in zip(numbers, strides, strict=True):
            n = b.select(b.icmp_signed("<", n, index(0)), b.add(n, index(length)), n)
            n = b.select(b.icmp_unsigned("<", n, index(length)), n, index(0))
            where = b.add(where, b.mul(n, index(stride)))
        return where

    if not any(lanes_of(n) for n in numbers):
        return load(b, frame.operands[operand], dtype, further(numbers), steps[-1], lanes, mask)
    found: ir.Value = instructions.constant(ir.VectorType(TYPES[dtype], lanes), 0)
    for lane in range(present(lanes, mask)):
        own = [b.extract_element(n, ir.Constant(I32, lane)) if lanes_of(n) else n for n in numbers]
        where = b.add(further(own), index(lane * steps[-1])) if steps[-1] else further(own)
        value = load(b, frame.operands[operand], dtype, where, 0, 0, None)
        found = b.insert_element(found, value, ir.Constant(I32, lane))
    return found


def address(b: ir.IRBuilder, offset: int, steps: Sequence[int], point: Sequence[Any]) -> Any:
    """offset + steps · point, in elements."""
    found: Any = offset
    for step, number in zip(steps, point, strict=True) if point else ():
        if step:
            found = add(b, found, multiply(b, number, step))
    return found


def load(
    b: ir.IRBuilder, base: ir.Value, dtype: str, where: Any, step: int, lanes: int, mask: ir.Constant | None
) -> ir.Value:
    """Elements of an operand: one, repeated; neighbouring ones; or some further apart."""
    memory = I8 if dtype == "bool" else TYPES[dtype]
    size = 1 if dtype == "bool" else memory_bytes(dtype)
    pointer = b.gep(base, [index(where)], source_etype=memory)
    if not lanes or not step:
        value = b.load(pointer, typ=memory, align=size)
        value = b.trunc(value, I1) if dtype == "bool" else value
        return points.splat(b, value, lanes) if lanes else value
    vector = ir.VectorType(memory, lanes)
    if step == 1 and mask is None:
        value = b.load(pointer, typ=vector, align=size)
    elif step == 1:
        value = _masked_load(b, pointer, vector, mask, size)
    else:
        value = _gather(b, pointer, vector, step, mask, size)
    return b.trunc(value, ir.VectorType(I1, lanes)) if dtype == "bool" else value


def store(
    b: ir.IRBuilder, value: ir.Value, base: ir.Value, dtype: str, where: Any, step: int, mask: ir.Constant | None
) -> None:
    """Puts a scalar or vector into memory."""
    memory = I8 if dtype == "bool" else TYPES[dtype]
    size = 1 if dtype == "bool" else memory_bytes(dtype)
    pointer = b.gep(base, [index(where)], source_etype=memory)
    lanes = lanes_of(value)
    if dtype == "bool":
        value = b.zext(value, ir.VectorType(I8, lanes) if lanes else I8)
    if not lanes or (step == 1 and mask is None):
        b.store(value, pointer, align=size)
    elif step == 1:
        name = f"llvm.masked.store.{suffix(value.type)}.p0"
        arguments = [value, pointer, ir.Constant(I32, size), mask]
        b.call(declared(b, name, ir.VoidType(), [x.type for x in arguments]), arguments)
    else:
        for lane in range(present(lanes, mask)):
            target = b.gep(pointer, [index(lane * step)], source_etype=memory)
            b.store(b.extract_element(value, ir.Constant(I32, lane)), target, align=size)


def memory_bytes(dtype: str) -> int:
    """The size of an element in memory."""
    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


def _masked_load(b: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType, mask: Any, size: int) -> ir.Value:
    name = f"llvm.masked.load.{suffix(vector)}.p0"
    arguments = [pointer, ir.Constant(I32, size), mask, instructions.constant(vector, 0)]
    return b.call(declared(b, name, vector, [x.type for x in arguments]), arguments)


def _gather(b: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType, step: int, mask: Any, size: int) -> ir.Value:
    """Elements that lie apart, one by one; LLVM's gather is no faster on most processors."""
    found: ir.Value = instructions.constant(vector, 0)
    for lane in range(present(vector.count, mask)):
        where = b.gep(pointer, [index(lane * step)], source_etype=vector.element)
        found = b.insert_element(found, b.load(where, typ=vector.element, align=size), ir.Constant(I32, lane))
    return found


def present(lanes: int, mask: ir.Constant | None) -> int:
    """How many lanes a mask leaves: the first ones."""
    return lanes if mask is None else sum(int(lane.constant) for lane in mask.constant)
