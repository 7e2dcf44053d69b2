"""Expanding and promoting: what NumPy does silently before an elementwise operation, as equations.

`add`'s local rule can then pass the gradient on untouched; only `expand`'s rule sums over the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ShapeError
from stepgrad.ops.registry import register, registry
from stepgrad.ops.samples import normal
from stepgrad.tape.op import Op, Shape, TensorType, promoted_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, functions

_MOST_REMEMBERED = 10_000


def expand_shape(a: TensorType, shape: Shape) -> Shape:
    lead = len(shape) - len(a.shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(a.shape, shape[max(lead, 0) :], strict=False)):
        raise ShapeError(
            f"shape {a.shape} can't be expanded to {shape}",
            "axes are matched from the right; only axes of length 1 and missing axes on the left can be repeated",
            "reshape it first so that its axes stand where they belong, for example x.reshape(-1, 1)",
        )
    return shape


def expand_numpy(a: Array, shape: Shape) -> Array:
    if type(a) is not np.ndarray or not a.flags.c_contiguous or not a.size:
        return np.broadcast_to(a, shape)
    key = a.shape, a.itemsize, shape
    strides = _strides.get(key)
    if strides is None:
        if len(_strides) >= _MOST_REMEMBERED:
            _strides.clear()
        strides = _strides[key] = np.broadcast_to(a, shape).strides
    return np.ndarray(shape, a.dtype, a, 0, strides)  # what np.broadcast_to returns, eight times as fast


_strides: dict[Any, Any] = {}


def sum_to(g: Tensor, shape: Shape) -> Tensor:
    """Adds up what `expand` repeated: the inverse direction of broadcasting to g's shape."""
    lead = g.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)
    if not axes:
        return functions["reshape"](g, shape) if g.shape != shape else g
    total = record(registry["sum"], (g,), {"axis": axes, "keepdims": lead == 0})
    return total if total.shape == shape else functions["reshape"](total, shape)


expand = register(
    Op(
        "expand",
        shape=expand_shape,
        numpy=expand_numpy,
        rules=(lambda g, out, a, shape: sum_to(g, a.shape),),
        text="np.broadcast_to({0}, {shape})",
        samples=[(normal(3), {"shape": (2, 3)}), (normal(2, 1), {"shape": (4, 2, 3)}), (normal(), {"shape": (2,)})],
        analytic=True,
        doc="Repeats an array along new and length-1 axes, as NumPy's broadcasting does.",
    )
)


astype = register(
    Op(
        "astype",
        shape=lambda a, dtype: a.shape,
        dtype=lambda a, dtype: np.dtype(dtype),
        numpy=lambda a, dtype: np.asarray(a).astype(dtype, copy=False),
        rules=(lambda g, out, a, dtype: functions["astype"](g, a.dtype),),
        text="{0}.astype(np.{dtype})",
        samples=[(normal(2, 3), {"dtype": np.dtype(np.float64)})],
        elementwise=True,
        cost=lambda *types, **params: 0.0,
        doc="Converts to another dtype.",
    )
)


def broadcast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Brings operands to one shape, and floating ones to one dtype, with equations that say so.

    Python numbers stay as they are: they fit any shape and dtype.
    """
    if len(tensors) == 2:
        types: tuple[TensorType, ...] = (tensors[0].equation.type, tensors[1].equation.type)
        if types[0] is types[1]:
            return tensors
    else:
        types = tuple([t.equation.type for t in tensors])
    plan = _plans.get(types)
    if plan is None:
        if len(_plans) >= _MOST_REMEMBERED:
            _plans.clear()
        plan = _plans[types] = _plan(types)
    if plan is _NOTHING:
        return tensors
    made = []
    for tensor, (dtype, shape) in zip(tensors, plan, strict=True):
        if dtype is not None:
            tensor = record(astype, (tensor,), {"dtype": dtype})
        if shape is not None:
            tensor = record(expand, (tensor,), {"shape": shape})
        made.append(tensor)
    return tuple(made)


def _plan(types: tuple[TensorType, ...]) -> Any:
    strong = [t for t in types if not t.weak]
    try:
        shape = np.broadcast_shapes(*[t.shape for t in strong])
    except ValueError:
        return tuple((None, None) for _ in types)  # the op's own shape inference says what is wrong
    dtype = promoted_dtype(*types)
    plan = tuple(
        (
            dtype if t.is_float and not t.weak and t.dtype != dtype else None,
            shape if not t.weak and t.shape != shape else None,
        )
        for t in types
    )
    return plan if any(part is not None for step in plan for part in step) else _NOTHING


_plans: dict[Any, Any] = {}
_NOTHING = ()


def broadcast_shape(*types: TensorType, **params: Any) -> Shape:
    """The shape of an elementwise op after `broadcast`; says what is wrong if the shapes did not fit."""
    shapes = [t.shape for t in types if not t.weak]
    if not shapes or all(s == shapes[0] for s in shapes):
        return shapes[0] if shapes else ()
    listed = " and ".join(str(s) for s in shapes)
    problem = f"shapes {listed} do not broadcast"
    if all(len(s) == len(shapes[0]) == 1 for s in shapes):
        hint = "both need the same length; to combine every pair of elements write a[:, None] with b"
    else:
        hint = "give each array an axis of length 1 where it should be repeated, for example with b[:, None]"
    raise ShapeError(problem, "axes are matched from the right, and have to be equal or of length 1", hint)


def to_dtype(a: Any, dtype: Any) -> Tensor:
    """Converts to another dtype; gradients are converted back.

    Args:
        a: a tensor or array.
        dtype: a NumPy dtype, or something NumPy makes one of.

    Example:
        >>> sg.astype(sg.tensor([1.5]), np.float32).dtype
        dtype('float32')
    """
    from stepgrad.tape.leaves import as_tensor

    tensor, wanted = as_tensor(a), dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "fiubc":
        from stepgrad.ops.arguments import dtype_of

        wanted = dtype_of(dtype)
    if wanted == tensor.dtype and not tensor.equation.type.weak:
        return tensor
    return record(astype, (tensor,), {"dtype": wanted})


functions["astype"] = to_dtype
