"""How a fault is planted: a training with a name, in every seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.health import datasets
from benchmarks.health.checks import Check
from benchmarks.health.datasets import Data
from benchmarks.health.healthy import loss_for, score_for
from benchmarks.health.networks import Builder
from benchmarks.health.trainings import Training

SEEDS = (0, 1)


def planted(
    fault: str, network: str, data: str, build: Builder, optimizer: Any, check: Check, **more: Any
) -> Iterator[Training]:
    """One cell, with every seed."""
    settings: dict[str, Any] = {
        "prepare": lambda seed: datasets.load(data, seed),
        "loss": loss_for(data),
        "score": score_for(data),
    } | more
    for seed in SEEDS:
        yield Training(fault, network, data, seed, build=build, optimizer=optimizer, check=check, **settings)


def in_own_unit(name: str, seed: int) -> Data:
    """A data set with standardised inputs, and targets as they come."""
    data, raw = datasets.load(name, seed), datasets.raw(name, seed)
    return replace(data, y=raw.y, y_held=raw.y_held)
