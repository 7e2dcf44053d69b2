"""Leaves: the tensors that operands stand for. Inputs, constants, and Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import DtypeError
from stepgrad.tape.equation import CONSTANT, INPUT, LITERAL, Equation
from stepgrad.tape.op import type_of
from stepgrad.tensor import Array, ArrayLike, Tensor, functions


def as_tensor(x: Any) -> Tensor:
    """The tensor that an operand stands for: itself, a cell's value, a Python number, a constant array."""
    kind = type(x)
    if kind is Tensor:
        return x
    if kind is float or kind is int or kind is bool:
        return literal(x)
    if isinstance(x, ArrayLike):
        return x._tensor
    return constant(x)


def literal(x: float | int | bool) -> Tensor:
    """A Python number, which takes the dtype of what it meets."""
    known = _literals.get((type(x), x))
    if known is not None and (x or repr(x) == repr(known.value)):  # 0.0 == -0.0
        return known
    dtype = np.dtype(np.bool_ if type(x) is bool else np.int64 if type(x) is int else np.float64)
    equation = Equation(LITERAL, (), {"value": x}, type_of((), dtype, weak=True), False)
    equation.value = x
    made = Tensor(x, equation)
    if len(_literals) < _MOST_LITERALS:
        _literals[type(x), x] = made
    return made


_literals: dict[Any, Tensor] = {}
_MOST_LITERALS = 1_000


def constant(x: Any) -> Tensor:
    """A constant: its own read-only copy of an array, to which no gradient flows."""
    # Like every leaf, its equation gets the value only once something is known to read it.
    value = read_only_copy(x)
    return Tensor(value, Equation(CONSTANT, (), {}, type_of(value.shape, value.dtype), False))


def tensor(x: Any, dtype: Any = None, *, name: str | None = None) -> Tensor:
    """A tensor with a copy of the numbers in `x`; gradients can be taken with respect to it.

    Args:
        x: an array, a tensor, or (nested) lists of numbers.
        dtype: the dtype to convert to; by default NumPy's choice for `x`.
        name: what printing and messages call it.

    Example:
        >>> sg.tensor([1.0, 2.0], name="x")
        tensor([1., 2.], dtype=float64, name='x')
    """
    if isinstance(x, ArrayLike):
        functions["check_leaving"](x._tensor, "sg.tensor")
        x = x.numpy()
    value = read_only_copy(x, dtype)
    type = type_of(value.shape, value.dtype)
    made = Equation(INPUT, (), {}, type, type.is_float)
    made.name = name
    return Tensor(value, made)


def read_only_copy(x: Any, dtype: Any = None) -> Array:
    """A copy of `x` that nobody can write to; `x` itself where that is already so."""
    if type(x) is np.ndarray and not x.flags.writeable and x.base is None and (dtype is None or x.dtype == dtype):
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise DtypeError(
            f"a masked array {x.shape} can't be made into a tensor",
            "its mask would be lost, and what it hides would count",
            "pass x.filled(0.0), and leave elements out with sg.where(mask, 0.0, …)",
        )
    if isinstance(x, np.matrix):
        raise DtypeError(
            f"an np.matrix {x.shape} can't be made into a tensor",
            "its * is a product of matrices, and that of tensors is elementwise",
            "pass np.asarray(x), and multiply matrices with @",
        )
    try:
        value = np.array(x, dtype=dtype)
        if dtype is not None and np.asarray(x).dtype.kind in "OSU":  # None would become NaN, and "1" the number 1
            value = np.asarray(x)
    except (ValueError, TypeError, OverflowError) as error:
        raise DtypeError(
            f"a {type(x).__name__} can't be made into a tensor",
            f"NumPy says: {error}",
            "pass numbers, equally long lists of numbers, or a NumPy array",
        ) from None
    if value.dtype.kind not in "fiub":
        raise DtypeError(
            f"a {type(x).__name__} with dtype {value.dtype} can't be made into a tensor",
            "tensors hold floating-point numbers, integers or booleans; derivatives are taken of real numbers",
            "split complex numbers into x.real and x.imag; convert text and objects with array.astype(np.float64)",
        )
    value.setflags(write=False)
    return value


functions["as_tensor"] = as_tensor
functions["tensor"] = tensor
