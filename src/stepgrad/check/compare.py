"""`sg.compare`: where two runs, two versions or two precisions of a network part."""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.kinds import number_text
from stepgrad.check.matching_traces import Matched, Pair, match
from stepgrad.check.observed import Observed, observed
from stepgrad.check.spreading import value_of
from stepgrad.check.ulps import Apart, apart
from stepgrad.check.wording import expression
from stepgrad.errors import ArgumentError
from stepgrad.explain.trace import Trace
from stepgrad.tape.equation import Equation, leaves
from stepgrad.tape.layout import WIDTH, plural


@dataclass(frozen=True)
class Side:
    """A value as one of the traces has it.

    Attributes:
        text: its name and what computes it.
        file, line, code: the user's line.
        value: the number at the element that is told; None if there is none.
    """

    text: str
    file: str
    line: int
    code: str
    value: Any = None

    def __str__(self) -> str:
        code = f": {self.code}" if self.code else ""
        return f"{self.text}  ({os.path.basename(self.file)}:{self.line}{code})"


@dataclass(frozen=True)
class Difference:
    """Corresponding values that differ.

    Attributes:
        name: what the first trace calls it, or the expression that it is.
        op: what computed it; "input", "cell" or "constant" if it was there before.
        role: "input", "forward", "backward" or "update".
        number: its place among all that was compared, from 1: leaves first, then equations in order.
        element: where they are furthest apart.
        ulps: there, in units in the last place of `dtype`, the coarser of both; inf if one of them isn't finite.
        relative: the largest difference, divided by the largest magnitude.
        count, size: elements that differ, and all.
        first, second: the value and line in each trace.
    """

    name: str
    op: str
    role: str
    number: int
    element: tuple[int, ...]
    ulps: float
    dtype: str
    relative: float
    count: int
    size: int
    first: Side
    second: Side


@dataclass(frozen=True)
class Change:
    """Where the computation itself differs first.

    Attributes:
        kind: "added", "removed" or "changed", seen from the first trace.
        first, second: the equations that stand there in each trace.
        places: in how many places the computations differ.
    """

    kind: str
    first: tuple[Side, ...]
    second: tuple[Side, ...]
    places: int


@dataclass(frozen=True)
class Comparison:
    """Where two traces part. Made by `sg.compare`; print it.

    Attributes:
        same: the same computation, and identical bits everywhere.
        first: the first value in which they part, by more than the tolerance; None if there is none.
        worst: the value with the most ulps; None if none differs.
        differences: all values that differ by more than the tolerance, in order.
        change: where the computations differ; None if they are the same.
        compared: how many values were compared: inputs and equations.
        tolerance: in ulps.
        names: of the two functions, with their dtypes.
    """

    same: bool
    first: Difference | None
    worst: Difference | None
    differences: tuple[Difference, ...]
    change: Change | None
    compared: int
    tolerance: float
    names: tuple[str, str]

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        return "\n".join(_told(self))

    __repr__ = __str__


def compare(first: Trace, second: Trace, *, tolerance: float | None = None) -> Comparison:
    """Finds the first equation in which two runs, two versions or two precisions of a network part.

    If both traces have the same equations, these are compared one by one: inputs first, then the forward pass, the
    backward pass and the update. If not, they are aligned by op, shape and settings, and the first equation that was
    added, removed or changed is named as well. What variables are called does not matter, and neither do conversions
    between precisions.

    Args:
        first, second: what `sg.trace` returned.
        tolerance: how many ulps (units in the last place, of the coarser dtype) count as no difference. By default
            0 if both have the same dtypes, and 1 if not, since rounding once makes up to half of one.

    Returns:
        A `Comparison`: true if nothing differs, not even a bit; print it.

    Raises:
        ArgumentError: something that is no trace, or a negative tolerance.

    Example:
        >>> def mean_square(x):
        ...     s = np.square(x)
        ...     return s.mean()
        >>> x = np.array([0.1, 0.7, 0.3])
        >>> sg.compare(sg.trace(mean_square, x), sg.trace(mean_square, x)).same
        True
        >>> parted = sg.compare(sg.trace(mean_square, x), sg.trace(mean_square, np.nextafter(x, 1)))
        >>> parted.first.name, parted.first.ulps
        ('x', 1.0)
    """
    for given in (first, second):
        if not isinstance(given, Trace):
            raise ArgumentError(
                f"sg.compare was given a {type(given).__name__}",
                "it compares what was recorded of two calls, equation by equation",
                "pass two traces: sg.compare(sg.trace(f, x), sg.trace(g, x))",
            )
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance >= 0):
        raise ArgumentError(
            f"sg.compare was given tolerance={tolerance!r}",
            "it is a number of ulps that count as no difference",
            "use for example tolerance=4, or leave it out",
        )
    a, b = observed(first), observed(second)
    matched = match(a, b)
    pairs = [*matched.leaves, *matched.equations]
    if tolerance is None:
        tolerance = 1.0 if any(x.type.dtype != y.type.dtype for x, y in pairs) else 0.0
    bits_differ = False
    differences = []
    for number, (x, y) in enumerate(pairs, 1):
        found = apart(value_of(x), value_of(y))
        bits_differ |= bool(found.count) or x.type.dtype != y.type.dtype
        if found.count and (found.ulps > tolerance or not tolerance):
            differences.append(_difference(a, b, (x, y), found, number))
    return Comparison(
        same=matched.change is None and not bits_differ,
        first=differences[0] if differences else None,
        worst=max(differences, key=lambda d: d.ulps, default=None),
        differences=tuple(differences),
        change=_change(a, b, matched),
        compared=len(pairs),
        tolerance=float(tolerance),
        names=(_called(first, a), _called(second, b)),
    )


def _difference(a: Observed, b: Observed, pair: Pair, found: Apart, number: int) -> Difference:
    x, y = pair
    return Difference(
        name=a.text(x),
        op=x.op.name,
        role=a.role(x),
        number=number,
        element=found.element,
        ulps=found.ulps,
        dtype=found.dtype,
        relative=found.relative,
        count=found.count,
        size=found.size,
        first=_side(a, x, found.first),
        second=_side(b, y, found.second),
    )


def _change(a: Observed, b: Observed, matched: Matched) -> Change | None:
    if matched.change is None:
        return None
    one, other = matched.change
    kind = "changed" if one and other else "removed" if one else "added"
    return Change(kind, tuple(_side(a, e) for e in one), tuple(_side(b, e) for e in other), matched.changes)


def _side(call: Observed, e: Equation, value: Any = None) -> Side:
    statement = call.statement(e)
    name, text = call.name(e), expression(e, call.name)
    shown = text if name is None or e.op in leaves or name == text else f"{name} = {text}"
    if value is None and e.type.shape:
        shown += f" {e.type.shape}"
    return Side(shown, statement.file, statement.line, statement.text, value)


def _called(trace: Trace, call: Observed) -> str:
    dtypes = dict.fromkeys(str(e.type.dtype) for e in call.made.forward if e.type.is_float)
    return f"{trace.function} ({', '.join(dtypes) or 'nothing computed'})"


# --- as text


def _told(c: Comparison) -> list[str]:
    first, second = c.names
    if c.same:
        return [f"{first} and {second} are the same: identical bits in all {plural(c.compared, 'value')} compared"]
    lines = [f"{first} and {second}"]
    if c.change is not None:
        lines += _change_told(c.change)
    if c.first is None:
        what = "identical bits" if not c.tolerance else f"no difference above {plural_ulps(c.tolerance)}"
        return [*lines, f"  {what} in the {plural(c.compared, 'value')} that correspond"]
    lines += [f"  they part at {c.first.name} ({c.first.role}, {c.first.number} of {c.compared} values compared)"]
    lines += _difference_told(c.first)
    before = c.first.number - 1
    if before:
        what = "identical bits" if not c.tolerance else f"at most {plural_ulps(c.tolerance)} apart"
        lines.append(f"    before it: {plural(before, 'value')}, {what}")
    later = len(c.differences) - 1
    if later:
        lines.append(f"    after it: {plural(later, 'more value')} that differ{'s' if later == 1 else ''}")
    if c.worst is not None and c.worst is not c.first:
        lines += [f"  furthest apart: {c.worst.name} ({c.worst.role})", *_difference_told(c.worst)]
    return lines


def _difference_told(d: Difference) -> list[str]:
    index = f"[{', '.join(map(str, d.element))}]" if d.element else ""
    name = d.name if d.name.isidentifier() or not index else f"({d.name})"
    places = [f"{os.path.basename(s.file)}:{s.line}: {s.code}" for s in (d.first, d.second)]
    lines = [f"    at {place}" for place in dict.fromkeys(places)]
    lines.append(
        f"    {d.count:,} of {plural(d.size, 'element')}, by up to {plural_ulps(d.ulps)} of {d.dtype}"
        f" ({number_text(d.relative)} of the largest magnitude)"
    )
    return [*lines, f"    {name}{index}: {_exact(d.first.value)} and {_exact(d.second.value)}"]


def _change_told(change: Change) -> list[str]:
    head = {
        "added": "the second has an equation that the first has not",
        "removed": "the first has an equation that the second has not",
        "changed": "the first equation that is another one",
    }[change.kind]
    lines = [f"  {head}" + (f", the first of {change.places} changes" if change.places > 1 else "")]
    for label, sides in (("first: ", change.first), ("second: ", change.second)):
        if sides:
            more = f"  and {len(sides) - 1} more" if len(sides) > 1 else ""
            lines += textwrap.wrap(
                label + str(sides[0]) + more, WIDTH, initial_indent="    ", subsequent_indent="      "
            )
    return lines


def plural_ulps(ulps: float) -> str:
    """`1 ulp`, `3.5 ulps`; ulps are counted only if both numbers are finite."""
    if math.isinf(ulps):
        return "infinitely many ulps"
    return f"{ulps:.3g} ulp" + ("" if ulps == 1 else "s")


def _exact(value: Any) -> str:
    """All digits that tell a number from its neighbours in its own dtype."""
    return str(np.asarray(value)[()])
