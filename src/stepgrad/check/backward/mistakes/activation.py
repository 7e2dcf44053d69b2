"""Mistakes with the derivative of an activation: missing, doubled, or taken at the wrong place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.mistakes.cached import derivative_from_output
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import softmax_alone, square_layers, two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.check.backward.spans import Span
from stepgrad.tensor import Array


def _elementwise(scene: Scene) -> Iterator[Span]:
    return (s for s in scene.spans if s.elementwise)


def _names(scene: Scene, span: Span) -> tuple[str, str]:
    return scene.name(span.start), scene.name(span.end)


def _at_the_loss(scene: Scene, span: Span) -> bool:
    """Whether what the span computes goes into the loss and nowhere else."""
    products = {"matmul", "einsum", "convolve"}
    return not any(scene.equation(i).op.name in products for i in _readers(scene, span.end) - {span.end})


def _readers(scene: Scene, i: int) -> set[int]:
    """Forward positions that depend on i."""
    found = {i}
    for j in range(i + 1, scene.tapes.first_backward):
        if not found.isdisjoint(scene.tapes.sources[j]):
            found.add(j)
    return found


def _missing(scene: Scene, at_loss: bool) -> Iterator[Guess]:
    for span in _activations(scene):
        if _at_the_loss(scene, span) == at_loss and not span.bare:
            z, a = _names(scene, span)
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p)),
                f"it is the gradient of {a}: the derivative of the step from {z} to {a} is missing",
            )


def _two_levels(derivative: Array) -> bool:
    """Whether a derivative is a mask, perhaps a scaled or a leaky one."""
    return len(np.unique(derivative)) <= 2


def _inverted(scene: Scene) -> Iterator[Guess]:
    for span in _elementwise(scene):
        if _two_levels(span.derivative(scene.first)):
            z, a = _names(scene, span)
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * _swapped(s.derivative(p))),
                f"the mask of {a} is inverted: the gradient passes where {z} is not positive",
            )
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * (p.value(s.end) < 0)),
                f"the mask of {a} is inverted: it passes the gradient where {a} is negative",
            )


def _swapped(derivative: Array) -> Array:
    levels = np.unique(derivative)
    return levels.sum() - derivative if len(levels) == 2 else 1 - derivative


def _from_gradient(scene: Scene) -> Iterator[Guess]:
    for span in _elementwise(scene):
        if not span.bare:
            z, a = _names(scene, span)
            da = scene.gradient_name(span.end)
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * s.derivative(p, s.arriving(p))),
                f"the derivative of {a} is taken at the gradient {da} instead of at {z}",
            )
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * (s.arriving(p) > 0)),
                f"the mask is made from the gradient {da} instead of from {z}",
            )


def _activation_as_mask(scene: Scene) -> Iterator[Guess]:
    for span in scene.spans:
        z, a = _names(scene, span)
        for i, name in ((span.end, a), (span.start, z)):
            yield Guess(
                lambda p, s=span, i=i: p.laid_out(s.arriving(p) * p.value(i)),
                f"the gradient is multiplied with {name} itself; the derivative at {z} belongs there",
                brings=scene.named.get(i),
            )


def _at_activation(scene: Scene) -> Iterator[Guess]:
    for span in _elementwise(scene):
        z, a = _names(scene, span)
        yield Guess(
            lambda p, s=span: p.laid_out(s.arriving(p) * s.derivative(p, p.value(s.end))),
            f"the derivative is taken at {a}; it belongs at {z}, or is to be written in terms of {a}",
            brings=scene.named.get(span.end),
        )


def _of_preactivation(scene: Scene) -> Iterator[Guess]:
    for span in _elementwise(scene):
        formula = derivative_from_output(scene, span.start, span.end)
        if formula is None:
            continue
        z, a = _names(scene, span)
        yield Guess(
            lambda p, s=span, f=formula: p.laid_out(s.arriving(p) * f(p.value(s.start))),
            f"the formula of the derivative is in terms of {a}, and {z} was put in",
            brings=scene.named.get(span.start),
        )


def _twice(scene: Scene, at_loss: bool) -> Iterator[Guess]:
    for span in _activations(scene):
        if _at_the_loss(scene, span) == at_loss and not span.bare:
            z, a = _names(scene, span)
            detail = (
                f"the gradient of {z} is already that of the loss and {a} together, and the derivative of {a} "
                "is multiplied in once more"
            )
            yield Guess(lambda p, s=span: p.right * p.laid_out(_diagonal(p, s)), detail)


def _diagonal(point: Point, span: Span) -> Array:
    """d end / d start, element by element; of softmax, the diagonal."""
    if span.elementwise:
        return span.derivative(point)
    a = point.value(span.end)
    return a * (1 - a)


def _leaky(scene: Scene) -> Iterator[Guess]:
    for span in _elementwise(scene):
        levels = np.unique(span.derivative(scene.first))
        z, a = _names(scene, span)
        if len(levels) == 2 and levels.all():
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * _without_slope(s.derivative(p))),
                f"the slope {levels[0]:.3g} of {a} for negative {z} is lost",
            )


def _without_slope(derivative: Array) -> Array:
    return np.where(derivative == derivative.max(), derivative, 0.0)


def _is_softmax(scene: Scene, span: Span) -> bool:
    """Whether the end is positive and sums to one along an axis."""
    value = scene.first.value(span.end)
    sums = [value.sum(axis=k) for k in range(value.ndim)]
    return not span.elementwise and bool((value >= 0).all()) and any(np.allclose(s, 1) for s in sums)


def _activations(scene: Scene) -> Iterator[Span]:
    return (s for s in scene.spans if s.elementwise or _is_softmax(scene, s))


def _diagonal_only(scene: Scene) -> Iterator[Guess]:
    for span in scene.spans:
        if _is_softmax(scene, span):
            z, a = _names(scene, span)
            yield Guess(
                lambda p, s=span: p.laid_out(s.arriving(p) * _diagonal(p, s)),
                f"only the diagonal of the softmax's derivative is used: each {a} depends on all {z} of its example",
            )


FAMILY = Family(
    "activation derivative",
    (
        Mistake(
            "activation-derivative-missing",
            "dZ is set to dA; the activation is passed over on the way back.",
            "The gradient of the activation's output.",
            "Multiply with the derivative: `dZ = dA * f'(Z)`.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = dA1"),
            lambda scene: _missing(scene, at_loss=False),
        ),
        Mistake(
            "mask-inverted",
            "`Z < 0` or `Z <= 0` for `Z > 0`; or the gradient is set to 0 where Z is positive.",
            "The gradient where it should be 0, and 0 where it should pass.",
            "ReLU passes the gradient where its input was positive: `dZ = dA * (Z > 0)`.",
            Example(square_layers, "dZ2 = dA2 * (Z2 > 0)", "dZ2 = dA2 * (Z2 <= 0)"),
            _inverted,
        ),
        Mistake(
            "mask-from-gradient",
            "`dA > 0` for `Z > 0`, or the derivative is applied to the gradient: `relu'(dA)`.",
            "A gradient without negative entries, or with entries that depend on the gradient in a curve.",
            "The mask is about the forward value: `dZ = dA * (Z > 0)`.",
            Example(square_layers, "dZ2 = dA2 * (Z2 > 0)", "dZ2 = dA2 * (dA2 > 0)"),
            _from_gradient,
        ),
        Mistake(
            "activation-as-mask",
            "`dA * A` for `dA * (A > 0)`.",
            "The downstream gradient times the activation itself.",
            "Multiply with the derivative: for ReLU it is 1 where A is positive, and 0 elsewhere.",
            Example(square_layers, "dZ2 = dA2 * (Z2 > 0)", "dZ2 = dA2 * A2"),
            _activation_as_mask,
        ),
        Mistake(
            "derivative-at-activation",
            "A function such as `sigmoid_derivative(x)` that applies sigmoid itself is called with A.",
            "The gradient with f'(A) for f'(Z).",
            "Call it with Z, or write the derivative in terms of A: `A * (1 - A)`, `1 - A**2`.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = dA1 * (1 - np.tanh(A1)**2)"),
            _at_activation,
        ),
        Mistake(
            "derivative-of-preactivation",
            "The formula in terms of the output, `A * (1 - A)` or `1 - A**2`, is used with Z.",
            "The gradient times `Z * (1 - Z)` or `1 - Z**2`, which can be negative.",
            "Put A in: `dZ = dA * A * (1 - A)`.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = dA1 * (1 - Z1**2)"),
            _of_preactivation,
        ),
        Mistake(
            "derivative-kept-with-fused-loss",
            "`A - Y` is the gradient of the loss and the last activation together; the derivative of the activation "
            "is multiplied in all the same.",
            "The right gradient times A(1 - A).",
            "Leave the derivative out: `dZ = A - Y`.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = (A2 - Y) * A2 * (1 - A2) / m"),
            lambda scene: _twice(scene, at_loss=True),
        ),
        Mistake(
            "derivative-dropped-without-fused-loss",
            "The gradient of the loss with respect to A is passed on as if it were that of Z.",
            "The gradient of the last activation.",
            "Multiply with the derivative of the last activation, or start with the fused `dZ = A - Y`.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = ((1 - Y) / (1 - A2) - Y / A2) / m"),
            lambda scene: _missing(scene, at_loss=True),
        ),
        Mistake(
            "derivative-twice",
            "The derivative of a hidden activation is multiplied in where dA is computed, and again for dZ.",
            "The right gradient times f'(Z).",
            "Multiply once on the way from dA to dZ.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = dA1 * (1 - A1**2)**2"),
            lambda scene: _twice(scene, at_loss=False),
        ),
        Mistake(
            "leaky-slope-lost",
            "Leaky ReLU's backward is written as that of ReLU.",
            "0 where the gradient should be small.",
            "Multiply with the slope where Z is negative: `dA * np.where(Z > 0, 1, slope)`.",
            Example(square_layers, "dZ1 = dA1 * np.where(Z1 > 0, 1, 0.1)", "dZ1 = dA1 * (Z1 > 0)"),
            _leaky,
        ),
        Mistake(
            "softmax-diagonal-only",
            "Softmax is treated like sigmoid, element by element.",
            "`dP * P * (1 - P)`: the paths through the other classes are missing.",
            "`dZ = P * (dP - (dP * P).sum(axis=…, keepdims=True))`.",
            Example(softmax_alone, "dZ = P * (dP - np.sum(dP * P, axis=1, keepdims=True))", "dZ = dP * P * (1 - P)"),
            _diagonal_only,
        ),
    ),
)
