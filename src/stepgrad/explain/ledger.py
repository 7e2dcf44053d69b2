"""The ledger: which forward values the backward pass reads, how large they are, and until when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.cells import Parameter
from stepgrad.explain.arrange import Arranged, is_inline
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation
from stepgrad.tape.layout import plural, size_text, table


@dataclass(frozen=True)
class Row:
    """A cached forward value.

    Attributes:
        name, shape, dtype: what it is.
        bytes: what keeping it costs; 0 for a view of another one.
        kind: "saved" if it is kept for the backward pass only; "input", "parameter", "state" or
            "constant" if it is held anyway.
        view_of: the name of the value whose memory it shares, or None.
        read_by: numbers of the steps whose backward reads it, in the order of the backward pass.
        freed_after: the last of them: then it can be freed. None for what is held anyway.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    kind: str
    view_of: str | None
    read_by: tuple[int, ...]
    freed_after: int | None


@dataclass(frozen=True, repr=False)
class Ledger:
    """Every forward value that the backward pass reads.

    Attributes:
        rows: one for each value, in the order in which the forward pass computed them.
        saved_bytes: the sum over what is kept for the backward pass only.
        held_bytes: the sum over inputs, parameters and constants, which are held anyway.
        peak_bytes: the most memory at any time of the backward pass, in saved values and gradients
            together, when each is freed as soon as nothing later reads it.
    """

    rows: tuple[Row, ...]
    saved_bytes: int
    held_bytes: int
    peak_bytes: int

    def __repr__(self) -> str:
        header = ("value", "shape", "dtype", "bytes", "kind", "read by step", "freed after")
        cells = [
            (
                row.name,
                str(row.shape),
                row.dtype,
                f"{row.bytes:,}" if row.view_of is None else f"view of {row.view_of}",
                row.kind,
                _steps(row.read_by),
                "" if row.freed_after is None else f"step {row.freed_after}",
            )
            for row in self.rows
        ]
        count = sum(row.kind == "saved" for row in self.rows)
        return "\n".join(
            [
                *table(header, cells, right=(3,)),
                "",
                f"saved for the backward pass: {plural(count, 'value')}, {size_text(self.saved_bytes)}"
                f"; held anyway: {size_text(self.held_bytes)}",
                f"peak of saved values and gradients in the backward pass: {size_text(self.peak_bytes)}",
            ]
        )


def _steps(numbers: Sequence[int]) -> str:
    shown = [str(n) for n in numbers]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:3], f"… {shown[-1]} ({len(shown)} steps)"])


def cached(made: Arranged) -> list[Equation]:
    """The forward values that the backward pass reads: leaves first, then in the order of computation."""
    inside = set(made.backward)
    lines = made.written.lines
    found = {s for e in made.backward if e in lines for s in lines[e].reads if s not in inside}
    found.update(e for e in made.wanted_gradients().values() if e not in inside)
    return sorted((e for e in found if is_stored(made, e)), key=lambda e: (bool(e.inputs), e.serial))


def is_stored(made: Arranged, equation: Equation) -> bool:
    """It has to be kept: it is neither a number written into the formulas nor a downstream gradient."""
    if equation in made.seeds.values() or equation not in made.names.of:
        return False
    return not (equation.op is CONSTANT and is_inline(equation))


def ledger(made: Arranged) -> Ledger:
    """The ledger of an arranged call; see `Trace.cache`."""
    kept = cached(made)
    readers: dict[Equation, list[int]] = {e: [] for e in kept}
    for step in reversed(made.steps):
        for source in step.reads:
            if source in readers:
                readers[source].append(step.number)
    held = {id(_owner(e.value)): n for n, e in {**made.inputs, **made.parameters, **made.constants}.items()}
    rows: list[Row] = []
    seen = dict(held)
    for equation in kept:
        name, owner = made.names.of[equation], _owner(equation.value)
        kind = _kind(equation)
        view = seen.setdefault(id(owner), name)
        is_view = kind == "saved" and view != name
        rows.append(
            Row(
                name,
                equation.type.shape,
                equation.type.dtype.name,
                0 if is_view else owner.nbytes if kind == "saved" else equation.type.nbytes,
                kind,
                view if is_view else None,
                tuple(readers[equation]),
                readers[equation][-1] if kind == "saved" and readers[equation] else None,
            )
        )
    return Ledger(
        tuple(rows),
        sum(row.bytes for row in rows if row.kind == "saved"),
        sum(row.bytes for row in rows if row.kind != "saved"),
        _peak(made, kept, held),
    )


def _kind(equation: Equation) -> str:
    if equation.op is CELL:
        return "parameter" if isinstance(equation.params["cell"], Parameter) else "state"
    return "input" if equation.op is INPUT else "saved" if equation.inputs else "constant"


def _owner(value: Any) -> np.ndarray[Any, Any]:
    """The array whose memory a value shares."""
    array = np.asarray(value)
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _peak(made: Arranged, kept: Sequence[Equation], held: dict[int, str]) -> int:
    last: dict[int, int] = {}  # storage -> position of the last equation that uses it
    for position, equation in enumerate(made.backward):
        for e in (equation, *(i for i in equation.inputs if i.op is not LITERAL)):
            last[id(_owner(e.value))] = position
    for equation in made.wanted_gradients().values():
        last[id(_owner(equation.value))] = len(made.backward)
    live = {id(_owner(e.value)): _owner(e.value).nbytes for e in (*kept, *made.seeds.values())}
    live = {storage: size for storage, size in live.items() if storage not in held}
    total = peak = sum(live.values())
    ending: dict[int, list[int]] = {}
    for storage, position in last.items():
        ending.setdefault(position, []).append(storage)
    for position, equation in enumerate(made.backward):
        owner = _owner(equation.value)
        if id(owner) not in live and id(owner) not in held:
            live[id(owner)] = owner.nbytes
            total += owner.nbytes
            peak = max(peak, total)
        for storage in ending.get(position, ()):
            total -= live.pop(storage, 0)
    return peak
