"""Verification: does a tape keep its own rules? Run after recording in tests, and after every pass."""

from __future__ import annotations

from stepgrad.errors import VerificationError
from stepgrad.tape.equation import Equation, Role, leaves
from stepgrad.tape.tape import Tape


def verify(tape: Tape) -> None:
    """Raises VerificationError where a tape is not well-formed.

    Checked: every input is a leaf or comes earlier; types are what the op infers; roles are in
    order (forward before the backward equations of it); outputs are computed.
    """
    known: set[Equation] = set(tape.leaves())
    for equation in tape:
        if equation in known:
            raise _broken(equation, "it stands on the tape twice")
        for source in equation.inputs:
            if source not in known:
                raise _broken(equation, f"it reads {source.name or source.op.name}, which is not computed before it")
        inferred = equation.op.signature(tuple(e.type for e in equation.inputs), equation.params).type
        if inferred is not equation.type and (inferred.shape, inferred.dtype) != (
            equation.type.shape,
            equation.type.dtype,
        ):
            raise _broken(equation, f"it is marked {equation.type}, but its op infers {inferred}")
        if equation.of is not None and equation.role is not Role.BACKWARD:
            raise _broken(equation, f"it was emitted by a local rule, but has the role {equation.role.value}")
        if equation.value is not None and equation.value.shape != equation.type.shape:
            raise _broken(equation, f"its value has shape {equation.value.shape}")
        known.add(equation)
    for output in tape.outputs:
        if output not in known and output.op not in leaves:
            raise _broken(output, "it is an output, but is not computed")


def _broken(equation: Equation, why: str) -> VerificationError:
    return VerificationError(
        f"the tape is broken at: {equation!r}", why, "report this as a bug, with the printed tape (print(tape))"
    )
