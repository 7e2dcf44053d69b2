"""What no single value shows: lines that lose precision, change the cache, or compute something else each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.backward.calling import copied, forward_name
from stepgrad.check.backward.mistakes import CATALOGUE
from stepgrad.check.backward.report import Finding
from stepgrad.check.backward.running import Key, Run, Runner, Seen, Spot, arrays_in
from stepgrad.check.backward.sources import Site


@dataclass(frozen=True)
class Fact:
    """Something found by comparing runs, or by looking at dtypes.

    Attributes:
        key: the site of the first line that shows it; None if no line does.
        name: what the user calls the value.
        mistake: the catalogue's name.
        text: what was seen, in words.
    """

    key: Key | None
    name: str | None
    mistake: str
    text: str

    def finding(self, site: Site | None) -> Finding:
        """The fact as a finding of its own."""
        return Finding(
            gradient=self.name,
            line=None if site is None else site.line,
            code="" if site is None else site.code,
            mistake=self.mistake,
            candidates=(self.mistake, *_OTHER_NAMES.get(self.mistake, ())),
            fix=None,
            evidence={},
            text=self.text,
            file=None if site is None else site.file,
        )


_OTHER_NAMES = {"low-precision": ("wrong-dtype",), "wrong-dtype": ("low-precision",)}


def facts_of(runner: Runner, spot: Spot, run: Run, wrong: bool) -> list[Fact]:
    """The facts at one point, first cause first.

    Args:
        runner: runs the backward.
        spot: where.
        run: a run there, as it is.
        wrong: whether a gradient is wrong.
    """
    if run.error is not None:
        return []
    found = [
        *_cache(runner, spot),
        *(_attributes(spot, run) if wrong else ()),
        *_repeated(runner, spot),
        *_precision(spot, run, wrong),
    ]
    unique: dict[Any, Fact] = {}
    for fact in found:
        unique.setdefault(fact.key or fact.mistake, fact)
    return list(unique.values())


def _cache(runner: Runner, spot: Spot) -> Iterator[Fact]:
    """Arrays of the cache that the backward changes, so that a second call with it gives something else."""
    context = copied(spot.context)
    first = runner.run(spot, context=context)
    before, after = list(arrays_in(spot.context)), list(arrays_in(context))
    if len(before) == len(after) and all(map(_equal, before, after)):
        return
    second = runner.run(spot, context=context)
    if second.error is None and all(
        name in second.gradients and _equal(value, second.gradients[name]) for name, value in first.gradients.items()
    ):
        return
    changed = next((s for s in first.seen if s.cached), None)
    name = None if changed is None else changed.name
    text = f"{name or 'an array of the cache'} is changed in place, and what reads it later gets the changed values"
    yield Fact(None if changed is None else changed.key, name, "cache-mutated", text)


def _attributes(spot: Spot, run: Run) -> Iterator[Fact]:
    """Attributes that hold a value of the forward pass, and are changed in place."""
    if spot.truth is None:
        return
    for seen in run.seen:
        equations = spot.truth.aliases.get(seen.name.removeprefix("self."), ()) if seen.name.startswith("self.") else ()
        if seen.whole and equations and not any(_equal(e.value, seen.value) for e in equations):
            text = f"{seen.name} is changed in place, and what reads it later gets the changed values"
            yield Fact(seen.key, seen.name, "cache-mutated", text)


def _repeated(runner: Runner, spot: Spot) -> Iterator[Fact]:
    """What two calls in a row, with the same arguments, compute differently."""
    with runner.state:
        first, second = runner.run(spot, keep=True), runner.run(spot, keep=True)
    pair = _first_difference(first.seen, second.seen)
    if pair is not None:
        one, two = pair
        with np.errstate(all="ignore"):
            adds = one.value.shape == two.value.shape and np.allclose(two.value, 2 * one.value.astype(np.float64))
        mistake = "not-reset-between-calls" if adds else "not-deterministic"
        yield Fact(one.key, one.name, mistake, f"{one.name} is another in a second call: {CATALOGUE[mistake].sentence}")
        return
    again = runner.run(spot, seed=3)
    pair = _first_difference(first.seen, again.seen)
    if pair is not None:
        one = pair[0]
        mask = one.value.dtype.kind == "b" or len(np.unique(one.value)) <= 2 < one.value.size
        mistake = "dropout-mask-redrawn" if mask else "not-deterministic"
        yield Fact(one.key, one.name, mistake, f"{one.name} is drawn at random: {CATALOGUE[mistake].sentence}")


def _precision(spot: Spot, run: Run, wrong: bool) -> Iterator[Fact]:
    """Values of lower precision than the inputs, where the forward computes none."""
    if spot.truth is not None and any(
        e.type.dtype.kind == "f" and e.type.dtype.itemsize < 8 for e in spot.truth.forward
    ):
        return
    returned = [g for g in run.gradients.values() if isinstance(g, np.ndarray)]
    for seen in run.seen:
        kind, size = seen.value.dtype.kind, seen.value.dtype.itemsize
        low = kind == "f" and size < 8
        is_returned = any(g.dtype == seen.value.dtype and _equal(g, seen.value) for g in returned)
        whole = kind in "iu" and seen.value.size > 1 and len(forward_name(seen.name)) > 1
        if not (low or (whole and (wrong or is_returned))):
            continue
        mistake = "wrong-dtype" if is_returned or whole else "low-precision"
        yield Fact(seen.key, seen.name, mistake, f"{seen.name} has dtype {seen.value.dtype}, and the inputs float64")


def _first_difference(first: Sequence[Seen], second: Sequence[Seen]) -> tuple[Seen, Seen] | None:
    for one, two in zip(first, second, strict=False):
        if one.key != two.key or not _equal(one.value, two.value):
            return one, two
    return None


def _equal(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f")
