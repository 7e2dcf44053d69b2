"""Facts about tensors that are not on the tape: shape, kind, whether they agree; and constants like them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import DtypeError
from stepgrad.ops.arguments import array_of, axis_of, dtype_of, whole_numbers
from stepgrad.ops.comparisons import isclose
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.registry import public
from stepgrad.ops.shapes import broadcast_to
from stepgrad.tape.leaves import constant
from stepgrad.tensor import Array, ArrayLike, Tensor

__all__ = [
    "allclose",
    "array_equal",
    "conj",
    "conjugate",
    "empty_like",
    "full_like",
    "imag",
    "iscomplex",
    "iscomplexobj",
    "isreal",
    "isrealobj",
    "ndim",
    "ones_like",
    "real",
    "result_type",
    "shape",
    "size",
    "zeros_like",
]


def shape(a: Any) -> tuple[int, ...]:
    """The lengths of the axes.

    Example:
        >>> sg.shape(sg.tensor([[1.0, 2.0]]))
        (1, 2)
    """
    return array_of(a).shape


def ndim(a: Any) -> int:
    """The number of axes.

    Example:
        >>> sg.ndim(sg.tensor([[1.0, 2.0]]))
        2
    """
    return array_of(a).ndim


def size(a: Any, axis: int | None = None) -> int:
    """The number of elements, or the length of one axis.

    Example:
        >>> sg.size(sg.tensor([[1.0, 2.0]])), sg.size(sg.tensor([[1.0, 2.0]]), 0)
        (2, 1)
    """
    tensor = array_of(a)
    return tensor.size if axis is None else tensor.shape[axis_of(axis, tensor.ndim)]


def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """The dtype that an operation on these has.

    Example:
        >>> sg.result_type(sg.tensor([1.0], dtype=np.float32), 2.0)
        dtype('float32')
    """
    given = [x.dtype if isinstance(x, ArrayLike) else x for x in arrays_and_dtypes]
    try:
        return np.result_type(*given)
    except TypeError as error:
        raise DtypeError(
            f"the dtype of {', '.join(map(repr, given)):.80} together was asked for",
            f"NumPy says: {error}",
            "pass arrays, numbers and numeric dtypes",
        ) from None


def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is complex.

    Example:
        >>> sg.iscomplexobj(sg.tensor([1.0]))
        False
    """
    return array_of(x).dtype.kind == "c"


def isrealobj(x: Any) -> bool:
    """Whether the dtype is not complex.

    Example:
        >>> sg.isrealobj(sg.tensor([1.0]))
        True
    """
    return not iscomplexobj(x)


def real(val: Any) -> Tensor:
    """The number itself: tensors are real.

    Example:
        >>> sg.real(sg.tensor([1.0]))
        tensor([1.], dtype=float64)
    """
    return array_of(val)


def conjugate(x: Any) -> Tensor:
    """The number itself: tensors are real.

    Example:
        >>> sg.conj(sg.tensor([1.0]))
        tensor([1.], dtype=float64)
    """
    return array_of(x)


conj = conjugate


def imag(val: Any) -> Tensor:
    """0, as a constant: tensors are real.

    Example:
        >>> sg.imag(sg.tensor([1.0]))
        tensor([0.], dtype=float64)
    """
    return zeros_like(val)


def isreal(x: Any) -> Tensor:
    """True everywhere: tensors are real.

    Example:
        >>> sg.isreal(sg.tensor([1.0]))
        tensor([ True], dtype=bool)
    """
    return ones_like(x, np.bool_)


def iscomplex(x: Any) -> Tensor:
    """False everywhere: tensors are real.

    Example:
        >>> sg.iscomplex(sg.tensor([1.0]))
        tensor([False], dtype=bool)
    """
    return zeros_like(x, np.bool_)


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    """Whether two arrays have the same shape and elements.

    Example:
        >>> sg.array_equal(sg.tensor([1.0, 2.0]), [1.0, 2.0])
        True
    """
    return np.array_equal(_value(a1), _value(a2), equal_nan=equal_nan)


def allclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether two arrays agree up to `atol + rtol * |b|`, element by element.

    Example:
        >>> sg.allclose(sg.tensor([1.0, 2.0]), [1.0, 2.0 + 1e-9])
        True
    """
    close = isclose(array_of(a), array_of(b), rtol=rtol, atol=atol, equal_nan=equal_nan)
    return bool(np.all(close.numpy()))


def _value(a: Any) -> Array:
    return array_of(a).numpy()


def zeros_like(a: Any, dtype: Any = None, *, shape: Any = None) -> Tensor:
    """Zeros of a's shape and dtype, as a constant.

    Args:
        a: a tensor or array.
        dtype, shape: what to take in place of a's.

    Example:
        >>> sg.zeros_like(sg.tensor([1.0, 2.0]))
        tensor([0., 0.], dtype=float64)
    """
    return full_like(a, 0, dtype, shape=shape)


def ones_like(a: Any, dtype: Any = None, *, shape: Any = None) -> Tensor:
    """Ones of a's shape and dtype, as a constant; see `zeros_like`.

    Example:
        >>> sg.ones_like(sg.tensor([1.0, 2.0]))
        tensor([1., 1.], dtype=float64)
    """
    return full_like(a, 1, dtype, shape=shape)


def empty_like(prototype: Any, dtype: Any = None, *, shape: Any = None) -> Tensor:
    """Zeros: since tensors never change, nobody could fill an empty one.

    Example:
        >>> sg.empty_like(sg.tensor([1.0, 2.0])).shape
        (2,)
    """
    return full_like(prototype, 0, dtype, shape=shape)


def full_like(a: Any, fill_value: Any, dtype: Any = None, *, shape: Any = None) -> Tensor:
    """A value repeated over a's shape, in a's dtype. Gradients flow to the value, not to `a`.

    Args:
        a: a tensor or array.
        fill_value: a number, or something that broadcasts to the shape.
        dtype, shape: what to take in place of a's.

    Example:
        >>> sg.full_like(sg.tensor([1.0, 2.0]), 5.0)
        tensor([5., 5.], dtype=float64)
    """
    like = array_of(a)
    wanted = like.shape if shape is None else whole_numbers(shape, "a length")
    kind = like.dtype if dtype is None else dtype_of(dtype)
    if not isinstance(fill_value, (int, float)):
        return broadcast_to(to_dtype(fill_value, kind), wanted)
    value = np.full(wanted, fill_value, kind)
    value.setflags(write=False)
    return constant(value)


public(shape, np.shape)
public(ndim, np.ndim)
public(size, np.size)
public(result_type, np.result_type)
public(iscomplexobj, np.iscomplexobj)
public(isrealobj, np.isrealobj)
public(real, np.real, np.real_if_close)
public(conjugate, np.conjugate)
public(imag, np.imag)
public(isreal, np.isreal)
public(iscomplex, np.iscomplex)
public(array_equal, np.array_equal)
public(allclose, np.allclose)
public(zeros_like, np.zeros_like)
public(ones_like, np.ones_like)
public(empty_like, np.empty_like)
public(full_like, np.full_like)
