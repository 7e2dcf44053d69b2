"""Layouts: copies, where a tensor has to be in memory in another order than it is.

Most views cost nothing: a kernel steps through memory as the view says. Two things need elements in
order: a reshape that no steps can express (of a transposed matrix, say), and a matrix product, which
needs rows or columns that lie side by side, and of a batch that meets one matrix rows that lie evenly;
and special kernels that walk along an axis. There a copy is put in.
"""

from __future__ import annotations

import math

from stepgrad.ops.registry import registry
from stepgrad.passes.indexing import Place, place
from stepgrad.passes.kinds import VIEWS
from stepgrad.passes.rewriting import Change, Changes, Replacement, Rewrite, rewrite, tensors
from stepgrad.passes.specials import ORDERED, has_place
from stepgrad.tape.equation import LITERAL, Equation, leaves
from stepgrad.tape.recording import record, recording
from stepgrad.tape.tape import Tape

RESHAPED = Rewrite("copied before a reshape", "its elements do not lie in the order in which the reshape takes them")
UNEVEN = Rewrite("taken axis by axis", "its elements do not lie evenly over the axes; sums are put in another order")
APART = Rewrite("multiplied by itself", "what follows does not step evenly through the rows of the batch")
RETURNED = Rewrite("copied for the caller", "what a step returns is not overwritten by the next")
MOVED = Rewrite("copied before it is walked along an axis", "its elements do not lie as the axis wants them")
MULTIPLIED = Rewrite("copied before a product", "neither its rows nor its columns lie side by side in memory")


def layouts(tape: Tape, changes: Changes) -> Tape:
    """The tape with copies where elements have to be put in order."""
    places: dict[Equation, Place | None] = {}

    def where(equation: Equation) -> Place | None:
        return place(equation, places, lambda e: e.op.name in VIEWS)

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        if equation.op.name == "reshape":
            (source,) = inputs
            again = Equation(equation.op, inputs, equation.params, equation.type, False)
            if where(source) is not None and where(again) is None:
                return RESHAPED, _again(equation, [_copied(source)])
        elif equation.op.name in ORDERED:
            apart = [not has_place(equation, source, where(source)) for source in inputs]
            if any(apart):
                return MOVED, _again(
                    equation, [_copied(e) if each else e for e, each in zip(inputs, apart, strict=True)]
                )
        elif equation.op.name == "matmul" and equation.type.is_float:
            scattered = [not _is_matrix(source, where(source)) for source in inputs]
            scattered[0] |= len(inputs[1].type.shape) == 2 and not _is_even(inputs[0], where(inputs[0]))
            if any(scattered):
                return MULTIPLIED, _again(
                    equation, [_copied(e) if apart else e for e, apart in zip(inputs, scattered, strict=True)]
                )
        return None

    return rewrite(tape, replace, changes)


def in_steps(tape: Tape, changes: Changes, uneven: set[Equation]) -> Tape:
    """The tape with some reductions taken axis by axis, the last axis first; and some batches made one matrix."""

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        if equation not in uneven:
            return None
        if equation.op.name == "matmul":
            return APART, _flat(equation, inputs)
        (found,) = tensors(inputs)
        for axis in sorted(equation.params["axis"], reverse=True):
            found = record(equation.op, (found,), {**equation.params, "axis": (axis,), "keepdims": True})
        if not equation.params["keepdims"]:
            found = record(registry["reshape"], (found,), {"shape": equation.type.shape})
        return UNEVEN, found

    return rewrite(tape, replace, changes)


def own_outputs(tape: Tape, changes: Changes, user_outputs: int) -> Tape:
    """The tape with copies of the user's outputs that are leaves or views: what a call returns is its own.

    A copy comes right after what it copies, so that it is made before a cell is overwritten.
    """
    wanted = {e for e in tape.outputs[:user_outputs] if e.op.name in VIEWS}
    copies: dict[Equation, Equation] = {}
    front = []
    for output in tape.outputs[:user_outputs]:
        if output.op in leaves and output.op is not LITERAL and output not in copies:
            copies[output] = copy(output)
            front.append(copies[output])
            changes.made.append(Change(RETURNED, output, copies[output]))
    equations = list(front)
    for equation in tape.equations:
        equations.append(equation)
        if equation in wanted:
            copies[equation] = copy(equation)
            equations.append(copies[equation])
            changes.made.append(Change(RETURNED, equation, copies[equation]))
    if not copies:
        return tape
    outputs = [copies.get(e, e) for e in tape.outputs[:user_outputs]]
    return Tape(equations, tape.inputs, [*outputs, *tape.outputs[user_outputs:]])


def copy(source: Equation) -> Equation:
    """An equation with the same value that has a place of its own."""
    with recording(equations=[], role=source.role, of=None, operand=None, scope=source.scope):
        return record(registry["alias"], tuple(tensors([source])), {}).equation


def _copied(source: Equation) -> Equation:
    return record(registry["alias"], tuple(tensors([source])), {}).equation


def _again(equation: Equation, inputs: list[Equation]) -> Replacement:
    return record(equation.op, tuple(tensors(inputs)), equation.params)


def _flat(equation: Equation, inputs: tuple[Equation, ...]) -> Replacement:
    """The product of a batch with one matrix, as that of all its rows."""
    batch, matrix = tensors(inputs)
    rows = record(registry["reshape"], (batch,), {"shape": (math.prod(batch.shape[:-1]), batch.shape[-1])})
    return record(registry["reshape"], (record(equation.op, (rows, matrix), {}),), {"shape": equation.type.shape})


def _is_even(equation: Equation, found: Place | None) -> bool:
    """All rows of a batch lie evenly, as if they were those of one matrix."""
    if found is None or equation.op in leaves:
        return True
    axes = [(n, step) for n, step in zip(equation.type.shape[:-1], found.strides[:-1], strict=True) if n != 1]
    return all(axes[i][1] == axes[i + 1][1] * axes[i + 1][0] for i in range(len(axes) - 1))


def _is_matrix(equation: Equation, found: Place | None) -> bool:
    if found is None or len(equation.type.shape) < 2 or equation.op in leaves:
        return True
    return any(step == 1 or n == 1 for n, step in zip(equation.type.shape[-2:], found.strides[-2:], strict=True))
