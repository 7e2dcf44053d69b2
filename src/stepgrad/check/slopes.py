"""Derivatives along a line, by differences: what local rules and gradients are compared with.

A path is a function t -> f(x + t·v), where v is about as large as x is, so that t is a relative change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.tensor import Array

Path = Callable[[float], Array]

EPS = float(np.finfo(np.float64).eps)
STEP = 6e-6
"""The relative step of central differences: the cube root of EPS, where rounding equals truncation."""
COMPLEX_STEP = 1e-30
_LADDER = STEP * 4.0 ** np.arange(4, -4, -1)


def central(path: Path, step: float = STEP) -> Array:
    """The derivative at t = 0 by one central difference."""
    return (path(step) - path(-step)) / (2 * step)


def rounding(magnitude: Any, step: float = STEP) -> Any:
    """How far rounding puts a central difference off, for values of this magnitude."""
    return 4 * EPS * magnitude / step


def careful(path: Path, magnitude: Any) -> tuple[Array, Array]:
    """The derivative by differences over many steps, each extrapolated to step 0.

    For each element the step is taken at which neighbouring steps agree best: small enough to stay
    on this side of a kink nearby, large enough for rounding.

    Returns:
        The derivative, NaN where no step stays inside the domain; and its uncertainty, of which no
        more than 1e-4 of the derivative counts: differences that do not settle are no evidence.
    """
    slopes = np.stack([np.asarray(central(path, step)) for step in _LADDER])
    spread = np.abs(np.diff(slopes, axis=0)) + np.stack([np.asarray(rounding(magnitude, s)) for s in _LADDER[1:]])
    spread = np.where(np.isfinite(spread), spread, np.inf)
    extrapolated = (16 * slopes[1:] - slopes[:-1]) / 15
    best = np.argmin(spread, axis=0)[None]
    value = np.take_along_axis(extrapolated, best, 0)[0]
    uncertainty = np.take_along_axis(spread, best, 0)[0]
    allowed = np.maximum(1e-4 * np.abs(value), 100 * rounding(magnitude))
    return np.where(np.isfinite(uncertainty), value, np.nan), np.minimum(uncertainty, allowed)


def disagreement(ours: Any, theirs: Any, noise: Any, tolerance: float) -> float:
    """The relative error |a - n| / max(|a|, |n|, noise / tolerance); infinite for NaN.

    What float64 can't resolve (a difference below `noise`) thus stays below the tolerance.
    """
    if ours == theirs:
        return 0.0
    with np.errstate(all="ignore"):
        error = abs(ours - theirs) / max(abs(ours), abs(theirs), noise / tolerance)
    return float(error) if np.isfinite(error) else float("inf")


def scale_of(x: Array, least: float = 0.0) -> Array:
    """For each element, the size of a change that is neither small nor large for it.

    Its own magnitude; for zeros that of the others, and 1 if all are zero.

    Args:
        x: the point.
        least: the least size, in terms of the root mean square of x.
    """
    size = float(np.sqrt(np.mean(np.square(x)))) if x.size else 1.0
    own = np.abs(x)
    typical = size if size > 0 else 1.0
    return np.maximum(np.where(own > 0, own, typical), least * typical)


KINK_STEP = 1e-6
KINK_STEPS = (KINK_STEP, -KINK_STEP, KINK_STEP / 4, -KINK_STEP / 4)
"""Where a path is looked at to find out whether it has a kink at t = 0."""


def kinks(base: Array, around: Sequence[Array], elementwise: bool = False) -> Array:
    """Where a function along a line has no derivative at t = 0: a boolean for each element.

    The slopes to the right and to the left are compared at two distances, the second a quarter of
    the first. At a kink they differ by about as much at both, in a smooth function by a quarter, and
    by rounding alone four times as much. At a jump the slopes grow. At the edge of the domain there
    are finite values on one side only.

    Args:
        base: the value at t = 0.
        around: the values at KINK_STEPS.
        elementwise: rounding in one element does not depend on the size of the others.
    """
    right, left, right_near, left_near = around
    if base.dtype.kind in "biu":
        return (right_near != base) | (left_near != base)
    edge = np.isfinite(base) & ~(np.isfinite(right_near) & np.isfinite(left_near))
    far, near = KINK_STEPS[0], KINK_STEPS[2]
    with np.errstate(all="ignore"):
        slopes = (right - base) / far, (base - left) / far
        slopes_near = (right_near - base) / near, (base - left_near) / near
        gap, gap_near = np.abs(slopes[0] - slopes[1]), np.abs(slopes_near[0] - slopes_near[1])
        steepest = np.maximum(np.abs(slopes[0]), np.abs(slopes[1]))
        steepest_near = np.maximum(np.abs(slopes_near[0]), np.abs(slopes_near[1]))
        sizes = np.maximum(np.abs(base), np.maximum(np.abs(right), np.abs(left)))
        size = sizes if elementwise else np.max(sizes, initial=0.0, where=np.isfinite(sizes))
        kink = (gap_near > 1e-3 * steepest_near + 2 * rounding(size, near)) & (np.abs(np.log2(gap_near / gap)) < 1)
        jump = (steepest_near > 1.5 * steepest) & (steepest_near * near > 1e-9 * size)
    return kink | jump | edge


NEAR_STEPS = (KINK_STEP / 4, -KINK_STEP / 4)
OTHER_LINES = 10
"""How many other lines `bends` is given: on a few, slopes may add up by chance."""


def bends(base: Array, along_v: Sequence[Array], along_w: Sequence[Array], along_both: Sequence[Array]) -> Array:
    """Where the slope along v + w is not the sum of those along v and w: a boolean for each element.

    This finds the kinks that look smooth along any one line, such as the median of three equal
    numbers.

    Args:
        base: the value at the point.
        along_v, along_w, along_both: the values at NEAR_STEPS along v, w and v + w.
    """
    if base.dtype.kind in "biu":
        return np.zeros(base.shape, np.bool_)
    with np.errstate(all="ignore"):
        v, w, both = ((ends[0] - ends[1]) / (2 * NEAR_STEPS[0]) for ends in (along_v, along_w, along_both))
        largest = np.maximum(np.abs(both), np.maximum(np.abs(v), np.abs(w)))
        size = np.max(np.abs(base), initial=0.0, where=np.isfinite(base))
        return np.abs(v + w - both) > 1e-3 * largest + 4 * rounding(size, NEAR_STEPS[0])
