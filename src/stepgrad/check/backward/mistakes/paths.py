"""Mistakes with paths: where a value is used several times, its gradient is the sum over all uses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import ratio
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import residual, square_layers, two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.check.backward.spans import spans_from
from stepgrad.tensor import Array


def without(scene: Scene, dropped: tuple[int, ...]) -> Guess:
    """The gradient without some of its contributions."""
    through = [_through(scene, i) for i in dropped]
    return Guess(
        lambda p: p.edited({i: np.zeros_like(p.value(i)) for i in dropped}),
        f"the path through {' and '.join(dict.fromkeys(through))} is missing from the sum",
    )


def _through(scene: Scene, contribution: int) -> str:
    """What to call the path that a contribution came along: the user's first name on it."""
    i = scene.of(contribution)
    while i is not None and i not in scene.named:
        following = [r for r in scene.tapes.readers[i] if r < scene.tapes.first_backward]
        if not following:
            break
        i = following[0]
    return "a second use" if i is None else scene.name(i)


def _overwritten(scene: Scene) -> Iterator[Guess]:
    augmented = re.match(r"[^=]*[-+*/@]=", scene.clue.code) is not None  # nothing is lost by `+=`
    before = None if augmented else scene.first.sighting.known.get(scene.gradient)
    if before is not None and np.shape(before) == scene.first.right.shape:
        yield Guess(
            lambda p: p.right - p.sighting.known[scene.gradient],
            f"it replaces the {scene.gradient} that was there, which came along another path; the two are to be added",
            fix=_added(scene),
        )
    contributions = scene.contributions()
    if len(contributions) > 1 and before is not None:
        adds = not np.any(before) or any(ratio(np.asarray(before), scene.first.value(i)) for i in contributions)
        for kept in contributions if adds else ():  # else what was there is no part of the sum
            guess = without(scene, tuple(i for i in contributions if i != kept))
            yield Guess(guess.value, f"only the path through {_through(scene, kept)} is left of the sum")
    for i in scene.inside:
        if scene.equation(i).op.name == "scatter_add":
            yield Guess(
                lambda p, i=i: p.edited(functions={i: partial(_assigned, **p.tapes.equations[i].params)}),
                "where an index comes several times only the last contribution counts: `a[index] += …` adds once; "
                "use `np.add.at(a, index, …)`",
            )


def _assigned(values: Array, *indices: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """What scatter_add becomes if each contribution replaces the one before."""
    index: list[Any] = [slice(None)] * len(shape)
    for axis, i in zip(axes, indices, strict=True):
        index[axis] = i
    made = np.zeros(shape, values.dtype)
    made[tuple(index)] = values
    return made


def _added(scene: Scene) -> str | None:
    left, equals, right = scene.clue.code.partition(" = ")
    return f"{left} += {right}" if equals and not left.endswith(("+", "-", "*", "/")) else None


_MOST_PATHS = 12
"""Up to so many contributions all pairs are tried; a long loop has too many."""


def _forgotten(scene: Scene) -> Iterator[Guess]:
    contributions = scene.contributions()
    for count in (1, 2) if len(contributions) <= _MOST_PATHS else (1,):
        for dropped in itertools.combinations(contributions, count):
            if count < len(contributions):
                yield without(scene, dropped)
    if len(contributions) > 3:
        for kept in contributions:
            yield without(scene, tuple(i for i in contributions if i != kept))
    for i in scene.inside:  # sums that the user's forward pass has no values for: P - sum(P * dP)
        if scene.equation(i).op.name in ("add", "subtract") and scene.equation(i).operand is not None:
            for source in scene.tapes.sources[i]:
                if scene.equation(source).type.shape == scene.equation(i).type.shape:
                    yield Guess(
                        lambda p, s=source: p.edited({s: np.zeros_like(p.value(s))}),
                        "one term of the local derivative is missing",
                    )
    yield Guess(lambda p: np.zeros_like(p.right), "it is zero everywhere: nothing arrives here")


def _wrong_order(scene: Scene) -> Iterator[Guess]:
    gradients = {g: i for i, g in scene.tapes.gradients.items() if i in scene.named}
    arriving = [g for g in scene.read if g in gradients]
    for old in arriving:
        for new, forward in gradients.items():
            if new != old and new != scene.target:
                yield Guess(
                    lambda p, old=old, new=new: p.edited({old: p.value(new)}),
                    f"{scene.gradient_name(forward)} is used where {scene.gradient_name(gradients[old])} belongs: "
                    "the steps are in another order than the forward pass, backwards",
                    brings=scene.gradient_name(forward),
                )
    for span in scene.spans:
        for old in arriving if span.elementwise and not span.bare and span.end in scene.tapes.gradients else ():
            for other in spans_from(scene, gradients[old]):
                if other.elementwise:
                    yield Guess(
                        lambda p, s=span, o=other, old=old: p.laid_out(
                            p.scale
                            * p.tapes.edited(
                                p.tapes.gradients[s.end], p.inside, {old: p.value(old) * o.derivative(p)}, {}
                            )
                        ),
                        f"the derivative of {scene.name(other.end)} is multiplied in, before the gradient goes back "
                        f"to {scene.name(span.end)}: that of {scene.name(span.end)} belongs there, after it",
                    )
    for i in scene.inside:
        if scene.equation(i).op.name == "matmul":
            yield Guess(
                lambda p, i=i: p.edited(functions={i: lambda a, b: np.matmul(b, a)}),
                "the operands of the product are in the wrong order",
            )


def _not_reset(scene: Scene) -> Iterator[Guess]:
    if scene.clue.facts & {"accumulates-between-calls"}:
        yield Guess(lambda p: 2 * p.right, "it holds the gradient of an earlier call as well")


def _ignored(scene: Scene) -> Iterator[Guess]:
    for span in scene.spans:
        if span.elementwise and not span.bare:
            yield Guess(
                lambda p, s=span: s.derivative(p),
                f"it is the derivative of {scene.name(span.end)} alone; the downstream gradient is not multiplied in",
            )
    forward = set(scene.named.values())
    for name, value in scene.first.sighting.known.items():
        if np.size(value) > 1 and np.shape(value) == scene.first.right.shape and name not in forward:
            yield Guess(
                lambda p, name=name: _as_wrong(p, p.right / p.sighting.known[name]),
                f"what {name} was before is not multiplied in, as if it were 1",
            )
    loss = scene.tapes.output
    seed = None if loss is None or scene.equation(loss).type.shape == () else scene.tapes.gradients.get(loss)
    for i in sorted(i for i in scene.read if i in scene.tapes.flowing or i == seed):
        name = scene.called(i)
        for scaled in (False, True):
            yield Guess(
                lambda p, i=i, scaled=scaled: _as_wrong(
                    p, p.edited({i: np.ones_like(p.value(i)) / (1.0 if scaled else p.scale)})
                ),
                f"the downstream gradient {name} is not multiplied in, as if it were 1",
            )


def _as_wrong(point: Point, value: Array) -> Array:
    """A value without the axes along which it is constant, if that is the shape of the wrong one."""
    wrong = point.wrong
    if wrong is None or wrong.ndim > value.ndim or np.broadcast_shapes(wrong.shape, value.shape) != value.shape:
        return value
    return wrong if np.allclose(np.broadcast_to(wrong, value.shape), value, rtol=1e-9) else value


FAMILY = Family(
    "paths",
    (
        Mistake(
            "overwritten-at-fan-out",
            "A value is used twice, and the gradient of the second use is assigned with `=` over that of the first.",
            "The gradient along one path only.",
            "Add the contributions: `dX += …`.",
            Example(residual, "dX = dX + dS @ W.T", "dX = dS @ W.T"),
            _overwritten,
        ),
        Mistake(
            "path-forgotten",
            "One of the ways in which a value acts on the loss is not followed back: a skip connection, "
            "the next time step, the variance.",
            "The gradient without the contribution of that path.",
            "Find every place in the forward pass that reads the value, and add the gradients of all.",
            Example(residual, "dX = dout", "dX = np.zeros_like(dout)"),
            _forgotten,
        ),
        Mistake(
            "wrong-order",
            "The layers are walked through in the wrong order, or a step uses the gradient of another layer; or the "
            "operands of a product are exchanged.",
            "The right formula with the gradient of another place.",
            "Go through the forward pass backwards, one step at a time.",
            Example(square_layers, "dW2 = A1.T @ dZ2", "dW2 = A1.T @ dA2"),
            _wrong_order,
        ),
        Mistake(
            "not-reset-between-calls",
            "Gradients are kept in attributes or globals, and each call adds to them.",
            "At the second call, the sum of both.",
            "Begin each backward pass with gradients of zero, or assign instead of adding.",
            Example(
                two_layers,
                "dW2 = dZ2 @ A1.T",
                'backward.dW2 = getattr(backward, "dW2", 0) + dZ2 @ A1.T\ndW2 = backward.dW2',
                facts=frozenset({"accumulates-between-calls"}),
            ),
            _not_reset,
            frozenset({"accumulates-between-calls"}),
            "each call adds to the gradient of the call before",
        ),
        Mistake(
            "downstream-ignored",
            "A layer returns its own derivative, and does not multiply in what arrives from the layers after it.",
            "The local derivative: right only where the layer is the last one and the loss is its sum.",
            "Multiply with the downstream gradient: `dX = downstream * f'(X)`.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = 1 - A1**2"),
            _ignored,
        ),
    ),
)
