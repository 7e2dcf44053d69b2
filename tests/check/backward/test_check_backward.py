"""`sg.check_backward` from outside: right passes, and the report of a wrong one.

The passes stand in this file as users would write them, because their source is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_layers import forward, line_of, mistakes, right, two_layers

import stepgrad as sg
from stepgrad.check.backward.mistakes import CATALOGUE

# --- the issue's own example


def transposed(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y) / m
    dW2 = A1 @ dZ2.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_transposed_product() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    assert report.ok is False
    assert not report
    (found,) = report.findings
    assert found.gradient == "dW2"
    assert found.line == line_of(transposed, "dW2 = ")
    assert found.code == "dW2 = A1 @ dZ2.T"
    assert found.mistake == "transposed"
    assert found.candidates[0] == "transposed"
    assert found.fix == "dW2 = dZ2 @ A1.T"
    assert found.file is not None
    assert Path(found.file) == Path(__file__)
    assert found.evidence


def test_report_as_it_is_read() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    text = repr(report)
    assert f"dW2 is wrong (line {line_of(transposed, 'dW2 = ')}):  dW2 = A1 @ dZ2.T" in text
    assert "it is the transpose of the gradient: shape (3, 2), W2 has (2, 3)" in " ".join(text.split())
    assert "write:  dW2 = dZ2 @ A1.T" in text
    assert "Everything else agrees with finite differences (3 gradients" in text


def test_report_of_each_gradient() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    by_name = {g.name: g for g in report.gradients}
    assert set(by_name) == {"dW1", "db1", "dW2", "db2"}
    assert [name for name, g in by_name.items() if not g.ok] == ["dW2"]
    assert by_name["dW2"].of == "W2"
    assert by_name["dW2"].shape == (2, 3)
    assert by_name["dW2"].error > 0.1
    assert all(g.error < 1e-9 for g in report.gradients if g.ok)
    assert report.max_error == max(g.error for g in report.gradients if g.ok)
    assert report.difference_error < 1e-5
    assert report.points >= 3


# --- right passes, in the styles that people write


def right_as_tuple(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    gradients = right(X, Y, W2, cache)
    dW1, db1, dW2, db2 = gradients["dW1"], gradients["db1"], gradients["dW2"], gradients["db2"]
    return dW1, db1, dW2, db2


def right_as_list(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    return list(right_as_tuple(X, Y, W2, cache))


def right_in_place(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = Z2 - Y
    dZ2 *= 2 / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = np.sum(dZ2, axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2
    dZ1[Z1 <= 0] = 0
    return {"W1": dZ1 @ X.T, "b1": np.sum(dZ1, axis=1, keepdims=True), "W2": dW2, "b2": db2}


def right_with_mean_in_products(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y)
    dW2 = dZ2 @ A1.T / m
    db2 = dZ2.sum(axis=1, keepdims=True) / m
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T / m
    db1 = dZ1.sum(axis=1, keepdims=True) / m
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def right_at_zero_inclusive(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dZ1 = W2.T @ dZ2 * (Z1 >= 0)
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def make_closure() -> Callable[..., Any]:
    factor = 2.0

    def backward(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
        Z1, A1, Z2 = cache
        dZ2 = factor * (Z2 - Y) / X.shape[1]
        dA1 = W2.T @ dZ2
        dZ1 = np.where(Z1 > 0, dA1, 0)
        dW2, dW1 = dZ2 @ A1.T, dZ1 @ X.T
        db2, db1 = dZ2.sum(axis=1, keepdims=True), dZ1.sum(axis=1, keepdims=True)
        return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}

    return backward


RIGHT = [
    right,
    right_as_tuple,
    right_as_list,
    right_in_place,
    right_with_mean_in_products,
    right_at_zero_inclusive,
    make_closure(),
]


@pytest.mark.parametrize("backward", RIGHT, ids=lambda f: f.__qualname__.partition(".")[0])
def test_right_passes(backward: Callable[..., Any]) -> None:
    report = sg.check_backward(forward, backward, two_layers())
    assert report.ok is True, report
    assert report
    assert report.findings == ()
    assert len(report.gradients) == 4
    assert report.max_error < 1e-9


def test_kinks_at_zero_weights_are_no_mistake() -> None:
    """With W1 = 0 and b1 = 0 every unit sits exactly at relu's kink, where any slope from 0 to 1 is right."""
    inputs = two_layers()
    inputs["W1"][:], inputs["b1"][:] = 0.0, 0.0
    assert sg.check_backward(forward, right, inputs).ok
    assert sg.check_backward(forward, right_at_zero_inclusive, inputs).ok


def test_wrong_at_zero_biases_too() -> None:
    inputs = two_layers()
    inputs["b1"][:], inputs["b2"][:] = 0.0, 0.0
    assert mistakes(sg.check_backward(forward, transposed, inputs)) == [("dW2", "transposed")]


# --- forwards of other kinds


def forward_in_place(X: Any, Y: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    cache = {}
    Z1 = W1 @ X
    Z1 += b1
    cache["Z1"] = Z1
    cache["A1"] = np.maximum(Z1, 0)
    Z2 = W2 @ cache["A1"]
    Z2 += b2
    cache["Z2"] = Z2
    return np.sum((Z2 - Y) ** 2) / X.shape[1], cache


def of_dict_cache(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    return right(X, Y, W2, (cache["Z1"], cache["A1"], cache["Z2"]))


def preactivation_of_dict_cache(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    dZ2 = 2 * (cache["Z2"] - Y) / X.shape[1]
    dW2 = dZ2 @ cache["Z1"].T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (cache["Z1"] > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_cache_that_is_filled_in_place() -> None:
    assert sg.check_backward(forward_in_place, of_dict_cache, two_layers()).ok
    report = sg.check_backward(forward_in_place, preactivation_of_dict_cache, two_layers())
    assert mistakes(report) == [("dW2", "preactivation-for-activation")]
    assert report.findings[0].fix == 'dW2 = dZ2 @ cache["A1"].T'


def unrecordable_forward(x: Any, w: Any) -> Any:
    z = x @ w
    loss = sum(math.log(1 + float(v) ** 2) for v in z)
    return loss, z


def right_of_logarithms(x: Any, w: Any, z: Any) -> Any:
    dz = 2 * z / (1 + z**2)
    dw = x.T @ dz
    dx = np.outer(dz, w)
    return {"dw": dw, "dx": dx}


def half_of_logarithms(x: Any, w: Any, z: Any) -> Any:
    dz = 2 * z / (1 + z**2)
    dw = x.T @ dz / 2
    dx = np.outer(dz, w)
    return {"dw": dw, "dx": dx}


def test_forward_that_cannot_be_recorded_is_compared_with_differences() -> None:
    rng = np.random.default_rng(2)
    inputs = {"x": rng.normal(size=(5, 3)), "w": rng.normal(size=3)}
    report = sg.check_backward(unrecordable_forward, right_of_logarithms, inputs)
    assert report.ok, report
    assert "differences" in report.reference
    wrong = sg.check_backward(unrecordable_forward, half_of_logarithms, inputs)
    (found,) = wrong.findings
    assert (found.gradient, found.line) == ("dw", line_of(half_of_logarithms, "dw = "))
    assert [g.name for g in wrong.gradients if not g.ok] == ["dw"]


# --- the page about it


def test_the_page_lists_every_mistake() -> None:
    page = (Path(__file__).parents[3] / "docs" / "wrong-gradient.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- catalogue: begin -->")[2].partition("<!-- catalogue: end -->")[0]
    rows = [f"| [{name}](mistakes.md#{name}) | {mistake.produces} |" for name, mistake in CATALOGUE.items()]
    assert [line for line in listed.splitlines() if line.startswith("| [")] == rows


def test_forward_that_raises_or_is_not_finite_is_told_in_three_parts() -> None:
    inputs = two_layers()
    with pytest.raises(sg.errors.ArgumentError, match=r"forward\(\) raised ValueError: .*\n  at two_layers.py:\d+: "):
        sg.check_backward(forward, right, {**inputs, "W2": np.ones((1, 50))})
    with pytest.raises(sg.errors.ArgumentError, match="W2 of right hold NaN or infinity"):
        sg.check_backward(forward, right, {**inputs, "W2": np.full_like(inputs["W2"], np.nan)})
