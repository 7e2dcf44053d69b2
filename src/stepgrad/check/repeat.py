"""Is it the same function every time? Recordings of one call, compared equation by equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.check.replay import Recorded, called, record_call
from stepgrad.errors import GradientError
from stepgrad.tape.equation import Equation


def check_deterministic(first: Recorded, second: Recorded, fn: Callable[..., Any]) -> None:
    """Raises GradientError where two recordings of the same call differ."""
    difference = _first_difference(first, second)
    if difference is not None:
        equation, how, _ = difference
        raise GradientError(
            f"{called(fn)} did not compute the same when it was called twice with the same arguments: {how}\n"
            f"  at {first.place_text(equation)}",
            "a derivative compares values at neighbouring points, so nothing else may change between them",
            "draw random numbers from a fixed key or seed inside the function, or pass them as an argument",
        )


def left_the_tape(
    first: Recorded, fn: Callable[..., Any], args: Sequence[Any], wrt: Any, rng: np.random.Generator
) -> list[str]:
    """Notes on constants that change with the arguments: computed outside the tape, as with `.numpy()`."""
    try:
        difference = _first_difference(first, record_call(fn, args, wrt, rng))
    except Exception:  # the function does not accept the moved arguments
        return []
    if difference is None or not difference[2]:
        return []
    return [
        "numbers that change with the arguments are not on the tape, and count as constant: "
        + first.place_text(difference[0])
    ]


def _first_difference(first: Recorded, second: Recorded) -> tuple[Equation, str, bool] | None:
    """The first equation that differs between two recordings, how, and whether only in a constant."""
    same = dict(zip(first.tape.inputs, second.tape.inputs, strict=False))
    for a, b in zip(first.tape.equations, second.tape.equations, strict=False):
        if a.op.name != b.op.name or a.type is not b.type or not _equal(a.params, b.params):
            return a, f"the first call computes {a.op.name} there, and the second {b.op.name}", False
        for x, y in zip(a.inputs, b.inputs, strict=False):
            if x in same and same[x] is not y:
                return a, "the two calls read different values there", False
            if x not in same:
                same[x] = y
                if x is not y and not np.array_equal(x.value, y.value, equal_nan=x.type.is_float):
                    return a, f"it reads {x.type!r} numbers that are others in the second call", True
        same[a] = b
    short = min(len(first.tape), len(second.tape))
    if len(first.tape) != len(second.tape):
        longer = max(first, second, key=lambda r: len(r.tape))
        return longer.tape.equations[short], "only one of the two calls computes this", False
    return None


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except ValueError:
        return repr(a) == repr(b)
