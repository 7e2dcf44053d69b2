"""The kernels of this process: each distinct one is emitted, compiled and loaded once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from llvmlite import ir

from stepgrad.execute.cpu import cache, columns, native, products, rows, specials
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

Wanted = tuple[Body, Split]
"""A kernel, and how it is shared out."""
_known: dict[tuple[Wanted, Target, int], int] = {}
_lock = threading.Lock()


def emit(wanted: Wanted, target: Target, threads: int) -> ir.Module:
    """The IR of a kernel, as a module with one public function, named by `name_of`."""
    module = native.new_module(target)
    body, split = wanted
    name = name_of(wanted, target, threads)
    if body.kind == "product":
        products.emit(module, name, body, split, target, threads)
    else:
        emitters = {"rows": rows.emit_rows, "columns": columns.emit_columns}
        emitters.get(body.kind, specials.emit_special)(module, name, body, split, target)
    return module


def name_of(wanted: Wanted, target: Target, threads: int) -> str:
    """The name of a kernel's function and file."""
    return "kernel_" + cache.key(f"{wanted!r} for {threads}", target)


def addresses(kernels: Iterable[Wanted], target: Target, threads: int) -> dict[Wanted, int]:
    """Machine code for kernels: from this process, from disk, or made now.

    Args:
        kernels: what is wanted.
        target: the processor.
        threads: how many will share the work; blocks are cut so that they can be dealt out evenly.

    Returns:
        The address of each kernel's function.
    """
    kernels = list(dict.fromkeys(kernels))
    with _lock:
        missing = [k for k in kernels if (k, target, threads) not in _known]
        if missing:
            names = [name_of(k, target, threads) for k in missing]
            found = {name: cache.find(name) for name in names}
            fresh = [(k, name) for k, name in zip(missing, names, strict=True) if found[name] is None]
            if fresh:
                found.update(_compile(fresh, target, threads))
            loaded = native.load([code for code in found.values() if code is not None], names, target)
            for k, name in zip(missing, names, strict=True):
                _known[k, target, threads] = loaded[name]
        return {k: _known[k, target, threads] for k in kernels}


def _compile(fresh: list[tuple[Wanted, str]], target: Target, threads: int) -> dict[str, bytes]:
    """Emits kernels one after the other, while LLVM works on those before in a thread of its own.

    One thread, because llvmlite lets no two threads into LLVM at once.
    """
    machine, interval = target.machine(), sys.getswitchinterval()
    with ThreadPoolExecutor(max_workers=1) as pool:
        sys.setswitchinterval(_SOON)
        try:
            made = {
                name: pool.submit(native.assemble, str(emit(k, target, threads)), target, machine) for k, name in fresh
            }
            code = {name: future.result() for name, future in made.items()}
        finally:
            sys.setswitchinterval(interval)
    for name, content in code.items():
        cache.keep(name, content)
    cache.tidy()
    return code


_SOON = 1e-4
"""Seconds after which a thread that returns from LLVM gets to run Python, to call the next function of LLVM.

It calls many short ones; with Python's own 5 ms it would wait most of the time while kernels are emitted.
"""
