"""Kinks are named, counted apart, and never taken for mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stepgrad as sg

RNG = np.random.default_rng(0)


def piecewise_max(x: Any) -> Any:
    return sg.max(x, axis=1)


AT_KINKS = {
    "relu at 0": (lambda x: sg.relu(x), [0.0, 1.0, -1.0], "relu", (0,)),
    "abs at 0": (lambda x: sg.abs(x), [2.0, 0.0], "absolute", (1,)),
    "a tie in max": (lambda x: sg.max(x), [1.0, 3.0, 3.0], "max", ()),
    "a tie in a row": (piecewise_max, [[1.0, 2.0], [2.0, 2.0]], "max", (1,)),
    "a tie in maximum": (lambda x: sg.maximum(x, 1.0), [1.0, 2.0], "maximum", (0,)),
    "clip at its bound": (lambda x: sg.clip(x, -1.0, 1.0), [0.0, 1.0], "clip", (1,)),
    "where at its bound": (lambda x: sg.where(x > 0, 3 * x, x), [0.0, 1.0], "greater", (0,)),
    "sorting equals": (lambda x: sg.sort(x) * np.array([1.0, 2.0, 3.0]), [2.0, 2.0, 1.0], "sort", (1,)),
    "floor of a whole number": (lambda x: sg.floor(x) * x, [2.0, 2.5], "floor", (0,)),
    "sign of 0": (lambda x: sg.sign(x) * (x + 1), [0.0, 1.0], "sign", (0,)),
    "hardtanh at 1": (lambda x: sg.hardtanh(x), [0.5, 1.0], "hardtanh", (1,)),
    "sqrt at the edge of its domain": (lambda x: sg.sqrt(x), [4.0, 0.0], "sqrt", (1,)),
    "the norm of 0": (lambda x: sg.norm(x), [0.0, 0.0], "norm", ()),
    "relu minus max": (lambda x: sg.sum(sg.relu(x) - sg.maximum(x, 0.0)), [0.0, 1.0], "relu", (0,)),
}


@pytest.mark.parametrize("name", AT_KINKS)
def test_a_kink_is_named_and_is_no_mistake(name: str) -> None:
    fn, x, op, element = AT_KINKS[name]
    report = sg.check_gradients(fn, np.array(x))
    assert report.ok, report
    assert (op, element) in [(k.op, k.element) for k in report.kinks], report
    kink = report.kinks[0]
    assert kink.file == __file__
    assert "sg." in kink.code
    text = str(report)
    assert text.startswith("gradients agree")
    assert "where there is no derivative to compare with" in text
    assert f"test_check_kinks.py:{kink.line}" in text


def test_elements_at_kinks_are_counted_apart() -> None:
    report = sg.check_gradients(lambda x: sg.sum(sg.relu(x) * x + 3 * sg.relu(x)), np.array([0.0, 1.0, 0.0, -2.0]))
    assert report.ok
    assert (report.arguments[0].count, report.arguments[0].kinks) == (2, 2)
    assert "2 elements, central differences, 2 more at kinks" in str(report)


def test_a_kink_close_by_is_avoided_by_smaller_steps() -> None:
    x = np.array([1e-6, -3e-7, 1.0])
    report = sg.check_gradients(lambda x, c: sg.sum(sg.relu(x) * c), x, np.array([1.0, 2.0, 3.0]), wrt=0)
    assert report.ok, report
    assert not report.kinks
    assert report.arguments[0].count == 3


def test_directions_full_of_kinks_are_compared_beside_them() -> None:
    W = RNG.standard_normal((30, 20))
    x = RNG.standard_normal((8, 30))
    x[3] = 0
    report = sg.check_gradients(lambda x, W, b: sg.mean(sg.square(sg.relu(x @ W + b))), x, W, np.zeros(20))
    assert report.ok, report
    assert report.kinks
    assert all(a.count for a in report.arguments)
    x = np.zeros((30, 20))
    report = sg.check_gradients(lambda x: sg.sum(sg.relu(x) * np.arange(20)), x)
    assert report.ok, report
    assert report.arguments[0].count == 8
    assert "compared at a random point nearby" in str(report)


def test_a_wrong_gradient_beside_kinks_is_wrong() -> None:
    wrong = sg.custom_rule(lambda x: sg.relu(x), lambda g, out, x: g * (x > -0.5))
    report = sg.check_gradients(lambda x: sg.sum(wrong(x)), np.array([0.0, 1.0, -0.25]))
    assert not report.ok
    assert report.first_wrong is not None
    assert report.first_wrong.op == registry_name(wrong)


def registry_name(rule: Any) -> str:
    return rule.__name__


def test_a_smooth_function_has_no_kinks_however_curved() -> None:
    x = np.array([0.3, -0.7, 1e-8, 2.0, 0.0])
    for fn in (
        lambda x: sg.sum(sg.tanh(1e5 * x)),
        lambda x: sg.sum(x**4),
        lambda x: sg.sum(sg.exp(30 * x)),
        lambda x: sg.sum(sg.softplus(50 * x)),
        lambda x: sg.sum(sg.elu(x)) + sg.logsumexp(1e3 * x),
        lambda x: sg.prod(x) + sg.var(x + 1e4),
    ):
        report = sg.check_gradients(fn, x)
        assert report.ok, report
        assert not report.kinks, report


coarse = st.integers(-4, 4).map(lambda n: n / 2)  # many zeros, ties and whole numbers
matrices = arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=coarse)
PIECEWISE = [
    sg.relu,
    sg.abs,
    sg.hardtanh,
    lambda x: sg.leaky_relu(x),
    lambda x: sg.max(x, axis=0) * 2,
    lambda x: sg.min(x, axis=1, keepdims=True) + x,
    lambda x: sg.maximum(x, x[::-1]),
    lambda x: sg.clip(x, -1.0, 1.0),
    lambda x: sg.where(x > 0.5, x * x, x),
    lambda x: sg.sort(x, axis=1) * np.arange(x.shape[1]),
    lambda x: sg.floor(x) * x,
    lambda x: sg.sign(x) * x * x + x,
    lambda x: sg.tanh(x) * (x >= 1),
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(matrices, st.lists(st.sampled_from(PIECEWISE), min_size=1, max_size=3))
def test_piecewise_functions_on_coarse_numbers_never_cry_wolf(x: np.ndarray, parts: list[Any]) -> None:
    def fn(x: Any) -> Any:
        for part in parts:
            x = part(x)
            x = sg.reshape(x, (1, -1)) if x.ndim < 2 else x
        return x

    report = sg.check_gradients(fn, x)
    assert report.ok, report


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(["relu", "abs", "leaky_relu", "hardtanh"]))
def test_networks_with_kinks_at_random_values_never_cry_wolf(seed: int, depth: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((6, 6)) for _ in range(depth)]

    def fn(x: Any, *weights: Any) -> Any:
        for W in weights:
            x = getattr(sg, activation)(x @ W)
        return sg.mean(x, axis=0)

    report = sg.check_gradients(fn, np.round(rng.standard_normal((5, 6)), 1), *weights)
    assert report.ok, report
