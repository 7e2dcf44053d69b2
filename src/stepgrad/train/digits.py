"""The embedded data set: handwritten digits of UCI, by E. Alpaydin and C. Kaynak (CC BY 4.0)."""

from __future__ import annotations

import io
from importlib import resources
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

PIXEL_MAX = 16
"""Pixels are counts from 0 to 16."""


def load() -> tuple[Array, Array]:
    """The digits, in the order of the original file.

    Returns:
        X: float32 (1797, 64), images of 8 × 8 pixels row by row, in [0, 1].
        y: int64 (1797,), which digit it is, 0 to 9.

    Example:
        >>> from stepgrad.train import digits
        >>> X, y = digits.load()
        >>> X.shape, y[:5]
        ((1797, 64), array([0, 1, 2, 3, 4]))
    """
    packed = resources.files("stepgrad.train").joinpath("data", "digits.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return (arrays["images"] / np.float32(PIXEL_MAX)).astype(np.float32), arrays["labels"].astype(np.int64)


def split() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The digits in two parts that never change: training (1437 images), and a held-out fifth (360)."""
    X, y = load()
    order = np.random.default_rng(1797).permutation(len(X))
    test = len(X) // 5 + 1
    return (X[order[test:]], y[order[test:]]), (X[order[:test]], y[order[:test]])
