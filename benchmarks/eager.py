"""Eager execution: what recording costs on top of NumPy, and a whole training step against PyTorch's."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import stepgrad as sg
from benchmarks.timing import alternate, alternate_processes

BATCH, SIZES = 64, (64, 128, 64, 10)


def overhead() -> list[dict[str, Any]]:
    """Ops on a small tensor, recorded and with their backward-pass values kept, over NumPy's own calls."""
    rows = []
    array = np.ones((4, 4), np.float32)
    x, y = sg.tensor(array), sg.tensor(array * 2)
    other, row = array * 2, np.ones(4, np.float32)
    r = sg.tensor(row)
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "x + y": (lambda: array + other, lambda: x + y),
        "x * y": (lambda: array * other, lambda: x * y),
        "x + row": (lambda: array + row, lambda: x + r),
        "x * 2.0": (lambda: array * 2.0, lambda: x * 2.0),
        "np.exp(x)": (lambda: np.exp(array), lambda: np.exp(x)),
        "sg.tanh(x)": (lambda: np.tanh(array), lambda: sg.tanh(x)),
        "sg.relu(x)": (lambda: np.maximum(array, 0), lambda: sg.relu(x)),
    }
    for name, (plain, recorded) in cases.items():
        timings, _ = alternate({"numpy": plain, "stepgrad": recorded})
        extra = timings["stepgrad"].median - timings["numpy"].median
        rows.append(
            {
                "op": name,
                "numpy_us": timings["numpy"].median * 1e6,
                "stepgrad_us": timings["stepgrad"].median * 1e6,
                "extra_us": extra * 1e6,
            }
        )
    return rows


def chain() -> list[dict[str, Any]]:
    """Chains of equations, forward and backward: the time grows with their number, and nothing recurses."""
    rows = []
    for length in (25_000, 50_000, 100_000):
        start = time.perf_counter()
        x = y = sg.tensor(0.5)
        for _ in range(length):
            y = y * 1.0
        middle = time.perf_counter()
        sg.backward(y, x)
        end = time.perf_counter()
        rows.append({"equations": length, "forward_s": middle - start, "backward_s": end - middle})
    return rows


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[-1], BATCH)


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """The same initial weights for everybody."""
    rng = np.random.default_rng(1)
    pairs = pairwise(SIZES)
    return [((rng.standard_normal((n, m)) / np.sqrt(n)).astype(np.float32), np.zeros(m, np.float32)) for n, m in pairs]


def stepgrad_step() -> Callable[[], float]:
    """One eager training step of the MLP with Adam; returns its loss."""
    X, labels = data()
    layers: list[Any] = []
    for W, b in weights():
        linear = sg.nn.Linear(*W.shape)
        linear.weight.assign(W)
        linear.bias.assign(b)
        layers += [linear, sg.nn.ReLU()]
    model = sg.nn.Sequential(*layers[:-1])
    parameters = model.parameters()
    opt = sg.optim.Adam(parameters, lr=1e-3)

    def step() -> float:
        loss = sg.losses.cross_entropy(model(X), labels)
        opt.step(sg.backward(loss, parameters))
        return loss.item()

    return step


def torch_step() -> Callable[[], float] | None:
    """The same in eager PyTorch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    X, labels = (torch.from_numpy(a) for a in data())
    layers: list[Any] = []
    for W, b in weights():
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> float:
        loss = torch.nn.functional.cross_entropy(model(X), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.item()

    return step


def training_step() -> list[dict[str, Any]]:
    """The MLP 64-128-64-10 at batch 64 with Adam, everybody at the same losses."""
    makers = {"stepgrad": "benchmarks.eager:stepgrad_step", "PyTorch eager": "benchmarks.eager:torch_step"}
    timings, ratios, losses = alternate_processes(makers)
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["stepgrad"], rtol=1e-4, err_msg=f"{name} does other work")
    return [
        {
            "library": name,
            "median_us": timings[name].median * 1e6,
            "low_us": timings[name].low * 1e6,
            "high_us": timings[name].high * 1e6,
            "ratio": ratios[name],
        }
        for name in timings
    ]
