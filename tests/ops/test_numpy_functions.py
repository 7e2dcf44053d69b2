"""Functions composed of others, such as sampled functions and statistics without NaN: NumPy's values, and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, ShapeError

RNG = np.random.default_rng(0)
VECTOR, SHORT, MATRIX, CUBE = (RNG.standard_normal(shape) for shape in ((6,), (3,), (4, 5), (2, 3, 4)))
PLACES = np.cumsum(RNG.random(5) + 0.1)
HOLES = MATRIX.copy()
HOLES[0, 1] = HOLES[2, 3] = HOLES[1] = np.nan


def check(function: Callable[..., Any], *operands: Any) -> None:
    """On tensors `function` gives what it gives on arrays, and its gradient is the slope along a direction."""
    theirs, ours = function(*operands), function(*(sg.tensor(x) for x in operands))
    several = isinstance(theirs, (tuple, list))
    for a, b in zip(theirs, ours, strict=True) if several else [(theirs, ours)]:
        assert isinstance(b, sg.Tensor)
        assert (b.shape, b.dtype) == (np.shape(a), np.asarray(a).dtype)
        tolerance = 1e-5 if b.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(b.numpy(), a, rtol=tolerance, atol=tolerance)
    if any(x.dtype != np.float64 for x in (*operands, *(ours if several else [ours]))):  # too coarse for differences
        return

    def total(*xs: Any) -> Any:
        parts = function(*xs)
        return sum(np.nansum(np.sin(p)) for p in (parts if several else [parts]))

    directions = [np.random.default_rng(1).standard_normal(x.shape) for x in operands]
    slope = (
        total(*(x + 1e-6 * d for x, d in zip(operands, directions, strict=True)))
        - total(*(x - 1e-6 * d for x, d in zip(operands, directions, strict=True)))
    ) / 2e-6
    gradients = sg.grad(total, tuple(range(len(operands))))(*operands)
    along = sum(np.sum(g * d) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(along, slope, rtol=1e-6, atol=1e-7)


# --- sampled functions


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("function", [np.convolve, np.correlate])
def test_convolutions_of_all_lengths(function: Any, mode: str) -> None:
    for n, m in itertools.product(range(1, 6), repeat=2):
        check(lambda a, v: function(a, v, mode), RNG.standard_normal(n), RNG.standard_normal(m))
    check(lambda a, v: function(a, v, mode), np.arange(4), np.array([1, 2]))
    check(lambda a, v: function(a, v, mode), VECTOR.astype(np.float32), SHORT.astype(np.float32))


@pytest.mark.parametrize("edge_order", [1, 2])
@pytest.mark.parametrize(
    "call",
    [
        lambda f, **settings: np.gradient(f, **settings),
        lambda f, **settings: np.gradient(f, 0.5, 2.0, **settings),
        lambda f, **settings: np.gradient(f, 2.0, axis=-1, **settings),
        lambda f, **settings: np.gradient(f, axis=(1, 0), **settings),
        lambda f, **settings: np.gradient(f, PLACES[:4], 2.0, **settings),
    ],
)
def test_slopes_of_samples(call: Any, edge_order: int) -> None:
    check(lambda f: call(f, edge_order=edge_order), MATRIX)
    check(lambda f: call(f, edge_order=edge_order), MATRIX.astype(np.float32))
    check(lambda f: call(f, edge_order=edge_order), np.arange(20).reshape(4, 5) ** 2)


def test_slopes_depend_on_the_places_of_samples() -> None:
    check(lambda f, x: np.gradient(f, x, axis=1), MATRIX, PLACES)
    check(lambda f: np.gradient(f), SHORT[:2])


@pytest.mark.parametrize(
    "settings", [{}, {"num": 1}, {"num": 0}, {"num": 5, "endpoint": False}, {"num": 3, "axis": -1}]
)
def test_linspace(settings: dict[str, Any]) -> None:
    check(lambda a, b: np.linspace(a, b, **settings), MATRIX[0], MATRIX[1])
    check(lambda a: np.linspace(a, 10, **settings), np.array(1.5))
    check(lambda a: np.linspace(0, a, **settings), np.array([2, -3]))
    check(lambda a: np.linspace(a, 9, dtype=int, **settings), np.array([2, -3]))


def test_interp_and_polyval() -> None:
    x = np.array([-5.0, PLACES[0] + 0.01, PLACES[2] + 0.01, 99.0])
    check(np.interp, x, PLACES, MATRIX[0])
    check(lambda x, fp: np.interp(x, PLACES, fp, left=-1.0, right=7.0), x, MATRIX[0])
    check(lambda x: np.interp(x, [1.0], [5.0]), x)
    check(np.polyval, VECTOR, MATRIX)
    check(lambda p: np.polyval(p, 2), np.array([1, 2, 3]))
    on_a_point = sg.interp(sg.tensor(PLACES), PLACES, MATRIX[0])
    np.testing.assert_array_equal(on_a_point.numpy(), MATRIX[0])


# --- statistics


@pytest.mark.parametrize("name", ["nanmax", "nanmin", "nanprod", "nanvar", "nanstd", "nanmean", "nansum"])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.filterwarnings("ignore:.*(All-NaN|Degrees of freedom|Mean of empty):RuntimeWarning")
def test_statistics_without_nan(name: str, axis: Any) -> None:
    for x in (HOLES, MATRIX, np.arange(12).reshape(3, 4)):
        check(lambda x: getattr(np, name)(x, axis=axis), x)
        check(lambda x: getattr(np, name)(x, axis=axis, keepdims=True), x)


@pytest.mark.parametrize("name", ["nancumsum", "nancumprod"])
def test_running_sums_without_nan(name: str) -> None:
    check(lambda x: getattr(np, name)(x, axis=1), HOLES)
    check(lambda x: getattr(np, name)(x), HOLES)


def test_nanstd_of_equal_elements_has_gradient_zero() -> None:
    np.testing.assert_array_equal(sg.grad(np.nanstd)(np.array([2.0, np.nan, 2.0])), [0.0, 0.0, 0.0])


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0, [0.1, 0.5, 1.0]], ids=repr)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_quantiles(q: Any, axis: Any, keepdims: bool) -> None:
    check(lambda x: np.quantile(x, q, axis=axis, keepdims=keepdims), CUBE)
    check(lambda x: np.percentile(x, np.multiply(q, 100), axis=axis, keepdims=keepdims), CUBE)
    check(lambda x: np.quantile(x, q, axis=axis), np.arange(24).reshape(2, 3, 4))


def test_a_quantile_moves_with_its_part_and_is_nan_with_nan() -> None:
    slope = sg.grad(lambda q: sg.quantile(np.array([1.0, 2.0, 4.0]), q))(0.75)
    assert float(slope) == 4.0
    check(lambda x: np.quantile(x, [0.4, 0.5], axis=0), HOLES)


# --- choosing, rearranging, real numbers


def test_select_takes_the_first_that_holds() -> None:
    check(lambda x: np.select([x > 1, x > 0], [x, x**2], -1.0), MATRIX)
    slope = sg.grad(lambda x: np.sum(np.select([x > 0], [np.log(x)])))(np.array([0.0, 2.0]))
    np.testing.assert_array_equal(slope, [0.0, 0.5])


def test_cross_products_along_different_axes() -> None:
    a, b = RNG.standard_normal((2, 3, 3))
    for axisa, axisb, axisc in itertools.product((-1, 0, 1), repeat=3):
        check(lambda a, b, axes=(axisa, axisb, axisc): np.cross(a, b, *axes), a, b)
    check(lambda a, b: np.linalg.cross(a, b, axis=0), a, b)


def test_moving_and_taking_axes_apart() -> None:
    for axis, start in itertools.product(range(-3, 3), range(-3, 4)):
        check(lambda x, axis=axis, start=start: np.rollaxis(x, axis, start), CUBE)
    check(lambda x: np.unstack(x, axis=1), CUBE)


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
@pytest.mark.parametrize("settings", [{}, {"include_initial": True}, {"dtype": np.float32}])
def test_running_sums_from_their_start(name: str, settings: dict[str, Any]) -> None:
    check(lambda x: getattr(np, name)(x, axis=1, **settings), CUBE)
    check(lambda x: getattr(np, name)(x, **settings), np.arange(1, 5))


@pytest.mark.parametrize("name", ["real", "imag", "conj", "conjugate", "isreal", "iscomplex", "real_if_close"])
def test_tensors_are_real(name: str) -> None:
    for x in (MATRIX, np.arange(3)):
        theirs, ours = getattr(np, name)(x), getattr(np, name)(sg.tensor(x))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs)
    np.testing.assert_array_equal(sg.grad(lambda x: np.sum(np.real(x) * np.conj(x)))(SHORT), 2 * SHORT)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_bits_of_integers_and_logic_of_booleans(name: str) -> None:
    function = getattr(np, name)
    for a, b in (
        (np.array([1, 2, 7]), np.array([3, 3, 3])),
        (np.array([1, 2, 7], np.uint8), 5),
        (np.array([True, False]), np.array([True, True])),
        (np.array([True, False]), 6),
    ):
        ours, theirs = function(sg.tensor(a), b), function(a, b)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.numpy(), theirs)
    with pytest.raises(DtypeError, match=f"{name}.* is not defined on float64"):
        function(sg.tensor([1.0]), 1)


def test_invert_and_divmod() -> None:
    for x in (np.array([1, -2]), np.array([True, False])):
        np.testing.assert_array_equal(np.invert(sg.tensor(x)).numpy(), ~x)
    check(lambda x: np.divmod(x, 0.7), VECTOR)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: sg.convolve(x, MATRIX), ShapeError, r"a convolution of shapes \(6,\) and \(4, 5\)"),
        (lambda x: sg.convolve(x, x[:0]), ShapeError, r"neither of them empty"),
        (lambda x: sg.convolve(x, x, mode="all"), ArgumentError, r"mode='all'"),
        (lambda x: sg.linspace(x, 1, -1), ArgumentError, r"num=-1"),
        (lambda x: sg.gradient(x, 1.0, 2.0), ArgumentError, r"2 distances for 1 axes"),
        (lambda x: sg.gradient(x, x[:2]), ShapeError, r"places of shape \(2,\)"),
        (lambda x: sg.gradient(x[:2], edge_order=2), ShapeError, r"takes 3 samples"),
        (lambda x: sg.interp(0.5, x, x[:2]), ShapeError, r"each point has one value"),
        (lambda x: sg.quantile(x, 1.5), ArgumentError, r"quantiles 1.5 of 6 elements"),
        (lambda x: sg.select([x > 0], []), ArgumentError, r"1 conditions and 0 choices"),
        (lambda x: sg.cumulative_sum(sg.reshape(x, (2, 3))), ArgumentError, r"without an axis"),
    ],
)
def test_errors_say_what_happened_why_and_what_instead(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call(sg.tensor(VECTOR))
    assert "why:" in str(caught.value)
