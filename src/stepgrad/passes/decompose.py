"""Decomposition: ops made of others become equations of primitive ops, which loops are made of.

Primitive are arithmetic, comparisons and functions of one number, element by element; sums, products,
largest and smallest elements over axes; views; matrix products; and `one_hot`. Each function here
records what the op's NumPy meaning computes, step by step in the same order; only sums of products
(`tensordot`, `einsum`) may be added up in another one. What softmax and the losses have in common is
recorded with the same equations, so that common subexpressions find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from stepgrad.ops.activations import relu, sigmoid
from stepgrad.ops.arithmetic import absolute, add, divide, multiply, negative, subtract
from stepgrad.ops.choosing import clip, minimum, where
from stepgrad.ops.comparisons import equal, greater, isfinite, isnan, less, logical_and, logical_not, not_equal
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.exponentials import exp, exp2, expm1, log, log1p
from stepgrad.ops.powers import power, sqrt
from stepgrad.ops.reductions import count, max, sum
from stepgrad.ops.registry import registry
from stepgrad.ops.shapes import reshape, transpose
from stepgrad.ops.taking import one_hot
from stepgrad.ops.trigonometric import tanh
from stepgrad.passes.kinds import NARROW
from stepgrad.passes.moving import MOVES
from stepgrad.passes.rewriting import Changes, Pattern, Rewrite, by_op, first_of, rewrite, tensors
from stepgrad.tape.equation import Equation
from stepgrad.tape.recording import record
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Tensor

Axes = tuple[int, ...]


def decompose(tape: Tape, changes: Changes) -> Tape:
    """The tape with primitive equations for those that are made of others."""
    return rewrite(tape, first_of(_TABLE), changes)


def normalise(tape: Tape, changes: Changes) -> Tape:
    """The tape with reductions over neighbouring axes, products of matrices, and moves along one axis only."""
    return rewrite(tape, first_of(_NORMAL), changes)


# --- softmax and cross entropy


def _largest_finite(a: Tensor, axis: Axes) -> tuple[Tensor, Tensor]:
    """The maximum over axes, with 0 where that is infinite; and where it is finite."""
    largest = max(a, axis, keepdims=True)
    finite = isfinite(largest)
    return where(finite, largest, 0.0), finite


def _shifted(a: Tensor, axis: Axes) -> tuple[Tensor, Tensor]:
    """What is exponentiated, so that nothing overflows; and where the largest is finite."""
    shift, finite = _largest_finite(a, axis)
    return subtract(a, shift), finite


def _positive(total: Tensor) -> Tensor:
    """A sum of exponentials; 1 where every entry is left out."""
    return add(total, equal(total, 0))


def _softmax(a: Tensor, axis: Axes) -> Tensor:
    exponentials = exp(_shifted(a, axis)[0])
    return divide(exponentials, _positive(sum(exponentials, axis, keepdims=True)))


def _log_softmax(a: Tensor, axis: Axes) -> Tensor:
    shifted, _ = _shifted(a, axis)
    return subtract(shifted, log(_positive(sum(exp(shifted), axis, keepdims=True))))


def _logsumexp(a: Tensor, axis: Axes, keepdims: bool = False) -> Tensor:
    shift, _ = _largest_finite(a, axis)
    result = add(log(sum(exp(subtract(a, shift)), axis, keepdims=True)), shift)
    return result if keepdims else reshape(result, tuple(n for i, n in enumerate(a.shape) if i not in axis))


def _cross_entropy(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    axis = (logits.ndim - 1,)
    shifted, finite = _shifted(logits, axis)
    total = sum(exp(shifted), axis, keepdims=True)
    hot = one_hot(labels, logits.shape[-1], logits.dtype)  # as in its local rule
    picked = sum(where(not_equal(hot, 0), shifted, 0.0), axis, keepdims=True)
    losses = where(finite, subtract(log(total), picked), math.nan)  # an infinite logit can't be taken off
    if reduction == "none":
        return reshape(losses, labels.shape)
    added = sum(losses)
    return divide(added, labels.size) if reduction == "mean" else added


def _binary_cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    return add(multiply(a, subtract(greater(a, 0), b)), log1p(exp(negative(absolute(a)))))


# --- averages


def _mean(a: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    return divide(sum(a, axis, keepdims=keepdims), count(a.shape, axis))


def _var(a: Tensor, axis: Axes, keepdims: bool, ddof: float) -> Tensor:
    n = count(a.shape, axis)
    deviation = subtract(a, divide(sum(a, axis, keepdims=True), n))
    return divide(sum(multiply(deviation, deviation), axis, keepdims=keepdims), n - ddof)


def _std(a: Tensor, axis: Axes, keepdims: bool, ddof: float) -> Tensor:
    return sqrt(_var(a, axis, keepdims, ddof))


def _norm(a: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    return sqrt(sum(multiply(a, a), axis, keepdims=keepdims))


def _p_norm(a: Tensor, axis: Axes, keepdims: bool, ord: float) -> Tensor:
    return power(sum(power(absolute(a), ord), axis, keepdims=keepdims), 1 / ord)


# --- activations


def _leaky_relu(a: Tensor, negative_slope: float) -> Tensor:
    return where(greater(a, 0), a, multiply(negative_slope, a))


def _elu(a: Tensor, alpha: float) -> Tensor:
    return where(greater(a, 0), a, multiply(alpha, expm1(minimum(a, 0))))


def _selu(a: Tensor) -> Tensor:
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return multiply(scale, _elu(a, alpha))


def _celu(a: Tensor, alpha: float) -> Tensor:
    return where(greater(a, 0), a, multiply(alpha, expm1(divide(minimum(a, 0), alpha))))


def _gelu(a: Tensor) -> Tensor:
    return multiply(a, registry["ndtr"](a))


def _gelu_tanh(a: Tensor) -> Tensor:
    inner = multiply(0.7978845608028654, multiply(a, add(1, multiply(0.044715, multiply(a, a)))))
    return divide(multiply(a, add(1, tanh(inner))), 2)


def _silu(a: Tensor) -> Tensor:
    return multiply(a, sigmoid(a))


def _softplus(a: Tensor) -> Tensor:
    return add(relu(a), log1p(exp(negative(absolute(a)))))


def _mish(a: Tensor) -> Tensor:
    return multiply(a, tanh(_softplus(a)))


def _log_sigmoid(a: Tensor) -> Tensor:
    rest = log1p(exp(negative(absolute(a))))
    return where(less(a, 0), subtract(a, rest), negative(rest))


def _softsign(a: Tensor) -> Tensor:
    return divide(a, add(1, absolute(a)))


def _hardtanh(a: Tensor, min_val: float, max_val: float) -> Tensor:
    return clip(a, min_val, max_val)


def _hardsigmoid(a: Tensor) -> Tensor:
    return divide(clip(add(a, 3), 0, 6), 6)


def _hardswish(a: Tensor) -> Tensor:
    return divide(multiply(a, clip(add(a, 3), 0, 6)), 6)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    rest = log1p(exp(negative(absolute(subtract(a, b)))))
    return where(equal(a, b), add(a, math.log(2)), add(registry["maximum"](a, b), rest))


def _logaddexp2(a: Tensor, b: Tensor) -> Tensor:
    rest = multiply(1 / math.log(2), log1p(exp2(negative(absolute(subtract(a, b))))))
    return where(equal(a, b), add(a, 1), add(registry["maximum"](a, b), rest))


def _xlogy(a: Tensor, b: Tensor) -> Tensor:
    return where(logical_and(equal(a, 0), logical_not(isnan(b))), 0.0, multiply(a, log(b)))


def _xlog1py(a: Tensor, b: Tensor) -> Tensor:
    return where(logical_and(equal(a, 0), logical_not(isnan(b))), 0.0, multiply(a, log1p(b)))


# --- products


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return multiply(reshape(a, (a.size, 1)), reshape(b, (1, b.size)))


def _tensordot(a: Tensor, b: Tensor, axes: tuple[Axes, Axes]) -> Tensor:
    """As NumPy does it: the summed axes last in one and first in the other, then one matrix product."""
    free = [tuple(i for i in range(t.ndim) if i not in summed) for t, summed in zip((a, b), axes, strict=True)]
    shapes = [tuple(t.shape[i] for i in kept) for t, kept in zip((a, b), free, strict=True)]
    added = math.prod(a.shape[i] for i in axes[0])
    left = reshape(transpose(a, free[0] + axes[0]), (math.prod(shapes[0]), added))
    right = reshape(transpose(b, axes[1] + free[1]), (added, math.prod(shapes[1])))
    return reshape(left @ right, shapes[0] + shapes[1])


def _einsum(*operands: Tensor, subscripts: str) -> Tensor:
    """In NumPy's order; a letter is summed over as soon as nothing later has it."""
    inputs, output = subscripts.split("->")
    parts = list(zip(operands, inputs.split(","), strict=True))
    stand_ins = [np.broadcast_to(0.0, t.shape) for t in operands]
    path = np.einsum_path(subscripts, *stand_ins, optimize=True)[0][1:]
    for chosen in path:
        (held, letters), *others = [parts.pop(i) for i in sorted(chosen, reverse=True)]
        for i, (other, of_other) in enumerate(others):
            later = set(output).union(*[c for _, c in parts], *[c for _, c in others[i + 1 :]])
            held, letters = _pair(held, letters, other, of_other, later)
        parts.append((held, letters))
    ((held, letters),) = parts
    held, letters = _summed(held, letters, set(output))
    return transpose(held, tuple(letters.index(c) for c in output))


def _summed(a: Tensor, letters: str, kept: set[str]) -> tuple[Tensor, str]:
    """Sums over the axes whose letters nothing else has."""
    gone = tuple(i for i, c in enumerate(letters) if c not in kept)
    return (sum(a, gone), "".join(c for c in letters if c in kept)) if gone else (a, letters)


def _pair(a: Tensor, of_a: str, b: Tensor, of_b: str, later: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the letters that nothing later has."""
    batch = "".join(c for c in of_a if c in of_b and c in later)
    added = "".join(c for c in of_a if c in of_b and c not in later)
    left = "".join(c for c in of_a if c not in of_b)
    right = "".join(c for c in of_b if c not in of_a)
    length = dict(zip(of_a + of_b, a.shape + b.shape, strict=True))

    def arranged(t: Tensor, letters: str, order: str) -> Tensor:
        return transpose(t, tuple(letters.index(c) for c in order))

    def lengths(letters: str) -> Axes:
        return tuple(length[c] for c in letters)

    if not added or not (left or right):
        rows = reshape(
            arranged(a, of_a, batch + left + added), lengths(batch + left) + (1,) * len(right) + lengths(added)
        )
        columns = reshape(
            arranged(b, of_b, batch + right + added), lengths(batch) + (1,) * len(left) + lengths(right + added)
        )
        product = multiply(rows, columns)
        return _summed(product, batch + left + right + added, later)
    matrices = lengths(batch)
    rows = reshape(
        arranged(a, of_a, batch + left + added), (*matrices, *map(math.prod, (lengths(left), lengths(added))))
    )
    columns = reshape(
        arranged(b, of_b, batch + added + right), (*matrices, *map(math.prod, (lengths(added), lengths(right))))
    )
    product = reshape(rows @ columns, lengths(batch + left + right))
    return _summed(product, batch + left + right, later)


# --- the table


def _pattern(function: Callable[..., Tensor]) -> Pattern:
    """Writes an equation out, unless it is of integers, or over no elements: those mean something else."""

    def pattern(equation: Equation, inputs: tuple[Equation, ...]) -> Tensor | None:
        first = inputs[0].type
        if first.dtype.kind != "f" or first.weak or not first.size or equation.type.dtype.kind != "f":
            return None
        result = function(*tensors(inputs), **equation.params)
        return result if result.equation.type is equation.type else None

    return pattern


def _composite(function: Callable[..., Tensor]) -> Rewrite:
    name = function.__name__.removeprefix("_")
    return Rewrite(f"{name}, written out", "these are the steps of its NumPy meaning", (name,), _pattern(function))


_COMPOSITES: tuple[Callable[..., Tensor], ...] = (
    *(_softmax, _log_softmax, _logsumexp, _cross_entropy, _binary_cross_entropy),
    *(_mean, _var, _std, _norm, _p_norm),
    *(_leaky_relu, _elu, _selu, _celu, _gelu, _gelu_tanh, _silu, _softplus, _mish, _log_sigmoid, _softsign),
    *(_hardtanh, _hardsigmoid, _hardswish, _logaddexp, _logaddexp2, _xlogy, _xlog1py),
    *(_outer, _tensordot, _einsum),
)

REWRITES = tuple([_composite(function) for function in _COMPOSITES])

_TABLE = by_op(REWRITES)


# --- reductions in steps, and products of matrices


def _in_steps(equation: Equation, inputs: tuple[Equation, ...]) -> Tensor | None:
    """Last axes first. Axes of length 1 between others are reduced with them."""
    shape, axes = inputs[0].type.shape, equation.params["axis"]
    runs: list[range] = []
    for axis in axes:
        if runs and all(shape[i] == 1 for i in range(runs[-1].stop, axis)):
            runs[-1] = range(runs[-1].start, axis + 1)
        else:
            runs.append(range(axis, axis + 1))
    if not axes or (len(runs) == 1 and len(axes) == len(runs[0])):
        return None
    (result,) = tensors(inputs)
    for run in reversed(runs):
        result = record(equation.op, (result,), {"axis": tuple(run), "keepdims": True})
    return reshape(result, equation.type.shape)


def _of_matrices(equation: Equation, inputs: tuple[Equation, ...]) -> Tensor | None:
    """Vectors become matrices with one row or column."""
    a, b = tensors(inputs)
    if b.ndim > 2 or (a.ndim > 1 and b.ndim == 2) or not a.size or not b.size:
        return None
    rows = reshape(a, (-1, a.shape[-1]))
    return reshape(rows @ reshape(b, (b.shape[0], -1)), equation.type.shape)


def _wide_indices(equation: Equation, inputs: tuple[Equation, ...]) -> Tensor | None:
    """Indices and labels as int64, which kernels compute with."""
    first = 0 if equation.op.name == "one_hot" else 1
    operands = tensors(inputs)
    wide = [to_dtype(t, np.int64) if t.dtype in NARROW else t for t in operands[first:]]
    if all(t.dtype not in NARROW for t in operands[first:]):
        return None
    return record(equation.op, (*operands[:first], *wide), equation.params)


NORMAL = (
    Rewrite(
        "a reduction in steps",
        "the same elements are reduced; sums may be added up in another order",
        ("sum", "max", "min", "prod", "any", "all"),
        _in_steps,
    ),
    Rewrite(
        "indices converted",
        "they are the same numbers",
        ("gather", "take_along_axis", "one_hot", "scatter_add", "add_along_axis"),
        _wide_indices,
    ),
    Rewrite("one product of matrices", "each element is the sum of the same products", ("matmul",), _of_matrices),
)

_NORMAL = by_op((*NORMAL, *MOVES))
