"""Healthy trainings, each with something that a simple rule would take for a fault: nothing may be said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.health.diagnosis import Diagnosis
from stepgrad.nn import initialise

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 10), dtype=np.float32)
LABELS = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
NUMBERS = (np.sin(X[:, :1]) + X[:, 1:2] + 0.1 * RNG.standard_normal((400, 1))).astype(np.float32)


def chain(depth: int, activation: Any, init: Any = None, last: Any = None, outputs: int = 2, width: int = 32) -> Any:
    layers: list[Any] = []
    for i in range(depth):
        layers += [sg.nn.Linear(width if i else 10, width, key=i, weight_init=init), activation()]
    return sg.nn.Sequential(*layers, sg.nn.Linear(width, outputs, key=99, weight_init=last))


def watched(model: Any, loss: Any, optimizer: Any, y: Any, **settings: Any) -> Diagnosis:
    health = sg.health(model, loss, optimizer, every=5)
    sg.fit(model, loss, optimizer, (X, y), callbacks=[health], progress=False, **{"epochs": 20, **settings})
    return health.report()  # type: ignore[no-any-return]


class Residual(sg.nn.Module):
    """Four branches whose last layers begin at 0 (Goyal et al. 2017, section 5.1)."""

    def __init__(self) -> None:
        self.first = sg.nn.Linear(10, 32, key=0)
        self.a = [sg.nn.Linear(32, 32, key=i) for i in range(4)]
        self.b = [sg.nn.Linear(32, 32, key=9 + i, weight_init=initialise.zeros) for i in range(4)]
        self.last = sg.nn.Linear(32, 2, key=99)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(sg.relu(a(x)))
        return self.last(x)


def classes(model: Any, optimizer: Callable[[Any], Any], **settings: Any) -> Diagnosis:
    return watched(model, sg.losses.cross_entropy, optimizer(model.parameters()), LABELS, **settings)


def adam(lr: float) -> Callable[[Any], Any]:
    return lambda parameters: sg.optim.Adam(parameters, lr=lr)


def sgd(lr: float, **more: Any) -> Callable[[Any], Any]:
    return lambda parameters: sg.optim.SGD(parameters, lr=lr, **more)


def normed() -> Any:
    return sg.nn.Sequential(
        sg.nn.Linear(10, 64, key=0), sg.nn.LayerNorm(64), sg.nn.ReLU(), sg.nn.Dropout(0.2),
        sg.nn.Linear(64, 64, key=1), sg.nn.LayerNorm(64), sg.nn.ReLU(), sg.nn.Linear(64, 2, key=2),
    )  # fmt: skip


def numbers() -> Diagnosis:
    model = chain(2, sg.nn.Tanh, outputs=1)
    return watched(model, sg.losses.mse, adam(0.005)(model.parameters()), NUMBERS)


def imbalanced() -> Diagnosis:
    """One in twelve, and easily told apart."""
    model, y = chain(1, sg.nn.ReLU), (X[:, 0] > 1.4).astype(int)
    return watched(model, sg.losses.cross_entropy, adam(0.02)(model.parameters()), y)


def by_hand(clip: float) -> Diagnosis:
    model, loss = chain(2, sg.nn.ReLU), sg.losses.cross_entropy
    optimizer = sg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def prepare(grads: Any) -> Any:
        return sg.optim.clip_by_norm(grads, clip)[0]

    health = sg.health(model, loss, optimizer, prepare=prepare, every=5)
    for step in range(250):
        rows = np.random.default_rng(step).permutation(400)[:32]
        health.before(X[rows], LABELS[rows])
        value = loss(model(X[rows]), LABELS[rows])
        optimizer.step(prepare(sg.backward(value, model.parameters())))
        health.after(value)
    return health.report()  # type: ignore[no-any-return]


HEALTHY: dict[str, Callable[[], Diagnosis]] = {
    "gradient descent": lambda: classes(chain(1, sg.nn.ReLU), sgd(0.2)),
    "momentum": lambda: classes(chain(2, sg.nn.Tanh), sgd(0.03, momentum=0.9)),
    "adam, until the loss is almost 0": lambda: classes(chain(2, sg.nn.ReLU), adam(0.01), epochs=40),
    "a little weight decay": lambda: classes(chain(2, sg.nn.ReLU), sgd(0.2, weight_decay=1e-3)),
    "decoupled weight decay": lambda: classes(
        chain(2, sg.nn.GELU), lambda p: sg.optim.AdamW(p, lr=0.005, weight_decay=0.1)
    ),
    "deep tanh": lambda: classes(chain(8, sg.nn.Tanh, initialise.xavier_normal), adam(0.002)),
    "deep relu": lambda: classes(chain(8, sg.nn.ReLU, initialise.kaiming_normal), adam(0.002)),
    "last layer of zeros": lambda: classes(chain(2, sg.nn.ReLU, last=initialise.zeros), adam(0.005)),
    "branches that begin at 0": lambda: classes(Residual(), adam(0.003)),
    "norms and dropout": lambda: classes(normed(), adam(0.005)),
    "all rows at once": lambda: classes(chain(1, sg.nn.Tanh), sgd(0.5), batch_size=400, epochs=150),
    "numbers": numbers,
    "a rare class": imbalanced,
    "clipped now and then": lambda: by_hand(1.0),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_healthy_training(name: str) -> None:
    diagnosis = HEALTHY[name]()
    assert diagnosis.names == (), str(diagnosis)
    assert diagnosis.run.losses[-1] < 0.8 * diagnosis.run.losses[0], "it is meant to train well"
