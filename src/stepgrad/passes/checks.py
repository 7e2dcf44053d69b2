"""Checks: indices and labels that a step reads are looked at before it changes anything.

Eagerly, NumPy refuses an index out of range, and cross_entropy such a label. Native kernels can't: they
would read outside of an array, or give a wrong number. So a program computes first whether any index is out
of range, and stops before it writes to a cell. The error is then the one that NumPy would have raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.registry import registry
from stepgrad.passes.bodies import Body
from stepgrad.passes.fusion import Fusion
from stepgrad.passes.kinds import NARROW
from stepgrad.passes.lowering import Kernel
from stepgrad.passes.rewriting import Change, Changes, Rewrite
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, leaves
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import record, recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Tensor


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
        flag: a boolean: whether any index is out of range.
        index: the indices, or labels.
        low, high: the first and the last that is allowed.
        reader: the equation that uses them.
    """

    flag: Equation
    index: Equation
    low: int
    high: int
    reader: Equation


LOOKED_AT = Rewrite(
    "looked at first", "an index out of range would be read outside of an array, or give a wrong number"
)


def checks_of(tape: Tape, changes: Changes, found: list[Check]) -> Tape:
    """The tape with a flag for every set of indices that is not known yet, as further outputs.

    Args:
        found: to which the checks are added, in the order of these outputs.
    """
    made: list[Equation] = []
    known: dict[tuple[Equation, int, int], None] = {}
    with recording(equations=made, of=None, operand=None, scope=(), region=None, differentiable=False, observe=None):
        for equation in tape.equations:
            for index, low, high in _ranges(equation):
                if index.op in (CONSTANT, LITERAL) or not index.type.size or (index, low, high) in known:
                    continue
                known[index, low, high] = None
                begin = len(made)
                x = Tensor(None, index)
                if index.type.dtype in NARROW:
                    x = to_dtype(x, np.int64)
                outside = record(registry["logical_or"], (_less(x, low), _greater(x, high)), {})
                axes = tuple(range(len(index.type.shape)))
                if axes:
                    outside = record(registry["any"], (outside,), {"axis": axes, "keepdims": False})
                for part in made[begin:]:
                    part.where = equation.where
                changes.made.append(Change(LOOKED_AT, equation, outside.equation))
                found.append(Check(outside.equation, index, low, high, equation))
    return Tape((*tape.equations, *made), tape.inputs, (*tape.outputs, *(check.flag for check in found)))


FAULT = Equation(CONSTANT, (), {}, type_of((), np.dtype(np.int64)), False)
"""Stands for the word of a program that says that a check failed."""


def with_checks(kernels: list[Kernel], flags: Sequence[Equation], fusion: Fusion) -> list[Kernel]:
    """The kernels, with one for each flag that ends the run, before all kernels that write to cells."""
    flags = [flag for flag in flags if flag.op not in (CONSTANT, LITERAL)]
    if not flags:
        return kernels
    first: list[Kernel] = []
    made: list[Kernel] = []
    wanted = set(flags)

    def ending(flag: Equation) -> Kernel:
        return Kernel(_CHECK, (flag, FAULT), frozenset((0,)), frozenset((1,)), fusion.home[flag], everyone=True)

    for kernel in kernels:
        written = [kernel.operands[i] for i in kernel.writes]
        if any(member in fusion.assigned for member in kernel.group.members):
            last = len(kernel.operands)
            made.append(replace(kernel, operands=(*kernel.operands, FAULT), reads=kernel.reads | {last}))
        elif wanted.issuperset(written):
            early = all(kernel.operands[i].op in leaves for i in kernel.reads)
            (first if early else made).extend([replace(kernel, everyone=True), *map(ending, written)])
            wanted.difference_update(written)
        else:
            made.append(kernel)
    return [*first, *made, *(ending(flag) for flag in flags if flag in wanted)]


_CHECK = Body("check", (), 1, 1, (), (), ("bool", "int64"))


def _less(x: Tensor, number: int) -> Tensor:
    return record(registry["less"], (x, as_tensor(number)), {})


def _greater(x: Tensor, number: int) -> Tensor:
    return record(registry["greater"], (x, as_tensor(number)), {})


def _ranges(equation: Equation) -> Iterator[tuple[Equation, int, int]]:
    """What an equation reads as indices, and from where to where they may go."""
    name, params = equation.op.name, equation.params
    if name in ("gather", "scatter_add"):
        shape = params["shape"] if name == "scatter_add" else equation.inputs[0].type.shape
        for axis, index in zip(params["axes"], equation.inputs[1:], strict=True):
            yield index, -shape[axis], shape[axis] - 1
    elif name in ("take_along_axis", "add_along_axis"):
        shape = params["shape"] if name == "add_along_axis" else equation.inputs[0].type.shape
        yield equation.inputs[1], -shape[params["axis"]], shape[params["axis"]] - 1
    elif name == "cross_entropy":
        yield equation.inputs[1], 0, equation.inputs[0].type.shape[-1] - 1
