"""Why a gradient is missing: where the path from a loss to a tensor was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.errors import GradientError
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import CELL, Cut, Equation, Role
from stepgrad.tape.places import place_text
from stepgrad.tensor import Tensor, describe

_REASONS = {
    "no_grad": "computed under sg.no_grad()",
    "stop_gradient": "detached by sg.stop_gradient",
    "astype": "converted to integers or booleans",
}

__all__ = ["check", "cuts_of", "describe", "not_on_tape"]


def check(ends: Sequence[Equation], absent: Sequence[Equation]) -> None:
    """Raises GradientError for tensors that the loss does not depend on.

    The derivative of a gradient is let pass: a gradient may well be constant.
    """
    tape = reachable(ends)
    if any(e.role is Role.BACKWARD for e in tape):
        return
    names = ", ".join(_describe(e) for e in absent)
    cuts = cuts_of(tape)
    told = [f"{_REASONS.get(c.reason, f'{c.reason} has no derivative')}, at {place_text(c.where)}" for c in cuts]
    inactive = [e for e in absent if not e.active]
    leading = [t for c, t in zip(cuts, told, strict=True) if _leads_to(c, absent)]
    if inactive:
        kind = "it is a sg.State" if inactive[0].op is CELL else "it was made by an operation without a local rule"
        why = f"no gradient flows to {_describe(inactive[0])}: {kind}"
    elif leading:
        why = "every path to it was cut: " + "; ".join(leading)
    elif told:
        why = "no path leads there, and paths were cut where values were " + "; ".join(told)
    else:
        why = "none of the equations that computed the loss reads it"
    raise GradientError(
        f"the loss does not depend on {names}",
        why,
        "leave it out of wrt, or use it in the loss: through floating-point operations, outside sg.no_grad() and "
        "sg.stop_gradient, and without going through float(), .numpy() or .item()",
    )


def cuts_of(tape: Sequence[Equation]) -> list[Cut]:
    """Where gradients stop on a tape, in order of recording, each place once."""
    found: dict[Any, Cut] = {}
    for equation in tape:
        for cut in equation.cut:
            found[cut.reason, cut.where] = cut
        for operand, source in enumerate(equation.inputs):
            if source.active and not equation.active and equation.op.rule(operand) is None:
                import weakref

                found[equation.op.name, equation.where] = Cut(equation.op.name, equation.where, (weakref.ref(source),))
    return list(found.values())


def _leads_to(cut: Cut, absent: Sequence[Equation]) -> bool:
    sources = [s for s in (ref() for ref in cut.sources) if s is not None]
    return not set(reachable(sources)).isdisjoint(absent)


def _describe(equation: Equation) -> str:
    if equation.op is CELL:
        return f"{equation.params['cell'].kind} {equation.name or ''} {equation.type.shape}".replace("  ", " ")
    return describe(Tensor(equation.value, equation))


def not_on_tape(value: Any, fn: Callable[..., Any]) -> GradientError:
    """The error for a function that returns something other than a tensor."""
    name = getattr(fn, "__name__", repr(fn))
    if isinstance(value, (float, int, np.ndarray, np.generic)):
        why = "it is a plain number or array: it was not computed from the arguments, or left the tape on the way"
    else:
        why = "only what was computed from the arguments has a gradient"
    return GradientError(
        f"{name} returned {type(value).__name__} {value!r:.60}",
        why,
        "compute the result from the arguments, without float(), .item() or .numpy()",
    )
