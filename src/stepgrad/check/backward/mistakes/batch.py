"""Mistakes with regularisation, randomness and the batch, and with precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import ratio
from stepgrad.check.backward.mistakes.cached import exchanged
from stepgrad.check.backward.mistakes.differences import differences
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import batch_norm, dropout, square_layers, two_layers
from stepgrad.check.backward.mistakes.scale import factors
from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array


def _regulariser(scene: Scene) -> Iterator[Guess]:
    goal = scene.goal
    if goal is None or goal not in scene.tapes.inputs:
        return
    name = scene.name(goal)
    forms: dict[str, Callable[[Array], Array]] = {name: lambda w: w, f"sign({name})": np.sign, f"{name}²": np.square}
    own = [
        i
        for i in scene.contributions()
        if any(ratio(scene.first.value(i), form(scene.first.value(goal))) is not None for form in forms.values())
    ]
    if own:  # the loss has a penalty, whose gradient is one of the contributions
        yield Guess(
            lambda p: _unpenalised(p, own), f"the gradient of the penalty on {name}, which the loss has, is missing"
        )
    bases: list[Callable[[Point], Array]] = [_right]
    if own:
        bases.append(lambda p: _unpenalised(p, own))
    for text, form in forms.items():
        for base in bases:
            found = [_multiple(p, base(p), form(p.value(goal))) for p in scene.points]
            if None not in found and _has_meaning(scene, [f for f in found if f is not None]):
                yield Guess(
                    lambda p, form=form, base=base: (
                        base(p) + (_multiple(p, base(p), form(p.value(goal))) or np.nan) * form(p.value(goal))
                    ),
                    f"it has {found[0]:.4g} * {text} in it, which the loss does not give: its penalty has another "
                    "form or factor"
                    if base is not _right
                    else f"it differs from the gradient by {found[0]:.4g} * {text}: the gradient of the penalty is "
                    "missing, doubled, or has another factor than the loss gives it",
                )


def _right(point: Point) -> Array:
    return point.right


def _unpenalised(point: Point, own: list[int]) -> Array:
    return point.edited({i: np.zeros_like(point.value(i)) for i in own})


def _multiple(point: Point, base: Array, of: Array) -> float | None:
    """The multiple of an array by which the wrong value differs from another."""
    if point.wrong is None or point.wrong.shape != base.shape:
        return None
    # The difference of two close arrays has fewer right digits than the arrays have.
    return ratio(point.wrong - base, of, 1e-6)


def _has_meaning(scene: Scene, found: list[float]) -> bool:
    """Whether factors are the same at every point, or follow λ or the number of examples."""
    numbers = [np.ones(len(found))]
    single = [i for i in scene.forward if scene.first.value(i).size == 1 and not scene.tapes.sources[i]]
    numbers += [np.array([float(p.value(i).reshape(())) for p in scene.points]) for i in single]
    batches = np.array([float(p.count()) for p in scene.points])
    series = [n * power for n in numbers for power in (1.0, batches, 1 / batches)]
    ratios = [np.array(found) / each for each in series if each.all()]
    return any(bool(np.ptp(r) < 1e-6 * abs(r[0])) for r in ratios)


def _masks(scene: Scene) -> list[int]:
    """Forward arrays of zeros and one other number, which products read: masks of dropout."""
    drawn = [i for i in scene.forward if not scene.tapes.sources[i] and _is_mask(scene.first.value(i))]
    return [i for i in drawn if _multiplied(scene, i)]


def _is_mask(value: Array) -> bool:
    levels = np.unique(value)
    return len(levels) == 2 and bool(levels[0] == 0 and levels[1] > 0)


def _multiplied(scene: Scene, i: int) -> bool:
    return any(
        scene.equation(r).op.name in ("multiply", "divide", "where", "mask", "astype")
        for r in scene.tapes.readers[i]
        if r < scene.tapes.first_backward
    )


def _mask_redrawn(scene: Scene) -> Iterator[Guess]:
    held = scene.holding
    if held is not None and all(
        _is_mask(p.value(held)) and p.wrong is not None and _is_mask(p.wrong) for p in scene.points
    ):
        yield Guess(
            lambda p: np.asarray(p.wrong, np.float64),
            f"it is another mask than the {scene.name(held)} of the forward pass: it was drawn anew",
        )
    for i in _masks(scene):
        if i in scene.read and all(_other_mask(scene, p, i) is not None for p in scene.points):
            yield Guess(
                lambda p, i=i: p.edited({i: np.nan_to_num(_other_mask(scene, p, i))}),  # type: ignore[arg-type]
                f"it is zero at other places than {scene.name(i)}: a second mask was drawn, or none was used",
            )


def _other_mask(scene: Scene, point: Point, i: int) -> Array | None:
    """The mask that would explain the wrong value, if it is one."""
    if point.wrong is None or point.wrong.shape != point.value(i).shape:
        return None
    scale = float(point.value(i).max())
    everything = point.edited({i: np.full_like(point.value(i), scale)})
    with np.errstate(all="ignore"):
        found = np.where(everything == 0, 0, point.wrong / everything)
    on = np.isclose(found, 1, rtol=1e-7)
    if not (on | np.isclose(found, 0, atol=1e-12)).all() or (on == (point.value(i) > 0)).all():
        return None
    return on * scale


def _not_scaled(scene: Scene) -> Iterator[Guess]:
    """The factor 1 / keep of inverted dropout."""
    masks, found = _masks(scene), factors(scene)
    if not found or not masks:
        return
    keeps = {float(scene.first.value(i).max()) for i in masks}
    scaled = [r for i in masks for r in _following(scene, i)[:_STEPS_AFTER_MASK]]
    for i in (*scaled, *scene.inside):
        if scene.equation(i).op.name in ("divide", "multiply"):
            for s in scene.tapes.sources[i]:
                value = scene.first.value(s)
                if s < scene.tapes.first_backward and value.size and (value == value.flat[0]).all():
                    keeps.add(float(value.flat[0]))
    for keep in sorted(keeps - {0.0, 1.0}):
        for factor in (keep, 1 / keep):
            yield Guess(
                lambda p, f=factor: p.right * f,
                f"it is {factor:.4g} times the gradient: the forward pass scales what dropout leaves over, and the "
                "gradient has to be scaled likewise, once",
            )


def _statistics(scene: Scene) -> Iterator[Guess]:
    """The contributions through statistics of the batch left out: all of them, or of one."""
    if scene.target is None:
        return
    by_statistic: dict[int, list[int]] = {}
    inside, _ = scene.tapes.between(scene.target, frozenset())  # the paths may have come together in earlier lines
    for i in inside:
        of = scene.of(i)
        if of is not None and _is_statistic(scene, of) and scene.equation(i).operand is not None:
            by_statistic.setdefault(of, []).append(i)
    if not by_statistic:
        return
    last = {s: max(emitted) for s, emitted in by_statistic.items()}  # what the rule hands on
    for kept in ([], *([s] for s in last)):
        dropped = {g for s, g in last.items() if s not in kept}
        names = " and ".join(scene.name(s) for s in last if s not in kept)
        if dropped:
            yield Guess(
                lambda p, dropped=frozenset(dropped): replace(p, inside=tuple(inside)).edited(
                    {i: np.zeros_like(p.value(i)) for i in dropped}
                ),
                f"{names} is treated as constant: every example acts on it, and so on all others",
            )


def _is_statistic(scene: Scene, i: int) -> bool:
    """A mean or the like over the examples, that is then used for each of them."""
    e = scene.equation(i)
    if e.op.name not in ("sum", "mean", "var", "std", "max", "min"):
        return False
    axes, source = e.params.get("axis"), scene.tapes.sources[i][0]
    axes = range(scene.first.value(source).ndim) if axes is None else axes
    return all(p.batch in [p.value(source).shape[a] for a in axes] for p in scene.points) and any(
        scene.equation(r).op.name == "expand" for r in _following(scene, i)
    )


def _following(scene: Scene, i: int) -> list[int]:
    """The forward positions that depend on i, and i itself, in order."""
    found = {i}
    for r in range(i + 1, scene.tapes.first_backward):
        if not found.isdisjoint(scene.tapes.sources[r]):
            found.add(r)
    return sorted(found)


_STEPS_AFTER_MASK = 5
"""In so many steps after a mask comes the division by the keep probability: cast, reshape, multiply, divide."""


def _leakage(scene: Scene) -> Iterator[Guess]:
    axis = scene.first.sighting.batch_axis
    shape = scene.first.right.shape
    batch = scene.first.batch or (shape[0] if shape else 0)
    axes = [axis] if axis is not None else [k for k, n in enumerate(shape) if n == batch]
    for k in axes:
        for what, mix in {
            "mean": lambda x, k=k: np.broadcast_to(x.mean(axis=k, keepdims=True), x.shape),
            "sum": lambda x, k=k: np.broadcast_to(x.sum(axis=k, keepdims=True), x.shape),
            "deviation from the mean": lambda x, k=k: x - x.mean(axis=k, keepdims=True),
        }.items():
            yield Guess(
                lambda p, mix=mix: mix(p.right),
                f"each example gets the {what} of all examples' gradients: examples are mixed",
            )
        for what, order in {
            "reversed": lambda x, k=k: np.flip(x, k),
            "shifted by one": lambda x, k=k: np.roll(x, 1, k),
            "shifted back by one": lambda x, k=k: np.roll(x, -1, k),
        }.items():
            yield Guess(
                lambda p, order=order: order(p.right), f"the examples are {what}: each gets the gradient of another"
            )
    for old in scene.read_forward() + [d.prediction for d in differences(scene)]:
        for k in [k for k, n in enumerate(scene.first.value(old).shape) if n == batch and n > 1]:
            yield from exchanged(
                scene,
                old,
                lambda p, i=old, k=k: p.value(i) / p.value(i).sum(axis=k, keepdims=True),
                f"{scene.name(old)} is normalised over the examples",
            )
            yield from exchanged(
                scene,
                old,
                lambda p, i=old, k=k: p.value(i) - p.value(i).mean(axis=k, keepdims=True),
                f"the mean over the examples is taken from {scene.name(old)}",
            )
    for span in scene.spans:
        for k in [k for k, n in enumerate(shape) if n == batch and n > 1 and span.elementwise]:
            yield Guess(
                lambda p, s=span, k=k: s.arriving(p) * s.derivative(p).mean(axis=k, keepdims=True),
                f"the derivative of {scene.name(span.end)} is averaged over the examples",
            )
    for g in sorted(scene.read & scene.tapes.flowing):
        for k in [k for k, n in enumerate(scene.first.value(g).shape) if n == batch and n > 1]:
            yield Guess(
                lambda p, g=g, k=k: p.edited({g: p.value(g).mean(axis=k, keepdims=True)}),
                "the mean over the examples is taken of the gradient that arrives",
            )
            yield Guess(
                lambda p, g=g, k=k: p.edited({g: p.value(g) - p.value(g).mean(axis=k, keepdims=True)}),
                "the mean over the examples is taken from the gradient that arrives",
            )
    for difference in differences(scene):
        for k in [k for k, n in enumerate(shape) if n == batch and n > 1]:
            yield Guess(
                lambda p, d=difference, k=k: d.exchanged(p, target=d.target(p).mean(axis=k, keepdims=True)),
                "the mean of the targets over the examples stands where each example's target belongs",
            )
    for i in scene.inside:
        e = scene.equation(i)
        if e.op.name in ("sum", "mean", "max") and len(e.params.get("axis") or ()) == 1 and e.params.get("keepdims"):
            for other in range(len(scene.equation(scene.tapes.sources[i][0]).type.shape)):
                if other != e.params["axis"][0] and shape and scene.first.right.ndim > 1:
                    yield Guess(
                        lambda p, i=i, other=other: p.edited(
                            functions={i: lambda x: p.tapes.equations[i].op.numpy(x, axis=(other,), keepdims=True)}
                        ),
                        f"the {e.op.name} inside runs over axis {other} instead of {e.params['axis'][0]}, "
                        "and mixes what does not belong together",
                    )


def _low_precision(scene: Scene) -> Iterator[Guess]:
    for dtype, least, most in ((np.float16, 1e-5, 3e-3), (np.float32, 1e-10, 2e-6)):
        points = scene.points
        exactly = all(_fits(p.wrong, dtype) and not _fits(p.right, dtype) and _error(p) < 0.05 for p in points)
        if exactly or all(least < _error(p) < most and _scattered(p) for p in points):
            yield Guess(
                lambda p: np.asarray(p.wrong, np.float64),
                f"it agrees to the precision of {dtype.__name__} only (relative error {max(map(_error, points)):.1e}): "
                f"somewhere on the way it is computed in {dtype.__name__}",
                loose=not exactly,
            )
            return


def _fits(value: Array | None, dtype: type[np.floating[Any]]) -> bool:
    """Whether a dtype holds these very numbers."""
    return value is not None and bool(np.array_equal(value.astype(dtype).astype(np.float64), value))


def _error(point: Point) -> float:
    if point.wrong is None or point.wrong.shape != point.right.shape:
        return np.inf
    with np.errstate(all="ignore"):
        return float(np.linalg.norm(point.wrong - point.right) / np.linalg.norm(point.right))


def _scattered(point: Point) -> bool:
    """Whether the value is off to both sides, as roundings are; where it is 0 it stays 0."""
    if point.wrong is None or ((point.right == 0) & (point.wrong != 0)).any():
        return False
    wrong, right = np.abs(point.wrong[point.right != 0]), np.abs(point.right[point.right != 0])
    return right.size < 4 or bool(0.1 < (wrong > right).mean() < 0.9)


FAMILY = Family(
    "regularisation, randomness, batch",
    (
        Mistake(
            "regulariser-mismatch",
            "The loss has a penalty on the weights and the gradient has not; or the factor (½, λ, the number of "
            "examples) is another one.",
            "The gradient plus a multiple of the weights.",
            "The gradient of `lam / 2 * np.sum(W**2)` is `lam * W`; add it to dW once.",
            Example(square_layers, "dW1 = X.T @ dZ1 + lam * W1", "dW1 = X.T @ dZ1"),
            _regulariser,
        ),
        Mistake(
            "dropout-mask-redrawn",
            "The backward pass draws a new mask, or uses none.",
            "The gradient with zeros in other places.",
            "Keep the mask in the cache, and multiply with the same one.",
            Example(dropout, "dA = dD * mask / keep", "dA = dD * np.roll(mask, 1) / keep"),
            _mask_redrawn,
        ),
        Mistake(
            "dropout-not-scaled",
            "The forward pass divides by the keep probability, the backward pass does not; or it does twice.",
            "The gradient times the keep probability.",
            "`dA = dD * mask / keep`, as in the forward pass.",
            Example(dropout, "dA = dD * mask / keep", "dA = dD * mask"),
            _not_scaled,
        ),
        Mistake(
            "batch-statistics-as-constants",
            "Mean and variance of the batch are treated as numbers; but they depend on every example.",
            "`dxhat / std`: the gradient without the paths through the mean and the variance.",
            "Follow the mean and the variance back as well: subtract the mean of dxhat and its projection on xhat.",
            Example(
                batch_norm,
                "dX = (dxhat - dxhat.mean(axis=0) - xhat * np.mean(dxhat * xhat, axis=0)) / np.sqrt(var + 1e-5)",
                "dX = dxhat / np.sqrt(var + 1e-5)",
            ),
            _statistics,
        ),
        Mistake(
            "batch-leakage",
            "A sum, mean or reordering runs over the examples where it should stay within each of them.",
            "Gradients of examples that contain those of other examples.",
            "Check the axis of every sum and mean. Each example's gradient depends on that example only.",
            Example(two_layers, "dZ1 = dA1 * (1 - A1**2)", "dZ1 = dA1 * (1 - A1**2)\ndZ1 = np.flip(dZ1, axis=1)"),
            _leakage,
            frozenset({"leaks"}),
            "the gradient of one example changes with the numbers of another",
        ),
        Mistake(
            "low-precision",
            "A value on the way is float32 or float16: a constant array, a cast, a cache that saves memory.",
            "The gradient with 7, or 3, right digits.",
            "Use one dtype throughout, that of the inputs; do not cast inside the backward pass.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "dW2 = dZ2 @ A1.T.astype(np.float16)"),
            _low_precision,
        ),
    ),
)
