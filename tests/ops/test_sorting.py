"""Sorting against NumPy; gradients against the permutation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stepgrad as sg
from stepgrad.errors import AbstractValueError, ArgumentError, ShapeError
from stepgrad.tape.equation import INPUT, Equation
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import recording
from stepgrad.tensor import Tensor

small_arrays = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]),  # with many ties
)


@settings(max_examples=80, deadline=None)
@given(small_arrays, st.data())
def test_sort_and_argsort(x: np.ndarray, data: Any) -> None:
    axis = data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
    order = np.argsort(x, axis, stable=True)
    np.testing.assert_array_equal(np.sort(sg.tensor(x), axis), np.sort(x, axis))
    np.testing.assert_array_equal(np.argsort(sg.tensor(x), axis), order)

    weights = np.random.default_rng(0).standard_normal(order.shape)
    expected = np.zeros(x.size if axis is None else x.shape)
    np.put_along_axis(expected, order, weights, 0 if axis is None else axis)
    gradient = sg.grad(lambda x: sg.sum(sg.sort(x, axis) * weights))(x)
    np.testing.assert_array_equal(gradient, expected.reshape(x.shape))


def test_sort_is_a_copy_and_takes_numpys_settings() -> None:
    x = sg.tensor([3.0, np.nan, 1.0])
    np.testing.assert_array_equal(x.sort(), [1, 3, np.nan])
    np.testing.assert_array_equal(np.sort(x, kind="stable"), [1, 3, np.nan])
    np.testing.assert_array_equal(np.argsort(x, stable=True), [2, 0, 1])
    np.testing.assert_array_equal(x.argsort(), [2, 0, 1])
    assert sg.sort(sg.tensor([2, 1])).dtype == np.int64


def test_second_order_through_sort() -> None:
    x = np.array([3.0, 1.0, 2.0])
    product = sg.hvp(lambda x: sg.sum(sg.sort(x) ** 3 * np.array([1.0, 2.0, 3.0])), (x,), (np.ones(3),))[0]
    np.testing.assert_allclose(product, 6 * x * [3, 1, 2])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_top_k(axis: int, k: int) -> None:
    x = np.random.default_rng(0).permutation(np.arange(12.0)).reshape(3, 4)
    values, indices = sg.top_k(sg.tensor(x), k, axis)
    descending = np.flip(np.sort(x, axis), axis)
    np.testing.assert_array_equal(values, np.take(descending, np.arange(k), axis))
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), axis), values)


def test_top_k_of_ties_integers_and_its_gradient() -> None:
    np.testing.assert_array_equal(sg.top_k([1.0, 2.0, 2.0], 2)[1], [1, 2])
    np.testing.assert_array_equal(sg.top_k(np.array([0, 200, 5], np.uint8), 2)[0], [200, 5])
    np.testing.assert_array_equal(sg.top_k(np.array([-128, 127], np.int8), 2)[0], [127, -128])
    np.testing.assert_array_equal(sg.grad(lambda x: sg.sum(sg.top_k(x, 2)[0]))(np.array([3.0, 9.0, 5.0])), [0, 1, 1])
    with pytest.raises(ArgumentError, match="the 4 largest along axis 0"):
        sg.top_k(np.ones(3), 4)


@settings(max_examples=40, deadline=None)
@given(small_arrays)
def test_unique(x: np.ndarray) -> None:
    ours = sg.unique(sg.tensor(x), return_index=True, return_inverse=True, return_counts=True)
    theirs = np.unique(x, return_index=True, return_inverse=True, return_counts=True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.unique(sg.tensor(x)), theirs[0])


def test_gradient_of_unique_goes_to_the_first() -> None:
    np.testing.assert_array_equal(sg.grad(lambda x: sg.sum(sg.unique(x)))(np.array([2.0, 1.0, 2.0])), [1, 1, 0])


def test_unique_needs_values() -> None:
    with recording(equations=[]):
        x = Tensor(None, Equation(INPUT, (), {}, type_of((3,), np.dtype(np.float64)), True))
        assert sg.sort(x).shape == (3,)
        with pytest.raises(AbstractValueError, match="how many there are depends on values"):
            sg.unique(x)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_and_digitize(side: Any) -> None:
    edges, x = np.array([0.0, 1.0, 1.0, 2.0]), np.array([[-1.0, 0.0], [1.0, 1.5], [2.0, 9.0]])
    np.testing.assert_array_equal(np.searchsorted(sg.tensor(edges), x, side), np.searchsorted(edges, x, side))
    np.testing.assert_array_equal(np.digitize(sg.tensor(x), edges), np.digitize(x, edges))
    np.testing.assert_array_equal(np.digitize(sg.tensor(x), edges, right=True), np.digitize(x, edges, right=True))


def test_bad_arguments() -> None:
    x = sg.tensor([3.0, 1.0], name="x")
    with pytest.raises(ArgumentError, match="axis=1 was given for an array with 1 axes"):
        sg.sort(x, axis=1)
    with pytest.raises(ArgumentError, match="kind='bogo'"):
        sg.argsort(x, kind="bogo")
    with pytest.raises(ArgumentError, match=r"looked up in x \(2,\) float64, which is not ascending[^$]*sg\.sort"):
        sg.searchsorted(x, 2.0)
    with pytest.raises(ArgumentError, match="side='middle'"):
        sg.searchsorted([1.0], 2.0, side="middle")
    with pytest.raises(ShapeError, match="one ascending sequence"):
        sg.searchsorted(np.ones((2, 2)), 2.0)
    with pytest.raises(ArgumentError, match=r"k was given as 1\.5"):
        sg.top_k(x, 1.5)
