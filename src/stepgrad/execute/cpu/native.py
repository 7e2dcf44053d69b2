"""From LLVM IR to addresses of functions.

The IR is emitted as it should be: vectors explicit, loops unrolled, common values computed once. So LLVM's
middle end has little left to do, and its code generator is nearly all that compiling costs.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from stepgrad.execute.cpu.functions import LIBRARY
from stepgrad.execute.cpu.platform import library_addresses
from stepgrad.execute.cpu.target import Target

_engines: list[Any] = []
"""Machine code is never freed, not even when the interpreter exits: another thread may be running it then."""
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_engines))


def assemble(text: str, target: Target, machine: llvm.TargetMachine | None = None) -> bytes:
    """The object file of a module's IR. Safe to call from several threads at once.

    Args:
        text: the IR.
        target: the processor.
        machine: `target.machine()`, for a thread that assembles many modules: making one takes a millisecond.
    """
    module = llvm.parse_assembly(text, llvm.create_context())
    machine = machine or target.machine()
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1)))
    return bytes(machine.emit_object(module))


def load(objects: Sequence[bytes], names: Sequence[str], target: Target) -> dict[str, int]:
    """Puts object files into this process, for good, and finds functions in them."""
    _know_library()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target.machine())
    for code in objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return {name: engine.get_function_address(name) for name in names}


@functools.cache
def _know_library() -> None:
    """Tells LLVM where the functions of the C library are that kernels call."""
    for name, address in library_addresses(LIBRARY).items():
        llvm.add_symbol(name, address)


def new_module(target: Target) -> ir.Module:
    """An empty module for a target."""
    module = ir.Module()
    module.triple = target.triple
    return module


@dataclass(frozen=True)
class Native:
    """Machine code in this process.

    Attributes:
        addresses: of its functions, by name.
    """

    addresses: dict[str, int]


def compile_module(module: ir.Module, names: Sequence[str], target: Target) -> Native:
    """Machine code for the named functions of a module."""
    module.triple = target.triple
    return Native(load([assemble(str(module), target)], names, target))
