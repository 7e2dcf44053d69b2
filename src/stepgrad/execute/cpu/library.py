"""The kernels of this process: each distinct one is emitted, compiled and loaded once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from llvmlite import ir

from stepgrad.execute.cpu import cache, columns, native, products, rows
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

Wanted = tuple[Body, Split]
_known: dict[tuple[Body, Split, Target], int] = {}
_lock = threading.Lock()


def emit(wanted: Wanted, target: Target) -> ir.Module:
    """The IR of a kernel, as a module with one public function, named by `name_of`."""
    module = native.new_module(target)
    body, split = wanted
    {"rows": rows.emit_rows, "columns": columns.emit_columns, "product": products.emit}[body.kind](
        module, name_of(wanted, target), body, split, target
    )
    return module


def name_of(wanted: Wanted, target: Target) -> str:
    """The name of a kernel's function and file."""
    return "kernel_" + cache.key(repr(wanted), target)


def addresses(kernels: Iterable[Wanted], target: Target) -> dict[Wanted, int]:
    """Machine code for kernels: from this process, from disk, or made now.

    Returns:
        The address of each kernel's function.
    """
    kernels = list(dict.fromkeys(kernels))
    with _lock:
        missing = [k for k in kernels if (*k, target) not in _known]
        if missing:
            names = [name_of(k, target) for k in missing]
            found = {name: cache.find(name) for name in names}
            fresh = [(k, name) for k, name in zip(missing, names, strict=True) if found[name] is None]
            if fresh:
                found.update(_compile(fresh, target))
            loaded = native.load([code for code in found.values() if code is not None], names, target)
            for k, name in zip(missing, names, strict=True):
                _known[*k, target] = loaded[name]
        return {k: _known[*k, target] for k in kernels}


def _compile(fresh: list[tuple[Wanted, str]], target: Target) -> dict[str, bytes]:
    """Emits kernels one after the other, while LLVM works on those before in threads of its own."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        made = {name: pool.submit(native.assemble, str(emit(k, target)), target) for k, name in fresh}
        code = {name: future.result() for name, future in made.items()}
    for name, content in code.items():
        cache.keep(name, content)
    cache.tidy()
    return code
