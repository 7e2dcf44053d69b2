"""Instructions over single numbers and vectors alike, where llvmlite's builder has none or needs a type spelt out.

Every function takes the builder first, works on values of any number of lanes, and emits at the builder's position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

I32, I64 = ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()


# --- types and constants


def element_of(type: ir.Type) -> ir.Type:
    """The type of a vector's elements; other types as they are."""
    return type.element if isinstance(type, ir.VectorType) else type


def lanes_of(type: ir.Type) -> int:
    """How many lanes a vector type has; 0 for a scalar."""
    return type.count if isinstance(type, ir.VectorType) else 0


def shaped(element: ir.Type, lanes: int) -> ir.Type:
    """A vector type of that many lanes, or with 0 the element itself."""
    return ir.VectorType(element, lanes) if lanes else element


def with_element(type: ir.Type, element: ir.Type) -> ir.Type:
    """A type of as many lanes as another one, of other elements."""
    return shaped(element, lanes_of(type))


def integers_like(type: ir.Type) -> ir.Type:
    """The integers that hold the bits of floating numbers."""
    return with_element(type, I64 if element_of(type) == F64 else I32)


def suffix(type: ir.Type) -> str:
    """How a type is written in the name of an intrinsic: `v16f32`."""
    element = element_of(type)
    text = f"i{element.width}" if isinstance(element, ir.IntType) else "f64" if element == F64 else "f32"
    return f"v{type.count}{text}" if isinstance(type, ir.VectorType) else text


class _Splat(ir.Constant):  # type: ignore[misc]
    """One number in all lanes, written short: parsing long lists of equal numbers takes time."""

    def _get_reference(self) -> str:
        one = ir.Constant(self.type.element, self.constant[0].constant)
        return f"splat ({one.type} {one.get_reference()})"


class _Undefined(ir.Constant):  # type: ignore[misc]
    """A vector whose lanes are all still to be put in, written short."""

    def _get_reference(self) -> str:
        return "undef"


def undefined(type: ir.VectorType) -> ir.Constant:
    """A vector to put lanes into."""
    return _Undefined(type, ir.Undefined)


def constant(type: ir.Type, value: Any) -> ir.Constant:
    """A number, in all lanes of a vector type."""
    element = element_of(type)
    number = int(value) if isinstance(element, ir.IntType) else float(value)
    lanes = lanes_of(type)
    return _Splat(type, [ir.Constant(element, number)] * lanes) if lanes else ir.Constant(element, number)


# --- intrinsics


def declared(b: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
    """A function that is defined elsewhere, declared in the module once."""
    existing = b.module.globals.get(name)
    return existing or ir.Function(b.module, ir.FunctionType(result, list(arguments)), name)


def intrinsic(b: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """An LLVM intrinsic that gives what its first operand is, and is overloaded on that type only."""
    type = operands[0].type
    function = declared(b, f"llvm.{name}.{suffix(type)}", type, [x.type for x in operands])
    return b.call(function, operands)


def fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once."""
    return intrinsic(b, "fma", x, y, z)


def floor(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, "floor", x)


def ceil(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, "ceil", x)


def trunc(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, "trunc", x)


def rint(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """To the nearest integer, halves to the even one."""
    return intrinsic(b, "rint", x)


def sqrt(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, "sqrt", x)


def absolute(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return intrinsic(b, "fabs", x)


def copysign(b: ir.IRBuilder, x: ir.Value, sign: ir.Value) -> ir.Value:
    return intrinsic(b, "copysign", x, sign)


def at_most(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """The smaller one of x and a number; NaN stays NaN. One instruction on x86."""
    high = constant(x.type, bound)
    return b.select(b.fcmp_ordered("<", high, x), high, x)


def at_least(b: ir.IRBuilder, x: ir.Value, bound: float) -> ir.Value:
    """The larger one of x and a number; NaN stays NaN. One instruction on x86."""
    low = constant(x.type, bound)
    return b.select(b.fcmp_ordered(">", low, x), low, x)


def is_nan(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fcmp_unordered("uno", x, x)


def bits(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The bits of floating numbers, as integers."""
    return b.bitcast(x, integers_like(x.type))


def any_of(b: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    """Whether a lane of a mask is true, as one i1."""
    lanes = lanes_of(mask.type)
    return b.icmp_unsigned("!=", b.bitcast(mask, ir.IntType(lanes)), ir.IntType(lanes)(0)) if lanes else mask


# --- control


def counted(
    b: ir.IRBuilder,
    start: ir.Value,
    stop: ir.Value,
    step: int,
    carried: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """A loop over i64 numbers, none if start >= stop; leaves the builder behind it.

    Args:
        start, stop: i64 values.
        step: a positive number.
        carried: values before the first round.
        body: emits one round: takes the number and the carried values, and gives the new ones.

    Returns:
        The carried values after the last round.
    """
    before = b.block
    head, inside, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    number = b.phi(I64)
    number.add_incoming(start, before)
    values = [b.phi(x.type) for x in carried]
    for phi, x in zip(values, carried, strict=True):
        phi.add_incoming(x, before)
    b.cbranch(b.icmp_signed("<", number, stop), inside, after)
    b.position_at_end(inside)
    results = body(number, values)
    number.add_incoming(b.add(number, I64(step)), b.block)
    for phi, x in zip(values, results, strict=True):
        phi.add_incoming(x, b.block)
    b.branch(head)
    b.position_at_end(after)
    return list(values)


def rarely(b: ir.IRBuilder, condition: ir.Value, usual: ir.Value, other: Callable[[], ir.Value]) -> ir.Value:
    """`usual`, or, where an i1 that is hardly ever true is so, what `other` emits."""
    before = b.block
    with b.if_then(condition, likely=False):
        unusual = other()
        inside = b.block
    result = b.phi(usual.type)
    result.add_incoming(usual, before)
    result.add_incoming(unusual, inside)
    return result
