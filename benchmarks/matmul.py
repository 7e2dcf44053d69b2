"""`python -m benchmarks.matmul`: emitted matrix products against NumPy's BLAS, one thread each, in GFLOP/s.

Every product of a training step of a few networks: forward, dA = dZ @ W.T and dW = A.T @ dZ; whole, and the share that
one of two threads takes of it, by rows and by columns. NumPy computes the same share.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from threadpoolctl import threadpool_limits

from stepgrad.execute.cpu.blocking import Product, Split, best_split, choose, scratch_bytes, unit
from stepgrad.execute.cpu.matmul import Epilogue, emit_product
from stepgrad.execute.cpu.native import compile_module
from stepgrad.execute.cpu.packing import intrinsic, store, suffix
from stepgrad.execute.cpu.target import Target, bytes_of, host

FORWARD = [(128, 784, 512), (128, 512, 256), (128, 256, 10), (64, 64, 128), (64, 128, 64), (64, 64, 10), (32, 64, 64)]
FORWARD += [(256, 1024, 2048), (256, 2048, 2048), (256, 2048, 1024), (4, 2, 8), (4, 8, 2), (1, 512, 512), (256, 64, 1)]
POINTER, I64 = ir.PointerType(), ir.IntType(64)


def storing(product: Product, c: ir.Value) -> Epilogue:
    """The epilogue that stores every vector to a contiguous output."""

    def epilogue(b: ir.IRBuilder, row: ir.Value, column: ir.Value, vector: ir.Value, mask: ir.Value | None) -> None:
        place = b.add(b.mul(row, I64(product.columns)), column)
        pointer = b.gep(c, [place], source_etype=product.element)
        if mask is None:
            store(b, vector, pointer)
            return
        signature = ir.FunctionType(ir.VoidType(), [vector.type, POINTER, ir.IntType(32), mask.type])
        masked = intrinsic(b, f"llvm.masked.store.{suffix(vector.type)}.p0", signature)
        b.call(masked, [vector, pointer, ir.IntType(32)(bytes_of(product.element)), mask])

    return epilogue


def compiled(product: Product, split: Split, threads: int, target: Target) -> tuple[Callable[..., None], int, float]:
    """The native function, the unit of its shares, and the seconds that LLVM took."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * 4 + [I64] * 2), "product")
    b = ir.IRBuilder(function.append_basic_block())
    a, right, c, scratch, low, high = function.args
    blocking = choose(product, target, split, threads)
    emit_product(b, product, blocking, a, right, scratch, low, high, storing(product, c), False)
    b.ret_void()
    start = time.perf_counter()
    native = compile_module(module, ["product"], target)
    seconds = time.perf_counter() - start
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)(native.addresses["product"])
    panels = np.zeros(scratch_bytes(product, blocking) + 64, np.uint8)
    aligned = panels.ctypes.data + -panels.ctypes.data % 64

    def call(x: np.ndarray, y: np.ndarray, z: np.ndarray, low: int, high: int) -> Callable[[], None]:
        arguments = x.ctypes.data, y.ctypes.data, z.ctypes.data, aligned, low, high
        keep = native, panels, x, y, z
        return lambda: run(*arguments) if keep else None

    return call, unit(product, blocking, split), seconds


def measure(runs: list[Callable[[], object]], rounds: int = 25, seconds: float = 0.001) -> list[float]:
    """Median seconds of each, measured in turn."""
    counts = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        counts.append(max(1, int(seconds / (time.perf_counter() - start))))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, count, found in zip(runs, counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                run()
            found.append((time.perf_counter() - start) / count)
    return [statistics.median(found) for found in times]


def compare(product: Product, split: Split, threads: int, target: Target) -> tuple[float, float, float]:
    """GFLOP/s of ours and of BLAS for the first thread's share, and the seconds of compiling."""
    rng = np.random.default_rng(0)
    m, k, n = product.rows, product.inner, product.columns
    x = rng.standard_normal((k, m) if product.a_transposed else (m, k)).astype(product.dtype)
    y = rng.standard_normal((n, k) if product.b_transposed else (k, n)).astype(product.dtype)
    z = np.zeros((m, n), product.dtype)
    call, size, seconds = compiled(product, split, threads, target)
    total = m if split == "rows" else n
    high = min(total, -(-total // size // threads) * size) if threads > 1 else total
    left, right = x.T if product.a_transposed else x, y.T if product.b_transposed else y
    if split == "rows":
        left, m = left[:high], high
    else:
        right, n = right[:, :high], high
    out = np.empty((m, n), product.dtype)
    ours, blas = measure([call(x, y, z, 0, high), lambda: np.matmul(left, right, out=out)])
    return 2e-9 * m * k * n / ours, 2e-9 * m * k * n / blas, seconds


def main(dtype: str = "float32") -> None:
    """Prints the table."""
    target = host()
    threadpool_limits(1)
    print(f"{target.cpu}, {dtype}, GFLOP/s of one thread: ours / BLAS (ratio)\n")
    print("| product | shape | whole | half the rows | half the columns | compiling, ms | better for two threads |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in ("forward", "dA", "dW"):
        for m, k, n in FORWARD:
            if kind == "forward":
                product = Product(m, k, n, dtype, False, k, False, n)
            elif kind == "dA":
                product = Product(m, n, k, dtype, False, n, True, n)
            else:
                product = Product(k, m, n, dtype, True, k, False, n)
            cells, longest = [], 0.0
            for split, threads in (("rows", 1), ("rows", 2), ("columns", 2)):
                ours, blas, seconds = compare(product, split, threads, target)
                cells.append(f"{ours:.3g} / {blas:.3g} ({ours / blas:.2f})")
                longest = max(longest, seconds)
            shape = f"{product.rows}×{product.inner}×{product.columns}"
            print(f"| {kind} | {shape} | {' | '.join(cells)} | {longest * 1e3:.0f} |", end="")
            print(f" {best_split(product, target, 2)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
