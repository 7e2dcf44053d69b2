"""Recording tapes to be rewritten, and comparing what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import stepgrad as sg
from stepgrad.cells import ASSIGN
from stepgrad.execute.numpy import run
from stepgrad.passes.rewriting import Changes
from stepgrad.tape.equation import CELL, Equation
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify
from stepgrad.tensor import Tensor
from stepgrad.tree import flatten

TINY = {np.float32: 1e-45, np.float64: 5e-324}


def hard(dtype: Any) -> np.ndarray:
    """Numbers on which inexact algebra shows: NaN, infinities, both zeros, denormals, the largest."""
    largest = np.finfo(dtype).max
    numbers = [np.nan, np.inf, -np.inf, 0.0, -0.0, TINY[dtype], -TINY[dtype], 3 * TINY[dtype], 1.0, -2.5, 0.1, 7.3]
    return np.array([*numbers, largest, -largest, np.finfo(dtype).tiny, -3.0], dtype)


def record_call(function: Callable[..., Any], *arrays: Any) -> tuple[Tape, dict[Equation, Any]]:
    """The tape of a call, without the values in between, and the values of its inputs.

    What the function returns is an output, and so is each assignment to a cell.
    """
    equations: list[Equation] = []
    inputs = [sg.tensor(a, name="xyzw"[i]) for i, a in enumerate(arrays)]
    with recording(equations=equations):
        returned = function(*inputs)
    leaves: dict[Equation, Any] = {t.equation: t.value for t in inputs}
    for equation in equations:
        leaves |= {e: e.value for e in equation.inputs if e.op is CELL}
    for equation in [*equations, *leaves]:
        equation.value = None
    outputs = [t.equation for t in flatten(returned)[0] if isinstance(t, Tensor)]
    return Tape(equations, list(leaves), outputs + [e for e in equations if e.op is ASSIGN]), leaves


def apply(one_pass: Callable[[Tape, Changes], Tape], tape: Tape) -> tuple[Tape, list[str]]:
    """The tape after one pass, verified, and the names of the rewrites that it made."""
    changes = Changes()
    after = one_pass(tape, changes)
    verify(after)
    return after, [change.kind.name for change in changes.made]


def assert_same_bits(before: Tape, after: Tape, values: dict[Equation, Any]) -> None:
    with np.errstate(all="ignore"):
        pairs = zip(run(before, values), run(after, values), strict=True)
    for one, other in pairs:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert plain(one) == plain(other), f"{one}\n{other}"


def plain(a: np.ndarray) -> bytes:
    """The bytes of an array, with one NaN for all."""
    return (np.where(np.isnan(a), np.asarray(np.nan, a.dtype), a) if a.dtype.kind == "f" else a).tobytes()


def ops_of(tape: Tape) -> list[str]:
    return [e.op.name for e in tape]
