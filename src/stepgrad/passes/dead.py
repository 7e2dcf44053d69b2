"""Dead code: equations that no output depends on. An assignment to a cell is an output."""

from __future__ import annotations

from stepgrad.passes.rewriting import Change, Changes, Rewrite
from stepgrad.tape.equation import Equation
from stepgrad.tape.tape import Tape

DEAD = Rewrite("left out", "no output depends on it")


def dead(tape: Tape, changes: Changes) -> Tape:
    """The tape without the equations that no output depends on. Its inputs stay: they are what a caller passes."""
    needed: set[Equation] = set(tape.outputs)
    kept: list[Equation] = []
    for equation in reversed(tape.equations):
        if equation in needed:
            needed.update(equation.inputs)
            kept.append(equation)
        else:
            changes.made.append(Change(DEAD, equation, None))
    if not changes.made:
        return tape
    changes.made.reverse()
    kept.reverse()
    return Tape(kept, tape.inputs, tape.outputs)
