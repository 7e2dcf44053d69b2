"""What this machine can do at most, measured once in a process: a profile is read against it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from stepgrad.execute.cpu import native, points
from stepgrad.execute.cpu.frame import KERNEL
from stepgrad.execute.cpu.loaded import Loaded
from stepgrad.execute.cpu.packing import Index, index, loop
from stepgrad.execute.cpu.target import Target, bytes_of

ROUNDS = 20_000
"""Rounds of the loop of multiplications and additions: some 100 µs."""
LARGE = 64_000_000
"""Bytes of each of the three arrays of the memory test: more than caches hold."""


@dataclass(frozen=True)
class Peak:
    """The limits of a machine for so many threads.

    Attributes:
        threads: how many.
        dtype: of the arithmetic.
        flops: floating-point operations in a second, a fused multiply-add counted as two: those of one
            thread, measured, times the threads.
        bandwidth: bytes in a second from and to memory, in a[i] = b[i] + s * c[i] on large arrays.
    """

    threads: int
    dtype: str
    flops: float
    bandwidth: float


@functools.cache
def peak(target: Target, dtype: str, threads: int) -> Peak:
    """Measures the machine: about 0.2 s the first time, nothing afterwards."""
    return Peak(threads, dtype, threads * arithmetic(target, dtype), bandwidth(target, threads))


@functools.cache
def arithmetic(target: Target, dtype: str) -> float:
    """Floating-point operations in a second on one thread: fused multiply-adds in registers."""
    module = native.new_module(target)
    type = points.TYPES[dtype]
    lanes, chains = target.lanes(type), 10 if target.registers <= 16 else 20
    b, _, scratch = _begin(module)
    vector = ir.VectorType(type, lanes)
    multiply_add = module.declare_intrinsic(
        f"llvm.fma.v{lanes}f{8 * bytes_of(type)}", (), ir.FunctionType(vector, [vector] * 3)
    )
    factor, term = (ir.Constant(vector, [value] * lanes) for value in (0.75, 0.5))
    start = [ir.Constant(vector, [float(i)] * lanes) for i in range(chains)]

    def one(_: Index, sums: list[ir.Value]) -> list[ir.Value]:
        return [b.call(multiply_add, [x, factor, term]) for x in sums]

    sums = loop(b, 0, ROUNDS, 1, one, start)
    for i, x in enumerate(sums):
        b.store(x, b.gep(scratch, [index(i * lanes)], source_etype=type), align=bytes_of(type))
    b.ret_void()
    size = chains * target.vector_bytes
    return 2.0 * lanes * chains * ROUNDS / _seconds(module, target, 1, [], size, 100)


@functools.cache
def bandwidth(target: Target, threads: int) -> float:
    """Bytes in a second; what is read to be overwritten is not counted."""
    module = native.new_module(target)
    type = points.TYPES["float32"]
    lanes, count = target.lanes(type), LARGE // 4
    b, (slots, thread, count_of_threads), _ = _begin(module)
    out, one, other = (
        b.load(b.gep(slots, [index(k)], source_etype=ir.PointerType()), typ=ir.PointerType()) for k in (1, 2, 3)
    )
    blocks = index(count // lanes)
    low, high = (
        b.mul(b.sdiv(b.mul(t, blocks), count_of_threads), index(lanes)) for t in (thread, b.add(thread, index(1)))
    )
    vector = ir.VectorType(type, lanes)
    factor = ir.Constant(vector, [3.0] * lanes)

    def move(i: Index, _: list[ir.Value]) -> None:
        x, y = (b.load(b.gep(p, [index(i)], source_etype=type), typ=vector, align=4) for p in (one, other))
        b.store(b.fadd(x, b.fmul(factor, y)), b.gep(out, [index(i)], source_etype=type), align=4)

    loop(b, low, high, lanes, move)
    b.ret_void()
    arrays = [np.ones(count, np.float32) for _ in range(3)]
    return 3.0 * count * 4 / _seconds(module, target, threads, arrays, 64, 10)


def _begin(module: ir.Module) -> tuple[ir.IRBuilder, tuple[ir.Value, ir.Value, ir.Value], ir.Value]:
    """A kernel's builder, its slots, thread and number of threads, and its scratch memory."""
    function = ir.Function(module, KERNEL, "measured")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    slots, _, thread, threads = function.args
    return b, (slots, thread, threads), b.load(slots, typ=ir.PointerType())


def _seconds(
    module: ir.Module, target: Target, threads: int, arrays: list[np.ndarray], scratch: int, repeats: int
) -> float:
    """How long a kernel takes on all threads at once, in the best run."""
    address = native.compile_module(module, ["measured"], target).addresses["measured"]
    loaded = Loaded(
        np.array([[address, 0, 0, 0]], np.int64),
        np.zeros(1, np.int64),
        1 + len(arrays),
        scratch_bytes=scratch,
        threads=threads,
        keep=arrays,
    )
    for slot, array in enumerate(arrays, start=1):
        loaded.set_slot(slot, array.ctypes.data)
    best = np.inf
    for _ in range(repeats):
        times = loaded.profile()
        best = min(best, float(np.nanmax(times) - np.nanmin(times)))
    return best
