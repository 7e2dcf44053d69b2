"""When two arrays count as equal, or as multiples of each other."""

from __future__ import annotations

import numpy as np

from stepgrad.tensor import Array

TOLERANCE = 1e-7
"""Relative error up to which two float64 arrays, computed in different ways, count as equal."""


def ratio(a: Array, b: Array, tolerance: float = TOLERANCE) -> float | None:
    """r where a = r * b, or None if there is no such number."""
    if a.shape != b.shape or not a.size:
        return None
    with np.errstate(all="ignore"):
        square = float(np.vdot(b, b))
        if not square > 0 or not np.isfinite(square):
            return None
        r = float(np.vdot(b, a)) / square
        error = float(np.linalg.norm(a - r * b))
        return r if r and error <= tolerance * float(np.linalg.norm(a)) else None


def agree(a: Array, b: Array, tolerance: float = TOLERANCE, noise: float = 0.0) -> bool:
    """Same shape, and equal up to rounding; not-a-numbers agree where they stand in the same places.

    Args:
        a, b: arrays.
        tolerance: the largest relative error.
        noise: the largest absolute one (of norms): what rounding leaves of sums that are zero.
    """
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        finite = np.isfinite(a)
        if not finite.all():
            both = finite == np.isfinite(b)
            if not both.all() or not finite.any():
                return False
            a, b = a[finite], b[finite]
        elif not np.isfinite(b).all():
            return False
        return float(np.linalg.norm(a - b)) <= max(tolerance * float(np.linalg.norm(b)), noise)
