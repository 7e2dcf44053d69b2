"""The same bits, run after run, at any number of threads, and in a scan."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.execute.cpu import plan
from stepgrad.tree import flatten

THREADS = (1, 2, 3, 4)
LONG = {"wide", "one row", "dropout"}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in ("mlp", "layer norm", "wide", "long batch", "one row", "dropout")
]


@pytest.fixture(autouse=True)
def threads_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs, too, are run by as many threads as were asked for."""
    monkeypatch.setattr(plan, "SMALL", 0)


def network(widths: list[int], layers: Callable[[int], list[Any]], optimizer: Any) -> tuple[Callable[..., Any], Any]:
    """A training step, and a function that gives everything it leaves behind."""
    parts: list[Any] = []
    for i, (n, m) in enumerate(pairwise(widths)):
        parts.append(sg.nn.Linear(n, m, key=i))
        if i < len(widths) - 2:
            parts += layers(m)
    model = sg.nn.Sequential(*parts)
    opt = optimizer(model.parameters())

    def step(x: Any, y: Any) -> Any:
        out = model(x)
        loss = sg.losses.cross_entropy(out, y)
        grads = sg.backward(loss, model.parameters())
        opt.step(grads)
        return loss, sg.softmax(out, axis=1), grads

    return step, lambda: [*model.state_dict().values(), *opt.state_dict().values()]


NETWORKS: dict[str, tuple[int, Callable[[], Any]]] = {
    "mlp": (64, lambda: network([33, 65, 17, 10], lambda n: [sg.nn.ReLU()], lambda p: sg.optim.Adam(p, lr=1e-2))),
    "layer norm": (
        37,
        lambda: network(
            [19, 70, 70, 5], lambda n: [sg.nn.LayerNorm(n), sg.nn.GELU()], lambda p: sg.optim.AdamW(p, lr=1e-2)
        ),
    ),
    "wide": (
        24,
        lambda: network([300, 513, 7], lambda n: [sg.nn.Tanh()], lambda p: sg.optim.SGD(p, 0.1, momentum=0.9)),
    ),
    "long batch": (1030, lambda: network([3, 9, 2], lambda n: [sg.nn.SiLU()], lambda p: sg.optim.RMSprop(p, lr=1e-2))),
    "one row": (1, lambda: network([257, 31, 3], lambda n: [sg.nn.Sigmoid()], lambda p: sg.optim.Adagrad(p, lr=0.1))),
    "dropout": (
        40,
        lambda: network([20, 48, 4], lambda n: [sg.nn.Dropout(0.3, key=1), sg.nn.ELU()], lambda p: sg.optim.Adam(p)),
    ),
}


def batches(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    rows, make = NETWORKS[name]
    _, state = make()
    features = state()[0].shape[0]
    rng = np.random.default_rng(0)
    return rng.standard_normal((steps, rows, features)).astype(np.float32), rng.integers(0, 2, (steps, rows))


def bits(values: Any) -> list[bytes]:
    return [np.asarray(v.numpy() if isinstance(v, sg.Tensor) else v).tobytes() for v in flatten(values)[0]]


def after_steps(name: str, threads: int, x: np.ndarray, y: np.ndarray) -> list[bytes]:
    step, state = NETWORKS[name][1]()
    compiled = sg.compile(step, threads=threads, executor="cpu")
    found = [part for xs, ys in zip(x, y, strict=True) for part in bits(compiled(xs, ys))]
    return found + bits(state())


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads(name: str) -> None:
    x, y = batches(name, 3)
    expected = after_steps(name, 1, x, y)
    assert after_steps(name, 1, x, y) == expected, "run after run"
    for threads in THREADS[1:]:
        assert after_steps(name, threads, x, y) == expected, f"{threads} threads"


@pytest.mark.parametrize("name", NAMES)
def test_a_scan_is_repeated_calls(name: str) -> None:
    x, y = batches(name, 4)
    step, state = NETWORKS[name][1]()
    compiled = sg.compile(step, threads=2, executor="cpu")
    rows = [compiled(xs, ys) for xs, ys in zip(x, y, strict=True)]
    called = [
        np.stack(column).tobytes() for column in zip(*[[t.numpy() for t in flatten(r)[0]] for r in rows], strict=True)
    ]
    again, state_again = NETWORKS[name][1]()
    scanned = sg.compile(again, threads=2, executor="cpu").scan(x, y)
    assert bits(scanned) == called
    assert bits(state_again()) == bits(state())


SHAPES = [
    *((1, 9000), (17, 65), (600, 3)),
    *[
        pytest.param(s, marks=pytest.mark.slow)
        for s in ((2, 8193), (3, 130), (64, 64), (65, 33), (129, 257), (1030, 17), (7, 1))
    ],
]


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes(shape: tuple[int, int]) -> None:
    def step(x: Any, w: Any) -> Any:
        h = x @ w
        return (
            *(np.sum(x), np.sum(x, axis=0), np.mean(x, axis=1), np.max(x, axis=0), np.var(x, axis=0)),
            *(sg.softmax(x, axis=1), sg.softmax(x, axis=0), sg.logsumexp(x), np.exp(x) * x - 1),
            *(h, x.T @ h, np.sum(np.tanh(h) * h, axis=0), np.cumsum(x, axis=0)),
        )

    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (shape, (shape[1], 5)))
    found = [bits(sg.compile(step, threads=n, executor="cpu")(x, w)) for n in THREADS]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(600, 33, 3), (64, 40, 1), (4, 100, 50), (33, 300, 5), (17, 16, 4)])
def test_narrow_products(shape: tuple[int, int, int], transposed: bool) -> None:
    """Whether they are dot products does not depend on the threads."""
    rows, inner, columns = shape
    rng = np.random.default_rng(2)
    a = rng.standard_normal((rows, inner)).astype(np.float32)
    b = rng.standard_normal((columns, inner) if transposed else (inner, columns)).astype(np.float32)
    product = lambda a, b: np.tanh(a @ (b.T if transposed else b))
    found = [bits(sg.compile(product, threads=n, executor="cpu")(a, b)) for n in THREADS]
    assert all(each == found[0] for each in found)
