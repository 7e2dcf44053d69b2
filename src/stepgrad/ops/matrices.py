"""Products of vectors and matrices: matmul, dot, inner, outer, tensordot, kron, …"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.ops.arguments import whole_numbers
from stepgrad.ops.expanding import expand, to_dtype
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.ops.shapes import inverse, reshape, transpose
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Shape, TensorType, promoted_dtype
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, Tensor, describe, functions, numpy_functions

__all__ = ["cross", "dot", "inner", "kron", "matmul", "outer", "tensordot", "vdot", "vecdot"]


# --- matmul


def matmul_shape(a: TensorType, b: TensorType) -> Shape:
    rows = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    if a.shape[-1] != rows:
        raise ShapeError(
            f"the inner lengths differ: {a.shape} @ {b.shape}",
            f"it adds up over the last axis of the first ({a.shape[-1]}) and the "
            f"{'rows' if len(b.shape) > 1 else 'elements'} of the second ({rows})",
            "transpose one of them (x.T), or check which axis is the batch",
        )
    return a.shape[:-1] + (b.shape[-1:] if len(b.shape) > 1 else ())


def _matmul_numpy(a: Array, b: Array) -> Any:
    if a.ndim > 2 >= b.ndim and a.flags.c_contiguous:  # one product of matrices instead of one for each in the batch
        return np.matmul(a.reshape(-1, a.shape[-1]) if a.size else a, b).reshape(a.shape[:-1] + b.shape[1:])
    return np.matmul(a, b)


def _left_rule(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if b.ndim > 1:
        return g @ b.mT if a.ndim > 1 else b @ g
    return g * b if a.ndim == 1 else outer(g, b) if a.ndim == 2 else reshape(g, (*g.shape, 1)) * b


def _right_rule(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 1:
        return g * a if b.ndim == 1 else outer(a, g)
    if a.ndim > 2 >= b.ndim:  # every matrix of the batch met the same b: add up over all their rows at once
        rows = math.prod(a.shape[:-1])
        return reshape(a, (rows, a.shape[-1])).mT @ reshape(g, (rows, *b.shape[1:]))
    return a.mT @ g


_matmul = register(
    Op(
        "matmul",
        shape=matmul_shape,
        numpy=_matmul_numpy,
        rules=(_left_rule, _right_rule),
        text="{0} @ {1}",
        samples=[
            (normal(2, 3), normal(3, 4)),
            (normal(5, 2, 3), normal(5, 3, 4)),
            (normal(2, 2, 2, 3), normal(2, 2, 3, 1)),
            (normal(5, 2, 3), normal(3, 4)),
            (normal(5, 2, 3), normal(3)),
            (normal(2, 3), normal(3)),
            (normal(3), normal(3, 4)),
            (normal(3), normal(3)),
        ],
        analytic=True,
        cost=lambda a, b, out: 2.0 * out.size * a.shape[-1],
    )
)


def matmul(x1: Any, x2: Any) -> Tensor:
    """The matrix product `x1 @ x2`, with all of NumPy's shapes: vectors, matrices and batches.

    Args:
        x1: (..., n, k), or a vector (k,).
        x2: (..., k, m), or a vector (k,). Leading axes are broadcast.

    Returns:
        (..., n, m); the axis of a vector is left out.

    Example:
        >>> sg.matmul(sg.tensor([[1.0, 2.0]]), sg.tensor([3.0, 4.0]))
        tensor([11.], dtype=float64)
    """
    a, b = as_tensor(x1), as_tensor(x2)
    left, right = a.equation.type, b.equation.type
    if not left.shape or not right.shape:
        raise ShapeError(
            f"a matrix product of shapes {left.shape} and {right.shape} was asked for",
            "a single number is not a matrix",
            "multiply with * instead",
        )
    if left.dtype != right.dtype:
        a, b = _promote(a, b)
    if len(right.shape) <= 2 or left.shape[:-2] == right.shape[:-2]:
        return record(_matmul, (a, b), {})
    if len(left.shape) == 1:
        product = matmul(reshape(a, (1, a.size)), b)
        return reshape(product, (*product.shape[:-2], product.shape[-1]))
    return record(_matmul, _batch(a, b), {})


def _promote(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = promoted_dtype(a.equation.type, b.equation.type)
    return to_dtype(a, dtype), to_dtype(b, dtype)


def _batch(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"the batch axes of {describe(a)} and {describe(b)} do not broadcast",
            "all axes but the last two are matched from the right, and have to be equal or of length 1",
            "add axes of length 1 where a matrix should be repeated, for example W[None]",
        ) from None
    return expand_to(a, (*batch, *a.shape[-2:])), expand_to(b, (*batch, *b.shape[-2:]))


def expand_to(a: Tensor, shape: Shape) -> Tensor:
    return a if a.shape == shape else expand(a, shape=shape)


# --- outer, and the sums over axes by number


_outer = register(
    Op(
        "outer",
        shape=lambda a, b: a.shape + b.shape,
        numpy=np.outer,
        rules=(lambda g, out, a, b: g @ b, lambda g, out, a, b: a @ g),
        text="np.outer({0}, {1})",
        samples=[(normal(2), normal(3))],
        analytic=True,
        cost=lambda a, b, out: out.size,
    )
)


def outer(a: Any, b: Any) -> Tensor:
    """Every product of an element of `a` with one of `b`.

    Args:
        a, b: tensors or arrays; they are flattened first.

    Returns:
        (a.size, b.size)

    Example:
        >>> sg.outer(sg.tensor([1.0, 2.0]), [3.0, 4.0])
        tensor([[3., 4.],
                [6., 8.]], dtype=float64)
    """
    return record(_outer, _promote(reshape(a, -1), reshape(b, -1)), {})


Axes = tuple[int, ...]


def _free(ndim: int, axes: Axes) -> Axes:
    return tuple(i for i in range(ndim) if i not in axes)


def _tensordot_shape(a: TensorType, b: TensorType, axes: tuple[Axes, Axes]) -> Shape:
    for i, j in zip(*axes, strict=True):
        if a.shape[i] != b.shape[j]:
            raise ShapeError(
                f"axis {i} of shape {a.shape} and axis {j} of shape {b.shape} were to be added up together",
                f"their lengths are {a.shape[i]} and {b.shape[j]}",
                "pair axes of equal length: axes=([axes of a], [axes of b])",
            )
    return tuple(t.shape[i] for t, summed in zip((a, b), axes, strict=True) for i in _free(len(t.shape), summed))


def _tensordot_rule(operand: int) -> Any:
    """The free axes of the other operand are summed over; then the axes are put where they were."""

    def rule(g: Tensor, out: Tensor, a: Tensor, b: Tensor, axes: tuple[Axes, Axes]) -> Tensor:
        x, y = (a, b) if operand == 0 else (b, a)
        of_x, of_y = axes if operand == 0 else axes[::-1]
        free_x, free_y = _free(x.ndim, of_x), _free(y.ndim, of_y)
        paired = tuple(of_x[of_y.index(j)] for j in sorted(of_y))
        if operand == 0:
            upstream = tensordot(g, y, (tuple(range(len(free_x), g.ndim)), free_y))
            return transpose(upstream, inverse(free_x + paired))
        upstream = tensordot(y, g, (free_y, tuple(range(len(free_y)))))
        return transpose(upstream, inverse(paired + free_x))

    return rule


def _tensordot_text(operands: list[str], params: dict[str, Any], equation: Any) -> str:
    axes, count = params["axes"], len(params["axes"][0])
    ndim = len(equation.inputs[0].type.shape)
    plain = axes == (tuple(range(ndim - count, ndim)), tuple(range(count)))
    return f"np.tensordot({operands[0]}, {operands[1]}, axes={count if plain else axes})"


_tensordot = register(
    Op(
        "tensordot",
        shape=_tensordot_shape,
        numpy=lambda a, b, axes: np.tensordot(a, b, axes=axes),
        rules=(_tensordot_rule(0), _tensordot_rule(1)),
        text=_tensordot_text,
        samples=[
            (normal(2, 3, 4), normal(4, 5), {"axes": ((2,), (0,))}),
            (normal(2, 3, 4), normal(4, 5, 2), {"axes": ((2, 0), (0, 2))}),
            (normal(2, 3, 4), normal(4, 3, 2), {"axes": ((0, 2, 1), (2, 0, 1))}),
            (normal(2), normal(3, 2), {"axes": ((), ())}),
        ],
        analytic=True,
        cost=lambda a, b, out, axes: 2.0 * out.size * math.prod(a.shape[i] for i in axes[0]),
    )
)


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes.

    Args:
        a, b: tensors or arrays.
        axes: how many axes to sum over, the last ones of `a` with the first ones of `b`; or a pair
            (axes of a, axes of b).

    Returns:
        The axes of `a` that are left, then those of `b`.

    Example:
        >>> sg.tensordot(sg.tensor(np.ones((2, 3, 4))), np.ones((4, 3, 5)), axes=([1, 2], [1, 0])).shape
        (2, 5)
    """
    x, y = as_tensor(a), as_tensor(b)
    pair = _paired_axes(axes, x.ndim, y.ndim)
    return record(_tensordot, _promote(x, y), {"axes": pair})


def _paired_axes(axes: Any, left: int, right: int) -> tuple[Axes, Axes]:
    first: Any
    second: Any
    if isinstance(axes, (int, np.integer)):
        first, second = tuple(range(-axes, 0)), tuple(range(axes))
    else:
        first, second = axes if isinstance(axes, (tuple, list)) and len(axes) == 2 else (axes, None)
    a, b = (whole_numbers(x, "an axis") for x in (first, second))
    valid = all(-n <= i < n for x, n in ((a, left), (b, right)) for i in x)
    if valid:
        a, b = tuple(i % left for i in a), tuple(i % right for i in b)
    if not valid or len(a) != len(b) or len(set(a)) < len(a) or len(set(b)) < len(b):
        raise ArgumentError(
            f"axes={axes} was given for arrays with {left} and {right} axes",
            "it has to pair distinct axes of the first with as many distinct axes of the second",
            "pass a number of axes, or ([axes of a], [axes of b]) of equal length",
        )
    return a, b


# --- products made of these


def dot(a: Any, b: Any) -> Tensor:
    """The product that sums over the last axis of `a` and the last but one of `b`.

    Args:
        a: a tensor or array; (..., k).
        b: (..., k, m), or a vector (k,). A single number multiplies every element of the other.

    Returns:
        For vectors and matrices `a @ b`; in general the axes of `a` and of `b` that are left.

    Example:
        >>> sg.dot(sg.tensor([1.0, 2.0]), [3.0, 4.0])
        tensor(11., dtype=float64)
    """
    x, y = as_tensor(a), as_tensor(b)
    if not x.ndim or not y.ndim:
        return functions["multiply"](x, y)
    return matmul(x, y) if y.ndim <= 2 else tensordot(x, y, (-1, -2))


def inner(a: Any, b: Any) -> Tensor:
    """The product that sums over the last axes of both.

    Args:
        a, b: (..., k). A single number multiplies every element of the other.

    Example:
        >>> sg.inner(sg.tensor([[1.0, 0.0], [0.0, 2.0]]), [3.0, 4.0])
        tensor([3., 8.], dtype=float64)
    """
    x, y = as_tensor(a), as_tensor(b)
    if not x.ndim or not y.ndim:
        return functions["multiply"](x, y)
    return matmul(x, y) if y.ndim == 1 else tensordot(x, y, (-1, -1))


def vdot(a: Any, b: Any) -> Tensor:
    """The inner product of all elements, in C order.

    Args:
        a, b: real tensors or arrays with equally many elements.

    Example:
        >>> sg.vdot(sg.tensor([[1.0, 2.0]]), [[3.0], [4.0]])
        tensor(11., dtype=float64)
    """
    return matmul(reshape(as_tensor(a), -1), reshape(as_tensor(b), -1))


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Tensor:
    """The inner products of the vectors along an axis.

    Args:
        x1, x2: real tensors or arrays, broadcast together.
        axis: the axis that the vectors lie along.

    Example:
        >>> sg.vecdot(sg.tensor([[1.0, 0.0], [0.0, 2.0]]), [3.0, 4.0])
        tensor([3., 8.], dtype=float64)
    """
    a, b = as_tensor(x1), as_tensor(x2)
    if not all(-t.ndim <= axis < t.ndim for t in (a, b)) or a.shape[axis] != b.shape[axis]:
        raise ShapeError(
            f"vecdot got shapes {a.shape} and {b.shape} with axis={axis}",
            "each vector of the first is multiplied with one of the second, and they have to be equally long",
            "check the axis",
        )
    products = a * b
    return functions["sum"](products, axis=axis, dtype=None if products.equation.type.is_float else products.dtype)


def kron(a: Any, b: Any) -> Tensor:
    """The Kronecker product: each element of `a` replaced by its product with all of `b`.

    Args:
        a, b: tensors or arrays; the one with fewer axes gets axes of length 1 in front.

    Returns:
        Each axis as long as those of `a` and `b` multiplied.

    Example:
        >>> sg.kron(sg.tensor([1.0, 10.0]), [1.0, 2.0])
        tensor([ 1.,  2., 10., 20.], dtype=float64)
    """
    x, y = as_tensor(a), as_tensor(b)
    ndim = max(x.ndim, y.ndim)
    long, wide = ((1,) * (ndim - t.ndim) + t.shape for t in (x, y))
    blocks = reshape(x, tuple(n for m in long for n in (m, 1))) * reshape(y, tuple(n for m in wide for n in (1, m)))
    return reshape(blocks, tuple(n * m for n, m in zip(long, wide, strict=True)))


def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Tensor:
    """The cross product of vectors with three components.

    Args:
        a, b: tensors or arrays, of length 3 along their axis, broadcast together over the others.
        axisa, axisb, axisc: the axes of the vectors in a, b and the result.
        axis: one for all three.

    Example:
        >>> sg.cross(sg.tensor([1.0, 0.0, 0.0]), [0.0, 1.0, 0.0])
        tensor([0., 0., 1.], dtype=float64)
    """
    x, y = as_tensor(a), as_tensor(b)
    axes = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    if not all(-t.ndim <= i < t.ndim and t.shape[i] == 3 for t, i in zip((x, y), axes, strict=False)):
        raise ShapeError(
            f"cross got shapes {x.shape} and {y.shape} with axis={axes[0] if len(set(axes)) == 1 else axes}",
            "the cross product is defined for vectors with three components",
            "check the axis; in the plane write a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]",
        )
    (x0, x1, x2), (y0, y1, y2) = (functions["moveaxis"](t, i, 0) for t, i in zip((x, y), axes, strict=False))
    return functions["stack"]([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0], axes[2])


public(matmul, np.matmul, np.linalg.matmul)
public(outer, np.outer, np.linalg.outer)
public(tensordot, np.tensordot, np.linalg.tensordot)
public(dot, np.dot)
public(inner, np.inner)
public(vdot, np.vdot)
public(vecdot, np.vecdot, np.linalg.vecdot)
public(kron, np.kron)
public(cross, np.cross)
numpy_functions[np.linalg.cross] = lambda x1, x2, axis=-1: cross(x1, x2, axis=axis)
