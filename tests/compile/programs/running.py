"""A program being interpreted: what is known so far, and how a move chooses from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 40_000
"""Elements of the largest tensor."""
LARGE = 100.0
"""A number that may be larger than this is folded back before it is used in a product or a sum."""


@dataclass(frozen=True)
class Value:
    """A tensor, or what stands for one. `bound`: of its elements. `rough`: rounding may differ between executors."""

    x: Any
    bound: float
    rough: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def kind(self) -> str:
        return np.dtype(self.x.dtype).kind

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Run:
    """A program being interpreted."""

    def __init__(self, cells: dict[str, Any], inputs: list[Any]) -> None:
        self.cells = cells
        self.known = [Value(x, 70.0 if np.dtype(x.dtype).kind == "i" else 4.0, False) for x in inputs]

    def results(self, returned: tuple[int, ...]) -> Any:
        """Some of what is known: perhaps the same twice, an input, a view; and always the last."""
        found = [self.known[p % len(self.known)].x for p in returned]
        return [*found, self.known[-1].x]

    # --- choosing

    def one(self, pick: int, test: Callable[[Value], bool] = lambda v: True) -> Value | None:
        """One of the values that pass a test, late ones first."""
        found = [v for v in reversed(self.known) if test(v)]
        return found[pick % min(len(found), 6) if pick < 60 else pick % len(found)] if found else None

    def float(self, pick: int, test: Callable[[Value], bool] = lambda v: True) -> Value | None:
        return self.one(pick, lambda v: v.kind == "f" and test(v))

    def pair(self, p: int, q: int) -> tuple[Value, Value] | None:
        """Two floats that broadcast."""
        a = self.float(p)
        assert a is not None
        b = self.float(q, lambda v: fits(a.shape, v.shape))
        return None if b is None else (a, b)

    def small(self, v: Value, most: float = LARGE) -> Value:
        """The value, folded into a small range if it may be large."""
        if v.bound <= most:
            return v
        if v.rough:
            return Value(np.tanh(v.x), 1.0, True)
        return Value(np.clip(v.x, -8, 8), 8.0, False)

    def keep(self, found: Value | list[Value] | None) -> None:
        """Adds what a move computed, if it found something to work on."""
        for each in found if isinstance(found, list) else [found]:
            if each is not None and each.size <= MOST:
                self.known.append(each)


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= MOST
    except ValueError:
        return False


def axes_of(pick: int, ndim: int) -> tuple[int, ...]:
    chosen = [d for d in range(ndim) if pick >> d & 1]
    return tuple(chosen) if chosen else tuple(range(ndim))


MOVES: dict[str, Callable[..., Any]] = {}
PICKS = 5


def move(f: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a move, by the name of its function."""
    MOVES[f.__name__.strip("_")] = f
    return f
