"""Reductions as LLVM IR: what they start from, how partial results become one, in registers."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points


def neutral(node: Any, lanes: int) -> ir.Constant:
    """What a reduction starts from."""
    return points.constant(node[1], _neutral_number(node[3][0], node[1]), lanes)


def _neutral_number(how: str, dtype: str) -> Any:
    if how in ("sum", "any"):
        return -0.0 if dtype.startswith("float") else 0
    if how in ("prod", "all"):
        return 1
    low = how == "max"
    if dtype.startswith("float"):
        return -math.inf if low else math.inf
    if dtype == "bool":
        return int(not low)
    width = 63 if dtype == "int64" else 31
    return -(2**width) if low else 2**width - 1


def combine(b: ir.IRBuilder, x: ir.Value, y: ir.Value, how: str) -> ir.Value:
    """Two partial results become one."""
    floating = points.is_float(x)
    if how == "sum":
        return b.fadd(x, y) if floating else b.add(x, y)
    if how == "prod":
        return b.fmul(x, y) if floating else b.mul(x, y)
    if how in ("any", "all"):
        return b.or_(x, y) if how == "any" else b.and_(x, y)
    if not floating:
        test = b.icmp_unsigned if points.element(x) == points.I1 else b.icmp_signed
        return b.select(test(">" if how == "max" else "<", x, y), x, y)
    better = b.fcmp_ordered(">" if how == "max" else "<", x, y)
    unordered = b.fcmp_unordered("uno", x, x)  # a NaN stays
    return b.select(b.or_(better, unordered), x, y)


def reduced(b: ir.IRBuilder, parts: list[ir.Value], how: str) -> ir.Value:
    """One number from vectors of partial results: pairs of vectors, then halves of one."""
    while len(parts) > 1:
        parts = [
            combine(b, parts[i], parts[i + 1], how) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)
        ]
    x = parts[0]
    while x.type.count > 1:
        half = x.type.count // 2
        undefined = ir.Constant(x.type, ir.Undefined)
        number = ir.VectorType(points.I32, half)
        low = b.shuffle_vector(x, undefined, ir.Constant(number, list(range(half))))
        high = b.shuffle_vector(x, undefined, ir.Constant(number, list(range(half, 2 * half))))
        x = combine(b, low, high, how)
    return b.extract_element(x, ir.Constant(points.I32, 0))


def filled(b: ir.IRBuilder, x: ir.Value, how: str, mask: ir.Constant | None) -> ir.Value:
    """Lanes that do not exist count for nothing."""
    if mask is None:
        return x
    dtype = next(name for name, type in points.TYPES.items() if type == points.element(x))
    return b.select(mask, x, points.constant(dtype, _neutral_number(how, dtype), x.type.count))
