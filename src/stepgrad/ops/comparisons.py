"""Comparisons and logic: results are booleans, to which no gradient flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.ops.arithmetic import PAIR, binary, unary
from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import booleans, integers
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, bool_dtype
from stepgrad.tensor import Tensor

__all__ = [
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "invert",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
    "signbit",
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


# --- `a & b` and its like: logic on booleans, and bit by bit on integers


def _bitwise(numpy: np.ufunc, text: str, logic: Op) -> Callable[..., Tensor]:
    samples = [(integers(0, 16, 2, 3),) * numpy.nin]
    make: Any = unary if numpy.nin == 1 else binary
    if numpy.nin == 1:
        op: Op = make(numpy, None, *samples[0], text=text)
    else:
        op = make(numpy, text, None, None, samples=samples)

    def function(*operands: Any) -> Tensor:
        tensors = [as_tensor(x) for x in operands]
        return logic(*tensors) if all(t.dtype == np.bool_ for t in tensors) else op(*tensors)

    function.__name__ = function.__qualname__ = numpy.__name__
    function.__doc__ = f"`{text.format('a', 'b')}`: {logic.name} on booleans, and bit by bit on integers."
    return public(function, numpy)


bitwise_and = _bitwise(np.bitwise_and, "{0} & {1}", logical_and)
bitwise_or = _bitwise(np.bitwise_or, "{0} | {1}", logical_or)
bitwise_xor = _bitwise(np.bitwise_xor, "{0} ^ {1}", logical_xor)
invert = bitwise_not = _bitwise(np.invert, "~{0}", logical_not)


isnan = unary(np.isnan, None, dtype=bool_dtype, doc="True where it is not a number.")
isinf = unary(np.isinf, None, dtype=bool_dtype, doc="True where it is inf or -inf.")
isfinite = unary(np.isfinite, None, dtype=bool_dtype, doc="True where it is a number, and finite.")
signbit = unary(np.signbit, None, dtype=bool_dtype, doc="True where it is negative, or -0.0.")

_isclose = register(
    Op(
        "isclose",
        shape=broadcast_shape,
        dtype=bool_dtype,
        numpy=np.isclose,
        rules=(None, None),
        text="np.isclose({0}, {1}, rtol={rtol}, atol={atol}, equal_nan={equal_nan})",
        samples=[(*PAIR, {"rtol": 0.5, "atol": 0.1, "equal_nan": False})],
        elementwise=True,
        prepare=broadcast,
    )
)


def isclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """True where two are equal within a tolerance: |a - b| <= atol + rtol * |b|.

    Args:
        a, b: tensors, arrays or numbers, broadcast together.
        rtol, atol: the relative and the absolute tolerance.
        equal_nan: count NaN as equal to NaN.

    Example:
        >>> sg.isclose(sg.tensor([1.0, 2.0]), [1.0 + 1e-9, 2.1])
        tensor([ True, False], dtype=bool)
    """
    return _isclose(a, b, rtol=float(rtol), atol=float(atol), equal_nan=bool(equal_nan))


public(isclose, np.isclose)
