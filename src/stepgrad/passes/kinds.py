"""What an equation is to a compiler: a view, a pointwise computation, a reduction, a product, or something else."""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np

from stepgrad.cells import ASSIGN
from stepgrad.tape.equation import Equation, leaves


class Kind(enum.Enum):
    """How an equation is computed.

    A VIEW moves no data. A POINT's elements each depend on the same element of its inputs. A REDUCE
    adds up (or takes the largest of, …) some axes. A PRODUCT is a matrix product. Anything OTHER is a
    kernel of its own.
    """

    LEAF = "leaf"
    VIEW = "view"
    POINT = "point"
    REDUCE = "reduce"
    PRODUCT = "product"
    OTHER = "other"


VIEWS = frozenset("reshape transpose expand getitem flip".split())
REDUCTIONS = frozenset("sum max min prod any all".split())
CHEAP = frozenset(
    "absolute add alias assign astype bitwise_and bitwise_or clip equal fabs greater greater_equal isnan isfinite "
    "isinf leaky_relu less less_equal logical_and logical_not logical_or logical_xor maximum minimum multiply negative "
    "not_equal one_hot positive relu sign square subtract where".split()
)
"""Pointwise ops that cost no more than reading a value from memory: computed again rather than stored."""

COPIES = frozenset(("alias",))
"""Ops that only move data, of any dtype."""
PICKS = frozenset(("gather", "take_along_axis"))
"""Ops whose elements each are an element of the first operand, which the other operands say."""

DTYPES = frozenset(np.dtype(t) for t in ("float32", "float64", "int64", "int32", "bool"))
NARROW = frozenset(np.dtype(t) for t in ("int8", "int16", "uint8", "uint16", "uint32"))
"""Integers that kernels read, and convert, but do not compute with."""


class Kinds:
    """Sorts equations by kind, for an executor that says which elementwise ones it can compute itself."""

    def __init__(self, can_compute: Callable[[Equation], bool]) -> None:
        self.can_compute = can_compute

    def of(self, equation: Equation) -> Kind:
        op = equation.op
        if op in leaves:
            return Kind.LEAF
        if op is ASSIGN:
            return Kind.POINT
        if op.name in VIEWS:
            return Kind.VIEW
        if op.name in COPIES:
            return Kind.POINT
        if equation.type.dtype not in DTYPES:
            return Kind.OTHER
        if op.name == "astype" and equation.inputs[0].type.dtype in NARROW:
            return Kind.POINT
        for source in equation.inputs:
            if source.type.dtype not in DTYPES:
                return Kind.OTHER
        if (op.elementwise or op.name == "one_hot" or op.name in PICKS) and self.can_compute(equation):
            return Kind.POINT
        if op.name in REDUCTIONS:
            return Kind.REDUCE if _in_steps(equation) else Kind.OTHER
        if op.name == "matmul":
            return Kind.PRODUCT if equation.type.is_float and _is_product(equation) else Kind.OTHER
        return Kind.OTHER


def is_suffix(axes: tuple[int, ...], ndim: int) -> bool:
    """The axes are the last ones."""
    return sorted(axes) == list(range(ndim - len(axes), ndim))


def _in_steps(equation: Equation) -> bool:
    """A reduction over neighbouring axes; others are taken in two steps by an earlier pass."""
    axes = sorted(equation.params["axis"])
    return bool(axes) and axes == list(range(axes[0], axes[0] + len(axes))) and equation.inputs[0].type.size > 0


def _is_product(equation: Equation) -> bool:
    a, b = (e.type for e in equation.inputs)
    same = a.dtype == b.dtype == equation.type.dtype
    return same and len(a.shape) >= 2 and len(b.shape) >= 2 and equation.type.size > 0 and a.shape[-1] > 0
