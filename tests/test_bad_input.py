"""Bad input: an error that says what to write instead, never a traceback from inside or a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import StepgradError

VECTOR = sg.tensor([1.0, 2.0], name="x")
MATRIX = sg.tensor([[4.0, 1.0], [1.0, 3.0]], name="A")
BATCH = np.ones((4, 2), np.float32)
KEY = sg.random.key(0)


class Thing:
    """Not a number."""

    def __repr__(self) -> str:
        return "Thing()"


def parameter() -> dict[str, sg.Parameter]:
    return {"P": sg.Parameter([1.0, 2.0])}


def fit(**changes: Any) -> Any:
    model = sg.nn.Linear(2, 1)
    settings = {
        "model": model,
        "loss": sg.losses.mse,
        "optimizer": sg.optim.SGD(model.parameters(), lr=0.1),
        "data": (BATCH, BATCH[:, :1]),
        "epochs": 1,
        "progress": False,
    }
    return sg.fit(**(settings | changes))


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    # what a tensor can't be made of
    "none": (lambda: sg.tensor(None), "a NoneType with dtype object can't be made into a tensor"),
    "text": (lambda: sg.tensor("a"), "a str with dtype <U1"),
    "objects": (lambda: VECTOR + np.array([1, None]), "a ndarray with dtype object"),
    "ragged": (lambda: sg.tensor([[1, 2], [3]]), "a list can't be made into a tensor"),
    "dates": (lambda: sg.tensor(np.array(["2020-01-01"], "datetime64[D]")), "datetime64"),
    "complex": (lambda: sg.tensor(1j), "derivatives are taken of real numbers"),
    "generator": (lambda: sg.tensor(i for i in [1]), "a generator"),
    # dtypes
    "astype text": (lambda: VECTOR.astype("floaty"), "dtype='floaty' was given"),
    "astype str": (lambda: VECTOR.astype(str), "an array was to be converted to <U0"),
    "zeros_like": (lambda: sg.zeros_like(VECTOR, dtype=1.5), "dtype=1.5 was given"),
    "zeros_like of bytes": (lambda: sg.zeros_like(VECTOR, dtype="S3"), "converted to |S3"),
    "random dtype": (lambda: sg.random.normal(KEY, 2, dtype=Thing()), "dtype=Thing() was given"),
    "layer": (lambda: sg.nn.Linear(2, 2, dtype=1.5), "dtype=1.5 was given"),
    "result_type": (lambda: sg.result_type(VECTOR, "abc"), "NumPy says: data type 'abc' not understood"),
    "linalg longdouble": (lambda: sg.linalg.inv(np.eye(2, dtype=np.longdouble)), "in float32 or float64"),
    # settings that are one number
    "leaky_relu": (lambda: sg.leaky_relu(VECTOR, None), "negative_slope was given as None"),
    "leaky_relu array": (lambda: sg.leaky_relu(VECTOR, np.ones(2)), "the same for all elements"),
    "elu text": (lambda: sg.elu(VECTOR, "1.5"), "alpha was given as '1.5'"),
    "celu": (lambda: sg.celu(VECTOR, "a"), "alpha was given as 'a'"),
    "hardtanh": (lambda: sg.hardtanh(VECTOR, VECTOR), "min_val was given as tensor"),
    "gelu": (lambda: sg.gelu(VECTOR, np.ones(2)), "gelu was called with approximate="),
    "layer setting": (lambda: sg.nn.LeakyReLU([])(BATCH), "negative_slope was given as []"),
    "nan_to_num": (lambda: sg.nan_to_num(VECTOR, nan="a"), "nan was given as 'a'"),
    "matrix_rank": (lambda: sg.linalg.matrix_rank(MATRIX, VECTOR), "tol was given as tensor"),
    "pinv": (lambda: sg.linalg.pinv(MATRIX, {}), "rcond was given as {}"),
    "norm": (lambda: sg.norm(MATRIX, np.ones(2)), "a matrix norm with ord="),
    "eigh": (lambda: sg.linalg.eigh(MATRIX, None), "UPLO=None"),
    "LayerNorm eps": (lambda: sg.nn.LayerNorm(2, eps="a"), "eps was given as 'a'"),
    "LayerNorm negative": (lambda: sg.nn.LayerNorm(2, eps=-1.0), "LayerNorm was given eps=-1.0"),
    "LayerNorm shape": (lambda: sg.nn.LayerNorm(None), "shape[0]=None"),
    "betas": (lambda: sg.optim.Adam(parameter(), betas=0.9), "Adam was given betas=0.9"),
    "reduction": (lambda: sg.losses.mse(VECTOR, VECTOR, reduction=np.ones(2)), "a loss was given reduction="),
    # several arrays
    "concatenate": (lambda: sg.concatenate(sg.tensor(1.0)), "write sg.concatenate([a, b])"),
    "stack": (lambda: sg.stack(None), "it takes the arrays to join as one list"),
    "multi_dot": (lambda: sg.linalg.multi_dot(5), "multi_dot was called with a int"),
    "einsum": (lambda: sg.einsum([VECTOR, VECTOR], VECTOR), "in the place of axis numbers"),
    "select": (lambda: sg.select(None, [VECTOR]), "select was given 0 conditions and 1 choices"),
    "allclose": (lambda: sg.allclose(np.ones(3), MATRIX), "axes are matched from the right"),
    "full_like": (lambda: sg.full_like(VECTOR, "abc"), "a str with dtype <U3"),
    "polyval": (lambda: sg.polyval(sg.tensor(1.0), VECTOR), "one coefficient for each power"),
    "index": (lambda: VECTOR[{0}], "{0} was used as an index"),
    # networks and training
    "layer input": (lambda: sg.nn.Linear(2, 2)("a"), "a str can't be made into a tensor"),
    "layer input object": (lambda: sg.nn.LayerNorm(2)(Thing()), "a Thing can't be made into a tensor"),
    "targets": (lambda: sg.losses.mse(VECTOR, Thing()), "a Thing can't be made into a tensor"),
    "clip_by_norm": (lambda: sg.optim.clip_by_norm([1.5], 1.0), "a float among the gradients"),
    "fit model": (lambda: fit(model=None), "fit was given None as its model"),
    "fit loss": (lambda: fit(loss="mse"), "fit was given 'mse' as its loss"),
    "fit optimizer": (lambda: fit(optimizer=0.1), "fit was given 0.1 as its optimizer"),
    # checks
    "directions": (lambda: sg.check_gradients(np.sum, VECTOR, directions="a"), "directions was given as 'a'"),
    "tolerance": (lambda: sg.check_gradients(np.sum, VECTOR, tolerance=None), "tolerance was given as None"),
    "seed": (lambda: sg.check_gradients(np.sum, VECTOR, seed=-1), "seed=-1"),
}


@pytest.mark.parametrize("name", CASES)
def test_error_says_what_is_wrong_and_what_to_write(name: str) -> None:
    call, text = CASES[name]
    with pytest.raises(StepgradError) as raised:
        call()
    assert text in str(raised.value)
    assert raised.value.why
    assert raised.value.instead


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: sg.Parameter(x) * x[0],
        lambda x: np.array([x[0], x[1]]).sum(),
        lambda x: float(x[0]) * x[1],
        lambda x: np.random.default_rng(0).normal(x).sum() * x[0],
        lambda x: np.add(np.ones(2), x, np.zeros(2)).sum(),
        lambda x: sg.leaky_relu(x, x[0]).sum(),
    ],
)
def test_values_do_not_leave_a_differentiated_function_unseen(leave: Callable[[Any], Any]) -> None:
    with pytest.raises(sg.errors.UnsupportedError):
        sg.grad(lambda x: sg.sum(leave(x)))(np.ones(2, np.float32))


# --- what NumPy takes, and gives the same numbers


def test_range_is_an_index() -> None:
    x = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(sg.tensor(x)[range(1, 3)].numpy(), x[range(1, 3)])
    gradient = sg.grad(lambda x: np.sum(x[range(0, 4, 2)] * 2))(x)
    assert np.array_equal(gradient[:, 0], [2, 0, 2, 0])


def test_logaddexp_reduce_is_logsumexp() -> None:
    x = np.array([[0.0, 1.0], [2.0, -1.0]])
    for settings in ({}, {"axis": 1}, {"axis": None}, {"keepdims": True}):
        assert np.allclose(np.logaddexp.reduce(sg.tensor(x), **settings).numpy(), np.logaddexp.reduce(x, **settings))
    assert np.allclose(sg.grad(lambda x: np.sum(np.logaddexp.reduce(x)))(x).sum(), 2)


def test_where_with_a_condition_alone_says_where_it_holds() -> None:
    x = np.array([[0.0, 3.0], [4.0, 0.0]])
    found = np.where(sg.tensor(x) > 0)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(found, np.where(x > 0), strict=True))


@pytest.mark.parametrize("axis", [-1, 0])
def test_trapezoid_of_one_curve_over_several_grids(axis: int) -> None:
    y, x = np.array([1.0, 2.0]), np.array([[1.0, 2.0], [3.0, 5.0]])
    assert np.array_equal(sg.trapezoid(sg.tensor(y), x, axis=axis).numpy(), np.trapezoid(y, x, axis=axis))


def test_gradient_at_unsigned_places() -> None:
    places = np.array([250, 3, 7], np.uint8)
    f = np.array([1.0, 2.0, 4.0])
    assert np.allclose(sg.gradient(sg.tensor(f), places).numpy(), np.gradient(f, places))


@pytest.mark.parametrize("values", [[np.nan, np.inf], [1.0, np.inf, np.nan], [np.nan, 1.0, 3.0]])
def test_nan_variance_of_infinities(values: list[float]) -> None:
    with np.errstate(invalid="ignore"):
        assert np.array_equal(sg.nanvar(sg.tensor(values)).numpy(), np.nanvar(values), equal_nan=True)
        assert np.array_equal(sg.nanstd(sg.tensor(values)).numpy(), np.nanstd(values), equal_nan=True)


def test_check_of_an_op_after_a_pad() -> None:
    """`pad` has a param called value, which is not its value."""
    report = sg.check_gradients(lambda x, y: np.sum(np.pad(x, 1, constant_values=2.0) * y), np.ones(2), np.arange(4.0))
    assert report.ok, str(report)


# --- whatever goes wrong inside, recording goes on as before


def leaves_on_the_way(x: Any, error: BaseException) -> Any:
    def fail(y: Any) -> Any:
        np.exp(y)
        raise error

    with sg.no_grad():
        sg.checkpoint(lambda z: sg.grad(fail)(z))(x * 2)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda fn, x: sg.grad(fn)(x),
    "vjp": sg.vjp,
    "jvp": lambda fn, x: sg.jvp(fn, x, x),
    "hessian": lambda fn, x: sg.hessian(fn)(x),
    "trace": sg.trace,
    "check_gradients": sg.check_gradients,
}


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1), RecursionError()], ids=repr)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_exceptions_pass_through_and_leave_no_state(name: str, error: BaseException) -> None:
    x = np.array([1.0, 2.0])
    with pytest.raises(type(error)) as raised:
        TRANSFORMS[name](lambda x: leaves_on_the_way(x, error), x)
    assert raised.value is error
    t = sg.tensor(x)
    assert np.array_equal(sg.backward(np.sum(t**2), t).numpy(), 2 * x)
    assert float(t[0]) == 1.0  # allowed outside of a differentiated function


def test_interrupted_local_rule_leaves_no_state() -> None:
    @sg.custom_rule
    def twice(x: Any) -> Any:
        return x * 2

    @twice.backward
    def _(g: Any, out: Any, x: Any) -> Any:
        raise KeyboardInterrupt

    x = sg.tensor([1.0])
    with pytest.raises(KeyboardInterrupt):
        sg.backward(np.sum(twice(x)), x)
    assert sg.backward(np.sum(x * 3), x).item() == 3


def test_threads_record_apart() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def loss(x: Any) -> Any:
        return np.sum(np.tanh(x @ x.T) ** 2)

    x = np.random.default_rng(0).normal(size=(4, 4))
    expected = sg.grad(loss)(x)

    def work(i: int) -> bool:
        with sg.no_grad() if i % 3 == 0 else nullcontext():
            np.exp(sg.tensor(x))
        found = sg.trace(loss, x).gradients["x"] if i % 2 else sg.grad(sg.checkpoint(loss))(x)
        return np.array_equal(found, expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


# --- the core: operands, leaves, conversions, structures


def test_an_operand_too_many_is_not_taken_for_out() -> None:
    a, b = sg.tensor([1.0, 2.0]), sg.tensor([1.0, 2.0]) * 1.0
    for call in (lambda: sg.exp(a, b), lambda: sg.isnan(a, b), lambda: sg.add(a, a, b)):
        with pytest.raises(sg.errors.UnsupportedError, match=r"it was called with \d operands"):
            call()
        assert np.array_equal(b.numpy(), [1.0, 2.0])


MORE_CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (lambda: VECTOR * sg.tensor(np.ma.array([1.0, 2.0], mask=[0, 1])), "its mask would be lost"),
    "matrix": (lambda: np.ones((2, 2)).view(np.matrix) * MATRIX, "multiply matrices with @"),
    "none as a number": (lambda: sg.Parameter(None), "a NoneType with dtype object"),
    "text as a number": (lambda: sg.tensor("1.5", np.float32), "a str with dtype <U3"),
    "too large": (lambda: sg.tensor([300], np.uint8), "a list can't be made into a tensor"),
    "large integer": (lambda: sg.sin(10**30), "a Python number does not fit"),
    "bool": (lambda: bool(VECTOR), "x (2,) float64 was asked whether it is true"),
    "float": (lambda: float(VECTOR), "x (2,) float64 was to become one Python number"),
    "format": (lambda: f"{VECTOR:.2f}", "it has 2 elements"),
    "not a function": (lambda: sg.grad(np.sum(VECTOR))(VECTOR), "pass the function itself"),
    "wrt": (lambda: sg.grad(np.sum, None)(VECTOR), "wrt=None was asked for"),
    "wrt from the end": (lambda: sg.grad(np.sum, -2)(VECTOR), "wrt=-2 was asked for"),
    "has_aux": (lambda: sg.value_and_grad(np.sum, has_aux=True)(VECTOR), "return (loss, other)"),
    "two outputs": (lambda: sg.jacobian(lambda x: (x, 2 * x))(VECTOR), "returned 2 tensors"),
    "two losses": (lambda: sg.hvp(lambda x: (np.sum(x), x[0]), VECTOR, VECTOR), "returned 2 tensors"),
    "no output": (lambda: sg.jacobian(lambda x: [])(VECTOR), "returned 0 tensors"),
    "checkpoint": (lambda: sg.checkpoint(None), "checkpoint was given None"),
    "custom_rule": (lambda: sg.custom_rule(3), "custom_rule was given 3"),
    "delete": (lambda: exec("del x[0]", {"x": VECTOR}), "was deleted in place"),
}


@pytest.mark.parametrize("name", MORE_CASES)
def test_the_core_says_what_is_wrong_and_what_to_write(name: str) -> None:
    call, text = MORE_CASES[name]
    with pytest.raises(StepgradError) as raised:
        call()
    assert text in str(raised.value)


@pytest.mark.parametrize(
    "leave",
    [lambda x: x[0].item() * x, lambda x: sum(x.tolist()) * x, lambda x: sg.tensor(x).sum() * x],
    ids=["item", "tolist", "tensor"],
)
def test_numbers_do_not_leave_by_name_either(leave: Callable[[Any], Any]) -> None:
    with pytest.raises(sg.errors.UnsupportedError, match="inside a function that is being differentiated"):
        sg.grad(lambda x: np.sum(leave(x)))(np.ones(2))


def test_filling_an_array_says_to_stack() -> None:
    def filled(x: Any) -> Any:
        out = np.zeros(2)
        out[0] = x[0] * 2
        return np.sum(out)

    with pytest.raises(sg.errors.UnsupportedError, match=r"sg\.stack"):
        sg.grad(filled)(np.ones(2))


def test_places_are_the_users_not_numpys() -> None:
    with pytest.raises(sg.errors.UnsupportedError, match=r"at test_bad_input\.py:\d+: .*np\.full"):
        sg.grad(lambda x: np.sum(x) * np.full(2, x[0]).sum())(np.ones(2))


def test_dicts_go_by_their_keys_not_their_order() -> None:
    x = np.array([1.0, 2.0])
    ones, zeros = np.ones(2), np.zeros(2)
    _, pull = sg.vjp(lambda x: {"a": x, "b": 2 * x}, x)
    assert np.array_equal(pull({"b": zeros, "a": ones})[0], ones)
    change = sg.jvp(lambda d: d["a"] * 10 + d["b"], {"a": x, "b": x}, {"b": zeros, "a": ones})[1]
    assert np.array_equal(change, [10, 10])
    product = sg.hvp(lambda d: np.sum(d["a"] ** 2) + np.sum(d["b"] ** 3), {"a": x, "b": x}, {"b": zeros, "a": ones})
    assert np.array_equal(product["a"], [2, 2])
    assert np.array_equal(product["b"], zeros)


def test_what_is_computed_from_a_constant_gradient_has_gradient_0() -> None:
    slope = sg.grad(lambda x: np.sum(3 * x))
    assert np.array_equal(sg.grad(lambda x: np.sum(slope(x)))(np.ones(2)), [0, 0])


def test_copies_and_pickles_of_tensors() -> None:
    import copy
    import pickle

    x = sg.tensor([1.0, 2.0])
    y = x
    for _ in range(3000):
        y = y * 1.001
    assert np.array_equal(sg.backward(np.sum(copy.deepcopy([y])[0]), x).numpy(), sg.backward(np.sum(y), x).numpy())
    loaded = pickle.loads(pickle.dumps(y))
    assert np.array_equal(loaded.numpy(), y.numpy())


@pytest.mark.parametrize(
    ("name", "hint"), [("grad", "sg.backward"), ("detach", "sg.stop_gradient"), ("view", "reshape")]
)
def test_attributes_of_other_libraries(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(VECTOR, name)


def test_source_of_nested_gradients_of_numbers() -> None:
    def curvature(w: Any, x: Any) -> Any:
        return sg.grad(sg.grad(lambda x: np.sin(x * w)))(x)

    trace = sg.trace(curvature, np.array(0.3), np.array(0.5))
    module: dict[str, Any] = {}
    exec(trace.source(), module)
    _, cache = module["forward"](**trace.inputs)
    assert np.allclose(module["backward"](cache)["w"], trace.gradients["w"], rtol=1e-12)
