"""Finding: argmax, argmin, any, all, count_nonzero: results to which no gradient flows."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.ops.arguments import Axis, array_of, axes_of, axis_of, refuse
from stepgrad.ops.reductions import from_first_axis, nonempty_shape, reduce, reduction, sum
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import booleans, distinct
from stepgrad.tape.op import Op, Shape, TensorType, bool_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor, numpy_functions

__all__ = ["all", "any", "argmax", "argmin", "count_nonzero"]


def _position(name: str) -> Op:
    """An op for the position of an extreme, along one axis or (axis=None) in the flattened array."""
    checked = nonempty_shape(name, "so there is no position to return")

    def shape(a: TensorType, axis: int | None, keepdims: bool) -> Shape:
        return checked(a, axes_of(axis, len(a.shape)), keepdims=keepdims)

    def text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
        settings = [f"axis={params['axis']}"] if params["axis"] is not None else []
        settings += ["keepdims=True"] if params["keepdims"] else []
        return f"({operands[0]}).{name}({', '.join(settings)})"

    return register(
        Op(
            name,
            shape=shape,
            dtype=lambda a, **params: np.dtype(np.intp),
            numpy=getattr(np, name),
            rules=(None,),
            text=text,
            samples=[
                (distinct(2, 3), {"axis": None, "keepdims": False}),
                (distinct(2, 3, 4), {"axis": 1, "keepdims": False}),
                (distinct(2, 3), {"axis": 0, "keepdims": True}),
                (distinct(2, 3), {"axis": None, "keepdims": True}),
            ],
            cost=lambda a, out, **params: a.size,
        )
    )


_argmax, _argmin = _position("argmax"), _position("argmin")


def argmax(a: Any, axis: int | None = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The position of the largest element (the first of them), to which no gradient flows.

    Args:
        a: a tensor or array.
        axis: the axis to search along; None searches the flattened array.
        keepdims: keep the axis, with length 1.

    Example:
        >>> sg.argmax(sg.tensor([[1.0, 5.0], [3.0, 2.0]]), axis=1)
        tensor([1, 0], dtype=int64)
    """
    return _find(_argmax, a, axis, keepdims, refused)


def argmin(a: Any, axis: int | None = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """The position of the smallest element (the first of them); see `argmax`.

    Example:
        >>> sg.argmin(sg.tensor([4.0, 1.0, 9.0]))
        tensor(1, dtype=int64)
    """
    return _find(_argmin, a, axis, keepdims, refused)


def _find(op: Op, a: Any, axis: int | None, keepdims: bool, refused: dict[str, Any]) -> Tensor:
    refuse(op.name, refused)
    tensor = array_of(a)
    wanted = None if axis is None else axis_of(axis, tensor.ndim)
    return record(op, (tensor,), {"axis": wanted, "keepdims": bool(keepdims)})


_any = reduction(
    "any",
    lambda a, axis, keepdims: np.logical_or.reduce(a, axis, keepdims=keepdims),
    None,
    draw=booleans,
    dtype=bool_dtype,
)

_all = reduction(
    "all",
    lambda a, axis, keepdims: np.logical_and.reduce(a, axis, keepdims=keepdims),
    None,
    draw=booleans,
    dtype=bool_dtype,
)


def any(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """Whether any element along the axes is true (other than 0).

    Example:
        >>> sg.any(sg.tensor([1.0, 2.0]) > 1)
        tensor(True, dtype=bool)
    """
    return reduce(_any, a, axis, keepdims, refused)


def all(a: Any, axis: Axis = None, *, keepdims: bool = False, **refused: Any) -> Tensor:
    """Whether all elements along the axes are true (other than 0).

    Example:
        >>> sg.all(sg.tensor([1.0, 2.0]) > 1)
        tensor(False, dtype=bool)
    """
    return reduce(_all, a, axis, keepdims, refused)


def count_nonzero(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """How many elements along the axes are other than 0.

    Example:
        >>> sg.count_nonzero(sg.tensor([0.0, 3.0, 5.0]))
        tensor(2, dtype=int64)
    """
    return sum(array_of(a) != 0, axis, keepdims=keepdims)


public(argmax, np.argmax)
public(argmin, np.argmin)
public(any, np.any)
public(all, np.all)
public(count_nonzero, np.count_nonzero)
numpy_functions[np.logical_or, "reduce"] = from_first_axis(any)
numpy_functions[np.logical_and, "reduce"] = from_first_axis(all)
