"""Verification: does a tape keep its own rules? Run after every pass, so it is one quick walk over the tape."""

from __future__ import annotations

from stepgrad.errors import VerificationError
from stepgrad.tape.equation import Equation, Role, leaves
from stepgrad.tape.tape import Tape


def verify(tape: Tape, sound: set[Equation] | None = None) -> None:
    """Raises VerificationError where a tape is not well-formed.

    Checked: every input is a leaf or comes earlier; types are what the op infers; roles are in
    order (forward before the backward equations of it); outputs are computed.

    Args:
        tape: any tape.
        sound: equations that were found to be right by themselves, on the tape before a pass, say. They
            never change, so only their order is looked at again. Those of this tape are added.
    """
    sound = set() if sound is None else sound
    known: set[Equation] = set(tape.inputs)
    has_all, add = known.issuperset, known.add
    for equation in tape.equations:
        if equation in known:
            raise _broken(equation, "it stands on the tape twice")
        if not has_all(equation.inputs):
            for source in equation.inputs:
                if source not in known and source.op not in leaves:
                    raise _broken(
                        equation, f"it reads {source.name or source.op.name}, which is not computed before it"
                    )
                add(source)
        if equation not in sound:
            _check(equation)
        add(equation)
    for output in tape.outputs:
        if output not in known and output.op not in leaves:
            raise _broken(output, "it is an output, but is not computed")
    sound |= known


def _check(equation: Equation) -> None:
    """Looks at an equation by itself."""
    inferred = equation.op.signature(tuple([e.type for e in equation.inputs]), equation.params).type
    if inferred is not equation.type and (inferred.shape, inferred.dtype) != (equation.type.shape, equation.type.dtype):
        raise _broken(equation, f"it is marked {equation.type}, but its op infers {inferred}")
    if equation.of is not None and equation.role is not Role.BACKWARD:
        raise _broken(equation, f"it was emitted by a local rule, but has the role {equation.role.value}")
    if equation.value is not None and equation.value.shape != equation.type.shape:
        raise _broken(equation, f"its value has shape {equation.value.shape}")


def _broken(equation: Equation, why: str) -> VerificationError:
    return VerificationError(
        f"the tape is broken at: {equation!r}", why, "report this as a bug, with the printed tape (print(tape))"
    )
