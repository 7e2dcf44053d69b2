"""Reductions, statistics, running sums and norms: NumPy's values, and the conventions at kinks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError

SHAPES = [(), (1,), (5,), (2, 3), (3, 1, 4), (2, 3, 4)]
DTYPES = [np.float64, np.float32, np.int64, np.int8, np.bool_]
REDUCTIONS = ["sum", "mean", "prod", "max", "min", "amax", "amin", "any", "all", "var", "std", "ptp", "count_nonzero"]


def draw(shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * 3).round(1).astype(dtype)


def axes_for(ndim: int) -> list[Any]:
    several = [axes for n in (2, 3) for axes in itertools.combinations(range(ndim), n)]
    return [None, *range(-ndim, ndim), *several, *[(-1, 0) for _ in range(ndim >= 2)]]


def agree(ours: Any, theirs: Any) -> None:
    """The same values, shape and dtype."""
    assert isinstance(ours, sg.Tensor)
    assert ours.shape == np.shape(theirs)
    assert ours.dtype == np.asarray(theirs).dtype
    tolerance = 2e-6 if ours.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


def agree_everywhere(function: Any, x: Any) -> None:
    """On tensors, stepgrad's function, NumPy's protocol and NumPy itself mean the same."""
    theirs = function(np, x)
    agree(function(sg, sg.tensor(x)), theirs)
    agree(function(np, sg.tensor(x)), theirs)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_agree_with_numpy(name: str) -> None:
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        if name == "ptp" and dtype is np.bool_:
            continue
        x = draw(shape, dtype)
        for axis, keepdims in itertools.product(axes_for(len(shape)), (False, True)):
            agree_everywhere(lambda m, a, axis=axis, k=keepdims: getattr(m, name)(a, axis=axis, keepdims=k), x)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions_agree_with_numpy(name: str) -> None:
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        x = draw(shape, dtype)
        for axis, keepdims in itertools.product([None, *range(-len(shape), len(shape))], (False, True)):
            agree_everywhere(lambda m, a, axis=axis, k=keepdims: getattr(m, name)(a, axis=axis, keepdims=k), x)


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_running_sums_and_products_agree_with_numpy(name: str) -> None:
    for shape, dtype in itertools.product(SHAPES, DTYPES):
        x = draw(shape, dtype)
        for axis in [None, *range(-len(shape), len(shape))]:
            agree_everywhere(lambda m, a, axis=axis: getattr(m, name)(a, axis=axis), x)


@pytest.mark.parametrize("ddof", [0, 1, 0.5])
@pytest.mark.parametrize("name", ["var", "std"])
def test_ddof(name: str, ddof: float) -> None:
    for axis in (None, 1, (0, 2)):
        agree_everywhere(lambda m, a, axis=axis: getattr(m, name)(a, axis=axis, ddof=ddof), draw((2, 3, 4)))


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "cumsum", "cumprod"])
def test_dtype_is_converted_to_first(name: str) -> None:
    agree_everywhere(lambda m, a: getattr(m, name)(a, axis=0, dtype=np.float32), draw((3, 2), np.int64))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32])
def test_results_have_the_dtype_that_was_asked_for(name: str, dtype: Any) -> None:
    """np.sum(x, dtype=bool) says whether any element is true; it doesn't count them."""
    x = draw((2, 3))
    agree(getattr(np, name)(sg.tensor(x), axis=1, dtype=dtype), getattr(np, name)(x, axis=1, dtype=dtype))


@pytest.mark.parametrize("x", [np.array([1.0, np.nan, 2.0]), np.array([[np.nan, 1.0], [np.inf, 3.0], [2.0, -np.inf]])])
def test_the_median_with_nan_is_nan(x: Any) -> None:
    for axis in (None, 0):
        agree(np.median(sg.tensor(x), axis=axis), np.median(x, axis=axis))


@pytest.mark.parametrize("ord", [2, -2, "nuc"])
@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (-1, -2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_made_of_singular_values(ord: Any, axes: Any, keepdims: bool) -> None:
    x = draw((2, 3, 4))

    def f(x: Any) -> Any:
        return np.linalg.norm(x, ord, axis=axes, keepdims=keepdims)

    agree(f(sg.tensor(x)), f(x))
    direction = np.random.default_rng(1).standard_normal(x.shape)
    slope = (f(x + 1e-6 * direction).sum() - f(x - 1e-6 * direction).sum()) / 2e-6
    gradient = sg.grad(lambda x: np.sum(f(x)))(x)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-7)


def test_methods_are_the_functions() -> None:
    x = draw((3, 4))
    t = sg.tensor(x)
    for name in ("sum", "mean", "prod", "max", "min", "any", "all", "var", "std", "argmax", "argmin", "cumsum"):
        agree(getattr(t, name)(axis=1), getattr(x, name)(axis=1))
    agree(t.cumprod(0), x.cumprod(0))


def test_ufunc_methods() -> None:
    x = draw((3, 4))
    for ufunc in (np.add, np.multiply, np.maximum, np.minimum, np.logical_or, np.logical_and):
        agree(ufunc.reduce(sg.tensor(x)), ufunc.reduce(x))
        agree(ufunc.reduce(sg.tensor(x), axis=(0, 1), keepdims=True), ufunc.reduce(x, axis=(0, 1), keepdims=True))
    for ufunc in (np.add, np.multiply):
        agree(ufunc.accumulate(sg.tensor(x)), ufunc.accumulate(x))
        agree(ufunc.accumulate(sg.tensor(x), axis=1), ufunc.accumulate(x, axis=1))


def test_python_numbers_count_as_arrays() -> None:
    assert [f(3.0).item() for f in (sg.sum, sg.mean, sg.max, sg.prod, sg.var, sg.norm)] == [3, 3, 3, 3, 0, 3]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.average(x),
        lambda m, x: m.average(x, axis=1),
        lambda m, x: m.average(x, axis=0, weights=[1.0, 2.0, 5.0]),
        lambda m, x: m.average(x, axis=(0, 1), weights=np.arange(12.0).reshape(3, 4), keepdims=True),
        lambda m, x: m.average(x, axis=0, weights=[1.0, 2.0, 5.0], returned=True)[1],
        lambda m, x: m.median(x),
        lambda m, x: m.median(x, axis=0),
        lambda m, x: m.median(x, axis=1, keepdims=True),
        lambda m, x: m.median(x, axis=(0, 1)),
        lambda m, x: m.diff(x),
        lambda m, x: m.diff(x, n=2, axis=0),
        lambda m, x: m.diff(x, prepend=0.0),
        lambda m, x: m.diff(x, axis=0, append=np.ones((2, 4))),
        lambda m, x: m.diff(x > 0),
        lambda m, x: m.trapezoid(x),
        lambda m, x: m.trapezoid(x, dx=0.5, axis=0),
        lambda m, x: m.trapezoid(x, x=[0.0, 1.0, 1.5, 4.0]),
        lambda m, x: m.trapezoid(x, x=[0.0, 1.0, 3.0], axis=0),
        lambda m, x: m.trapezoid(x, x=np.arange(12.0).reshape(3, 4) ** 2, axis=0),
    ],
)
def test_further_statistics_agree_with_numpy(function: Any) -> None:
    agree_everywhere(function, draw((3, 4)))


def test_nan_is_left_out() -> None:
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, 5.0]])
    for axis in (None, 0, 1):
        agree_everywhere(lambda m, a, axis=axis: m.nansum(a, axis=axis), x)
        agree_everywhere(lambda m, a, axis=axis: m.nanmean(a, axis=axis, keepdims=True), x)
    gradient = sg.grad(lambda a: sg.nanmean(a * a))(x)
    np.testing.assert_allclose(gradient, np.where(np.isnan(x), 0, 2 * x / 4))


# --- conventions


def test_ties_share_the_gradient_equally() -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(sg.grad(lambda a: sg.max(a, 1).sum())(x), [[0, 0.5, 0.5], [1 / 3] * 3])
    np.testing.assert_allclose(sg.grad(lambda a: sg.min(a, 0).sum())(x), [[1, 0, 0], [0, 1, 1]])
    np.testing.assert_allclose(sg.grad(sg.max)(x.astype(np.float32)), [[0, 0.5, 0.5], [0, 0, 0]])
    assert sg.grad(sg.max)(x.astype(np.float32)).dtype == np.float32


def test_the_maximum_of_infinities_has_a_gradient() -> None:
    np.testing.assert_allclose(sg.grad(sg.max)(np.array([-np.inf, -np.inf])), [0.5, 0.5])


def polynomial_gradient(x: np.ndarray) -> np.ndarray:
    return np.array([np.prod(np.delete(x, i)) for i in range(x.size)])


def polynomial_hessian(x: np.ndarray) -> np.ndarray:
    n = x.size
    return np.array([[0.0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(n)] for i in range(n)])


ZEROS = [
    [2.0, 3.0, 4.0],
    [2.0, 0.0, 4.0],
    [0.0, 3.0, 0.0, 2.0],
    [0.0, 0.0, 0.0],
    [1.5, -2.0, 3.0, 0.0, 0.5, 1.0, -1.0],
    [0.0, 2.0],
    [0.0],
]


@pytest.mark.parametrize("values", ZEROS, ids=str)
def test_products_with_zeros_have_exact_derivatives(values: list[float]) -> None:
    x = np.array(values)
    np.testing.assert_allclose(sg.grad(sg.prod)(x), polynomial_gradient(x), rtol=1e-14)
    np.testing.assert_allclose(sg.hessian(sg.prod)(x), polynomial_hessian(x), rtol=1e-14)


@pytest.mark.parametrize("values", ZEROS, ids=str)
def test_running_products_with_zeros_have_exact_derivatives(values: list[float]) -> None:
    x, n = np.array(values), len(values)
    slopes, curvatures = np.zeros((n, n)), np.zeros((n, n, n))
    for k in range(n):
        slopes[k, : k + 1] = polynomial_gradient(x[: k + 1])
        curvatures[k, : k + 1, : k + 1] = polynomial_hessian(x[: k + 1])
    np.testing.assert_allclose(sg.jacobian(sg.cumprod)(x), slopes, rtol=1e-14)
    weights = np.arange(1.0, n + 1)
    second = sg.hessian(lambda a: (sg.cumprod(a) * weights).sum())(x)
    np.testing.assert_allclose(second, np.tensordot(weights, curvatures, 1), rtol=1e-14)


def test_the_third_derivative_of_a_product_with_zeros() -> None:
    third = sg.jacobian(sg.hessian(sg.prod))(np.array([0.0, 5.0, 0.0, 0.0]))
    assert third[0, 2, 3] == third[3, 0, 2] == 5
    assert np.count_nonzero(third) == 6


def test_a_product_over_several_axes_with_zeros() -> None:
    x = np.array([[[1.0, 0.0], [2.0, 3.0]], [[0.0, 4.0], [5.0, 0.0]]])
    gradient = sg.grad(lambda a: sg.prod(a, axis=(0, 2)).sum())(x)
    expected = [polynomial_gradient(x[:, i, :].ravel()).reshape(2, 2) for i in range(2)]
    np.testing.assert_allclose(gradient, np.stack(expected, 1))


def test_long_products_take_few_equations() -> None:
    x = np.random.default_rng(0).uniform(0.99, 1.01, 20_000)
    np.testing.assert_allclose(sg.hvp(sg.prod, x, x), sg.grad(sg.prod)(x) * (x.size - 1), rtol=1e-9)


def test_std_has_gradient_zero_where_nothing_deviates() -> None:
    x = np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    gradient = sg.grad(lambda a: sg.std(a, 1).sum())(x)
    np.testing.assert_allclose(gradient, [[0, 0, 0], np.array([-1, 0, 1]) / (3 * np.std([1, 2, 3]))])
    assert np.isfinite(sg.hvp(lambda a: sg.std(a, 1).sum(), x, np.ones((2, 3)) * [1, 2, 4])).all()
    assert np.isnan(sg.grad(sg.std)(np.array([np.nan, 1.0]))).all()


@pytest.mark.parametrize("ord", [None, 1, 2, 3, 1.5, np.inf, -np.inf])
def test_norm_has_gradient_zero_at_zero(ord: Any) -> None:
    x = np.zeros((2, 3))
    x[1] = [3.0, 0.0, -4.0]

    def total(a: Any) -> Any:
        return sg.norm(a, ord, axis=1).sum()

    gradient, second = sg.grad(total)(x), sg.hvp(total, x, np.ones((2, 3)))
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient).all()
    assert np.isfinite(second).all()


def test_norm_of_nan_is_not_hidden() -> None:
    assert np.isnan(sg.grad(sg.norm)(np.array([np.nan, 1.0]))).all()


def norm_of(module: Any) -> Any:
    return module.linalg.norm if module is np else module.norm


@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_agree_with_numpy(keepdims: bool) -> None:
    vector, matrix, many = draw((5,)), draw((3, 4)), draw((2, 3, 4))
    for x in (vector, matrix, many, many.astype(np.float32), draw((3, 2), np.int64)):
        agree_everywhere(lambda m, a: norm_of(m)(a, keepdims=keepdims), x)
    for ord in (None, 0, 1, 2, 3, 0.5, -1, -2, np.inf, -np.inf):
        agree_everywhere(lambda m, a, ord=ord: norm_of(m)(a, ord, keepdims=keepdims), vector)
        agree_everywhere(lambda m, a, ord=ord: norm_of(m)(a, ord, axis=1, keepdims=keepdims), many)
    for ord in (None, "fro", 1, -1, np.inf, -np.inf):
        agree_everywhere(lambda m, a, ord=ord: norm_of(m)(a, ord, keepdims=keepdims), matrix)
        for axis in ((0, 1), (2, 0), (-1, -2)):
            agree_everywhere(lambda m, a, o=ord, x=axis: norm_of(m)(a, o, axis=x, keepdims=keepdims), many)
    for ord, axis in itertools.product((1, 2, 3, np.inf), (None, 1, (0, 2))):
        agree(
            np.linalg.vector_norm(sg.tensor(many), axis=axis, ord=ord, keepdims=keepdims),
            np.linalg.vector_norm(many, axis=axis, ord=ord, keepdims=keepdims),
        )
    for ord in ("fro", 1, np.inf):
        agree(np.linalg.matrix_norm(sg.tensor(many), ord=ord), np.linalg.matrix_norm(many, ord=ord))


def test_empty_arrays() -> None:
    empty = sg.tensor(np.zeros((0, 3)))
    assert (sg.sum(empty).item(), sg.prod(empty).item(), sg.any(empty).item(), sg.all(empty).item()) == (0, 1, 0, 1)
    assert sg.max(empty, axis=1).shape == (0,)
    assert sg.cumsum(empty, 0).shape == sg.cumprod(empty, 0).shape == (0, 3)
    for function in (sg.sum, sg.prod, lambda a: sg.cumprod(a, 0).sum(), sg.norm, lambda a: sg.max(a, 1).sum()):
        assert sg.grad(function)(np.zeros((0, 3))).shape == (0, 3)


def test_float32_gradients_stay_float32() -> None:
    x = draw((3, 4), np.float32)
    for f in (sg.sum, sg.mean, sg.prod, sg.max, sg.min, sg.var, sg.std, sg.norm, sg.ptp, sg.median, sg.nanmean):
        assert sg.grad(f)(x).dtype == np.float32, f
        assert sg.hvp(lambda a, f=f: f(a * a), x, x).dtype == np.float32, f
    for f in (sg.cumsum, sg.cumprod, sg.diff):
        assert sg.grad(lambda a, f=f: (f(a, axis=1) ** 2).sum())(x).dtype == np.float32


# --- errors


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: sg.sum(x, axis=2), ArgumentError, r"axis=2 was given for an array with 2 axes"),
        (lambda x: sg.sum(x, axis=(0, -2)), ArgumentError, r"axis=\(0, -2\) names an axis twice"),
        (lambda x: sg.max(x, axis=1.5), ArgumentError, r"axis was given as 1.5"),
        (lambda x: sg.max(x[:0]), ArgumentError, r"the max of shape \(0, 3\) over axes \(0, 1\)"),
        (lambda x: sg.mean(x[:0], axis=0), ArgumentError, r"0/0 is not a number"),
        (lambda x: sg.argmin(x[:0], axis=0), ArgumentError, r"no elements, so there is no position"),
        (lambda x: sg.median(x[:0]), ArgumentError, r"the median of shape \(0, 3\)"),
        (lambda x: sg.var(x[:1], axis=0, ddof=1), ArgumentError, r"divided by 1 - 1 = 0"),
        (lambda x: sg.std(x, ddof="1"), ArgumentError, r"ddof='1'"),
        (lambda x: np.sum(x, where=[True, False, True]), UnsupportedError, r"sum was called with where="),
        (lambda x: x.max(initial=0.0), UnsupportedError, r"max was called with initial="),
        (lambda x: x.sum(out=np.zeros(())), UnsupportedError, r"sum was called with out="),
        (lambda x: np.cumsum(x, out=np.zeros(6)), UnsupportedError, r"cumsum was called with out="),
        (lambda x: sg.sum(x, axes=1), TypeError, r"unexpected keyword argument 'axes'"),
        (lambda x: sg.std(x, dtype=int), DtypeError, r"std was called with dtype=int64"),
        (lambda x: np.nanmean(x, dtype=int), DtypeError, r"nanmean was called with dtype=int64"),
        (lambda x: sg.norm(x, 3), ArgumentError, r"a matrix norm with ord=3"),
        (lambda x: sg.norm(x, "fro", axis=1), ArgumentError, r"a vector norm with ord='fro'"),
        (lambda x: sg.norm(x[None], 1), ArgumentError, r"pass axis="),
        (lambda x: sg.average(x, axis=0, weights=[1.0]), ShapeError, r"weights of shape \(1,\)"),
        (lambda x: sg.diff(x, n=-1), ArgumentError, r"n=-1"),
    ],
)
def test_errors_say_what_happened_why_and_what_instead(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call(sg.tensor(draw((2, 3))))
    if error is not TypeError:
        assert "why:" in str(caught.value)
        assert "instead:" in str(caught.value)


def test_defaults_of_refused_arguments_pass() -> None:
    x = sg.tensor(draw((2, 3)))
    agree(x.sum(axis=0, out=None), x.numpy().sum(axis=0))
    agree(np.max(x, axis=0, out=None, where=True), x.numpy().max(axis=0))
