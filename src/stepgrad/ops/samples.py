"""Samples: what an op is tested on. Each op declares its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Sample:
    """Draws one operand for testing an op: an array of a shape, inside the op's domain."""

    __slots__ = ("draw", "text")

    def __init__(self, draw: Callable[[np.random.Generator], Any], text: str) -> None:
        self.draw, self.text = draw, text

    def __repr__(self) -> str:
        return self.text


def normal(*shape: int) -> Sample:
    """Standard normal numbers, kept 0.05 away from 0, where many functions have a kink."""

    def draw(rng: np.random.Generator) -> Any:
        x = rng.standard_normal(shape)
        return x + np.copysign(0.05, x)

    return Sample(draw, f"normal{shape}")


def uniform(low: float, high: float, *shape: int) -> Sample:
    """Numbers spread evenly over [low, high)."""
    return Sample(lambda rng: rng.uniform(low, high, shape), f"uniform({low}, {high}, {shape})")


def integers(low: int, high: int, *shape: int) -> Sample:
    """Integers in [low, high)."""
    return Sample(lambda rng: rng.integers(low, high, shape), f"integers({low}, {high}, {shape})")


def booleans(*shape: int) -> Sample:
    return Sample(lambda rng: rng.random(shape) < 0.5, f"booleans{shape}")


def distinct(*shape: int) -> Sample:
    """Numbers of which no two are close: no ties for max and sort."""

    def draw(rng: np.random.Generator) -> Any:
        size = int(np.prod(shape))
        return (rng.permutation(size).reshape(shape) - size / 2 + 0.3) / 2

    return Sample(draw, f"distinct{shape}")


def constant(value: Any) -> Sample:
    """Always this value."""
    return Sample(lambda rng: value, f"constant({value!r})")
