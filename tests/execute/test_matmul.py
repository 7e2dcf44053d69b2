"""Emitted matrix products: against float64, on every edge, for every way of cutting them up."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir

from stepgrad.execute.cpu.blocking import Blocking, Product, best_split, choose, scratch_bytes, unit
from stepgrad.execute.cpu.matmul import emit_product
from stepgrad.execute.cpu.native import compile_module
from stepgrad.execute.cpu.packing import intrinsic, masked_load, store, suffix
from stepgrad.execute.cpu.target import Target, host

POINTER, I64 = ir.PointerType(), ir.IntType(64)
NARROW = replace(host(), vector_bytes=16, registers=16)
SHAPES = [(1, 1, 1), (4, 2, 8), (4, 8, 2), (1, 37, 50), (50, 37, 1), (9, 1, 7), (5, 0, 6), (33, 65, 49), (29, 601, 35)]
FLAGS = list(itertools.product((False, True), repeat=2))


def product_of(
    m: int, k: int, n: int, a_transposed: bool = False, b_transposed: bool = False, dtype: str = "float32", pad: int = 0
) -> Product:
    a_stride, b_stride = (m if a_transposed else k) + pad, (k if b_transposed else n) + pad
    return Product(m, k, n, dtype, a_transposed, a_stride, b_transposed, b_stride)  # type: ignore[arg-type]


def operands(product: Product) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(product.rows + 100 * product.inner + 10_000 * product.columns)
    a = rng.standard_normal((product.inner if product.a_transposed else product.rows, product.a_stride))
    b = rng.standard_normal((product.columns if product.b_transposed else product.inner, product.b_stride))
    return a.astype(product.dtype), b.astype(product.dtype)


def expected(product: Product, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left = a[:, : product.rows].T if product.a_transposed else a[:, : product.inner]
    right = b[:, : product.inner].T if product.b_transposed else b[:, : product.columns]
    return left.astype(np.float64) @ right.astype(np.float64)


def native(
    product: Product, blocking: Blocking, target: Target, heavy: bool = False
) -> tuple[Callable[..., None], list[None]]:
    """The product with an epilogue that adds each vector to C, so that a vector handed over twice shows."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * 4 + [I64] * 2), "product")
    a, right, c, scratch, low, high = function.args
    calls: list[None] = []

    def epilogue(b: ir.IRBuilder, row: ir.Value, column: ir.Value, vector: ir.Value, mask: ir.Value | None) -> None:
        calls.append(None)
        place = b.gep(c, [b.add(b.mul(row, I64(product.columns)), column)], source_etype=product.element)
        count = vector.type.count if mask is None else sum(lane.constant for lane in mask.constant)
        total = b.fadd(masked_load(b, place, vector.type, count), vector)
        if mask is None:
            store(b, total, place)
            return
        signature = ir.FunctionType(ir.VoidType(), [vector.type, POINTER, ir.IntType(32), mask.type])
        masked = intrinsic(b, f"llvm.masked.store.{suffix(vector.type)}.p0", signature)
        b.call(masked, [total, place, ir.IntType(32)(product.bytes), mask])

    b = ir.IRBuilder(function.append_basic_block())
    emit_product(b, product, blocking, a, right, scratch, low, high, epilogue, heavy)
    b.ret_void()
    code = compile_module(module, ["product"], target)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 2)(code.addresses["product"])

    def call(a: np.ndarray, b: np.ndarray, c: np.ndarray, scratch: np.ndarray, low: int, high: int) -> None:
        assert code is not None  # the machine code lives as long as this function
        run(a.ctypes.data, b.ctypes.data, c.ctypes.data, scratch.ctypes.data, low, high)

    return call, calls


def shares(product: Product, blocking: Blocking, cuts: Sequence[float]) -> list[tuple[int, int]]:
    """Shares of the output that end at units near these fractions of it."""
    total = product.rows if blocking.split == "rows" else product.columns
    size = unit(product, blocking, blocking.split)
    ends = [min(total, round(cut * total / size) * size) for cut in cuts]
    return list(itertools.pairwise([0, *ends, total]))


GUARD = 64


def computed(
    product: Product, blocking: Blocking, target: Target, *, heavy: bool = False, cuts: Sequence[float] = ()
) -> np.ndarray:
    """The product, share by share; nothing around C and scratch may change, nor the operands."""
    a, b = operands(product)
    a_before, b_before = a.copy(), b.copy()
    size = product.rows * product.columns
    c = np.full(size + 2 * GUARD, 7, product.dtype)
    c[GUARD : GUARD + size] = 0
    scratch = np.full(scratch_bytes(product, blocking) + 2 * GUARD, 0xAB, np.uint8)
    run, _ = native(product, blocking, target, heavy)
    for low, high in shares(product, blocking, cuts):
        run(a, b, c[GUARD:], scratch[GUARD:], low, high)
    assert (c[:GUARD] == 7).all()
    assert (c[GUARD + size :] == 7).all()
    assert (scratch[:GUARD] == 0xAB).all()
    assert (scratch[-GUARD:] == 0xAB).all()
    np.testing.assert_array_equal(a, a_before)
    np.testing.assert_array_equal(b, b_before)
    return c[GUARD : GUARD + size].reshape(product.rows, product.columns)


def assert_close(product: Product, result: np.ndarray) -> None:
    a, b = operands(product)
    bound = expected(product, abs(a), abs(b))
    error = abs(result - expected(product, a, b))
    assert (error <= (product.inner + 1) * np.finfo(product.dtype).eps * bound).all()


@pytest.mark.parametrize("target", [host(), NARROW], ids=["host", "narrow"])
@pytest.mark.parametrize("flags", FLAGS, ids=["AB", "ABt", "AtB", "AtBt"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_float64(shape: tuple[int, int, int], flags: tuple[bool, bool], target: Target) -> None:
    product = product_of(*shape, *flags)
    assert_close(product, computed(product, choose(product, target, "rows"), target))


@pytest.mark.parametrize("flags", FLAGS, ids=["AB", "ABt", "AtB", "AtBt"])
def test_doubles_with_strides(flags: tuple[bool, bool]) -> None:
    product = product_of(30, 301, 21, *flags, dtype="float64", pad=5)
    assert_close(product, computed(product, choose(product, host(), "columns", 2), host(), cuts=[0.4]))


@pytest.mark.parametrize("shape", [(1, 90, 21), (3, 33, 9), (17, 100, 1), (9, 70, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_narrow_outputs_are_dot_products(shape: tuple[int, int, int], dtype: str) -> None:
    product = product_of(*shape, b_transposed=True, dtype=dtype, pad=3)
    usual = computed(product, choose(product, host(), "rows"), host())
    assert_close(product, usual)
    for split, threads, heavy in (("rows", 2, True), ("columns", 3, False)):
        blocking = choose(product, host(), split, threads)  # type: ignore[arg-type]
        assert blocking.inner_lanes
        np.testing.assert_array_equal(computed(product, blocking, host(), heavy=heavy, cuts=[0.3, 0.6]), usual)


@pytest.mark.parametrize("a", ["lies", "chunk", "panel"])
@pytest.mark.parametrize("b", ["lies", "packed", "gathered"])
@pytest.mark.parametrize("flags", FLAGS, ids=["AB", "ABt", "AtB", "AtBt"])
def test_every_way_of_reading_gives_the_same_bits(flags: tuple[bool, bool], a: str, b: str) -> None:
    if (b == "lies" and flags[1]) or (b == "gathered" and not flags[1]):
        pytest.skip("B is gathered where it is transposed, and only there")
    product = product_of(31, 43, 37, *flags)
    usual = computed(product, choose(product, host(), "rows"), host())
    for split in ("rows", "columns"):
        blocking = Blocking(split, 8, 4, 2, 18, 2, 8, a, b)  # type: ignore[arg-type]
        result = computed(product, blocking, host(), heavy=split == "columns", cuts=[0.3, 0.8])
        np.testing.assert_array_equal(result, usual)


@pytest.mark.parametrize("shape", [(67, 300, 90), (64, 64, 10), (40, 17, 256), (1, 300, 200), (130, 40, 1)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    for flags in FLAGS:
        product = product_of(*shape, *flags)
        usual = computed(product, choose(product, host(), "rows"), host())
        for split, threads in (("rows", 3), ("columns", 4)):
            blocking = choose(product, host(), split, threads)  # type: ignore[arg-type]
            cuts = sorted(rng.random(threads - 1))
            np.testing.assert_array_equal(computed(product, blocking, host(), cuts=cuts), usual)


def test_bits_are_those_of_one_chain_of_multiply_adds() -> None:
    product = product_of(3, 300, 5)
    a, b = operands(product)
    sums = np.zeros((3, 5), np.float32)
    for k in range(300):  # float64 holds the product of two float32 exactly
        sums = (np.outer(a[:, k].astype(np.float64), b[k]) + sums).astype(np.float32)
    result = computed(product, choose(product, host(), "rows"), host())
    assert (result == sums).mean() > 0.9  # rounding twice differs now and then


@pytest.mark.parametrize("shape", [(40, 20, 70), (5, 700, 10)], ids=str)
@pytest.mark.parametrize("split", ["rows", "columns"])
def test_heavy_epilogues_stand_in_loops(shape: tuple[int, int, int], split: str) -> None:
    product = product_of(*shape)
    blocking = choose(product, host(), split)  # type: ignore[arg-type]
    _, calls = native(product, blocking, host(), heavy=True)
    assert len(calls) <= 3
    light, heavy = (computed(product, blocking, host(), heavy=heavy) for heavy in (False, True))
    np.testing.assert_array_equal(light, heavy)


def test_infinity_and_nan_come_through_and_stay_in_their_places() -> None:
    for b_transposed in (False, True):
        product = product_of(20, 70, 21, b_transposed=b_transposed)
        blocking = choose(product, host(), "rows")
        run, _ = native(product, blocking, host())
        a, b = operands(product)
        a[3, 5], a[4, 6], a[5, 7] = np.inf, np.nan, np.inf
        right = b.T if b_transposed else b
        right[7, 2] = 0
        c = np.zeros((20, 21), np.float32)
        run(a, b, c, np.zeros(scratch_bytes(product, blocking), np.uint8), 0, 20)
        with np.errstate(invalid="ignore"):
            wanted = a @ right
        np.testing.assert_array_equal(np.isnan(c), np.isnan(wanted))
        np.testing.assert_array_equal(np.isinf(c), np.isinf(wanted))


def test_an_empty_share_does_nothing() -> None:
    product = product_of(20, 30, 40, True, True)
    for split in ("rows", "columns"):
        blocking = replace(choose(product, host(), split), a="chunk")  # type: ignore[arg-type]
        run, _ = native(product, blocking, host())
        nothing = np.zeros(0)  # its address must not be read
        run(nothing, nothing, nothing, nothing, 20, 20)


def test_the_tile_fits_the_registers() -> None:
    targets = [replace(host(), vector_bytes=v, registers=r) for v, r in ((64, 32), (32, 16), (16, 32), (16, 16))]
    for m, k, n in itertools.product((1, 10, 64, 1000), repeat=3):
        for target, dtype, split in itertools.product(targets, ("float32", "float64"), ("rows", "columns")):
            product = product_of(m, k, n, dtype=dtype)
            blocking = choose(product, target, split, 2)  # type: ignore[arg-type]
            assert blocking.tile_rows * blocking.tile_vectors + blocking.tile_vectors + 1 < target.registers
            assert blocking.chunk_rows % blocking.tile_rows == 0
            assert blocking.lanes <= target.lanes(product.element)
            assert scratch_bytes(product, blocking) < 8 << 20


def test_a_column_is_shared_by_rows_and_a_row_by_columns() -> None:
    assert best_split(product_of(512, 64, 8), host(), 2) == "rows"
    assert best_split(product_of(1, 64, 512), host(), 2) == "columns"


GUARDED = """
import ctypes, itertools, mmap, sys
import numpy as np
from test_matmul import FLAGS, SHAPES, choose, host, native, NARROW, operands, product_of, scratch_bytes

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
PAGE = mmap.PAGESIZE
kept = []

def at_the_end_of_memory(values):
    pages = -(-max(1, values.nbytes) // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert libc.mprotect(start + pages * PAGE, PAGE, 0) == 0
    kept.append(memory)
    placed = np.frombuffer(memory, values.dtype, values.size, pages * PAGE - values.nbytes).reshape(values.shape)
    placed[...] = values
    return placed

for shape, flags, target in itertools.product(SHAPES[1:], FLAGS, (host(), NARROW)):
    product = product_of(*shape, *flags)
    for split in ("rows", "columns"):
        blocking = choose(product, target, split)
        run, _ = native(product, blocking, target)
        a, b = map(at_the_end_of_memory, operands(product))
        c = at_the_end_of_memory(np.zeros((product.rows, product.columns), product.dtype))
        scratch = at_the_end_of_memory(np.zeros(scratch_bytes(product, blocking), np.uint8))
        run(a, b, c, scratch, 0, product.rows if split == "rows" else product.columns)
        print(shape, flags, split, flush=True)
print("all")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="protects pages with mprotect")
def test_nothing_is_read_behind_the_arrays() -> None:
    """Each array ends where a page begins that kills the process when it is touched."""
    done = subprocess.run(
        [sys.executable, "-c", GUARDED], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.endswith("all\n"), (done.returncode, done.stdout[-200:], done.stderr[-500:])
