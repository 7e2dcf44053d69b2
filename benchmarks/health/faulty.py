"""Trainings with a fault planted: each fault in several networks and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health import datasets
from benchmarks.health.checks import (
    Check,
    always_clipped,
    barely_falls,
    both,
    by_construction,
    constant,
    ends_not_finite,
    grows,
    harmed,
    harmed_by_order,
    misses_a_class,
    overfitted,
    saturated,
    shrinks,
    silent,
    unchanged,
)
from benchmarks.health.datasets import Data
from benchmarks.health.healthy import SEEDS, adam, loss_for, score_for, sgd
from benchmarks.health.networks import Apply, Builder, between, chain, chain_of, recurrent, with_spare
from benchmarks.health.trainings import Training

FAULTS = {
    "vanishing-gradients": "gradients shrink on their way to the first layers",
    "exploding-gradients": "gradients grow on their way to the first layers",
    "dead-units": "most units of a layer are 0 for every row from the start",
    "dying-units": "most units of a layer become 0 for every row on the way",
    "saturated-units": "most of tanh or sigmoid is at its ends, where it has no slope",
    "exploding-loss": "the loss grows beyond all bounds",
    "not-finite": "the loss becomes NaN or infinite where nothing had grown",
    "poor-initialisation": "all weights equal, or far too small or large",
    "learning-rate-too-high": "steps overshoot",
    "learning-rate-too-low": "steps are so small that the loss barely falls",
    "unnormalised-inputs": "features of very different or very large size",
    "unused-parameters": "a layer that is never called",
    "frozen-parameters": "parameters that the optimizer does not have",
    "disconnected-parameters": "parameters that no gradient gets to",
    "labels-out-of-range": "targets that the outputs can't reach, or that the loss is not defined for",
    "constant-predictions": "the same answer for every row",
    "adam-epsilon": "Adam's epsilon is larger than the moments it is added to",
    "always-clipped": "every gradient is clipped",
    "regulariser-dominates": "the penalty is stronger than the loss",
    "data-order": "rows come in the order of their targets",
    "class-imbalance": "a rare class is never recognised",
    "overfitting": "the loss on rows held back rises while the training loss falls",
    "underfitting": "the network is too small, or too restricted, for the data",
}
"""What is planted, by the name of the verdict that should be given."""


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


def trainings() -> list[Training]:
    """All of them."""
    return [
        *_vanishing(), *_exploding(), *_dead(), *_saturation(), *_not_finite(), *_initialisation(), *_rate(),
        *_inputs(), *_unreached(), *_labels(), *_constant(), *_epsilon(), *_clipped(), *_regulariser(), *_order(),
        *_imbalance(), *_fit(),
    ]  # fmt: skip


def _vanishing() -> Iterator[Training]:
    check = both(shrinks(), harmed())
    for data, width in (("digits", 32), ("wine", 24), ("mixture", 24)):
        yield from planted(
            "vanishing-gradients", f"sigmoid 7 × {width}", data, chain(*[width] * 7, activation="sigmoid", init="xavier"),
            sgd(0.1, momentum=0.9), check,
        )  # fmt: skip
    for data in ("digits", "cancer"):
        yield from planted(
            "vanishing-gradients", "tanh 8 × 24, weights small", data, chain(*[24] * 8, activation="tanh", init=0.25),
            sgd(0.1), check, also=("poor-initialisation",),
        )  # fmt: skip
    yield from planted(
        "vanishing-gradients", "recurrent tanh 20 times", "digits", recurrent(32, 20, activation="tanh", radius=0.6),
        sgd(0.1), check, also=("poor-initialisation",),
    )  # fmt: skip
    yield from planted(
        "vanishing-gradients", "relu 10 × 32, default values", "mixture", chain(*[32] * 10, init="default"), sgd(0.05), check,
        also=("poor-initialisation",),
    )  # fmt: skip


def _exploding() -> Iterator[Training]:
    check, also = both(grows(), harmed()), ("poor-initialisation", "exploding-loss")
    for data, width in (("digits", 32), ("wine", 24), ("mixture", 32)):
        yield from planted(
            "exploding-gradients", f"relu 8 × {width}, weights twice as large", data, chain(*[width] * 8, init=2.0),
            sgd(3e-3), check, also=also,
        )  # fmt: skip
    for data in ("digits", "mixture"):
        yield from planted(
            "exploding-gradients", "recurrent relu 15 times", data, recurrent(32, 15, activation="leaky relu", radius=2.2),
            sgd(1e-2), check, also=also,
        )  # fmt: skip
    yield from planted(
        "exploding-gradients",
        "residual 12 × 24",
        "friedman",
        chain(*[24] * 13, residual=2.0),
        sgd(1e-3),
        check,
        also=also,
    )
    yield from planted(
        "exploding-gradients", "elu 8 × 24, weights three times as large", "diabetes",
        chain(*[24] * 8, activation="elu", init=3.0), sgd(1e-3), check, also=also,
    )  # fmt: skip


def _dead() -> Iterator[Training]:
    check = both(silent(), harmed())
    for data in ("digits", "mixture", "moons", "wine"):
        yield from planted(
            "dead-units", "relu 32-16, biases -6", data, chain(32, 16, bias=-6.0), adam(1e-3), check,
            also=("poor-initialisation", "dying-units"),
        )  # fmt: skip
    for data in ("digits", "wine", "friedman", "cancer"):
        yield from planted(
            "dying-units", "relu 32-16, a few huge steps", data, chain(32, 16), _dying(data), check,
            also=("dead-units", "learning-rate-too-high"), epochs=20,
        )  # fmt: skip


def _dying(data: str) -> Any:
    """A rate that throws most units to where they are never active again."""
    return {
        "digits": sgd(1.5, momentum=0.9),
        "wine": sgd(3.0, momentum=0.9),
        "friedman": sgd(0.2, momentum=0.9),
        "cancer": sgd(4.0, momentum=0.9),
    }[data]


def _saturation() -> Iterator[Training]:
    check, also = both(saturated(), harmed()), ("poor-initialisation",)
    for data, scale in (("digits", 8.0), ("wine", 15.0), ("mixture", 10.0)):
        yield from planted(
            "saturated-units", "tanh 3 × 24, weights large", data, chain(*[24] * 3, activation="tanh", init=scale),
            sgd(0.02), check, also=also,
        )  # fmt: skip
    for data, scale in (("digits", 12.0), ("friedman", 20.0)):
        yield from planted(
            "saturated-units", "sigmoid 24-24, weights large", data, chain(24, 24, activation="sigmoid", init=scale),
            sgd(0.02), check, also=also,
        )  # fmt: skip
    yield from planted(
        "saturated-units", "tanh 24-24, biases 6", "mixture", chain(24, 24, activation="tanh", init="xavier", bias=6.0),
        sgd(0.02), check, also=also,
    )  # fmt: skip


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
    for data, rate in (("regression", 8.0), ("friedman", 5.0)):
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
        adam(), check, loss=_poisson_by_hand, prepare=lambda seed: _in_own_unit("friedman", seed),
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


def _initialisation() -> Iterator[Training]:
    fault = "poor-initialisation"
    for data in ("digits", "mixture"):
        yield from planted(
            fault, "tanh 32-16, all 0", data, chain(32, 16, activation="tanh", init=_all(0.0), last_init=_all(0.0)),
            sgd(0.1), harmed(), also=("vanishing-gradients",),
        )  # fmt: skip
    for data in ("digits", "wine"):
        yield from planted(
            fault, "relu 32-16, all 0.05", data, chain(32, 16, init=_all(0.05), last_init=_all(0.05)),
            sgd(0.05), harmed(),
        )  # fmt: skip
    for data in ("digits", "cancer", "friedman"):
        yield from planted(
            fault, "relu 4 × 32, weights 1/50", data, chain(*[32] * 4, init=0.02, last_init=0.02), sgd(0.05), harmed(),
            also=("vanishing-gradients",),
        )  # fmt: skip
    for data in ("digits", "mixture"):
        yield from planted(
            fault, "relu 3 × 32, weights 20 times as large", data, chain(*[32] * 3, init=20.0, last_init=20.0),
            adam(1e-3), harmed(), also=("exploding-gradients",), epochs=10,
        )  # fmt: skip


def _all(value: float) -> Any:
    return lambda key, shape, dtype: np.full(shape, value, dtype)


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


def _unreached() -> Iterator[Training]:
    spare, first = ("spare.weight", "spare.bias"), ("0.0.weight", "0.0.bias")
    for data in ("digits", "wine", "friedman", "moons"):
        yield from planted(
            "unused-parameters", "relu 32-16 and a spare layer", data, with_spare(chain(32, 16)), adam(),
            unchanged(*spare), by_hand=True, left_out=spare, also=("frozen-parameters", "disconnected-parameters"),
        )  # fmt: skip
    for data in ("digits", "mixture", "diabetes", "iris"):
        yield from planted(
            "frozen-parameters", "relu 32-16, first layer left out", data, chain(32, 16), _without_first,
            unchanged("0.weight", "0.bias"), by_hand=True,
        )  # fmt: skip
    cuts = {"stop_gradient": sg.stop_gradient, "rounded": _rounded, "as bits": _bits}
    for (name, cut), data in zip(
        [*cuts.items(), ("stop_gradient", sg.stop_gradient)], ("digits", "wine", "mixture", "friedman"), strict=True
    ):
        yield from planted(
            "disconnected-parameters", f"tanh 24, {name}, relu 16", data,
            between(chain(activation="tanh", outputs=24, last=(sg.nn.Tanh,)), cut, lambda width: chain_of(width, 16)),
            adam(), unchanged(*first), by_hand=True, left_out=first, also=("frozen-parameters", "unused-parameters"),
        )  # fmt: skip


def _without_first(parameters: Any) -> Any:
    return sg.optim.Adam({name: p for name, p in parameters.items() if not name.startswith("0.")}, lr=3e-3)


def _rounded(x: Any) -> Any:
    return sg.round(x * 4) / 4


def _bits(x: Any) -> Any:
    return (x > 0).astype(np.float32)


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
            prepare=lambda seed, data=data: _in_own_unit(data, seed),
        )  # fmt: skip
    for data in ("friedman", "regression"):
        yield from planted(
            fault, "sigmoid at the end, targets of both signs", data, chain(32, last=(sg.nn.Sigmoid,)), adam(), harmed(),
        )  # fmt: skip


def _yes_or_no_by_hand(p: Any, y: Any) -> Any:
    p = sg.clip(p, 1e-6, 1 - 1e-6)
    return -sg.mean(y * sg.log(p) + (1 - y) * sg.log(1 - p))


def _one_and_two(labels: Any) -> Any:
    return (labels + 1).astype(np.float32).reshape(-1, 1)


def _minus_and_plus(labels: Any) -> Any:
    return (2 * labels - 1).astype(np.float32).reshape(-1, 1)


def _in_own_unit(name: str, seed: int) -> Data:
    data, raw = datasets.load(name, seed), datasets.raw(name, seed)
    return replace(data, y=raw.y, y_held=raw.y_held)


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
    for data in ("digits", "mixture", "friedman"):
        yield from planted(
            fault,
            "relu 32-16, L2 of 1",
            data,
            chain(32, 16),
            sgd(0.05, weight_decay=1.0),
            harmed(trained=True),
        )
    for data in ("digits", "wine"):
        yield from planted(
            fault, "relu 32-16, penalty in the loss", data, chain(32, 16), adam(1e-2), harmed(trained=True),
            penalty=0.3,
        )  # fmt: skip
    for data in ("mixture", "diabetes"):
        yield from planted(
            fault, "tanh 24, AdamW", data, chain(24, activation="tanh", init="xavier"),
            lambda p: sg.optim.AdamW(p, lr=1e-2, weight_decay=80.0), harmed(trained=True),
        )  # fmt: skip


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
    for data in ("digits", "friedman"):
        yield from planted(
            "underfitting", "relu 1-16", data, chain(1, 16, bias=0.1), adam(1e-2), under, epochs=30,
        )  # fmt: skip
    for data in ("digits", "mixture"):
        yield from planted(
            "underfitting", "relu 24-24, dropout 0.9", data, chain(24, 24, dropout=0.9), adam(), under, epochs=20,
        )  # fmt: skip


def _mislabelled(name: str, seed: int, rows: int) -> Data:
    data = datasets.load(name, seed).first(rows)
    rng = np.random.default_rng([seed, 11])
    wrong = rng.random(rows) < 0.3
    return replace(data, y=np.where(wrong, rng.integers(0, data.classes, rows), data.y))
