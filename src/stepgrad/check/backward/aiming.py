"""Where a line's value is on the tape: which recorded gradient it is a multiple of, and which axis is the batch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stepgrad.check.backward.clue import Sighting
from stepgrad.check.backward.comparing import ratio
from stepgrad.check.backward.piece import Edits, Functions, Tapes
from stepgrad.tensor import Array


@dataclass(frozen=True, eq=False)
class Point:
    """One sighting on its tape. What the catalogue's candidates compute their values from.

    Attributes:
        sighting: what was seen.
        tapes: the passes at this point, by position.
        right, wrong: the line's values; where it adds to a value, possibly only what it adds.
        batch: the number of examples, if any axis runs over examples.
        scale: right = scale * what the tape has, by the user's convention.
        arrange: how the user's code lays out what the tape has: `np.transpose`, a reshape, or nothing.
        target: the backward position whose value is `right`.
        inside: the backward positions that compute it from what the user knows by then.
    """

    sighting: Sighting
    tapes: Tapes
    right: Array
    wrong: Array | None
    batch: int | None
    scale: float = 1.0
    arrange: Callable[[Array], Array] | None = None
    target: int | None = None
    inside: tuple[int, ...] = ()

    def value(self, i: int) -> Array:
        """The value at a position."""
        return self.tapes.values[i]

    def gradient(self, i: int) -> Array:
        """The gradient of a forward value, by the user's convention."""
        return self.scale * self.tapes.values[self.tapes.gradients[i]]

    def edited(self, values: Edits | None = None, functions: Functions | None = None) -> Array:
        """What the line would compute if the tape were edited so."""
        assert self.target is not None
        made = self.tapes.edited(self.target, self.inside, values or {}, functions or {})
        return self.laid_out(self.scale * made)

    def laid_out(self, value: Array) -> Array:
        """A value of the target's shape on the tape, as the user's code lays it out."""
        assert self.target is not None
        return self.arrange(value) if self.arrange and value.shape == self.value(self.target).shape else value

    def count(self) -> int:
        """The number of examples; of elements where it is not known."""
        return self.batch or self.right.size


def batch_lengths(tapes: list[Tapes]) -> tuple[int | None, ...]:
    """The number of examples at each point, by what becomes of the axes.

    Most forward values have an axis for the examples, no product of matrices sums over it, and no parameter has it.
    """
    first = tapes[0]
    computed = [i for i in range(first.first_backward) if first.sources[i] and first.values[i].ndim]
    axes: dict[tuple[int, ...], set[int]] = {}  # lengths at the points -> the inputs that have such an axis
    for i in [*first.inputs, *computed]:
        for k, n in enumerate(first.values[i].shape):
            if n > 1:
                inputs = axes.setdefault(tuple([t.values[i].shape[k] for t in tapes]), set())
                inputs |= {i} & first.inputs.keys()

    def has(i: int, lengths: tuple[int, ...]) -> bool:
        return all(n in t.values[i].shape for n, t in zip(lengths, tapes, strict=True))

    def is_contracted(lengths: tuple[int, ...]) -> bool:
        products = [i for i in computed if first.equations[i].op.name == "matmul"]
        return any(
            all(t.values[t.sources[i][0]].shape[-1:] == (n,) for n, t in zip(lengths, tapes, strict=True))
            for i in products
        )

    likely = [
        lengths
        for lengths in axes
        if 2 * sum(has(i, lengths) for i in computed) >= len(computed) and not is_contracted(lengths)
    ]
    fewest: tuple[int | None, ...] = tuple([None for _ in tapes])
    for lengths in sorted(likely, key=lambda lengths: -len(axes[lengths])):
        fewest = lengths
    return fewest


def targets(point: Point) -> list[int]:
    """The backward positions whose value `right` may be, the likeliest first."""
    tapes, found = point.tapes, []
    target = point.sighting.target
    hinted = tapes.gradients.get(tapes.position.get(target, -1)) if target is not None else None
    if hinted is not None and aimed_at(point, hinted):
        found.append(hinted)
    gradients = set(tapes.gradients.values())
    for i in range(tapes.first_backward, len(tapes.values)):
        value = tapes.values[i]
        if value.shape == point.right.shape and i != hinted and value.size and _quickly(point.right, value):
            r = ratio(point.right, value)
            if r is not None:
                found.append(i)
    start = 1 if hinted in found else 0
    rest = sorted(found[start:], key=lambda i: (i not in gradients, -i))
    if not found and hinted is None and point.right.ndim > 1:
        rest = [i for i in sorted(gradients) if tapes.values[i].size == point.right.size and aimed_at(point, i)]
    return found[:start] + rest


def aimed_at(point: Point, target: int) -> Point | None:
    """The point with its target, if `right` is a multiple of that, perhaps transposed or reshaped."""
    value = point.tapes.values[target]
    if value.size != point.right.size:
        return None
    arrangements: list[Callable[[Array], Array] | None] = [None, np.transpose, _reshape(point.right.shape)]
    if not point.right.any() and not value.any():  # a point at which nothing passes
        return replace(point, scale=point.sighting.factor, target=target) if value.shape == point.right.shape else None
    for arrange in arrangements:
        r = ratio(point.right, arrange(value) if arrange else value)
        if r is not None:
            return replace(point, scale=r, target=target, arrange=arrange)
    return None


def one_convention(points: list[Point]) -> list[Point]:
    """The points with right values by one convention: the mean over the examples is in all of them, or in none.

    Where only the numbers of one point are known, its right value may have been taken with the mean and those of
    the others without; but the user's code is the same everywhere.
    """
    without = [bool(p.batch) and abs(p.scale - (p.batch or 0)) < 1e-9 * p.scale for p in points]
    if 2 * sum(without) <= len(points):
        return points
    return [
        replace(p, right=p.right * p.batch, scale=float(p.batch)) if p.batch and abs(p.scale - 1) < 1e-9 else p
        for p in points
    ]


def _reshape(shape: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda value: value.reshape(shape)


def multiples(tapes: Tapes, array: Array) -> Iterator[tuple[int, float]]:
    """The backward positions that an array is a multiple of, perhaps transposed; and the multiple."""
    for i in sorted(tapes.flowing):
        value = tapes.values[i]
        if value.shape != array.shape:
            value = value.T
        if value.shape == array.shape and value.dtype.kind == "f" and _quickly(array, value):
            r = ratio(array, value)
            if r is not None:
                yield i, r


def _quickly(a: Array, b: Array) -> bool:
    """False if a can't be a multiple of b, from three elements."""
    x, y = a.ravel()[[0, a.size // 2, -1]].astype(float), b.ravel()[[0, b.size // 2, -1]]
    return bool(abs(np.linalg.norm(x) * np.linalg.norm(y) - abs(x @ y)) <= 1e-6 * abs(x @ y) + 1e-300)
