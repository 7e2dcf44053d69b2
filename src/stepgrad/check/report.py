"""The report of a gradient check."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class ArgumentCheck:
    """The gradient with respect to one argument or parameter.

    Attributes:
        name: what the function calls it.
        shape: its shape.
        ok: every number that could be compared agrees.
        error: the largest relative error |a - n| / max(|a|, |n|, what float64 can resolve).
        count: how many derivatives were compared: one for each element, or one for each direction.
        kinks: how many more could not be compared, because the function has a kink there.
        method: "complex step", "central differences" or, where the first failed in places, both.
        directions: whether random directions were compared rather than every element.
        worst: the element with the largest error, if elements were compared.
        ours, theirs: the derivative by backpropagation and the numerical one where the error is largest.
    """

    name: str
    shape: tuple[int, ...]
    ok: bool
    error: float
    count: int
    kinks: int
    method: str
    directions: bool
    worst: tuple[int, ...] | None = None
    ours: float = 0.0
    theirs: float = 0.0


@dataclass(frozen=True)
class EquationCheck:
    """The local rule of one equation, at its recorded values.

    Attributes:
        op, name: its op, and the user's name for its result.
        operand, operand_name: the operand whose rule has the largest error, counted from 0; None for
            something that a custom rule's forward uses although it is not an operand.
        error: that relative error.
        ok: the error is within the tolerance.
        problem: what is wrong with the rule, as far as it can be told; empty if it is right.
        file, line, code: the user's line that computes it.
        rule: for a custom rule, file and line of its backward.
    """

    op: str
    name: str | None
    operand: int | None
    operand_name: str | None
    error: float
    ok: bool
    problem: str
    file: str
    line: int
    code: str
    rule: tuple[str, int] | None = None


@dataclass(frozen=True)
class Kink:
    """A place where the function has no derivative: relu at 0, a tie in max, a comparison of equals.

    Attributes:
        op, name: the op with the kink, and the user's name for its result.
        element: the index of the element of its result.
        file, line, code: the user's line that computes it.
    """

    op: str
    name: str | None
    element: tuple[int, ...]
    file: str
    line: int
    code: str


@dataclass(frozen=True, repr=False)
class Report:
    """What `sg.check_gradients` found. True if the gradients are right.

    Attributes:
        ok: no gradient and no local rule is wrong. Kinks are not mistakes.
        max_error: the largest relative error of a gradient.
        tolerance: the largest relative error that counts as agreement.
        arguments: a check for each argument and parameter.
        equations: a check of each local rule that was used, in the order of recording.
        kinks: where the function has no derivative at the given values; not compared.
        notes: what else a reader should know.
    """

    ok: bool
    max_error: float
    tolerance: float
    arguments: tuple[ArgumentCheck, ...]
    equations: tuple[EquationCheck, ...]
    kinks: tuple[Kink, ...]
    notes: tuple[str, ...] = ()

    @property
    def first_wrong(self) -> EquationCheck | None:
        """The first equation, in the order of recording, whose local rule is wrong."""
        return next((e for e in self.equations if not e.ok), None)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        lines = [_headline(self), *(_argument(a, self) for a in self.arguments[:_MOST])]
        if len(self.arguments) > _MOST:
            worst = max(a.error for a in self.arguments[_MOST:])
            lines.append(f"  … and {len(self.arguments) - _MOST} more, max relative error {_number(worst)}")
        lines += _rules(self) + _kinks(self)
        for note in self.notes:
            lines += textwrap.wrap(f"note: {note}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(_cut(line) for line in lines)


_MOST = 30


def _headline(report: Report) -> str:
    arguments = _count(len(report.arguments), "argument")
    if report.ok and not any(a.count for a in report.arguments):
        return f"nothing was compared: {arguments}"
    numbers = _count(sum(a.count for a in report.arguments), "derivative")
    verdict = "gradients agree" if report.ok else "GRADIENTS ARE WRONG"
    return f"{verdict}: {arguments}, {numbers} compared, max relative error {_number(report.max_error)}"


def _argument(check: ArgumentCheck, report: Report) -> str:
    width = max(len(a.name) for a in report.arguments[:_MOST])
    shapes = max(len(str(a.shape)) for a in report.arguments[:_MOST])
    if not check.count:
        what = "nothing to compare: it is empty" if 0 in check.shape else "not compared: kinks everywhere"
        return f"  {check.name:<{width}}  {check.shape!s:<{shapes}}  {what}"
    points = "random direction" if check.directions else "element"
    what = f"{_count(check.count, points)}, {check.method}"
    if check.kinks:
        what += f", {check.kinks:,} more at kinks"
    row = f"  {check.name:<{width}}  {check.shape!s:<{shapes}}  {_number(check.error):>7}  {what}"
    if check.ok:
        return row
    at = "" if check.worst in (None, ()) else f"element {list(check.worst or ())}: "
    return f"{row}\n      {at}backpropagation says {check.ours:.8g}, differences say {check.theirs:.8g}"


def _rules(report: Report) -> list[str]:
    if not report.equations:
        return []
    wrong = [e for e in report.equations if not e.ok]
    if not wrong:
        rules = f"{len(report.equations):,} local rules agree" if len(report.equations) > 1 else "1 local rule agrees"
        worst = max(e.error for e in report.equations)
        line = f"  {rules} with differences, max relative error {_number(worst)}"
        return [line] if report.ok else [line, *_unexplained()]
    first = wrong[0]
    operand = first.operand_name or f"operand {first.operand}"
    lines = [
        "",
        f"  what   the local rule of {first.op} for {operand} is wrong (relative error {_number(first.error)})",
        f"  where  {os.path.basename(first.file)}:{first.line}: {first.code}",
    ]
    if first.rule is not None:
        lines.append(f"         its backward is at {os.path.basename(first.rule[0])}:{first.rule[1]}")
    lines += textwrap.wrap(first.problem, WIDTH, initial_indent="  look   ", subsequent_indent="         ")
    if len(wrong) > 1:
        others = ", ".join(dict.fromkeys(f"{e.op} at {os.path.basename(e.file)}:{e.line}" for e in wrong[1:6]))
        lines += textwrap.wrap(
            f"{_count(len(wrong) - 1, 'more equation')} with a wrong rule: {others}{', …' if len(wrong) > 6 else ''}",
            WIDTH,
            initial_indent="  also   ",
            subsequent_indent="         ",
        )
    return lines


def _unexplained() -> list[str]:
    return [
        "",
        "  what   the gradient is wrong although every local rule is right",
        "  where  on the way: a path is missing, or counted twice",
        "  look   for a custom rule whose forward uses a tensor that is not one of its operands",
    ]


def _kinks(report: Report) -> list[str]:
    if not report.kinks:
        return []
    places: dict[tuple[str, str, int, str], list[Kink]] = {}
    for kink in report.kinks:
        places.setdefault((kink.op, kink.file, kink.line, kink.code), []).append(kink)
    lines = [f"  {_count(len(report.kinks), 'kink')}, where there is no derivative to compare with:"]
    for (op, file, number, code), kinks in list(places.items())[:5]:
        shown = ", ".join(str(list(k.element)) for k in kinks[:3] if k.element)
        at = f" element{'s' if len(kinks) > 1 else ''} {shown}{', …' if len(kinks) > 3 else ''}" if shown else ""
        lines.append(f"    {op}{at} at {os.path.basename(file)}:{number}: {code}")
    if len(places) > 5:
        lines.append(f"    … and in {len(places) - 5} more places")
    return lines


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _number(x: float) -> str:
    return f"{x:.0e}" if 0 < x < float("inf") else "0" if x == 0 else "infinite"


def _cut(line: str) -> str:
    return "\n".join(part if len(part) <= WIDTH else part[: WIDTH - 1] + "…" for part in line.split("\n"))
