"""Arguments as NumPy takes them: axes counted from either end, lengths, and those that are refused by name."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError, UnsupportedError
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tensor import Tensor, functions

Axis = int | tuple[int, ...] | None


def array_of(a: Any) -> Tensor:
    """The tensor of an operand, in functions for which a Python number is an array of shape () like any other."""
    tensor = a if type(a) is Tensor else as_tensor(a)
    if not tensor.equation.type.weak:
        return tensor
    if tensor.value is None:  # a float argument of a function that is being recorded
        return functions["astype"](tensor, tensor.dtype)
    return constant(np.asarray(tensor.value))


def whole(number: Any, meaning: str) -> int:
    """A whole number, or an error that says what it should have meant."""
    try:
        return operator.index(number)
    except TypeError:
        raise ArgumentError(
            f"{meaning} was given as {number!r}",
            f"a {type(number).__name__} is not a whole number",
            "pass an int, for example n // 2 in place of n / 2",
        ) from None


def whole_numbers(numbers: Any, meaning: str) -> tuple[int, ...]:
    """A tuple of whole numbers from one of them, or from several."""
    several = isinstance(numbers, (tuple, list)) or (isinstance(numbers, np.ndarray) and numbers.ndim)
    return tuple([n if type(n) is int else whole(n, meaning) for n in (numbers if several else (numbers,))])


def number(value: Any, meaning: str) -> float:
    """One real number, or an error that says what it should have meant."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except UnsupportedError:  # a tensor on its way to a gradient: float() has said why not
        raise
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(
            f"{meaning} was given as {value!r:.60}",
            f"{meaning} is one real number, the same for all elements",
            f"pass a float, such as {meaning}=0.5; if it varies or is trained, write the function out with operators",
        ) from None


def dtype_of(dtype: Any) -> np.dtype[Any]:
    """The dtype that is meant, or an error that says what a tensor can hold."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "fiubc":
        raise DtypeError(
            f"dtype={dtype!r:.60} was given" if found is None else f"an array was to be converted to {found}",
            "tensors hold floating-point numbers, integers or booleans",
            "use a numeric dtype such as np.float32",
        )
    return found


def axis_of(axis: Any, ndim: int) -> int:
    """One axis, counted from the front."""
    asked = axis if type(axis) is int else whole(axis, "axis")
    if not -ndim <= asked < ndim:
        raise ArgumentError(
            f"axis={axis} was given for an array with {ndim} axes",
            f"axes are numbered from 0 to {ndim - 1}, or from -{ndim} to -1" if ndim else "it has no axes",
            "name an axis that the array has",
        )
    return asked % ndim


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes meant by NumPy's `axis` argument, counted from the front, in order."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is tuple and len(axis) == 1:
        axis = axis[0]
    if type(axis) is int:
        return (axis if 0 <= axis < ndim else axis_of(axis, ndim),)
    return tuple(sorted(axes_in_order(axis, ndim)))


def axes_in_order(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that are named, counted from the front, in the order in which they are named."""
    axes = tuple([axis_of(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))])
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"axis={axis} names an axis twice", "an axis can be used once", "name each axis once")
    return axes


def refuse(function: str, settings: dict[str, Any]) -> None:
    """Raises for those of NumPy's arguments that stepgrad has no use for, unless they are at their defaults."""
    for name, value in settings.items():
        if name not in _REFUSED:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        default, why, instead = _REFUSED[name]
        if value is not default and value is not np._NoValue:
            raise UnsupportedError(f"{function} was called with {name}=", why, instead)


def refuse_mode(function: str, setting: str, value: Any, known: str) -> NoReturn:
    """Raises for a setting that names something unknown."""
    raise ArgumentError(f"{function} was called with {setting}={value!r}", f"it knows {known}", "use one of these")


_REFUSED: dict[str, tuple[Any, str, str]] = {
    "out": (
        None,
        "it would write into an array behind the tape's back",
        "drop it, and use the value that is returned",
    ),
    "where": (
        True,
        "stepgrad has one way to leave elements out, so that its rule has to be right only once",
        "replace what should not count first: sg.sum(sg.where(mask, x, 0.0)), or x[mask].sum()",
    ),
    "initial": (
        None,
        "it is a second operand, and reads better as one",
        "write it out: x.sum() + initial, or sg.maximum(x.max(), initial)",
    ),
}
