"""The answer of `sg.why` as text."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

from stepgrad.tape.layout import WIDTH, table

if TYPE_CHECKING:
    from stepgrad.check.why import PathStep, Why

_MOST = 20
"""So many steps of the path are shown."""

_WIDEST = 52

_HEADLINES = {
    "none": "{0} has no gradient",
    "zero": "The gradient of {0} is zero",
    "tiny": "The gradient of {0} is tiny, with a norm of {1:.2g}",
    "partly zero": "The gradient of {0} has zeros in it; its norm is {1:.3g}",
    "not finite": "The gradient of {0} is not finite",
    "fine": "The gradient of {0} is fine, with a norm of {1:.3g}",
}


def told(why: Why) -> str:
    """What the gradient is, where its path is cut or shrinks, the path with its gains, and what helps."""
    headline = _HEADLINES[why.verdict].format(why.parameter, why.norm)
    lines = [headline if why.verdict == "fine" else f"{headline}: {why.reason}"]
    if why.place:
        lines.append(f"  {'at' if why.certain else 'perhaps at'} {why.place}")
    lines += _wrapped(why.explanation)
    if why.others:
        lines += _wrapped("cut off as well at: " + "; ".join(why.others))
    if why.path:
        lines += ["", *("  " + line for line in _path(why)), ""]
    return "\n".join([*lines, *_wrapped("instead: " + why.remedy)])


def _path(why: Why) -> list[str]:
    rows = [_row(step) for step in why.path]
    if len(rows) > _MOST:
        half = _MOST // 2
        rows = [*rows[:half], ("⋮", f"{len(rows) - 2 * half} more", "", "", ""), *rows[-half:]]
    header = ("from the loss back", "arrives", "gain", "zeros", "line")
    return table(header, rows, right=(1, 2, 3))


def _row(step: PathStep) -> tuple[str, str, str, str, str]:
    text = step.text if len(step.text) <= _WIDEST else step.text[: _WIDEST - 1] + "…"
    where = f"{os.path.basename(step.file)}:{step.line}" + (f" in {'.'.join(step.scope)}" if step.scope else "")
    return text, f"{step.arrives:.2g}", f"{step.gain:.2g}", f"{step.zeros:.0%}" if step.zeros else "", where


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
