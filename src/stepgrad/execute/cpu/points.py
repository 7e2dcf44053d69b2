"""Pointwise nodes as LLVM IR: one function for each op, the same for a single number and for a vector of them.

Values are floats, doubles, i32, i64 or i1, or vectors of these; booleans are bytes in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from stepgrad.execute.cpu import functions, instructions, packing
from stepgrad.execute.cpu.instructions import element_of, fma, shaped
from stepgrad.tape.equation import Equation

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
TYPES: dict[str, ir.Type] = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "int64": I64,
    "int32": I32,
    "bool": I1,
    # These are only moved from place to place.
    "uint64": I64,
    "uint32": I32,
    "int16": ir.IntType(16),
    "uint16": ir.IntType(16),
    "float16": ir.IntType(16),
    "int8": I8,
    "uint8": I8,
}


def constant(dtype: str, value: Any, lanes: int = 0) -> ir.Constant:
    """A number, in all lanes of a vector if there are any."""
    return instructions.constant(shaped(TYPES[dtype], lanes), value)


def like(x: ir.Value, value: Any) -> ir.Constant:
    """A number of the same type as a value."""
    return instructions.constant(x.type, value)


def element(value: ir.Value) -> ir.Type:
    """The type of a scalar, or of a vector's elements."""
    return element_of(value.type)


def lanes_of(value: ir.Value) -> int:
    """How many numbers a value has; 0 for a scalar."""
    return instructions.lanes_of(value.type)


def is_float(x: ir.Value) -> bool:
    return isinstance(element(x), (ir.FloatType, ir.DoubleType))


def splat(b: ir.IRBuilder, x: ir.Value, lanes: int) -> ir.Value:
    """A scalar in all lanes; vectors as they are."""
    if lanes == lanes_of(x):
        return x
    if isinstance(x, ir.Constant):
        return instructions.constant(ir.VectorType(x.type, lanes), x.constant)
    return packing.broadcast(b, x, lanes)


def cast(b: ir.IRBuilder, x: ir.Value, dtype: str, unsigned: bool = False) -> ir.Value:
    """Converts to another dtype, as NumPy's astype does. LLVM's integers have no sign of their own."""
    source, target = element(x), TYPES[dtype]
    if source == target:
        return x
    type = ir.VectorType(target, lanes_of(x)) if lanes_of(x) else target
    if target == I1:
        return _compare(b, "!=", x, like(x, 0))
    if is_float(x):
        if isinstance(target, ir.IntType):
            return _to_integer(b, x, target, type)
        return b.fptrunc(x, type) if isinstance(target, ir.FloatType) else b.fpext(x, type)
    if isinstance(target, ir.IntType):
        if source == I1 or (unsigned and target.width > source.width):
            return b.zext(x, type)
        return b.sext(x, type) if target.width > source.width else b.trunc(x, type)
    return b.uitofp(x, type) if source == I1 or unsigned else b.sitofp(x, type)


def _to_integer(b: ir.IRBuilder, x: ir.Value, target: ir.IntType, type: ir.Type) -> ir.Value:
    """Numbers that do not fit give the smallest integer, as on x86; LLVM alone leaves them undefined."""
    limit = 2.0 ** (target.width - 1)
    fits = b.and_(b.fcmp_ordered("<", x, like(x, limit)), b.fcmp_ordered(">=", x, like(x, -limit)))
    safe = b.select(fits, x, like(x, 0.0))
    least = ir.Constant(target, -(2 ** (target.width - 1)))
    return b.select(fits, b.fptosi(safe, type), splat(b, least, lanes_of(x)) if lanes_of(x) else least)


def _compare(b: ir.IRBuilder, how: str, x: ir.Value, y: ir.Value) -> ir.Value:
    if is_float(x):
        return b.fcmp_unordered(how, x, y) if how == "!=" else b.fcmp_ordered(how, x, y)
    return b.icmp_unsigned(how, x, y) if element(x) == I1 else b.icmp_signed(how, x, y)


def _arithmetic(floating: str, integer: str) -> Callable[..., ir.Value]:
    return lambda b, x, y: getattr(b, floating if is_float(x) else integer)(x, y)


def _negative(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fneg(x) if is_float(x) else b.neg(x)


def _absolute(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    if is_float(x):
        return instructions.absolute(b, x)
    return b.select(b.icmp_signed("<", x, like(x, 0)), b.neg(x), x)


def _relu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    zero = like(x, 0)
    above = b.fcmp_unordered(">", x, zero) if is_float(x) else b.icmp_signed(">", x, zero)  # NaN stays NaN
    return b.select(above, x, zero)


def _leaky_relu(b: ir.IRBuilder, x: ir.Value, negative_slope: float) -> ir.Value:
    return b.select(b.fcmp_ordered(">", x, like(x, 0.0)), x, b.fmul(like(x, negative_slope), x))


def _square(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fmul(x, x) if is_float(x) else b.mul(x, x)


def _reciprocal(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fdiv(like(x, 1.0), x)


_sqrt = instructions.sqrt


def _constant_power(b: ir.IRBuilder, x: ir.Value, exponent: float) -> ir.Value:
    simple: dict[float, Callable[[], ir.Value]] = {
        2: lambda: _square(b, x),
        0.5: lambda: _sqrt(b, x),
        -1: lambda: _reciprocal(b, x),
        1: lambda: x,
    }
    if exponent in simple:
        return simple[exponent]()
    return functions.call(b, "pow", x, like(x, exponent))


def _constant_base(b: ir.IRBuilder, x: ir.Value, base: float) -> ir.Value:
    return functions.call(b, "pow", like(x, base), x)


def _sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    one, zero = like(x, 1), like(x, 0)
    if not is_float(x):
        return b.select(_compare(b, ">", x, zero), one, b.select(_compare(b, "<", x, zero), like(x, -1), zero))
    signed = b.select(_compare(b, ">", x, zero), one, b.select(_compare(b, "<", x, zero), like(x, -1), zero))
    return b.select(b.fcmp_unordered("uno", x, x), x, signed)


def _isfinite(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fcmp_ordered("<", _absolute(b, x), like(x, math.inf))


def _ndtr(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The normal distribution function, erfc(z) / 2 with z = -x / sqrt(2).

    Far below 0, what rounding takes from z would be seen: erfc(z + d) is about erfc(z) * (1 - 2 z d) there.
    """
    exact = math.sqrt(0.5)
    high = float(np.float32(exact)) if isinstance(element(x), ir.FloatType) else exact
    z = b.fmul(x, like(x, -high))
    lost = fma(b, x, like(x, -high), b.fneg(z))
    lost = fma(b, x, like(x, high - exact), lost)
    tail = b.fmul(b.fmul(z, like(x, -2.0)), lost)
    tail = b.select(b.fcmp_ordered(">", z, like(x, 1.0)), tail, like(x, 0.0))
    tail = b.select(b.fcmp_ordered("<", z, like(x, 50.0)), tail, like(x, 0.0))
    half = b.fmul(functions.call(b, "erfc", z), like(x, 0.5))
    return fma(b, half, tail, half)


def _clip(b: ir.IRBuilder, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """An end that is NaN makes everything NaN; of two zeros, x stays."""
    if not is_float(x):
        x = b.select(b.icmp_signed("<", x, low), low, x)
        return b.select(b.icmp_signed(">", x, high), high, x)
    x = b.select(b.or_(b.fcmp_ordered("<", x, low), b.fcmp_unordered("uno", low, low)), low, x)
    return b.select(b.or_(b.fcmp_ordered(">", x, high), b.fcmp_unordered("uno", high, high)), high, x)


_POINTS: dict[str, Callable[..., ir.Value]] = {
    "alias": lambda b, x: x,
    "positive": lambda b, x: x,
    "stop_gradient": lambda b, x: x,
    "add": _arithmetic("fadd", "add"),
    "subtract": _arithmetic("fsub", "sub"),
    "multiply": _arithmetic("fmul", "mul"),
    "negative": _negative,
    "absolute": _absolute,
    "fabs": _absolute,
    "square": _square,
    "relu": _relu,
    "where": lambda b, c, x, y: b.select(c, x, y),
    "equal": lambda b, x, y: _compare(b, "==", x, y),
    "not_equal": lambda b, x, y: _compare(b, "!=", x, y),
    "greater": lambda b, x, y: _compare(b, ">", x, y),
    "greater_equal": lambda b, x, y: _compare(b, ">=", x, y),
    "less": lambda b, x, y: _compare(b, "<", x, y),
    "less_equal": lambda b, x, y: _compare(b, "<=", x, y),
    "logical_and": lambda b, x, y: b.and_(x, y),
    "logical_or": lambda b, x, y: b.or_(x, y),
    "logical_xor": lambda b, x, y: b.xor(x, y),
    "logical_not": lambda b, x: b.not_(x),
    "sign": _sign,
    "clip": _clip,
}
"""Ops on floats and integers; not on booleans, except for the logical ones, comparisons and `where`."""

_BITWISE: dict[str, Callable[..., ir.Value]] = {
    "bitwise_and": lambda b, x, y: b.and_(x, y),
    "bitwise_or": lambda b, x, y: b.or_(x, y),
    "bitwise_xor": lambda b, x, y: b.xor(x, y),
    "invert": lambda b, x: b.not_(x),
}
"""Ops on integers and booleans."""

_FLOATING: dict[str, Callable[..., ir.Value]] = {
    "divide": lambda b, x, y: b.fdiv(x, y),
    "reciprocal": _reciprocal,
    "ndtr": _ndtr,
    "sqrt": _sqrt,
    "constant_power": _constant_power,
    "constant_base": _constant_base,
    "leaky_relu": _leaky_relu,
    "floor": instructions.floor,
    "ceil": instructions.ceil,
    "trunc": instructions.trunc,
    "rint": instructions.rint,
    "isnan": lambda b, x: b.fcmp_unordered("uno", x, x),
    "isfinite": _isfinite,
    "isinf": lambda b, x: b.fcmp_ordered("==", _absolute(b, x), like(x, math.inf)),
}
"""Ops on floats."""

_ON_BOOLEANS = frozenset(
    "alias positive stop_gradient where equal not_equal logical_and logical_or logical_xor logical_not".split()
)


def emit(b: ir.IRBuilder, name: str, arguments: list[ir.Value], params: dict[str, Any]) -> ir.Value:
    """The value of a pointwise node; its arguments have one number of lanes."""
    function = _POINTS.get(name) or _FLOATING.get(name) or _BITWISE.get(name)
    if function is not None:
        return function(b, *arguments, **params)
    return functions.call(b, name, *arguments)


def can_emit(equation: Equation) -> bool:
    """Whether a pointwise equation can be computed natively."""
    name, dtypes = equation.op.name, [e.type.dtype for e in equation.inputs if not e.type.weak]
    if name == "astype":
        return True
    if name in ("gather", "take_along_axis"):
        return equation.inputs[0].type.size > 0 and all(e.type.dtype.kind == "i" for e in equation.inputs[1:])
    if name == "one_hot":
        return equation.inputs[0].type.dtype.kind == "i"
    if name in _ON_BOOLEANS or name in _BITWISE:
        return True
    if name in ("greater", "greater_equal", "less", "less_equal"):
        return any(d.kind != "b" for d in dtypes)
    if name in _POINTS:
        return equation.type.dtype.kind != "b"
    if name in ("constant_power", "constant_base"):
        return equation.type.is_float and isinstance(next(iter(equation.params.values())), (int, float))
    if name in _FLOATING:
        return all(d.kind == "f" for d in dtypes) if name.startswith("is") else equation.type.is_float
    return name in functions.FUNCTIONS and equation.type.is_float and not equation.params
