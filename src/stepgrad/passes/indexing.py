"""Where the elements of a tensor are: maps of indices through views, and addresses in memory.

An index map says, for each axis of a tensor, which element is meant at a point of a kernel's domain:

- `NOWHERE` (-1): element 0, whatever the point is (a repeated axis, or one of length 1);
- d >= 0: the element with the number of the domain's axis d;
- (start, d, step): start + step times that number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stepgrad.tape.equation import Equation

Entry = Any
Map = tuple[Entry, ...]
NOWHERE = -1


def identity(shape: tuple[int, ...]) -> Map:
    """The map of a tensor that is the domain itself; axes of length 1 are nowhere."""
    return tuple([i if n != 1 else NOWHERE for i, n in enumerate(shape)])


def through(view: Equation, at: Map) -> Map | None:
    """The map of a view's input, given that of the view; None where elements change places between axes."""
    source = view.inputs[0].type.shape
    name = view.op.name
    if name == "expand":
        lead = len(at) - len(source)
        return tuple([NOWHERE if n == 1 else at[lead + i] for i, n in enumerate(source)])
    if name == "transpose":
        moved: list[Entry] = [NOWHERE] * len(at)
        for out, axis in enumerate(view.params["axes"]):
            moved[axis] = at[out]
        return tuple(moved)
    if name == "reshape":
        return _reshaped(source, view.type.shape, at)
    if name == "flip":
        axes = view.params["axis"]
        return tuple([_affine(at[i], n - 1, -1) if i in axes else at[i] for i, n in enumerate(source)])
    return _sliced(view, source, at)


def _reshaped(source: tuple[int, ...], target: tuple[int, ...], at: Map) -> Map | None:
    """Reshapes that only insert and drop axes of length 1."""
    kept = [entry for entry, n in zip(at, target, strict=True) if n != 1]
    if [n for n in source if n != 1] != [n for n in target if n != 1]:
        return None
    entries = iter(kept)
    return tuple([NOWHERE if n == 1 else next(entries) for n in source])


def _affine(entry: Entry, start: int, step: int) -> Entry:
    """start + step * (what the entry means)."""
    if entry == NOWHERE:
        return (start, NOWHERE, 0) if start else NOWHERE
    if isinstance(entry, tuple):
        first, d, stride = entry
        return start + step * first, d, step * stride
    return start, entry, step


def _sliced(view: Equation, source: tuple[int, ...], at: Map) -> Map | None:
    found: list[Entry] = []
    out = axis = 0
    index = view.params["index"]
    used = sum(1 for part in index if part is not None and part is not Ellipsis)
    for part in index:
        if part is None:
            out += 1
        elif part is Ellipsis:
            for _ in range(len(source) - used):
                found.append(at[out])
                out, axis = out + 1, axis + 1
        elif isinstance(part, tuple):
            start, _, step = slice(*part).indices(source[axis])
            length = view.type.shape[out]
            found.append(_affine(at[out] if length != 1 else NOWHERE, start, step) if (start or step != 1) else at[out])
            out, axis = out + 1, axis + 1
        elif isinstance(part, int):
            start = part + source[axis] if part < 0 else part
            found.append((start, NOWHERE, 0) if start else NOWHERE)
            axis += 1
        else:
            return None
    found.extend(at[out:])
    return tuple(found)


def composed(inner: Map, at: Map) -> Map:
    """The map of x, given x's map relative to e (`inner`), and e's own (`at`)."""
    found: list[Entry] = []
    for entry in inner:
        if isinstance(entry, tuple):
            start, d, step = entry
            found.append(_affine(at[d], start, step) if d >= 0 else entry)
        else:
            found.append(at[entry] if entry >= 0 else NOWHERE)
    return tuple(found)


class Place(NamedTuple):
    """A tensor in memory: element (i, j, …) is at offset + i * strides[0] + j * strides[1] + …"""

    base: Equation
    offset: int
    strides: tuple[int, ...]


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of an array in C order."""
    strides, step = [0] * len(shape), 1
    for i in range(len(shape) - 1, -1, -1):
        strides[i] = step
        step *= shape[i]
    return tuple(strides)


def place(equation: Equation, known: dict[Equation, Place | None], is_view: Any) -> Place | None:
    """Where a tensor is in memory if what it is a view of is stored; None if elements would have to move."""
    if equation in known:
        return known[equation]
    found: Place | None
    if not is_view(equation):
        found = Place(equation, 0, row_major(equation.type.shape))
    else:
        found = place(equation.inputs[0], known, is_view)
        if found is not None:
            found = _viewed(equation, found)
    known[equation] = found
    return found


def _viewed(view: Equation, source: Place) -> Place | None:
    shape, target = view.inputs[0].type.shape, view.type.shape
    if not view.type.size:
        return Place(source.base, 0, row_major(target))
    entries = through(view, tuple(range(len(target))))
    if entries is None:
        strides = _regrouped(shape, source.strides, target) if view.op.name == "reshape" else None
        return None if strides is None else Place(source.base, source.offset, strides)
    offset, strides_out = source.offset, [0] * len(target)
    for entry, stride in zip(entries, source.strides, strict=True):
        start, d, step = entry if isinstance(entry, tuple) else (0, entry, 1)
        offset += start * stride
        if d >= 0:
            strides_out[d] += step * stride
    return Place(source.base, offset, tuple(strides_out))


def _regrouped(shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides after a reshape that needs no copy, as NumPy finds them; else None."""
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    found: list[int] = []
    position = 0
    waiting: list[int] = []
    size = 1
    for n in target:
        if n == 1:
            found.append(0)
            continue
        waiting.append(len(found))
        found.append(n)
        size *= n
        merged, end, total = 1, position, 1
        while end < len(old) and total < size:
            total *= old[end][0]
            end += 1
        if total != size:
            continue
        for i in range(position, end - 1):
            if old[i][1] != old[i + 1][0] * old[i + 1][1]:
                return None
        step = old[end - 1][1]
        for slot in reversed(waiting):
            length = found[slot]
            found[slot] = step * merged
            merged *= length
        waiting, size, position = [], 1, end
    return tuple(found) if not waiting else None
