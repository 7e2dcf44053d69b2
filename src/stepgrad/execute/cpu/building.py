"""Small pieces of LLVM IR that the runtime is built from: words of memory, loops, calls through addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

I1, I32, I64, F32, F64 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
PTR, VOID = ir.PointerType(), ir.VoidType()
NULL = ir.Constant(PTR, None)


def number(value: int) -> ir.Constant:
    """An int64."""
    return ir.Constant(I64, value)


def function(module: ir.Module, name: str, result: ir.Type, *arguments: ir.Type) -> tuple[ir.Function, ir.IRBuilder]:
    """A new function, and the builder of its body."""
    made = ir.Function(module, ir.FunctionType(result, arguments), name)
    return made, ir.IRBuilder(made.append_basic_block())


def word(builder: ir.IRBuilder, base: ir.Value, index: ir.Value | int) -> ir.Value:
    """The address of an 8-byte word, counted from a base."""
    index = number(index) if isinstance(index, int) else index
    return builder.gep(base, [index], source_etype=I64)


def field(builder: ir.IRBuilder, base: ir.Value, offset: int, type: ir.Type = I64) -> ir.Value:
    """The value at an offset in bytes."""
    return builder.load(builder.gep(base, [number(offset)], source_etype=ir.IntType(8)), typ=type)


def load(builder: ir.IRBuilder, base: ir.Value, index: ir.Value | int, type: ir.Type = I64) -> ir.Value:
    """The word at an index, as a number or an address."""
    return builder.load(word(builder, base, index), typ=type)


def store(builder: ir.IRBuilder, value: ir.Value, base: ir.Value, index: ir.Value | int) -> None:
    """Writes the word at an index."""
    builder.store(value, word(builder, base, index))


def acquire(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Reads a word that another thread writes, and sees what that thread wrote before it."""
    return builder.load_atomic(address, "acquire", 8, typ=I64)


def release(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    """Writes a word that another thread reads, after everything this thread wrote before."""
    # `IRBuilder.store_atomic` asks for the type that a pointer points to, which opaque pointers don't have
    builder._insert(ir.instructions.StoreAtomicInstr(builder.block, value, address, "release", 8))


def claim(builder: ir.IRBuilder, address: ir.Value, old: int, new: ir.Value) -> ir.Value:
    """Changes a word from `old` to `new` if it holds `old`; whether it did."""
    return builder.extract_value(builder.cmpxchg(address, number(old), new, "acq_rel", "acquire"), 1)


def call(builder: ir.IRBuilder, address: ir.Value, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Calls the C function at an address, which is an int64."""
    type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(builder.inttoptr(address, type.as_pointer()), arguments)


@contextmanager
def counting(builder: ir.IRBuilder, count: ir.Value) -> Iterator[tuple[ir.Value, ir.Block]]:
    """A loop: yields the index, 0 to count - 1, and the block to branch to for leaving early."""
    head, body, done = (builder.append_basic_block() for _ in range(3))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(number(0), before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, done)
    builder.position_at_end(body)
    yield index, done
    index.add_incoming(builder.add(index, number(1)), builder.block)
    builder.branch(head)
    builder.position_at_end(done)
