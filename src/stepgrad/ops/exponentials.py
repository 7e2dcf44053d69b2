"""Exponentials and logarithms."""

from __future__ import annotations

import math

import numpy as np

from stepgrad.ops.arithmetic import binary, unary
from stepgrad.ops.choosing import mask
from stepgrad.ops.samples import uniform

__all__ = ["exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2"]


exp = unary(np.exp, lambda g, out, a: g * out, analytic=True, doc="e to the power a.")

exp2 = unary(np.exp2, lambda g, out, a: g * (out * math.log(2)), analytic=True, doc="2 to the power a.")

expm1 = unary(
    np.expm1,
    lambda g, out, a: g * exp(a),  # not out + 1, which loses all digits where a is very negative
    analytic=True,
    doc="exp(a) - 1, with all digits near 0.",
)

log = unary(
    np.log,
    lambda g, out, a: g / a,
    uniform(0.2, 3, 2, 3),
    analytic=True,
    doc="The natural logarithm.",
)

log2 = unary(
    np.log2,
    lambda g, out, a: g / (a * math.log(2)),
    uniform(0.2, 3, 2, 3),
    analytic=True,
    doc="The logarithm to base 2.",
)

log10 = unary(
    np.log10,
    lambda g, out, a: g / (a * math.log(10)),
    uniform(0.2, 3, 2, 3),
    analytic=True,
    doc="The logarithm to base 10.",
)

log1p = unary(
    np.log1p,
    lambda g, out, a: g / (1 + a),
    uniform(-0.8, 3, 2, 3),
    analytic=True,
    doc="log(1 + a), with all digits near 0.",
)

logaddexp = binary(
    np.logaddexp,
    "np.logaddexp({0}, {1})",
    lambda g, out, a, b: mask(g * exp(a - out), out > -math.inf),
    lambda g, out, a, b: mask(g * exp(b - out), out > -math.inf),
    doc="log(exp(a) + exp(b)), without overflow. Where both are -inf its derivatives are 0.",
)

logaddexp2 = binary(
    np.logaddexp2,
    "np.logaddexp2({0}, {1})",
    lambda g, out, a, b: mask(g * exp2(a - out), out > -math.inf),
    lambda g, out, a, b: mask(g * exp2(b - out), out > -math.inf),
    doc="log2(2 ** a + 2 ** b), without overflow. Where both are -inf its derivatives are 0.",
)
