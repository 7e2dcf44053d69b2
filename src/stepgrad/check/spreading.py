"""How NaN and Inf spread over a tape: which elements were born where, and which births reach an end.

Everything is decided by computing equations again with other numbers. An element of a result was *born* in its
equation if it isn't finite whatever finite numbers stand in for those operands that are not. A birth *reaches* an
end if the end isn't finite although all other births are replaced by finite numbers. So what a `where` masks, or
what exp(-inf) turns into 0, is nobody's cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tensor import Array

_STAND_INS = (0.6180339887, 1.6180339887, -0.4142135624, 0.0)
"""Numbers to stand in for NaN and Inf: inside the domain of one function or the other, and none of them special."""

_MOST_BIRTHS = 200
"""So many births are tried one by one."""

Element = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """The birth that reaches an end first.

    Attributes:
        equation: where it was born.
        element: the first element of its output that is enough to make the end non-finite.
        born: the elements born there, as a mask.
        reached: equation -> the elements that this one makes non-finite, as a mask; in order, the birth first.
        alone: the values of these equations with finite numbers in the places of all other births.
        others: further equations with births that reach the end.
    """

    equation: Equation
    element: Element
    born: Array
    reached: dict[Equation, Array]
    alone: dict[Equation, Array]
    others: tuple[Equation, ...]


def bad(value: Any) -> Array:
    """Where numbers are NaN or infinite."""
    array = np.asarray(value)
    return ~np.isfinite(array) if array.dtype.kind in "fc" else np.zeros(array.shape, np.bool_)


def find(equations: Sequence[Equation], end: Equation) -> Found:
    """The first cause of a non-finite end.

    Args:
        equations: all that was recorded, in order, with values.
        end: one of them, or a leaf, with a value that isn't finite.
    """
    spreading = _Spreading(equations, end)
    births = spreading.births()
    first: Found | None = None
    others: list[Equation] = []
    for equation, born in list(births.items())[:_MOST_BIRTHS]:
        if end not in spreading.reach(equation, born)[0]:
            continue
        if first is not None:
            others.append(equation)
            continue
        element = spreading.first_element(equation, born)
        first = Found(equation, element, born, *spreading.reach(equation, _only(element, born.shape)), ())
    if first is None:  # only several births together reach it, as in min(inf, inf)
        equation, born = next(iter(births.items()))
        element = _element(int(np.flatnonzero(born)[0]), born.shape)
        return Found(
            equation,
            element,
            born,
            {equation: born, end: bad(end.value)},
            {equation: equation.value, end: end.value},
            (),
        )
    return replace(first, others=tuple(others))


class _Spreading:
    def __init__(self, equations: Sequence[Equation], end: Equation) -> None:
        needed = reachable([end])
        known = set(equations)
        self.end = end
        self.order = [e for e in needed if e in known]
        self.leaves = [e for e in needed if e not in known]
        self._clean: dict[Equation, Array] = {}

    def births(self) -> dict[Equation, Array]:
        """Equation or leaf -> the elements that were born there, in the order of recording."""
        found = {}
        for e in sorted([*self.leaves, *self.order], key=lambda e: e.serial):
            value = value_of(e)
            wrong = bad(value)
            if not wrong.any():
                continue
            inputs = [value_of(s) for s in e.inputs]
            born = wrong if e in self.leaves else _own(e, inputs, value)
            if born.any():
                found[e] = born
        return found

    def reach(self, birth: Equation, elements: Array) -> tuple[dict[Equation, Array], dict[Equation, Array]]:
        """The elements that these births make non-finite while all others are replaced, and the values then."""
        values = {birth: np.where(elements, value_of(birth), self.clean(birth))}
        masks = {birth: elements}
        for e in self.order:
            if e.serial <= birth.serial or not any(s in masks for s in e.inputs):
                continue
            inputs = [values[s] if s in masks else self.clean(s) for s in e.inputs]
            full = _compute(e, inputs)
            if full is None:
                full = value_of(e)
            wrong = bad(full)
            if not wrong.any():
                continue
            spread = wrong & ~_own(e, inputs, full)
            if spread.any():
                masks[e] = spread
                values[e] = np.where(spread, full, _replaced(full, _STAND_INS[0]))
        return masks, values

    def first_element(self, birth: Equation, born: Array) -> Element:
        """The first element that is enough: the end of the shortest run of elements that reaches the end."""
        places = np.flatnonzero(born)
        low, high = 0, len(places) - 1
        while low < high:
            middle = (low + high) // 2
            part = np.zeros(born.size, np.bool_)
            part[places[: middle + 1]] = True
            if self.end in self.reach(birth, part.reshape(born.shape))[0]:
                high = middle
            else:
                low = middle + 1
        return _element(int(places[low]), born.shape)

    def clean(self, e: Equation) -> Array:
        """Its value with finite numbers for those that are not."""
        if e not in self._clean:
            self._clean[e] = _replaced(value_of(e), _STAND_INS[0])
        return self._clean[e]


def value_of(e: Equation) -> Any:
    """The value that was recorded; Python numbers stay what they are, for they have no dtype."""
    return e.params["value"] if e.op is LITERAL else e.value


def _own(e: Equation, inputs: Sequence[Any], full: Array) -> Array:
    """Where a result isn't finite whatever finite numbers stand in for its operands.

    A NaN that would be an Inf then came from the operands.
    """
    wrong = bad(full)
    if not any(bad(x).any() for x in inputs):
        return wrong
    was_nan = np.isnan(full)
    for stand_in in _STAND_INS:
        tried = _compute(e, [_replaced(x, stand_in) for x in inputs])
        if tried is None:  # NumPy refuses the stand-ins, so it is they who are wrong
            return np.zeros(wrong.shape, np.bool_)
        wrong = wrong & bad(tried) & ~(was_nan & ~np.isnan(tried))
        if not wrong.any():
            break
    return wrong


def _replaced(value: Any, stand_in: float) -> Any:
    wrong = bad(value)
    if not wrong.any():
        return value
    if not isinstance(value, np.ndarray):
        return type(value)(stand_in)
    return np.where(wrong, value.dtype.type(stand_in), value)


def _compute(e: Equation, inputs: Sequence[Any]) -> Array | None:
    """An equation computed with other numbers; None if NumPy refuses them."""
    with np.errstate(all="ignore"):
        try:
            return np.asarray(e.op.numpy(*inputs, **e.params), e.type.dtype)
        except Exception:
            return None


def _only(element: Element, shape: tuple[int, ...]) -> Array:
    mask = np.zeros(shape, np.bool_)
    mask[element] = True
    return mask


def _element(position: int, shape: tuple[int, ...]) -> Element:
    return tuple(int(i) for i in np.unravel_index(position, shape))


def path(found: Found, end: Equation) -> list[Equation]:
    """The shortest chain of equations along which the birth reaches the end, both included."""
    before: dict[Equation, Equation] = {}
    length = {found.equation: 0}
    for e in found.reached:
        sources = [s for s in e.inputs if s in length]
        if sources and e is not found.equation:
            before[e] = min(sources, key=lambda s: length[s])
            length[e] = length[before[e]] + 1
    chain = [end]
    while chain[-1] in before:
        chain.append(before[chain[-1]])
    if chain[-1] is not found.equation:  # it takes several births
        chain.append(found.equation)
    return chain[::-1]
