"""The clue that the matcher gets: a wrong line as it was seen at each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.judging import Blame, Judge
from stepgrad.check.backward.running import Run, Seen, Spot
from stepgrad.check.backward.scopes import scope_of
from stepgrad.tensor import Array


def clue_of(judge: Judge, blame: Blame, runs: Sequence[Run]) -> Clue:
    """What the matcher works on: the first wrong value of the line at each point."""
    sightings = []
    for number, (spot, run) in enumerate(zip(judge.spots, runs, strict=True)):
        if spot.truth is None:
            continue
        if blame.seen[number]:
            seen, right, known = blame.seen[number][0], blame.right[number][0], blame.targets[number][0]
        else:  # the line raised, or was not reached
            named = judge.indices[number].named(blame.name)
            if len(named) != 1:
                continue
            seen, right, known = None, named[0].value, named[0]
        earlier: dict[str, Array] = {}
        for other in run.seen:
            if seen is not None and other.key == seen.key and other.count == seen.count:
                break
            earlier[other.name.removeprefix("self.")] = other.value
        target = known.equation if known is not None and known.kind == "gradient" else None
        factor = _ratio(right, known.value) if target is not None and known is not None else 1.0
        lengths = batch_lengths(spot.inputs, spot.right, run.gradients)
        axes = [a for a, n in enumerate(right.shape) if n in lengths]
        sightings.append(
            Sighting(
                truth=spot.truth,
                right=right,
                wrong=None if seen is None else seen.value,
                target=target,
                known=earlier,
                others=_others(run.scope),
                previous={} if spot is judge.earlier else _values(judge.earlier),
                factor=factor,
                batch=lengths[0] if len(lengths) == 1 else None,
                batch_axis=axes[0] if len(axes) == 1 else None,
            )
        )
    first = blame.seen[0][0] if blame.seen[0] else None
    loop = {n: int(v) for n, v in runs[0].scope.items() if isinstance(v, (int, np.integer)) and n in blame.site.reads}
    return Clue(
        gradient=short(first.name if first else blame.name).removeprefix("self."),
        sightings=tuple(sightings),
        line=blame.site.line,
        code=blame.site.code,
        loop=loop,
        wrong=tuple(sorted(judge.wrong(judge.runner.run(judge.spots[0]), 0))),
        earlier=tuple(dict.fromkeys(s.name for s in runs[0].seen[: position_of(runs[0], first)])),
        error=None if runs[0].error is None else str(runs[0].error),
    )


def position_of(run: Run, wrong: Seen | None) -> int:
    if wrong is None:
        return len(run.seen)
    return next((i for i, s in enumerate(run.seen) if s.key == wrong.key and s.count == wrong.count), 0)


def _ratio(right: Array, known: Array) -> float:
    if right.shape != known.shape or not known.any():
        return 1.0
    return float(np.vdot(known, right) / np.vdot(known, known))


def batch_lengths(inputs: Mapping[str, Array], right: Mapping[str, Array], gradients: Mapping[str, Any]) -> list[int]:
    """The lengths of axes that only inputs without a gradient have: those of the data."""
    del right
    data = {n for name, v in inputs.items() if name not in gradients for n in v.shape}
    parameters = {n for name, v in inputs.items() if name in gradients for n in v.shape}
    return sorted(data - parameters - {1})


def _values(spot: Spot | None) -> dict[str, Array]:
    """The forward values at a point, by the user's names."""
    if spot is None or spot.truth is None:
        return {}
    return {name: np.asarray(e.value) for e, name in spot.truth.names.items() if e.value is not None}


def _others(variables: Mapping[str, Any]) -> dict[str, Array]:
    scope = scope_of(variables, (), None)
    found: dict[str, Array] = {}
    for text, value in scope.arrays.items():
        name = text.split('["')[-1].rstrip('"]') if '["' in text else text.removeprefix("self.")
        found.setdefault(name, value)
    return found


def short(name: str) -> str:
    """What the user calls a value, without the method that puts it into a list."""
    return name.removesuffix(".append").removesuffix(".insert")
