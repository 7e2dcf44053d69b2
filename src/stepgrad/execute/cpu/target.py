"""The machine that programs are compiled for: the one place that knows about instruction sets."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite import ir


@dataclass(frozen=True)
class Target:
    """What code generation has to know about a processor.

    Attributes:
        triple: LLVM's name of architecture and operating system.
        cpu: LLVM's name of the processor.
        features: the instruction sets it has, in LLVM's notation.
        vector_bytes: the width of a vector register.
        registers: how many vector registers there are.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int

    def lanes(self, type: ir.Type) -> int:
        """How many elements of an IR type fit a vector register."""
        return self.vector_bytes // bytes_of(type)

    def machine(self, level: int = 3) -> llvm.TargetMachine:
        """LLVM's code generator for it."""
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=level, reloc="pic", codemodel="small", jit=True
        )


def bytes_of(type: ir.Type) -> int:
    """The size of one element of an IR type in memory; booleans take a byte."""
    if isinstance(type, ir.IntType):
        return max(1, type.width // 8)
    return 8 if isinstance(type, ir.DoubleType) else 4


@functools.cache
def host() -> Target:
    """The processor that this process runs on."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple, features = llvm.get_process_triple(), llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        vector_bytes, registers = 64, 32
    elif features.get("avx2") and features.get("fma"):
        vector_bytes, registers = 32, 16
    else:
        vector_bytes, registers = 16, 32 if triple.startswith(("aarch64", "arm64")) else 16
    return Target(triple, llvm.get_host_cpu_name(), features.flatten(), vector_bytes, registers)
