"""The report of `check_backward`."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stepgrad.check.report import WIDTH


@dataclass(frozen=True)
class GradientCheck:
    """One gradient that a backward returned.

    Attributes:
        name: what the user calls it, such as "dW2".
        of: the input that it is the gradient of.
        shape: the shape of the input.
        error: the largest relative error over all points; infinite where shapes differ.
        ok: the error is within the tolerance.
    """

    name: str
    of: str
    shape: tuple[int, ...]
    error: float
    ok: bool


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        gradient: the user's name of the value that is wrong, such as "dW2"; None if it is about all of it.
        line: the line in the user's file that is wrong; None where it can't be told.
        code: that line's text.
        mistake: the catalogue's name; "unknown" if none matches.
        candidates: the names that fit, best first.
        fix: a line of code to write instead; None where none can be written.
        evidence: what shows it: numbers and words by name.
        text: what is wrong, in words.
        file: the user's file.
    """

    gradient: str | None
    line: int | None
    code: str
    mistake: str
    candidates: tuple[str, ...] = ()
    fix: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    file: str | None = None

    def __repr__(self) -> str:
        place = "" if self.line is None else f" (line {self.line})"
        code = f":  {self.code}" if self.code else ""
        subject = "the backward pass" if self.gradient is None else self.gradient
        lines = [f"{subject} is wrong{place}{code}"]
        lines += textwrap.wrap(self.text, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
        if self.fix:
            lines.append(f"  write:  {self.fix}")
        others = [name for name in self.candidates if name != self.mistake][:2]
        name = f"  mistake: {self.mistake}" + (f"  (or: {', '.join(others)})" if others else "")
        return "\n".join([*lines, name])


@dataclass(frozen=True, repr=False)
class BackwardReport:
    """What `sg.check_backward` found. True if the backward pass is right.

    Attributes:
        ok: every gradient is right at every point, and nothing else is wrong.
        findings: what is wrong, first cause first.
        gradients: each gradient that was returned, with its relative error.
        points: at how many points forward and backward were run.
        reference: what the gradients were compared with.
        max_error: the largest relative error of a right gradient.
        difference_error: how far the reference itself is from finite differences.
        notes: what else a reader should know.
    """

    ok: bool
    findings: tuple[Finding, ...]
    gradients: tuple[GradientCheck, ...]
    points: int
    reference: str
    difference_error: float
    rest: str = ""
    notes: tuple[str, ...] = ()

    @property
    def max_error(self) -> float:
        return max((g.error for g in self.gradients if g.ok), default=0.0)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        right = [g for g in self.gradients if g.ok]
        number = f"{len(right)} gradient{'' if len(right) == 1 else 's'}"
        error = max(self.max_error, self.difference_error)
        agree = f"agrees with {self.reference} ({number}, max relative error {error:.0e})"
        if self.ok:
            lines = [f"backward is right: everything {agree} at {self.points} points"]
        else:
            lines = [repr(f) for f in self.findings]
            lines += textwrap.wrap(self.rest, WIDTH) if self.rest else []
            wrong = [g for g in self.gradients if not g.ok]
            if wrong and self.findings:
                lines.append("Wrong in the end: " + ", ".join(_error(g) for g in wrong) + ".")
            if right:
                lines.append(f"Everything else {agree}.")
        for note in self.notes:
            lines += textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="  ")
        return "\n".join(lines)


def _error(check: GradientCheck) -> str:
    return f"{check.name} ({'another shape' if check.error == float('inf') else f'{check.error:.0e}'})"


def file_name(path: str | None) -> str | None:
    """A path as reports write it."""
    return None if path is None else os.path.basename(path)
