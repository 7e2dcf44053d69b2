"""What a value of the user's backward is: the gradient of which forward value, or what else that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepgrad.check.backward.calling import forward_name
from stepgrad.check.backward.running import Spot
from stepgrad.check.backward.subject import short_name
from stepgrad.tape.equation import Equation
from stepgrad.tensor import Array

CLOSE = 1e-7


@dataclass(frozen=True, eq=False)
class Known:
    """A value that a right backward pass may have.

    Attributes:
        kind: "gradient" of a forward value; "part" of one (another value of the right backward pass); or a
            "forward" value itself.
        number: where it stands in the list of its kind, the same at each point.
        value: the value.
        equation: the forward equation that it belongs to, if any.
    """

    kind: str
    number: int
    value: Array
    equation: Equation | None


@dataclass(frozen=True)
class Explanation:
    """A known value that a seen one agrees with, up to a factor.

    Attributes:
        known: the known value.
        factor: seen = factor * known.
        moved: the axes are in another order, or some have been dropped.
    """

    known: Known
    factor: float
    moved: bool


class Index:
    """The known values at one point, to be looked up by value and by the user's name.

    Where the forward pass can't be recorded, the gradients of the inputs are all that is known.
    """

    def __init__(self, spot: Spot) -> None:
        self.spot = spot
        self.known = list(_known(spot))
        self._gradients: dict[str, list[Known]] = {}
        self._forward: dict[str, list[Known]] = {}
        self._families: dict[str, list[Known]] = {}
        self._aliases: dict[Equation, set[str]] = {}
        for name, equations in spot.truth.aliases.items() if spot.truth else ():
            for equation in equations:
                self._aliases.setdefault(equation, set()).add(name)
        for known in self.known:
            for name in self._names_of(known):
                where = self._gradients if known.kind == "gradient" else self._forward
                where.setdefault(name, []).append(known)
                for family in _families(name) if known.kind == "gradient" else ():
                    self._families.setdefault(family, []).append(known)
        self._sizes = np.array([k.value.size for k in self.known])
        self._squares = np.array([_square(k.value) for k in self.known])
        lengths = {n for value in spot.inputs.values() for n in value.shape if n > 1}
        products = lengths | {a * b for a in lengths for b in lengths}
        self.factors = [1.0, *sorted({2.0, 0.5, *(float(n) for n in products), *(1.0 / n for n in products)})]

    def _names_of(self, known: Known) -> set[str]:
        truth = self.spot.truth
        if known.kind == "part":
            return set()
        if truth is None:
            return {short_name(list(self.spot.inputs)[known.number])}
        assert known.equation is not None
        names = {truth.bases.get(known.equation), truth.names.get(known.equation)}
        return {n for n in names if n} | self._aliases.get(known.equation, set())

    def explain(self, value: Array, factors: Iterable[float] | None = None) -> list[Explanation]:
        """All known values that this one agrees with, those without a factor first."""
        square = _square(value)
        if not value.size or not np.isfinite(square) or square == 0.0:
            return []
        near = self._sizes == value.size
        found = []
        with np.errstate(all="ignore"):
            ratios = np.sqrt(square / self._squares)
        for factor in factors or self.factors:
            for i in np.flatnonzero(near & (np.abs(ratios / factor - 1) < 1e-6)):
                known = self.known[i]
                how = _agrees(value, known.value * factor)
                if how is not None:
                    found.append(Explanation(known, factor, how == "moved"))
        found.sort(key=lambda e: (e.factor != 1.0, e.moved, _KINDS.index(e.known.kind)))
        return found

    def named(self, name: str) -> list[Known]:
        """The gradients of the forward values that a gradient's name belongs to, in the order of a backward pass."""
        for candidate in forward_name(name):
            found = self._gradients.get(candidate) or self._families.get(candidate)
            if found and (candidate != name or name.lower().startswith(("grad", "delta"))):
                return found[::-1]
        return []

    def forward_named(self, name: str) -> list[Known]:
        """The forward values of exactly this name."""
        return self._forward.get(name.removeprefix("self."), [])


def _families(name: str) -> set[str]:
    """What one of several of a kind may be called where it is handled alone: W for W1, h for hs[3]."""
    root = name.partition("[")[0]
    found = {root, root.rstrip("0123456789_")} | ({root.removesuffix("s")} if root != name else set())
    return found - {name, ""}


_KINDS = ("gradient", "part", "forward")


def _known(spot: Spot) -> Iterable[Known]:
    truth = spot.truth
    if truth is None:
        for number, value in enumerate(spot.right.values()):
            yield Known("gradient", number, value, None)
        for number, value in enumerate(spot.inputs.values()):
            yield Known("forward", number, value, None)
        return
    forward = [*truth.inputs.values(), *truth.forward]
    for number, equation in enumerate(forward):
        gradient = truth.gradients.get(equation)
        if gradient is not None and gradient.value is not None:
            yield Known("gradient", number, np.asarray(gradient.value), equation)
    ends = {id(g.equation) for g in truth.gradients.values()}
    for number, equation in enumerate(truth.backward):
        if id(equation) not in ends and equation.value is not None:
            yield Known("part", number, np.asarray(equation.value), equation.of)
    for number, equation in enumerate(forward):
        if equation.value is not None:
            yield Known("forward", number, np.asarray(equation.value), equation)


def _square(value: Array) -> float:
    if value.dtype.kind not in "fiub" or not value.size:
        return float("nan")
    flat = np.asarray(value, np.float64).ravel()
    return float(flat @ flat)


def _agrees(value: Array, known: Array) -> str | None:
    """ "same", "moved" where axes are in another order, or None."""
    if value.shape == known.shape:
        return "same" if close(value, known) else "moved" if value.ndim == 2 and close(value, known.T) else None
    if value.ndim == 2 and value.T.shape == known.shape and close(value.T, known):
        return "moved"
    a, b = np.squeeze(value), np.squeeze(known)
    if a.shape == b.shape and close(a, b):
        return "moved"
    if value.size == known.size and close(value.ravel(), known.ravel()):
        return "moved"
    return None


def close(a: Array, b: Array, tolerance: float = CLOSE) -> bool:
    """Whether two arrays of one shape agree relative to their largest elements."""
    return error_of(a, b) <= tolerance


def error_of(a: Array, b: Array, floor: float = 0.0) -> float:
    """The largest difference relative to the largest element; infinite where shapes differ or NaN is met.

    Args:
        a, b: arrays.
        floor: numbers below this count as noise.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    with np.errstate(all="ignore"):
        difference = np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))
        scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))), floor)
    if not np.isfinite(difference):
        return float("inf")
    return float(difference / scale) if scale else 0.0


def same_known(indices: Sequence[Index], known: Known) -> list[Known]:
    """The known value at each point."""
    found = []
    for index in indices:
        match = next((k for k in index.known if k.kind == known.kind and k.number == known.number), None)
        if match is None:
            return []
        found.append(match)
    return found
