"""What differs between two recordings of a function: a Python value that has changed, and would go stale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgrad.compile.recorded import Recorded
from stepgrad.errors import StaleError
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation, leaves
from stepgrad.tape.places import place_text
from stepgrad.tensor import ArrayLike


def check(first: Recorded, again: Recorded, name: str) -> None:
    """Raises StaleError unless a function was recorded as before.

    Compared are ops, params, types, wiring, Python numbers, constants (bit by bit), cells and results.
    """
    found = next(_differences(first, again), None)
    if found is None:
        return
    said, equation = found
    where = "" if equation is None else f"\n  at {place_text(equation.where)}"
    raise StaleError(
        f"{name} was recorded again, and it is not what it was: {said}{where}",
        "the program has the old value built in, and would go on computing with it",
        "pass what changes as an argument: arrays and floats are inputs, and each other value gets a program of its "
        "own; or keep it in an sg.State, which a step may assign to",
    )


def _differences(first: Recorded, again: Recorded) -> Iterator[tuple[str, Equation | None]]:
    numbers = [{e: i for i, e in enumerate((*r.tape.inputs, *r.tape.equations))} for r in (first, again)]
    for i, (old, new) in enumerate(zip(first.tape, again.tape, strict=False)):
        said = _different(old, new, *numbers)
        if said:
            yield f"equation {i + 1}, {_call(new)}: {said}", new
    ends = len(first.tape), len(again.tape)
    if ends[0] != ends[1]:
        longer, i = (first, ends[1]) if ends[0] > ends[1] else (again, ends[0])
        extra = longer.tape.equations[i]
        yield f"equation {i + 1}, {_call(extra)}, is {'missing' if longer is first else 'new'}", extra
    for old, new in zip(first.tape.outputs, again.tape.outputs, strict=False):
        said = _operand(old, new, *numbers)
        if said:
            yield f"in what it returns or assigns, {said}", new
    if first.paths != again.paths or first.results != again.results or len(first.written) != len(again.written):
        yield f"it returned {_listed(first)}, and returns {_listed(again)}", None
    for path, one, other in zip(first.paths, first.kept, again.kept, strict=False):
        if not _equal(one, other):
            yield f"it returned {_short(one)}{f' at {path}' if path else ''}, and returns {_short(other)}", None


def _different(old: Equation, new: Equation, before: dict[Equation, int], after: dict[Equation, int]) -> str:
    if old.op.name != new.op.name:
        return f"it was {_call(old)}"
    if len(old.inputs) != len(new.inputs):
        return f"it had {len(old.inputs)} operands, and has {len(new.inputs)}"
    for a, b in zip(old.inputs, new.inputs, strict=True):
        said = _operand(a, b, before, after)
        if said:
            return said
    for key in dict.fromkeys((*old.params, *new.params)):
        if not _equal(old.params.get(key), new.params.get(key)):
            return f"{key} was {_short(old.params.get(key))}, and is {_short(new.params.get(key))}"
    return "" if old.type is new.type or repr(old.type) == repr(new.type) else f"it was {old.type}, and is {new.type}"


def _operand(a: Equation, b: Equation, before: dict[Equation, int], after: dict[Equation, int]) -> str:
    if a in before or b in after:
        return "" if before.get(a) == after.get(b) else f"it read {_called(a)}, and reads {_called(b)}"
    if a.op is LITERAL and b.op is LITERAL:
        return "" if _equal(a.value, b.value) else f"the number {a.value!r} has become {b.value!r}"
    if a.op is CELL and b.op is CELL:
        same = a.params["cell"] is b.params["cell"]
        return "" if same else f"it read {_called(a)}, and reads {_called(b)}, which is another cell"
    if a.op is CONSTANT and b.op is CONSTANT:
        return "" if _equal(a.value, b.value) else _other_numbers(a, b)
    return f"it read {_called(a)}, and reads {_called(b)}"


def _other_numbers(a: Equation, b: Equation) -> str:
    name = f"{b.name} " if b.name else ""
    if a.type is not b.type:
        return f"an array from outside {name}was {a.type}, and is {b.type}"
    old, new = (np.ascontiguousarray(e.value).reshape(-1) for e in (a, b))
    width = old.dtype.itemsize
    at = int(np.flatnonzero((old.view(np.uint8) != new.view(np.uint8)).reshape(-1, width).any(axis=1))[0])
    index = tuple(int(i) for i in np.unravel_index(at, a.type.shape))
    place = "" if not index else f" at {index[0] if len(index) == 1 else index}"
    return f"an array from outside, {name}{a.type}, has changed: {old[at]} became {new[at]}{place}"


def _called(equation: Equation) -> str:
    if equation.op is LITERAL:
        return f"the number {equation.value!r}"
    if equation.op is CELL:
        return f"{equation.params['cell'].kind} {equation.name or equation.type}"
    if equation.op is CONSTANT:
        return f"an array from outside, {equation.type}"
    return equation.name or (f"an input {equation.type}" if equation.op is INPUT else _call(equation))


def _call(equation: Equation) -> str:
    names = [
        repr(e.value) if e.op is LITERAL else e.name or (str(e.type) if e.op in leaves else e.op.name)
        for e in equation.inputs
    ]
    text = f"{equation.op.name}({', '.join(names)})"
    return f"{equation.name} = {text}" if equation.name else text


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, types and signs of zeros included."""
    if one is other:
        return True
    if isinstance(one, ArrayLike) or isinstance(other, ArrayLike):
        both = hasattr(one, "equation") and hasattr(other, "equation")  # cells are the same only if they are one
        return both and _equal(one.value, other.value)
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[k], other[k]) for k in one)
    return repr(one) == repr(other) if isinstance(one, (float, complex)) else bool(one == other)


def _short(value: Any) -> str:
    return f"{value!r:.60}"


def _listed(recorded: Recorded) -> str:
    count = len(recorded.paths)
    return f"{count} values and {len(recorded.written)} new values of cells" if count != 1 else "one value"
