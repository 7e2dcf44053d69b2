"""Mistakes with cached values: the backward pass reads another forward value than the one its rule is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import agree, ratio
from stepgrad.check.backward.mentions import mentions
from stepgrad.check.backward.mistakes.differences import differences
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import square_layers, two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array

# --- exchanging what is read

Value = Callable[..., Array]
"""Computes an array at a point."""


def exchanged(scene: Scene, old: int, new: Value, detail: str, brings: str | None = None) -> Iterator[Guess]:
    """What the line computes if it reads `new` where `old` is right."""
    for value in _with(scene, old, new):
        yield Guess(value, detail, brings, scene.name(old))


def _with(scene: Scene, old: int, new: Value) -> Iterator[Value]:
    if old == scene.holding:
        yield new
    if old in scene.read:
        yield lambda p: p.edited({old: new(p)})
        source = _read_through(scene, old)
        for i in source:  # one place only, of several
            yield lambda p, i=i: p.edited(functions={i: _reading(p, i, old, new)})
    for difference in differences(scene):
        if difference.prediction == old:
            yield lambda p, d=difference: d.exchanged(p, new(p))
    for span in scene.spans:
        formula = derivative_from_output(scene, span.start, span.end)
        if span.elementwise and span.end == old and formula:
            yield lambda p, s=span, f=formula: p.laid_out(s.arriving(p) * f(new(p)))
        if span.elementwise and span.start == old:
            yield lambda p, s=span: p.laid_out(s.arriving(p) * s.derivative(p, new(p)))


def _read_through(scene: Scene, old: int) -> list[int]:
    readers = [i for i in scene.inside if old in scene.tapes.sources[i]]
    return readers if len(readers) > 1 else []


def _reading(point: Point, i: int, old: int, new: Value) -> Callable[..., Array]:
    equation, sources = point.tapes.equations[i], point.tapes.sources[i]

    def compute(*operands: Array) -> Array:
        taken = [new(point) if s == old else x for s, x in zip(sources, operands, strict=True)]
        return equation.op.numpy(*taken, **equation.params)

    return compute


def derivative_from_output(scene: Scene, start: int, end: int) -> Callable[[Array], Array] | None:
    """The derivative of an activation as it is written in terms of its output, as in A * (1 - A)."""
    point = scene.first
    right = point.tapes.derivative(start, end, point.value(start))
    with np.errstate(all="ignore"):
        for formula in _FORMULAS:
            found = formula(point.value(end))
            if np.allclose(found, right, rtol=1e-9, atol=1e-12):
                return formula
    return None


_FORMULAS: tuple[Callable[[Array], Array], ...] = (
    lambda a: a * (1 - a),  # sigmoid
    lambda a: 1 - a**2,  # tanh
    lambda a: (a > 0) * 1.0,  # relu
    lambda a: a,  # exp
    lambda a: 1 - np.exp(-a),  # softplus
    lambda a: np.where(a > 0, 1, a + 1),  # elu
    lambda a: 0.5 / a,  # sqrt
)


def _others(scene: Scene, old: int, weights: bool) -> Iterator[int]:
    """Other named values that may stand where `old` does, those of the same shape first."""
    shape = scene.equation(old).type.shape
    found = [i for i in scene.named if i != old and scene.is_parameter(i) == weights]
    found = [i for i in found if len(scene.equation(i).type.shape) == len(shape) and scene.equation(i).type.is_float]
    yield from sorted(found, key=lambda i: scene.equation(i).type.shape != shape)


def _read(scene: Scene) -> list[int]:
    """What the line reads, in every form in which it may be written."""
    found = [i for i in scene.read_forward() if i in scene.named]
    found += [] if scene.holding is None else [scene.holding]
    found += [d.prediction for d in differences(scene)]
    found += [i for s in scene.spans for i in (s.start, s.end)]
    return list(dict.fromkeys(found))


# --- the entries


def _preactivation(scene: Scene) -> Iterator[Guess]:
    for old in _read(scene):
        for z in scene.preactivations(old):
            yield from exchanged(
                scene,
                old,
                lambda p, z=z: p.value(z),
                f"{scene.name(z)} is used where {scene.name(old)} belongs: the value before the activation",
                scene.name(z),
            )


def _other_cache(scene: Scene) -> Iterator[Guess]:
    for old in _read(scene):
        if not scene.is_parameter(old):
            for new in _others(scene, old, weights=False):
                yield from exchanged(
                    scene,
                    old,
                    lambda p, new=new: p.value(new),
                    f"{scene.name(new)} is used where {scene.name(old)} belongs",
                    scene.name(new),
                )


def _other_weights(scene: Scene) -> Iterator[Guess]:
    for old in _read(scene):
        if scene.is_parameter(old) and len(scene.equation(old).type.shape) >= 2:
            for new in _others(scene, old, weights=True):
                yield from exchanged(
                    scene,
                    old,
                    lambda p, new=new: p.value(new),
                    f"{scene.name(new)} is used where {scene.name(old)} belongs: the gradient goes back through "
                    "the weights that it came forward through",
                    scene.name(new),
                )


def _from(scene: Scene, arrays: Callable[[Point], Mapping[str, Array]], text: str) -> Iterator[Guess]:
    """What the line computes with arrays of the same names that have other values."""
    offered = arrays(scene.first)
    for old in _read(scene):
        name = scene.name(old)
        if name not in offered and not _repeats(scene, old):
            name = scene.base(old)
        value = scene.first.value(old)
        if name in offered and offered[name].shape == value.shape and not np.array_equal(offered[name], value):
            yield from exchanged(scene, old, lambda p, n=name: np.asarray(arrays(p)[n]), text.format(name), name)


def _repeats(scene: Scene, i: int) -> bool:
    """Whether a loop made the value: the same line made others of its name."""
    places = scene.first.sighting.truth.places
    here = places.get(scene.equation(i))
    namesakes = [j for j in scene.named if j != i and scene.base(j) == scene.base(i)]
    return here is None or any(places.get(scene.equation(j)) == here for j in namesakes)


_STALE = "it reads the {} of an earlier forward pass"


def _stale(scene: Scene) -> Iterator[Guess]:
    yield from _from(scene, lambda p: p.sighting.previous, _STALE)
    kept = _kept(scene)
    yield from _from(scene, lambda p: {k: v for k, v in p.sighting.others.items() if k in kept}, _STALE)
    for i, name in scene.named.items():
        if name in kept and not agree(np.asarray(scene.first.sighting.others[name]), scene.first.value(i)):
            detail = _STALE.format(name) + f": {name} is the same here, whatever the inputs are"
            yield Guess(lambda p: np.asarray(p.wrong), detail, loose=True)
            break
    held = scene.holding
    if held is not None and held not in scene.parameters and _is_kept([p.wrong for p in scene.points]):
        yield Guess(
            lambda p: np.asarray(p.wrong),
            _STALE.format(scene.name(held)) + ": it has the same value here, whatever the inputs are",
        )


def _kept(scene: Scene) -> frozenset[str]:
    """The user's variables that hold the same array at every point, though the inputs differ."""
    found = [p.sighting.others for p in scene.points]
    return frozenset(name for name in found[0] if _is_kept([others.get(name) for others in found]))


def _is_kept(values: list[Array | None]) -> bool:
    first = values[0]
    if first is None or len(values) < 2 or np.size(first) < 2 or not np.ptp(np.asarray(first, np.float64)):
        return False
    return all(v is not None and np.array_equal(v, first) for v in values[1:])


def _mutated(scene: Scene) -> Iterator[Guess]:
    held = scene.holding
    if held is not None and held not in scene.parameters and IN_PLACE.search(scene.clue.code):
        yield Guess(lambda p: np.asarray(p.wrong), f"{scene.name(held)} is changed in place, and read again later")
    yield from other_values(scene, "{} is no longer what the forward pass computed when it is read", changed=True)


IN_PLACE = re.compile(r"[-+*/@]=|\[.*\]\s*=[^=]")
"""What a line that changes an array in place has in its text."""


def other_values(scene: Scene, text: str, changed: bool) -> Iterator[Guess]:
    """What the line computes with the values that the user's variables hold, where those are not forward's.

    Args:
        scene: the line.
        text: what to say, with the name to go in.
        changed: those that were right at first and have been changed since; else those that never were right.
    """
    names = {scene.name(i): i for i in scene.named}
    parameters = {scene.name(i) for i in scene.parameters}

    def was_right(point: Point, name: str) -> bool:
        before = point.sighting.known.get(name)  # what an earlier line read
        right_then = name in names and before is not None and np.array_equal(before, point.value(names[name]))
        return right_then or "cache-changed" in scene.clue.facts

    yield from _from(
        scene,
        lambda p: {k: v for k, v in p.sighting.others.items() if k not in parameters and was_right(p, k) == changed},
        text,
    )


def _updated(scene: Scene) -> Iterator[Guess]:
    parameters = {scene.name(i) for i in scene.parameters}
    yield from _from(
        scene,
        lambda p: {k: v for k, v in {**p.sighting.others, **p.sighting.updated}.items() if k in parameters},
        _UPDATED,
    )
    held = scene.holding
    if held in scene.parameters and (_changes(scene, scene.name(held)) or all(_stepped(p, held) for p in scene.points)):
        yield Guess(lambda p: np.asarray(p.wrong), f"{scene.name(held)} is updated before the backward pass is done")
    for i in scene.read_forward():
        if i in scene.parameters and i in scene.tapes.gradients and i != scene.goal:
            step = _rate(scene, i)
            if step is not None:
                rate, gradient = step
                yield Guess(
                    lambda p, i=i, rate=rate, g=gradient: p.edited({i: p.value(i) - rate * g(p)}),
                    _UPDATED.format(scene.name(i)) + f": a step of {rate:.4g} along its gradient",
                )


_UPDATED = "it reads {} after the update has changed it"


def _changes(scene: Scene, name: str) -> bool:
    """Whether the line computes a variable from what it held before."""
    left, _, right = scene.clue.code.partition("=")
    return left.rstrip().endswith(("+", "-", "*", "/")) or name in mentions(right.lstrip("="), scene.clue.loop)


def _stepped(point: Point, parameter: int) -> bool:
    """Whether the wrong value is the parameter after a step along its gradient."""
    if point.wrong is None or point.wrong.shape != point.right.shape or parameter not in point.tapes.gradients:
        return False
    step, name = point.wrong - point.right, point.tapes.names.get(parameter, "")
    own = [v for k, v in point.sighting.known.items() if k.strip("_").lower() in (name.lower(), "d" + name.lower())]
    return any(ratio(step, np.asarray(g), 1e-6) is not None for g in (point.gradient(parameter), *own))


def _rate(scene: Scene, i: int) -> tuple[float, Value] | None:
    """The learning rate of an update of the parameter at i that would explain the wrong value; and along what."""
    name = "d" + scene.name(i)
    # The user's own gradient first: by their convention it may be another multiple of the true one than the line is.
    gradients: tuple[Value, ...] = (lambda p: p.sighting.known[name], lambda p: p.gradient(i))
    for gradient in gradients:
        try:
            found = [_rate_at(p, i, gradient(p)) for p in scene.points]
        except (KeyError, ValueError):
            continue
        rates = [rate for rate in found if rate is not None]
        if len(rates) == len(found) and max(abs(rate - rates[0]) for rate in rates) < 1e-5 * abs(rates[0]):
            return rates[0], gradient
    return None


def _rate_at(point: Point, i: int, gradient: Array) -> float | None:
    if point.wrong is None or point.wrong.shape != point.right.shape:
        return None
    return ratio(point.right - point.wrong, point.edited({i: point.value(i) + gradient}) - point.right, 1e-6)


def _rounded(scene: Scene) -> Iterator[Guess]:
    for old in _read(scene) if scene.at_loss else ():
        if scene.is_data(old) or scene.is_parameter(old) or not scene.equation(old).type.is_float:
            continue
        name = scene.name(old)
        for what, function in _ROUNDINGS.items():
            if not function(scene.first.value(old)).any():
                continue  # nothing is left of it: what stands there instead is not a prediction
            yield from exchanged(
                scene,
                old,
                lambda p, f=function, old=old: f(p.value(old)),
                f"{what} of {name} stands where {name} itself belongs: the loss is of the probabilities",
            )


def _one_hot(axis: int) -> Callable[[Array], Array]:
    def of(x: Array) -> Array:
        return (np.arange(x.shape[axis]) == np.expand_dims(x.argmax(axis), -1)).swapaxes(-1, axis) * 1.0

    return of


_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "the decision (> 0.5)": lambda x: (x > 0.5) * 1.0,
    "the rounded value": np.round,
    "the predicted class, one-hot along the last axis,": _one_hot(-1),
    "the predicted class, one-hot along the first axis,": _one_hot(0),
    "the sign": np.sign,
}


FAMILY = Family(
    "cached values",
    (
        Mistake(
            "preactivation-for-activation",
            "Z is taken from the cache instead of A, which has the same shape.",
            "The gradient as if the layer had been given Z.",
            "The weights were multiplied with the activation, so their gradient is made with it: `dW2 = dZ2 @ A1.T`.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "dW2 = dZ2 @ Z1.T"),
            _preactivation,
        ),
        Mistake(
            "other-layers-cache",
            "An index off by one: `A[l]` for `A[l-1]`, or the state of another time step.",
            "The gradient with the cached value of another layer or time step.",
            "Read the value that went into this layer in the forward pass.",
            Example(square_layers, "dW2 = A1.T @ dZ2", "dW2 = X.T @ dZ2"),
            _other_cache,
        ),
        Mistake(
            "stale-cache",
            "An object keeps its cache in an attribute, and another forward pass (of the validation data, of the "
            "next batch) has come in between; or the attribute is only set once.",
            "The right formula with the forward values of an earlier call.",
            "Return the cache from forward and pass it to backward, so that the two belong together.",
            Example(
                two_layers,
                "dW2 = dZ2 @ A1.T",
                'backward.A1 = getattr(backward, "A1", A1)  # set at the first call only\ndW2 = dZ2 @ backward.A1.T',
            ),
            _stale,
        ),
        Mistake(
            "cache-mutated",
            "An in-place operation (`A *= …`, `Z[Z < 0] = 0`, `dZ = A; dZ -= Y`) changes an array of the cache.",
            "The right formula with values that changed under it; often a second backward call differs as well.",
            "Copy before you change: `dZ = A.copy()`, or write `dZ = A - Y`.",
            Example(two_layers, "dW2 = dZ2 @ A1.T", "A1 -= A1.mean()\ndW2 = dZ2 @ A1.T"),
            _mutated,
            frozenset({"cache-changed"}),
            "an array of the cache is changed in place while the backward pass runs",
        ),
        Mistake(
            "weights-after-update",
            "The weights are updated layer by layer inside the backward pass, before the layer below has read them.",
            "The gradient of the layers below, through weights that the forward pass never used.",
            "Compute all gradients first, and update then.",
            Example(two_layers, "dA1 = W2.T @ dZ2", "W2 = W2 - 0.1 * dW2\ndA1 = W2.T @ dZ2"),
            _updated,
            frozenset({"parameters-changed"}),
            "the parameters are changed before the backward pass is done with them",
        ),
        Mistake(
            "other-layers-weights",
            "An index off by one: `W[l]` for `W[l+1]`.",
            "The downstream gradient taken back through the weights of another layer.",
            "The gradient goes back through the weights that the value went forward through.",
            Example(square_layers, "dA1 = dZ2 @ W2.T", "dA1 = dZ2 @ W3.T"),
            _other_weights,
        ),
        Mistake(
            "rounded-predictions",
            "The predictions of the accuracy (0 or 1, the class) are used in the gradient of the loss.",
            "A gradient that is 0 wherever the decision is right.",
            "Use the probabilities: `dZ = A - Y`.",
            Example(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = ((A2 > 0.5) - Y) / m"),
            _rounded,
        ),
    ),
)
