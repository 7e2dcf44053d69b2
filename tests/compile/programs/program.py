"""A program, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import stepgrad as sg
from programs.running import MOVES, Run


@dataclass(frozen=True)
class Move:
    """An op, and the numbers that choose what it is applied to."""

    op: str
    picks: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A step over four arrays and four cells.

    Attributes:
        dtype: of floats.
        sizes: three lengths, of which shapes are made.
        moves: what is computed.
        returned: chooses the outputs.
        seed: of the inputs' values.
    """

    dtype: str
    sizes: tuple[int, int, int]
    moves: tuple[Move, ...]
    returned: tuple[int, ...]
    seed: int = 0

    def inputs(self) -> list[np.ndarray]:
        """x (n, m), v (m,), integers (n,) below m, booleans (n, m). Floats are small whole numbers."""
        n, m, _ = self.sizes
        rng = np.random.default_rng(self.seed)
        return [
            rng.integers(-3, 4, (n, m)).astype(self.dtype),
            rng.integers(-3, 4, m).astype(self.dtype),
            rng.integers(0, max(1, m), n),
            rng.random((n, m)) < 0.5,
        ]

    def cells(self) -> dict[str, Any]:
        """W, V (n, m), U (m, k), c (): trained and not."""
        n, m, k = self.sizes
        rng = np.random.default_rng(self.seed + 1)
        draw = lambda *shape: np.asarray(rng.integers(-3, 4, shape), self.dtype)
        return {
            "W": sg.Parameter(draw(n, m), name="W"),
            "V": sg.State(draw(n, m), name="V"),
            "U": sg.Parameter(draw(m, k), name="U"),
            "c": sg.State(draw(), name="c"),
        }

    def step(self, cells: dict[str, Any]) -> Callable[..., Any]:
        """The function of the inputs; it reads and assigns the cells."""

        def step(x: Any, v: Any, i: Any, mask: Any) -> Any:
            run = Run(cells, [x, v, i, mask])
            for move in self.moves:
                run.keep(MOVES[move.op](run, *move.picks))
            return run.results(self.returned)

        return step
