"""Which known mistakes would have produced the wrong value of a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepgrad.check.backward.aiming import Point
from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.comparing import agree, ratio
from stepgrad.check.backward.mistakes import CATALOGUE, RANK, Guess, Mistake
from stepgrad.check.backward.mistakes.scale import FAMILY as SCALES
from stepgrad.check.backward.naming import gradient_roots
from stepgrad.check.backward.scene import Scene
from stepgrad.check.backward.structure import differences, structure
from stepgrad.tensor import Array

UNKNOWN = "unknown"
"""The name for what matches nothing."""


@dataclass(frozen=True)
class Match:
    """A mistake that explains a wrong line.

    Attributes:
        mistake: its name in the catalogue, or "unknown".
        detail: what was found, in the user's names.
        fix: a line of code that is right, where one can be written.
        advice: what to do about it, in general.
        evidence: numbers: how far the wrong value is from the right one and from what the mistake gives.
        also: a second mistake that is needed as well to explain the value.
    """

    mistake: str
    detail: str
    fix: str | None = None
    advice: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    also: str | None = None


def match(clue: Clue, strict: bool = False) -> list[Match]:
    """The mistakes that explain a clue, likeliest first.

    A mistake explains it if it would have given the wrong value at every point (relative error below
    1e-7), or if a fact shows it. Pairs, such as a transpose and its mean, are tried where nothing else does.
    What nothing explains is "unknown", with what can be said of its structure as evidence.

    Args:
        clue: the wrong line.
        strict: an entry of the catalogue that fails on this clue raises. Otherwise the entry is passed over: the
            line is known to be wrong all the same, and the other entries may name it.

    Returns:
        At least one match; each mistake once.
    """
    if clue.error and (cause := _earlier_cause(clue)):
        return match(cause, strict)
    by_fact = [_by_fact(clue, m) for m in CATALOGUE.values() if m.facts & clue.facts]
    scenes = _scenes(clue)
    if scenes and all(p.wrong is not None and agree(p.wrong, p.right, 1e-14) for p in scenes[0].points):
        return by_fact or [Match(UNKNOWN, "its value is right", evidence=differences(scenes[0]))]
    by_value: list[_Explained] = []
    near: list[_Explained] = []
    for scene in scenes:
        by_value += _search(scene, near, strict)
        if by_value:
            break
    by_value.sort(key=lambda e: (e.guess.loose, e.contradicted, RANK[e.mistake.name]))
    found = by_fact + [e.match for e in by_value]
    found = found or list(itertools.chain.from_iterable(map(_one_term, scenes))) or list(_pairs(near))
    if not found:
        detail, evidence = structure(scenes[0]) if scenes else ("there is no value to look at", {})
        return [Match(UNKNOWN, detail, evidence=evidence)]
    unique: dict[str, Match] = {}
    for each in found:
        unique.setdefault(each.mistake, each)
    return list(unique.values())


def _earlier_cause(clue: Clue) -> Clue | None:
    """For a line that raised: an earlier gradient with another shape than what it is the gradient of."""
    for name in clue.sightings[0].known if clue.sightings else ():
        sightings = [_about(s, name) for s in clue.sightings]
        found = [s for s in sightings if s is not None]
        if len(found) == len(sightings):
            return replace(clue, gradient=name, sightings=tuple(found), code="", error=None)
    return None


def _about(sighting: Sighting, name: str) -> Sighting | None:
    """An earlier value as a sighting of its own, if its shape shows that it is wrong."""
    value, truth = sighting.known[name], sighting.truth
    roots = {root for root in gradient_roots(name) if root != name}
    for equation, forward in truth.bases.items():
        if forward in roots and equation in truth.gradients and np.ndim(value) == len(equation.type.shape):
            right = np.asarray(truth.gradients[equation].equation.value)
            if np.shape(value) == right.shape or np.size(value) < 2:
                return None
            return replace(sighting, right=right, wrong=np.asarray(value), target=equation, factor=1.0)
    return None


def _scenes(clue: Clue) -> list[Scene]:
    """The line as it is; for a line that adds to its variable, what it adds; for one that others add to, the sum."""
    if not clue.sightings:
        return []
    scenes = [Scene(clue)]
    if all(_adds(clue, s) for s in clue.sightings):
        scenes.append(Scene(clue, added=True))
    finished = [_finished(clue, s) for s in clue.sightings]
    if None not in finished:
        scenes.append(Scene(replace(clue, sightings=tuple(s for s in finished if s is not None))))
    return scenes


def _finished(clue: Clue, sighting: Sighting) -> Sighting | None:
    """A value that is no gradient yet, as the gradient that it is once later lines have changed it."""
    wrong, right, truth = sighting.wrong, sighting.right, sighting.truth
    if sighting.target is not None or wrong is None or np.shape(wrong) != np.shape(right):
        return None
    roots = gradient_roots(clue.gradient)
    for equation, name in truth.names.items():
        called = name in roots or truth.bases.get(equation) in roots
        if called and equation in truth.gradients and equation.type.shape == np.shape(right):
            whole = np.asarray(truth.gradients[equation].equation.value)
            return replace(sighting, right=whole, wrong=whole + (wrong - right), target=equation, factor=1.0)
    return None


def _adds(clue: Clue, sighting: Sighting) -> bool:
    before = sighting.known.get(clue.gradient)
    if before is None or sighting.wrong is None or np.shape(before) != np.shape(sighting.right):
        return False
    return np.shape(sighting.wrong) == np.shape(before) and not np.array_equal(before, sighting.wrong)


def _by_fact(clue: Clue, mistake: Mistake) -> Match:
    facts = sorted(mistake.facts & clue.facts)
    return Match(mistake.name, mistake.sentence, advice=mistake.fix, evidence={"facts": facts})


@dataclass(frozen=True)
class _Explained:
    """A guess that gives the wrong value; or a multiple of it, or its transpose."""

    mistake: Mistake
    guess: Guess
    scene: Scene
    transposed: bool = False

    @property
    def contradicted(self) -> bool:
        """Whether the line reads nothing by the name that the mistake brings in."""
        brings, mentioned = self.guess.brings, self.scene.mentions
        return bool(brings and mentioned and brings not in mentioned)

    @property
    def match(self) -> Match:
        evidence = {"points": len(self.scene.points), **differences(self.scene)}
        return Match(self.mistake.name, self.guess.detail, self.guess.fix, self.mistake.fix, evidence)


def _guesses(mistake: Mistake, scene: Scene, strict: bool) -> Iterator[Guess]:
    """The guesses of an entry, as far as it gets."""
    try:
        yield from mistake.candidates(scene)
    except Exception:
        if strict:
            raise


def _search(scene: Scene, near: list[_Explained], strict: bool) -> Iterator[_Explained]:
    """The guesses that explain the line. Those that nearly do are put into `near`."""
    first, rest = scene.points[0], scene.points[1:]
    with np.errstate(all="ignore"):
        for mistake in CATALOGUE.values():
            for guess in _guesses(mistake, scene, strict):
                value = _computed(guess, first)
                if first.wrong is None or value is None:
                    if first.wrong is value and _reads_so(scene, guess) and not any(_computed(guess, p) for p in rest):
                        yield _Explained(mistake, guess, scene)
                        break
                elif _agrees(first, value):
                    if all(_agrees(p, _computed(guess, p)) for p in rest):
                        yield _Explained(mistake, guess, scene)
                        break
                elif mistake not in SCALES.mistakes:
                    if ratio(first.wrong, value) is not None:
                        near.append(_Explained(mistake, guess, scene))
                    elif value.ndim == 2 and ratio(first.wrong, value.T) is not None:
                        near.append(_Explained(mistake, guess, scene, transposed=True))


def _computed(guess: Guess, point: Point) -> Array | None:
    """The guess's value; None where NumPy refuses the shapes."""
    try:
        return guess.value(point)
    except (ValueError, TypeError, IndexError, KeyError):
        return None


def _agrees(point: Point, value: Array | None) -> bool:
    if value is None or point.wrong is None:
        return False
    with np.errstate(all="ignore"):
        noise = 1e-12 * float(np.nan_to_num(np.linalg.norm(point.right)))
    return agree(point.wrong, value, noise=noise)


def _reads_so(scene: Scene, guess: Guess) -> bool:
    """For a line that raised: whether its text looks like the mistake."""
    if guess.reads is not None:
        return guess.reads(scene.clue.code)
    return guess.brings in scene.mentions and guess.replaces not in scene.mentions


def _pairs(near: list[_Explained]) -> Iterator[Match]:
    """Two mistakes at once: one that gives a multiple of the wrong value, and what the factor is."""
    found: list[tuple[int, Match]] = []
    for each in near:
        values = [_computed(each.guess, p) for p in each.scene.points]
        turned = [v.T if v is not None and each.transposed else v for v in values]
        pairs = list(zip(each.scene.points, turned, strict=True))
        factors = [ratio(p.wrong, v) if p.wrong is not None and v is not None else None for p, v in pairs]
        if None in factors:
            continue
        whole = [f for f in factors if f is not None]
        scaled = _scale_mistake(each.scene, whole)
        second = "transposed" if each.transposed else scaled
        if second is None or second == each.mistake.name or (each.transposed and scaled is None and not _unit(whole)):
            continue
        detail = f"{each.guess.detail}; and besides that: {second}"
        evidence = {"points": len(whole), "factors": whole, **differences(each.scene)}
        match = Match(each.mistake.name, detail, None, each.mistake.fix, evidence, also=second)
        found.append((RANK[each.mistake.name], match))
    found.sort(key=lambda pair: pair[0])
    matches = [m for _, m in found[:_MOST_PAIRS]]
    for first in matches[:1]:
        other = CATALOGUE[first.also or ""]
        turned_around = Match(other.name, first.detail, None, other.fix, first.evidence, also=first.mistake)
        surer = RANK[other.name] < RANK[first.mistake] and other.name != _ANY_NUMBER
        matches.insert(0 if surer else len(matches), turned_around)
    yield from matches


def _one_term(scene: Scene) -> Iterator[Match]:
    """A mistake of scale in one term of a sum: one path's contribution, or a regulariser's."""
    first = scene.first
    if scene.target is None or first.wrong is None or first.wrong.shape != first.right.shape:
        return
    for i in scene.contributions():
        factors = []
        for p in scene.points:
            if p.wrong is None or p.wrong.shape != p.right.shape:
                return
            term = p.right - p.edited({i: np.zeros_like(p.value(i))})
            extra = ratio(p.wrong - p.right, term, 1e-6)
            factors.append(1 + extra if extra is not None else None)
        whole = [f for f in factors if f is not None]
        name = _scale_mistake(scene, whole) if len(whole) == len(factors) else None
        if name:
            of = scene.of(i)
            term_of = f"the path through {scene.name(of)}" if of is not None else "one path"
            detail = f"one term of the sum, of {term_of}, is {whole[0]:.6g} times what it should be"
            evidence = {"points": len(whole), "factors": whole, **differences(scene)}
            yield Match(name, detail, None, CATALOGUE[name].fix, evidence)


_MOST_PAIRS = 3
_ANY_NUMBER = "constant-factor"
"""What explains any factor at all, and so is the lesser half of a pair."""


def _unit(factors: list[float]) -> bool:
    return all(abs(f - 1) < 1e-6 for f in factors)


def _scale_mistake(scene: Scene, factors: list[float]) -> str | None:
    """The mistake of scale that multiplies with these numbers."""
    points = [
        replace(p, wrong=p.right * f) for p, f in zip(scene.points, factors, strict=True)
    ]  # as if only the factor were wrong
    scaled = scene.at(points)
    explained = [e.mistake.name for m in SCALES.mistakes for e in _first(scaled, m)]
    return min(explained, key=RANK.__getitem__, default=None)


def _first(scene: Scene, mistake: Mistake) -> Iterator[_Explained]:
    for guess in mistake.candidates(scene):
        if all(_agrees(p, _computed(guess, p)) for p in scene.points):
            yield _Explained(mistake, guess, scene)
            return
