"""Mistakes at the interface: what the backward pass takes and returns. Mostly found by comparing calls."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.comparing import agree
from stepgrad.check.backward.mentions import mentions
from stepgrad.check.backward.mistakes.cached import IN_PLACE, other_values
from stepgrad.check.backward.mistakes.mistake import Example, Family, Guess, Mistake
from stepgrad.check.backward.mistakes.networks import two_layers
from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array

_RETURN = 'return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}'


def _dtype(scene: Scene) -> Iterator[Guess]:
    if re.search(r"[Cc]annot cast|casting", scene.clue.error or ""):
        yield Guess(_refused, f"NumPy will not mix its dtype with others: {scene.clue.error}", reads=lambda code: True)
    right = scene.first.sighting.right.dtype
    kinds = {p.wrong.dtype for p in scene.points if p.wrong is not None}
    if len(kinds) == 1 and (wrong := kinds.pop()) != right:
        with np.errstate(all="ignore"):
            yield Guess(
                lambda p: p.right.astype(wrong).astype(np.float64),
                f"it is {wrong}, and {right} is right",
            )


def _refused(point: Point) -> Array:
    raise TypeError


def _disagrees(scene: Scene) -> Iterator[Guess]:
    """A line that reads the cache, and gets something else than the forward pass computed under that name."""
    text = "the cache holds something else under the name {} than forward computed"
    yield from (g for g in other_values(scene, text, False) if g.brings and _is_entry(scene.first, g.brings))
    yield from _entry_of_another(scene)
    held, code = scene.holding, scene.clue.code
    if IN_PLACE.search(code):
        return  # what the line changes was right before
    unpacked = re.match(r"[^=]*,[^=]*=", code) is not None
    if held is None or scene.first.wrong is None or not (unpacked or re.search(r"=.*(\[|\.)", code)):
        return
    names = {scene.name(held), scene.base(held), scene.gradient}
    if not unpacked and names.isdisjoint(mentions(code.partition("=")[2], scene.clue.loop)):
        return
    namesake = bool(scene.clue.loop) and any(  # the same name at another time step or layer
        i != held and scene.base(i) == scene.base(held) and agree(scene.first.wrong, scene.first.value(i))
        for i in scene.named
    )
    if not namesake:
        yield Guess(
            lambda p: np.asarray(p.wrong),
            f"the cache holds something else under this name than the {scene.name(held)} that forward computed",
        )


def _entry_of_another(scene: Scene) -> Iterator[Guess]:
    """A variable that holds an entry of the cache, and not the forward value of its own name."""
    points = scene.points
    for i, name in scene.named.items():
        repeated = any(j != i and scene.base(j) == scene.base(i) for j in scene.named)
        if not repeated and i not in scene.parameters and all(_holds_another_entry(p, i, name) for p in points):
            yield Guess(
                lambda p: np.asarray(p.wrong),
                f"{name} is read from the cache, and is not the {name} that forward computed",
                loose=True,
            )
            return


def _holds_another_entry(point: Point, i: int, name: str) -> bool:
    right, value = point.value(i), point.sighting.others.get(name)
    if point.wrong is None or value is None or value.size < 2 or value.shape != right.shape or agree(value, right):
        return False
    return any(True for _ in _entries(point)) and _is_entry(point, name)


def _entries(point: Point) -> Iterator[Array]:
    """The arrays in the user's containers."""
    return (value for key, value in point.sighting.others.items() if "[" in key)


def _is_entry(point: Point, name: str) -> bool:
    """Whether a variable holds what a container holds, rather than something that was computed since."""
    value, entries = point.sighting.others[name], list(_entries(point))
    return not entries or any(e.shape == value.shape and np.array_equal(e, value) for e in entries)


FAMILY = Family(
    "interface",
    (
        Mistake(
            "gradient-missing",
            "An input or parameter was left out of what backward returns.",
            "No gradient; the optimizer leaves the parameter as it is.",
            "Return the gradient of every floating-point input that the loss depends on.",
            Example(
                two_layers,
                _RETURN,
                'return {"W1": dW1, "b1": db1, "W2": dW2}',
                facts=frozenset({"missing"}),
            ),
            facts=frozenset({"missing"}),
            sentence="the loss depends on it, and backward returns no gradient of it",
        ),
        Mistake(
            "gradient-extra",
            "A gradient is returned under a name that is no input, often a misspelt one; or one too many in a tuple.",
            "Something that nothing will use.",
            "Use the names of the inputs, or their order.",
            Example(
                two_layers,
                _RETURN,
                'return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2, "w2": dW2}',
                facts=frozenset({"extra"}),
            ),
            facts=frozenset({"extra"}),
            sentence="backward returns a gradient under this name, and no input has it",
        ),
        Mistake(
            "wrong-dtype",
            "A buffer such as `np.zeros_like` of integers, or a cast, decides the dtype of the gradient.",
            "The gradient rounded to another dtype; to integers it is cut off.",
            "Make buffers with the dtype of the parameter.",
            Example(
                two_layers,
                "dW2 = dZ2 @ A1.T",
                "dW2 = (dZ2 @ A1.T).astype(np.float32)",
                facts=frozenset({"wrong-dtype"}),
            ),
            _dtype,
            facts=frozenset({"wrong-dtype"}),
            sentence="it has another dtype than the value that it is the gradient of",
        ),
        Mistake(
            "not-deterministic",
            "The backward pass draws random numbers, or depends on state that is left over from earlier calls.",
            "Another gradient at each call with the same cache.",
            "Draw random numbers in the forward pass, and cache them.",
            Example(
                two_layers,
                "dZ1 = dA1 * (1 - A1**2)",
                "dZ1 = dA1 * (1 - A1**2) + np.random.default_rng().normal()",
                facts=frozenset({"differs-between-calls"}),
            ),
            facts=frozenset({"differs-between-calls"}),
            sentence="two calls with the same cache give different gradients",
        ),
        Mistake(
            "forward-disagrees-with-cache",
            "The forward pass puts something else into the cache than it went on computing with: a value before it "
            "was normalised, the entries in another order.",
            "The gradient of another function.",
            "Cache the values that the forward pass used, under the names by which backward reads them.",
            Example(
                two_layers,
                "return loss, (X, Y, W1, W2, Z1, A1, Z2, A2)",
                "return loss, (X, Y, W1, W2, A1, Z1, Z2, A2)",
                facts=frozenset({"cache-disagrees"}),
            ),
            candidates=_disagrees,
            facts=frozenset({"cache-disagrees"}),
            sentence="the cache holds something else under this name than the forward pass computed",
        ),
    ),
)
