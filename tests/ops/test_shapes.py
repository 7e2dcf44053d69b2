"""Shapes, joining, taking apart, rearranging, diagonals: NumPy's values, and where gradients go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, ShapeError, UnsupportedError

VECTOR = np.arange(1.0, 6.0)
MATRIX = np.arange(12.0).reshape(3, 4)
CUBE = np.arange(24.0).reshape(2, 3, 4)
ONES = np.arange(6.0).reshape(1, 2, 1, 3)

CASES: list[tuple[Any, Any]] = [
    (lambda m, a: m.reshape(a, (2, 6)), MATRIX),
    (lambda m, a: m.reshape(a, (-1, 3)), MATRIX),
    (lambda m, a: m.reshape(a, -1), CUBE),
    (lambda m, a: m.reshape(a, np.array([4, 3])), MATRIX),
    (lambda m, a: a.reshape(2, -1), MATRIX),
    (lambda m, a: a.reshape((4, 3)), MATRIX),
    (lambda m, a: a[:1].reshape(()), VECTOR),
    (lambda m, a: m.ravel(a), CUBE),
    (lambda m, a: a.flatten(), CUBE),
    (lambda m, a: m.copy(a), MATRIX),
    (lambda m, a: m.transpose(a), CUBE),
    (lambda m, a: m.transpose(a, (1, -1, 0)), CUBE),
    (lambda m, a: a.transpose(2, 0, 1), CUBE),
    (lambda m, a: a.T, MATRIX),
    (lambda m, a: m.matrix_transpose(a), CUBE),
    (lambda m, a: m.swapaxes(a, 0, -1), CUBE),
    (lambda m, a: a.swapaxes(1, 2), CUBE),
    (lambda m, a: m.moveaxis(a, 0, -1), CUBE),
    (lambda m, a: m.moveaxis(a, (0, 1), (-1, 0)), CUBE),
    (lambda m, a: m.moveaxis(a, [2, 0], [0, 2]), CUBE),
    (lambda m, a: m.squeeze(a), ONES),
    (lambda m, a: m.squeeze(a, axis=-2), ONES),
    (lambda m, a: a.squeeze((0, 2)), ONES),
    (lambda m, a: m.expand_dims(a, 0), MATRIX),
    (lambda m, a: m.expand_dims(a, (0, -1)), MATRIX),
    (lambda m, a: m.broadcast_to(a, (2, 3, 4)), MATRIX),
    (lambda m, a: m.broadcast_to(a, 5), VECTOR[:1]),
    (lambda m, a: m.broadcast_arrays(a, a[:, :1], 2.0), MATRIX),
    (lambda m, a: m.atleast_1d(a[0]), VECTOR),
    (lambda m, a: m.atleast_2d(a), VECTOR),
    (lambda m, a: m.atleast_2d(a, a[0]), VECTOR),
    (lambda m, a: m.atleast_3d(a), VECTOR),
    (lambda m, a: m.atleast_3d(a), MATRIX),
    (lambda m, a: m.concatenate([a, 2 * a, a[:1]]), MATRIX),
    (lambda m, a: m.concatenate((a, np.ones((3, 2))), axis=-1), MATRIX),
    (lambda m, a: m.concatenate([a, a[0]], axis=None), MATRIX),
    (lambda m, a: m.stack([a, -a]), MATRIX),
    (lambda m, a: m.stack([a, -a, a], axis=-1), MATRIX),
    (lambda m, a: m.stack([a, a], axis=1), VECTOR),
    (lambda m, a: m.vstack([a, -a]), VECTOR),
    (lambda m, a: m.vstack([a, a[0]]), MATRIX),
    (lambda m, a: m.hstack([a, a]), VECTOR),
    (lambda m, a: m.hstack([a, a[:, :1]]), MATRIX),
    (lambda m, a: m.dstack([a, a]), MATRIX),
    (lambda m, a: m.column_stack([a, a, np.ones((5, 2))]), VECTOR),
    (lambda m, a: m.append(a, [1.0, 2.0]), MATRIX),
    (lambda m, a: m.append(a, a, axis=1), MATRIX),
    (lambda m, a: m.split(a, 3), MATRIX),
    (lambda m, a: m.split(a, [1, 3], axis=1), MATRIX),
    (lambda m, a: m.split(a, [2, 1, -1, 9], axis=-1), MATRIX),
    (lambda m, a: m.array_split(a, 3), VECTOR),
    (lambda m, a: m.array_split(a, 3, axis=1), MATRIX),
    (lambda m, a: m.array_split(a, 7), VECTOR),
    (lambda m, a: m.hsplit(a, 2), MATRIX),
    (lambda m, a: m.hsplit(a, [2]), VECTOR),
    (lambda m, a: m.vsplit(a, [1]), MATRIX),
    (lambda m, a: m.dsplit(a, 2), CUBE),
    (lambda m, a: m.meshgrid(a, a[:2]), VECTOR),
    (lambda m, a: m.meshgrid(a, a[:2], a[:3], indexing="ij"), VECTOR),
    (lambda m, a: m.meshgrid(a, a[:2], a[:3], sparse=True), VECTOR),
    (lambda m, a: m.flip(a), CUBE),
    (lambda m, a: m.flip(a, 1), CUBE),
    (lambda m, a: m.flip(a, (0, -1)), CUBE),
    (lambda m, a: m.fliplr(a), MATRIX),
    (lambda m, a: m.flipud(a), MATRIX),
    *[(lambda m, a, k=k: m.rot90(a, k), MATRIX) for k in (-1, 0, 1, 2, 3, 6)],
    (lambda m, a: m.rot90(a, 1, (2, 0)), CUBE),
    (lambda m, a: m.roll(a, 2), VECTOR),
    (lambda m, a: m.roll(a, -5), MATRIX),
    (lambda m, a: m.roll(a, 1, axis=1), MATRIX),
    (lambda m, a: m.roll(a, (1, -2), axis=(0, 1)), MATRIX),
    (lambda m, a: m.roll(a, 1, axis=(0, 1)), MATRIX),
    (lambda m, a: m.roll(a, (1, 2), axis=(1, 1)), MATRIX),
    (lambda m, a: m.pad(a, 1), MATRIX),
    (lambda m, a: m.pad(a, (1, 2), constant_values=-1.0), MATRIX),
    (lambda m, a: m.pad(a, ((0, 1), (2, 0))), MATRIX),
    *[
        (lambda m, a, mode=mode: m.pad(a, ((2, 1), (0, 3)), mode=mode), MATRIX)
        for mode in ("edge", "reflect", "symmetric", "wrap")
    ],
    (lambda m, a: m.pad(a, 7, mode="reflect"), VECTOR[:3]),
    (lambda m, a: m.tile(a, 2), VECTOR),
    (lambda m, a: m.tile(a, (2, 1, 3)), MATRIX),
    (lambda m, a: m.tile(a, 2), MATRIX),
    (lambda m, a: m.tile(a, ()), MATRIX),
    (lambda m, a: m.repeat(a, 2), MATRIX),
    (lambda m, a: m.repeat(a, 3, axis=-1), CUBE),
    (lambda m, a: m.repeat(a, [1, 0, 2], axis=0), MATRIX),
    (lambda m, a: a.repeat([2], axis=0), MATRIX),
    *[(lambda m, a, k=k: m.tril(a, k), MATRIX) for k in (-1, 0, 2)],
    *[(lambda m, a, k=k: m.triu(a, k), CUBE) for k in (-2, 0, 1)],
    *[(lambda m, a, k=k: m.diagonal(a, k), MATRIX) for k in (-3, -1, 0, 1, 3)],
    (lambda m, a: a.diagonal(1, 2, 0), CUBE),
    (lambda m, a: m.diag(a), MATRIX),
    (lambda m, a: m.diag(a, 1), MATRIX),
    (lambda m, a: m.diag(a), VECTOR),
    (lambda m, a: m.diag(a, -2), VECTOR),
    (lambda m, a: np.trace(a), MATRIX),
    (lambda m, a: a.trace(-1, 1, 2), CUBE),
    (lambda m, a: m.zeros_like(a), MATRIX),
    (lambda m, a: m.ones_like(a, dtype=np.float32), MATRIX),
    (lambda m, a: m.full_like(a, 2.5, shape=(2, 2)), MATRIX),
]


def leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize(("function", "x"), CASES)
def test_agrees_with_numpy(function: Any, x: Any) -> None:
    """Through stepgrad's functions and through NumPy's, on floats and on integers."""
    for a in (x, x.astype(np.float32), x.astype(np.int32)):
        theirs = leaves(function(np, a))
        for module in (sg, np):
            ours = leaves(function(module, sg.tensor(a)))
            assert len(ours) == len(theirs)
            for one, other in zip(ours, theirs, strict=True):
                assert isinstance(one, sg.Tensor)
                assert (one.shape, one.dtype) == (np.shape(other), np.asarray(other).dtype)
                np.testing.assert_array_equal(one.numpy(), other)


@pytest.mark.parametrize(("function", "x"), CASES)
def test_gradients_go_back_where_values_came_from(function: Any, x: Any) -> None:
    """All of these are linear up to a constant: the gradient is weights @ matrix, its columns read off one by one."""

    def flat(m: Any, a: Any) -> Any:
        return m.concatenate([m.ravel(part) * 1.0 for part in leaves(function(m, a))])

    constant = flat(np, 0 * x)
    matrix = np.stack([flat(np, unit.reshape(x.shape)) - constant for unit in np.eye(x.size)], axis=1)
    weights = np.random.default_rng(0).standard_normal(constant.size)
    gradient = sg.grad(lambda a: (flat(sg, a) * weights).sum() + 0 * a.sum())(x)
    np.testing.assert_allclose(gradient, (weights @ matrix).reshape(x.shape), rtol=1e-12, atol=1e-12)


def test_nothing_is_recorded_where_nothing_changes() -> None:
    x = sg.tensor(MATRIX)
    same = [
        sg.reshape(x, (3, 4)),
        sg.transpose(x, (0, 1)),
        sg.broadcast_to(x, (3, 4)),
        sg.pad(x, 0),
        sg.tile(x, 1),
        sg.rot90(x, 4),
        sg.squeeze(x),
        sg.copy(x),
        sg.atleast_2d(x),
    ]
    assert all(t.equation is x.equation for t in same)


def test_mixed_dtypes_are_promoted_and_gradients_come_back() -> None:
    half, whole = np.ones(2, np.float32), np.ones(3)
    first, second = sg.grad(lambda a, b: sg.concatenate([a, b, [1, 2]]).sum(), (0, 1))(half, whole)
    assert (first.dtype, second.dtype) == (np.float32, np.float64)


def test_full_like_passes_the_gradient_to_the_value() -> None:
    assert sg.grad(lambda v: sg.full_like(MATRIX, v).sum())(2.0) == 12


def test_constants_like_a_tensor_carry_no_gradient() -> None:
    x = sg.tensor(MATRIX)
    for made in (sg.zeros_like(x), sg.ones_like(x), sg.empty_like(x), sg.full_like(x, 3.0)):
        assert not made.equation.active


def test_facts() -> None:
    x = sg.tensor(MATRIX.astype(np.float32))
    for m in (sg, np):
        assert (m.shape(x), m.ndim(x), m.size(x), m.size(x, 1)) == ((3, 4), 2, 12, 4)
        assert m.result_type(x, 1.0) == np.float32
        assert m.result_type(x, np.float64) == np.float64
        assert (m.iscomplexobj(x), m.isrealobj(x)) == (False, True)
        assert m.allclose(x, MATRIX + 1e-9)
        assert not m.allclose(x, MATRIX + 1)
        assert m.array_equal(x, MATRIX)
        assert not m.array_equal(x, MATRIX[:2])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: sg.reshape(x, (5, 2)), ShapeError, r"shape \(3, 4\) can't be reshaped to \(5, 2\)"),
        (lambda x: sg.reshape(x, (-1, 5)), ShapeError, r"do not determine the length marked -1"),
        (lambda x: sg.reshape(x, (-2, -6)), ShapeError, r"can't be reshaped to \(-2, -6\)"),
        (lambda x: sg.reshape(x, (2.0, 6)), ArgumentError, r"a length was given as 2.0"),
        (lambda x: sg.transpose(x, (0, 3)), ArgumentError, r"axis=3 was given for an array with 2 axes"),
        (lambda x: sg.transpose(x, (0,)), ArgumentError, r"every axis has to be named exactly once"),
        (lambda x: sg.transpose(x, (0, 0)), ArgumentError, r"names an axis twice"),
        (lambda x: sg.matrix_transpose(x[0]), ShapeError, r"has no matrix to transpose"),
        (lambda x: sg.swapaxes(x, 0, 2), ArgumentError, r"axis=2"),
        (lambda x: sg.moveaxis(x, (0, 1), 0), ArgumentError, r"2 axes can't be moved to 1 places"),
        (lambda x: sg.squeeze(x, 0), ShapeError, r"shape \(3, 4\) can't be squeezed along axis=0"),
        (lambda x: sg.expand_dims(x, 4), ArgumentError, r"axis=4"),
        (lambda x: sg.broadcast_to(x, (3, 5)), ShapeError, r"shape \(3, 4\) can't be expanded to \(3, 5\)"),
        (lambda x: sg.broadcast_arrays(x, x.T), ShapeError, r"\(3, 4\) and \(4, 3\) do not broadcast"),
        (lambda x: sg.concatenate([]), ArgumentError, r"no arrays were given to concatenate"),
        (lambda x: sg.concatenate([x, x.T]), ShapeError, r"can't be concatenated along axis 0"),
        (lambda x: sg.concatenate([x, x], axis=2), ArgumentError, r"axis=2"),
        (lambda x: sg.concatenate(3.0), ArgumentError, r"write sg.concatenate\(\[a, b\]\)"),
        (lambda x: sg.stack([x, x.T]), ShapeError, r"arrays of shapes \(3, 4\), \(4, 3\)"),
        (lambda x: sg.split(x, 2), ArgumentError, r"use sg.array_split"),
        (lambda x: sg.array_split(x, 0), ArgumentError, r"split into 0 parts"),
        (lambda x: sg.meshgrid(x[0], indexing="yx"), ArgumentError, r"indexing='yx'"),
        (lambda x: sg.flip(x, 2), ArgumentError, r"axis=2"),
        (lambda x: sg.roll(x, (1, 2), axis=(0, 1, 0)), ArgumentError, r"2 shifts do not belong to 3 axes"),
        (lambda x: sg.roll(x, 0.5), ArgumentError, r"shift was given as 0.5"),
        (lambda x: sg.pad(x, -1), ArgumentError, r"pad_width=-1"),
        (lambda x: sg.pad(x, (1, 2, 3)), ArgumentError, r"each of its 2 axes needs two whole numbers"),
        (lambda x: sg.pad(x, 1, mode="mean"), ArgumentError, r"mode='mean'"),
        (lambda x: sg.pad(x, 1, constant_values=x[0, 0]), UnsupportedError, r"use sg.concatenate"),
        (lambda x: sg.pad(x[:0], 1, mode="edge"), ArgumentError, r"it has no element to repeat"),
        (lambda x: sg.tile(x, -1), ArgumentError, r"reps=-1"),
        (lambda x: sg.repeat(x, [1, 2], axis=0), ArgumentError, r"2 repeats were given for the 3 elements of axis 0"),
        (lambda x: sg.tril(x[0]), ShapeError, r"tril was called with an array of shape \(4,\)"),
        (lambda x: sg.diagonal(x[0]), ShapeError, r"has no diagonal"),
        (lambda x: sg.diagonal(x, 0, 1, -1), ArgumentError, r"rows and columns are the same axis"),
        (lambda x: sg.diag(x[None]), ShapeError, r"a vector or a matrix"),
        (lambda x: sg.rot90(x, 1, (0, 0)), ArgumentError, r"names an axis twice"),
    ],
)
def test_errors_say_what_happened_why_and_what_instead(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call(sg.tensor(MATRIX))
    assert "why:" in str(caught.value)
    assert "instead:" in str(caught.value)
