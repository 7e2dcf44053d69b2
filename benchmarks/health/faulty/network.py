"""Faults in the network: its depth, its initial values, its units, and what no gradient gets to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.health.checks import both, grows, harmed, saturated, shrinks, silent, unchanged
from benchmarks.health.faulty.planting import planted
from benchmarks.health.healthy import adam, sgd
from benchmarks.health.networks import between, chain, chain_of, recurrent, with_spare
from benchmarks.health.trainings import Training


def trainings() -> list[Training]:
    """All of them."""
    return [*_vanishing(), *_exploding(), *_dead(), *_saturation(), *_initialisation(), *_unreached()]


def _vanishing() -> Iterator[Training]:
    check = both(shrinks(), harmed())
    for data, width in (("digits", 32), ("wine", 24), ("mixture", 24), ("blobs", 16)):
        yield from planted(
            "vanishing-gradients", f"sigmoid 7 × {width}", data,
            chain(*[width] * 7, activation="sigmoid", init="xavier"), sgd(0.1, momentum=0.9), check,
        )  # fmt: skip
    for data in ("digits", "cancer", "mixture"):
        yield from planted(
            "vanishing-gradients", "tanh 8 × 24, weights small", data, chain(*[24] * 8, activation="tanh", init=0.25),
            sgd(0.1), check, also=("poor-initialisation",),
        )  # fmt: skip
    yield from planted(
        "vanishing-gradients", "recurrent tanh 20 times", "digits", recurrent(32, 20, activation="tanh", radius=0.6),
        sgd(0.1), check, also=("poor-initialisation",),
    )  # fmt: skip
    yield from planted(
        "vanishing-gradients", "relu 10 × 32, default values", "mixture", chain(*[32] * 10, init="default"), sgd(0.05),
        check, also=("poor-initialisation",),
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
            "exploding-gradients", "recurrent relu 15 times", data,
            recurrent(32, 15, activation="leaky relu", radius=2.2), sgd(1e-2), check, also=also,
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


def _unreached() -> Iterator[Training]:
    spare, first = ("spare.weight", "spare.bias"), ("0.0.weight", "0.0.bias")
    for data in ("digits", "wine", "friedman", "moons"):
        yield from planted(
            "unused-parameters", "relu 32-16 and a spare layer", data, with_spare(chain(32, 16)), adam(),
            unchanged(*spare), by_hand=True, left_out=spare, also=("frozen-parameters", "disconnected-parameters"),
        )  # fmt: skip
    for data in ("digits", "mixture", "diabetes", "iris", "wine", "friedman"):
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
