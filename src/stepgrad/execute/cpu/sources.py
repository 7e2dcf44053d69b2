"""Sources: a program as NumPy code that runs, as LLVM IR, or as the processor's assembly."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from stepgrad.cells import ASSIGN
from stepgrad.errors import ArgumentError
from stepgrad.execute.cpu import library, native
from stepgrad.execute.cpu.described import Described, describe
from stepgrad.execute.cpu.naming import Names, identifier
from stepgrad.execute.cpu.plan import Plan
from stepgrad.execute.cpu.target import Target
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation, leaves
from stepgrad.tape.expressions import array_text, call_text, function_text, helpers, literal_text, tidy

KINDS = ("numpy", "llvm", "asm")


def source(plan: Plan, target: Target, kind: str, user_outputs: int) -> str:
    """A program as text.

    Args:
        plan: the program.
        target: the processor.
        kind: "numpy", "llvm" or "asm".
        user_outputs: how many of the tape's outputs are the user's.

    Raises:
        ArgumentError: another kind.
    """
    if kind == "numpy":
        return numpy_source(plan, user_outputs)
    if kind not in KINDS:
        raise ArgumentError(
            f"program.source({kind!r}) was asked for",
            "a program can be written as NumPy, as LLVM IR, or as assembly",
            'write program.source("numpy"), program.source("llvm") or program.source("asm")',
        )
    kernels = describe(plan, Names(plan))
    comment, made = (";", _ir) if kind == "llvm" else ("#", _assembly)
    parts = []
    for number in dict.fromkeys(k.function for k in kernels if k.function):
        users = [k for k in kernels if k.function == number]
        parts.append(
            "\n".join([*(f"{comment} {k.name} {k.title}" for k in users), made(users[0], target, plan.threads)])
        )
    return "\n\n".join(parts)


def _ir(kernel: Described, target: Target, threads: int) -> str:
    body, split = kernel.step.kernel.body, kernel.step.split
    assert body is not None
    assert split is not None
    return str(library.emit((body, split), target, threads)).strip()


def _assembly(kernel: Described, target: Target, threads: int) -> str:
    return native.assemble(_ir(kernel, target, threads), _Readable(**vars(target))).decode().strip()


class _Readable(Target):
    """A target whose object files are assembly that people can read."""

    def machine(self, level: int = 3) -> llvm.TargetMachine:
        machine = super().machine(level)
        machine.emit_object = lambda module: machine.emit_assembly(module).encode()
        return machine


# --- NumPy


def numpy_source(plan: Plan, user_outputs: int) -> str:
    """The program as a NumPy module with one function, `step(inputs…, cells)`, kernel by kernel.

    The function returns the step's outputs, and a dict of what is put into the cells. It computes the same
    equations as the program; sums may be added up in another order.
    """
    return _Writer(plan, user_outputs).module()


class _Writer:
    """Writes the module."""

    def __init__(self, plan: Plan, user_outputs: int) -> None:
        self.plan, self.user_outputs = plan, user_outputs
        self.names = Names(plan)
        self.kernels = describe(plan, self.names)
        self.taken = {*_RESERVED, *(f.__name__ for f in helpers(plan.tape.equations))}
        self.of: dict[Equation, str] = {}
        self.constants: list[str] = []
        self.known: set[Equation] = set()
        self.where = ""

    def module(self) -> str:
        plan = self.plan
        arguments = [self._name(e) for e in plan.tape.inputs if e.op is INPUT]
        cells = [e for e in plan.tape.leaves() if e.op is CELL]
        body = [f"{self._name(e)} = cells[{self.names.of[e]!r}]" for e in cells]
        for kernel in self.kernels:
            body += ["", *self._kernel(kernel)]
        left = [e for e in plan.tape.outputs[: self.user_outputs] if e not in self.known]
        body += [line for e in left for line in self._needed(e)]
        outputs = [self._text(e) for e in plan.tape.outputs[: self.user_outputs]]
        assigned = {self.names.of[c]: self._text(a) for a, c in plan.fusion.assigned.items() if a in self.of}
        body += ["", f"return ({''.join(f'{o}, ' for o in outputs).rstrip()}), {{"]
        body += [f"    {cell!r}: {text}," for cell, text in assigned.items()] + ["}"]
        functions = [function_text(f) for f in helpers(plan.tape.equations)]
        head = f"def step({', '.join([*arguments, 'cells'])}):"
        text = "\n".join([head, f'    """{_DOC}"""', *(f"    {line}".rstrip() for line in body)])
        whole = "\n\n\n".join([*functions, text])
        imports = ["import math"] * bool(re.search(r"\bmath\.", whole)) + ["import numpy as np"]
        imports += ["from scipy import special"] * bool(re.search(r"\bspecial\.", whole))
        start = ['"""A compiled step, kernel by kernel, written out by stepgrad."""', "", *imports]
        start += [""] * bool(self.constants) + self.constants
        return "\n".join([*start, "", "", whole]) + "\n"

    def _kernel(self, kernel: Described) -> list[str]:
        self.where = ""
        lines = [f"# {line}" for line in textwrap.wrap(f"{kernel.name}: {kernel.title}", 110)]
        if not kernel.members:  # a check
            return [*lines, f"if {self._text(kernel.step.kernel.operands[0])}:", _REFUSE]
        return lines + [line for e in kernel.members for line in self._needed(e)]

    def _needed(self, equation: Equation) -> list[str]:
        """Lines for an equation, and before it for the views and cheap values that it reads."""
        lines: list[str] = []
        todo = [equation]
        while todo:
            e = todo[-1]
            missing = [x for x in e.inputs if x.op not in leaves and x not in self.known]
            if e in self.known or not missing:
                todo.pop()
                if e not in self.known and e.op not in leaves:
                    lines += self._line(e)
            else:
                todo.extend(reversed(missing))
        return lines

    def _line(self, e: Equation) -> list[str]:
        self.known.add(e)
        text = tidy(call_text(e, [self._text(x) for x in e.inputs]))
        if e.op is ASSIGN and e.inputs[1].type.dtype != e.type.dtype:
            text = f"np.asarray({text}, np.{e.type.dtype.name})"
        where, before = self.names.where(e), self.where
        self.where = where
        return [f"{self._name(e)} = {text}" + (f"  # {where}" if where and where != before else "")]

    def _text(self, e: Equation) -> str:
        if e.op is LITERAL:
            return literal_text(e)
        return self._name(e)

    def _name(self, e: Equation) -> str:
        if e not in self.of:
            name = "constant" if e.op is CONSTANT else self.names.of[e]
            self.of[e] = identifier(name, self.taken)
            if e.op is CONSTANT:
                self.constants.append(f"{self.of[e]} = {_constant(np.asarray(e.value))}")
        return self.of[e]


def _constant(value: Any) -> str:
    """An array as an expression; equal elements are written once."""
    if value.size > 1 and (value == value.reshape(-1)[0]).all():
        return f"np.full({value.shape}, {array_text(value.reshape(-1)[:1])}[0])"
    return array_text(value)


_DOC = "One step: (outputs, what is put into the cells). `cells` maps names to arrays."
_REFUSE = '    raise IndexError("an index or label is out of range")'
_RESERVED = "np special math step cells slice int float bool tuple list range len abs round Ellipsis".split()
