"""Sharing: which part of a kernel's work each thread does, and which elements of each operand that touches.

Outputs are shared out, never sums, so the result has the same bits at any number of threads. Two
kernels that share in the same way need no barrier between them: what a thread reads, it wrote itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgrad.passes.bodies import Body

Part = tuple[Any, ...]
"""Which elements of an operand a thread touches. Equal parts of one tensor are the same elements; None: any."""


@dataclass(frozen=True)
class Split:
    """How a kernel's work is shared out: thread t of n computes the t-th of n parts of `length` things.

    Parts begin at multiples of `unit`. What the things are is `axis`: "rows" (points of the outer axes, or
    rows of a product), "columns" (the inner axis); each thing stands for `scale` of them. With `length` 0
    nothing is shared: one thread computes it all.
    """

    length: int
    unit: int = 1
    scale: int = 1
    axis: str = "rows"


def parts(body: Body, split: Split) -> dict[int, Part | None]:
    """For each operand, which elements a thread touches that computes its share."""
    found: dict[int, Part | None] = {}
    if body.kind == "check":
        return {0: ("all",), 1: ("all",)}
    if body.kind == "scatter" and split.length:
        return {0: None, 1: None, 2: ("columns", split.length, split.unit, split.scale, body.inner)}
    if body.kind == "random" and split.length:
        found = dict.fromkeys(range(len(body.dtypes) - 1))
        return {**found, len(body.dtypes) - 1: ("rows", split.length, split.unit, 4)}
    if body.kind in ("join", "running") and split.length:
        written: Part | None = None  # elements of one block are shared out by vectors
        if split.axis == "columns":
            written = ("columns", split.length, split.unit, split.scale, body.inner)
        elif body.rows > 1:
            written = ("rows", split.length, split.unit, body.reduced * body.inner)
        return {**dict.fromkeys(range(len(body.dtypes) - 1)), len(body.dtypes) - 1: written}
    if not split.length:
        return dict.fromkeys(range(len(body.dtypes)), ("one",))
    for op, _, _, params in body.nodes:
        if op == "load":
            _note(found, params[0], _part(body, split, params[1], params[2]))
        elif op == "pick":
            _note(found, params[0], None)
    for _, operand, offset, steps in body.stores:
        _note(found, operand, _part(body, split, offset, steps))
    if body.matrices is not None:
        _, a_offset, batch, row, column = body.matrices.a
        steps = (*batch, row)
        own = split.axis == "rows" and column >= 0 and row > column * (body.matrices.inner - 1)
        a = _rows(body, split, a_offset, steps, column * (body.matrices.inner - 1)) if own else None
        _note(found, body.matrices.a[0], a)
        _note(found, body.matrices.b[0], None)
    return found


def _note(found: dict[int, Part | None], operand: int, part: Part | None) -> None:
    found[operand] = part if found.get(operand, part) == part else None


def _part(body: Body, split: Split, offset: int, steps: tuple[int, ...]) -> Part | None:
    if split.axis == "columns":
        return _columns(body, split, offset, steps)
    if body.kind == "rows":
        if body.rows == 1 and split.scale * split.length == body.inner and steps[-1] == 1 and not offset:
            return "rows", split.length, split.unit, split.scale
        return _rows(body, split, offset, steps[:-1], steps[-1] * (body.inner - 1))
    if body.rows > 1:
        rest = steps[-1] * (body.inner - 1) + steps[-2] * (body.reduced - 1)
        return _rows(body, split, offset, steps[:-2], rest)
    return _rows(body, split, offset, steps[:-1], steps[-1] * (body.inner - 1))


def _rows(body: Body, split: Split, offset: int, steps: tuple[int, ...], span: int) -> Part | None:
    """Blocks of whole rows: row r is the elements from r * step on."""
    lengths = (*body.outer, body.reduced) if len(steps) > len(body.outer) else body.outer
    if body.kind == "product" and body.rows > 1:
        lengths = body.outer
        span, steps = span + sum(0 for _ in steps[len(lengths) :]), steps
        if len(steps) > len(lengths):
            span += steps[-1] * (body.reduced - 1)
            steps = steps[: len(lengths)]
    step = None
    expected = 1
    for n, s in zip(reversed(lengths), reversed(steps), strict=True):
        if n != 1:
            if step is None:
                step = s
            if s != step * expected:
                return None
        expected *= n
    if step is None or step <= 0 or offset < 0 or span < 0 or offset + span >= step:
        return None
    return "rows", split.length, split.unit, split.scale * step


def _columns(body: Body, split: Split, offset: int, steps: tuple[int, ...]) -> Part | None:
    """Blocks of columns: column c of row r is element r * step + c."""
    if steps[-1] != 1 or offset or any(steps[: len(body.outer)]):
        return None
    step = steps[-2] if len(steps) > 1 else 0
    if step and step < body.inner:
        return None
    return ("columns", split.length, split.unit, split.scale, step) if step else (
        "rows", split.length, split.unit, split.scale
    )  # fmt: skip
