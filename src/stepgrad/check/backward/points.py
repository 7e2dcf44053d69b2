"""Random points: other numbers of the same kind and, where the shapes are free, of other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgrad.tensor import Array
from stepgrad.tree import flatten

PRIMES = (2, 3, 5, 7, 11, 13)


def moved(inputs: Any, rng: np.random.Generator, sizes: Mapping[int, int] | None = None) -> Any:
    """Other inputs of the same kind: signs mixed, biases not zero; labels, one-hot rows, masks and
    distributions stay what they are.

    Args:
        inputs: arrays in nested dicts, lists and tuples.
        rng: where the numbers come from.
        sizes: length of an axis -> another length.
    """
    leaves, _, rebuild = flatten(inputs)
    return rebuild([_moved(leaf, rng, sizes or {}) for leaf in leaves])


def free_sizes(inputs: Any, rng: np.random.Generator) -> dict[int, int]:
    """For each length of an axis in the inputs another one: a prime number, each another."""
    leaves, _, _ = flatten(inputs)
    lengths = sorted({n for leaf in leaves if isinstance(leaf, np.ndarray) for n in leaf.shape if n > 1})
    primes = [p for p in PRIMES if p > 1][: max(len(lengths), 1)]
    if len(lengths) > len(PRIMES):
        return {}
    order = rng.permutation(len(primes))
    return {length: int(primes[i]) for length, i in zip(lengths, order, strict=False)}


def _moved(leaf: Any, rng: np.random.Generator, sizes: Mapping[int, int]) -> Any:
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "fiub":
        return leaf
    shape = tuple(sizes.get(n, n) for n in leaf.shape)
    if leaf.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if leaf.dtype.kind in "iu":
        return _integers(leaf, shape, rng)
    if leaf.size and np.isin(leaf, (0.0, 1.0)).all() and (leaf == 1.0).any() and leaf.size > 1:
        return _zeros_and_ones(leaf, shape, rng)
    axis = _axis_of_distributions(leaf)
    if axis is not None:
        drawn = rng.gamma(1.0, size=shape) + 0.05
        return (drawn / drawn.sum(axis=axis, keepdims=True)).astype(leaf.dtype)
    drawn = rng.standard_normal(shape)
    spread = float(np.std(leaf)) if leaf.size > 1 else abs(float(leaf.sum()))
    # Large enough for what is wrong to show, small enough for sigmoid and softmax not to saturate.
    usual = 1.0 if leaf.ndim < 2 else 1.5 / np.sqrt(max(float(np.mean(shape)), 1.0))
    spread = min(max(spread, 0.3 * usual), usual)
    if leaf.size and (leaf > 0).all():
        return (np.abs(drawn) * spread + 0.3 * float(np.mean(leaf))).astype(leaf.dtype)
    return (drawn * spread).astype(leaf.dtype)


def _integers(leaf: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if not leaf.size or leaf.ndim == 0:
        return leaf.copy()
    low, high = int(leaf.min()), int(leaf.max())
    return rng.integers(min(low, 0), high + 1, shape).astype(leaf.dtype)


def _zeros_and_ones(leaf: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One-hot vectors stay one-hot, along the same axis."""
    for axis in range(leaf.ndim):
        if leaf.shape[axis] > 1 and (leaf.sum(axis=axis) == 1).all():
            hot = rng.integers(0, shape[axis], [n for i, n in enumerate(shape) if i != axis])
            return (
                np.expand_dims(hot, axis) == np.arange(shape[axis]).reshape([-1] + [1] * (leaf.ndim - axis - 1))
            ).astype(leaf.dtype)
    drawn = (rng.random(shape) < 0.5).astype(leaf.dtype)
    if drawn.size > 1:
        drawn.flat[0], drawn.flat[-1] = 1, 0
    return drawn


def _axis_of_distributions(leaf: Array) -> int | None:
    if leaf.ndim == 0 or not leaf.size or (leaf < 0).any() or (leaf > 1).any():
        return None
    return next((a for a in range(leaf.ndim) if leaf.shape[a] > 1 and np.allclose(leaf.sum(axis=a), 1.0)), None)
