"""Comparisons and logic: results are booleans, to which no gradient flows."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.arithmetic import PAIR, binary, unary
from stepgrad.tape.op import Op, bool_dtype
from stepgrad.tape.samples import booleans

__all__ = [
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
]


def _comparison(numpy: np.ufunc, sign: str) -> Op:
    return binary(
        numpy, f"{{0}} {sign} {{1}}", None, None, samples=[PAIR], dtype=bool_dtype, doc=f"a {sign} b, as booleans."
    )


def _logic(numpy: np.ufunc, text: str, **more: Any) -> Op:
    return binary(numpy, text, None, None, samples=[(booleans(2, 3), booleans(2, 3))], dtype=bool_dtype, **more)


greater = _comparison(np.greater, ">")
greater_equal = _comparison(np.greater_equal, ">=")
less = _comparison(np.less, "<")
less_equal = _comparison(np.less_equal, "<=")
equal = _comparison(np.equal, "==")
not_equal = _comparison(np.not_equal, "!=")

logical_and = _logic(np.logical_and, "np.logical_and({0}, {1})", doc="True where both are.")
logical_or = _logic(np.logical_or, "np.logical_or({0}, {1})", doc="True where at least one is.")
logical_xor = _logic(np.logical_xor, "np.logical_xor({0}, {1})", doc="True where exactly one is.")
logical_not = unary(
    np.logical_not, None, booleans(2, 3), text="np.logical_not({0})", dtype=bool_dtype, doc="True where it is not."
)
