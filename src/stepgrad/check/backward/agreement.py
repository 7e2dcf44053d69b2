"""Which of the gradients that a backward returned are right."""

from __future__ import annotations

import numpy as np

from stepgrad.check.backward.explaining import error_of
from stepgrad.check.backward.running import Run, Spot


def wrong_gradients(run: Run, spot: Spot, tolerance: float) -> set[str]:
    """The inputs whose gradient is wrong, or missing although expected; all inputs where the backward raised."""
    if run.error:
        return set(spot.right)
    wrong = set()
    for name in spot.right:
        if name not in run.gradients:
            if name in spot.expected:
                wrong.add(name)
        elif gradient_error(spot, name, run.gradients[name]) > tolerance:
            wrong.add(name)
    return wrong


def gradient_error(spot: Spot, name: str, gradient: object) -> float:
    """The relative error of a gradient; what is far smaller than the other gradients counts as zero."""
    array = spot.subject.as_array(gradient)
    if array is None or array.dtype.kind not in "fiub":
        return float("inf")
    right = spot.right[name]
    largest = max((float(np.nanmax(np.abs(v))) for v in spot.right.values() if v.size), default=0.0)
    compared = ~np.isnan(right)
    if array.shape == right.shape and spot.truth is None:
        array, right = array[compared], right[compared]
    return error_of(array, right, 1e-4 * largest)
