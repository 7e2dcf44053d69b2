"""Exponentials and logarithms."""

from __future__ import annotations

import numpy as np

from stepgrad.ops.arithmetic import unary
from stepgrad.tape.op import float_dtype
from stepgrad.tape.samples import uniform

__all__ = ["exp", "log"]


exp = unary(np.exp, lambda g, out, a: g * out, dtype=float_dtype, analytic=True, doc="e to the power a.")

log = unary(
    np.log,
    lambda g, out, a: g / a,
    uniform(0.2, 3, 2, 3),
    dtype=float_dtype,
    analytic=True,
    doc="The natural logarithm.",
)
