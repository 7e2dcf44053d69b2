"""Powers and roots.

`x ** 2` and `2 ** x`, with a Python number on one side, are ops of their own: their rules read no
more than they need, and there is no second operand to have a derivative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import DtypeError
from stepgrad.ops.arithmetic import numpy_dtype, unary
from stepgrad.ops.choosing import mask
from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.exponentials import log
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal, uniform
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, functions

__all__ = ["cbrt", "float_power", "pow", "power", "reciprocal", "sqrt", "square"]


square = unary(np.square, lambda g, out, a: g * (2 * a), analytic=True, doc="a * a.")

sqrt = unary(
    np.sqrt,
    lambda g, out, a: g / (2 * out),
    uniform(0.2, 3, 2, 3),
    analytic=True,
    doc="The square root. Its derivative at 0 is infinite.",
)

cbrt = unary(np.cbrt, lambda g, out, a: g / (3 * square(out)), doc="The cube root. Its derivative at 0 is infinite.")

reciprocal = unary(np.reciprocal, lambda g, out, a: -g * square(out), analytic=True, doc="1 / a.")


def _constant_power_rule(g: Tensor, out: Tensor, a: Tensor, exponent: float) -> Tensor:
    if exponent == 0:  # x ** 0 is 1 everywhere, also at 0
        return g * 0.0
    if exponent == 1:
        return g
    return g * (exponent * (a if exponent == 2 else a ** (exponent - 1)))


_constant_power = register(
    Op(
        "constant_power",
        shape=same_shape,
        dtype=numpy_dtype(lambda a, exponent: np.asarray(a) ** exponent),
        numpy=lambda a, exponent: np.asarray(a) ** exponent,
        rules=(_constant_power_rule,),
        text="{0} ** {exponent}",
        samples=[
            *((normal(2, 3), {"exponent": n}) for n in (0, 1, 2, 3, -1, -2)),
            *((uniform(0.2, 3, 2, 3), {"exponent": n}) for n in (0.5, 1.5, -0.5)),
        ],
        elementwise=True,
        analytic=True,
    )
)

_constant_base = register(
    Op(
        "constant_base",
        shape=same_shape,
        dtype=numpy_dtype(lambda a, base: base ** np.asarray(a)),
        numpy=lambda a, base: base ** np.asarray(a),
        rules=(
            lambda g, out, a, base: g * (out * math.log(base)) if base > 0 else g * (0.0 if base == 0 else math.nan),
        ),
        text="{base} ** {0}",
        samples=[(normal(2, 3), {"base": 2}), (normal(2, 3), {"base": 0.3})],
        elementwise=True,
        analytic=True,
    )
)

_power = register(
    Op(
        "power",
        shape=broadcast_shape,
        dtype=numpy_dtype(np.power),
        numpy=np.power,
        rules=(
            lambda g, out, a, b: mask(g * (b * a ** (b - 1)), functions["logical_or"](a != 0, b != 0)),
            lambda g, out, a, b: mask(g * (out * log(a)), a != 0),
        ),
        text="{0} ** {1}",
        samples=[
            (uniform(0.2, 3, 2, 3), normal(2, 3)),
            (uniform(0.2, 3, 2, 1), normal(3)),
        ],
        elementwise=True,
        prepare=broadcast,
        analytic=True,
    )
)


def power(x1: Any, x2: Any) -> Tensor:
    """`x1` to the power `x2`, element by element.

    At base 0: 0 ** 0 is 1, the derivative of x ** 0 is 0, and the derivative with respect to the
    exponent is 0. A negative base has no derivative with respect to its exponent: it is NaN.

    Args:
        x1, x2: tensors, arrays or numbers, broadcast together.

    Raises:
        DtypeError: an integer to a negative integer power, which is no integer.

    Example:
        >>> sg.power(sg.tensor([1.0, 2.0, 3.0]), 2)
        tensor([1., 4., 9.], dtype=float64)
    """
    base, exponent = as_tensor(x1), as_tensor(x2)
    if not base.equation.type.is_float and not exponent.equation.type.is_float:
        _check_integers(base, exponent)
    if exponent.equation.type.weak and exponent.value is not None and math.isfinite(exponent.value):
        if exponent.dtype.kind == "f" and not base.equation.type.is_float:
            base = functions["astype"](base, np.float64)
        return record(_constant_power, (base,), {"exponent": exponent.value})
    if base.equation.type.weak and base.value is not None and math.isfinite(base.value):
        if base.dtype.kind == "f" and not exponent.equation.type.is_float:
            exponent = functions["astype"](exponent, np.float64)
        return record(_constant_base, (exponent,), {"base": base.value})
    return _power(base, exponent)


def _check_integers(base: Tensor, exponent: Tensor) -> None:
    if exponent.value is not None and np.any(np.asarray(exponent.value) < 0):
        raise DtypeError(
            f"{base.dtype} numbers were to be raised to a negative {exponent.dtype} power",
            "the result is not an integer, and integers to integer powers stay integers",
            "convert the base first: x.astype(np.float64) ** -1",
        )


def float_power(x1: Any, x2: Any) -> Tensor:
    """`x1` to the power `x2`, computed and returned in float64.

    Args:
        x1, x2: tensors, arrays or numbers, broadcast together.

    Example:
        >>> sg.float_power(sg.tensor([2, 4]), -1)
        tensor([0.5 , 0.25], dtype=float64)
    """
    exponent = x2 if type(x2) in (int, float) else functions["astype"](x2, np.float64)
    return power(functions["astype"](x1, np.float64), exponent)


pow = public(power, np.power)
public(float_power, np.float_power)
