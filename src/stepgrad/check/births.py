"""`sg.first_nan`: the first cause of a NaN or Inf, forward or backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.check.kinds import LEAVES, Kind, happened, kind_of, number_text
from stepgrad.check.observed import End, Observed, is_finite, observe, observed
from stepgrad.check.spreading import Element, bad, find, path, value_of
from stepgrad.check.wording import expression, is_number, is_passed_on, place_of
from stepgrad.compile import Compiled
from stepgrad.errors import ArgumentError
from stepgrad.execute.numpy import run
from stepgrad.explain.trace import Trace
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import CELL, CONSTANT, LITERAL, Equation, Role
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array
from stepgrad.tree import flatten


@dataclass(frozen=True)
class Operand:
    """What an equation read where the number was born.

    Attributes:
        text: its name, or the expression that it is.
        element: the element that counts; None where many elements of it count, as in a sum.
        value: the number there; where many count, the one with the largest magnitude.
    """

    text: str
    element: Element | None
    value: float

    def __str__(self) -> str:
        if self.element is None:
            return f"{self.text} (largest magnitude {number_text(self.value)})"
        text = self.text if self.text.isidentifier() or not self.element else f"({self.text})"
        return f"{text}{_index(self.element)} = {number_text(self.value)}"


@dataclass(frozen=True)
class Reached:
    """A value that the birth spread to.

    Attributes:
        text: its name, or the expression that it is.
        role: "input", "forward", "backward" or "update".
        line: the number of the user's line.
        nans, infs, size: how many of its elements are NaN, infinite, and how many it has.
    """

    text: str
    role: str
    line: int
    nans: int
    infs: int
    size: int

    def __str__(self) -> str:
        if self.size == 1:
            return f"{self.text} is {'nan' if self.nans else 'infinite'}"
        counts = [f"{n:,} {what}" for n, what in ((self.nans, "nan"), (self.infs, "infinite")) if n]
        return f"{self.text}: {' and '.join(counts)} of {self.size:,}"


@dataclass(frozen=True)
class Birth:
    """Where a NaN or Inf was born, from what, and how it spread. Made by `sg.first_nan`; print it.

    Attributes:
        kind: what happened, by the names in `stepgrad.check.kinds`, such as "log-of-zero" or "overflow".
        value: nan, inf or -inf.
        happened: the numbers, as in "log(0) = -inf".
        op: the op that made it; "input", "cell", "constant" or "literal" if it was there before.
        text: the value in which it was born: its name, or the expression that it is.
        element: the first element that is enough to spoil the end; () for a single number.
        count, size: how many elements of it were born so, and how many it has.
        operands: what the op read there. In a backward pass: what the forward op read.
        role: "input", "forward", "backward" or "update".
        of: in a backward pass, the forward op whose local rule computed it, else None.
        of_text: what that op computes.
        file, line, code: the user's line; in a backward pass that of the forward op.
        scope: the modules it was computed in, outermost first.
        dtype: of the value.
        in_float64: what this element is if everything is computed in float64, or None.
        spread: the shortest way from there to the end.
        turned: the value on that way in which Inf became NaN, or None.
        ends: all that came out non-finite: values, gradients, new values of parameters.
        others: further causes on their own, as "file:line: code".
        remedy: what to write instead.
        note: what else there is to say.
    """

    kind: str
    value: float
    happened: str
    op: str
    text: str
    element: Element
    count: int
    size: int
    operands: tuple[Operand, ...]
    role: str
    of: str | None
    of_text: str
    file: str
    line: int
    code: str
    scope: tuple[str, ...]
    dtype: str
    in_float64: float | None
    spread: tuple[Reached, ...]
    turned: str | None
    ends: tuple[Reached, ...]
    others: tuple[str, ...]
    remedy: str
    note: str = ""

    def __str__(self) -> str:
        from stepgrad.check.births_told import told

        return told(self)

    __repr__ = __str__


def first_nan(
    fn: Callable[..., Any] | Trace, /, *args: Any, before: Mapping[Cell, Any] | None = None, **kwargs: Any
) -> Birth | None:
    """The first cause of a NaN or Inf in what a function returns, in its gradients, or in what it puts into cells.

    The function is called once, with both passes on the tape, and every equation computed by NumPy; a compiled step
    is recorded as it is written. Gradients are taken of what it returns unless it takes them itself. Afterwards all
    cells have the values that they had.

    An equation is blamed only if the numbers born in it reach the end: each is tried on its own, with finite
    numbers in the places of all others. An Inf that a `where` masks is nobody's cause.

    Args:
        fn: a function of arrays, tensors, modules; a training step, compiled or not; or a trace of one.
        args, kwargs: its arguments.
        before: values for parameters and states: those before the step that went wrong, see `snapshot`.

    Returns:
        A `Birth`: print it; or None if everything that comes out is finite, as NumPy computes it. (A compiled program
        adds up in another order, so close to overflow the two can differ.)

    Raises:
        ArgumentError: `fn` is not a function, or a trace with arguments.

    Example:
        >>> def loss(p, y):
        ...     losses = y * np.log(p)
        ...     return -losses.sum()
        >>> birth = sg.first_nan(loss, np.array([0.5, 0.0, 1.0]), np.array([1.0, 0.0, 1.0]))
        >>> birth.happened, birth.element, birth.turned
        ('log(0) = -inf', (1,), 'losses')
    """
    if isinstance(fn, Trace):
        if args or kwargs or before:
            raise ArgumentError(
                "sg.first_nan was given a trace and arguments",
                "a trace holds the call with its arguments and values",
                "pass the trace alone, or the function with its arguments",
            )
        call = observed(fn)
    elif callable(fn):
        call = observe(fn, args, kwargs, _checked(before or {}))
    else:
        raise ArgumentError(
            f"sg.first_nan was given a {type(fn).__name__}",
            "a value does not hold the values that it was computed from: the tape keeps only those that the backward "
            "pass reads",
            "pass the function and its arguments: sg.first_nan(loss, x, y), not sg.first_nan(loss(x, y))",
        )
    ends = [end for end in call.ends() if not is_finite(end.equation.value)]
    return _Describing(call, ends).birth() if ends else None


def snapshot(*holders: Any) -> dict[Cell, Array]:
    """Copies of the values of parameters and states, to be passed to `first_nan` as `before`.

    Args:
        holders: modules, optimizers, cells, or nested structures of them; compiled functions that were called: all
            cells that they read or write.

    Raises:
        ArgumentError: a compiled function that was not called yet, or something without cells.

    Example:
        >>> W = sg.Parameter([1.0], name="W")
        >>> before = snapshot(W)
        >>> W.assign(np.float32([np.nan]))
        >>> sg.first_nan(lambda: np.sum(W * 2), before=before) is None
        True
    """
    found: dict[Cell, Array] = {}
    for holder in holders:
        if isinstance(holder, Compiled):
            if not holder.programs:
                raise ArgumentError(
                    f"a snapshot of {holder!r} was asked for",
                    "which cells it uses is known only once it was called",
                    "call it once first, or pass the model and the optimizer: snapshot(model, optimizer)",
                )
            cells: Sequence[Any] = [cell for entry in holder._entries.values() for cell in entry.recorded.cells]
        else:
            cells = flatten([_cells_of(leaf) for leaf in _parts(holder)])[0]
        for cell in cells:
            if not isinstance(cell, Cell):
                raise ArgumentError(
                    f"a snapshot of a {type(cell).__name__} was asked for",
                    "it holds the values of parameters and states",
                    "pass modules, optimizers, parameters or states",
                )
            found[cell] = cell.numpy().copy()
    return found


def _parts(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, (list, tuple)) else [holder]


def _cells_of(holder: Any) -> Any:
    """Modules have parameters and states, optimizers the latter, and parameters that they train."""
    states = holder.states() if callable(getattr(holder, "states", None)) else {}
    parameters = holder.parameters() if callable(getattr(holder, "parameters", None)) else {}
    trained = list(getattr(holder, "_parameters", [])) if states and not parameters else []
    return [states, parameters, trained] if states or parameters else holder


def _checked(before: Any) -> Mapping[Cell, Any]:
    if isinstance(before, Mapping) and all(isinstance(cell, Cell) for cell in before):
        return before
    raise ArgumentError(
        f"sg.first_nan was given before={before!r:.60}",
        "it holds values by the parameters and states that they belong to",
        "make it with sg.snapshot(model, optimizer), before the step",
    )


# --- telling what was found


class _Describing:
    """Makes a Birth of what was found on the tape."""

    def __init__(self, call: Observed, ends: Sequence[End]) -> None:
        self.call, self.ends = call, ends

    def birth(self) -> Birth:
        call, end = self.call, self.ends[0].equation
        found = find(call.equations, end)
        chain = path(found, end)
        turn = next((i for i, e in enumerate(chain) if i and np.isnan(found.alone.get(e, value_of(e))).any()), None)
        turned = chain[turn] if turn is not None and not _is_nan(found.equation, found.element) else None
        e, element = found.equation, found.element
        if turned is not None and e.op in (CONSTANT, LITERAL):  # an Inf written down on purpose, as a mask is
            assert turn is not None
            e, born = turned, np.isnan(found.alone.get(turned, value_of(turned)))
            element, chain, turned = tuple(int(i) for i in np.argwhere(born)[0]), chain[turn:], None
        else:
            born = found.born
        value = float(np.real(np.asarray(value_of(e))[element]))
        kind, happening, operands = self._kind(e, element, value)
        statement = call.statement(e)
        source = e.of if e.role is Role.BACKWARD else None
        return Birth(
            kind=kind.name,
            value=value,
            happened=happening,
            op=e.op.name,
            text=call.text(e) if not is_passed_on(e) else call.text(e.inputs[0]),
            element=element,
            count=int(born.sum()),
            size=e.type.size,
            operands=operands,
            role=self.call.role(e),
            of=source.op.name if source is not None else None,
            of_text=expression(source, call.name) if source is not None else "",
            file=statement.file,
            line=statement.line,
            code=statement.text,
            scope=(source or e).scope,
            dtype=str(e.type.dtype),
            in_float64=_in_float64(e, element, call.equations),
            spread=tuple(self._reached(step) for step in self._told(chain)),
            turned=call.text(turned) if turned is not None else None,
            ends=tuple(self._reached(other.equation, other.name) for other in self.ends),
            others=tuple(dict.fromkeys(place_of(call.statement(o)) for o in found.others)),
            remedy=kind.remedy,
            note="" if call.stopped is None else f"then the call stopped: {_in_one_line(call.stopped)}",
        )

    def _kind(self, e: Equation, element: Element, value: float) -> tuple[Kind, str, tuple[Operand, ...]]:
        if not e.inputs:
            what = e.params["cell"].kind if e.op is CELL else "input" if e.op.name == "input" else "constant"
            return LEAVES[what], f"{self.call.text(e)}{_index(element)} = {number_text(value)}", ()
        read = [self._operand(source, element, e) for source in e.inputs]
        numbers = [o.value for o in read if o is not None]
        source = e.of if e.role is Role.BACKWARD else None
        finite = source is None or source.type.shape != e.type.shape or not bad(source.value)[element]
        kind = kind_of(e.op.name, numbers, value, source is not None, finite)
        text = happened(e.op.name, numbers, e.params, value, single=e.op.elementwise)
        if source is not None and source.inputs:  # what the forward op read says more
            read = [self._operand(s, element, source, e.type.shape) for s in source.inputs]
        return (
            kind,
            text,
            tuple(o for o, s in zip(read, (source or e).inputs, strict=True) if o and not is_number(s)),
        )

    def _operand(
        self, source: Equation, element: Element, reader: Equation, shape: tuple[int, ...] | None = None
    ) -> Operand | None:
        """What a reader took from a source for this element of a value of the given shape (its own, by default)."""
        shape = reader.type.shape if shape is None else shape
        value = np.asarray(value_of(source))
        if source.op is LITERAL:
            return Operand(self.call.text(source), (), float(value))
        if reader.op.elementwise and shape == source.type.shape and value.dtype.kind in "fiub":
            number = float(value[element])
            while is_passed_on(source) and (inner := _element_of(source, element)) is not None:
                source, element = source.inputs[0], inner
            return Operand(self.call.text(source), element, number)
        if not value.size or value.dtype.kind not in "fiub":
            return None
        with np.errstate(all="ignore"):
            sizes = np.nan_to_num(np.abs(value.astype(np.float64)), nan=np.inf, posinf=np.inf)
        return Operand(self.call.text(source), None, float(value.reshape(-1)[int(np.argmax(sizes))]))

    def _told(self, chain: Sequence[Equation]) -> list[Equation]:
        """The steps of a chain that are told: those with a name, those that make NaN of Inf, and both ends."""
        shown = []
        for i, e in enumerate(chain):
            turns = i > 0 and np.isnan(value_of(e)).any() and not np.isnan(value_of(chain[i - 1])).any()
            if i in (0, len(chain) - 1) or turns or (self.call.is_named(e) and not is_passed_on(e)):
                shown.append(e)
        return shown

    def _reached(self, e: Equation, name: str | None = None) -> Reached:
        value = np.asarray(value_of(e))
        nans = int(np.isnan(value).sum())
        infs = int(bad(value).sum()) - nans
        return Reached(
            name or self.call.text(e), self.call.role(e), self.call.statement(e).line, nans, infs, value.size
        )


def _is_nan(e: Equation, element: Element) -> bool:
    return bool(np.isnan(np.asarray(value_of(e))[element]))


def _element_of(e: Equation, element: Element) -> Element | None:
    """The element of its operand that an equation passes on as this one of its own."""
    source = e.inputs[0].type
    try:
        places = e.op.numpy(np.arange(source.size).reshape(source.shape), **e.params)
    except Exception:
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.asarray(places)[element]), source.shape))


def _in_float64(e: Equation, element: Element, equations: Sequence[Equation]) -> float | None:
    """What an element is if all that it depends on is computed in float64; None where that is what was done."""
    if e.type.dtype.kind != "f" or not e.inputs:
        return None
    known = set(equations)
    needed = [s for s in reachable([e]) if s in known]
    if all(s.type.dtype == np.float64 for s in needed if s.type.is_float):
        return None
    inputs = {
        s: np.asarray(s.value, np.float64)
        for s in dict.fromkeys(s for n in needed for s in n.inputs)
        if s not in known and s.type.dtype.kind == "f" and not s.type.weak and s.value is not None
    }
    with np.errstate(all="ignore"):
        try:
            wide = run(Tape(needed, list(inputs), [e]), inputs, precision=np.float64)[0]
        except Exception:  # it is a courtesy: an op that needs the recorded dtype has no such value
            return None
    return float(wide[element])


def _index(element: Element) -> str:
    return f"[{', '.join(map(str, element))}]" if element else ""


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(getattr(error, 'what', error)).splitlines()[0]}"
