"""Faults in the loss and in what the optimizer does: numbers that break, steps too long or too short, penalties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health import datasets
from benchmarks.health.checks import always_clipped, barely_falls, both, ends_not_finite, harmed
from benchmarks.health.datasets import Data
from benchmarks.health.faulty.planting import in_own_unit, planted
from benchmarks.health.healthy import adam, sgd
from benchmarks.health.networks import Apply, Builder, between, chain, chain_of
from benchmarks.health.trainings import Training


def trainings() -> list[Training]:
    """All of them."""
    return [*_not_finite(), *_rate(), *_epsilon(), *_clipped(), *_regulariser()]


def _not_finite() -> Iterator[Training]:
    check = ends_not_finite()
    for data in ("wine", "blobs"):
        yield from planted(
            "not-finite", "softmax and log by hand", data, chain(32, last=(sg.nn.Softmax,)),
            sgd(30.0), check, loss=_log_by_hand, also=("learning-rate-too-high", "exploding-loss"),
        )  # fmt: skip
    for data in ("digits", "mixture"):
        yield from planted(
            "not-finite", "inputs over their deviation in the batch", data, _standardising(), adam(), check,
            prepare=lambda seed, data=data: datasets.load(data, seed).with_inputs(_zero_column), epochs=5,
        )  # fmt: skip
    for data, rate in (("regression", 8.0), ("friedman", 5.0), ("diabetes", 6.0)):
        yield from planted(
            "exploding-loss", "relu 32-16, huge steps", data, chain(32, 16), sgd(rate, momentum=0.9), check,
            also=("learning-rate-too-high", "not-finite"),
        )  # fmt: skip
    for data, rate in (("diabetes", 1.2), ("two targets", 4.0)):
        yield from planted(
            "exploding-loss", "linear, diverging", data, chain(), sgd(rate), check, epochs=60,
            also=("learning-rate-too-high", "not-finite"),
        )  # fmt: skip
    yield from planted(
        "not-finite", "Poisson loss by hand of relu outputs", "friedman", chain(24, last=(sg.nn.ReLU,)),
        adam(), check, loss=_poisson_by_hand, prepare=lambda seed: in_own_unit("friedman", seed),
    )  # fmt: skip
    yield from planted(
        "not-finite", "root of the squared error of each row", "two targets", chain(), sgd(0.05), check,
        loss=_distance, prepare=_reached_targets, batch_size=8,
    )  # fmt: skip


def _log_by_hand(probabilities: Any, labels: Any) -> Any:
    return -sg.mean(sg.log(probabilities[np.arange(len(labels)), labels]))


def _poisson_by_hand(outputs: Any, targets: Any) -> Any:
    return sg.mean(outputs - targets * sg.log(outputs))


def _standardising() -> Builder:
    def by_deviation(x: Any) -> Any:
        centred = x - sg.mean(x, axis=0)
        return centred / sg.sqrt(sg.mean(sg.square(centred), axis=0))

    return between(chain_first(), by_deviation, lambda width: chain_of(width, 24))


def chain_first() -> Builder:
    """A first part that changes nothing: inputs as they are."""
    return lambda data, seed: Apply(lambda x: x)  # type: ignore[arg-type, return-value]


def _zero_column(X: Any) -> Any:
    return np.concatenate([X, np.zeros((len(X), 1), X.dtype)], axis=1)


def _distance(outputs: Any, targets: Any) -> Any:
    return sg.mean(sg.sqrt(sg.sum(sg.square(outputs - targets), axis=1)))


def _reached_targets(seed: int) -> Data:
    """Some rows are all zero, in inputs and targets, as missing ones are: outputs reach them exactly."""
    data = datasets.load("two targets", seed)
    X, y = data.X.copy(), data.y.copy()
    X[::10], y[::10] = 0, 0
    return replace(data, X=X, y=y)


def _rate() -> Iterator[Training]:
    high, low = "learning-rate-too-high", "learning-rate-too-low"
    unstable = ("exploding-loss", "not-finite")
    for data, rate in (("digits", 1.0), ("mixture", 4.0), ("wine", 12.0)):
        yield from planted(
            high, "tanh 32-16, SGD", data, chain(32, 16, activation="tanh", init="xavier"), sgd(rate, momentum=0.9),
            harmed(), also=unstable,
        )  # fmt: skip
    for data, rate in (("digits", 0.5), ("wine", 1.0), ("friedman", 0.6)):
        yield from planted(high, "relu 32-16, Adam", data, chain(32, 16), adam(rate), harmed(), also=unstable)
    yield from planted(high, "linear, SGD", "diabetes", chain(), sgd(0.6), harmed(), also=unstable)
    for data, rate in (("digits", 1e-4), ("wine", 1e-4), ("friedman", 1e-4), ("mixture", 1e-4)):
        yield from planted(
            low, "relu 32-16, SGD", data, chain(32, 16), sgd(rate), both(barely_falls(), harmed()), epochs=15
        )
    for data, rate in (("digits", 1e-5), ("moons", 2e-6), ("diabetes", 1e-5)):
        yield from planted(
            low, "tanh 32-16, Adam", data, chain(32, 16, activation="tanh", init="xavier"), adam(rate),
            both(barely_falls(), harmed()), epochs=15,
        )  # fmt: skip


def _epsilon() -> Iterator[Training]:
    for data, eps in (("digits", 1.0), ("mixture", 1.0), ("friedman", 3.0), ("wine", 1.0)):
        yield from planted(
            "adam-epsilon", "relu 32-16, Adam", data, chain(32, 16), adam(1e-3, eps=eps), harmed(),
        )  # fmt: skip
    for data in ("digits", "cancer"):
        yield from planted(
            "adam-epsilon", "tanh 24, a loss that is tiny", data, chain(24, activation="tanh", init="xavier"),
            adam(1e-3), harmed(), loss=_tiny, epochs=10,
        )  # fmt: skip


def _tiny(outputs: Any, labels: Any) -> Any:
    return sg.losses.cross_entropy(outputs, labels) * 1e-8


def _clipped() -> Iterator[Training]:
    for data, norm in (("digits", 0.01), ("mixture", 0.01), ("wine", 0.01), ("friedman", 0.01)):
        yield from planted(
            "always-clipped", f"relu 32-16, clipped to {norm}", data, chain(32, 16), sgd(0.05),
            both(always_clipped(norm), harmed()), by_hand=True, clip=norm,
        )  # fmt: skip
    for data, norm in (("digits", 0.03), ("diabetes", 0.02)):
        yield from planted(
            "always-clipped", f"tanh 32, clipped to {norm}", data, chain(32, activation="tanh", init="xavier"),
            sgd(0.02, momentum=0.5), both(always_clipped(norm), harmed()), by_hand=True, clip=norm,
        )  # fmt: skip


def _regulariser() -> Iterator[Training]:
    fault = "regulariser-dominates"
    for data in ("digits", "mixture", "friedman", "wine", "cancer"):
        yield from planted(
            fault,
            "relu 32-16, L2 of 1",
            data,
            chain(32, 16),
            sgd(0.05, weight_decay=1.0),
            harmed(trained=True),
        )
    for data in ("digits", "wine", "mixture", "friedman"):
        yield from planted(
            fault, "relu 32-16, penalty in the loss", data, chain(32, 16), adam(1e-2), harmed(trained=True),
            penalty=0.3,
        )  # fmt: skip
    for data in ("mixture", "diabetes", "digits"):
        yield from planted(
            fault, "tanh 24, AdamW", data, chain(24, activation="tanh", init="xavier"),
            lambda p: sg.optim.AdamW(p, lr=1e-2, weight_decay=80.0), harmed(trained=True),
        )  # fmt: skip
