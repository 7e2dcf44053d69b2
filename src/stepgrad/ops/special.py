"""Special functions under SciPy's names: error functions, gamma and beta functions, entropies, Bessel functions.

`scipy.special`'s own functions record these on tensors: `scipy.special.gammaln(tensor)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.arguments import whole
from stepgrad.ops.arithmetic import binary, numpy_dtype, unary
from stepgrad.ops.choosing import mask
from stepgrad.ops.exponentials import exp, log, log1p
from stepgrad.ops.lazy import special
from stepgrad.ops.powers import cbrt, square
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal, uniform
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, functions, numpy_functions

__all__ = ["erf", "erfc"]  # under sg itself; all of them are under sg.special


# --- the error function and the normal distribution

_SLOPE = 2 / math.sqrt(math.pi)  # of erf at 0

erf = unary(
    special.erf,
    lambda g, out, a: g * (_SLOPE * exp(-square(a))),
    text="special.erf({0})",
    analytic=True,
    doc="The error function: 2 / sqrt(π) times the integral of exp(-t * t) from 0 to a.",
)

erfc = unary(
    special.erfc,
    lambda g, out, a: g * (-_SLOPE * exp(-square(a))),
    text="special.erfc({0})",
    analytic=True,
    doc="1 - erf(a), with all digits where a is large.",
)

erfcx = unary(
    special.erfcx,
    lambda g, out, a: g * (2 * a * out - _SLOPE),
    text="special.erfcx({0})",
    analytic=True,
    doc="exp(a * a) * erfc(a), which neither overflows nor vanishes where a is large.",
)

erfinv = unary(
    special.erfinv,
    lambda g, out, a: g * (exp(square(out)) / _SLOPE),
    uniform(-0.9, 0.9, 2, 3),
    text="special.erfinv({0})",
    doc="The number whose erf is a, for a between -1 and 1.",
)

erfcinv = unary(
    special.erfcinv,
    lambda g, out, a: g * (exp(square(out)) / -_SLOPE),
    uniform(0.1, 1.9, 2, 3),
    text="special.erfcinv({0})",
    doc="The number whose erfc is a, for a between 0 and 2.",
)

ndtr = unary(
    special.ndtr,
    lambda g, out, a: g * (exp(square(a) / -2) / math.sqrt(2 * math.pi)),
    text="special.ndtr({0})",
    analytic=True,
    doc="The probability that a standard normal number is below a.",
)

log_ndtr = unary(
    special.log_ndtr,
    # exp(-a * a / 2) / ndtr(a), in which both would vanish where a is very negative.
    lambda g, out, a: g * (math.sqrt(2 / math.pi) / erfcx(a * -math.sqrt(0.5))),
    text="special.log_ndtr({0})",
    doc="log(ndtr(a)), with all digits where a is very negative.",
)

ndtri = unary(
    special.ndtri,
    lambda g, out, a: g * (exp(square(out) / 2) * math.sqrt(2 * math.pi)),
    uniform(0.05, 0.95, 2, 3),
    text="special.ndtri({0})",
    doc="The number that a standard normal one is below with probability a.",
)

logit = unary(
    special.logit,
    lambda g, out, a: g / (a * (1 - a)),
    uniform(0.1, 0.9, 2, 3),
    text="special.logit({0})",
    doc="log(a / (1 - a)), the inverse of sigmoid.",
)


# --- gamma and beta functions


def _zeta_numpy(a: Array, s: int) -> Any:
    return special.zeta(s, a)


_zeta: Op = register(
    Op(
        "zeta",
        shape=same_shape,
        dtype=numpy_dtype(_zeta_numpy),
        numpy=_zeta_numpy,
        rules=(lambda g, out, a, s: g * (-s * _zeta(a, s=s + 1)),),
        text="special.zeta({s}, {0})",
        samples=[(uniform(0.5, 3, 2, 3), {"s": s}) for s in (2, 3)],
        elementwise=True,
        doc="The Hurwitz zeta function: the sum of (a + k) ** -s over k = 0, 1, 2, …",
    )
)


def polygamma(n: int, x: Any) -> Tensor:
    """The n-th derivative of `digamma`.

    Args:
        n: a whole number that is not negative.
        x: a tensor or array.

    Example:
        >>> sg.special.polygamma(1, sg.tensor([1.0]))
        tensor([1.64493407], dtype=float64)
    """
    order = whole(n, "n")
    if order < 0:
        raise ArgumentError(f"polygamma was called with n={n}", "n counts derivatives", "pass 0 or more")
    return digamma(x) if order == 0 else (-1) ** (order + 1) * math.factorial(order) * _zeta(x, s=order + 1)


psi: Op = unary(
    special.psi,
    lambda g, out, a: g * polygamma(1, a),
    uniform(0.5, 3, 2, 3),
    text="special.psi({0})",
    analytic=True,
    doc="The derivative of gammaln.",
)
digamma = psi

gammaln = unary(
    special.gammaln,
    lambda g, out, a: g * digamma(a),
    uniform(0.5, 3, 2, 3),
    text="special.gammaln({0})",
    doc="log(|gamma(a)|).",
)

gamma = unary(
    special.gamma,
    lambda g, out, a: g * (out * digamma(a)),
    uniform(0.5, 3, 2, 3),
    text="special.gamma({0})",
    analytic=True,
    doc="The gamma function: the factorial of a - 1.",
)

_POSITIVE = ((uniform(0.5, 3, 2, 3), uniform(0.5, 3, 2, 3)), (uniform(0.5, 3, 2, 1), uniform(0.5, 3, 3)))

betaln = binary(
    special.betaln,
    "special.betaln({0}, {1})",
    lambda g, out, a, b: g * (digamma(a) - digamma(a + b)),
    lambda g, out, a, b: g * (digamma(b) - digamma(a + b)),
    samples=_POSITIVE,
    doc="log(|beta(a, b)|).",
)

beta = binary(
    special.beta,
    "special.beta({0}, {1})",
    lambda g, out, a, b: g * (out * (digamma(a) - digamma(a + b))),
    lambda g, out, a, b: g * (out * (digamma(b) - digamma(a + b))),
    samples=_POSITIVE,
    doc="gamma(a) * gamma(b) / gamma(a + b).",
)


# --- products with logarithms, which are 0 where the first factor is

xlogy = binary(
    special.xlogy,
    "special.xlogy({0}, {1})",
    lambda g, out, a, b: mask(g * log(b), (a != 0) | (b > 0)),
    lambda g, out, a, b: mask(g * (a / b), (a != 0) | (b != 0)),
    samples=_POSITIVE,
    doc="a * log(b), and 0 where a is 0. Where both are 0 its derivatives are 0.",
)

xlog1py = binary(
    special.xlog1py,
    "special.xlog1py({0}, {1})",
    lambda g, out, a, b: mask(g * log1p(b), (a != 0) | (b > -1)),
    lambda g, out, a, b: mask(g * (a / (1 + b)), (a != 0) | (b != -1)),
    samples=_POSITIVE,
    doc="a * log1p(b), and 0 where a is 0. Where a is 0 and b is -1 its derivatives are 0.",
)

entr = unary(
    special.entr,
    lambda g, out, a: g * (-log(a) - 1),
    uniform(0.2, 3, 2, 3),
    text="special.entr({0})",
    doc="-a * log(a): the entropy that a probability contributes. Its derivative at 0 is infinite.",
)

rel_entr = binary(
    special.rel_entr,
    "special.rel_entr({0}, {1})",
    lambda g, out, a, b: g * (log(a / b) + 1),
    lambda g, out, a, b: mask(g * -(a / b), (a != 0) | (b != 0)),
    samples=_POSITIVE,
    doc="a * log(a / b): what two probabilities contribute to the Kullback-Leibler divergence.",
)

kl_div = binary(
    special.kl_div,
    "special.kl_div({0}, {1})",
    lambda g, out, a, b: g * log(a / b),
    lambda g, out, a, b: mask(g * (1 - a / b), (a != 0) | (b != 0)),
    samples=_POSITIVE,
    doc="a * log(a / b) - a + b.",
)


# --- Bessel functions: their derivatives are those of the orders below and above


def _bessel(name: str, numpy: Callable[..., Any], sign: int, doc: str) -> Callable[[int, Any], Tensor]:
    """The function (order, x) of a family with f_v' = (f_(v-1) + sign * f_(v+1)) / 2."""

    def meaning(a: Array, v: int) -> Any:
        return numpy(v, a)

    op = register(
        Op(
            name,
            shape=same_shape,
            dtype=numpy_dtype(meaning),
            numpy=meaning,
            rules=(lambda g, out, a, v: g * ((of_order(v - 1, a) + sign * of_order(v + 1, a)) / 2),),
            text=f"special.{name}({{v}}, {{0}})",
            samples=[(normal(2, 3), {"v": v}) for v in (0, 1, 2)] + [(uniform(0.5, 3, 2, 3), {"v": 1.5})],
            elementwise=True,
            doc=doc,
        )
    )

    def of_order(v: Any, z: Any) -> Tensor:
        if isinstance(v, bool) or not isinstance(v, (int, float, np.integer, np.floating)):
            raise ArgumentError(
                f"{name} was called with an order of {v!r:.60}",
                "its derivative with respect to the order has no closed form, so the order is one plain number",
                f"pass a number: special.{name}(2, x)",
            )
        return record(op, (as_tensor(z),), {"v": int(v) if v == int(v) else float(v)})

    of_order.__name__, of_order.__doc__ = name, doc
    return public(of_order, numpy)


iv = _bessel("iv", special.iv, 1, "The modified Bessel function of the first kind, of order v.")
jv = _bessel("jv", special.jv, -1, "The Bessel function of the first kind, of order v.")


def i0(x: Any) -> Tensor:
    """The modified Bessel function of the first kind, of order 0; see `iv`."""
    return iv(0, x)


def i1(x: Any) -> Tensor:
    """The modified Bessel function of the first kind, of order 1; see `iv`."""
    return iv(1, x)


def j0(x: Any) -> Tensor:
    """The Bessel function of the first kind, of order 0; see `jv`."""
    return jv(0, x)


def j1(x: Any) -> Tensor:
    """The Bessel function of the first kind, of order 1; see `jv`."""
    return jv(1, x)


public(polygamma)
public(i0, np.i0, special.i0)
public(i1, special.i1)
public(j0, special.j0)
public(j1, special.j1)
numpy_functions |= {special.exp2: functions["exp2"], special.expm1: functions["expm1"], special.log1p: log1p}
numpy_functions[special.cbrt] = cbrt
