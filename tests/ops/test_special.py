"""Special functions: SciPy's values through SciPy's own functions, and derivatives where formulas lose their digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special

import stepgrad as sg
from stepgrad.errors import ArgumentError, UnsupportedError

ONE = (
    "erf erfc erfcx erfinv erfcinv ndtr log_ndtr ndtri logit expit log_expit digamma psi gammaln gamma entr "
    "i0 i1 j0 j1 exp2 expm1 log1p cbrt"
).split()
TWO = "betaln beta xlogy xlog1py rel_entr kl_div".split()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_scipy_functions_record_on_tensors(name: str, dtype: Any) -> None:
    function, x = getattr(special, name), np.array([0.25, 0.5, 0.75], dtype)
    operands = (x,) if name in ONE else (x, x[::-1].copy())
    ours, theirs = function(*(sg.tensor(a) for a in operands)), function(*operands)
    assert isinstance(ours, sg.Tensor)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6 if dtype == np.float32 else 1e-14)
    gradient = sg.grad(lambda x: np.sum(function(x, *operands[1:])))(x)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma(n: int) -> None:
    x = np.array([0.5, 1.0, 4.0])
    np.testing.assert_allclose(sg.special.polygamma(n, sg.tensor(x)).numpy(), special.polygamma(n, x), rtol=1e-14)
    slope = sg.grad(lambda x: np.sum(sg.special.polygamma(n, x)))(x)
    np.testing.assert_allclose(slope, special.polygamma(n + 1, x), rtol=1e-14)


@pytest.mark.parametrize("name", ["iv", "jv"])
@pytest.mark.parametrize("order", [-2, 0, 1, 3, 2.5])
def test_bessel_functions(name: str, order: float) -> None:
    function, x = getattr(special, name), np.array([-1.5, 0.0, 2.5] if order == int(order) else [0.5, 2.5])
    np.testing.assert_array_equal(function(order, sg.tensor(x)).numpy(), function(order, x))
    slope = sg.grad(lambda x: np.sum(function(order, x)))(x)
    np.testing.assert_allclose(slope, getattr(special, name + "p")(order, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "x", "slope"),
    [
        (special.log_ndtr, -1e300, 1e300),
        (special.log_ndtr, -50.0, 50 + 1 / 50 - 2 / 50**3 + 10 / 50**5 - 74 / 50**7 + 706 / 50**9),
        (special.log_ndtr, 50.0, 0.0),
        (special.ndtri, 0.5, 2.5066282746310002),
        (special.gammaln, 1e-300, -1e300),
        (np.i0, 0.0, 0.0),
    ],
)
def test_derivatives_keep_their_digits(function: Any, x: float, slope: float) -> None:
    np.testing.assert_allclose(sg.grad(function)(x), slope, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize(("function", "zero"), [(special.xlogy, 0.0), (special.xlog1py, -1.0)])
def test_nothing_times_a_logarithm_has_finite_gradients(function: Any, zero: float) -> None:
    first, second = np.array([0.0, 0.0, 2.0]), np.array([zero, zero + 1, zero + 3])
    gradients = sg.grad(lambda a, b: np.sum(function(a, b)), (0, 1))(first, second)
    np.testing.assert_allclose(gradients[0], [0.0, 0.0, np.log(3.0)])
    np.testing.assert_allclose(gradients[1], [0.0, 0.0, 2 / 3])
    mixed = sg.hessian(lambda v: function(v[0], v[1]))(np.array([0.0, zero + 2]))
    np.testing.assert_allclose(mixed, [[0.0, 0.5], [0.5, 0.0]])


def test_what_has_no_derivative_is_refused() -> None:
    x = sg.tensor([0.5])
    with pytest.raises(UnsupportedError, match="gammainc was called"):
        special.gammainc(x, 1.0)
    with pytest.raises(ArgumentError, match=r"jv was called with an order of"):
        special.jv(x, 1.0)
    with pytest.raises(ArgumentError, match=r"n=-1"):
        sg.special.polygamma(-1, x)
