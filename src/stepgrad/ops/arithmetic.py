"""Arithmetic: add, subtract, multiply, divide, remainders, signs and rounding.

`unary` and `binary` build the paragraph of an elementwise op around a ufunc; the other files of
elementwise ops use them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad.errors import DtypeError, UnsupportedError
from stepgrad.ops.arguments import whole
from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import Sample, normal
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Rule, Shape, TensorType, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions, numpy_functions

__all__ = [
    "abs",
    "absolute",
    "add",
    "around",
    "ceil",
    "copysign",
    "divide",
    "divmod",
    "fabs",
    "fix",
    "floor",
    "floor_divide",
    "fmod",
    "heaviside",
    "mod",
    "multiply",
    "negative",
    "positive",
    "remainder",
    "rint",
    "round",
    "sign",
    "subtract",
    "true_divide",
    "trunc",
]


PAIR = (normal(2, 3), normal(2, 3))


def numpy_dtype(numpy: Callable[..., Any]) -> Callable[..., np.dtype[Any]]:
    """The dtype inference of an elementwise op: what its NumPy meaning gives on empty arrays."""

    def infer(*types: TensorType, **params: Any) -> np.dtype[Any]:
        stand_ins = [_WEAK[t.dtype.kind] if t.weak else np.zeros(0, t.dtype) for t in types]
        try:
            with np.errstate(all="ignore"):
                return np.asarray(numpy(*stand_ins, **params)).dtype
        except TypeError as error:
            raise DtypeError(
                "it is not defined on " + " and ".join(str(t.dtype) for t in types),
                f"NumPy says: {str(error).splitlines()[0]}",
                "convert first, for example with x.astype(np.float64)",
            ) from None

    return infer


_WEAK: dict[str, Any] = {"f": 1.0, "i": 1, "b": True}


def operands_only(shape: Callable[..., Shape]) -> Callable[..., Shape]:
    """The shape inference of an op without settings; refuses those that NumPy's ufuncs take."""

    def infer(*types: TensorType, **settings: Any) -> Shape:
        if settings:
            raise UnsupportedError(
                f"it was called with {', '.join(f'{name}=' for name in settings)}",
                "an elementwise op of stepgrad takes its operands and nothing else",
                "for where= use sg.where(condition, new, old); for dtype= convert with x.astype(dtype)",
            )
        return shape(*types)

    return infer


def binary(
    numpy: np.ufunc, text: str, *rules: Rule | None, samples: Any = (PAIR, (normal(2, 3), normal(3))), **more: Any
) -> Op:
    """An elementwise op of two operands, which are broadcast first."""
    settings: dict[str, Any] = {"dtype": numpy_dtype(numpy), **more}
    op = Op(
        numpy.__name__,
        shape=operands_only(broadcast_shape),
        numpy=numpy,
        rules=rules,
        text=text,
        samples=samples,
        elementwise=True,
        prepare=broadcast,
        **settings,
    )
    return public(op, numpy)


def unary(numpy: Any, rule: Rule | None, *samples: Sample, text: str = "", **more: Any) -> Op:
    """An elementwise op of one operand, for a ufunc or a NumPy function like one."""
    settings: dict[str, Any] = {"dtype": numpy_dtype(numpy), **more}
    op = Op(
        numpy.__name__,
        shape=operands_only(same_shape),
        numpy=numpy,
        rules=(rule,),
        text=text or f"np.{numpy.__name__}({{0}})",
        samples=[(s,) for s in samples or (normal(2, 3),)],
        elementwise=True,
        **settings,
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

divide = true_divide = binary(
    np.divide,
    "{0} / {1}",
    lambda g, out, a, b: g / b,
    lambda g, out, a, b: -g * out / b,
    analytic=True,
    doc="a / b, element by element. Of integers, too, the result is floating.",
)

negative = unary(np.negative, lambda g, out, a: -g, text="-{0}", analytic=True, doc="-a.")

positive = unary(np.positive, same, text="+{0}", analytic=True, doc="+a.")


# --- division with a remainder

floor_divide = binary(
    np.floor_divide,
    "{0} // {1}",
    None,
    None,
    doc="a // b, rounded down. It is constant between its steps, so no gradient flows through it.",
)

remainder = mod = binary(
    np.remainder,
    "{0} % {1}",
    same,
    lambda g, out, a, b: -g * floor_divide(a, b),
    doc="a % b, with the sign of b: a - (a // b) * b.",
)

fmod = binary(
    np.fmod,
    "np.fmod({0}, {1})",
    same,
    lambda g, out, a, b: -g * trunc(a / b),
    doc="The remainder of a / b with the sign of a, as in C.",
)


def divmod(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """`(a // b, a % b)`: how often b fits into a, and what remains.

    Example:
        >>> sg.divmod(sg.tensor([7.0]), 2.0)
        (tensor([3.], dtype=float64), tensor([1.], dtype=float64))
    """
    return floor_divide(x1, x2), remainder(x1, x2)


public(divmod, np.divmod)


# --- sign and absolute value

sign = unary(np.sign, None, doc="-1, 0 or 1. It is constant between its steps, so no gradient flows through it.")

absolute = abs = unary(
    np.absolute,
    lambda g, out, a: g * sign(a),
    text="np.abs({0})",
    doc="|a|. Its derivative at 0 is 0.",
)

fabs = unary(np.fabs, lambda g, out, a: g * sign(a), doc="|a|, floating also for integers.")

copysign: Op = binary(
    np.copysign,
    "np.copysign({0}, {1})",
    lambda g, out, a, b: g * (sign(a) * copysign(sign(a), b)),
    None,
    doc="|a| with the sign of b. Its derivative at a = 0 is 0.",
)

heaviside = binary(
    np.heaviside,
    "np.heaviside({0}, {1})",
    None,
    lambda g, out, a, b: functions["mask"](g, a == 0),
    doc="0 for negative a, 1 for positive a, and b where a is 0. No gradient flows to a.",
)


# --- rounding: constant between the steps, so no gradient flows through it

floor = unary(np.floor, None, doc="Rounded down. No gradient flows through it.")
ceil = unary(np.ceil, None, doc="Rounded up. No gradient flows through it.")
trunc: Op = unary(np.trunc, None, doc="Rounded towards 0. No gradient flows through it.")
rint = unary(np.rint, None, doc="Rounded to the nearest integer, halves to the even one. No gradient flows through it.")
fix = numpy_functions[np.fix] = trunc

_round = register(
    Op(
        "round",
        shape=same_shape,
        dtype=numpy_dtype(np.round),
        numpy=np.round,
        rules=(None,),
        text="np.round({0}, {decimals})",
        samples=[(normal(2, 3), {"decimals": 0}), (normal(2, 3), {"decimals": 1})],
        elementwise=True,
    )
)


def round(a: Any, decimals: int = 0) -> Tensor:
    """Rounded to a number of decimals, halves to the even neighbour. No gradient flows through it.

    Args:
        a: a tensor or array.
        decimals: digits after the point; negative ones count before it.

    Example:
        >>> sg.round(sg.tensor([1.26, 2.5]), 1)
        tensor([1.3, 2.5], dtype=float64)
    """
    return record(_round, (as_tensor(a),), {"decimals": whole(decimals, "decimals")})


around = public(round, np.round, np.around)
