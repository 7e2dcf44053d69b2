"""Assignments to cells: one for each cell, at the end, of a value that no other assignment can spoil.

On a recorded tape an assignment's output can be read like any other tensor, and be assigned over. A
program writes cells in place, so here every reader gets the value itself, and where a value would have
to be read from a cell that may be written by then (two cells that change places), it is copied first.
"""

from __future__ import annotations

from stepgrad.cells import ASSIGN
from stepgrad.ops.registry import registry
from stepgrad.passes.rewriting import Change, Changes, Replacement, Rewrite, copied, rewrite, tensors
from stepgrad.tape.equation import CELL, Equation
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape

READ = Rewrite("the value, for what was assigned", "until the end of a step, values are passed on, and not the cell")
LAST = Rewrite("assigned at the end", "only the last value that a cell is given stays in it")
FREED = Rewrite("copied before it is assigned", "it is read from a cell that the step writes to as well")


def last_assignments(tape: Tape, changes: Changes, user_outputs: int) -> Tape:
    """The tape with one assignment for each cell, which nothing reads.

    Args:
        user_outputs: how many of the tape's outputs are the user's; assignments follow.
    """

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        if equation.op is not ASSIGN:
            return None
        value = inputs[1]
        if value.type is equation.type:
            return READ, value
        return READ, record(registry["astype"], tuple(tensors([value])), {"dtype": equation.type.dtype})

    written = tape.outputs[user_outputs:]
    if not any(e.op is ASSIGN for e in tape.equations):
        return tape
    found = rewrite(tape, replace, changes)
    last = []
    for old, value in zip(written, found.outputs[user_outputs:], strict=True):
        assign = copied(old, (_cell_of(old), value), old.of)
        changes.made.append(Change(LAST, old, assign))
        last.append(assign)
    return Tape((*found.equations, *last), tape.inputs, (*found.outputs[:user_outputs], *last))


def freed(tape: Tape, changes: Changes, assignments: set[Equation]) -> Tape:
    """The tape with copies of the values of some assignments, made before any cell is written."""

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        if equation not in assignments:
            return None
        cell, value = tensors(inputs)
        copy = record(registry["alias"], (value,), {})
        return FREED, record(ASSIGN, (cell, copy), {})

    return rewrite(tape, replace, changes)


def _cell_of(assign: Equation) -> Equation:
    cell = assign.inputs[0]
    while cell.op is not CELL:
        cell = cell.inputs[0]
    return cell
