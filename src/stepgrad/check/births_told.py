"""A birth of a NaN or Inf as text."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from stepgrad.check.kinds import number_text
from stepgrad.tape.layout import WIDTH, plural

if TYPE_CHECKING:
    from stepgrad.check.births import Birth

_MOST = 8
"""So many steps of the way, and ends, are told."""


def told(birth: Birth) -> str:
    """What happened, where, how it spread, and what helps."""
    where = f"{os.path.basename(birth.file)}:{birth.line}" + (f": {birth.code}" if birth.code else "")
    lines = [f"{_headline(birth)}", f"  at {where}" + (f"  in {'.'.join(birth.scope)}" if birth.scope else "")]
    lines += _wrapped("", _element(birth))
    if birth.op not in ("input", "cell", "constant", "literal"):
        read = ", ".join(map(str, birth.operands))
        if birth.of is not None:
            rule = f"in the backward pass, by the local rule of {birth.of}"
            lines += _wrapped("", f"{rule}, for {read}" if read else rule)
        elif read:
            lines += _wrapped("", f"from {read}")
    if birth.in_float64 is not None:
        lines += _wrapped("", _precision(birth))
    way = [str(step) for step in birth.spread[1:]]
    if len(way) > _MOST:
        way = [*way[: _MOST // 2], f"… {len(way) - _MOST} more …", *way[-_MOST // 2 :]]
    if way:
        lines += _wrapped("it spreads: ", " → ".join(way))
    if birth.turned:
        lines += _wrapped("", f"Inf becomes NaN in {birth.turned}")
    ends = [str(end) for end in birth.ends]
    more = len(ends) - _MOST
    lines += _wrapped("in the end: ", "; ".join(ends[:_MOST]) + (f"; and {more} more" if more > 0 else ""))
    if birth.others:
        lines += _wrapped("causes on their own as well: ", "; ".join(birth.others))
    if birth.note:
        lines += _wrapped("", birth.note)
    return "\n".join([*lines, *_wrapped("instead: ", birth.remedy)])


def _headline(birth: Birth) -> str:
    if birth.role == "input":
        return f"The first cause is {birth.happened}: it was there before the call ({birth.kind})"
    return f"The first cause is {birth.happened} ({birth.kind})"


def _element(birth: Birth) -> str:
    if birth.role == "input":
        return f"{plural(birth.count, 'element')} of {birth.size:,} in {birth.text}" if birth.size > 1 else ""
    if not birth.element:
        return f"the value of {birth.text}"
    index = ", ".join(map(str, birth.element))
    counted = f", the first of {birth.count:,}" if birth.count > 1 else ""
    return f"element [{index}] of {birth.text}{counted} ({birth.size:,} elements)"


def _precision(birth: Birth) -> str:
    assert birth.in_float64 is not None
    if np.isfinite(birth.in_float64):
        largest, least = np.finfo(birth.dtype).max, np.finfo(birth.dtype).smallest_subnormal
        return (
            f"in float64 it would be {number_text(birth.in_float64)}: {birth.dtype} holds numbers up to "
            f"{number_text(largest)}, and takes those below {number_text(least)} for 0"
        )
    return "float64 would not help: there it is " + number_text(birth.in_float64)


def _wrapped(label: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(label + text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
