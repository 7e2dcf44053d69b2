"""A call that was recorded with every value, and how to speak of what it computed.

Both passes are on the tape, cells get their values back, and each equation has the user's name, statement and
expression. The searches of this folder that look at values (`births`, `why`, `compare`) read this.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.cells import ASSIGN, Cell
from stepgrad.check.wording import text_of
from stepgrad.explain.arguments import Arguments, open_arguments
from stepgrad.explain.arrange import Arranged, Recorded, arrange
from stepgrad.explain.recorded import outputs_of, own_passes, walked_passes
from stepgrad.explain.trace import Trace
from stepgrad.explain.watch import Statement, Watcher
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import Equation, Role, leaves
from stepgrad.tape.places import place, source_line
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array

_TEMPORARY = re.compile(r"t\d+")
"""Names that are made for what has no variable, so that source can be written; to the user they mean nothing."""

_UNREADABLE = Statement("<unknown>", 0, 0, "")


@dataclass(frozen=True)
class End:
    """What a call is for: a value that it returned, a gradient, or a new value of a cell.

    Attributes:
        name: what the user calls it.
        kind: "value", "gradient" or "update".
        equation: what computed it.
    """

    name: str
    kind: str
    equation: Equation


@dataclass(frozen=True, eq=False)
class Observed:
    """A call and its backward pass, with every value.

    Attributes:
        recorded: the parts of the recording.
        made: the same with names and formulas.
        stopped: the error that ended the call, if one did.
    """

    recorded: Recorded
    made: Arranged
    stopped: Exception | None = None
    _statements: dict[Equation, Statement] = field(default_factory=dict)

    @property
    def equations(self) -> list[Equation]:
        """All that was computed, in the order in which it was."""
        return [*self.recorded.inside, *self.recorded.walked]

    def ends(self) -> list[End]:
        """What the call returned, then the gradients, then what was put into cells."""
        made = self.made
        found = [End(self.text(e), "value", e) for e in made.outputs if e.type.is_float]
        gradients = made.wanted_gradients()
        found += [End("d" + name, "gradient", e) for name, e in gradients.items()]
        return found + [End(f"the new {name}", "update", e) for name, e in made.assigned.items() if e.type.is_float]

    def statement(self, equation: Equation) -> Statement:
        """The user's statement that recorded it; for an equation of a backward pass, the forward equation's."""
        source: Equation | None = equation
        while source is not None and source.of is not None:
            source = source.of
        assert source is not None
        known = self._statements
        if not known:
            known.update((e, run.statement) for run in self.recorded.watcher.runs for e in run.equations)
        if source not in known and source.op in leaves:
            source = next((e for e in self.equations if source in e.inputs and e in known), source)
        if source in known:
            return known[source]
        if source.where is None:
            return _UNREADABLE
        return Statement(*place(source.where), 0, source_line(source.where))

    def role(self, equation: Equation) -> str:
        """The part that an equation belongs to: "forward", "backward" or "update"; "input" for a leaf.

        What is done with gradients before they are put into a parameter is part of the update.
        """
        if equation.op in leaves:
            return "input"
        return "update" if equation in self._updates else equation.role.value

    @functools.cached_property
    def _updates(self) -> frozenset[Equation]:
        return frozenset(self.made.update)

    def is_named(self, equation: Equation) -> bool:
        """Whether the user has a name for it, or for what it is the gradient of."""
        name = self.made.names.of.get(equation)
        return name is not None and _TEMPORARY.fullmatch(name) is None

    def name(self, equation: Equation) -> str | None:
        """The user's name for it, if there is one."""
        return self.made.names.of[equation] if self.is_named(equation) else None

    def text(self, equation: Equation) -> str:
        """How a value is written where it is read: its name, or an expression of names."""
        return text_of(equation, self.name)


# --- recording


def observed(trace: Trace) -> Observed:
    """What a trace recorded."""
    return Observed(trace.recorded, trace.arranged)


def observe(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], before: Mapping[Cell, Array]
) -> Observed:
    """Calls a function once, with both passes on the tape. Afterwards cells have the values that they had.

    A compiled function is recorded as it is written, so each of its equations is computed by NumPy. Unlike in
    `sg.trace`, values may leave the tape (`float(loss)`): nothing is done with the gradients here.

    Args:
        fn: a function of arrays, tensors, modules; a compiled step.
        args, kwargs: its arguments.
        before: values that cells get before the call.
    """
    arguments = open_arguments(fn, args, kwargs)
    watcher = Watcher(sys._getframe())
    equations: list[Equation] = []
    stopped: Exception | None = None
    result = None
    plain: dict[str, Any] = {"of": None, "operand": None, "region": None, "masks": None, "gradients": None}
    with _cells_kept(before, equations), np.errstate(all="ignore"):
        with recording(equations=equations, observe=watcher, differentiable=True, role=Role.FORWARD, scope=(), **plain):
            try:
                result = fn(*arguments.args, **arguments.kwargs)
            except Exception as error:
                stopped = error
        watcher.finish()
        recorded = _passes(fn, arguments, watcher, equations, result, stopped)
    return Observed(recorded, arrange(recorded), stopped)


def _passes(
    fn: Callable[..., Any],
    arguments: Arguments,
    watcher: Watcher,
    equations: list[Equation],
    result: Any,
    stopped: Exception | None,
) -> Recorded:
    if stopped is not None:  # what had been computed by then is all there is
        bad = [e for e in equations if not is_finite(e.value)]
        if not bad:
            raise stopped
        return Recorded(arguments, watcher, equations, [], [], {}, bad[-1:], own=False)
    outputs = outputs_of(result)
    took = any(e.role is Role.BACKWARD for e in equations)
    if took and (not outputs or not any(e.role is Role.BACKWARD for e in reachable(outputs[:1]))):
        return own_passes(arguments, watcher, equations, outputs, None, None)
    if outputs and not outputs[0].type.is_float:
        return Recorded(arguments, watcher, equations, [], [], {}, outputs, own=False)
    return walked_passes(fn, arguments, watcher, equations, result, outputs, None, None)


@contextlib.contextmanager
def _cells_kept(before: Mapping[Cell, Array], equations: Sequence[Equation]) -> Iterator[None]:
    """Puts values into cells, and at the end those that all cells had, also those that were assigned meanwhile."""
    found = {cell: cell.numpy() for cell in before}
    try:
        for cell, value in before.items():
            cell.assign(value)
        yield
    finally:
        for equation in equations:
            if equation.op is ASSIGN:
                leaf = equation.inputs[0]
                found.setdefault(leaf.params["cell"], np.asarray(leaf.value))
        with recording(equations=None):
            for cell, value in found.items():
                cell.assign(value)


def is_finite(value: Any) -> bool:
    """Whether all numbers are finite, as those are that can't be otherwise."""
    array = np.asarray(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
