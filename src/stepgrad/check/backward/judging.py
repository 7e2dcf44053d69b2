"""Finding the line: which of the user's values is the first wrong one, and what it should have been.

Each line is judged given what the lines before it computed. A line is to blame if, with the right value in
its place, the rest of the user's own code gives right gradients; or more of them, where several are wrong.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.check.backward.agreement import wrong_gradients
from stepgrad.check.backward.calling import forward_name
from stepgrad.check.backward.explaining import Explanation, Index, Known, close
from stepgrad.check.backward.running import Key, Run, Runner, Seen, Spot
from stepgrad.check.backward.sources import Edit, Site
from stepgrad.tensor import Array

Values = dict[tuple[Key, int], Array]
"""Values to exchange at one point."""

RIGHT, SCALED, PART, OTHER, WRONG = "right", "scaled", "part", "other", "wrong"
"""What a value is: right; a multiple of the right one; a part of a gradient; something known that its name does not
say; nothing that is known."""


@dataclass(frozen=True, eq=False)
class Blame:
    """A line that is wrong.

    Attributes:
        key, site: which.
        name: what the user calls the value.
        seen: the wrong values at each point, in order.
        right: the right ones, for the same.
        targets: the known value that each should be; None where it is none.
        enough: with the right values all gradients are right.
        mends: all those are that depend on the line.
    """

    key: Key
    site: Site
    name: str
    seen: tuple[tuple[Seen, ...], ...]
    right: tuple[tuple[Array, ...], ...]
    targets: tuple[tuple[Known | None, ...], ...]
    enough: bool
    mends: bool

    def plan(self, number: int) -> Values:
        """The right values at a point, to be put in place of the wrong ones."""
        return {(self.key, s.count): v for s, v in zip(self.seen[number], self.right[number], strict=True)}


@dataclass
class Judge:
    """Looks for wrong lines.

    Attributes:
        runner: runs the backward.
        spots: points to search at; the first has the user's own shapes.
        tolerance: the largest relative error of a right gradient.
        deadline: when to stop trying (time.thread_time()).
        first: sites to be looked at before all others.
        earlier: where the forward ran first: what it keeps from there may be in use.
    """

    runner: Runner
    spots: Sequence[Spot]
    tolerance: float
    deadline: float
    first: frozenset[Key] = frozenset()
    earlier: Spot | None = None
    plans: list[Values] = field(default_factory=list)
    edits: tuple[Edit, ...] = ()
    _known: dict[Any, str] = field(default_factory=dict)
    _factors: dict[int, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.indices = [Index(spot) for spot in self.spots]
        self.plans = self.plans or [{} for _ in self.spots]
        self._until = self.deadline
        self._returned = set(self.run(0).gradients)

    def run(
        self, number: int, more: Values | None = None, edits: tuple[Edit, ...] = (), scope_at: Key | None = None
    ) -> Run:
        """Runs at a point, with what was exchanged so far and more."""
        plan = {**self.plans[number], **(more or {})}
        return self.runner.run(self.spots[number], plan, (*self.edits, *edits), scope_at=scope_at)

    def wrong(self, run: Run, number: int) -> set[str]:
        """The inputs whose gradient is wrong, or missing where it was there before."""
        return wrong_gradients(run, self.spots[number], self.tolerance)

    # --- classes of values

    def classes(self, run: Run, number: int) -> list[str]:
        """What each seen value is."""
        index = self.indices[number]
        following: dict[str, Seen] = {}
        pending = []
        for seen in reversed(run.seen):  # a value that is still being put together, or a zero to begin with
            later = following.get(seen.name)
            changed = later is not None and (later.whole or seen.name in self.runner.sites[later.key].reads)
            pending.append(changed or (later is not None and not seen.value.any()))
            following[seen.name] = seen
        return [
            self._unfinished(seen, index) if unfinished else self._class(seen, index)
            for seen, unfinished in zip(run.seen, reversed(pending), strict=True)
        ]

    def _unfinished(self, seen: Seen, index: Index) -> str:
        """What a value is that later lines add to or change in part: all that is known may be right."""
        known = seen.whole or not seen.value.any() or index.explain(seen.value)
        return RIGHT if known else self._class(seen, index)

    def _class(self, seen: Seen, index: Index) -> str:
        key = (id(index), seen.name, seen.value.shape, seen.value.tobytes())
        if key not in self._known:
            self._known[key] = self._found_class(seen, index)
        return self._known[key]

    def _found_class(self, seen: Seen, index: Index) -> str:
        if seen.value.size and not seen.value.any():
            return RIGHT if not index.named(seen.name) else self._named(seen, index, [])
        if seen.value.ndim == 0 and not _is_gradient(seen, index):
            return RIGHT
        found = index.explain(seen.value)
        if index.named(seen.name):
            return self._named(seen, index, found)
        forward = index.forward_named(seen.name)
        if forward:
            return RIGHT if any(_same(seen.value, known.value) for known in forward) else OTHER
        if not found:
            return WRONG
        if found[0].factor == 1.0:
            return RIGHT
        return SCALED

    def _named(self, seen: Seen, index: Index, found: list[Explanation]) -> str:
        wanted = index.named(seen.name)
        numbers = {known.number for known in wanted}
        for known in wanted:
            if _same(seen.value, known.value):
                return RIGHT
        for explanation in found:
            if explanation.known.kind == "gradient" and explanation.known.number in numbers:
                return SCALED
        equations = {known.equation for known in wanted if known.equation is not None}
        if any(e.known.kind == "part" and e.known.equation in equations for e in found):
            return PART
        return WRONG

    # --- blame

    def next(self, *, repeated: bool, seconds: float) -> Blame | None:
        """The next line to blame; None if the gradients are right, or nothing can be found.

        Args:
            repeated: also look at lines that run several times for values without a name of their own, for which
                many values have to be tried, and at lines that can explain only a part of what is wrong.
            seconds: how long to look.
        """
        self._until = min(self.deadline, time.thread_time() + seconds)
        runs = [self.run(i) for i in range(len(self.spots))]
        wrongs = [self.wrong(run, i) for i, run in enumerate(runs)]
        if not any(wrongs):
            return None
        if runs[0].error is not None:
            return self._of_error(runs)
        best: Blame | None = None
        best_gain = 0
        suspects = self.suspects(runs[0], wrongs[0])
        for suspect in suspects:
            if time.thread_time() > self._until:
                break
            if not repeated and (suspect.repeated or suspect.fit > 1):
                continue
            blame = self._with_right_values(suspect, runs)
            if blame is None:
                continue
            if blame.enough or (blame.mends and suspect.fit < _HIDDEN):
                return blame
            gain = self._gain(blame, wrongs, runs) if suspect.fit < _HIDDEN else 0
            if gain > best_gain:
                best, best_gain = blame, gain
        return best

    def _of_error(self, runs: list[Run]) -> Blame | None:
        """Where the backward raised: a value before that has a wrong shape or is wrong, or the line that raised."""
        classes = self.classes(runs[0], 0)
        named = [
            s.key for s, c in zip(runs[0].seen, classes, strict=True) if c == WRONG and self.indices[0].named(s.name)
        ]
        for key in dict.fromkeys(named):
            blame = self._with_right_values(Suspect(key, frozenset(), 0, 0, 0), runs)
            if blame is not None and self.run(0, blame.plan(0)).error is None:
                return blame
        at = self.at_error(runs[0])
        if not at:
            return None
        site = self.runner.sites[at[-1]]
        none = tuple(() for _ in self.spots)
        return Blame(at[-1], site, site.names[0] if site.names else "", none, none, none, False, False)

    def at_error(self, run: Run) -> list[Key]:
        """The sites of the line that raised."""
        line = run.error_line
        return [k for k, s in self.runner.sites.items() if line and s.span[0] <= line <= s.span[2]]

    def suspects(self, run: Run, wrong: set[str]) -> list[Suspect]:
        """Sites that may be wrong, the likeliest first.

        A wrong value makes wrong what depends on it. So where one line is to blame, it is one on which
        all wrong gradients depend and no right one; where there are several, one on which only wrong ones do.
        """
        ranked: dict[Key, tuple[int, int]] = {}
        for i, (seen, kind) in enumerate(zip(run.seen, self.classes(run, 0), strict=True)):
            if kind == RIGHT and (not seen.value.any() or seen.value.ndim == 0 or self.indices[0].named(seen.name)):
                continue
            if seen.key in self.first and kind != RIGHT:
                kind = WRONG
            standing = _RANKS[kind], i
            ranked[seen.key] = min(standing, ranked.get(seen.key, standing))
        found = []
        for key, (rank, order) in ranked.items():
            influence = self.influence(key, run)
            if not influence:
                continue
            fit = -1 if key in self.first else 0 if influence == wrong else 2 if influence <= wrong else 3
            if rank == _RANKS[RIGHT]:  # right as some gradient, which need not be the one that its readers need
                if fit:
                    continue
                fit = _HIDDEN if len(wrong) == 1 else 1
            mine = [s for s in run.seen if s.key == key]
            many = len(mine) > 1 and not mine[0].whole and len(self.indices[0].named(mine[0].name)) != 1
            found.append(Suspect(key, influence, fit, rank, order, many))
        return sorted(found, key=lambda s: (s.fit, s.rank, s.order))

    def influence(self, key: Key, run: Run) -> frozenset[str]:
        """The inputs whose gradients depend on what a site computes; all where that can't be seen."""
        if run.error is not None:
            return frozenset(self.spots[0].right)
        other = self.runner.run(self.spots[0], self.plans[0], self.edits, disturbed=key)
        if other.error is not None:
            return frozenset(run.gradients)
        return frozenset(
            name
            for name in self.spots[0].right
            if name in run.gradients
            and name in other.gradients
            and not np.array_equal(run.gradients[name], other.gradients[name])
        )

    def _with_right_values(self, suspect: Suspect, runs: list[Run]) -> Blame | None:
        """The site with right values in place of wrong ones, if right ones can be found."""
        key, influence = suspect.key, suspect.influence
        found = [self._right_values(suspect, i, run) for i, run in enumerate(runs)]
        if not found[0]:
            return None
        plans: list[Values] = [{(key, s.count): v for s, v, _ in part} for part in found]
        left = [self.wrong(self.run(i, plan), i) for i, plan in enumerate(plans)]
        enough = not any(left)
        mends = all(influence.isdisjoint(wrong) for wrong in left)
        return Blame(
            key,
            self.runner.sites[key],
            found[0][0][0].name,
            tuple(tuple(s for s, _, _ in part) for part in found),
            tuple(tuple(v for _, v, _ in part) for part in found),
            tuple(tuple(k for _, _, k in part) for part in found),
            enough,
            mends,
        )

    def _right_values(self, suspect: Suspect, number: int, run: Run) -> list[tuple[Seen, Array, Known | None]]:
        """(what is wrong, its right value, the known value it is) for one site at one point."""
        chosen: list[tuple[Seen, Array, Known | None]] = []
        key, every = suspect.key, suspect.rank == _RANKS[RIGHT]
        plan: Values = {}
        until = min(self._until, time.thread_time() + _SECONDS_A_LINE)
        tried: set[int] = set()
        current = run
        for _ in range(_MOST_OCCURRENCES):
            if time.thread_time() > until:
                return []
            classes = self.classes(current, number)
            wrong = [
                s
                for s, c in zip(current.seen, classes, strict=True)
                if s.key == key and (every or c != RIGHT) and s.count not in tried
            ]
            if not wrong:
                break
            seen = wrong[0]
            tried.add(seen.count)
            candidates = self._candidates(seen, number, current)
            if len(candidates) > 1 or every:
                candidates = self._best_of(candidates, seen, number, plan, until)
            if candidates:
                value, known = candidates[0]
                plan[key, seen.count] = value
                chosen.append((seen, value, known))
                current = self.run(number, plan)
        return chosen

    def _candidates(self, seen: Seen, number: int, run: Run) -> list[tuple[Array, Known | None]]:
        index = self.indices[number]
        named = index.named(seen.name) or index.forward_named(seen.name)
        factors = self._conventions(number)
        pool = named or [k for k in index.known if k.kind == "gradient" and k.value.shape == seen.value.shape]
        found: list[tuple[Array, Known | None]] = []
        for known in pool[:_MOST_CANDIDATES]:
            for factor in factors:
                value = known.value * factor
                if not _same(seen.value, value):
                    found.append((value, known))
                before = self._before_more(seen, value, number, run) if named else None
                if before is not None:
                    found.append((before, None))
        return found

    def _before_more(self, seen: Seen, wanted: Array, number: int, run: Run) -> Array | None:
        """What a value has to be so that later lines, which add to it or scale it, make of it what is wanted."""
        last = next((s for s in reversed(run.seen) if s.name == seen.name), seen)
        if last is seen or last.value.shape != seen.value.shape or wanted.shape != seen.value.shape:
            return None
        other = self.run(number, {(seen.key, seen.count): seen.value + 1.0})
        after = next((s for s in reversed(other.seen) if s.name == seen.name), None)
        if after is None or after.value.shape != last.value.shape:
            return None
        slope = after.value - last.value.astype(np.float64)
        with np.errstate(all="ignore"):
            step = np.where(slope == 0, 0.0, (wanted - last.value) / slope)
        return np.asarray(seen.value + step) if np.isfinite(step).all() else None

    def _best_of(
        self, candidates: list[tuple[Array, Known | None]], seen: Seen, number: int, plan: Values, until: float
    ) -> list[tuple[Array, Known | None]]:
        """The candidate after which most is right, if that is more than before."""
        before = self._score(self.run(number, plan), number)
        scored = []
        for value, known in candidates:
            run = self.run(number, {**plan, (seen.key, seen.count): value})
            scored.append((self._score(run, number), value, known))
            if time.thread_time() > until:
                return []
        best = max((s for s, _, _ in scored), default=before)
        if best <= before:
            return []
        return [(v, k) for s, v, k in scored if s == best][:1]

    def _score(self, run: Run, number: int) -> tuple[int, int]:
        right = len(self.spots[number].right) - len(self.wrong(run, number))
        return right, sum(c == RIGHT for c in self.classes(run, number))

    def _gain(self, blame: Blame, wrongs: list[set[str]], runs: list[Run]) -> int:
        after = self.run(0, blame.plan(0))
        gained = len(wrongs[0]) - len(self.wrong(after, 0))
        return (
            1000 * gained
            + sum(c == RIGHT for c in self.classes(after, 0))
            - sum(c == RIGHT for c in self.classes(runs[0], 0))
        )

    def _conventions(self, number: int) -> list[float]:
        """By what the user's gradients are multiplied with, as far as their names tell; 1 first."""
        if number in self._factors:
            return self._factors[number]
        found: dict[float, int] = {}
        index = self.indices[number]
        for seen in self.run(number).seen:
            numbers = {k.number for k in index.named(seen.name)}
            if not numbers:
                continue
            for e in index.explain(seen.value):
                if e.known.kind == "gradient" and e.known.number in numbers and e.factor != 1.0:
                    found[e.factor] = found.get(e.factor, 0) + 1
                    break
        usual = sorted(found, key=lambda f: -found[f])[:2] or self._lengths(number)
        self._factors[number] = [1.0, *usual]
        return self._factors[number]

    def _lengths(self, number: int) -> list[float]:
        """What a mean may have been taken over: the lengths of axes of inputs without a gradient."""
        spot = self.spots[number]
        data = [v for n, v in spot.inputs.items() if n not in self._returned] or list(spot.inputs.values())
        return [float(n) for n in sorted({n for v in data for n in v.shape if n > 1})][:3]


def _is_gradient(seen: Seen, index: Index) -> bool:
    """Whether a single number is a gradient, by its name; otherwise it is a size or a setting."""
    return bool(index.named(seen.name)) or (seen.value.dtype.kind == "f" and len(forward_name(seen.name)) > 1)


@dataclass(frozen=True)
class Suspect:
    """A site that may be wrong.

    Attributes:
        key: which.
        influence: the inputs whose gradients depend on it.
        fit: how well that goes with the gradients that are wrong; 0 is best.
        rank: what its value is; 0 is nothing that is known.
        order: when it ran first.
        repeated: it runs several times, for values without a name of their own.
    """

    key: Key
    influence: frozenset[str]
    fit: int
    rank: int
    order: int
    repeated: bool = False


_HIDDEN = 4
_RANKS = {WRONG: 0, PART: 0, OTHER: 1, SCALED: 2, RIGHT: 3}
_SECONDS_A_LINE = 0.12
_MOST_OCCURRENCES = 24
_MOST_CANDIDATES = 24


def _same(value: Array, known: Array) -> bool:
    return value.shape == known.shape and close(value, known)
