"""How far apart two values are, in units in the last place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.tensor import Array


@dataclass(frozen=True)
class Apart:
    """How two arrays differ.

    Attributes:
        count, size: elements whose bits differ (all NaN count as one), and all elements.
        element: where they are furthest apart.
        ulps: there, in units in the last place of the coarser dtype; inf if one of them isn't finite.
        first, second: the numbers there.
        relative: the largest difference, divided by the largest magnitude.
        dtype: the coarser dtype.
    """

    count: int
    size: int
    element: tuple[int, ...]
    ulps: float
    first: Any
    second: Any
    relative: float
    dtype: str


def apart(a: Any, b: Any) -> Apart:
    """Compares two arrays of one shape."""
    a, b = np.asarray(a), np.asarray(b)
    coarser = coarser_of(a.dtype, b.dtype)
    different = _different(a, b)
    count = int(np.count_nonzero(different))
    if not count:
        return Apart(0, a.size, (), 0.0, None, None, 0.0, str(coarser))
    with np.errstate(all="ignore"):
        ulps = np.where(different, _ulps(a, b, coarser), 0.0)
        gaps = np.abs(_wide(a) - _wide(b))[np.isfinite(a) & np.isfinite(b)]
        largest = max(np.abs(_wide(x))[np.isfinite(x)].max(initial=0.0) for x in (a, b))
    worst = int(np.argmax(np.where(different, ulps, -1.0)))
    element = tuple(int(i) for i in np.unravel_index(worst, a.shape))
    relative = float(gaps.max(initial=0.0) / largest) if largest else 0.0
    return Apart(count, a.size, element, float(ulps[element]), a[element], b[element], relative, str(coarser))


def coarser_of(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The one of two dtypes with fewer digits."""
    if a.kind not in "fc" or b.kind not in "fc":
        return a if a.kind not in "fc" else b
    return a if np.finfo(a).nmant <= np.finfo(b).nmant else b


def _different(a: Array, b: Array) -> Array:
    different = (a != b) & ~((a != a) & (b != b))
    if a.dtype == b.dtype and a.dtype.kind == "f":
        different |= (np.signbit(a) != np.signbit(b)) & (a == 0) & (b == 0)
    return different


def _ulps(a: Array, b: Array, coarser: np.dtype[Any]) -> Array:
    if coarser.kind not in "fc":
        return np.abs(_wide(a) - _wide(b))
    real = np.empty(0, coarser).real.dtype
    magnitude = np.maximum(np.abs(a), np.abs(b)).astype(real)
    ulps = np.abs(_wide(a) - _wide(b)) / np.spacing(magnitude).astype(np.float64)
    return np.where(np.isfinite(a) & np.isfinite(b) & np.isfinite(magnitude), ulps, np.inf)


def _wide(a: Array) -> Array:
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
