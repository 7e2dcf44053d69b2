"""Eager execution: what recording costs on top of NumPy, and that its time grows with the number of equations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import stepgrad as sg
from stepgrad.bench.timing import alternate


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
