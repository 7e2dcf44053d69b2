"""Mistakes of shape and layout: the right numbers in the wrong arrangement, or products and sums along wrong axes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import batch_norm, square_layers, two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.tape.equation import Equation, leaves
from stepgrad.tensor import Array


def _transposed(scene: Scene) -> Iterator[Guess]:
    right, name = scene.first.right, scene.gradient
    if right.ndim >= 2:
        for axes in _orders(right.ndim):
            shape = tuple(right.shape[a] for a in axes)
            whose = f"{scene.name(scene.goal)} has {right.shape}" if scene.goal is not None else f"it is {right.shape}"
            yield Guess(
                lambda p, axes=axes: p.right.transpose(axes),
                f"it is the transpose of the gradient: shape {shape}, {whose}"
                if shape != right.shape
                else "it is the transpose of the gradient, which has the same shape here",
                fix=f"{name} = ({_expression(scene)}).T" if right.ndim == 2 and _expression(scene) else None,
            )
    for i in scene.inside:
        if scene.equation(i).op.name == "matmul":
            yield Guess(
                lambda p, i=i: p.edited(functions={i: lambda a, b: np.swapaxes(np.matmul(a, b), -1, -2)}),
                "a product inside is transposed: its operands are exchanged, and each is transposed",
                reads=_exchanged(scene, i),
            )
    for i, operand, source in _products(scene):
        if not _is_weights(scene, source):
            yield Guess(
                lambda p, i=i, operand=operand: p.edited(functions={i: _turned(p, i, operand)}),
                f"{scene.called(source)} is used without the transpose that the product needs",
                reads=_bare(scene, i, operand),
            )


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """The likely wrong orders of axes: all of them for few axes, else two axes exchanged."""
    identity = tuple(range(ndim))
    if ndim <= 3:
        yield from (o for o in itertools.permutations(range(ndim)) if o != identity)
        return
    for a, b in itertools.combinations(range(ndim), 2):
        order = list(identity)
        order[a], order[b] = b, a
        yield tuple(order)


def _expression(scene: Scene) -> str | None:
    """The right-hand side of the line, if it is a plain assignment."""
    left, equals, expression = scene.clue.code.partition(" = ")
    plain = equals and left.strip().isidentifier() and "\n" not in expression
    return expression.split("#")[0].strip() if plain else None


def _products(scene: Scene) -> Iterator[tuple[int, int, int]]:
    """Products of matrices in the piece: (position, operand, the value that the operand is a transpose of)."""
    for i in scene.inside:
        if scene.equation(i).op.name == "matmul":
            for operand, source in enumerate(scene.tapes.sources[i]):
                if scene.equation(source).type.shape and len(scene.equation(source).type.shape) >= 2:
                    yield i, operand, _origin(scene, source)


def _origin(scene: Scene, i: int) -> int:
    """What a transposed value is the transpose of."""
    while _is_turned(scene, i):
        (i,) = scene.tapes.sources[i]
    return i


def _is_turned(scene: Scene, i: int) -> bool:
    """Whether a value is the transpose of one that the user has, rather than one that the user has."""
    return scene.equation(i).op.name == "transpose" and i not in scene.known_names


def _is_weights(scene: Scene, i: int) -> bool:
    return i < scene.tapes.first_backward and scene.is_parameter(i)


def _turned(point: Point, i: int, operand: int) -> Callable[..., Array]:
    """The product at i with one operand transposed."""
    product = point.tapes.equations[i].op.numpy

    def turned(a: Array, b: Array) -> Array:
        return product(a.swapaxes(-1, -2), b) if operand == 0 else product(a, b.swapaxes(-1, -2))

    return turned


def _exchanged(scene: Scene, i: int) -> Callable[[str], bool]:
    """Whether a line's text has the operands of a product in the other order, and each without its transpose."""
    names = [re.escape(scene.called(_origin(scene, s))) for s in scene.tapes.sources[i]]
    needed = [_is_turned(scene, s) for s in scene.tapes.sources[i]]
    turned = [r"(?!\s*\.(T|mT|transpose)\b)" if need else r"\s*\.(T|mT|transpose)\b" for need in needed]
    pattern = re.compile(rf"\b{names[1]}\b{turned[1]}.*\b{names[0]}\b{turned[0]}")
    return lambda code: pattern.search(code) is not None


def _bare(scene: Scene, i: int, operand: int) -> Callable[[str], bool]:
    """Whether a line's text has the operand with a transpose where none belongs, or without one where one does."""
    source = scene.tapes.sources[i][operand]
    needed = _is_turned(scene, source)
    name = re.escape(scene.called(_origin(scene, source)))

    def reads(code: str) -> bool:
        turned = re.search(rf"\b{name}(\.T\b|\.transpose|\.mT\b)|transpose\({name}\b", code)
        return re.search(rf"\b{name}\b", code) is not None and (turned is None) == needed

    return reads


def _weights_not_transposed(scene: Scene) -> Iterator[Guess]:
    for i, operand, source in _products(scene):
        if _is_weights(scene, source):
            yield Guess(
                lambda p, i=i, operand=operand: p.edited(functions={i: _turned(p, i, operand)}),
                f"{scene.name(source)} is not transposed: the gradient goes back through its transpose",
                brings=scene.name(source),
                reads=_bare(scene, i, operand),
            )


def _sums(scene: Scene) -> Iterator[int]:
    """The sums with which the piece undoes broadcasting."""
    for i in scene.inside:
        of = scene.of(i)
        if scene.equation(i).op.name == "sum" and of is not None and scene.equation(of).op.name == "expand":
            yield i


def _is_bias(scene: Scene, i: int) -> bool:
    """Whether the sum at i gives the gradient of something that was added to every example."""
    expanded = scene.of(i)
    assert expanded is not None
    readers = [r for r in scene.tapes.readers[expanded] if r < scene.tapes.first_backward]
    source = scene.tapes.sources[expanded][0]
    added = all(scene.equation(r).op.name in ("add", "subtract") for r in readers)
    return added and (scene.is_parameter(_input(scene, source)) or not scene.parameters)


def _input(scene: Scene, i: int) -> int:
    while scene.equation(i).op.name in ("reshape", "transpose", "expand"):
        i = scene.tapes.sources[i][0]
    return i


def _resummed(**changes: Any) -> Callable[[Equation], Callable[[Array], Array]]:
    def of(equation: Equation) -> Callable[[Array], Array]:
        return lambda x: np.sum(x, **{**equation.params, **changes})

    return of


def _unsummed(scene: Scene, biases: bool) -> Iterator[Guess]:
    for i in _sums(scene):
        if _is_bias(scene, i) == biases:
            name = scene.name(scene.tapes.sources[scene.of(i) or 0][0])
            before = scene.equation(scene.tapes.sources[i][0]).type.shape
            yield Guess(
                lambda p, i=i: _as_far_as(p, i),
                f"it is not summed over the examples: {name} was added to all of them, so its gradient is a sum"
                if biases
                else f"the sum over the axes along which {name} was broadcast is missing",
                loose=_SUM.search(scene.clue.code) is not None,  # then it is summed, along another axis
            )
            axes = scene.equation(i).params.get("axis") or ()
            if len(axes) > 1:
                for axis in axes:
                    for keepdims in (False, True):
                        yield Guess(
                            lambda p, i=i, axis=axis, keepdims=keepdims: p.edited(
                                functions={i: _resummed(axis=axis, keepdims=keepdims)(p.tapes.equations[i])}
                            ),
                            f"it is summed over axis {axis} only: {name} was broadcast along the axes "
                            f"{', '.join(map(str, axes))} of {before}",
                        )


def _as_far_as(point: Point, i: int, **changes: Any) -> Array:
    """What the line computes if the sum at i is left out or changed; without what follows if that does not fit."""
    equation = point.tapes.equations[i]
    change = _resummed(**changes)(equation) if changes else lambda x: x
    try:
        return point.edited(functions={i: change})
    except ValueError:
        return point.scale * change(point.value(point.tapes.sources[i][0]))


def _bias_wrong_axis(scene: Scene) -> Iterator[Guess]:
    for i in _sums(scene):
        right = scene.equation(i).params.get("axis")
        shape = scene.equation(scene.tapes.sources[i][0]).type.shape
        if scene.equation(_input(scene, scene.tapes.sources[scene.of(i) or 0][0])).op not in leaves:
            continue  # a statistic that is computed on the way: no gradient is returned of it
        for axis in range(len(shape)):
            if (axis,) != right and len(shape) > 1:
                for keepdims in (True, False):
                    yield Guess(
                        lambda p, i=i, axis=axis, keepdims=keepdims: _as_far_as(p, i, axis=axis, keepdims=keepdims),
                        f"it is summed over axis {axis} of {shape}; the examples are along "
                        f"{'axis' if right and len(right) == 1 else 'axes'} {', '.join(map(str, right or ()))}",
                    )


def _bias_summed_to_scalar(scene: Scene) -> Iterator[Guess]:
    for keepdims in (False, True):
        yield Guess(
            lambda p, keepdims=keepdims: np.asarray(np.sum(p.right, keepdims=keepdims)),
            f"it is one number, the sum over all axes; the gradient has shape {scene.first.right.shape}",
        )
    for i in _sums(scene):
        yield Guess(
            lambda p, i=i: p.edited(functions={i: lambda x: np.asarray(np.sum(x))}),
            f"one number is made of the whole; the gradient has shape {scene.first.right.shape}",
        )


def _keepdims_lost(scene: Scene) -> Iterator[Guess]:
    right, wrong = scene.first.right, scene.first.wrong
    if wrong is not None and wrong.ndim and wrong.ndim != right.ndim:
        squeezed = [n for n in wrong.shape if n != 1] == [n for n in right.shape if n != 1]
        if squeezed:
            shape = wrong.shape
            yield Guess(
                lambda p: (
                    p.right.reshape([n for n in p.right.shape if n != 1]).reshape(np.shape(p.wrong))
                    if p.wrong is not None and p.wrong.size == p.right.size
                    else p.right
                ),
                f"it has shape {shape}, and {right.shape} is right: the axis of length 1 is "
                + ("lost, and later broadcasting lines up wrongly" if wrong.ndim < right.ndim else "one too many"),
            )
    sums = [i for i in scene.inside if scene.equation(i).op.name in ("sum", "mean", "max")]
    kept = sum(bool(scene.equation(i).params.get("keepdims")) for i in sums)
    for i in sums:
        e = scene.equation(i)
        if e.params.get("keepdims"):
            yield Guess(
                lambda p, i=i: p.edited(
                    functions={i: lambda x: p.tapes.equations[i].op.numpy(x, **{**_params(p, i), "keepdims": False})}
                ),
                f"the {e.op.name} inside loses its axis of length 1, and broadcasts along the wrong one",
                reads=lambda code: bool(_SUM.search(code)) and code.count("keepdims") < kept,
            )


_SUM = re.compile(r"sum|mean|max")


def _params(point: Point, i: int) -> dict[str, Any]:
    return point.tapes.equations[i].params


def _elementwise(first_turned: bool, second_turned: bool) -> Callable[[Array, Array], Array]:
    def product(a: Array, b: Array) -> Array:
        return (a.swapaxes(-1, -2) if first_turned else a) * (b.swapaxes(-1, -2) if second_turned else b)

    return product


_PRODUCT = re.compile(r"@|dot\b|matmul|einsum")


def _too_few_products(scene: Scene, code: str) -> bool:
    """Whether a line's text has no product of matrices, or is a sum and has fewer than it needs."""
    found = len(_PRODUCT.findall(code))
    return not found or (" + " in code and found < sum(scene.equation(i).op.name == "matmul" for i in scene.inside))


def _elementwise_for_matmul(scene: Scene) -> Iterator[Guess]:
    for i in scene.inside:
        if scene.equation(i).op.name == "matmul":
            a, b = scene.tapes.sources[i]
            names = f"{scene.called(_origin(scene, a))} and {scene.called(_origin(scene, b))}"
            for x, y in itertools.product((False, True), repeat=2):
                yield Guess(
                    lambda p, i=i, x=x, y=y: p.edited(functions={i: _elementwise(x, y)}),
                    f"{names} are multiplied element by element; the forward pass has a product of matrices, "
                    "so its gradients are products of matrices as well",
                    reads=lambda code: " * " in code and _too_few_products(scene, code),
                )


_DB2 = "db2 = np.sum(dZ2, axis=1, keepdims=True)"

FAMILY = Family(
    "shape and layout",
    (
        Mistake(
            "transposed",
            "The operands of a product are transposed and exchanged to make the shapes fit.",
            "The transpose of the gradient; or a product in which a cached value lacks its transpose.",
            "A gradient has the shape of what it is the gradient of. For `Z = W @ A` it is `dW = dZ @ A.T`, "
            "for `Z = A @ W` it is `dW = A.T @ dZ`.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "dW2 = A1 @ dZ2.T"),
            _transposed,
        ),
        Mistake(
            "weights-not-transposed",
            "The weights are used as in the forward pass. With a square matrix no shape gives it away.",
            "The downstream gradient times W instead of its transpose.",
            "For `Z = W @ A` it is `dA = W.T @ dZ`, for `Z = A @ W` it is `dA = dZ @ W.T`.",
            Example(square_layers, "dA1 = dZ2 @ W2.T", "dA1 = dZ2 @ W2"),
            _weights_not_transposed,
        ),
        Mistake(
            "bias-not-summed",
            "The bias was added to every example, and its gradient is taken to be that of the sum.",
            "The downstream gradient itself, with one column (or row) for each example.",
            "What is broadcast going forward is summed going back: `db = dZ.sum(axis=…, keepdims=True)` "
            "over the axis of the examples.",
            Example(two_layers, _DB2, "db2 = dZ2"),
            lambda scene: _unsummed(scene, biases=True),
        ),
        Mistake(
            "bias-wrong-axis",
            "The sum runs over the units instead of the examples, as in code with the other layout.",
            "The downstream gradient summed over another axis.",
            "Sum over the axis of the examples: `axis=1` where they are columns, `axis=0` where they are rows.",
            Example(two_layers, _DB2, "db2 = np.sum(dZ2, axis=0, keepdims=True)"),
            _bias_wrong_axis,
        ),
        Mistake(
            "bias-summed-to-scalar",
            "`np.sum(dZ)` without an axis.",
            "One number, the sum of the right gradient; broadcasting lets the update pass unseen.",
            "Sum over the axis of the examples only: `np.sum(dZ, axis=…, keepdims=True)`.",
            Example(two_layers, _DB2, "db2 = np.sum(dZ2)"),
            _bias_summed_to_scalar,
        ),
        Mistake(
            "keepdims-lost",
            "A sum without `keepdims=True` drops an axis, where the value it is for has an axis of length 1.",
            "The right numbers in shape (n,) instead of (n, 1), which later broadcasts along the wrong axis.",
            "Write `keepdims=True`, or reshape to the shape of the value that it is the gradient of.",
            Example(two_layers, _DB2, "db2 = np.sum(dZ2, axis=1)"),
            _keepdims_lost,
        ),
        Mistake(
            "broadcast-not-undone",
            "A value that was broadcast, other than a bias, gets the gradient of its broadcast copies.",
            "A gradient of the larger shape, or one that is summed over too few axes.",
            "Sum over every axis along which the value was broadcast.",
            Example(batch_norm, "dgamma = np.sum(dout * xhat, axis=0)", "dgamma = dout * xhat"),
            lambda scene: _unsummed(scene, biases=False),
        ),
        Mistake(
            "elementwise-for-matmul",
            "`*` is written where the forward pass has `@`.",
            "The product of the elements, where shapes allow it.",
            "Write `@`. Only elementwise functions have elementwise local rules.",
            Example(square_layers, "dA1 = dZ2 @ W2.T", "dA1 = dZ2 * W2.T"),
            _elementwise_for_matmul,
        ),
    ),
)
