"""Faults in the data, in their order, and in how data and network fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health import datasets
from benchmarks.health.checks import (
    both,
    by_construction,
    constant,
    harmed,
    harmed_by_order,
    misses_a_class,
    overfitted,
)
from benchmarks.health.datasets import Data
from benchmarks.health.faulty.planting import in_own_unit, planted
from benchmarks.health.healthy import adam, sgd
from benchmarks.health.networks import chain
from benchmarks.health.trainings import Training


def trainings() -> list[Training]:
    """All of them."""
    return [*_inputs(), *_labels(), *_constant(), *_order(), *_imbalance(), *_fit()]


def _inputs() -> Iterator[Training]:
    fault = "unnormalised-inputs"
    for data in ("wine", "cancer"):
        yield from planted(
            fault, "relu 32-16, raw", data, chain(32, 16), sgd(0.01), harmed(),
            prepare=lambda seed, data=data: raw_inputs(data, seed),
        )  # fmt: skip
        yield from planted(
            fault, "tanh 32-16, raw", data, chain(32, 16, activation="tanh", init="xavier"), sgd(0.02), harmed(),
            prepare=lambda seed, data=data: raw_inputs(data, seed),
        )  # fmt: skip
    for data in ("mixture", "friedman"):
        yield from planted(
            fault, "relu 32-16, three features large", data, chain(32, 16), adam(1e-3), harmed(),
            prepare=lambda seed, data=data: datasets.load(data, seed).with_inputs(_three_large), epochs=10,
        )  # fmt: skip
    for data in ("digits", "regression"):
        yield from planted(
            fault, "tanh 32-16, all far from 0", data, chain(32, 16, activation="tanh", init="xavier"), sgd(0.02),
            harmed(), prepare=lambda seed, data=data: datasets.load(data, seed).with_inputs(_far),
        )  # fmt: skip


def raw_inputs(name: str, seed: int) -> Data:
    """A data set as it comes."""
    data, raw = datasets.load(name, seed), datasets.raw(name, seed)
    return replace(data, X=raw.X, X_held=raw.X_held)


def _three_large(X: Any) -> Any:
    return X * np.where(np.arange(X.shape[1]) >= X.shape[1] - 3, 3000.0, 1.0)


def _far(X: Any) -> Any:
    return 20 * X + 500


def _labels() -> Iterator[Training]:
    fault = "labels-out-of-range"
    for data in ("cancer", "moons"):
        yield from planted(
            fault, "yes or no by hand, labels 1 and 2", data, chain(24, outputs=1, last=(sg.nn.Sigmoid,)), adam(),
            by_construction("binary cross entropy by hand with labels 1 and 2"), loss=_yes_or_no_by_hand,
            prepare=lambda seed, data=data: datasets.load(data, seed).with_targets(_one_and_two), score="halves",
        )  # fmt: skip
        yield from planted(
            fault, "yes or no by hand, labels -1 and 1", data, chain(24, outputs=1, last=(sg.nn.Sigmoid,)), adam(),
            by_construction("binary cross entropy by hand with labels -1 and 1"), loss=_yes_or_no_by_hand,
            prepare=lambda seed, data=data: datasets.load(data, seed).with_targets(_minus_and_plus), score="halves",
        )  # fmt: skip
    for data in ("diabetes", "friedman"):
        yield from planted(
            fault, "tanh at the end, targets beyond it", data, chain(32, last=(sg.nn.Tanh,)), adam(), harmed(),
            prepare=lambda seed, data=data: in_own_unit(data, seed),
        )  # fmt: skip
    for data in ("friedman", "regression"):
        yield from planted(
            fault, "sigmoid at the end, targets of both signs", data, chain(32, last=(sg.nn.Sigmoid,)), adam(),
            harmed(),
        )  # fmt: skip


def _yes_or_no_by_hand(p: Any, y: Any) -> Any:
    p = sg.clip(p, 1e-6, 1 - 1e-6)
    return -sg.mean(y * sg.log(p) + (1 - y) * sg.log(1 - p))


def _one_and_two(labels: Any) -> Any:
    return (labels + 1).astype(np.float32).reshape(-1, 1)


def _minus_and_plus(labels: Any) -> Any:
    return (2 * labels - 1).astype(np.float32).reshape(-1, 1)


def _constant() -> Iterator[Training]:
    fault = "constant-predictions"
    check = both(constant(), harmed())
    for data in ("friedman", "diabetes"):
        yield from planted(
            fault, "relu at the end, dead", data, chain(24, last=(sg.nn.ReLU,), last_bias=-8.0), sgd(0.01), check,
            also=("dead-units", "labels-out-of-range"),
        )  # fmt: skip
    for data in ("cancer", "moons"):
        yield from planted(
            fault, "softmax over one output", data, chain(24, outputs=1, last=(sg.nn.Softmax,)), adam(), check,
            loss=sg.losses.mse, score="halves",
            prepare=lambda seed, data=data: datasets.load(data, seed).with_targets(_as_column),
        )  # fmt: skip
    for data in ("digits", "wine"):
        yield from planted(
            fault, "relu 32-16, inputs all 0", data, chain(32, 16), adam(), check,
            prepare=lambda seed, data=data: datasets.load(data, seed).with_inputs(lambda X: 0 * X),
            also=("unnormalised-inputs",),
        )  # fmt: skip
    yield from planted(
        fault, "sigmoid at the end, far out", "mixture", chain(24, outputs=1, last=(sg.nn.Sigmoid,), last_bias=40.0),
        adam(), check, loss=sg.losses.mse, score="halves", also=("saturated-units", "poor-initialisation"),
        prepare=lambda seed: datasets.load("mixture", seed).with_targets(_as_column_of_two),
    )  # fmt: skip


def _as_column(labels: Any) -> Any:
    return labels.astype(np.float32).reshape(-1, 1)


def _as_column_of_two(labels: Any) -> Any:
    return (labels > 0).astype(np.float32).reshape(-1, 1)


def _order() -> Iterator[Training]:
    settings: dict[str, Any] = {"by_hand": True, "sort": True, "batch_size": 8, "epochs": 3}
    for data in ("digits", "mixture", "moons"):
        yield from planted(
            "data-order",
            "relu 32-16, SGD",
            data,
            chain(32, 16),
            sgd(0.015, momentum=0.9),
            harmed_by_order(),
            **settings,
        )
    for data in ("digits", "diabetes"):
        yield from planted(
            "data-order", "tanh 32-16, SGD", data, chain(32, 16, activation="tanh", init="xavier"),
            sgd(0.015, momentum=0.9), harmed_by_order(), **settings,
        )  # fmt: skip
    for data in ("digits", "diabetes"):
        yield from planted(
            "data-order", "relu 32-16, Adam", data, chain(32, 16), adam(1e-2), harmed_by_order(),
            **settings | {"epochs": 2},
        )  # fmt: skip


def _imbalance() -> Iterator[Training]:
    also = ("constant-predictions",)
    for data in ("rare class", "rare class of three", "rare ones"):
        yield from planted(
            "class-imbalance", "relu 16", data, chain(16), adam(1e-3), misses_a_class(), epochs=8, also=also
        )
        yield from planted(
            "class-imbalance", "tanh 24-12", data, chain(24, 12, activation="tanh", init="xavier"), sgd(0.05),
            misses_a_class(), epochs=10, also=also,
        )  # fmt: skip
        yield from planted(
            "class-imbalance", "elu 32", data, chain(32, activation="elu"), sgd(0.05, momentum=0.5), misses_a_class(),
            epochs=8, also=also,
        )  # fmt: skip


def _fit() -> Iterator[Training]:
    for data, rows in (("diabetes", 150), ("noisy labels", 150)):
        yield from planted(
            "overfitting", f"relu 128-128, {rows} rows", data, chain(128, 128), adam(), overfitted(),
            prepare=lambda seed, data=data, rows=rows: datasets.load(data, seed).first(rows), epochs=60,
        )  # fmt: skip
    for data, rows in (("noisy labels", 200), ("mixture", 100), ("digits", 150), ("cancer", 100)):
        yield from planted(
            "overfitting", f"tanh 96-48, {rows} rows, wrong labels", data,
            chain(96, 48, activation="tanh", init="xavier"), adam(), overfitted(),
            prepare=lambda seed, data=data, rows=rows: _mislabelled(data, seed, rows), epochs=120,
        )  # fmt: skip
    under = harmed(trained=True)
    for data in ("circles", "friedman"):
        yield from planted("underfitting", "no hidden layer", data, chain(), adam(3e-2), under, epochs=30)
    for data in ("digits", "friedman", "blobs", "wine"):
        yield from planted(
            "underfitting", "relu 1-16", data, chain(1, 16, bias=0.1), adam(1e-2), under, epochs=30,
        )  # fmt: skip
    for data in ("digits", "mixture", "blobs"):
        yield from planted(
            "underfitting", "relu 24-24, dropout 0.9", data, chain(24, 24, dropout=0.9), adam(), under, epochs=20,
        )  # fmt: skip


def _mislabelled(name: str, seed: int, rows: int) -> Data:
    data = datasets.load(name, seed).first(rows)
    rng = np.random.default_rng([seed, 11])
    wrong = rng.random(rows) < 0.3
    return replace(data, y=np.where(wrong, rng.integers(0, data.classes, rows), data.y))
