"""What stepgrad sets out to reach: ratios of two candidates on one network, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepgrad.bench.measure import (
    COMPILED,
    FIRST_CALLS,
    FIT,
    FORWARD,
    JAX,
    ONE_THREAD,
    PRODUCTS,
    SCAN,
    SKLEARN,
    TORCH,
    Comparison,
    Measured,
)

DEEP, MIDDLE, WIDE = "30-layers", "784-512-256-10", "1024-2048-2048-1024"


@dataclass(frozen=True)
class Target:
    """`above` divided by `below`, in time, is to be at least, or at most, `wanted`.

    Attributes:
        what: is timed: "step"; "first call", import included; or "import": that of `above` alone,
            against the first call of `below`, import included.
        less: taken off the ratio: 1 where only what goes beyond `below` counts.
    """

    network: str
    above: str
    below: str
    wanted: float
    at_least: bool = True
    what: str = "step"
    less: float = 0.0
    about: str = ""


TARGETS = (
    Target("2-8-2", JAX, COMPILED, 15),
    Target("2-8-2", TORCH, COMPILED, 120),
    Target("2-8-2", JAX, SCAN, 70),
    Target("2-8-2", TORCH, SCAN, 600),
    Target(FIRST_CALLS, JAX, COMPILED, 3),
    Target(FIRST_CALLS, TORCH, COMPILED, 10),
    Target(MIDDLE, JAX, COMPILED, 1.45),
    Target(MIDDLE, TORCH, COMPILED, 1.8),
    Target(WIDE, JAX, COMPILED, 1.2),
    Target(WIDE, TORCH, COMPILED, 1.25),
    Target(DEEP, JAX, COMPILED, 3),
    Target(DEEP, TORCH, COMPILED, 10),
    Target(FIRST_CALLS, JAX, COMPILED, 2, what="first call", about="first call, import included"),
    Target(FIRST_CALLS, TORCH, COMPILED, 1, what="import", about="first call, import included, against `import torch`"),
    Target(MIDDLE, COMPILED, PRODUCTS, 1.1, at_least=False, about="the step against its bare matrix products"),
    Target(
        MIDDLE, COMPILED, FORWARD, 2.5, at_least=False, less=1, about="gradient and update against the forward pass"
    ),
    Target(MIDDLE, ONE_THREAD, COMPILED, 1.8, about="one thread against all"),
    Target(WIDE, ONE_THREAD, COMPILED, 1.8, about="one thread against all"),
    Target("digits", SKLEARN, FIT, 5),
)


@dataclass(frozen=True)
class Reached:
    """A target, in words, with what was measured; `ratio` is None where one of the two was not timed."""

    network: str
    text: str
    wanted: str
    ratio: float | None
    reached: bool | None


def reached(comparisons: Sequence[Comparison]) -> list[Reached]:
    """Each target of the networks that were measured."""
    by_name = {c.network: c for c in comparisons}
    return [_judged(target, by_name[target.network]) for target in TARGETS if target.network in by_name]


def _judged(target: Target, comparison: Comparison) -> Reached:
    above, below = comparison.of(target.above), comparison.of(target.below)
    text = target.about or f"{target.above} against {target.below}"
    wanted = f"at {'least' if target.at_least else 'most'} {target.wanted:g}×"
    ratio = _ratio(target, above, below) if above and below else None
    if ratio is None:
        return Reached(target.network, text, wanted, None, None)
    return Reached(
        target.network, text, wanted, ratio, ratio >= target.wanted if target.at_least else ratio <= target.wanted
    )


def _ratio(target: Target, above: Measured, below: Measured) -> float | None:
    if target.what == "step":
        found = above.ratios.get(below.library)
        return None if found is None else found - target.less
    counted = above.import_seconds if target.what == "import" else above.first_call
    return None if counted is None or below.first_call is None else counted / below.first_call
