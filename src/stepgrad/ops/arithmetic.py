"""Arithmetic: add, subtract, multiply, divide, negative, power, …"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import public
from stepgrad.tape.op import Op, Rule, same_shape
from stepgrad.tape.samples import Sample, normal
from stepgrad.tensor import Tensor

__all__ = ["add", "divide", "multiply", "negative", "subtract"]


PAIR = (normal(2, 3), normal(2, 3))


def binary(
    numpy: np.ufunc, text: str, *rules: Rule | None, samples: Any = (PAIR, (normal(2, 3), normal(3))), **more: Any
) -> Op:
    """An elementwise op of two operands, which are broadcast first."""
    op = Op(
        numpy.__name__,
        shape=broadcast_shape,
        numpy=numpy,
        rules=rules,
        text=text,
        samples=samples,
        elementwise=True,
        prepare=broadcast,
        **more,
    )
    return public(op, numpy)


def unary(numpy: np.ufunc, rule: Rule | None, *samples: Sample, text: str = "", **more: Any) -> Op:
    """An elementwise op of one operand."""
    op = Op(
        numpy.__name__,
        shape=same_shape,
        numpy=numpy,
        rules=(rule,),
        text=text or f"np.{numpy.__name__}({{0}})",
        samples=[(s,) for s in samples or (normal(2, 3),)],
        elementwise=True,
        **more,
    )
    return public(op, numpy)


def same(g: Tensor, out: Tensor, *inputs: Tensor) -> Tensor:
    """The local rule that passes the gradient on untouched."""
    return g


add = binary(np.add, "{0} + {1}", same, same, analytic=True, doc="a + b.")

subtract = binary(np.subtract, "{0} - {1}", same, lambda g, out, a, b: -g, analytic=True, doc="a - b.")

multiply = binary(
    np.multiply,
    "{0} * {1}",
    lambda g, out, a, b: g * b,
    lambda g, out, a, b: g * a,
    analytic=True,
    doc="a * b, element by element.",
)

divide = binary(
    np.divide,
    "{0} / {1}",
    lambda g, out, a, b: g / b,
    lambda g, out, a, b: -g * out / b,
    analytic=True,
    doc="a / b, element by element.",
)

negative = unary(np.negative, lambda g, out, a: -g, text="-{0}", analytic=True, doc="-a.")
