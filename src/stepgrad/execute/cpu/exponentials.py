"""Exponentials and logarithms as LLVM IR, and what is made of them: powers, sigmoid and the hyperbolic functions.

Branch-free, in fused multiply-adds, the same for single numbers and vectors. The methods are the classical ones (W. J.
Cody and W. Waite, Software Manual for the Elementary Functions, 1980): the argument is reduced with a constant in two
parts, a polynomial approximates the function on what remains, and an exponent puts the result in its place.

A `precision` names the coefficients: "float32" and "float64" for results of that dtype, and "mixed" for work in double
whose result is rounded to float32 in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from stepgrad.execute.cpu import coefficients
from stepgrad.execute.cpu.instructions import (
    F64,
    absolute,
    at_least,
    at_most,
    bits,
    constant,
    copysign,
    declared,
    element_of,
    floor,
    fma,
    integers_like,
    lanes_of,
)
from stepgrad.execute.cpu.target import host

EXP_BOUNDS = {"float32": (-104.0, 89.0), "float64": (-746.0, 710.0), "mixed": (-746.0, 710.0)}
EXP2_BOUNDS = {"float32": (-151.0, 129.0), "float64": (-1076.0, 1025.0), "mixed": (-1076.0, 1025.0)}


def is_double(x: ir.Value) -> bool:
    return element_of(x.type) == F64


def precision_of(x: ir.Value) -> str:
    return "float64" if is_double(x) else "float32"


def polynomial(b: ir.IRBuilder, x: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """By Horner's rule: it takes the fewest instructions, and a loop has other work while it waits for them."""
    result: ir.Value = constant(x.type, numbers[-1])
    for number in reversed(numbers[:-1]):
        result = fma(b, result, x, constant(x.type, number))
    return result


def two_parts(x: ir.Value, value: float, rest: float, spare: int = 0) -> tuple[ir.Constant, ir.Constant]:
    """The positive constant value + rest, as one number of x's dtype and the number that is missing.

    Both are positive, so that infinity times both is not NaN.

    Args:
        x: what the constants are for.
        value, rest: two doubles, the second what the first lacks.
        spare: how many bits to leave free in the first number, so that its product with integers is exact.
    """
    digits = (53 if is_double(x) else 24) - spare
    mantissa, exponent = math.frexp(value)
    high = math.ldexp(math.trunc(math.ldexp(mantissa, digits)), exponent - digits)
    return constant(x.type, high), constant(x.type, value - high + rest)


# --- exponents


def is_wide(x: ir.Value) -> bool:
    """Whether x fills a vector of AVX-512, which has instructions for exponents."""
    return lanes_of(x.type) * (8 if is_double(x) else 4) == 64 and host().vector_bytes == 64


def _wide(b: ir.IRBuilder, name: str, x: ir.Value, *settings: ir.Value) -> ir.Value:
    kind, mask = ("pd", ir.IntType(8)) if is_double(x) else ("ps", ir.IntType(16))
    operands = [x, *settings, constant(x.type, 0), mask(-1), ir.IntType(32)(4)]
    function = declared(b, f"llvm.x86.avx512.mask.{name}.{kind}.512", x.type, [o.type for o in operands])
    return b.call(function, operands)


def _rounding(x: ir.Value) -> ir.Constant:
    """What added to a number leaves its nearest integer in the lowest bits."""
    return constant(x.type, 1.5 * 2.0 ** (52 if is_double(x) else 23))


def mantissa_bits(x: ir.Value) -> int:
    return 52 if is_double(x) else 23


def exponent_bias(x: ir.Value) -> int:
    return 1023 if is_double(x) else 127


def scale(b: ir.IRBuilder, x: ir.Value, n: ir.Value) -> ir.Value:
    """x * 2**n for an integer n in x's own dtype. It is rounded once, for x * 2**(n / 2) has to be a normal number."""
    if is_wide(x):
        return _wide(b, "scalef", x, n)
    integers = integers_like(x.type)
    origin = _rounding(x)
    number = b.sub(bits(b, b.fadd(n, origin)), bits(b, origin))
    half = b.ashr(number, constant(integers, 1))
    for part in (half, b.sub(number, half)):
        power = b.shl(b.add(part, constant(integers, exponent_bias(x))), constant(integers, mantissa_bits(x)))
        x = b.fmul(x, b.bitcast(power, x.type))
    return x


def split(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """e and m with x = m * 2**e and 3/4 <= m < 3/2, for finite x > 0; e is in x's dtype.

    Of other x they are such that e + log(m) is the logarithm, where `is_wide(x)`; elsewhere they mean nothing.
    """
    if is_wide(x):
        interval_and_sign = 3 | 2 << 2  # m in [3/4, 3/2), NaN for x < 0
        m = _wide(b, "getmant", x, ir.IntType(32)(interval_and_sign))
        return b.fsub(_wide(b, "getexp", x), _wide(b, "getexp", m)), m
    integers = integers_like(x.type)
    digits = mantissa_bits(x)
    tiny = b.fcmp_ordered("<", x, constant(x.type, 2.0 ** (1 - exponent_bias(x))))
    lifted = b.select(tiny, b.fmul(x, constant(x.type, 2.0 ** (digits + 1))), x)
    number = bits(b, lifted)
    three_quarters = constant(integers, (exponent_bias(x) - 1 << digits) + (1 << digits - 1))
    exponent = b.ashr(b.sub(number, three_quarters), constant(integers, digits))
    m = b.bitcast(b.sub(number, b.shl(exponent, constant(integers, digits))), x.type)
    e = b.sitofp(exponent, x.type)
    return b.select(tiny, b.fsub(e, constant(x.type, digits + 1)), e), m


# --- exp


@dataclass(frozen=True)
class Reduced:
    """x = n log(2) + r."""

    n: ir.Value
    r: ir.Value


LN2, LN2_REST = 0.6931471805599453, 2.3190468138462996e-17


def reduced(b: ir.IRBuilder, x: ir.Value, parts: int = 2) -> Reduced:
    """With one part of log(2), r is only right to about n units in its last place."""
    origin = _rounding(x)
    n = b.fsub(fma(b, x, constant(x.type, 1 / LN2), origin), origin)
    high, low = two_parts(x, LN2, LN2_REST)
    r = fma(b, b.fneg(n), high, x)
    return Reduced(n, fma(b, b.fneg(n), low, r) if parts == 2 else r)


def exp_of(b: ir.IRBuilder, x: ir.Value, precision: str, shift: int = 0, parts: int = 2) -> ir.Value:
    """exp(x) * 2**shift for x within the bounds of exp."""
    reduction = reduced(b, x, parts)
    p = polynomial(b, reduction.r, (1.0, 1.0, *coefficients.EXP[precision]))
    n = b.fadd(reduction.n, constant(x.type, shift)) if shift else reduction.n
    return scale(b, p, n)


def exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    low, high = EXP_BOUNDS[precision_of(x)]
    return exp_of(b, at_most(b, at_least(b, x, low), high), precision_of(x))


def exp2_of(b: ir.IRBuilder, x: ir.Value, precision: str) -> ir.Value:
    low, high = EXP2_BOUNDS[precision]
    x = at_most(b, at_least(b, x, low), high)
    origin = _rounding(x)
    n = b.fsub(b.fadd(x, origin), origin)
    return scale(b, polynomial(b, b.fsub(x, n), (1.0, *coefficients.EXP2[precision])), n)


def exp2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return exp2_of(b, x, precision_of(x))


def expm1(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2**n ((1 - 2**-n) + expm1(r)), where n is 0 near 0. What rounding took from r is added again."""
    low, high = (-40.0, 710.0) if is_double(x) else (-20.0, 89.0)
    a = at_most(b, at_least(b, x, low), high)
    origin = _rounding(a)
    n = b.fsub(fma(b, a, constant(a.type, 1 / LN2), origin), origin)
    ln2, rest = two_parts(a, LN2, LN2_REST)
    first = fma(b, b.fneg(n), ln2, a)
    r = fma(b, b.fneg(n), rest, first)
    lost = fma(b, b.fneg(n), rest, b.fsub(first, r))
    p = b.fadd(r, fma(b, b.fmul(r, r), polynomial(b, r, coefficients.EXP[precision_of(x)]), lost))
    one = constant(x.type, 1)
    offset = b.fsub(one, scale(b, one, b.fneg(n)))
    return copysign(b, scale(b, b.fadd(offset, p), n), x)


# --- logarithms

LOG_UNITS = {  # log(2) and 1 / log(base) in two parts, for each base
    "LOG": ((LN2, LN2_REST), (1.0, 0.0)),
    "LOG2": ((1.0, 0.0), (1.4426950408889634, 2.0355273740931033e-17)),
    "LOG10": ((0.30102999566398114, 5.270742310347266e-17), (0.4342944819032518, 1.098319650216765e-17)),
}


def log_of(b: ir.IRBuilder, e: ir.Value, f: ir.Value, base: str, precision: str) -> ir.Value:
    """The logarithm of 2**e (1 + f) for f between -1/4 and 1/2.

    The large terms, which may cancel each other, are added first; without them nothing is rounded before the end.
    """
    exponent, unit = LOG_UNITS[base]
    p = polynomial(b, f, getattr(coefficients, base)[precision])
    high, low = two_parts(f, *exponent, spare=0 if base == "LOG" else 8 if not is_double(f) else 11)
    if base == "LOG":
        square = b.fmul(f, f)
        if not is_double(f):
            return fma(b, e, high, fma(b, square, p, fma(b, e, low, f)))
        return fma(b, e, high, b.fadd(f, fma(b, e, low, b.fmul(square, p))))
    unit_high, unit_low = two_parts(f, *unit)
    small = b.fmul(f, fma(b, p, f, unit_low))
    leading = e if base == "LOG2" else b.fmul(e, high)
    rest = small if base == "LOG2" else fma(b, e, low, small)
    sum = b.fadd(fma(b, f, unit_high, leading), rest)
    return b.select(b.fcmp_ordered("==", e, constant(f.type, 0)), fma(b, f, unit_high, small), sum)


def log_with(b: ir.IRBuilder, x: ir.Value, base: str, precision: str) -> ir.Value:
    e, m = split(b, x)
    result = log_of(b, e, b.fsub(m, constant(x.type, 1)), base, precision)
    return result if is_wide(x) else _special_log(b, x, x, result)


def _special_log(b: ir.IRBuilder, x: ir.Value, argument: ir.Value, result: ir.Value) -> ir.Value:
    """The logarithm of an argument that may be 0, negative, infinite or NaN; x is the argument, or it less one."""
    infinity, zero = constant(x.type, math.inf), constant(x.type, 0)
    outside = b.select(b.fcmp_ordered("==", argument, zero), constant(x.type, -math.inf), constant(x.type, math.nan))
    result = b.select(b.fcmp_ordered(">", argument, zero), result, outside)
    return b.select(b.fcmp_ordered("==", x, infinity), infinity, result)


def log(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return log_with(b, x, "LOG", precision_of(x))


def log2(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return log_with(b, x, "LOG2", precision_of(x))


def log10(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return log_with(b, x, "LOG10", precision_of(x))


def log1p(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The logarithm of u = 1 + x; what rounding took from u is added to the mantissa (two-sum of D. E. Knuth)."""
    one = constant(x.type, 1)
    u = b.fadd(x, one)
    taken = b.fsub(u, x)
    lost = b.fadd(b.fsub(x, b.fsub(u, taken)), b.fsub(one, taken))
    e, m = split(b, u)
    power = scale(b, one, b.fneg(at_most(b, e, 100)))  # beyond, what was lost is too small to be seen
    f = fma(b, lost, power, b.fsub(m, one))
    return copysign(b, _special_log(b, x, u, log_of(b, e, f, "LOG", precision_of(x))), x)


# --- made of exp


def sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """w - w z / (1 + z) for z = exp(-|x|), where w is z for negative x, else 1.

    Nothing overflows, small results are right, and the quotient's rounding weighs less than in w / (1 + z).
    """
    precision = precision_of(x)
    z = exp_of(b, at_least(b, b.fneg(absolute(b, x)), EXP_BOUNDS[precision][0]), precision)
    one = constant(x.type, 1)
    w = b.select(b.fcmp_ordered("<", x, constant(x.type, 0)), z, one)
    return fma(b, b.fneg(w), b.fdiv(z, b.fadd(one, z)), w)


def odd_polynomial(b: ir.IRBuilder, x: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """x + x**3 P(x**2)."""
    square = b.fmul(x, x)
    return fma(b, b.fmul(x, square), polynomial(b, square, numbers), x)


def tanh(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Near 0 an odd polynomial, else 1 - 2 / (exp(2 |x|) + 1)."""
    a = at_most(b, absolute(b, x), 20.0 if is_double(x) else 9.1)
    one = constant(x.type, 1)
    e = exp_of(b, b.fadd(a, a), precision_of(x), parts=2 if is_double(x) else 1)
    outer = b.fsub(one, b.fdiv(constant(x.type, 2), b.fadd(e, one)))
    inner = odd_polynomial(b, a, coefficients.TANH[precision_of(x)])
    return copysign(b, b.select(b.fcmp_ordered("<", a, constant(x.type, 0.7)), inner, outer), x)


def _half_exp(b: ir.IRBuilder, a: ir.Value, precision: str) -> ir.Value:
    """exp(a) / 2 for a >= 0, which does not overflow before cosh does."""
    return exp_of(b, at_most(b, a, 712.0), precision, shift=-1)


def sinh(b: ir.IRBuilder, x: ir.Value, precision: str = "float64") -> ir.Value:
    """Near 0 an odd polynomial, else h - 1 / 4h for h = exp(|x|) / 2. On doubles."""
    a = absolute(b, x)
    h = _half_exp(b, a, precision)
    outer = b.fsub(h, b.fdiv(constant(x.type, 0.25), h))
    inner = odd_polynomial(b, a, coefficients.SINH[precision])
    return copysign(b, b.select(b.fcmp_ordered("<", a, constant(x.type, 1)), inner, outer), x)


def cosh(b: ir.IRBuilder, x: ir.Value, precision: str = "float64") -> ir.Value:
    """h + 1 / 4h for h = exp(|x|) / 2. On doubles."""
    h = _half_exp(b, absolute(b, x), precision)
    return b.fadd(h, b.fdiv(constant(x.type, 0.25), h))


def power(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x**y on doubles that hold float32 numbers, with C's special cases: exp2(y log2 |x|), right to float32."""
    zero, one, infinity = (constant(x.type, v) for v in (0, 1, math.inf))
    a = absolute(b, x)
    result = exp2_of(b, b.fmul(y, log_with(b, a, "LOG2", "mixed")), "mixed")
    half = b.fmul(y, constant(x.type, 0.5))
    fraction = b.fcmp_unordered("!=", floor(b, y), y)
    odd = b.and_(b.not_(fraction), b.fcmp_unordered("!=", floor(b, half), half))
    result = b.select(odd, copysign(b, result, x), result)
    undefined = b.and_(fraction, b.and_(b.fcmp_ordered("<", x, zero), b.fcmp_ordered("<", a, infinity)))
    result = b.select(undefined, constant(x.type, math.nan), result)
    endless = b.and_(b.fcmp_ordered("==", a, one), b.fcmp_ordered("==", absolute(b, y), infinity))
    always = b.or_(b.fcmp_ordered("==", y, zero), b.fcmp_ordered("==", x, one))
    return b.select(b.or_(always, endless), one, result)


def rough_cbrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp2(log2(|x|) / 3), right to float32. On doubles."""
    logarithm = log_with(b, absolute(b, x), "LOG2", "mixed")
    return copysign(b, exp2_of(b, b.fmul(logarithm, constant(x.type, 1 / 3)), "mixed"), x)


def cbrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """One step of Newton's method, which doubles the digits. Denormal numbers are lifted by 2**54 before it."""
    a = absolute(b, x)
    tiny = b.fcmp_ordered("<", a, constant(x.type, 2.0**-1000))
    lifted = b.select(tiny, b.fmul(x, constant(x.type, 2.0**54)), x)
    root = rough_cbrt(b, lifted)
    square = b.fmul(root, root)
    excess = b.fdiv(fma(b, square, root, b.fneg(lifted)), b.fmul(square, constant(x.type, 3)))
    ordinary = b.and_(b.fcmp_ordered(">", a, constant(x.type, 0)), b.fcmp_ordered("<", a, constant(x.type, math.inf)))
    root = b.select(ordinary, b.fsub(root, excess), root)
    return b.select(tiny, b.fmul(root, constant(x.type, 2.0**-18)), root)
