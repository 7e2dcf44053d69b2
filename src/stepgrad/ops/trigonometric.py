"""Trigonometric and hyperbolic functions, their inverses, and angles."""

from __future__ import annotations

import math

import numpy as np

from stepgrad.ops import plain
from stepgrad.ops.arithmetic import binary, numpy_dtype, unary
from stepgrad.ops.choosing import mask
from stepgrad.ops.powers import sqrt, square
from stepgrad.ops.registry import register
from stepgrad.ops.samples import normal, uniform
from stepgrad.tape.op import Op, same_shape
from stepgrad.tensor import Tensor, numpy_functions

__all__ = [
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cos",
    "cosh",
    "deg2rad",
    "degrees",
    "hypot",
    "rad2deg",
    "radians",
    "sin",
    "sinc",
    "sinh",
    "tan",
    "tanh",
]


sin = unary(np.sin, lambda g, out, a: g * cos(a), analytic=True, doc="The sine of an angle in radians.")

cos: Op = unary(np.cos, lambda g, out, a: -g * sin(a), analytic=True, doc="The cosine of an angle in radians.")

tan = unary(
    np.tan,
    lambda g, out, a: g * (1 + square(out)),
    uniform(-1.2, 1.2, 2, 3),
    analytic=True,
    doc="The tangent of an angle in radians.",
)

arcsin = asin = unary(
    np.arcsin,
    lambda g, out, a: g / sqrt((1 - a) * (1 + a)),  # 1 - a * a would lose digits near the ends
    uniform(-0.9, 0.9, 2, 3),
    analytic=True,
    doc="The angle in [-π/2, π/2] whose sine it is. Its derivative at -1 and 1 is infinite.",
)

arccos = acos = unary(
    np.arccos,
    lambda g, out, a: -g / sqrt((1 - a) * (1 + a)),
    uniform(-0.9, 0.9, 2, 3),
    analytic=True,
    doc="The angle in [0, π] whose cosine it is. Its derivative at -1 and 1 is infinite.",
)

arctan = atan = unary(
    np.arctan,
    lambda g, out, a: g / (1 + square(a)),
    analytic=True,
    doc="The angle in [-π/2, π/2] whose tangent it is.",
)

hypot = binary(
    np.hypot,
    "np.hypot({0}, {1})",
    lambda g, out, a, b: mask(g * (a / out), out != 0),
    lambda g, out, a, b: mask(g * (b / out), out != 0),
    doc="sqrt(a * a + b * b), without overflow. Its derivatives at (0, 0) are 0.",
)

arctan2 = atan2 = binary(
    np.arctan2,
    "np.arctan2({0}, {1})",
    lambda g, out, a, b: _turn(g, a, b, b),
    lambda g, out, a, b: -_turn(g, a, b, a),
    doc="The angle of the point (b, a), in [-π, π]. Its derivatives at (0, 0) are 0.",
)


def _turn(g: Tensor, a: Tensor, b: Tensor, part: Tensor) -> Tensor:
    radius = hypot(a, b)
    return mask(g * (part / radius / radius), radius != 0)


sinh = unary(np.sinh, lambda g, out, a: g * cosh(a), analytic=True, doc="The hyperbolic sine.")

cosh: Op = unary(np.cosh, lambda g, out, a: g * sinh(a), analytic=True, doc="The hyperbolic cosine.")

tanh = unary(np.tanh, lambda g, out, a: g * (1 - square(out)), analytic=True, doc="The hyperbolic tangent.")

arcsinh = asinh = unary(
    np.arcsinh,
    lambda g, out, a: g / hypot(a, 1.0),
    analytic=True,
    doc="The number whose hyperbolic sine it is.",
)

arccosh = acosh = unary(
    np.arccosh,
    lambda g, out, a: g / (sqrt(a - 1) * sqrt(a + 1)),
    uniform(1.2, 4, 2, 3),
    analytic=True,
    doc="The number from 0 on whose hyperbolic cosine it is. Its derivative at 1 is infinite.",
)

arctanh = atanh = unary(
    np.arctanh,
    lambda g, out, a: g / ((1 - a) * (1 + a)),
    uniform(-0.9, 0.9, 2, 3),
    analytic=True,
    doc="The number whose hyperbolic tangent it is. Its derivative at -1 and 1 is infinite.",
)

deg2rad = radians = unary(
    np.deg2rad, lambda g, out, a: g * (math.pi / 180), doc="An angle in degrees, converted to radians."
)

rad2deg = degrees = unary(
    np.rad2deg, lambda g, out, a: g * (180 / math.pi), doc="An angle in radians, converted to degrees."
)

numpy_functions |= {np.radians: radians, np.degrees: degrees}


# --- sinc: sin(pi x) / (pi x)


sinc = unary(
    np.sinc,
    # (cos(πx) - sinc(x)) / x would be 0 / 0 at 0 and lose digits near it; so derivatives are an op of their own.
    lambda g, out, a: g * _sinc_derivative(a, order=1),
    normal(2, 3),
    uniform(-0.01, 0.01, 2, 3),
    analytic=True,
    doc="sin(πx) / (πx), and 1 at 0.",
)

_sinc_derivative: Op = register(
    Op(
        "sinc_derivative",
        shape=same_shape,
        dtype=numpy_dtype(plain.sinc_derivative),
        numpy=plain.sinc_derivative,
        rules=(lambda g, out, a, order: g * _sinc_derivative(a, order=order + 1),),
        text="sinc_derivative({0}, order={order})",
        samples=[
            *((uniform(-3, 3, 2, 3), {"order": n}) for n in (1, 2)),
            (uniform(-0.01, 0.01, 2, 3), {"order": 1}),
        ],
        elementwise=True,
        analytic=True,
    )
)
