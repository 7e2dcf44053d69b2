"""Elementwise ops: conventions at kinks, tails, dtypes, NumPy's protocols and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, GradientError, UnsupportedError
from stepgrad.tape.expressions import call_text, tidy

# --- the table in docs/conventions.md

TABLE = Path(__file__).parents[2] / "docs" / "conventions.md"


def rows() -> list[Any]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip(" `") for cell in line.strip("| ").split(" | ")] for line in lines]
    return [pytest.param(*row[:4], id=f"{row[0]} at {row[1]}") for row in cells]


@pytest.mark.parametrize(("function", "point", "value", "derivative"), rows())
def test_conventions(function: str, point: str, value: str, derivative: str) -> None:
    numbers = {"inf": math.inf, "nan": math.nan, "pi": math.pi}
    names = [setting.split("=")[0].strip() for setting in point.split(",")]
    values = [eval(setting.split("=")[1], numbers) for setting in point.split(",")]

    def f(*operands: Any) -> Any:
        return eval(function, vars(sg) | dict(zip(names, operands, strict=True)))

    result, gradients = sg.value_and_grad(f, tuple(range(len(values))))(*[np.float64(v) for v in values])
    np.testing.assert_allclose(result, eval(value, numbers), rtol=1e-15)
    np.testing.assert_allclose(gradients, [eval(d, numbers) for d in derivative.split(",")], rtol=1e-15)


def test_the_table_is_read() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize(
    ("order", "expected"), [(0, 1), (1, 0), (2, -(math.pi**2) / 3), (3, 0), (4, math.pi**4 / 5), (6, -(math.pi**6) / 7)]
)
def test_sinc_at_zero_to_every_order(order: int, expected: float) -> None:
    f: Callable[..., Any] = np.sinc
    for _ in range(order):
        f = sg.grad(f)
    assert float(f(np.float64(0.0))) == pytest.approx(expected, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("x", [1e-9, 1e-4, 0.3, 0.636, 0.637, 0.95, 0.956, 2.7, 30.2])
def test_derivatives_of_sinc_keep_their_digits(x: float) -> None:
    u = math.pi * x  # sinc is the spherical Bessel function j0 of u
    first, second = sg.grad(np.sinc)(x), sg.grad(sg.grad(np.sinc))(x)
    j = [float(special.spherical_jn(n, u)) for n in range(3)]
    assert float(first) == pytest.approx(-math.pi * j[1], rel=1e-12)
    assert float(second) == pytest.approx(math.pi**2 * (2 * j[2] - j[0]) / 3, rel=1e-11, abs=1e-14)


# --- dtypes

UNARY = (
    "absolute arcsin arccos arctan arcsinh arccosh arctanh cbrt celu ceil cos cosh deg2rad elu erf erfc exp exp2 expm1 "
    "fabs floor gelu hardsigmoid hardswish hardtanh leaky_relu log log10 log1p log2 log_sigmoid log_softmax logsumexp "
    "mish nan_to_num negative positive rad2deg reciprocal relu relu6 rint selu sigmoid sign silu sin sinc sinh softmax "
    "softplus softsign sqrt square tan tanh trunc"
).split()
BINARY = (
    "add arctan2 copysign divide float_power floor_divide fmax fmin fmod hypot logaddexp logaddexp2 maximum minimum "
    "multiply power remainder subtract"
).split()
INSIDE = {"arccosh": 1.7}  # 0.7 lies in the domain of all others


def slopes(f: Callable[..., Any], x: Any) -> list[Any]:
    """f(x) and the first and second derivative of its sum, as far as they exist."""
    out = [f(sg.tensor(x)).numpy()]
    loss = lambda v: sg.sum(f(v) * v)
    out.append(sg.grad(loss)(x))
    out.append(sg.hvp(loss, x, np.ones_like(x)))
    return out


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_float32_stays_float32(name: str, shape: tuple[int, ...]) -> None:
    x = np.full(shape, INSIDE.get(name, 0.7), np.float32)
    f = getattr(sg, name)
    if not shape and name in ("softmax", "log_softmax"):
        f = lambda v: getattr(sg, name)(v, axis=None)
    assert {np.asarray(v).dtype for v in slopes(f, x)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", [name for name in BINARY if name != "float_power"])
@pytest.mark.parametrize("other", [2, 0.5, "same"])
@pytest.mark.parametrize("swapped", [False, True])
def test_float32_stays_float32_with_python_numbers(name: str, other: Any, swapped: bool) -> None:
    x = np.full((2, 3), 0.7, np.float32)

    def f(v: Any) -> Any:
        pair = (v, v * 3) if other == "same" else (v, other)
        return getattr(sg, name)(*(pair[::-1] if swapped else pair))

    assert {np.asarray(v).dtype for v in slopes(f, x)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", UNARY + BINARY)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_give_the_dtype_that_numpy_gives(name: str, dtype: Any) -> None:
    operands = [np.array([1, 2], dtype)] * (2 if name in BINARY else 1)
    reference = getattr(np, name, None)
    with np.errstate(all="ignore"):
        out = getattr(sg, name)(*operands)
        assert out.numpy().dtype == out.dtype
        if reference is not None:
            expected = reference(*operands)
            assert out.dtype == expected.dtype
            np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("name", BINARY)
def test_a_float_and_an_integer_operand(name: str) -> None:
    x, n = np.array([1.5, 2.5], np.float32), np.array([2, 3])
    out = getattr(sg, name)(x, n)
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out.numpy(), getattr(np, name)(x, n))
    function = getattr(sg, name)
    assert sg.grad(lambda v: sg.sum(function(v, n) * v))(x).dtype == np.float32
    assert sg.grad(lambda v: sg.sum(function(n, v) * v))(x).dtype == np.float32


# --- far out

FAR_OUT = {np.float32: [1e2, 1e4, 1e10, 1e19, 1e30, 1e38], np.float64: [1e2, 1e4, 1e10, 1e100, 1e153, 1e300]}
BOUNDED = (  # whose first and second derivatives stay finite however large x is
    "absolute arctan arcsinh celu elu erf erfc gelu hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish relu "
    "relu6 selu sigmoid silu softplus softsign tanh square"
).split()


@pytest.mark.parametrize("name", [*BOUNDED, "gelu_tanh"])
@pytest.mark.parametrize("dtype", FAR_OUT)
def test_derivatives_far_out_are_finite(name: str, dtype: Any) -> None:
    f = getattr(sg, name) if name != "gelu_tanh" else lambda v: sg.gelu(v, approximate="tanh")
    x = np.array([s * v for v in FAR_OUT[dtype] for s in (1, -1) if not (name == "square" and v > 1e37)], dtype)
    with np.errstate(over="ignore"):
        first = sg.grad(lambda v: sg.sum(f(v)))(x)
        second = sg.hvp(lambda v: sg.sum(f(v)), x, np.ones_like(x))
    assert np.isfinite(first).all(), first
    assert np.isfinite(second).all(), second


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (sg.expm1, -40.0, math.exp(-40)),
        (sg.log1p, 1e-30, 1.0),
        (sg.erfc, 20.0, -2 / math.sqrt(math.pi) * math.exp(-400)),
        (sg.arcsin, 1 - 2**-50, 1 / math.sqrt(2**-50 * (2 - 2**-50))),
        (sg.arctanh, 1 - 2**-50, 1 / (2**-50 * (2 - 2**-50))),
        (sg.arccosh, 1e200, 1e-200),
        (sg.arcsinh, 1e200, 1e-200),
        (lambda x: sg.hypot(x, 3e200), 4e200, 0.8),
        (lambda x: sg.arctan2(x, 3e200), 4e200, 3 / 25e200),
        (lambda x: sg.arctan2(x, 3e-200), 4e-200, 3 / 25e-200),
        (lambda x: sg.logaddexp(x, 1000.0), 1000.0, 0.5),
        (lambda x: sg.logaddexp(x, -1000.0), 1000.0, 1.0),
        (lambda x: sg.logaddexp2(x, 5000.0), 5000.0, 0.5),
    ],
)
def test_derivatives_keep_their_digits(f: Any, x: float, expected: float) -> None:
    assert float(sg.grad(f)(x)) == pytest.approx(expected, rel=1e-14)


# --- powers


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, -1, -3, 0.5, 2.5, 2.0, True])
def test_power_with_a_python_number(exponent: Any) -> None:
    x = np.array([0.5, 1.0, 2.0])
    first = exponent * x ** (exponent - 1.0)
    second = exponent * (exponent - 1) * x ** (exponent - 2.0)
    np.testing.assert_allclose(sg.grad(lambda v: (v**exponent).sum())(x), first, rtol=1e-14)
    np.testing.assert_allclose(sg.hvp(lambda v: (v**exponent).sum(), x, np.ones(3)), second, rtol=1e-14, atol=1e-15)


def test_power_with_a_number_as_the_base() -> None:
    x = np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(sg.grad(lambda v: (2**v).sum())(x), 2**x * math.log(2), rtol=1e-14)
    assert np.isnan(sg.grad(lambda v: ((-2.0) ** v).sum())(np.array([2.0]))).all()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_integer_powers_at_zero_to_third_order(order: int) -> None:
    for n in range(order, 5):
        f: Callable[..., Any] = lambda x, n=n: x**n
        for _ in range(order):
            f = sg.grad(f)
        assert float(f(0.0)) == (math.factorial(n) if n == order else 0)


def test_hessian_of_power_at_zero_is_finite() -> None:
    hessian = sg.hessian(lambda p: p[0] ** p[1])(np.array([0.0, 3.0]))
    np.testing.assert_array_equal(hessian, np.zeros((2, 2)))
    np.testing.assert_allclose(
        sg.hessian(lambda p: p[0] ** p[1])(np.array([2.0, 0.0])), [[0, 0.5], [0.5, math.log(2) ** 2]], rtol=1e-14
    )


def test_a_power_reads_as_it_was_written() -> None:
    x = sg.tensor([1.0, 2.0], name="x")
    for power, text in ((x**2, "x ** 2"), (2**x, "2 ** x"), (x**-0.5, "x ** (-0.5)"), (x**x, "x ** x")):
        assert tidy(call_text(power.equation, ["x", "x"])) == text


@pytest.mark.parametrize(("base", "exponent"), [(2, 3), (2.0, 3), (-8.0, 1 / 3), (4, 0.5), (2, math.inf)])
def test_powers_of_python_numbers(base: Any, exponent: Any) -> None:
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(sg.power(base, exponent).numpy(), np.power(base, exponent))


def test_powers_with_infinity() -> None:
    x = sg.tensor([0.5, 2.0])
    np.testing.assert_array_equal((x**math.inf).numpy(), [0, np.inf])
    np.testing.assert_array_equal((math.inf**x).numpy(), [np.inf, np.inf])


# --- NumPy's names and protocols


ALIASES = (
    "abs=absolute acos=arccos acosh=arccosh asin=arcsin asinh=arcsinh atan=arctan atan2=arctan2 atanh=arctanh "
    "around=round degrees=rad2deg fix=trunc mod=remainder pow=power radians=deg2rad true_divide=divide"
).split()


@pytest.mark.parametrize("pair", ALIASES)
def test_aliases(pair: str) -> None:
    alias, name = pair.split("=")
    assert getattr(sg, alias) is getattr(sg, name)
    operands = [sg.tensor([0.5, 1.0])] * (2 if name in BINARY else 1)
    with np.errstate(all="ignore"):
        through_numpy = getattr(np, alias)(*operands)
        assert isinstance(through_numpy, sg.Tensor)
        np.testing.assert_array_equal(through_numpy.numpy(), getattr(np, alias)(*[t.numpy() for t in operands]))


IN_NUMPY = [name for name in (*UNARY, *BINARY) if hasattr(np, name)]


@pytest.mark.parametrize("name", IN_NUMPY)
def test_numpy_functions_record_on_tensors(name: str) -> None:
    x = np.array([0.3, 0.7]) + INSIDE.get(name, 0.0)
    y = np.array([0.6, 0.2])
    tensor = sg.tensor(x)
    if name in BINARY:
        for pair, expected in (
            ((tensor, y), (x, y)),
            ((y, tensor), (y, x)),
            ((tensor, 2), (x, 2)),
            ((2, tensor), (2, x)),
        ):
            out = getattr(np, name)(*pair)
            assert isinstance(out, sg.Tensor)
            np.testing.assert_allclose(out.numpy(), getattr(np, name)(*expected), rtol=1e-15)
    else:
        out = getattr(np, name)(tensor)
        assert isinstance(out, sg.Tensor)
        np.testing.assert_array_equal(out.numpy(), getattr(np, name)(x))


def test_scipy_functions_record_on_tensors() -> None:
    x = np.array([-0.5, 0.5])
    for function in (special.erf, special.erfc, special.expit, special.log_expit):
        out = function(sg.tensor(x))
        assert isinstance(out, sg.Tensor)
        np.testing.assert_array_equal(out.numpy(), function(x))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "//": lambda a, b: a // b, "%": lambda a, b: a % b, "**": lambda a, b: a**b,
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize(
    "other", [2, 0.5, np.array([0.5, 3.0]), np.float64(2.0), np.int64(2), np.array(2.0), np.ones((2, 1))], ids=repr
)
def test_operators_with_arrays_and_numbers_on_either_side(sign: str, other: Any) -> None:
    operator = OPERATORS[sign]
    x = np.array([1.5, 2.0])
    for out, expected in (
        (operator(sg.tensor(x), other), operator(x, other)),
        (operator(other, sg.tensor(x)), operator(other, x)),
    ):
        assert isinstance(out, sg.Tensor)
        assert out.dtype == expected.dtype
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-15)


def test_unary_operators() -> None:
    x = sg.tensor([-1.25, 2.0])
    np.testing.assert_array_equal((-x).numpy(), [1.25, -2])
    np.testing.assert_array_equal((+x).numpy(), [-1.25, 2])
    np.testing.assert_array_equal(abs(x).numpy(), [1.25, 2])
    np.testing.assert_array_equal(round(x, 1).numpy(), np.round([-1.25, 2.0], 1))
    np.testing.assert_array_equal((~(x > 0)).numpy(), [True, False])


# --- clip, rounding and the rest


@pytest.mark.parametrize(
    "clip",
    [
        lambda x: sg.clip(x, 0, 1),
        lambda x: np.clip(x, 0, 1),
        lambda x: x.clip(0, 1),
        lambda x: sg.clip(x, min=0, max=1),
        lambda x: sg.clip(sg.clip(x, 0), max=1),
        lambda x: sg.clip(sg.clip(x, None, 1), 0, None),
    ],
)
def test_clip_in_every_spelling(clip: Any) -> None:
    x = np.array([-1.0, 0.3, 2.0])
    np.testing.assert_array_equal(clip(sg.tensor(x)).numpy(), np.clip(x, 0, 1))
    np.testing.assert_array_equal(sg.grad(lambda v: clip(v).sum())(x), [0, 1, 0])


def test_clip_passes_the_gradient_to_the_end_that_was_taken() -> None:
    x, low, high = np.array([-1.0, 0.3, 2.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.5])
    gradients = sg.grad(lambda *operands: sg.clip(*operands).sum(), (0, 1, 2))(x, low, high)
    np.testing.assert_array_equal(gradients, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]])


def test_clip_without_ends_and_of_integers() -> None:
    n = sg.tensor([-1, 5])
    np.testing.assert_array_equal(sg.clip(n, 0).numpy(), [0, 5])
    assert sg.clip(n, 0).dtype == sg.clip(n, None, 3).dtype == np.int64
    np.testing.assert_array_equal(sg.clip(n).numpy(), [-1, 5])


def test_heaviside_passes_the_gradient_where_its_value_is_used() -> None:
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(sg.heaviside(x, 0.5).numpy(), [0, 0.5, 1])
    np.testing.assert_array_equal(sg.grad(lambda y: sg.heaviside(x, y).sum())(np.ones(3)), [0, 1, 0])


def test_copysign_follows_the_sign() -> None:
    x, y = np.array([-2.0, 3.0, 4.0]), np.array([1.0, -1.0, -0.0])
    np.testing.assert_array_equal(sg.grad(lambda v: sg.copysign(v, y).sum())(x), [-1, -1, -1])


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite", "signbit"])
def test_questions_about_floats(name: str) -> None:
    x = np.array([1.0, -np.inf, np.nan, -0.0])
    np.testing.assert_array_equal(getattr(sg, name)(x).numpy(), getattr(np, name)(x))
    np.testing.assert_array_equal(getattr(np, name)(sg.tensor(x)).numpy(), getattr(np, name)(x))


def test_isclose_and_nan_to_num() -> None:
    x = np.array([1.0, np.nan, np.inf])
    np.testing.assert_array_equal(np.isclose(sg.tensor(x), x, equal_nan=True).numpy(), [True, True, True])
    np.testing.assert_array_equal(np.isclose(sg.tensor(x), x).numpy(), [True, False, True])
    np.testing.assert_array_equal(sg.nan_to_num(x, nan=7.0, posinf=8.0).numpy(), [1, 7, 8])


@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "trunc", "rint", "round"])
def test_a_loss_that_only_depends_through_steps_says_so(name: str) -> None:
    with pytest.raises(GradientError, match=name):
        sg.grad(lambda x: getattr(sg, name)(x).sum())(np.array([1.2, 3.4]))


# --- bad input


def test_integers_to_negative_powers() -> None:
    for power in (lambda n: n**-1, lambda n: n ** np.array([1, -1]), lambda n: 2 ** (-n)):
        with pytest.raises(DtypeError, match=r"not an integer"):
            power(sg.tensor([1, 2]))
    np.testing.assert_array_equal((sg.tensor([1, 2]) ** -1.0).numpy(), [1, 0.5])


def test_dtypes_on_which_an_op_is_not_defined() -> None:
    flags = sg.tensor([True, False], name="flags")
    with pytest.raises(DtypeError, match=r"subtract\(flags \(2,\) bool, .*not defined on bool and bool"):
        flags - flags
    with pytest.raises(DtypeError, match="negative"):
        -flags


def test_settings_of_ufuncs_are_refused() -> None:
    x = sg.tensor([1.0, 2.0])
    with pytest.raises(UnsupportedError, match=r"where=.*\n.*\n.*sg\.where"):
        np.add(x, 1.0, where=np.array([True, False]))
    with pytest.raises(UnsupportedError, match="dtype="):
        np.exp(x, dtype=np.float32)


def test_decimals_are_whole() -> None:
    with pytest.raises(ArgumentError, match=r"decimals was given as 1.5"):
        sg.round(sg.tensor([1.26]), 1.5)  # type: ignore[arg-type]


def test_an_end_of_clip_given_twice() -> None:
    with pytest.raises(ArgumentError, match="twice"):
        sg.clip([1.0], 0, min=0)
