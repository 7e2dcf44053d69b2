"""sg.linalg: NumPy's values on single matrices and batches, gradients where they are delicate, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, ShapeError, StepgradError, UnsupportedError
from stepgrad.ops.solving import conditioned, invertible, positive_definite


def draw(sample: Any, seed: int = 0) -> np.ndarray:
    return sample.draw(np.random.default_rng(seed))


def differences(f: Any, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of f, a function of a tensor, by central differences."""
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[i] = step
        out[i] = (float(f(sg.tensor(x + move))) - float(f(sg.tensor(x - move)))) / (2 * step)
    return out


SQUARE = [invertible(n, *batch) for n, batch in ((1, ()), (2, ()), (4, ()), (3, (2,)), (2, (2, 3)), (0, ()), (3, (0,)))]
SYMMETRIC = [positive_definite(n, *b) for n, b in ((1, ()), (2, ()), (4, ()), (3, (2,)), (2, (2, 3)), (3, (0,)))]
ANY = [
    conditioned(m, n, *b) for m, n, b in ((3, 3, ()), (5, 2, ()), (2, 5, ()), (1, 3, ()), (4, 3, (2,)), (2, 3, (0,)))
]


def same(f: Any, *xs: np.ndarray, tolerance: float = 1e-12) -> None:
    """f gives the same on tensors as on arrays: values, shapes and dtypes, of one result or several."""
    for dtype, rtol in ((np.float64, tolerance), (np.float32, 1e-4)):
        cast = [x.astype(dtype) for x in xs]
        expected, result = f(*cast), f(*[sg.tensor(x) for x in cast])
        if not isinstance(expected, tuple):
            expected, result = (expected,), (result,)
        assert len(expected) == len(result)
        for e, r in zip(expected, result, strict=True):
            assert isinstance(r, sg.Tensor)
            assert (r.shape, r.dtype) == (np.shape(e), np.asarray(e).dtype)
            np.testing.assert_allclose(r.numpy(), e, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("sample", SQUARE, ids=repr)
@pytest.mark.parametrize("f", [np.linalg.inv, np.linalg.det, np.linalg.slogdet], ids=lambda f: f.__name__)
def test_square(f: Any, sample: Any) -> None:
    same(f, draw(sample))


@pytest.mark.parametrize("sample", SYMMETRIC, ids=repr)
@pytest.mark.parametrize(
    "f",
    [
        np.linalg.cholesky,
        lambda a: np.linalg.cholesky(a, upper=True),
        np.linalg.eigh,
        lambda a: np.linalg.eigvalsh(a, "U"),
        np.linalg.eigvalsh,
    ],
)
def test_symmetric(f: Any, sample: Any) -> None:
    a = draw(sample)
    same(f, (a + a.mT) / 2, tolerance=1e-10)


@pytest.mark.parametrize("sample", ANY, ids=repr)
@pytest.mark.parametrize(
    "f",
    [
        np.linalg.qr,
        lambda a: np.linalg.qr(a, mode="r"),
        lambda a: np.linalg.svd(a, full_matrices=False),
        lambda a: np.linalg.svd(a, compute_uv=False),
        np.linalg.svdvals,
        np.linalg.pinv,
        lambda a: np.linalg.pinv(a, rcond=1e-3),
        lambda a: np.linalg.pinv(a, rtol=1e-3),
        np.linalg.matrix_rank,
        lambda a: np.linalg.matrix_rank(a, tol=1.3),
    ],
)
def test_any_shape(f: Any, sample: Any) -> None:
    same(f, draw(sample), tolerance=1e-10)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (invertible(3), (3,)),
        (invertible(3), (3, 2)),
        (invertible(3, 2), (3,)),
        (invertible(3, 2), (3, 2)),
        (invertible(3, 2), (2, 3, 1)),
        (invertible(3), (4, 3, 2)),
        (invertible(3, 4, 1), (2, 3, 2)),
        (invertible(3), (3, 0)),
    ],
    ids=str,
)
def test_solve(a: Any, b: Any) -> None:
    xs = draw(a), np.random.default_rng(1).standard_normal(b)
    same(np.linalg.solve, *xs)
    weights = np.random.default_rng(2).standard_normal(np.linalg.solve(*xs).shape)

    def loss(a: Any, b: Any) -> Any:
        return np.sum(np.linalg.solve(a, b) * weights)

    gradients = sg.grad(loss, (0, 1))(*xs)
    np.testing.assert_allclose(gradients[0], differences(lambda x: loss(x, xs[1]), xs[0]), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradients[1], differences(lambda x: loss(xs[0], x), xs[1]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 2, 3, 5, 8])
def test_matrix_power(n: int) -> None:
    a = draw(invertible(3, 2))
    same(lambda a: np.linalg.matrix_power(a, n), a, tolerance=1e-10)
    if n:
        gradient = sg.grad(lambda a: np.sum(np.linalg.matrix_power(a, n) ** 2))(a)
        expected = differences(lambda a: np.sum(np.linalg.matrix_power(a, n) ** 2), a)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", [[(3, 2), (2, 4)], [(10, 2), (2, 10), (10, 2)], [(2,), (2, 3), (3, 4), (4,)]])
def test_multi_dot(shapes: Any) -> None:
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal(s) for s in shapes]
    expected, value = np.linalg.multi_dot(xs), np.linalg.multi_dot([sg.tensor(x) for x in xs])
    assert value.shape == np.shape(expected)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)


def test_multi_dot_takes_the_cheap_order() -> None:
    long = sg.tensor(np.ones((50, 2)))
    tape = sg.Tape.of(sg.linalg.multi_dot([long, long.T, long]))
    assert sorted(e.type.shape for e in tape if e.op.name == "matmul") == [(2, 2), (50, 2)]


@pytest.mark.parametrize("shape", [(5, 2), (3, 3), (2, 5)])
@pytest.mark.parametrize("columns", [(), (2,)])
def test_lstsq(shape: Any, columns: Any) -> None:
    a, b = draw(conditioned(*shape)), np.random.default_rng(1).standard_normal((shape[0], *columns))
    expected = np.linalg.lstsq(a, b, rcond=None)
    result = np.linalg.lstsq(sg.tensor(a), sg.tensor(b), rcond=None)
    for e, r in zip(expected, result, strict=True):
        assert r.shape == np.shape(e)
        np.testing.assert_allclose(r.numpy(), e, rtol=1e-10, atol=1e-12)
    gradient = sg.grad(lambda a: np.sum(np.linalg.lstsq(a, b)[0] ** 2))(a)
    expected = differences(lambda a: np.sum(np.linalg.lstsq(a, b)[0] ** 2), a)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_trace_and_diagonal_of_the_last_two_axes() -> None:
    a = np.random.default_rng(0).standard_normal((2, 3, 4))
    for offset in (-1, 0, 2):
        same(lambda a, k=offset: np.linalg.diagonal(a, offset=k), a)
        same(lambda a, k=offset: np.linalg.trace(a, offset=k), a)


def test_results_have_numpys_fields() -> None:
    a = sg.tensor(np.eye(2) + 1)
    assert np.linalg.eigh(a)._fields == ("eigenvalues", "eigenvectors")
    assert np.linalg.qr(a)._fields == ("Q", "R")
    assert np.linalg.svd(a)._fields == ("U", "S", "Vh")
    assert np.linalg.slogdet(a)._fields == ("sign", "logabsdet")


def test_integers_are_converted_as_numpy_does() -> None:
    a = sg.tensor([[2, 1], [1, 3]])
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, np.linalg.eigvalsh, np.linalg.pinv):
        assert f(a).dtype == np.float64


def test_float32_gradients_stay_float32() -> None:
    a = sg.tensor(draw(positive_definite(3)).astype(np.float32))
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, np.linalg.eigvalsh, np.linalg.svdvals, np.linalg.pinv):
        assert sg.backward(f(a).sum(), a).dtype == np.float32
    for part in (*np.linalg.eigh(a), *np.linalg.qr(a), *np.linalg.svd(a), np.linalg.slogdet(a).logabsdet):
        assert sg.backward(part.sum(), a).dtype == np.float32


# --- gradients where they are delicate


@pytest.mark.parametrize(
    "a",
    [
        [[1.0, 2.0], [2.0, 4.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]],
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]],
        np.eye(3),
        np.diag([1.0, 1.0, 0.0, 0.0]),
    ],
    ids=["rank 1 of 2", "zero", "rank 2 of 3", "rank 1 of 3", "identity", "rank 2 of 4"],
)
def test_det_of_singular_matrices_to_second_order(a: Any) -> None:
    a = np.array(a)
    np.testing.assert_allclose(sg.grad(sg.linalg.det)(a), differences(sg.linalg.det, a), atol=1e-8)
    direction = np.random.default_rng(0).standard_normal(a.shape)
    product = sg.hvp(sg.linalg.det, a, direction)
    expected = differences(lambda x: np.sum(sg.grad(sg.linalg.det)(x) * direction), a)
    np.testing.assert_allclose(product, expected, atol=1e-7)


def test_third_derivative_of_the_determinant() -> None:
    a, d = draw(invertible(3)), np.random.default_rng(1).standard_normal((3, 3))

    def second(a: Any) -> Any:
        return np.sum(sg.hvp(sg.linalg.det, a, d) * d)

    np.testing.assert_allclose(sg.grad(second)(a), differences(second, a), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [2.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
def test_functions_of_equal_eigenvalues_have_the_right_gradient(values: Any) -> None:
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    a = (q * values) @ q.T
    a = (a + a.T) / 2
    gradient = sg.grad(lambda a: np.sum(np.linalg.eigvalsh(a) ** 3))(a)
    np.testing.assert_allclose(gradient, 3 * a @ a, atol=1e-12)
    gradient = sg.grad(lambda a: np.sum(np.linalg.svdvals(a) ** 4))(a)
    np.testing.assert_allclose(gradient, 4 * a @ a @ a, atol=1e-10)


def test_the_projection_onto_equal_eigenvalues_has_the_right_gradient() -> None:
    """The two equal ones are on the same side, so it does not matter that their vectors are arbitrary."""
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    a, weights = (q * [2.0, 2.0, 5.0]) @ q.T, np.diag([1.0, 2.0, 4.0])
    a = (a + a.T) / 2

    def f(a: Any) -> Any:
        v = np.linalg.eigh(a).eigenvectors[:, :2]
        return np.sum(v @ v.T * weights)

    np.testing.assert_allclose(sg.grad(f)(a), differences(f, a), atol=1e-7)


def test_singular_values_at_zero_have_a_finite_gradient() -> None:
    a = np.outer([1.0, 2.0, 3.0], [1.0, 1.0])
    gradient = sg.grad(lambda a: np.sum(np.linalg.svd(a, full_matrices=False).S))(a)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(sg.grad(lambda a: np.sum(np.linalg.svdvals(a) ** 2))(a), 2 * a, atol=1e-12)


def test_gradients_with_respect_to_symmetric_matrices_are_symmetric() -> None:
    a = draw(positive_definite(4))
    for f in (lambda a: np.linalg.cholesky(a)[1, 0], lambda a: np.linalg.eigh(a).eigenvectors[0, 1]):
        gradient = sg.grad(f)(a)
        np.testing.assert_allclose(gradient, gradient.T, atol=1e-14)
        np.testing.assert_allclose(gradient, differences(f, a), atol=1e-8)


def test_wide_qr_and_its_gradient() -> None:
    a, w = draw(conditioned(2, 4)), np.arange(8.0).reshape(2, 4)

    def f(a: Any) -> Any:
        q, r = np.linalg.qr(a)
        return np.sum(r * w) + np.sum(q * w[:, :2])

    np.testing.assert_allclose(sg.grad(f)(a), differences(f, a), rtol=1e-6, atol=1e-7)


def test_no_gradient_flows_through_a_rank() -> None:
    assert not np.linalg.matrix_rank(sg.tensor(np.eye(2))).equation.active


# --- messages

EVERY = "inv det slogdet cholesky eigh eigvalsh qr svd svdvals pinv matrix_rank".split()


@pytest.mark.parametrize("name", EVERY)
def test_vectors_are_not_matrices(name: str) -> None:
    with pytest.raises(ShapeError, match="at least two axes"):
        getattr(sg.linalg, name)(sg.tensor(np.ones(3)))


@pytest.mark.parametrize("name", "inv det slogdet cholesky eigh eigvalsh".split())
def test_not_square(name: str) -> None:
    A = sg.tensor(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"A \(2, 3\) float64\n.*why: .*2 rows and 3 columns\n.*instead: "):
        getattr(sg.linalg, name)(A)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(name: str, bad: float) -> None:
    a = np.eye(3)
    a[1, 1] = bad
    with pytest.raises(sg.linalg.LinAlgError, match="contains NaN or Inf") as error:
        getattr(sg.linalg, name)(sg.tensor(a, name="A"))
    assert "A (3, 3)" in error.value.what
    assert "test_linalg.py" in error.value.what


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda A: sg.linalg.inv(A), r"inv of A \(2, 2\) float64: Singular matrix"),
        (lambda A: sg.linalg.solve(A, np.ones(2)), r"solve of A \(2, 2\) float64: Singular matrix"),
        (lambda A: sg.linalg.cholesky(A - np.eye(2)), "not positive definite"),
        (lambda A: sg.linalg.inv(np.stack([np.eye(2), A.numpy()])), r"matrix \(1,\) of the batch"),
        (lambda A: sg.linalg.solve(np.stack([np.eye(2), A.numpy()]), np.ones(2)), r"matrix \(1,\) of the batch"),
        (lambda A: sg.backward(sg.linalg.slogdet(A).logabsdet, A), "Singular matrix"),
    ],
)
def test_singular_and_not_positive_definite(call: Any, text: str) -> None:
    A = sg.tensor(np.zeros((2, 2)))
    with pytest.raises(sg.linalg.LinAlgError, match=text) as error:
        call(A)
    assert isinstance(error.value, np.linalg.LinAlgError)  # what code written for NumPy catches
    assert isinstance(error.value, StepgradError)
    assert "identity" in error.value.instead


@pytest.mark.parametrize("name", "cholesky eigh eigvalsh".split())
def test_not_symmetric(name: str) -> None:
    with pytest.raises(sg.linalg.LinAlgError, match="which is not symmetric"):
        getattr(sg.linalg, name)(sg.tensor([[1.0, 0.0], [0.5, 1.0]]))


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda a: sg.linalg.svd(a), UnsupportedError, "full_matrices=False"),
        (lambda a: sg.linalg.qr(a, "complete"), UnsupportedError, 'mode="reduced"'),
        (lambda a: sg.linalg.inv(np.eye(2) * 1j), DtypeError, "complex numbers"),
        (lambda a: sg.linalg.solve(np.eye(2), a), ShapeError, "there are 2 equations"),
        (lambda a: sg.linalg.solve(np.ones((2, 3, 3)), np.ones((4, 3, 1))), ShapeError, "do not broadcast"),
        (lambda a: sg.linalg.solve(np.eye(2), 1.0), ShapeError, "not a vector"),
        (lambda a: sg.linalg.matrix_power(a, 2), ShapeError, "multiplied with itself"),
        (lambda a: sg.linalg.matrix_power(np.eye(2), 0.5), ArgumentError, "whole number"),
        (lambda a: sg.linalg.multi_dot([a]), ArgumentError, "two or more"),
        (lambda a: sg.linalg.multi_dot([a, a]), ShapeError, "inner lengths differ"),
        (lambda a: sg.linalg.pinv(a, 1e-3, rtol=1e-3), ArgumentError, "the same"),
        (lambda a: sg.linalg.eigh(np.eye(2), "X"), ArgumentError, "lower or upper"),
        (lambda a: np.linalg.eig(a), UnsupportedError, "numpy.linalg.eig"),
    ],
)
def test_other_messages(call: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        call(sg.tensor(np.ones((3, 2))))
