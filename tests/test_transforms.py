"""grad, value_and_grad, vjp, jvp, hvp, jacobian, hessian."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from scipy import optimize

import stepgrad as sg
from stepgrad.errors import ArgumentError, GradientError

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 3))


def bowl(x: Any) -> Any:
    """Rosenbrock's function, in plain NumPy."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2.0) ** 2.0 + (1 - x[:-1]) ** 2.0)


def test_numpy_in_numpy_out_tensors_in_tensors_out() -> None:
    value, gradient = sg.value_and_grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0]))
    assert isinstance(value, np.float64)
    assert type(gradient) is np.ndarray
    value, gradient = sg.value_and_grad(lambda x: np.sum(x * x))(sg.tensor([1.0, 2.0]))
    assert isinstance(value, sg.Tensor)
    assert isinstance(gradient, sg.Tensor)
    assert isinstance(sg.grad(lambda x: x * x)(3.0), np.float64)


def test_wrt_by_position_name_and_several() -> None:
    def f(x: Any, y: Any, *, z: Any) -> Any:
        return x * y * z

    assert sg.grad(f, wrt=1)(2.0, 3.0, z=4.0) == 8
    assert sg.grad(f, wrt="z")(2.0, 3.0, z=4.0) == 6
    assert sg.grad(f, wrt=(0, "z"))(2.0, 3.0, z=4.0) == (12, 6)
    with pytest.raises(ArgumentError, match="wrt=5 was asked for"):
        sg.grad(f, wrt=5)(2.0, 3.0, z=4.0)


def test_structures_as_arguments() -> None:
    Pair = namedtuple("Pair", "a b")

    def f(tree: Any) -> Any:
        return sg.sum(tree["w"][0] * tree["w"][1]) + tree["p"].a * tree["p"].b

    tree = {"w": [np.array([1.0, 2.0]), np.array([3.0, 4.0])], "p": Pair(2.0, 5.0)}
    gradient = sg.grad(f)(tree)
    np.testing.assert_array_equal(gradient["w"][0], [3, 4])
    assert gradient["p"] == Pair(5.0, 2.0)


def test_has_aux() -> None:
    (loss, aux), gradient = sg.value_and_grad(lambda x: (x * x, {"double": 2 * x}), has_aux=True)(3.0)
    assert (loss, aux["double"], gradient) == (9, 6, 6)


def test_scipy_minimizes_with_every_gradient_method() -> None:
    for method in ("CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "Newton-CG", "trust-constr"):
        found = optimize.minimize(sg.value_and_grad(bowl), np.array([-1.2, 1.0]), jac=True, method=method)
        np.testing.assert_allclose(found.x, [1, 1], atol=2e-3, err_msg=method)
    found = optimize.minimize(bowl, [-1.2, 1.0], jac=sg.grad(bowl), hess=sg.hessian(bowl), method="trust-exact")
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-6)


def test_vjp_jvp_agree_with_the_jacobian() -> None:
    x = RNG.standard_normal(3)
    J = sg.jacobian(lambda x: np.tanh(A @ x))(x)
    np.testing.assert_allclose(J, (1 - np.tanh(A @ x) ** 2)[:, None] * A)
    u, v = RNG.standard_normal(4), RNG.standard_normal(3)
    value, pull = sg.vjp(lambda x: np.tanh(A @ x), x)
    np.testing.assert_allclose(value, np.tanh(A @ x))
    np.testing.assert_allclose(pull(u)[0], u @ J)
    np.testing.assert_allclose(pull(2 * u)[0], 2 * u @ J)
    value, change = sg.jvp(lambda x: np.tanh(A @ x), x, v)
    np.testing.assert_allclose(change, J @ v)


def test_structured_vjp_and_jvp() -> None:
    def f(x: Any, y: Any) -> Any:
        return {"p": x * y, "q": [x + 1.0]}

    value, pull = sg.vjp(f, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    gx, gy = pull({"p": np.array([1.0, 1.0]), "q": [np.array([10.0, 10.0])]})
    np.testing.assert_array_equal(gx, [13, 14])
    np.testing.assert_array_equal(gy, [1, 2])
    _, change = sg.jvp(f, (np.array([1.0, 2.0]), np.array([3.0, 4.0])), (np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    np.testing.assert_array_equal(change["p"], [3, 2])
    np.testing.assert_array_equal(change["q"][0], [1, 0])
    assert value["q"][0].tolist() == [2, 3]
    with pytest.raises(ArgumentError, match="a gradient has the shape"):
        pull({"p": np.ones(3), "q": [np.ones(2)]})


def test_hvp_and_hessian_agree() -> None:
    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    H = sg.hessian(bowl)(x)
    np.testing.assert_allclose(H, H.T)
    np.testing.assert_allclose(sg.hvp(bowl, x, v), H @ v)


def test_hvp_is_linear_in_cost() -> None:
    """The number of equations recorded grows linearly with the length of the function."""
    from stepgrad.tape.recording import recording

    def count(length: int) -> int:
        def chain(x: Any) -> Any:
            for _ in range(length):
                x = np.sin(x)
            return np.sum(x)

        with recording(equations=[]) as state:
            sg.jvp(chain, np.ones(2), np.ones(2))
            assert state.equations is not None
            return len(state.equations)

    assert count(40) - count(20) == count(60) - count(40)


def test_the_derivative_of_a_constant_gradient_is_zero() -> None:
    assert sg.grad(sg.grad(lambda x: 3 * x))(2.0) == 0
    np.testing.assert_array_equal(sg.hessian(lambda x: np.sum(x) * 2)(np.ones(2)), np.zeros((2, 2)))
    np.testing.assert_array_equal(sg.hvp(lambda x: np.sum(x), np.ones(2), np.ones(2)), [0, 0])


def test_nested_differentiation_does_not_confuse_levels() -> None:
    # d/dx (x * d/dy (x + y)) = 1, the classic test for perturbation confusion
    assert sg.grad(lambda x: x * sg.grad(lambda y: x + y)(1.0))(1.0) == 1
    assert sg.grad(lambda x: sg.grad(lambda y: x * y * y)(x))(3.0) == 12


def test_a_closure_is_not_the_argument() -> None:
    x = sg.tensor(3.0)
    assert sg.grad(lambda y: x * y)(x).item() == 3.0


def test_parameters_as_arguments() -> None:
    W = sg.Parameter([1.0, 2.0])
    gradient = sg.grad(lambda W: sg.sum(W * W))(W)
    assert isinstance(gradient, sg.Tensor)
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient.numpy(), [2, 4])


def test_a_function_that_leaves_the_tape() -> None:
    with pytest.raises(GradientError, match=r"returned float 1.0"):
        sg.grad(lambda x: 1.0)(2.0)
    with pytest.raises(GradientError, match="not one number"):
        sg.grad(lambda x: x * 2)(np.ones(2))


def test_float32_stays_float32() -> None:
    x = np.ones(3, np.float32)
    value, gradient = sg.value_and_grad(lambda x: np.mean(np.exp(x * 2.0) / 3 + 1))(x)
    assert value.dtype == gradient.dtype == np.float32


def test_mixed_float_dtypes_promote_and_gradients_come_back_in_their_own() -> None:
    x, y = np.ones(3, np.float32), np.ones(3, np.float64)
    gx, gy = sg.grad(lambda x, y: np.sum(x * y), (0, 1))(x, y)
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)


def test_an_inner_gradient_depends_on_the_outer_argument() -> None:
    assert sg.grad(lambda x: x * sg.grad(lambda y: x * y)(2.0))(1.0) == 2
    assert sg.grad(lambda x: x * sg.vjp(lambda y: x * y, 2.0)[1](1.0)[0])(1.0) == 2
    assert sg.grad(lambda x: x * sg.hvp(lambda y: x * y * y, 2.0, 1.0))(3.0) == 12
    x = sg.tensor(3.0)
    inner = sg.grad(lambda y: x * y)(2.0)
    assert isinstance(inner, sg.Tensor)
    assert sg.backward(x * inner, x).item() == 6
    W = sg.Parameter([2.0])
    assert isinstance(sg.grad(lambda y: sg.sum(W * y))(np.ones(1, np.float32)), sg.Tensor)


def test_downstream_gradients_given_as_numbers() -> None:
    _, pull = sg.vjp(np.sum, np.ones((2, 3)))
    np.testing.assert_array_equal(pull(2.0)[0], np.full((2, 3), 2.0))
    assert sg.astype(2.0, np.float32).dtype == np.float32


def test_float16_gradients_stay_float16() -> None:
    x = np.array([0.5, -1.0], np.float16)
    assert sg.grad(lambda x: sg.sum(sg.sigmoid(x) * sg.erf(x)))(x).dtype == np.float16
