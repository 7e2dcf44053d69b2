"""Activations and softmax: values, tails, entries left out, axes, and what generated source will carry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import special

import stepgrad as sg
from stepgrad.errors import ArgumentError

X = np.array([-7.5, -3.0, -1.0, -0.2, 0.0, 0.4, 1.0, 3.0, 8.0])
NORMAL = special.ndtr(X)
LOGISTIC = special.expit(X)


@pytest.fixture(autouse=True)
def _no_overflow() -> Iterator[None]:
    """Overflow, and anything that gives NaN, is an error in every test here."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


VALUES: list[tuple[str, Any, Any]] = [
    ("relu", sg.relu, np.maximum(X, 0)),
    ("relu6", sg.relu6, np.clip(X, 0, 6)),
    ("leaky_relu", sg.leaky_relu, np.where(X > 0, X, 0.01 * X)),
    ("leaky_relu 0.2", lambda x: sg.leaky_relu(x, negative_slope=0.2), np.where(X > 0, X, 0.2 * X)),
    ("elu", sg.elu, np.where(X > 0, X, np.expm1(X))),
    ("elu 2", lambda x: sg.elu(x, alpha=2), np.where(X > 0, X, 2 * np.expm1(X))),
    ("celu 2", lambda x: sg.celu(x, alpha=2), np.where(X > 0, X, 2 * np.expm1(X / 2))),
    ("selu", sg.selu, 1.0507009873554805 * np.where(X > 0, X, 1.6732632423543772 * np.expm1(X))),
    ("gelu", sg.gelu, X * NORMAL),
    (
        "gelu tanh",
        lambda x: sg.gelu(x, approximate="tanh"),
        X / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
    ),
    ("silu", sg.silu, X * LOGISTIC),
    ("mish", sg.mish, X * np.tanh(np.log1p(np.exp(X)))),
    ("softplus", sg.softplus, np.log1p(np.exp(X))),
    ("softsign", sg.softsign, X / (1 + np.abs(X))),
    ("sigmoid", sg.sigmoid, LOGISTIC),
    ("log_sigmoid", sg.log_sigmoid, -np.log1p(np.exp(-X))),
    ("hardtanh", sg.hardtanh, np.clip(X, -1, 1)),
    ("hardtanh -2 3", lambda x: sg.hardtanh(x, -2, 3), np.clip(X, -2, 3)),
    ("hardsigmoid", sg.hardsigmoid, np.clip(X / 6 + 0.5, 0, 1)),
    ("hardswish", sg.hardswish, X * np.clip(X / 6 + 0.5, 0, 1)),
]


@pytest.mark.parametrize(("function", "expected"), [pytest.param(*case[1:], id=case[0]) for case in VALUES])
def test_values(function: Callable[..., Any], expected: np.ndarray) -> None:
    np.testing.assert_allclose(function(sg.tensor(X)).numpy(), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("function", "x", "value", "derivative"),
    [
        (sg.sigmoid, -700.0, math.exp(-700), math.exp(-700)),
        (sg.sigmoid, -1e6, 0.0, 0.0),
        (sg.sigmoid, 1e6, 1.0, 0.0),
        (sg.log_sigmoid, -1e6, -1e6, 1.0),
        (sg.log_sigmoid, 700.0, -math.exp(-700), math.exp(-700)),
        (sg.softplus, -700.0, math.exp(-700), math.exp(-700)),
        (sg.softplus, 1e6, 1e6, 1.0),
        (sg.silu, -700.0, -700 * math.exp(-700), -699 * math.exp(-700)),
        (sg.silu, 1e6, 1e6, 1.0),
        (sg.mish, -700.0, -700 * math.exp(-700), -699 * math.exp(-700)),
        (sg.mish, 1e6, 1e6, 1.0),
        (sg.gelu, -30.0, -30 * special.ndtr(-30.0), special.ndtr(-30.0) - 30 * math.exp(-450) / math.sqrt(2 * math.pi)),
        (sg.gelu, 1e6, 1e6, 1.0),
        (lambda x: sg.gelu(x, "tanh"), -1e100, 0.0, 0.0),
        (lambda x: sg.gelu(x, "tanh"), 1e100, 1e100, 1.0),
        (sg.elu, -1e6, -1.0, 0.0),
        (sg.elu, 1e6, 1e6, 1.0),
        (sg.selu, 1e6, 1.0507009873554805e6, 1.0507009873554805),
        (sg.celu, 1e6, 1e6, 1.0),
        (sg.softsign, -1e6, -1e6 / (1 + 1e6), 1 / (1 + 1e6) ** 2),
    ],
)
def test_tails(function: Callable[..., Any], x: float, value: float, derivative: float) -> None:
    with np.errstate(over="ignore"):  # the cube of 1e100 inside tanh is 1 all the same
        result, slope = sg.value_and_grad(function)(np.float64(x))
    np.testing.assert_allclose([result, slope], [value, derivative], rtol=2e-12)


# --- softmax, log_softmax, logsumexp

SOFTMAX = {"softmax": special.softmax, "log_softmax": special.log_softmax, "logsumexp": special.logsumexp}
MASKED = np.array([[1.0, -np.inf, 2.0], [-np.inf, -np.inf, 0.5], [1000.0, -1000.0, -np.inf]])


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("axis", [0, 1, -1, 2, (0, 2), (2, 1), None])
def test_softmax_over_any_axes(name: str, axis: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    out = getattr(sg, name)(sg.tensor(x), axis=axis)
    np.testing.assert_allclose(out.numpy(), SOFTMAX[name](x, axis=axis), rtol=1e-13, atol=1e-15)


def test_softmax_and_its_logarithm_take_the_last_axis_and_logsumexp_all() -> None:
    x = sg.tensor(np.arange(6.0).reshape(2, 3))
    np.testing.assert_allclose(sg.softmax(x).numpy().sum(axis=-1), [1, 1])
    np.testing.assert_allclose(np.exp(sg.log_softmax(x).numpy()).sum(axis=-1), [1, 1])
    assert sg.logsumexp(x).shape == ()
    assert sg.logsumexp(x, axis=0, keepdims=True).shape == (1, 3)


@pytest.mark.parametrize("shift", [1000.0, -1000.0, 1e6, -1e15])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_numbers_do_not_overflow(shift: float, dtype: Any) -> None:
    x = np.array([0.0, 1.0, 2.0], dtype) + dtype(shift)
    near = x - dtype(shift)
    np.testing.assert_allclose(sg.softmax(x).numpy(), special.softmax(near), rtol=1e-6)
    np.testing.assert_allclose(sg.log_softmax(x).numpy(), special.log_softmax(near), rtol=1e-6)
    np.testing.assert_allclose(sg.logsumexp(x).numpy(), special.logsumexp(near) + dtype(shift), rtol=1e-6)
    weights = np.array([1.0, 2.0, 4.0], dtype)
    for function in (sg.softmax, sg.log_softmax, sg.logsumexp):
        far, expected = (
            sg.grad(lambda v, f=function: (f(v) * weights).sum())(point) for point in (x, near)
        )  # moving all of them together changes nothing
        np.testing.assert_allclose(far, expected, rtol=1e-5, atol=1e-6)


def test_numbers_far_apart() -> None:
    x = np.array([1000.0, -1000.0])
    np.testing.assert_array_equal(sg.softmax(x).numpy(), [1, 0])
    np.testing.assert_array_equal(sg.log_softmax(x).numpy(), [0, -2000])
    assert float(sg.logsumexp(x)) == 1000
    np.testing.assert_array_equal(sg.grad(lambda v: sg.log_softmax(v)[1])(x), [-1, 1])


def test_entries_of_minus_infinity_are_left_out() -> None:
    out = sg.softmax(sg.tensor(MASKED)).numpy()
    np.testing.assert_allclose(out[0], [1 / (1 + math.e), 0, math.e / (1 + math.e)], rtol=1e-15)
    np.testing.assert_array_equal(out[1:], [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_allclose(sg.logsumexp(MASKED, axis=1).numpy(), special.logsumexp(MASKED, axis=1))
    np.testing.assert_allclose(sg.log_softmax(MASKED).numpy(), special.log_softmax(MASKED, axis=1))


@pytest.mark.parametrize("function", [sg.softmax, lambda x: sg.logsumexp(x, axis=-1, keepdims=True)])
def test_gradients_with_entries_left_out(function: Callable[..., Any]) -> None:
    """They are those without these entries, and 0 there; to second order."""
    row, weights = MASKED[:1], np.array([[1.0, 0.0, 4.0]])

    def loss(x: Any) -> Any:
        return (function(x) ** 2 * (weights if x.shape == (1, 3) else weights[:, [0, 2]])).sum()

    gradient, hessian = sg.grad(loss)(row), sg.hessian(loss)(row)[0, :, 0, :]
    np.testing.assert_allclose(gradient[:, [0, 2]], sg.grad(loss)(row[:, [0, 2]]), rtol=1e-13)
    np.testing.assert_allclose(hessian[::2, ::2], sg.hessian(loss)(row[:, [0, 2]])[0, :, 0, :], rtol=1e-12)
    assert gradient[0, 1] == 0
    assert not hessian[1].any()
    assert not hessian[:, 1].any()


def test_a_row_with_all_entries_left_out() -> None:
    row = np.full((1, 3), -np.inf)
    np.testing.assert_array_equal(sg.softmax(row).numpy(), np.zeros((1, 3)))
    np.testing.assert_array_equal(sg.log_softmax(row).numpy(), row)
    np.testing.assert_array_equal(sg.logsumexp(row, axis=1).numpy(), [-np.inf])
    for function in (sg.softmax, sg.log_softmax, sg.logsumexp):
        assert np.isfinite(sg.grad(lambda x, f=function: f(x).sum())(row)).all()
        assert np.isfinite(sg.hvp(lambda x, f=function: sg.exp(f(x)).sum(), row, np.ones((1, 3)))).all()


def test_masked_attention() -> None:
    """Scores masked with where(mask, scores, -inf): gradients are those of the scores that remain."""
    rng = np.random.default_rng(1)
    scores, values = rng.normal(size=(4, 4)), rng.normal(size=(4, 3))
    mask = np.tril(np.ones((4, 4), bool))
    mask[2] = False

    def loss(scores: Any, values: Any) -> Any:
        return (sg.softmax(sg.where(mask, scores, -np.inf)) @ values).sum()

    gradient, of_values = sg.grad(loss, (0, 1))(scores, values)
    assert np.isfinite(gradient).all()
    assert np.isfinite(of_values).all()
    assert not gradient[~mask].any()
    step = 1e-6
    for i, j in ((1, 0), (3, 2)):
        up, down = scores.copy(), scores.copy()
        up[i, j] += step
        down[i, j] -= step
        expected = (float(loss(up, values)) - float(loss(down, values))) / (2 * step)
        assert gradient[i, j] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_infinity_and_nan_stay_visible() -> None:
    with np.errstate(invalid="ignore"):
        assert np.isnan(sg.softmax([np.inf, 0.0]).numpy()).any()
        assert np.isnan(sg.softmax([np.nan, 0.0]).numpy()).all()
    assert float(sg.logsumexp([np.inf, 0.0])) == np.inf


def test_softmax_of_no_numbers_and_of_integers() -> None:
    assert sg.softmax(np.zeros((3, 0))).shape == (3, 0)
    np.testing.assert_array_equal(sg.logsumexp(np.zeros((2, 0)), axis=1).numpy(), [-np.inf, -np.inf])
    np.testing.assert_allclose(sg.softmax([1, 2]).numpy(), special.softmax([1.0, 2.0]))
    assert float(sg.logsumexp(2.5)) == 2.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sg.softmax([[1.0]], axis=2), r"axis=2 .* 2 axes"),
        (lambda: sg.logsumexp([1.0], axis=(0, 0)), "twice"),
        (lambda: sg.gelu([1.0], approximate="exact"), r"approximate='exact'"),
        (lambda: sg.celu([1.0], alpha=0), r"alpha=0"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
