"""A clue laid on the recorded tape: which piece of the backward pass the wrong line is to compute, and from what."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from stepgrad.check.backward.aiming import Point, aimed_at, batch_lengths, multiples, one_convention, targets
from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.comparing import TOLERANCE, agree
from stepgrad.check.backward.mentions import mentions
from stepgrad.check.backward.piece import Tapes
from stepgrad.check.backward.spans import Span, spans_of
from stepgrad.tape.equation import INPUT, LITERAL, Equation, leaves


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
        self.points = _about_one_value([p for p in points if p.tapes.like(points[0].tapes)])
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
        for target in targets(self.points[0]):
            aimed = [aimed_at(p, target) for p in self.points]
            if all(aimed):
                break
        else:
            return
        first = self.points[0]
        self.boundary = self._known(first, target)
        inside, self.read = first.tapes.between(target, self.boundary)
        self.points = one_convention([replace(p, inside=tuple(inside)) for p in aimed if p])

    known_names: Mapping[int, str] = MappingProxyType({})
    boundary: frozenset[int] = frozenset()
    read: set[int] = set()  # noqa: RUF012 - a default that is never changed

    def _known(self, point: Point, target: int) -> frozenset[int]:
        """The backward positions whose values the user's earlier lines have computed: one for each."""
        tapes = point.tapes
        by_name = {"d" + name: tapes.gradients[i] for i, name in tapes.names.items() if i in tapes.gradients}
        found: dict[int, str] = {}
        for name, array in point.sighting.known.items():
            same = [] if np.size(array) < 2 else [(i, r) for i, r in multiples(tapes, np.asarray(array)) if i != target]
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
        return list(spans_of(self))

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


def _about_one_value(points: list[Point]) -> list[Point]:
    """Those at which the line was taken to compute the gradient of the same forward value: of the most usual one."""
    hints = [p.tapes.position.get(p.sighting.target, -1) if p.sighting.target else -1 for p in points]
    usual = max(hints, key=hints.count)
    return [p for p, hint in zip(points, hints, strict=True) if hint == usual]


_DATA = re.compile(r"(?i)(x|y|t)s?\d*|inputs?|outputs?|targets?|labels?|data|images?|h_?(0|prev)?")
"""What people call data, where no axis tells."""
