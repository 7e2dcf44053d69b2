"""Indexing against NumPy: whatever `[]` takes, its value, its gradients and its text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgrad as sg
from stepgrad.errors import AbstractValueError, ArgumentError, DtypeError, IndexingError, ShapeError, UnsupportedError
from stepgrad.tape.equation import INPUT, Equation
from stepgrad.tape.expressions import call_text, evaluate, tidy
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify
from stepgrad.tensor import Tensor


def counting(*shape: int) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=float).reshape(shape)


def abstract(shape: tuple[int, ...], dtype: Any = np.float64) -> Tensor:
    return Tensor(None, Equation(INPUT, (), {}, type_of(shape, np.dtype(dtype)), True))


# --- any index at all


@st.composite
def slices(draw: Any) -> slice:
    bound = st.none() | st.integers(-5, 5)
    return slice(draw(bound), draw(bound), draw(st.none() | st.sampled_from([-3, -2, -1, 1, 2])))


@st.composite
def index_arrays(draw: Any, length: int, ndim: int) -> Any:
    """Integers of a shape from a family that often, but not always, broadcasts together."""
    shape = draw(st.sampled_from([(), (1,), (3,), (3,), (2, 3), (2, 1)]))
    values = draw(st.lists(st.integers(-length, length), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    array = np.array(values, np.int64).reshape(shape)
    return draw(st.sampled_from([array, array.tolist()])) if array.ndim else array


@st.composite
def arrays_and_indices(draw: Any, advanced: bool) -> tuple[np.ndarray, Any]:
    shape = tuple(draw(st.lists(st.integers(0, 4) if draw(st.booleans()) else st.integers(1, 4), max_size=4)))
    parts: list[Any] = []
    axis, ellipsis = 0, False
    while axis < len(shape):
        kind = draw(
            st.sampled_from(["int", "slice", "slice", "none", "skip", "stop", "array", "array", "mask", "bool"])
        )
        if kind == "int":
            parts.append(draw(st.integers(-shape[axis] - (draw(st.integers(0, 9)) == 0), max(shape[axis] - 1, 0))))
        elif kind == "slice":
            parts.append(draw(slices()))
        elif kind == "none":
            parts.append(None)
            continue
        elif kind == "skip":
            if ellipsis:
                continue
            parts.append(Ellipsis)
            ellipsis = True
            axis += draw(st.integers(0, len(shape) - axis))
            continue
        elif kind == "stop":
            break
        elif not advanced:
            continue
        elif kind == "array":
            n = shape[axis]
            array = draw(index_arrays(n, len(shape)))
            parts.append(np.clip(array, -n, n - 1).tolist() if isinstance(array, list) else np.clip(array, -n, n - 1))
        elif kind == "mask":
            over = draw(st.integers(1, len(shape) - axis))
            size = int(np.prod(shape[axis : axis + over]))
            values = draw(st.lists(st.booleans(), min_size=size, max_size=size))
            parts.append(np.array(values, np.bool_).reshape(shape[axis : axis + over]))
            axis += over - 1
        elif kind == "bool":
            parts.append(draw(st.booleans()))
            continue
        axis += 1
    index = parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)
    return np.asarray(counting(*shape) + 0.5), index


def check_everything(x: np.ndarray, index: Any) -> None:
    """Value, type, text, gradient and second derivative of x[index], against NumPy and a dense oracle."""
    try:
        expected = x[index]
    except IndexError:
        with pytest.raises(IndexingError):
            sg.tensor(x)[index]
        return
    with recording(equations=[]):
        out = sg.tensor(x, name="x")[index]
    assert out.shape == np.shape(expected)
    np.testing.assert_array_equal(out, expected)
    tape = Tape.of(out)
    verify(tape)
    for equation in tape:
        np.testing.assert_array_equal(evaluate(equation), equation.value)

    weights = np.random.default_rng(0).standard_normal(out.shape)
    places = np.arange(x.size).reshape(x.shape)[index]
    dense = np.bincount(np.ravel(places), np.ravel(weights), x.size).reshape(x.shape)

    def loss(x: Any) -> Any:
        picked = x[index]
        return sg.sum(picked * picked * weights)

    np.testing.assert_allclose(sg.grad(loss)(x), 2 * x * dense, rtol=1e-12)
    direction = np.random.default_rng(1).standard_normal(x.shape)
    np.testing.assert_allclose(sg.hvp(loss, (x,), (direction,))[0], 2 * direction * dense, rtol=1e-12)


@settings(max_examples=120, deadline=None)
@given(arrays_and_indices(advanced=False))
def test_any_basic_index(case: tuple[np.ndarray, Any]) -> None:
    check_everything(*case)


@settings(max_examples=400, deadline=None)
@given(arrays_and_indices(advanced=True))
def test_any_index_with_arrays_and_masks(case: tuple[np.ndarray, Any]) -> None:
    check_everything(*case)


K = np.array([0, 2, 2])
J = np.array([[1], [0]])


@pytest.mark.parametrize(
    "index",
    [
        np.s_[...],
        (),
        np.s_[K],
        np.s_[:, K],
        np.s_[K, K],
        np.s_[J, K],
        np.s_[0, :, K],  # an integer beside an array counts as one: the picked axis comes first
        np.s_[K, :, 0],
        np.s_[:, 0, K],
        np.s_[K, None, K],
        np.s_[:, None, K],
        np.s_[K, ..., K],  # an Ellipsis separates, even if it stands for no axes
        np.s_[1:, K, ..., K],
        np.s_[1:, ::-1, K],
        np.s_[True],
        np.s_[False],
        np.s_[:, True, K],
        np.s_[np.array(1), :, np.array(-1)],
        np.s_[np.int8(1), np.uint64(2)],
        np.s_[[True, False, True]],
        np.s_[[]],
        np.s_[[], :, []],
        np.s_[[[0, 1], [2, 0]]],
    ],
    ids=str,
)
def test_chosen_indices(index: Any) -> None:
    check_everything(counting(3, 3, 3), index)


def test_masks_of_the_whole_and_of_some_axes() -> None:
    x = counting(3, 3, 2)
    check_everything(x, x > 7)
    check_everything(x, x[:, :, 0] % 4 == 0)
    check_everything(x, np.s_[1, x[0] > 1])
    check_everything(x, np.s_[..., np.array([True, False])])
    check_everything(x, np.zeros_like(x, np.bool_))
    check_everything(x, np.s_[:, np.zeros(0, np.bool_)])


# --- tensors as indices


def test_index_tensors_stay_on_the_tape() -> None:
    x = sg.tensor([[3.0, 9.0, 5.0], [7.0, 1.0, 8.0]], name="x")
    rows = np.arange(2)

    def largest(x: Any) -> Any:
        return sg.sum(x[rows, sg.argmax(x, axis=1)])

    np.testing.assert_array_equal(sg.grad(largest)(x), [[0, 1, 0], [0, 0, 1]])
    with recording(equations=[]) as state:
        largest(sg.tensor(x.numpy()))
    assert {"argmax", "gather"} <= {e.op.name for e in state.equations or ()}


def test_a_tensor_without_axes_is_an_integer() -> None:
    x = sg.tensor(counting(3, 4))
    k = sg.argmax(sg.tensor([1.0, 5.0, 2.0]))
    np.testing.assert_array_equal(x[k], counting(3, 4)[1])
    np.testing.assert_array_equal(x[k, k:], counting(3, 4)[1, 1:])
    np.testing.assert_array_equal(x[[k, 0]], counting(3, 4)[[1, 0]])


def test_masks_computed_on_the_tape() -> None:
    gradient = sg.grad(lambda x: sg.sum(x[x > 0]))(np.array([-1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(gradient, [0, 1, 1])


def test_abstract_index_arrays_but_not_masks() -> None:
    with recording(equations=[]):
        x = abstract((3, 4))
        assert x[abstract((5,), np.int64)].shape == (5, 4)
        assert x[:, abstract((), np.int64)].shape == (3,)
        with pytest.raises(AbstractValueError, match=r"depends on values[^$]*sg\.where"):
            x[x > 0]
        with pytest.raises(AbstractValueError, match=r"sg\.where"):
            sg.nonzero(x)
        with pytest.raises(AbstractValueError):
            x[: abstract((), np.int64)]


# --- iteration and text


def test_iteration_and_unpacking() -> None:
    first, second = sg.tensor(counting(2, 3))
    np.testing.assert_array_equal(second, [3, 4, 5])
    assert first.shape == (3,)
    assert [float(v) for v in sg.tensor([1.0, 2.0])] == [1.0, 2.0]
    np.testing.assert_array_equal(sg.grad(lambda x: sum(row[0] for row in x))(counting(2, 2)), [[1, 0], [1, 0]])
    with pytest.raises(TypeError):
        iter(sg.tensor(1.0))


def written(out: Tensor) -> str:
    """The last equation as NumPy."""
    return tidy(call_text(out.equation, [e.name or "?" for e in out.equation.inputs]))


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (np.s_[1:, ::-1], "x[1:, ::-1]"),
        (np.s_[-1], "x[-1]"),
        (np.s_[..., None, 0], "x[..., None, 0]"),
        (np.s_[:2, 1:3:2], "x[:2, 1:3:2]"),
    ],
)
def test_basic_indices_read_as_they_were_written(index: Any, text: str) -> None:
    with recording(equations=[]):
        out = sg.tensor(counting(3, 4), name="x")[index]
    assert written(out) == text


def test_index_arrays_read_by_their_names() -> None:
    with recording(equations=[]):
        x, i, j = sg.tensor(counting(3, 4), name="x"), sg.tensor([0, 1], name="i"), sg.tensor([2, 3], name="j")
        texts = [written(x[index]) for index in (np.s_[i], np.s_[i, j], np.s_[:, i])]
    assert texts == ["x[i]", "x[i, j]", "x[:, i]"]


def test_a_basic_index_is_a_view_and_nothing_is_read_by_its_rule() -> None:
    x = sg.tensor(counting(100, 100))
    assert np.shares_memory(x[::2].numpy(), x.numpy())
    assert x[...] is x
    y = x * 2.0
    z = y[3]
    assert z.equation.inputs[0].value is None


# --- index_add and index_set


@settings(max_examples=120, deadline=None)
@given(arrays_and_indices(advanced=True))
def test_index_add_and_index_set_do_what_numpy_does_in_place(case: tuple[np.ndarray, Any]) -> None:
    x, index = case
    try:
        shape = np.shape(x[index])
    except IndexError:
        for function in (sg.index_add, sg.index_set):
            with pytest.raises(IndexingError):
                function(x, index, 1.0)
        return
    values = np.random.default_rng(0).standard_normal(shape)
    added, replaced = x.copy(), x.copy()
    np.add.at(added, index, values)
    replaced[index] = values
    np.testing.assert_allclose(sg.index_add(x, index, values), added, rtol=1e-12)
    np.testing.assert_array_equal(sg.index_set(x, index, values), replaced)


def test_gradients_of_index_add_and_index_set() -> None:
    rng = np.random.default_rng(0)
    x, values, weights = rng.standard_normal(4), rng.standard_normal(3), rng.standard_normal(4)
    index = [1, 3, 1]

    def loss(function: Any) -> Any:
        return lambda x, v: sg.sum(sg.square(function(x, index, v)) * weights)

    out = sg.index_add(x, index, values).numpy()
    dx, dv = sg.grad(loss(sg.index_add), (0, 1))(x, values)
    np.testing.assert_allclose(dx, 2 * out * weights)
    np.testing.assert_allclose(dv, (2 * out * weights)[index])

    out = sg.index_set(x, index, values).numpy()
    dx, dv = sg.grad(loss(sg.index_set), (0, 1))(x, values)
    np.testing.assert_allclose(dx, 2 * out * weights * [1, 0, 1, 0])
    np.testing.assert_allclose(dv, (2 * out * weights)[index] * [0, 1, 1])  # the last value for place 1 stays


def test_values_are_broadcast_and_python_numbers_take_the_dtype() -> None:
    x = sg.tensor(np.zeros((2, 3), np.float32))
    assert sg.index_add(x, np.s_[:, 0], 1.0).dtype == np.float32
    np.testing.assert_array_equal(sg.index_add(x, [0, 0], np.float32([1, 2, 3])), [[2, 4, 6], [0, 0, 0]])
    np.testing.assert_array_equal(sg.index_set(sg.tensor([1, 2, 3]), 0, 7), [7, 2, 3])
    with pytest.raises(ShapeError):
        sg.index_add(x, 0, np.ones(4))


def test_index_set_replaces_nan() -> None:
    x = np.array([np.nan, 1.0])
    np.testing.assert_array_equal(sg.index_set(x, np.isnan(x), 0.0), [0, 1])
    np.testing.assert_array_equal(sg.grad(lambda x: sg.sum(sg.index_set(x, 0, 0.0) * 3.0))(x), [0, 3])


# --- the named relatives


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("indices", [1, [0, 2, 2], [[0], [-1]], []])
def test_take(axis: int | None, indices: Any) -> None:
    x = counting(3, 4) + 1
    expected = np.take(x, np.asarray(indices, np.int64), axis)
    np.testing.assert_array_equal(np.take(sg.tensor(x), indices, axis), expected)
    places = np.take(np.arange(12).reshape(3, 4), np.asarray(indices, np.int64), axis)
    gradient = sg.grad(lambda x: sg.sum(sg.take(x, indices, axis)))(x)
    np.testing.assert_array_equal(gradient, np.bincount(places.ravel(), minlength=12).reshape(3, 4))


@pytest.mark.parametrize("mode", ["clip", "wrap"])
def test_take_modes(mode: Any) -> None:
    x, indices = counting(3, 4), [-9, -1, 0, 2, 7]
    for axis in (None, 0, 1):
        np.testing.assert_array_equal(sg.take(x, indices, axis, mode), np.take(x, indices, axis, mode=mode))
    assert sg.take(x, [], 0, mode).shape == (0, 4)
    with pytest.raises(ArgumentError, match="mode='bounce'"):
        sg.take(x, 0, mode="bounce")


def test_take_counts_booleans_as_the_indices_0_and_1() -> None:
    x, places = np.arange(6.0).reshape(2, 3), np.array([True, False, True, True])
    for axis in (None, 0, 1):
        np.testing.assert_array_equal(np.take(sg.tensor(x), places, axis).numpy(), np.take(x, places, axis))


def test_take_along_axis() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4))
    for axis, shape in [(1, (3, 2)), (0, (5, 4)), (1, (1, 2)), (0, (2, 1)), (-1, (3, 4))]:
        indices = rng.integers(0, x.shape[axis], shape)
        expected = np.take_along_axis(x, indices, axis)
        np.testing.assert_array_equal(np.take_along_axis(sg.tensor(x), indices, axis), expected)
        weights = rng.standard_normal(expected.shape)
        places = np.take_along_axis(np.arange(12).reshape(3, 4), indices, axis)
        gradient = sg.grad(lambda x, i=indices, a=axis, w=weights: sg.sum(sg.take_along_axis(x, i, a) * w))(x)
        np.testing.assert_allclose(gradient, np.bincount(places.ravel(), weights.ravel(), 12).reshape(3, 4))
    np.testing.assert_array_equal(sg.take_along_axis(x, [3, 0], None), [x.flat[3], x.flat[0]])
    np.testing.assert_array_equal(sg.take_along_axis(x[:1], rng.integers(0, 4, (3, 4))).shape, (3, 4))


def test_compress_and_nonzero() -> None:
    x = counting(3, 4)
    np.testing.assert_array_equal(np.compress([True, False, True], sg.tensor(x), axis=0), x[[0, 2]])
    np.testing.assert_array_equal(sg.compress([False, True], x), [1])
    for ours, theirs in zip(np.nonzero(sg.tensor(x)), np.nonzero(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ShapeError, match=r"a\[mask\]"):
        sg.compress(x > 2, x)


def test_one_hot() -> None:
    np.testing.assert_array_equal(sg.one_hot([[1], [0]], 3), [[[0, 1, 0]], [[1, 0, 0]]])
    assert sg.one_hot(np.int64(2), 3, np.float64).dtype == np.float64
    assert sg.one_hot(np.zeros(0, int), 3).shape == (0, 3)


# --- errors, in their three parts


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (3, r"index 3 is out of range for axis 0 of shape \(3, 4\)[^$]*length 3, so its indices run from -3 to 2"),
        (np.s_[:, -5], "index -5 is out of range for axis 1"),
        (np.s_[:, [0, 7]], r"in the index of x \(3, 4\) float64, index 7 is out of range for axis 1"),
        (np.s_[0, [0, 4]], "index 4 is out of range for axis 1"),
        (np.s_[4, [0, 1]], "index 4 is out of range for axis 0"),
        (np.s_[0, 0, 0], "3 axes were indexed, of 2[^$]*use at most 2"),
        (np.s_[[0], 0, 0], "3 axes were indexed, of 2"),
        (1.0, r"1\.0 was used as an index[^$]*int\(i\)"),
        (np.s_[1.5:], r"1\.5 was used as an index"),
        (np.array([0.0]), "an array of float64 numbers was used as an index"),
        ([0.5], "an array of float64 numbers was used as an index"),
        ("rows", "'rows' was used as an index"),
        (np.s_[..., ...], "more than one Ellipsis"),
        (np.s_[..., [0], ...], "more than one Ellipsis"),
        (np.s_[::0], "step 0"),
        (np.ones((3, 3), bool), r"a mask of shape \(3, 3\) was used for axes 0 to 1[^$]*the shape there is \(3, 4\)"),
        (np.s_[[0, 1], [0, 1, 2]], r"index arrays of shapes \(2,\) and \(3,\)[^$]*np\.ix_"),
    ],
    ids=str,
)
def test_bad_indices_say_what_to_write(index: Any, text: str) -> None:
    x = sg.tensor(counting(3, 4), name="x")
    with pytest.raises(IndexingError, match=text) as caught:
        x[index]
    assert "test_indexing.py" in caught.value.what, "the user's line is named"
    assert caught.value.why
    assert caught.value.instead


def test_ragged_lists_and_empty_axes() -> None:
    with pytest.raises(DtypeError, match="equally long lists"):
        sg.tensor(counting(3))[[[0], [1, 2]]]
    with pytest.raises(IndexingError, match="that axis is empty"):
        sg.tensor(counting(0, 2))[0]
    with pytest.raises(IndexingError, match="it has no axes"):
        sg.nonzero(1.0)


@pytest.mark.parametrize("function", [sg.index_add, sg.index_set])
def test_scattering_out_of_range(function: Any) -> None:
    with pytest.raises(IndexingError, match="index 4 is out of range for axis 0"):
        function(sg.tensor(counting(3)), [0, 4], 1.0)


def test_bad_arguments_of_the_named_relatives() -> None:
    x = counting(3, 4)
    with pytest.raises(IndexingError, match="out of range for axis 1"):
        sg.take_along_axis(x, [[4], [0], [0]], axis=1)
    with pytest.raises(ShapeError, match="one index for each element"):
        sg.take_along_axis(x, [0, 1], axis=1)
    with pytest.raises(IndexingError, match="indices are integers"):
        sg.take_along_axis(x, [[0.0]], axis=1)
    with pytest.raises(IndexingError, match=r"label 3 was given to one_hot with 3 classes[^$]*from 0 to 2"):
        sg.one_hot([0, 3], 3)
    with pytest.raises(IndexingError, match="label -1"):
        sg.one_hot([-1], 3)
    with pytest.raises(DtypeError, match="the number of a class"):
        sg.one_hot([0.0], 3)


def test_changing_in_place_is_refused_by_name() -> None:
    x = sg.tensor(counting(3))
    with pytest.raises(UnsupportedError, match="index_add"):
        x[0] = 1.0
    with pytest.raises(UnsupportedError, match="index_add"):
        np.add.at(x, [0], 1.0)
    with pytest.raises(UnsupportedError, match=r"sg\.index_add"):
        np.put(x, [0], 1.0)
