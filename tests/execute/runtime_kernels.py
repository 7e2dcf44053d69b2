"""Tiny kernels and programs for the tests of the runtime; subprocesses import them, too."""

import functools

import numpy as np
from llvmlite import ir

from stepgrad.execute.cpu.building import I64, PTR, VOID, counting, function, load, number, store, word
from stepgrad.execute.cpu.loaded import Loaded
from stepgrad.execute.cpu.native import compile_module
from stepgrad.execute.cpu.target import host
from stepgrad.execute.cpu.words import Flag

LENGTH = 24


def _arguments(builder, kernel, operands):
    slots, ids, thread, threads = kernel.args
    return [load(builder, slots, load(builder, ids, k), PTR) for k in range(operands)], thread, threads


def _share(builder, thread, threads):
    low = builder.sdiv(builder.mul(thread, number(LENGTH)), threads)
    high = builder.sdiv(builder.mul(builder.add(thread, number(1)), number(LENGTH)), threads)
    return low, builder.sub(high, low)


@functools.cache
def addresses():
    """`bump(a)`: a += 1; `shift(a, b)`: b[i] = a[i + 1] + 1, cyclically; `single(a)`: a[0] += 1, a[1] += threads;
    `double(a, b)`: b = 2 * a. All on int64 of `LENGTH`, each thread its own share."""
    module = ir.Module()
    for name in ("bump", "shift", "double"):
        kernel, builder = function(module, name, VOID, PTR, PTR, I64, I64)
        operands, thread, threads = _arguments(builder, kernel, 1 if name == "bump" else 2)
        low, count = _share(builder, thread, threads)
        with counting(builder, count) as (step, _):
            i = builder.add(low, step)
            if name == "shift":
                i = builder.srem(builder.add(i, number(1)), number(LENGTH))
            value = load(builder, operands[0], i)
            value = builder.shl(value, number(1)) if name == "double" else builder.add(value, number(1))
            store(builder, value, operands[-1], builder.add(low, step))
        builder.ret_void()
    kernel, builder = function(module, "single", VOID, PTR, PTR, I64, I64)
    (a,), thread, threads = _arguments(builder, kernel, 1)
    for index, more in ((0, number(1)), (1, threads)):
        builder.store(builder.add(load(builder, a, index), more), word(builder, a, index))
    builder.ret_void()
    return compile_module(module, ["bump", "shift", "double", "single"], host()).addresses


def program(rows, buffers, threads=1, **settings):
    """A program of rows (kernel, flags, *slots) on arrays, which get the slots 1, 2, ..."""
    table, operands = [], []
    for kernel, flags, *slots in rows:
        address = 0 if flags & Flag.FALLBACK else addresses()[kernel]
        table.append((address, flags, len(operands), len(slots)))
        operands += slots
    made = Loaded(table, operands, len(buffers) + 1, threads=threads, keep=buffers, **settings)
    for i, buffer in enumerate(buffers):
        made.set_slot(i + 1, buffer.ctypes.data)
    return made


def zeros():
    return np.zeros(LENGTH, np.int64)


def shifting(threads, rounds=50):
    """A program in which every thread reads in each row what others wrote in the row before, and its buffers.

    After a run all numbers are 2 * rounds more.
    """
    a, b = zeros(), zeros()
    rows = [("shift", Flag.BARRIER, 1, 2), ("shift", Flag.BARRIER, 2, 1)] * rounds
    return program(rows, [a, b], threads), a
