"""From LLVM IR to addresses of functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from stepgrad.execute.cpu.target import Target


@dataclass(frozen=True)
class Native:
    """Machine code in this process. It lives as long as this object.

    Attributes:
        addresses: of its functions, by name.
        code: the object file that it was made from.
    """

    addresses: dict[str, int]
    code: bytes
    engine: Any


def assemble(module: ir.Module, target: Target) -> bytes:
    """The object file of a module, optimised for the target."""
    module.triple = target.triple
    machine = target.machine()
    parsed = llvm.parse_assembly(str(module))
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False  # it is emitted so
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_object(parsed)


def load(code: bytes, names: list[str], target: Target) -> Native:
    """Puts an object file into this process."""
    empty = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(empty, target.machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Native({name: engine.get_function_address(name) for name in names}, code, engine)


def compile_module(module: ir.Module, names: list[str], target: Target) -> Native:
    """Machine code for the named functions of a module."""
    return load(assemble(module, target), names, target)
