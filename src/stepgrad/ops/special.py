"""Special functions: the error function and its complement."""

from __future__ import annotations

import math

from scipy import special

from stepgrad.ops.arithmetic import unary
from stepgrad.ops.exponentials import exp
from stepgrad.ops.powers import square

__all__ = ["erf", "erfc"]


erf = unary(
    special.erf,
    lambda g, out, a: g * (2 / math.sqrt(math.pi) * exp(-square(a))),
    text="special.erf({0})",
    analytic=True,
    doc="The error function: 2 / sqrt(π) times the integral of exp(-t * t) from 0 to a.",
)

erfc = unary(
    special.erfc,
    lambda g, out, a: g * (-2 / math.sqrt(math.pi) * exp(-square(a))),
    text="special.erfc({0})",
    analytic=True,
    doc="1 - erf(a), with all digits where a is large.",
)
