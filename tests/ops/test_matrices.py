"""Products of vectors, matrices and batches: NumPy's values on all of NumPy's shapes, gradients, messages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, ShapeError


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(3 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def check_values(f: Any, *xs: np.ndarray) -> None:
    """The function on tensors is the function on arrays: value, shape and dtype."""
    expected, value = f(*xs), f(*[sg.tensor(x) for x in xs])
    assert isinstance(value, sg.Tensor)
    assert (value.shape, value.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6 if value.dtype == np.float32 else 1e-12, atol=1e-12)


def check_gradients(f: Any, *xs: np.ndarray) -> None:
    """Along a random direction, the gradient is the central difference."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(np.shape(f(*xs)))

    def loss(*xs: Any) -> Any:
        return np.sum(f(*xs) * weights)

    gradients = sg.grad(loss, tuple(range(len(xs))))(*xs)
    for i, (x, gradient) in enumerate(zip(xs, gradients, strict=True)):
        direction = rng.standard_normal(x.shape)
        ends = [loss(*xs[:i], x + step * direction, *xs[i + 1 :]) for step in (1e-5, -1e-5)]
        assert gradient.shape == x.shape
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


MATMUL_SHAPES: list[Any] = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((2, 1, 1, 3), (3, 2)),
    ((1, 1), (1, 1)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((2, 3), (3, 0)),
    ((0,), (0,)),
    ((0, 2, 3), (3, 4)),
    ((5, 2, 0), (0, 4)),
    ((5, 2, 0), (0,)),
    ((0, 2, 3), (1, 3, 4)),
]


@pytest.mark.parametrize("shapes", MATMUL_SHAPES)
def test_matmul_on_all_shapes(shapes: Any) -> None:
    xs = arrays(*shapes)
    check_values(np.matmul, *xs)
    check_values(lambda a, b: a @ b, *xs)
    check_gradients(np.matmul, *xs)


@pytest.mark.parametrize(
    "dtypes",
    [(np.float32, np.float32), (np.float32, np.float64), (np.int64, np.float32), (np.int32, np.int64), (bool, bool)],
)
@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((2, 3), (5, 3, 1))])
def test_matmul_promotes_as_numpy_does(dtypes: Any, shapes: Any) -> None:
    check_values(np.matmul, *[x.astype(d) for x, d in zip(arrays(*shapes), dtypes, strict=True)])


def test_gradients_of_mixed_dtypes_come_back_in_each_operands_dtype() -> None:
    a, b = sg.tensor(np.ones((2, 3), np.float32)), sg.tensor(np.ones((3, 2)))
    da, db = sg.backward((a @ b).sum(), [a, b])
    assert (da.dtype, db.dtype) == (np.float32, np.float64)


def test_a_batch_of_rows_against_one_matrix_does_not_copy_it() -> None:
    x, w = sg.tensor(np.ones((50, 4, 3))), sg.tensor(np.ones((3, 2)), name="W")
    assert {e.op.name for e in sg.Tape.of(x @ w)} == {"matmul"}
    (gradient,) = sg.backward((x @ w).sum(), [w])
    np.testing.assert_array_equal(gradient.numpy(), np.full((3, 2), 200.0))


def test_a_transposed_batch_has_the_same_product() -> None:
    a, b = arrays((3, 5, 2), (2, 4))
    check_values(lambda a, b: a.transpose(1, 0, 2) @ b, a, b)
    check_gradients(lambda a, b: a.transpose(1, 0, 2) @ b, a, b)


def test_the_gradient_of_a_matrix_times_a_vector_is_an_outer_product() -> None:
    w, x = sg.tensor(np.ones((2, 3))), sg.tensor(np.ones(3))
    (gradient,) = sg.backward((w @ x).sum(), [w])
    assert gradient.equation.op.name == "outer"


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ((2, 3), (2, 3), "the inner lengths differ"),
        ((2, 3), (4,), "elements of the second"),
        ((), (3,), "a single number is not a matrix"),
        ((4, 2, 3), (5, 3, 2), "batch axes .* do not broadcast"),
    ],
)
def test_matmul_says_what_is_wrong(a: Any, b: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text) as error:
        sg.matmul(sg.tensor(np.ones(a)), sg.tensor(np.ones(b)))
    assert "why:" in str(error.value)
    assert "instead:" in str(error.value)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((5, 2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((2, 2, 3), (5, 3, 4)),
        ((3,), (5, 3, 4)),
        ((0, 3), (3, 2)),
    ],
)
def test_dot(shapes: Any) -> None:
    check_values(np.dot, *arrays(*shapes))
    check_gradients(np.dot, *arrays(*shapes))


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 3), (4, 3)), ((2, 2, 3), (4, 3)), ((), (2, 3))]
)
def test_inner(shapes: Any) -> None:
    check_values(np.inner, *arrays(*shapes))
    check_gradients(np.inner, *arrays(*shapes))


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 2), (3,)), ((), (3,)), ((0,), (3,))])
def test_outer(shapes: Any) -> None:
    check_values(np.outer, *arrays(*shapes))
    check_gradients(np.outer, *arrays(*shapes))


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3, 2)), ((), ())])
def test_vdot(shapes: Any) -> None:
    check_values(np.vdot, *arrays(*shapes))
    check_gradients(np.vdot, *arrays(*shapes))


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((2, 3, 4), (4, 3, 5)), ([1, 2], [1, 0])),
        (((2, 3, 4), (3, 4, 5)), 2),
        (((2, 3), (3, 4)), 1),
        (((2, 3), (4,)), 0),
        (((2, 3), (2, 3)), 2),
        (((2, 3, 4), (5, 2)), (0, 1)),
        (((2, 3, 4), (5, 4, 2)), ((-1, 0), (1, -1))),
        (((3, 2, 2), (2, 5, 2, 3)), ((0, 1, 2), (3, 2, 0))),
        (((2, 0), (0, 3)), 1),
        (((), ()), 0),
    ],
)
def test_tensordot(shapes: Any, axes: Any) -> None:
    check_values(lambda a, b: np.tensordot(a, b, axes), *arrays(*shapes))
    check_gradients(lambda a, b: np.tensordot(a, b, axes), *arrays(*shapes))


@pytest.mark.parametrize(
    ("axes", "kind", "text"),
    [
        (((0,), (0,)), ShapeError, "axis 0 of shape .2, 3. and axis 0 of shape .3, 4."),
        (3, ArgumentError, "distinct axes"),
        (((0, 1), (0,)), ArgumentError, "distinct axes"),
        (((1, 1), (0, 0)), ArgumentError, "distinct axes"),
        (((5,), (0,)), ArgumentError, "with 2 and 2 axes"),
        (1.5, ArgumentError, "whole number"),
        ("ab", ArgumentError, "whole number"),
        (((0,), (1,), (2,)), ArgumentError, "whole number"),
    ],
)
def test_tensordot_says_what_is_wrong(axes: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        sg.tensordot(sg.tensor(np.ones((2, 3))), np.ones((3, 4)), axes)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 3), (2, 2)), ((2,), (2, 3)), ((2, 1, 2), (3, 2)), ((), (2,))])
def test_kron(shapes: Any) -> None:
    check_values(np.kron, *arrays(*shapes))
    check_gradients(np.kron, *arrays(*shapes))


@pytest.mark.parametrize(("shapes", "axis"), [(((3,), (3,)), -1), (((4, 3), (3,)), -1), (((3, 2), (3, 2)), 0)])
def test_cross(shapes: Any, axis: int) -> None:
    check_values(lambda a, b: np.cross(a, b, axis=axis), *arrays(*shapes))
    check_gradients(lambda a, b: np.cross(a, b, axis=axis), *arrays(*shapes))


@pytest.mark.parametrize(("shapes", "axis"), [(((3,), (3,)), -1), (((4, 3), (3,)), -1), (((3, 2), (3, 2)), 0)])
def test_vecdot(shapes: Any, axis: int) -> None:
    check_values(lambda a, b: np.vecdot(a, b, axis=axis), *arrays(*shapes))
    check_gradients(lambda a, b: np.vecdot(a, b, axis=axis), *arrays(*shapes))


@pytest.mark.parametrize("dtypes", [(np.int8, np.int8), (np.uint8, np.int32), (np.bool_, np.bool_)])
def test_vecdot_of_integers_has_their_dtype(dtypes: Any) -> None:
    x, y = (np.array([[1, 2], [100, 100]], dtype) for dtype in dtypes)
    ours, theirs = np.vecdot(sg.tensor(x), y), np.vecdot(x, y)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: sg.cross(x, x), ShapeError, "three components"),
        (lambda x: sg.vecdot(x, np.ones(3)), ShapeError, "equally long"),
        (lambda x: sg.vecdot(x, x, axis=1), ShapeError, "check the axis"),
        (lambda x: sg.vdot(x, np.ones(2) * 1j), DtypeError, "complex numbers"),
        (lambda x: sg.dot(x, np.ones(3)), ShapeError, "inner lengths differ"),
        (lambda x: sg.inner(x, np.ones((2, 3))), ShapeError, "lengths are 2 and 3"),
    ],
)
def test_other_products_say_what_is_wrong(call: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=re.compile(text, re.S)):
        call(sg.tensor(np.ones(2)))


@pytest.mark.parametrize(
    "f", [np.dot, np.inner, np.outer, np.vdot, np.kron, np.matmul, np.linalg.outer, np.linalg.matmul]
)
def test_one_operand_may_be_a_plain_array(f: Any) -> None:
    a, b = np.arange(3.0), np.arange(3.0) + 1
    np.testing.assert_array_equal(f(sg.tensor(a), b).numpy(), f(a, b))
    np.testing.assert_array_equal(f(a, sg.tensor(b)).numpy(), f(a, b))
