"""Mistakes of scale and sign: the right gradient times a number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import ratio
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import mean_at_parameters, softmax_alone, square_layers, two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.tape.equation import LITERAL
from stepgrad.tensor import Array


def factors(scene: Scene) -> list[float] | None:
    """What the right value was multiplied with, at each point; None if it was not."""
    found = [None if p.wrong is None else ratio(p.wrong, p.right) for p in scene.points]
    return None if None in found else [f for f in found if f is not None]


def times(factor: Callable[..., float], detail: str, loose: bool = False) -> Guess:
    """The right value times a number."""
    return Guess(lambda p: p.right * factor(p), detail, loose=loose)


def _sign(scene: Scene) -> Iterator[Guess]:
    yield times(lambda p: -1.0, "it has the opposite sign")


def _batch(point: Point) -> float:
    return float(point.batch) if point.batch else np.nan


def _counts(scene: Scene) -> Iterator[tuple[str, Callable[..., float]]]:
    """What the loss may be a mean over: the examples, or what the recorded gradient is divided by."""
    if scene.first.batch:
        yield f"{scene.first.batch} is the number of examples", _batch
    for i in sorted(scene.tapes.flowing):
        if scene.equation(i).op.name == "divide":
            divisor = scene.tapes.sources[i][1]
            value = scene.first.value(divisor)
            if value.size == 1 and value > 2 and value == np.round(value):
                yield f"the loss is a mean over {value.item():g}", lambda p, d=divisor: float(p.value(d).item())


def _mean_missing(scene: Scene) -> Iterator[Guess]:
    for what, count in _counts(scene):
        n = f"{count(scene.first):g}"
        divides = _DIVIDING.search(scene.clue.code) is not None  # so by another number, rather than not at all
        loose = divides or _is_written(scene, count)
        yield times(count, f"it is {n} times too large, and {what}: the mean is missing", loose=loose)


def _mean_twice(scene: Scene) -> Iterator[Guess]:
    for what, count in _counts(scene):
        n = f"{count(scene.first):g}"
        yield times(
            lambda p, c=count: 1 / c(p),
            f"it is {n} times too small, and {what}: the mean is taken twice",
            loose=_is_written(scene, count),
        )


def _is_written(scene: Scene, count: Callable[..., float]) -> bool:
    """Whether a size is the same at every point, and the line multiplies or divides by that very number."""
    n = count(scene.first)
    if any(count(p) != n for p in scene.points):
        return False
    written = {float(number) for number in _NUMBER.findall(scene.clue.code)}
    return n in written or 1 / n in written


_NUMBER = re.compile(r"(?<![\w.\[])\d+(?:\.\d*)?(?![\w.\]])")
"""A number in the text of a line, other than an index or a part of a name."""


def _mean_on_weights_only(scene: Scene) -> Iterator[Guess]:
    """A bias without the mean, where the user takes the mean at the parameters' gradients."""
    goal = scene.goal
    if goal is None or not scene.is_parameter(goal) or not _is_bias(scene, goal):
        return
    biases = {scene.tapes.inputs[i] for i in scene.parameters if _is_bias(scene, i)}
    if len(biases) > 1 and not biases <= set(scene.clue.wrong):
        return  # one was forgotten, not all
    if abs(scene.first.sighting.factor - _batch(scene.first)) < 1e-9 or _mean_taken_before(scene):
        yield times(
            _batch,
            f"it is {scene.first.batch} times too large: the mean over the examples is taken for the weights, "
            f"and not for {scene.name(goal)}",
        )


def _is_bias(scene: Scene, i: int) -> bool:
    return all(scene.equation(r).op.name in ("expand", "add") for r in scene.tapes.readers[i])


def _mean_taken_before(scene: Scene) -> bool:
    """Whether an earlier gradient of weights has the mean while the gradients it was made of have not."""
    point = scene.first
    scales = set()
    for array in point.sighting.known.values():
        array = np.asarray(array)
        for i in set(scene.tapes.gradients.values()):
            r = ratio(array, point.value(i)) if np.size(array) > 1 and point.value(i).shape == array.shape else None
            if r is not None:
                scales.add(round(abs(r), 9))
    m = point.batch
    return m is not None and 1.0 in scales and round(float(m), 9) in scales


def _wrong_divisor(scene: Scene) -> Iterator[Guess]:
    """A mean over another number than that of the examples: of features, classes, elements, m - 1."""
    found = factors(scene)
    if not found:
        return
    axes: dict[tuple[int, ...], tuple[int, int]] = {}
    for i in scene.named:
        for axis in range(len(scene.equation(i).type.shape)):
            axes.setdefault(tuple(p.value(i).shape[axis] for p in scene.points), (i, axis))
    for lengths, (i, axis) in axes.items():
        what = f"{scene.name(i)}.shape[{axis}]"
        yield from _dividing(scene, dict(zip(map(id, scene.points), lengths, strict=True)), what)
    for i in scene.named:
        sizes = {id(p): p.value(i).size for p in scene.points}
        yield from _dividing(scene, sizes, f"{scene.name(i)}.size")
    if scene.first.batch:
        yield from _dividing(scene, {id(p): (p.batch or 1) - 1 for p in scene.points}, "the examples less one")
        yield from _dividing(scene, {id(p): (p.batch or 1) + 1 for p in scene.points}, "the examples plus one")
    if re.search(r"/\s*\(?\s*2\s*\*|2\s*\*\s*\w+\)", scene.clue.code):
        yield times(lambda p: 0.5, "it is divided by 2 as well as by the number of examples")
    whole = round(1 / found[0])
    if whole > 1 and re.search(r"/=?\s*(len\(|[\w.]*\.shape|[\w.]*\.size)", scene.clue.code):
        yield times(lambda p: 1 / whole, f"it is divided by a size that is {whole}, and should not be")


_DIVIDES = re.compile(r"\.shape|len\(|\.size")
"""What the text of a line has that divides by a size."""


_DIVIDING = re.compile(r"/=?\s*\(?(len\(|[\w.\[\]]*\.(shape|size))")


def _dividing(scene: Scene, lengths: dict[int, int], what: str) -> Iterator[Guess]:
    n = lengths[id(scene.first)]
    told = _DIVIDES.search(scene.clue.code) is not None or ("/" in scene.clue.code and n in scene.clue.loop.values())
    varies = told or len(set(lengths.values())) > 1
    if n <= 1:
        return
    other = any(lengths[id(p)] != p.batch for p in scene.points)
    for right, count in _counts(scene):
        ratios = {count(p) / lengths[id(p)] for p in scene.points}
        if ratios != {1.0} and (told or len(ratios) > 1):
            yield times(lambda p, c=count: c(p) / lengths[id(p)], f"it is divided by {what} ({n}); {right}")
    if not varies:
        return  # a number like any other, as far as these points tell
    if other:
        yield times(lambda p: 1 / lengths[id(p)], f"it is divided by {what} ({n}), and should not be")
    if other or told:
        yield times(lambda p: float(lengths[id(p)]), f"it is {n} times too large, which is {what}")
    yield times(lambda p: 1 / lengths[id(p)] ** 2, f"it is divided by {what} ({n}) twice too often")


def _constant_factor(scene: Scene) -> Iterator[Guess]:
    found = factors(scene)
    if found and max(abs(f - found[0]) for f in found) < 1e-7 * abs(found[0]) and abs(found[0] - 1) > 1e-7:
        yield times(lambda p: found[0], f"it is {found[0]:.6g} times the gradient, at every point")


def _half_of_the_loss(scene: Scene) -> Iterator[Guess]:
    """2 or 1/2, where the loss brings such a factor itself: a square, or a half."""
    halves = [
        i
        for i in dict.fromkeys(map(scene.of, scene.inside))
        if i is not None
        and scene.equation(i).op.name in ("square", "constant_power", "power", "multiply", "divide")
        and (scene.equation(i).op.name == "square" or _has_two(scene, i) or _same_operands(scene, i))
    ]
    if halves and scene.at_loss:
        yield times(lambda p: 2.0, "it is twice the gradient: the square's 2, which the loss's ½ takes away")
        yield times(lambda p: 0.5, "it is half the gradient: the square in the loss brings a 2 that is missing")


def _has_two(scene: Scene, i: int) -> bool:
    numbers = [scene.equation(s).params["value"] for s in scene.tapes.sources[i] if scene.equation(s).op is LITERAL]
    numbers += [scene.equation(i).params.get("exponent")]
    return any(number in (2, 0.5, -0.5, -2) for number in numbers)


def _same_operands(scene: Scene, i: int) -> bool:
    return len(set(scene.tapes.sources[i])) == 1


def _clip_mismatch(scene: Scene) -> Iterator[Guess]:
    for i in scene.inside:
        of = scene.of(i)
        if of is None or not _clips(scene, of):
            continue
        arriving = scene.tapes.gradients.get(of)
        if arriving is None or scene.equation(i).type.shape != scene.equation(arriving).type.shape:
            continue
        if scene.equation(i).op.name in ("multiply", "where", "mask"):
            yield Guess(
                lambda p, i=i, g=arriving: p.edited({i: p.value(g)}),
                f"{scene.name(of)} is clipped going forward, and the gradient passes as if it were not",
            )
    for clipped in scene.forward:
        if _clips(scene, clipped):
            source = scene.tapes.sources[clipped][0]
            for old, new in ((clipped, source), (source, clipped)):
                if old in scene.read:
                    yield Guess(
                        lambda p, old=old, new=new: p.edited({old: p.value(new)}),
                        f"{scene.name(new)} is read where {scene.name(old)} belongs: one is clipped, the other not",
                    )
        if _clips(scene, clipped):
            source = scene.tapes.sources[clipped][0]
            if all(_passes_between(p, clipped, source) for p in scene.points):
                yield Guess(
                    lambda p: np.asarray(p.wrong),
                    f"the gradient of {scene.name(source)} passes between other bounds than {scene.name(clipped)} has",
                )
    if all(p.wrong is not None and _is_clipped(p.wrong, p.right) for p in scene.points):
        yield Guess(
            lambda p: np.clip(p.right, np.min(p.wrong), np.max(p.wrong)),
            f"it is the gradient clipped at {np.abs(scene.first.wrong).max():.4g}",  # type: ignore[arg-type]
        )


def _clips(scene: Scene, i: int) -> bool:
    """Whether a forward equation clips, by np.clip or by np.maximum with a number."""
    numbers = [scene.first.value(s).item() for s in scene.tapes.sources[i] if scene.first.value(s).size == 1]
    name = scene.equation(i).op.name
    return name == "clip" or (name in ("maximum", "minimum") and any(number != 0 for number in numbers))


def _passes_between(point: Point, clipped: int, source: int) -> bool:
    """Whether the wrong value is the gradient of a clipped value, inside of some interval, and 0 outside of it."""
    if clipped not in point.tapes.gradients or point.wrong is None:
        return False
    arriving, value = point.gradient(clipped), point.value(source)
    if arriving.shape != point.wrong.shape or value.shape != arriving.shape:
        return False
    passes = np.isclose(point.wrong, arriving, rtol=1e-9, atol=0)
    blocked = (point.wrong == 0) & (arriving != 0)
    if not (passes | blocked).all() or not passes.any() or not blocked.any():
        return False
    low, high = value[passes].min(), value[passes].max()
    return not ((value[blocked] > low) & (value[blocked] < high)).any()


def _is_clipped(wrong: Array, right: Array) -> bool:
    """Equal where it is small, and of one size where it is not."""
    if wrong.shape != right.shape or wrong.size < 4:
        return False
    cut = ~np.isclose(wrong, right, rtol=1e-9, atol=0)
    sizes = np.unique(np.abs(wrong[cut]).round(12))
    smaller = bool(cut.any() and len(sizes) == 1 and 0 < sizes[0] < abs(right[cut]).min())
    return smaller and bool((np.sign(wrong[cut]) == np.sign(right[cut])).all())


FAMILY = Family(
    "scale and sign",
    (
        Mistake(
            "sign",
            "`Y - A` for `A - Y`, or the minus of the loss is lost.",
            "The gradient times -1: a step along it goes up.",
            "Turn the difference around, or restore the minus.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = (Y - A2) / m"),
            _sign,
        ),
        Mistake(
            "mean-missing",
            "The loss is a mean over the examples, and the gradient only a sum.",
            "The gradient times the number of examples.",
            "Divide by the number of examples once: either in dZ of the last layer, or in every parameter's gradient.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = A2 - Y"),
            _mean_missing,
        ),
        Mistake(
            "mean-twice",
            "The division by the number of examples stands in dZ and again in dW; or the loss is a sum.",
            "The gradient divided by the number of examples.",
            "Divide once, in one of the two places.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "dW2 = dZ2 @ A1.T / m"),
            _mean_twice,
        ),
        Mistake(
            "mean-on-weights-only",
            "Where the mean is taken at the parameters' gradients, the biases are forgotten.",
            "The bias's gradient times the number of examples; the weights' gradient is right.",
            "Divide the bias's gradient by the number of examples as well.",
            Example(mean_at_parameters, "db = dZ.sum(axis=0) / m", "db = dZ.sum(axis=0)"),
            _mean_on_weights_only,
        ),
        Mistake(
            "wrong-divisor",
            "`len(X)` or `shape[0]` where the examples are along another axis; a mean over all elements instead of a "
            "sum over classes and a mean over examples.",
            "The gradient times a ratio of two sizes.",
            "Divide by what the loss divides by.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = (A2 - Y) / X.shape[0]"),
            _wrong_divisor,
        ),
        Mistake(
            "half-of-the-loss",
            "The 2 of a squared error, or the ½ that takes it away, is on one side only.",
            "Twice the gradient, or half of it.",
            "The gradient of ½(out - Y)² is out - Y; that of (out - Y)² is 2(out - Y).",
            Example(square_layers, "dout = (out - Y) / len(X)", "dout = 2 * (out - Y) / len(X)"),
            _half_of_the_loss,
        ),
        Mistake(
            "constant-factor",
            "A number from the loss, the learning rate or a scaling is missing, or is in the wrong place.",
            "The gradient times one number, the same whatever the sizes.",
            "Look for the number in the forward pass and the update.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "dW2 = 0.3 * dZ2 @ A1.T"),
            _constant_factor,
        ),
        Mistake(
            "clip-mismatch",
            "The forward pass clips (probabilities, a norm) and the backward pass does not, or the other way round; "
            "or the gradient itself is clipped inside the backward pass.",
            "A gradient that differs only where the clipping acts.",
            "Where a value was clipped its gradient is 0. Clip gradients in the update, after all are computed.",
            Example(softmax_alone, "dP = dC * ((P > 0.05) & (P < 0.95))", "dP = dC"),
            _clip_mismatch,
        ),
    ),
)
