"""Slabs: small parameters laid end to end, so that a few NumPy calls update them all.

An optimizer's update is the same arithmetic for every element, so in eager execution it does not
matter to which parameter an element belongs. A network with six small parameters then costs a dozen
NumPy calls for a step of Adam, not a dozen for each of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.tensor import Array

_MOST_LAID = 65_536
"""Parameters with more elements than this have a slab of their own: copying them would cost more than it saves."""

_PIECE = 32_768
"""Elements updated at a time, so that what an update computes in between stays in the processor's cache."""


class Slab:
    """The cells of some parameters of one dtype, seen as flat vectors.

    Args:
        rows: for each parameter, its cell and then those of its moments.
    """

    def __init__(self, rows: Sequence[Sequence[Cell]]) -> None:
        self.columns = list(zip(*rows, strict=True))
        first = self.columns[0]
        self.dtype = first[0].dtype
        self.shapes = [cell.shape for cell in first]
        self.ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes))
        # For each column the flat vector laid last, and its parts, which the cells hold.
        self.laid: list[tuple[Array, list[Array]]] = [(np.empty(0), [])] * len(self.columns)

    def update(self, function: Callable[..., tuple[Any, ...]], gradients: Sequence[Array]) -> None:
        """Calls `function(parameters, gradients, *moments)` on flat vectors and puts the results into the cells."""
        gradient = _lay(gradients)
        flat = [self._gather(i) for i in range(len(self.columns))]
        size = len(gradient)
        if size <= _PIECE:
            new: Sequence[Array] = function(flat[0], gradient, *flat[1:])
        else:
            new = [np.empty(size, self.dtype) for _ in flat]
            for start in range(0, size, _PIECE):
                piece = slice(start, start + _PIECE)
                results = function(flat[0][piece], gradient[piece], *[f[piece] for f in flat[1:]])
                for whole, result in zip(new, results, strict=True):
                    whole[piece] = result
        for i, vector in enumerate(new):
            self._scatter(i, vector)

    def _gather(self, column: int) -> Array:
        cells, (vector, parts) = self.columns[column], self.laid[column]
        values = [cell._value if cell._buffer is None else cell._buffer.snapshot() for cell in cells]
        if parts and all(value is part for value, part in zip(values, parts, strict=True)):
            return vector  # nobody else has assigned to the cells since
        return _lay(values)

    def _scatter(self, column: int, vector: Array) -> None:
        vector.setflags(write=False)
        parts, start = [], 0
        for cell, shape, end in zip(self.columns[column], self.shapes, self.ends, strict=True):
            part = vector[start:end].reshape(shape)
            cell._hold(part)  # as cell.assign(part), without checks and copy: the vector is read-only and ours
            parts.append(part)
            start = end
        self.laid[column] = vector, parts


def _lay(arrays: Sequence[Array]) -> Array:
    return np.concatenate([a.reshape(-1) for a in arrays]) if len(arrays) > 1 else arrays[0].reshape(-1)


def slabs_of(rows: Sequence[Sequence[Cell]]) -> list[tuple[list[int], Slab]]:
    """Lays rows of cells (a parameter and its moments) together: slabs, each with the positions of its rows."""
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(i if row[0].size > _MOST_LAID else row[0].dtype, []).append(i)
    return [(positions, Slab([rows[i] for i in positions])) for positions in groups.values()]
