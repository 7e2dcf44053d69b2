"""A clue laid on the recorded tape: which piece of the backward pass the wrong line is to compute, and from what."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.piece import Edits, Functions, Tapes
from stepgrad.tape.equation import INPUT, LITERAL, Equation, leaves
from stepgrad.tensor import Array

TOLERANCE = 1e-7
"""Relative error up to which two float64 arrays, computed in different ways, count as equal."""


def ratio(a: Array, b: Array, tolerance: float = TOLERANCE) -> float | None:
    """r where a = r * b, or None if there is no such number."""
    if a.shape != b.shape or not a.size:
        return None
    with np.errstate(all="ignore"):
        square = float(np.vdot(b, b))
        if not square > 0 or not np.isfinite(square):
            return None
        r = float(np.vdot(b, a)) / square
        error = float(np.linalg.norm(a - r * b))
        return r if r and error <= tolerance * float(np.linalg.norm(a)) else None


def agree(a: Array, b: Array, tolerance: float = TOLERANCE, noise: float = 0.0) -> bool:
    """Same shape, and equal up to rounding; not-a-numbers agree where they stand in the same places.

    Args:
        a, b: arrays.
        tolerance: the largest relative error.
        noise: the largest absolute one (of norms): what rounding leaves of sums that are zero.
    """
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):
        finite = np.isfinite(a)
        if not finite.all():
            both = finite == np.isfinite(b)
            if not both.all() or not finite.any():
                return False
            a, b = a[finite], b[finite]
        elif not np.isfinite(b).all():
            return False
        return float(np.linalg.norm(a - b)) <= max(tolerance * float(np.linalg.norm(b)), noise)


@dataclass(frozen=True, eq=False)
class Point:
    """One sighting on its tape. What the catalogue's candidates compute their values from.

    Attributes:
        sighting: what was seen.
        tapes: the passes at this point, by position.
        right, wrong: the line's values; where it adds to a value, possibly only what it adds.
        batch: the number of examples, if any axis runs over examples.
        scale: right = scale * what the tape has, by the user's convention.
        arrange: how the user's code lays out what the tape has: `np.transpose`, a reshape, or nothing.
        target: the backward position whose value is `right`.
        inside: the backward positions that compute it from what the user knows by then.
    """

    sighting: Sighting
    tapes: Tapes
    right: Array
    wrong: Array | None
    batch: int | None
    scale: float = 1.0
    arrange: Callable[[Array], Array] | None = None
    target: int | None = None
    inside: tuple[int, ...] = ()

    def value(self, i: int) -> Array:
        """The value at a position."""
        return self.tapes.values[i]

    def gradient(self, i: int) -> Array:
        """The gradient of a forward value, by the user's convention."""
        return self.scale * self.tapes.values[self.tapes.gradients[i]]

    def edited(self, values: Edits | None = None, functions: Functions | None = None) -> Array:
        """What the line would compute if the tape were edited so."""
        assert self.target is not None
        made = self.tapes.edited(self.target, self.inside, values or {}, functions or {})
        return self.laid_out(self.scale * made)

    def laid_out(self, value: Array) -> Array:
        """A value of the target's shape on the tape, as the user's code lays it out."""
        assert self.target is not None
        return self.arrange(value) if self.arrange and value.shape == self.value(self.target).shape else value

    def count(self) -> int:
        """The number of examples; of elements where it is not known."""
        return self.batch or self.right.size


class Scene:
    """A clue on the tape. Positions (see `Tapes`) are the same at all points.

    Args:
        clue: what the judge saw; with at least one sighting.
        added: for a line that adds to its variable: look at what it adds only.
    """

    def __init__(self, clue: Clue, added: bool = False) -> None:
        self.clue, self.added = clue, added
        self.gradient = clue.gradient
        # A point at which the wrong line gives the right value says nothing; where it raises it does so everywhere.
        seen = [s for s in clue.sightings if s.wrong is not None] or clue.sightings
        points = [self._point(s) for s in seen]
        self.points = [p for p in points if p.tapes.like(points[0].tapes)]
        if not all(p.batch for p in self.points):
            lengths = batch_lengths([p.tapes for p in self.points])
            self.points = [replace(p, batch=n) for p, n in zip(self.points, lengths, strict=True)]
        self._aim()
        self.first = self.points[0]
        self.tapes = self.first.tapes
        self.target, self.inside = self.first.target, self.first.inside

    def _point(self, sighting: Sighting) -> Point:
        right = np.asarray(sighting.right, np.float64)
        wrong = None if sighting.wrong is None else np.asarray(sighting.wrong)
        if self.added:
            before = np.asarray(sighting.known[self.gradient])
            right = right - before
            wrong = None if wrong is None else wrong - before
        return Point(sighting, Tapes(sighting.truth), right, wrong, sighting.batch)

    def at(self, points: list[Point]) -> Scene:
        """The same line with other values."""
        other = copy.copy(self)
        other.points, other.first = points, points[0]
        return other

    # --- where the line is on the tape

    def _aim(self) -> None:
        if self._held() is not None:
            return
        for target in _targets(self.points[0]):
            aimed = [_aimed(p, target) for p in self.points]
            if all(aimed):
                break
        else:
            return
        first = self.points[0]
        self.boundary = self._known(first, target)
        inside, self.read = first.tapes.between(target, self.boundary)
        self.points = [replace(p, inside=tuple(inside)) for p in aimed if p]

    known_names: Mapping[int, str] = MappingProxyType({})
    boundary: frozenset[int] = frozenset()
    read: set[int] = set()  # noqa: RUF012 - a default that is never changed

    def _known(self, point: Point, target: int) -> frozenset[int]:
        """The backward positions whose values the user's earlier lines have computed: one for each."""
        tapes = point.tapes
        by_name = {"d" + name: tapes.gradients[i] for i, name in tapes.names.items() if i in tapes.gradients}
        found: dict[int, str] = {}
        for name, array in point.sighting.known.items():
            same = (
                [] if np.size(array) < 2 else [(i, r) for i, r in _multiples(tapes, np.asarray(array)) if i != target]
            )
            if same:
                # What is only scaled on the way to the target has other multiples of it: the name tells, or the factor.
                named = [i for i, _ in same if i == by_name.get(name)]
                equal = [i for i, r in same if abs(r - 1) < TOLERANCE]
                found.setdefault((named or equal or [i for i, _ in same])[0], name)
        self.known_names = found
        return frozenset(found)

    @cached_property
    def goal(self) -> int | None:
        """The forward position whose gradient the line computes."""
        wanted = self.first.sighting.target
        if wanted is not None and wanted in self.tapes.position:
            return self.tapes.position[wanted]
        return min(self.goals, key=lambda i: (i not in self.tapes.names, i), default=None)

    @cached_property
    def goals(self) -> list[int]:
        """All forward positions with this gradient: Z, and b where Z = W @ X + b has the shape of b."""
        return sorted(i for i, g in self.tapes.gradients.items() if g == self.target)

    @cached_property
    def holding(self) -> int | None:
        """The forward position whose value the line is to hold, where it computes no gradient."""
        return self._held() if self.target is None else None

    def _held(self) -> int | None:
        """A forward value that is the right one, and has the name of the line's variable."""
        first = self.points[0]
        if first.sighting.target is not None:
            return None
        tapes, bases = first.tapes, first.sighting.truth.bases
        called = [
            i
            for i, name in tapes.names.items()
            if self.gradient.removeprefix("self.") in (name, bases.get(tapes.equations[i]))
        ]
        return next((i for i in called if agree(first.right, tapes.values[i])), None)

    @cached_property
    def at_loss(self) -> bool:
        """Whether the line begins with the loss rather than with gradients that the user has computed."""
        output = self.tapes.output
        seed = None if output is None else self.tapes.gradients.get(output)
        known = self.read & self.boundary
        return not known and (self.target == seed or seed in self.read or seed in self.inside)

    # --- what is on the tape

    def equation(self, i: int) -> Equation:
        return self.tapes.equations[i]

    def of(self, i: int) -> int | None:
        """The forward position whose local rule emitted a backward equation."""
        origin = self.equation(i).of
        return None if origin is None else self.tapes.position.get(origin)

    @cached_property
    def forward(self) -> range:
        return range(self.tapes.first_backward)

    @cached_property
    def named(self) -> dict[int, str]:
        """Forward position -> name, inputs included."""
        return {i: n for i, n in self.tapes.names.items() if i < self.tapes.first_backward}

    def name(self, i: int) -> str:
        """What the user calls a forward value; if nothing, what made it."""
        return self.tapes.names.get(i) or f"the result of {self.equation(i).op.name}"

    def base(self, i: int) -> str:
        """The user's variable of a forward value, without the number of its assignment."""
        return self.first.sighting.truth.bases.get(self.equation(i), "")

    def gradient_name(self, i: int) -> str:
        """What the user calls the gradient of a forward value."""
        name = self.tapes.names.get(i)
        return f"d{name}" if name else f"the gradient of {self.name(i)}"

    def called(self, i: int) -> str:
        """What the user calls a value of either pass."""
        if i < self.tapes.first_backward:
            return self.name(i)
        if i in self.known_names:
            return self.known_names[i]
        forward = next((f for f, g in self.tapes.gradients.items() if g == i and f in self.named), None)
        return "the downstream gradient" if forward is None else self.gradient_name(forward)

    def is_parameter(self, i: int) -> bool:
        """An input none of whose axes runs over examples."""
        if i not in self.tapes.inputs:
            return False
        if not self.first.batch:  # only the name tells
            return _DATA.fullmatch(self.tapes.inputs[i]) is None
        return not all(p.batch in p.value(i).shape for p in self.points)

    @cached_property
    def parameters(self) -> list[int]:
        return [i for i in self.tapes.inputs if self.is_parameter(i)]

    def is_data(self, i: int) -> bool:
        """A leaf that is neither a parameter nor a number: data, labels, constants."""
        e = self.equation(i)
        return e.op in leaves and e.op is not LITERAL and not (e.op is INPUT and self.is_parameter(i))

    @cached_property
    def spans(self) -> list[Span]:
        """The functions between the value whose gradient the line computes and one that follows it."""
        return list(_spans(self))

    def only_from(self, start: int) -> set[int]:
        """Forward positions that are computed from `start` and from nothing else that a gradient flows to."""
        if start not in self._only:
            made = {start}
            for i in range(start + 1, self.tapes.first_backward):
                varying = [s for s in self.tapes.sources[i] if s in made or self._varies(s)]
                if varying and made.issuperset(varying):
                    made.add(i)
            self._only[start] = made - {start}
        return self._only[start]

    @cached_property
    def _only(self) -> dict[int, set[int]]:
        return {}

    def _varies(self, i: int) -> bool:
        """Whether a value counts as another variable of a function: not so labels, masks and other data."""
        return self.equation(i).active and not (self.equation(i).op is INPUT and self.is_data(i))

    def elementwise_from(self, start: int) -> set[int]:
        """Those of `only_from` whose elements each depend on the same element of `start` only."""
        made = {start}
        for i in sorted(self.only_from(start)):
            sources = [s for s in self.tapes.sources[i] if s in made or self._varies(s)]
            if self.equation(i).op.elementwise and made.issuperset(sources):
                made.add(i)
        return made - {start}

    def preactivations(self, i: int) -> list[int]:
        """Named forward values of the same shape that `i` is a function of: Z for A = relu(Z)."""
        shape = self.equation(i).type.shape
        return [
            z
            for z in self.named
            if z < i and z not in self.tapes.inputs and self.equation(z).type.shape == shape and i in self.only_from(z)
        ]

    def read_forward(self) -> list[int]:
        """The forward values that the piece reads, largest position first."""
        return sorted(
            (i for i in self.read if i < self.tapes.first_backward and self.equation(i).op is not LITERAL), reverse=True
        )

    def contributions(self) -> list[int]:
        """The gradients that the piece adds up because a value was used several times; one position for each use."""
        found = []
        for i in self.inside:
            e = self.equation(i)
            if e.operand is None and e.of is not None and e.op.name == "add":
                found += list(self.tapes.sources[i])
        sums = {i for i in self.inside if self.equation(i).operand is None and self.equation(i).op.name == "add"}
        return [i for i in dict.fromkeys(found) if i not in sums or i in self.boundary]

    # --- the user's text

    @cached_property
    def mentions(self) -> frozenset[str]:
        """The names and keys in the line, with `"A" + str(l)` worked out for the loop's l."""
        return mentions(self.clue.code, self.clue.loop)


_DATA = re.compile(r"(?i)(x|y|t)s?\d*|inputs?|outputs?|targets?|labels?|data|images?|h_?(0|prev)?")
"""What people call data, where no axis tells."""


@dataclass(frozen=True)
class Span:
    """A function that the forward pass applies: `end = f(start)`.

    Attributes:
        start, end: forward positions, of one shape.
        elementwise: each element of the end depends on the same element of the start.
        bare: the line computes f' itself, rather than the gradient of the start.
    """

    start: int
    end: int
    elementwise: bool
    bare: bool

    def derivative(self, point: Point, at: Array | None = None) -> Array:
        """f' at the start's value, or somewhere else."""
        value = point.value(self.start) if at is None else at
        return point.tapes.derivative(self.start, self.end, value)

    def arriving(self, point: Point) -> Array:
        """The downstream gradient of the function; ones where only f' is computed.

        It is the user's own where that is as right: at ties of a maximum several gradients are.
        """
        if self.bare:
            return np.full(point.right.shape, point.scale)
        name = point.tapes.names.get(self.end)
        own = None if name is None else point.sighting.known.get("d" + name)
        if self.elementwise and own is not None and own.shape == point.right.shape:
            with np.errstate(all="ignore"):
                if agree(own * self.derivative(point), point.right):
                    return own
        return point.gradient(self.end)


def batch_lengths(tapes: list[Tapes]) -> tuple[int | None, ...]:
    """The number of examples at each point, by what becomes of the axes.

    Most forward values have an axis for the examples, no product of matrices sums over it, and no parameter has it.
    """
    first = tapes[0]
    computed = [i for i in range(first.first_backward) if first.sources[i] and first.values[i].ndim]
    axes: dict[tuple[int, ...], set[int]] = {}  # lengths at the points -> the inputs that have such an axis
    for i in [*first.inputs, *computed]:
        for k, n in enumerate(first.values[i].shape):
            if n > 1:
                inputs = axes.setdefault(tuple([t.values[i].shape[k] for t in tapes]), set())
                inputs |= {i} & first.inputs.keys()

    def has(i: int, lengths: tuple[int, ...]) -> bool:
        return all(n in t.values[i].shape for n, t in zip(lengths, tapes, strict=True))

    def is_contracted(lengths: tuple[int, ...]) -> bool:
        products = [i for i in computed if first.equations[i].op.name == "matmul"]
        return any(
            all(t.values[t.sources[i][0]].shape[-1:] == (n,) for n, t in zip(lengths, tapes, strict=True))
            for i in products
        )

    likely = [
        lengths
        for lengths in axes
        if 2 * sum(has(i, lengths) for i in computed) >= len(computed) and not is_contracted(lengths)
    ]
    fewest: tuple[int | None, ...] = tuple([None for _ in tapes])
    for lengths in sorted(likely, key=lambda lengths: -len(axes[lengths])):
        fewest = lengths
    return fewest


def _spans(scene: Scene) -> Iterator[Span]:
    for goal in scene.goals:
        if scene.equation(goal).op not in leaves or goal in scene.tapes.inputs:
            yield from _spans_from(scene, goal)
    if not scene.goals:
        yield from _bare_spans(scene)


def _spans_from(scene: Scene, goal: int) -> Iterator[Span]:
    tapes, first = scene.tapes, scene.first
    if goal in tapes.gradients:
        shape = scene.equation(goal).type.shape
        elementwise = scene.elementwise_from(goal)
        ends = [e for e in scene.only_from(goal) if e in tapes.gradients and scene.equation(e).type.shape == shape]
        # The user's own names first; of the rest only the last one: what lies between is how NumPy spells it.
        ends.sort(key=lambda e: (e not in scene.named, -e))
        unnamed = 0
        for end in ends:
            unnamed += end not in scene.named
            if end not in scene.named and unnamed > 1:
                break
            if end in elementwise:
                made = tapes.derivative(goal, end, first.value(goal)) * tapes.values[tapes.gradients[end]]
                if agree(made, tapes.values[tapes.gradients[goal]], 1e-6):
                    yield Span(goal, end, True, False)
            else:
                yield Span(goal, end, False, False)


def _bare_spans(scene: Scene) -> Iterator[Span]:
    tapes, first = scene.tapes, scene.first
    for start in scene.named:
        if first.value(start).shape == first.right.shape and scene.equation(start).active:
            for end in scene.elementwise_from(start) & scene.named.keys():
                if ratio(first.right, tapes.derivative(start, end, first.value(start))) is not None:
                    yield Span(start, end, True, True)


def _multiples(tapes: Tapes, array: Array) -> Iterator[tuple[int, float]]:
    """The backward positions that an array is a multiple of, perhaps transposed; and the multiple."""
    for i in sorted(tapes.flowing):
        value = tapes.values[i]
        if value.shape != array.shape:
            value = value.T
        if value.shape == array.shape and value.dtype.kind == "f" and _quickly(array, value):
            r = ratio(array, value)
            if r is not None:
                yield i, r


def _quickly(a: Array, b: Array) -> bool:
    """False if a can't be a multiple of b, from three elements."""
    x, y = a.ravel()[[0, a.size // 2, -1]].astype(float), b.ravel()[[0, b.size // 2, -1]]
    return bool(abs(np.linalg.norm(x) * np.linalg.norm(y) - abs(x @ y)) <= 1e-6 * abs(x @ y) + 1e-300)


def _targets(point: Point) -> list[int]:
    """The backward positions whose value `right` may be, the likeliest first."""
    tapes, found = point.tapes, []
    target = point.sighting.target
    hinted = tapes.gradients.get(tapes.position.get(target, -1)) if target is not None else None
    if hinted is not None and _aimed(point, hinted):
        found.append(hinted)
    gradients = set(tapes.gradients.values())
    for i in range(tapes.first_backward, len(tapes.values)):
        value = tapes.values[i]
        if value.shape == point.right.shape and i != hinted and value.size and _quickly(point.right, value):
            r = ratio(point.right, value)
            if r is not None:
                found.append(i)
    start = 1 if hinted in found else 0
    rest = sorted(found[start:], key=lambda i: (i not in gradients, -i))
    if not found and hinted is None and point.right.ndim > 1:
        rest = [i for i in sorted(gradients) if tapes.values[i].size == point.right.size and _aimed(point, i)]
    return found[:start] + rest


def _aimed(point: Point, target: int) -> Point | None:
    """The point with its target, if `right` is a multiple of that, perhaps transposed or reshaped."""
    value = point.tapes.values[target]
    if value.size != point.right.size:
        return None
    arrangements: list[Callable[[Array], Array] | None] = [None, np.transpose, _reshape(point.right.shape)]
    if not point.right.any() and not value.any():  # a point at which nothing passes
        return replace(point, scale=point.sighting.factor, target=target) if value.shape == point.right.shape else None
    for arrange in arrangements:
        r = ratio(point.right, arrange(value) if arrange else value)
        if r is not None:
            return replace(point, scale=r, target=target, arrange=arrange)
    return None


def _reshape(shape: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda value: value.reshape(shape)


def mentions(code: str, loop: Mapping[str, Any]) -> frozenset[str]:
    """The names and text keys in a line of code.

    Args:
        code: a statement, perhaps only the beginning of one.
        loop: values of loop variables, so that keys made from them are known.

    Example:
        >>> sorted(mentions('dZ = dA * (cache["Z" + str(l)] > 0)', {"l": 2}))
        ['Z2', 'cache', 'dA', 'dZ', 'l', 'str']
    """
    text = code.strip()
    for attempt in (text, text.rstrip(":") + ":\n pass", text.rstrip(",")):
        try:
            tree = ast.parse(attempt)
            break
        except SyntaxError:
            continue
    else:
        return frozenset()
    found = set()
    inside_keys: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Subscript):
            key = _key(node.slice, loop)
            inside_keys.update(id(n) for n in ast.walk(node.slice))
            if isinstance(key, str):
                found.add(key)
            elif isinstance(key, int) and isinstance(node.value, ast.Name):
                found.add(f"{node.value.id}[{key}]")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside_keys:
            found.add(node.value)
    return frozenset(found)


def _key(node: ast.expr, loop: Mapping[str, Any]) -> Any:
    """The value of a key such as `"W" + str(l - 1)` or `f"W{l}"`; None if it is not one."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return loop.get(node.id)
    if isinstance(node, ast.JoinedStr):
        parts = [_key(v.value if isinstance(v, ast.FormattedValue) else v, loop) for v in node.values]
        return None if None in parts else "".join(map(str, parts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        inner = _key(node.args[0], loop)
        return None if inner is None else str(inner)
    if isinstance(node, ast.BinOp):
        left, right = _key(node.left, loop), _key(node.right, loop)
        try:
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
        except TypeError:
            return None
    return None
