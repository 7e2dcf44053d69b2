"""Large inputs cut down: a backward that is right for a few examples and units is right for many."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.tree import flatten

LONG = 64
"""Axes that are longer are cut, if there is much to compute."""
_MANY = 20_000
_SHORT = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)


def smaller(inputs: Any) -> tuple[Any, str]:
    """The first few elements along each long axis; axes of one length stay of one length.

    Every derivative is checked, so the time would grow with the square of the number of elements.
    The caller has to try whether the functions run with these: sizes may be written down in the code.

    Args:
        inputs: arrays in nested dicts, lists and tuples.

    Returns:
        The inputs, the same object if they are small; and what was done, in words.

    Example:
        >>> small, told = smaller({"X": np.ones((6000, 784)), "W": np.ones((784, 10))})
        >>> small["X"].shape, small["W"].shape, told
        ((7, 11), (11, 10), '7 of 6,000, 11 of 784')
    """
    leaves, _, rebuild = flatten(inputs)
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
    lengths = list(dict.fromkeys(n for a in arrays for n in a.shape if n > LONG))
    if sum(a.size for a in arrays) < _MANY or len(lengths) > len(_SHORT):
        return inputs, ""
    known = {n for a in arrays for n in a.shape}
    free = [n for n in _SHORT if n not in known]
    cut = dict(zip(lengths, free, strict=False))
    told = ", ".join(f"{short} of {length:,}" for length, short in cut.items())
    return rebuild([_cut(leaf, cut) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]), told


def _cut(array: Any, cut: dict[int, int]) -> Any:
    return array[tuple(slice(cut.get(n, n)) for n in array.shape)].copy()
