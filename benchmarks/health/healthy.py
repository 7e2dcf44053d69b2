"""Trainings that are healthy, most of them hard to tell from faulty ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.preprocessing import KBinsDiscretizer

import stepgrad as sg
from benchmarks.health import datasets
from benchmarks.health.checks import both, clipped_sometimes, reaches
from benchmarks.health.datasets import Data
from benchmarks.health.networks import Builder, chain, recurrent
from benchmarks.health.trainings import HEALTHY, Training

SEEDS = (0, 1, 2, 3)

NOT_HEALTHY = {
    ("relu 32-16", "cancer"): {2},
    ("sigmoid 32-16", "iris"): {2, 3},
    ("relu 6 × 64", "wine"): {2},
    ("relu 6 × 64", "digits"): {3},
    ("relu 6 × 64", "mixture"): {3},
    ("relu 64-32, dropout 0.3", "digits"): {2, 3},
    ("relu 64-32, dropout 0.3", "cancer"): {2, 3},
    ("relu 16, batches of 4", "iris"): {2},
    ("relu 32, small targets", "two targets"): {3},
}
"""Network, data set -> seeds that are left out, because with them it does not pass its own check."""

Optimizing = Callable[[Any], Any]


def adam(lr: float = 3e-3, **settings: Any) -> Optimizing:
    return lambda parameters: sg.optim.Adam(parameters, lr=lr, **settings)


def sgd(lr: float = 0.1, **settings: Any) -> Optimizing:
    return lambda parameters: sg.optim.SGD(parameters, lr=lr, **settings)


def loss_for(data: str) -> Callable[[Any, Any], Any]:
    """Cross entropy for classes, squared error for numbers."""
    return sg.losses.cross_entropy if datasets.raw(data, 0).classes else sg.losses.mse


def score_for(data: str) -> str:
    return "accuracy" if datasets.raw(data, 0).classes else "r2"


def training(
    network: str, data: str, build: Builder, optimizer: Optimizing, why: str, **more: Any
) -> Iterator[Training]:
    """One cell, with every seed."""
    settings: dict[str, Any] = {
        "prepare": lambda seed: datasets.load(data, seed),
        "loss": loss_for(data),
        "score": score_for(data),
        "check": reaches(),
    } | more
    for seed in sorted(set(SEEDS) - NOT_HEALTHY.get((network, data), set())):
        yield Training(HEALTHY, network, data, seed, build=build, optimizer=optimizer, why_hard=why, **settings)


def trainings() -> list[Training]:
    """All of them."""
    return [*_plain(), *_deep(), *_norms_and_noise(), *_optimizers(), *_by_hand(), *_data(), *_numbers()]


def _plain() -> Iterator[Training]:
    for data, epochs in (("digits", 12), ("wine", 30), ("cancer", 15), ("iris", 50), ("moons", 40), ("mixture", 15)):
        yield from training("relu 32-16", data, chain(32, 16), adam(), "the ordinary case", epochs=epochs)
    for data in ("digits", "wine", "blobs"):
        yield from training("no hidden layer", data, chain(), adam(1e-2), "linear, where that is enough", epochs=20)
    for data, epochs in (("digits", 20), ("wine", 30), ("iris", 100)):
        yield from training(
            "sigmoid 32-16", data, chain(32, 16, activation="sigmoid", init="xavier"), adam(1e-2),
            "sigmoids make gradients small", epochs=epochs,
        )  # fmt: skip
    for kind in ("leaky relu", "elu", "gelu", "silu"):
        yield from training(f"{kind} 32-16", "digits", chain(32, 16, activation=kind), adam(), "another activation")
    yield from training(
        "tanh 24", "circles", chain(24, activation="tanh", init="xavier"), adam(1e-2), "a plateau first", epochs=40
    )


def _deep() -> Iterator[Training]:
    for data, epochs in (("digits", 15), ("cancer", 8), ("mixture", 12)):
        yield from training(
            "tanh 8 × 24", data, chain(*[24] * 8, activation="tanh", init="xavier"), adam(1e-3),
            "deep, but well initialised", epochs=epochs,
        )  # fmt: skip
    for data, epochs in (("digits", 15), ("wine", 10), ("mixture", 6)):
        yield from training("relu 6 × 64", data, chain(*[64] * 6), adam(1e-3), "deep, with dead units", epochs=epochs)
    yield from training("selu 8 × 32", "digits", chain(*[32] * 8, activation="selu", init="lecun"), adam(1e-3), "deep")
    for data in ("digits", "cancer"):
        yield from training(
            "residual 12 × 32", data, chain(*[32] * 13, residual=0.2), adam(1e-3), "gradients grow a little"
        )
    yield from training(
        "recurrent tanh 8 times", "digits", recurrent(32, 8, activation="tanh", radius=1.0), adam(2e-3),
        "one weight used eight times",
    )  # fmt: skip


def _norms_and_noise() -> Iterator[Training]:
    for data in ("digits", "mixture"):
        yield from training(
            "relu 32-32, batch norm", data, chain(32, 32, norm="batch"), adam(), "biases get no gradient", epochs=15
        )
    for data, epochs in (("digits", 15), ("cancer", 6)):
        yield from training(
            "relu 3 × 48, layer norm", data, chain(*[48] * 3, norm="layer"), adam(2e-3), "normalised", epochs=epochs
        )
    for data in ("digits", "cancer"):
        yield from training(
            "relu 64-32, dropout 0.3", data, chain(64, 32, dropout=0.3), adam(), "zeros, and a noisy loss", epochs=20
        )
    for data, lr in (("iris", 5e-3), ("moons", 1e-2), ("cancer", 2e-3)):
        yield from training(
            "relu 16, batches of 4", data, chain(16), sgd(lr, momentum=0.8), "a very noisy loss",
            batch_size=4, epochs=20,
        )  # fmt: skip
    for data, lr in (("wine", 0.3), ("cancer", 0.3)):
        yield from training(
            "tanh 16, full batch", data, chain(16, activation="tanh", init="xavier"), sgd(lr), "no noise at all",
            batch_size=1000, epochs=200,
        )  # fmt: skip


def _optimizers() -> Iterator[Training]:
    kinds: dict[str, tuple[Optimizing, str]] = {
        "momentum": (sgd(0.03, momentum=0.9), "overshoots now and then"),
        "Nesterov": (sgd(0.03, momentum=0.9, nesterov=True), "looks ahead"),
        "RMSprop": (lambda p: sg.optim.RMSprop(p, lr=2e-3), "no correction of the first steps"),
        "Adagrad": (lambda p: sg.optim.Adagrad(p, lr=5e-2), "ever smaller steps"),
        "AdamW 0.01": (lambda p: sg.optim.AdamW(p, lr=3e-3, weight_decay=1e-2), "weight decay"),
        "L2 0.001": (sgd(0.1, weight_decay=1e-3), "weight decay"),
    }
    for name, (optimizer, why) in kinds.items():
        yield from training(f"relu 32-16, {name}", "digits", chain(32, 16), optimizer, why, epochs=15)
    for name in ("AdamW 0.01", "L2 0.001"):
        optimizer, why = kinds[name]
        yield from training(f"relu 32-16, {name}", "wine", chain(32, 16), optimizer, why, epochs=40)
    yield from training(
        "relu 32-16, penalty 1e-4 in the loss", "digits", chain(32, 16), adam(), "a regulariser", penalty=1e-4
    )
    yield from training("relu 32-16, compiled", "digits", chain(32, 16), adam(), "compiled", compiled=True)


def _by_hand() -> Iterator[Training]:
    for data, norm, epochs in (("digits", 1.5, 15), ("wine", 0.6, 30), ("regression", 2.0, 20)):
        check = both(reaches(), clipped_sometimes(norm))
        hidden = () if data == "regression" else (32, 16)
        yield from training(
            f"{'relu 32-16' if hidden else 'linear'}, clipped to {norm}", data, chain(*hidden),
            sgd(0.02, momentum=0.8), "clipped sometimes", by_hand=True, clip=norm, epochs=epochs, check=check,
        )  # fmt: skip
    yield from training("relu 32-16, by hand", "mixture", chain(32, 16), adam(), "a loop by hand", by_hand=True)
    for data in ("digits", "friedman"):
        yield from training(
            "tanh 32-16, warm-up and cosine", data, chain(32, 16, activation="tanh", init="xavier"), adam(1e-2),
            "tiny steps first and last", by_hand=True, schedule=_warm_cosine, epochs=60 if data == "friedman" else 30,
        )  # fmt: skip


def _warm_cosine(step: int, steps: int) -> float:
    warm = steps // 10
    return (step + 1) / warm if step < warm else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm))


def _data() -> Iterator[Training]:
    for data, epochs in (("digits", 15), ("mixture", 15)):
        yield from training(
            "relu 64-32, a third of the units dead", data, chain(64, 32, bias=_third_dead), adam(),
            "dead units, and enough others", epochs=epochs,
        )  # fmt: skip
    yield from training("relu 32-16", "nine to one", chain(32, 16), adam(), "unbalanced, but easy", epochs=20)
    yield from training("relu 16", "noisy labels", chain(16), adam(2e-3), "one label in ten is wrong", epochs=15)
    for data in ("blobs", "iris"):
        yield from training("relu 32, long", data, chain(32), adam(1e-2), "the loss goes to 0", epochs=60)
    yield from training(
        "relu 32-16, pixels from 0 to 1", "digits", chain(32, 16), adam(), "inputs not centred",
        prepare=lambda seed: _instead("digits", seed, lambda X: X / 16), epochs=15,
    )  # fmt: skip
    yield from training(
        "relu 32, one-hot inputs", "wine", chain(32), adam(1e-2), "most inputs are 0", prepare=_one_hot, epochs=30
    )
    yield from training(
        "relu 24, yes or no", "cancer", chain(24, outputs=1), adam(), "one output",
        prepare=lambda seed: datasets.load("cancer", seed).with_targets(_column),
        loss=sg.losses.binary_cross_entropy, score="signs",
    )  # fmt: skip
    yield from training(
        "relu 24, yes or no", "moons", chain(24, outputs=1), adam(1e-2), "one output",
        prepare=lambda seed: datasets.load("moons", seed).with_targets(_column),
        loss=sg.losses.binary_cross_entropy, score="signs", epochs=30,
    )  # fmt: skip
    yield from training(
        "relu 32-16, label smoothing", "digits", chain(32, 16), adam(), "the loss can't go to 0", loss=_smoothed
    )


def _third_dead(key: Any, shape: Any, dtype: Any) -> Any:
    bias = np.zeros(shape, dtype)
    bias[::3] = -60
    return bias


def _instead(name: str, seed: int, change: Callable[[Any], Any]) -> Data:
    """The raw inputs, changed, with the reference of the standardised ones."""
    data, rows = datasets.load(name, seed), datasets.raw(name, seed).with_inputs(change)
    return data.with_inputs(lambda X: rows.X if X is data.X else rows.X_held)


def _one_hot(seed: int) -> Data:
    data = datasets.load("wine", seed)
    bins = KBinsDiscretizer(5, encode="onehot-dense", strategy="quantile", quantile_method="averaged_inverted_cdf")
    bins.fit(data.X)
    return datasets.refitted(data.with_inputs(bins.transform))


def _column(labels: Any) -> Any:
    return labels.astype(np.float32).reshape(-1, 1)


def _smoothed(outputs: Any, labels: Any) -> Any:
    return sg.losses.cross_entropy(outputs, labels, label_smoothing=0.1)


def _numbers() -> Iterator[Training]:
    for data, width, epochs in (("diabetes", 16, 20), ("regression", 24, 40)):
        yield from training(
            f"relu {width}", data, chain(width, last_init=0.3), adam(3e-3, weight_decay=3e-3),
            "noisy: half of the loss stays", epochs=epochs,
        )  # fmt: skip
    yield from training("linear", "regression", chain(), sgd(0.02), "noisy, and linear", epochs=20)
    yield from training("relu 32", "two targets", chain(32), adam(1e-2), "two targets", epochs=40)
    yield from training("relu 48-24", "friedman", chain(48, 24), adam(1e-2), "noise", epochs=40)
    yield from training(
        "tanh 32, Huber", "friedman", chain(32, activation="tanh", init="xavier"), adam(1e-2), "another loss",
        loss=sg.losses.huber, epochs=60,
    )  # fmt: skip
    yield from training(
        "relu 32, small targets", "two targets", chain(32, last_init=0.05), adam(1e-3), "loss and gradients tiny",
        prepare=lambda seed: datasets.load("two targets", seed).with_targets(lambda y: y / 20), epochs=60,
    )  # fmt: skip
    yield from training(
        "relu 32, targets in their own unit", "two targets", chain(32), adam(3e-2), "loss and gradients large",
        prepare=lambda seed: datasets.load("two targets", seed).with_targets(lambda y: 10 * y), epochs=40,
    )  # fmt: skip
    yield from training(
        "autoencoder 64-16-64", "digits", chain(16, activation="tanh", init="xavier"), adam(1e-2), "many outputs",
        prepare=lambda seed: datasets.compressed(seed, 16), loss=sg.losses.mse, score="r2", epochs=40,
    )  # fmt: skip
