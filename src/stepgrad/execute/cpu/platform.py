"""What differs between operating systems and processors for the native runtime: the one place that knows."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

CACHE_LINE = 128
"""Bytes between words that different threads write: a cache line, or the pair that is fetched together."""


def cpus() -> int:
    """How many processors this process may use: its affinity, and a container's quota if that is less."""
    if hasattr(os, "process_cpu_count"):
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota()))


def _quota() -> int:
    """Processors that a Linux container is given, rounded up; a large number without one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no control groups, or "max"
        return sys.maxsize


def aligned(nbytes: int, alignment: int = 64) -> Bytes:
    """New memory whose address is a multiple of the alignment, not filled.

    Args:
        nbytes: its size.
        alignment: a power of two: 64 for a vector register and a cache line, 4096 for a page.
    """
    memory = np.empty(nbytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + nbytes]


def resident(memory: Bytes) -> int | None:
    """How many bytes of memory the operating system has really given, in whole pages; None where it can't be asked."""
    page = mmap.PAGESIZE
    start = memory.ctypes.data // page * page
    pages = -(-(memory.ctypes.data + memory.nbytes - start) // page)
    found = np.zeros(pages, np.uint8)
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        arguments = ctypes.c_void_p(start), ctypes.c_size_t(pages * page), ctypes.c_void_p(found.ctypes.data)
        if mincore(*arguments):
            return None
    except (OSError, AttributeError, TypeError):
        return None
    return int((found & 1).sum()) * page


@functools.cache
def yield_address() -> int:
    """The address of a C function without arguments that lets other threads run, or 0."""
    try:
        if sys.platform == "win32":
            return address_of(ctypes.WinDLL("kernel32").SwitchToThread)
        return address_of(ctypes.CDLL(None).sched_yield)
    except (OSError, AttributeError, TypeError):
        return 0


@functools.cache
def python_addresses(*names: str) -> tuple[int, ...] | None:
    """The addresses of functions that the interpreter exports, or None where it does not export all of them."""
    try:
        return tuple(address_of(getattr(ctypes.pythonapi, name)) for name in names)
    except AttributeError:
        return None


def library_addresses(names: Sequence[str]) -> dict[str, int]:
    """The addresses of functions of the C library, of those that it has."""
    found: dict[str, int] = {}
    for library in _C_LIBRARIES.get(sys.platform, (None,)):
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            continue
        for name in names:
            if name not in found and hasattr(loaded, name):
                found[name] = address_of(getattr(loaded, name))
    return found


_C_LIBRARIES: dict[str, tuple[str | None, ...]] = {
    "win32": ("ucrtbase",),
    "linux": ("libm.so.6", "libm.so", None),
}


def address_of(function: Any) -> int:
    """The address of a ctypes function."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def emit_pause(builder: ir.IRBuilder, triple: str) -> None:
    """Emits the instruction that a waiting loop should hold: it saves power and the other hyper-thread's time."""
    if triple.startswith("x86_64"):
        _intrinsic(builder, "llvm.x86.sse2.pause", ir.VoidType())
    elif triple.startswith(("aarch64", "arm64")):  # `yield` takes one cycle on most of them, `isb` about fifty
        _intrinsic(builder, "llvm.aarch64.isb", ir.VoidType(), ir.Constant(ir.IntType(32), 15))
    else:
        builder.fence("seq_cst")


def emit_flush(builder: ir.IRBuilder, triple: str) -> ir.Value | None:
    """Emits the switch to a mode in which denormal numbers count as 0; returns what `emit_restore` takes.

    None where the processor has no such mode that we know of: then they are computed with.
    """
    word = ir.IntType(32)
    if triple.startswith("x86_64"):  # MXCSR: flush to zero (bit 15), denormals are zero (bit 6)
        saved, changed = builder.alloca(word), builder.alloca(word)
        _with_pointer(builder, "llvm.x86.sse.stmxcsr", saved)
        builder.store(builder.or_(builder.load(saved, typ=word), ir.Constant(word, 0x8040)), changed)
        _with_pointer(builder, "llvm.x86.sse.ldmxcsr", changed)
        return saved
    if triple.startswith(("aarch64", "arm64")):  # FPCR: FZ (bit 24)
        wide = ir.IntType(64)
        before = _intrinsic(builder, "llvm.aarch64.get.fpcr", wide)
        flushed = builder.or_(before, ir.Constant(wide, 1 << 24))
        _intrinsic(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), flushed)
        return before
    return None


def emit_restore(builder: ir.IRBuilder, triple: str, saved: ir.Value | None) -> None:
    """Emits the way back to how `emit_flush` found the thread."""
    if saved is None:
        return
    if triple.startswith("x86_64"):
        _with_pointer(builder, "llvm.x86.sse.ldmxcsr", saved)
    else:
        _intrinsic(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), saved)


def _with_pointer(builder: ir.IRBuilder, name: str, pointer: ir.Value) -> None:
    _intrinsic(builder, name, ir.VoidType(), pointer)


def emit_ticks(builder: ir.IRBuilder, triple: str) -> ir.Value:
    """Emits the reading of a fast clock, an int64 that counts in a constant unit; 0 where none is known."""
    if triple.startswith("x86_64"):
        return _intrinsic(builder, "llvm.readcyclecounter", ir.IntType(64))
    if triple.startswith(("aarch64", "arm64")):
        name = builder.module.add_metadata(["cntvct_el0"])  # the cycle counter is not for users' programs there
        return _intrinsic(builder, "llvm.read_volatile_register.i64", ir.IntType(64), name)
    return ir.Constant(ir.IntType(64), 0)


def _intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(builder.module.declare_intrinsic(name, (), type), arguments)
