"""The gradient's noise scale, from the two halves of a batch (McCandlish et al. 2018, appendix A.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.check.health.record import Noise
from stepgrad.check.health.subject import Subject, record_pass
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, Tensor, functions


def record_noise(subject: Subject, x: Any, y: Any) -> dict[str, Tensor]:
    """Records the gradients of both halves, and their squares and product.

    Args:
        subject: the network.
        x, y: both halves, stacked along a new leading axis.
    """
    halves = [record_pass(subject, x[i], y[i]) for i in range(2)]
    zero = functions["astype"](functions["sum"](halves[0].loss) * 0.0, np.float64)
    found = {"first": zero, "second": zero, "product": zero}
    with recording(differentiable=False):
        for path in halves[0].leaves:
            one, other = (half.gradient(path) for half in halves)
            if one is None or other is None:
                continue
            one, other = (functions["astype"](g, np.float64) for g in (one, other))
            for name, term in (("first", one * one), ("second", other * other), ("product", one * other)):
                found[name] = found[name] + functions["sum"](term)
    return found


def read_noise(found: dict[str, Array], rows: int) -> Noise:
    """The estimates: |G|² is the product of the halves' gradients, and the trace rows/4 · |their difference|².

    These are McCandlish's for a batch and its halves, written out.

    Args:
        found: what the program returned.
        rows: of both halves.
    """
    first, second, product = (float(found[name]) for name in ("first", "second", "product"))
    length = math.sqrt(first) * math.sqrt(second)
    return Noise(
        squared_norm=product,
        trace=rows / 4 * (first + second - 2 * product),
        cosine=product / length if length else 0.0,
    )
