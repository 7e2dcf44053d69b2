"""Running a user's backward at a point, with every assigned value seen and, where asked, exchanged."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import FrameType, FunctionType
from typing import Any

import numpy as np

from stepgrad.check.backward.calling import Context, copied, forward_name
from stepgrad.check.backward.naming import is_gradient_container
from stepgrad.check.backward.seeds import BACKWARD_SEED
from stepgrad.check.backward.sources import Edit, Site
from stepgrad.check.backward.subject import Subject
from stepgrad.check.backward.truth import IN_PLACE, Truth
from stepgrad.check.backward.watching import Watched, watched, watching
from stepgrad.errors import ArgumentError
from stepgrad.tensor import Array

Key = tuple[str, int, int]
"""Which site: the function's qualified name and first line, and the number of the site in it."""

Plan = Mapping[tuple[Key, int], Array]
"""Values to exchange: (site, how often it had run before) -> the value that it gets."""

_MOST_SEEN = 40
"""A statement that runs more often than this is remembered by its first and its latest values."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A value that a line of the user's computed.

    Attributes:
        key, count: which site, and how often it had run before.
        name: what the user calls it, as in dW2.
        value: a copy.
        whole: it is a whole array of which the line changed a part.
        cached: that array belongs to what the forward pass returned.
    """

    key: Key
    count: int
    name: str
    value: Array
    whole: bool = False
    cached: bool = False


@dataclass(frozen=True, eq=False)
class Run:
    """One run of the backward.

    Attributes:
        seen: what its lines computed, in order.
        gradients: what it returned, by input; what belongs to no input under its own name.
        error: what it raised, if it did.
        error_line: the user's line that raised.
        context: what it ran on, perhaps changed in place.
        scope: the local variables at the first run of the site that was asked for.
    """

    seen: list[Seen]
    gradients: dict[str, Any]
    error: BaseException | None = None
    error_line: int | None = None
    context: Any = None
    scope: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Spot:
    """A point at which forward and backward are run.

    Attributes:
        subject, inputs: what is checked, and where.
        context: what the user's forward returned there.
        truth: the recorded forward pass; None where it can't be recorded.
        right: input -> its right gradient.
        downstream: what the backward begins with; None for a loss.
        expected: the inputs whose gradient has to be returned.
        difference: how far the right gradients are from finite differences.
    """

    subject: Subject
    inputs: Mapping[str, Array]
    context: Any
    truth: Truth | None
    right: Mapping[str, Array]
    downstream: Any = None
    expected: frozenset[str] = frozenset()
    difference: float = 0.0


@dataclass
class Runner:
    """Runs one backward at points, as it is or with edits.

    Attributes:
        functions: the user's functions that are watched.
        sites: site by key, for the functions without edits.
    """

    functions: tuple[FunctionType, ...]
    plain: list[Watched] = field(default_factory=list)
    sites: dict[Key, Site] = field(default_factory=dict)
    _edited: dict[Any, list[Watched] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = KeptState(self.functions)
        for function in self.functions:
            made = watched(function)
            if made is not None:
                self.plain.append(made)
                self.sites.update({key_of(made, i): site for i, site in enumerate(made.sites)})

    def run(
        self,
        spot: Spot,
        plan: Plan | None = None,
        edits: Sequence[Edit] = (),
        context: Any = None,
        scope_at: Key | None = None,
        disturbed: Key | None = None,
        keep: bool = False,
        seed: int = 2,
    ) -> Run:
        """Runs the backward once on fresh copies.

        Args:
            spot: where.
            plan: values to exchange.
            edits: changes to the source, all in one function.
            context: run on this very context instead of a copy of the spot's.
            scope_at: the site whose local variables are wanted.
            disturbed: a site whose values are changed a little, to see what depends on them.
            keep: leave what the functions keep between calls as they leave it.
            seed: of random numbers that the backward draws.
        """
        functions = self.plain if not edits else self._with(tuple(edits))
        if functions is None:
            return Run([], {}, SyntaxError("the edit is not Python"))
        hook = _Recorder(spot.subject, plan or {}, scope_at, disturbed)
        context = copied(spot.context) if context is None else context
        hook.cached = {id(array) for array in arrays_in(context)}
        token = BACKWARD_SEED.set(seed)
        try:
            state = nullcontext() if keep else self.state
            with state, watching(functions, hook), np.errstate(all="ignore"):
                gradients = spot.subject.backward(spot.inputs, context, copied(spot.downstream))
        except ArgumentError:  # it could not be called
            raise
        except Exception as error:
            return Run(hook.seen, {}, error, self._line(error), context, hook.scope)
        finally:
            BACKWARD_SEED.reset(token)
        return Run(hook.seen, gradients, context=context, scope=hook.scope)

    def _with(self, edits: tuple[Edit, ...]) -> list[Watched] | None:
        if edits not in self._edited:
            made = []
            for plain in self.plain:
                mine = [e for e in edits if _inside(e, plain)]
                if mine:
                    try:
                        new = watched(plain.function, mine)
                    except (SyntaxError, ValueError):
                        new = None
                    if new is None:
                        self._edited[edits] = None
                        return None
                    made.append(new)
                else:
                    made.append(plain)
            self._edited[edits] = made
        return self._edited[edits]

    def _line(self, error: BaseException) -> int | None:
        files = {f.__code__.co_filename for f in self.functions}
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
        return lines[-1] if lines else None


def _entry(container: str, key: Any) -> str:
    """What the user calls an entry of a dict: its key, unless only the container says that it is a gradient."""
    if isinstance(key, str) and not (is_gradient_container(container) and len(forward_name(key)) == 1):
        return key
    return f"{container}[{key!r}]"


def arrays_in(value: Any) -> Iterator[Array]:
    """The arrays in nested containers."""
    todo = [value]
    while todo:
        held = todo.pop()
        if isinstance(held, np.ndarray):
            yield held
        elif isinstance(held, Context):
            todo.extend(held.returned)
        elif isinstance(held, (list, tuple)):
            todo.extend(held)
        elif isinstance(held, dict):
            todo.extend(held.values())


def _disturbed(value: Array, seed: int) -> Array | None:
    """A value a little different from this one in every element."""
    drawn = np.random.default_rng(seed + 1).uniform(0.5, 1.0, value.shape)
    if value.dtype.kind == "b":
        return np.asarray(value ^ (drawn > 0.75))
    if value.dtype.kind in "iu":
        return np.asarray(value + (1 if value.ndim == 0 else np.asarray(drawn > 0.6, value.dtype)))
    if value.dtype.kind != "f":
        return None
    spread = float(np.max(np.abs(value), initial=0.0)) or 1.0
    return np.asarray(value + 0.1 * spread * drawn, value.dtype)


class KeptState:
    """Puts what the user's functions keep between calls (global dicts, lists and arrays) back after each run."""

    def __init__(self, functions: Sequence[FunctionType]) -> None:
        spaces = {id(f.__globals__): f.__globals__ for f in functions}
        self._held: list[tuple[Any, Any]] = [
            (value, copied(value))
            for space in spaces.values()
            for name, value in list(space.items())
            if type(value) in (dict, list, np.ndarray) and not name.startswith("__")
        ]
        for function in functions:
            self._held += [(v, copied(v)) for v in function.__defaults__ or () if type(v) in (dict, list, np.ndarray)]

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        for value, before in self._held:
            fresh = copied(before)
            if isinstance(value, dict):
                value.clear()
                value.update(fresh)
            elif isinstance(value, list):
                value[:] = fresh
            elif value.flags.writeable:
                value[...] = fresh


def _users_frame() -> FrameType:
    """The innermost frame that is not of this file."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _inside(edit: Edit, plain: Watched) -> bool:
    lines = [site.span[0] for site in plain.sites] + [site.span[2] for site in plain.sites]
    return bool(lines) and min(lines) <= edit.span[0] <= max(lines)


def key_of(plain: Watched, number: int) -> Key:
    """The key of a site."""
    return plain.function.__qualname__, plain.function.__code__.co_firstlineno, number


class _Recorder:
    """The hook: notes copies of what is assigned, and exchanges what the plan says."""

    def __init__(self, subject: Subject, plan: Plan, scope_at: Key | None, disturbed: Key | None) -> None:
        self.subject, self.plan, self.scope_at, self.disturbed = subject, plan, scope_at, disturbed
        self.scope: dict[str, Any] = {}
        self.cached: set[int] = set()
        self.seen: list[Seen] = []
        self._counts: dict[Key, int] = {}
        self._latest: dict[Key, int] = {}

    def _note(self, site: Key, name: str, value: Any, whole: bool = False) -> Any:
        if site == self.scope_at and not self.scope:
            self.scope = copied(_users_frame().f_locals)
        array = self.subject.as_array(value)
        if array is None:
            return value
        count = self._counts.get(site, 0)
        self._counts[site] = count + 1
        other = self.plan.get((site, count)) if site != self.disturbed else _disturbed(array, count)
        if other is not None:
            if whole and isinstance(value, np.ndarray) and value.shape == other.shape:
                value[...] = other
                array = value
            else:
                array, value = other, self.subject.as_given(other.copy(), value)
        of_cache = whole and isinstance(value, np.ndarray) and not self.cached.isdisjoint((id(value), id(value.base)))
        seen = Seen(site, count, name, np.array(array), whole, of_cache)
        if count >= _MOST_SEEN and site in self._latest:
            self.seen[self._latest[site]] = seen
        else:
            self._latest[site] = len(self.seen)
            self.seen.append(seen)
        return value

    def value(self, site: Key, name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (list, tuple, str)):
            return type(value)(self._note(site, f"{name}[{i}]", v) for i, v in enumerate(value))
        return self._note(site, name, value)

    def values(self, site: Key, names: tuple[str, ...], value: Any) -> Any:
        parts = list(value)
        if len(parts) != len(names):
            return value
        function, first, number = site
        return [
            self._note((function, first, number + i), name, part)
            for i, (name, part) in enumerate(zip(names, parts, strict=True))
        ]

    def update(self, site: Key, name: str, operator: str, old: Any, value: Any) -> Any:
        return self._note(site, name, IN_PLACE[operator](old, value), whole=True)

    def store(self, site: Key, name: str, base: Any, key: Any, value: Any) -> Any:
        if isinstance(base, np.ndarray):
            base[key] = value
            return self._note(site, name, base, whole=True)
        base[key] = self._note(site, _entry(name, key), value)
        return base

    def update_store(self, site: Key, name: str, operator: str, base: Any, key: Any, value: Any) -> Any:
        if isinstance(base, np.ndarray):
            base[key] = IN_PLACE[operator](base[key], value)
            return self._note(site, name, base, whole=True)
        new = IN_PLACE[operator](base[key], value)
        base[key] = self._note(site, _entry(name, key), new, whole=True)
        return base

    def touched(self, site: Key, name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            self._note(site, name, value, whole=True)
        return value

    def slice(self, *parts: Any) -> slice:
        return slice(*parts)

    def leave(self, what: Any, value: Any, *more: Any, **options: Any) -> Any:
        return value.item() if what == "item" else what(value, *more, **options)
