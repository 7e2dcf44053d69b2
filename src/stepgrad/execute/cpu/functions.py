"""Mathematical functions as LLVM IR, by the names of the ops that they compute.

`call(b, name, *operands)` is the way to use them: it puts each function into a module once for each type. Operands are
floats, doubles or vectors of them, all of one type.

Results are within 2 units in the last place of the exact ones over the whole range, and right for NaN, infinities,
zeros of both signs and denormal numbers. In float64, sin, cos, tan, erfc and pow are those of the C library, one lane
at a time, and as right as that (glibc 2.36's erfc: 2.4 units); in float32 they are computed in doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from llvmlite import ir

from stepgrad.execute.cpu import coefficients
from stepgrad.execute.cpu import exponentials as exponential
from stepgrad.execute.cpu.exponentials import is_double, odd_polynomial, polynomial, precision_of
from stepgrad.execute.cpu.instructions import (
    F64,
    I64,
    absolute,
    any_of,
    at_most,
    bits,
    ceil,
    constant,
    copysign,
    counted,
    declared,
    element_of,
    floor,
    fma,
    is_nan,
    lanes_of,
    rarely,
    rint,
    sqrt,
    suffix,
    trunc,
    with_element,
)

Function = Callable[..., ir.Value]
"""Emits code at a builder: takes the builder and the operands, and gives the result."""


# --- two ways to make one function of another


def in_doubles(function: Function, rough: Function | None = None) -> Function:
    """A function of float32 and float64 made of one of doubles; `rough` is one that is right to float32 only."""

    def emit(b: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        if is_double(operands[0]):
            return function(b, *operands)
        type = operands[0].type
        return b.fptrunc((rough or function)(b, *[b.fpext(x, with_element(type, F64)) for x in operands]), type)

    return emit


def with_library(name: str, single: Function) -> Function:
    """For float32 a function that works in doubles, for float64 the one of the C library."""

    def emit(b: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        return by_lanes(b, name, *operands) if is_double(operands[0]) else in_doubles(single)(b, *operands)

    return emit


def by_lanes(b: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """A function of the C library, called for one lane after the other."""
    type = operands[0].type
    element = element_of(type)
    function = declared(b, name, element, [element] * len(operands))
    if not lanes_of(type):
        return b.call(function, operands)
    first = ir.Constant(type, ir.Undefined)

    def one(lane: ir.Value, results: list[ir.Value]) -> list[ir.Value]:
        value = b.call(function, [b.extract_element(x, lane) for x in operands])
        return [b.insert_element(results[0], value, lane)]

    return counted(b, I64(0), I64(lanes_of(type)), 1, [first], one)[0]


# --- the error function


def erf(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Up to 1 an odd polynomial, else 1 - exp(q(|x|)) with a polynomial q for log(erfc)."""
    a = absolute(b, x)
    one = constant(x.type, 1)
    tables = coefficients.ERF_OUTER_WIDE if is_double(x) else coefficients.ERF_OUTER
    t = b.fsub(at_most(b, a, 6.0 if is_double(x) else 4.0), one)
    q = polynomial(b, t, tables[precision_of(x)])
    outer = b.fsub(one, exponential.exp_of(b, q, precision_of(x), parts=2 if is_double(x) else 1))
    inner = fma(b, a, polynomial(b, b.fmul(a, a), coefficients.ERF[precision_of(x)]), a)
    return copysign(b, b.select(b.fcmp_ordered("<", a, one), inner, outer), x)


def _erfc(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(q(|x|) - x**2), and 2 less that for negative x. On doubles that hold float32 numbers."""
    a = at_most(b, absolute(b, x), 10.1)
    q = polynomial(b, b.fsub(a, constant(x.type, 5)), coefficients.ERFC["mixed"])
    e = exponential.exp_of(b, fma(b, b.fneg(a), a, q), "mixed")
    return b.select(b.fcmp_ordered("<", x, constant(x.type, 0)), b.fsub(constant(x.type, 2), e), e)


# --- trigonometric functions

HALF_PI, HALF_PI_REST = 1.5707963267948966, 6.123233995736766e-17
LARGEST_REDUCED = 2.0**48


def _quadrant(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """n mod 4, sin(r) and cos(r) of x = n pi / 2 + r, right to float32, for doubles |x| up to 2**48."""
    origin = constant(x.type, 1.5 * 2.0**52)
    shifted = fma(b, x, constant(x.type, 1 / HALF_PI), origin)
    minus_n = b.fsub(origin, shifted)
    r = fma(b, minus_n, constant(x.type, HALF_PI), x)
    r = fma(b, minus_n, constant(x.type, HALF_PI_REST), r)
    square = b.fmul(r, r)
    sine = b.fmul(r, polynomial(b, square, (1.0, *coefficients.SIN["mixed"])))  # a product keeps the sign of -0
    return bits(b, shifted), sine, polynomial(b, square, (1.0, *coefficients.COS["mixed"]))


def _bit(b: ir.IRBuilder, numbers: ir.Value, place: int) -> ir.Value:
    """Whether a bit of integers is set."""
    masked = b.and_(numbers, constant(numbers.type, 1 << place))
    return b.icmp_unsigned("!=", masked, constant(numbers.type, 0))


def _circular(name: str, from_parts: Function) -> Function:
    """A circular function: the C library's where a number is too large for the reduction."""

    def single(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
        usual = from_parts(b, *_quadrant(b, x))
        large = b.fcmp_ordered(">", absolute(b, x), constant(x.type, LARGEST_REDUCED))
        return rarely(b, any_of(b, large), usual, lambda: by_lanes(b, name, x))

    return with_library(name, single)


def _sin(b: ir.IRBuilder, n: ir.Value, sine: ir.Value, cosine: ir.Value) -> ir.Value:
    value = b.select(_bit(b, n, 0), cosine, sine)
    sign = b.shl(b.and_(n, constant(n.type, 2)), constant(n.type, 62))
    return b.bitcast(b.xor(bits(b, value), sign), value.type)


def _cos(b: ir.IRBuilder, n: ir.Value, sine: ir.Value, cosine: ir.Value) -> ir.Value:
    return _sin(b, b.add(n, constant(n.type, 1)), sine, cosine)


def _tan(b: ir.IRBuilder, n: ir.Value, sine: ir.Value, cosine: ir.Value) -> ir.Value:
    odd = _bit(b, n, 0)
    return b.fdiv(b.select(odd, b.fneg(cosine), sine), b.select(odd, sine, cosine))


def arctan(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """An odd polynomial up to 1; beyond, pi / 2 less that of 1 / x."""
    a = absolute(b, x)
    one = constant(x.type, 1)
    large = b.fcmp_ordered(">", a, one)
    value = odd_polynomial(b, b.select(large, b.fdiv(one, a), a), coefficients.ARCTAN[precision_of(x)])
    high, low = exponential.two_parts(x, HALF_PI, HALF_PI_REST)
    return copysign(b, b.select(large, b.fsub(high, b.fsub(value, low)), value), x)


def _half_angle(b: ir.IRBuilder, a: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Whether a is large, and arcsin(a); where so, that of sqrt((1 - a) / 2), which is half of arccos(a).

    Both are below 1/2, so that twice the rounding error is still small.
    """
    half = constant(a.type, 0.5)
    large = b.fcmp_ordered(">", a, constant(a.type, 0.5415))
    root = sqrt(b, fma(b, b.fneg(a), half, half))
    return large, odd_polynomial(b, b.select(large, root, a), coefficients.ARCSIN["float64"])


def arcsin(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """An odd polynomial up to 0.54; beyond, pi / 2 less twice the arcsine of half the angle. On doubles."""
    large, value = _half_angle(b, absolute(b, x))
    doubled = b.fsub(b.fadd(value, value), constant(x.type, HALF_PI_REST))
    return copysign(b, b.select(large, b.fsub(constant(x.type, HALF_PI), doubled), value), x)


def arccos(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """pi / 2 less the arcsine up to 0.54; beyond, that of half the angle twice, from 0 or from pi. On doubles."""
    large, value = _half_angle(b, absolute(b, x))
    doubled = b.fadd(value, value)
    rest = constant(x.type, HALF_PI_REST)
    opposite = b.fsub(constant(x.type, 2 * HALF_PI), b.fsub(b.fsub(doubled, rest), rest))
    outer = b.select(b.fcmp_ordered("<", x, constant(x.type, 0)), opposite, doubled)
    inner = b.fsub(constant(x.type, HALF_PI), b.fsub(copysign(b, value, x), rest))
    return b.select(large, outer, inner)


# --- larger, smaller, signs and remainders, as NumPy has them


def maximum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger one, NaN if one is NaN; of equal ones (zeros of two signs) the second, as NumPy on x86."""
    larger = b.select(b.fcmp_unordered(">", x, y), x, y)
    return b.select(is_nan(b, y), y, larger)


def minimum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The smaller one, NaN if one is NaN; of equal ones (zeros of two signs) the second, as NumPy on x86."""
    smaller = b.select(b.fcmp_unordered("<", x, y), x, y)
    return b.select(is_nan(b, y), y, smaller)


def sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """1, -1, 0 for both zeros, NaN for NaN."""
    zero = constant(x.type, 0)
    unit = b.select(b.fcmp_ordered("==", x, zero), zero, copysign(b, constant(x.type, 1), x))
    return b.select(is_nan(b, x), x, unit)


def fmod(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The exact remainder of x / y with the sign of x.

    A quotient below half the digits of a number loses at most one in rounding, and a fused multiplication gives the
    remainder of that exactly. Where a quotient is larger, or something is not finite, the C library's.
    """
    quotient = b.fdiv(x, y)
    part = fma(b, b.fneg(trunc(b, quotient)), y, x)
    # below 0 seen from x: the quotient was rounded up
    beyond = b.fcmp_ordered("<", b.fmul(part, copysign(b, constant(x.type, 1), x)), constant(x.type, 0))
    part = b.select(beyond, b.fadd(part, copysign(b, y, x)), part)
    small = b.fcmp_ordered("<", absolute(b, quotient), constant(x.type, 2.0 ** (50 if is_double(x) else 22)))
    finite = b.fcmp_ordered("<", absolute(b, y), constant(x.type, math.inf))
    other = b.not_(b.and_(small, finite))
    name = "fmod" if is_double(x) else "fmodf"
    return rarely(b, any_of(b, other), copysign(b, part, x), lambda: by_lanes(b, name, x, y))


def _opposite(b: ir.IRBuilder, rest: ir.Value, y: ir.Value) -> ir.Value:
    """Where a remainder that is not 0 has another sign than the divisor."""
    zero = constant(y.type, 0)
    differ = b.xor(b.fcmp_ordered("<", rest, zero), b.fcmp_ordered("<", y, zero))
    return b.and_(b.fcmp_unordered("!=", rest, zero), differ)


def remainder(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The exact remainder with the sign of y, rounded where it is a sum of two."""
    rest = fmod(b, x, y)
    zero = b.fcmp_ordered("==", rest, constant(x.type, 0))
    return b.select(zero, copysign(b, constant(x.type, 0), y), b.select(_opposite(b, rest, y), b.fadd(rest, y), rest))


def floor_divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The quotient less the remainder's share, rounded to the integer that it is nearly; x / 0 is as in `/`."""
    zero, one = constant(x.type, 0), constant(x.type, 1)
    rest = fmod(b, x, y)
    whole = b.fdiv(b.fsub(x, rest), y)
    whole = b.select(_opposite(b, rest, y), b.fsub(whole, one), whole)
    low = floor(b, whole)
    near = b.select(b.fcmp_ordered(">", b.fsub(whole, low), constant(x.type, 0.5)), b.fadd(low, one), low)
    quotient = b.fdiv(x, y)
    result = b.select(b.fcmp_ordered("==", whole, zero), copysign(b, zero, quotient), near)
    return b.select(b.fcmp_ordered("==", y, zero), quotient, result)


# --- all of them

FUNCTIONS: dict[str, Function] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "log": exponential.log,
    "log2": exponential.log2,
    "log10": exponential.log10,
    "log1p": exponential.log1p,
    "sigmoid": exponential.sigmoid,
    "tanh": exponential.tanh,
    "sinh": in_doubles(exponential.sinh, partial(exponential.sinh, precision="mixed")),
    "cosh": in_doubles(exponential.cosh, partial(exponential.cosh, precision="mixed")),
    "pow": with_library("pow", exponential.power),
    "cbrt": in_doubles(exponential.cbrt, exponential.rough_cbrt),
    "erf": erf,
    "erfc": with_library("erfc", _erfc),
    "sin": _circular("sin", _sin),
    "cos": _circular("cos", _cos),
    "tan": _circular("tan", _tan),
    "arctan": arctan,
    "arcsin": in_doubles(arcsin),
    "arccos": in_doubles(arccos),
    "sqrt": sqrt,
    "floor": floor,
    "ceil": ceil,
    "trunc": trunc,
    "rint": rint,
    "absolute": absolute,
    "fabs": absolute,
    "copysign": copysign,
    "sign": sign,
    "maximum": maximum,
    "minimum": minimum,
    "fmod": fmod,
    "remainder": remainder,
    "floor_divide": floor_divide,
}

IN_PLACE = {"sqrt", "floor", "ceil", "trunc", "rint", "absolute", "fabs", "copysign", "sign", "maximum", "minimum"}
"""Functions of a few instructions: they are emitted where they are called."""

CALLED = {"pow", "cbrt", "erfc", "sinh", "cosh", "sin", "cos", "tan", "arcsin", "arccos"}
CALLED |= {"fmod", "remainder", "floor_divide"}
"""Long functions: a real call costs them about a tenth. The others, inlined, are up to 1.4 times as fast as called."""

LIBRARY = ("sin", "cos", "tan", "erfc", "pow", "fmod", "fmodf")
"""The functions of the C library that machine code made here may call."""


def call(b: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """Calls a function of FUNCTIONS; its code is in the builder's module once for each type."""
    if name in IN_PLACE:
        return FUNCTIONS[name](b, *operands)
    type = operands[0].type
    label = f"sg.{name}.{suffix(type)}"
    function = b.module.globals.get(label)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(type, [type] * len(operands)), label)
        function.linkage = "internal"
        function.attributes.add("noinline" if name in CALLED else "alwaysinline")
        inside = ir.IRBuilder(function.append_basic_block("entry"))
        inside.ret(FUNCTIONS[name](inside, *function.args))
    return b.call(function, operands)
