"""Which equation of one trace corresponds to which of another: the same tape, or an alignment of two that differ."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from stepgrad.check.observed import Observed
from stepgrad.tape.equation import LITERAL, Equation, leaves

Pair = tuple[Equation, Equation]


@dataclass(frozen=True, eq=False)
class Matched:
    """What corresponds in two traces.

    Attributes:
        leaves: inputs, parameters and constants, in order of first use.
        equations: computed values, in order.
        change: where the tapes first differ: equations of one, and of the other, in its place; None if they don't.
        changes: in how many places they differ.
    """

    leaves: tuple[Pair, ...]
    equations: tuple[Pair, ...]
    change: tuple[tuple[Equation, ...], tuple[Equation, ...]] | None
    changes: int


def match(a: Observed, b: Observed) -> Matched:
    """Matches two traces: by structure if the tapes are the same, else by aligning ops, shapes and settings."""
    one, other = _computed(a), _computed(b)
    if _keys(one) != _keys(other):  # perhaps one of them only converts between precisions
        plain = [[e for e in equations if not _is_conversion(e)] for equations in (one, other)]
        if _keys(plain[0]) == _keys(plain[1]):
            one, other = plain
    pairs: list[Pair] = []
    changed: list[tuple[tuple[Equation, ...], tuple[Equation, ...]]] = []
    for tag, i, j, k, n in _opcodes(_keys(one), _keys(other)):
        if tag == "equal":
            pairs += zip(one[i:j], other[k:n], strict=True)
        else:
            changed.append((tuple(one[i:j]), tuple(other[k:n])))
    wired = _Wiring(pairs)
    rewired = [((x,), (y,)) for x, y in wired.wrong]
    changed = sorted([*changed, *rewired], key=lambda pair: _position(pair, one, other))
    wrong = set(wired.wrong)
    good = tuple(p for p in pairs if p not in wrong)
    return Matched(tuple(wired.leaves), good, changed[0] if changed else None, len(changed))


def _computed(call: Observed) -> list[Equation]:
    return [*call.made.forward, *call.made.backward, *call.made.update]


def _position(
    change: tuple[tuple[Equation, ...], tuple[Equation, ...]], one: Sequence[Equation], other: Sequence[Equation]
) -> float:
    if change[0]:
        return one.index(change[0][0])
    return other.index(change[1][0]) - 0.5


def _keys(equations: Sequence[Equation]) -> list[Hashable]:
    return [_key(e) for e in equations]


def _key(e: Equation) -> Hashable:
    """What corresponding equations have in common, whatever their precision."""
    params = tuple((name, _setting(value)) for name, value in sorted(e.params.items()))
    return e.role, e.op.name, e.type.shape, e.type.dtype.kind, params


def _setting(value: object) -> str:
    return value.kind if isinstance(value, np.dtype) else repr(value)


def _is_conversion(e: Equation) -> bool:
    return e.op.name == "astype" and e.type.is_float and e.inputs[0].type.is_float


def _opcodes(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[tuple[str, int, int, int, int]]:
    """As of difflib, which takes long for long sequences: what is common at both ends is taken off first."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    found: list[tuple[str, int, int, int, int]] = [("equal", 0, start, 0, start)]
    middle = difflib.SequenceMatcher(None, one[start : len(one) - end], other[start : len(other) - end], autojunk=False)
    found += [(tag, i + start, j + start, k + start, n + start) for tag, i, j, k, n in middle.get_opcodes()]
    found.append(("equal", len(one) - end, len(one), len(other) - end, len(other)))
    return found


class _Wiring:
    """Whether matched equations also read what corresponds.

    Attributes:
        leaves: the leaves that correspond, because corresponding equations read them as the same operand.
        wrong: pairs that read other things.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.leaves: list[Pair] = []
        self.wrong: list[Pair] = []
        self._partner: dict[Equation, Equation] = {}
        self._back: dict[Equation, Equation] = {}
        for x, y in pairs:
            fits = [self._fits(s, t) for s, t in zip(x.inputs, y.inputs, strict=False)]  # of all: it pairs leaves
            if all(fits) and len(x.inputs) == len(y.inputs):
                self._join(x, y)
            else:
                self.wrong.append((x, y))

    def _join(self, x: Equation, y: Equation) -> None:
        self._partner[x], self._back[y] = y, x

    def _fits(self, s: Equation, t: Equation) -> bool:
        s, t = _before_conversions(s), _before_conversions(t)
        if s.op is LITERAL or t.op is LITERAL:
            return s.op is t.op and repr(s.params["value"]) == repr(t.params["value"])
        if s in self._partner and t in self._back:
            return self._partner[s] is t
        if s.op in leaves and t.op in leaves and s.type.shape == t.type.shape:
            if s in self._partner or t in self._back:
                return False
            self._join(s, t)
            self.leaves.append((s, t))
            return True
        return s.op not in leaves and t.op not in leaves  # one was added or removed, which is told as that


def _before_conversions(e: Equation) -> Equation:
    while _is_conversion(e):
        e = e.inputs[0]
    return e
