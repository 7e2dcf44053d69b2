"""Functions in which a NaN or Inf is planted; the line where it is born ends with `# born`.

Each case says which op makes it, in which element of its result, and what kind of birth that is.
"""

# ruff: noqa: RET504 - values are bound to names because these are told

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import stepgrad as sg

f16, f32, f64 = np.float16, np.float32, np.float64
inf, nan = np.inf, np.nan


@dataclass(frozen=True)
class Case:
    """One planted birth.

    Attributes:
        fn: the function to call.
        args: its arguments.
        op, element, kind, value, role: what the birth has to say.
        source: where the marked line stands.
        before: what the cells hold before the call.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    op: str
    element: tuple[int, ...]
    kind: str
    value: float
    role: str
    source: Callable[..., Any]
    before: dict[Any, Any] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """The number of the marked line."""
        lines, first = inspect.getsourcelines(self.source)
        (marked,) = [first + i for i, text in enumerate(lines) if "# born" in text]
        return marked


CASES: dict[str, Case] = {}


def plant(
    *args: Any,
    op: str,
    element: tuple[int, ...],
    kind: str,
    value: float = inf,
    role: str = "forward",
    compiled: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters the decorated function as a case."""

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        called = sg.compile(fn) if compiled else fn
        CASES[fn.__name__] = Case(called, args, op, element, kind, value, role, fn)
        return fn

    return enter


def array(*values: Any, dtype: Any = f64) -> Any:
    return np.array(values, dtype)


# --- logarithms


@plant(array(0.5, 0.25, 0.0, 1.0), op="log", element=(2,), kind="log-of-zero", value=-inf)
def log_of_zero(p):
    losses = -np.log(p)  # born
    return losses.mean()


@plant(array([0.5, 0.2], [0.0, 0.9], [0.3, 0.0], dtype=f32), op="log", element=(1, 0), kind="log-of-zero", value=-inf)
def log_of_zero_twice(p):
    logs = np.log(p)  # born
    return np.sum(p * logs)


@plant(array(1.0, 0.0), array(0.5, 0.0), op="log", element=(1,), kind="log-of-zero", value=-inf)
def zero_times_log_of_zero(y, p):
    logs = np.log(p)  # born
    weighted = y * logs
    return weighted.sum()


@plant(array(0.5, 2.0, -0.1), op="log", element=(2,), kind="log-of-negative", value=nan)
def log_of_negative(p):
    return np.log(p).sum()  # born


@plant(array(0.1, 0.2, -1.0, 3.0), op="log1p", element=(2,), kind="log-of-zero", value=-inf)
def log1p_at_minus_one(x):
    y = np.log1p(x)  # born
    return y.sum()


@plant(array(2.0, 0.0, dtype=f32), op="log2", element=(1,), kind="log-of-zero", value=-inf)
def entropy_in_bits(p):
    bits = np.log2(p)  # born
    return -np.sum(p * bits)


@plant(array([30.0, 0.0, 1.0], dtype=f32), op="log", element=(0, 1), kind="log-of-zero", value=-inf, compiled=True)
def saturated_sigmoid(z):
    y_hat = sg.sigmoid(np.array([[4.0, -60.0, 2.0]], f32) * (1 + 0 * z) * 2)
    y_hat = sg.where(y_hat < 1e-20, 0.0, y_hat)
    loss = -np.mean(np.log(y_hat))  # born
    return loss


@plant(array([5.0, -300.0], [1.0, 2.0], dtype=f32), op="log", element=(0, 1), kind="log-of-zero", value=-inf)
def log_of_softmax(logits):
    p = sg.softmax(logits)
    log_p = np.log(p)  # born
    return -log_p.mean()


# --- division


@plant(array(1.0, 2.0), array(4.0, 0.0), op="divide", element=(1,), kind="division-by-zero")
def division_by_zero(a, b):
    return np.sum(a / b)  # born


@plant(array(0.0, 2.0), array(0.0, 1.0), op="divide", element=(0,), kind="zero-over-zero", value=nan)
def zero_over_zero(a, b):
    ratio = a / b  # born
    return ratio.sum()


@plant(array([3.0, 4.0], [0.0, 0.0]), op="divide", element=(1, 0), kind="zero-over-zero", value=nan)
def normalised_zero_vector(v):
    length = np.sqrt(np.maximum(np.sum(v * v, axis=1, keepdims=True), 0))
    unit = v / length  # born
    return unit.sum()


@plant(array(1.0, 0.0, -2.0), op="reciprocal", element=(1,), kind="division-by-zero")
def reciprocal_of_zero(x):
    y = sg.reciprocal(x)  # born
    return y.sum()


@plant(array(2.0, 0.0), op="constant_power", element=(1,), kind="power-of-zero")
def zero_to_a_negative_power(x):
    return (x**-2.0).sum()  # born


@plant(array(5.0, 3.0), array(2.0, 0.0), op="remainder", element=(1,), kind="division-by-zero", value=nan)
def remainder_by_zero(a, b):
    return (a % b).sum()  # born


@plant(np.ones((4, 3), f32), op="divide", element=(0, 0), kind="zero-over-zero", value=nan)
def standardised_constant_column(x):
    spread = np.sqrt(np.mean(np.square(x - x.mean(axis=0)), axis=0) + 0.0)
    x = (x - x.mean(axis=0)) / spread  # born
    return np.square(x).mean()


# --- roots, powers, domains


@plant(array(4.0, -1e-9), op="sqrt", element=(1,), kind="root-of-negative", value=nan)
def root_of_negative(x):
    return np.sqrt(x).sum()  # born


@plant(array(1e4, 1e4 + 1, 1e4 + 2, dtype=f32), op="sqrt", element=(), kind="root-of-negative", value=nan)
def variance_as_a_difference(x):
    variance = np.mean(x * x) - np.square(np.mean(x)) - 1000
    deviation = np.sqrt(variance)  # born
    return deviation


@plant(array(2.0, -8.0), op="constant_power", element=(1,), kind="power-of-negative", value=nan)
def negative_to_a_fraction(x):
    return (x ** (1 / 3)).sum()  # born


@plant(array(2.0, -8.0), array(1.0, 0.5), op="power", element=(1,), kind="power-of-negative", value=nan)
def power_of_two_tensors(x, p):
    return (x**p).sum()  # born


@plant(array(0.5, 1.5), op="arcsin", element=(1,), kind="outside-domain", value=nan)
def arcsin_outside(x):
    return np.arcsin(x).sum()  # born


@plant(array(0.5, 1.0), op="arctanh", element=(1,), kind="pole")
def arctanh_at_one(x):
    return np.arctanh(x).sum()  # born


@plant(array(3.0, 0.0), op="gammaln", element=(1,), kind="pole")
def gammaln_at_zero(x):
    return sg.special.gammaln(x).sum()  # born


@plant(array(0.5, 1.0, 0.0), op="logit", element=(1,), kind="pole")
def logit_at_one(p):
    z = sg.special.logit(p)  # born
    return np.sum(z[:2])


# --- overflow


@plant(array(1.0, 100.0, dtype=f32), op="exp", element=(1,), kind="overflow")
def exp_in_float32(x):
    return np.exp(x).sum()  # born


@plant(array(1.0, 800.0), op="exp", element=(1,), kind="overflow")
def exp_in_float64(x):
    return np.exp(x).sum()  # born


@plant(array([1.0, 2.0], [90.0, 1.0], dtype=f32), op="exp", element=(1, 0), kind="overflow")
def softmax_by_hand(z):
    e = np.exp(z)  # born
    p = e / e.sum(axis=1, keepdims=True)
    return p[0, 0] + p[1, 0]


@plant(array(1e3, 2.0, dtype=f16), op="square", element=(0,), kind="overflow")
def square_in_float16(x):
    return np.square(x).mean()  # born


@plant(np.full((3, 2000), 50, f16), op="sum", element=(0,), kind="overflow")
def sum_in_float16(x):
    totals = np.sum(x, axis=1)  # born
    return totals.max()


@plant(array([1e30, 1.0], dtype=f32), array([1e30], [1.0], dtype=f32), op="matmul", element=(0, 0), kind="overflow")
def matmul_in_float32(a, b):
    c = a @ b  # born
    return c.sum()


@plant(array(3e38, dtype=f32), array(3e38, dtype=f32), op="add", element=(0,), kind="overflow")
def sum_of_two(a, b):
    return (a + b).sum()  # born


@plant(array(1e200, 1.0), array(1e200, 1.0), op="multiply", element=(0,), kind="overflow")
def product_in_float64(a, b):
    return (a * b).sum()  # born


@plant(array(1.0, 1e5), op="astype", element=(1,), kind="overflow-in-conversion")
def conversion_to_float16(x):
    small = x.astype(f16)  # born
    return small.sum()


@plant(array(*[1e5] * 10, dtype=f32), op="prod", element=(), kind="overflow")
def product_of_many(x):
    return np.prod(x)  # born


@plant(array(*[1e38] * 5, dtype=f32), op="cumsum", element=(3,), kind="overflow")
def running_total(x):
    total = np.cumsum(x)  # born
    return total[3]


@plant(array(1e-25, dtype=f32), op="divide", element=(0,), kind="overflow")
def quotient_in_float32(x):
    return (1e20 / x).sum()  # born


@plant(array(1.0, 200.0, dtype=f32), op="cosh", element=(1,), kind="overflow")
def cosh_in_float32(x):
    return np.cosh(x).sum()  # born


@plant(array(1.5, dtype=f32), op="multiply", element=(0,), kind="overflow")
def recurrence(x):
    state = x
    for _ in range(9):
        state = state * state  # born
    return state.sum()


# --- already there


@plant(
    array([1.0, 2.0], [nan, 4.0]),
    array(1.0, 1.0),
    op="input",
    element=(1, 0),
    kind="non-finite-input",
    value=nan,
    role="input",
)
def nan_in_the_data(x, w):
    z = x @ w  # born
    return np.tanh(z).sum()


@plant(array(1.0, inf, 2.0), op="input", element=(1,), kind="non-finite-input", role="input")
def inf_in_the_data(x):
    z = x - x.mean()  # born
    return np.square(z).mean()


@plant(array(1.0, 2.0), op="constant", element=(1,), kind="non-finite-constant", value=nan, role="input")
def nan_in_a_constant(x):
    return np.sum(x * np.array([1.0, nan]))  # born


def _with_parameters():
    W = sg.Parameter(array([1.0, 2.0], [3.0, nan], dtype=f32), name="W")
    mean = sg.State(array(0.0, inf, dtype=f32), name="mean")

    @plant(
        array([1.0, 1.0], dtype=f32), op="cell", element=(1, 1), kind="non-finite-parameter", value=nan, role="input"
    )
    def nan_in_a_parameter(x):
        z = x @ W  # born
        return z.sum()

    @plant(array(1.0, 1.0, dtype=f32), op="cell", element=(1,), kind="non-finite-state", role="input", compiled=True)
    def inf_in_a_state(x):
        return np.sum(x - mean)  # born


_with_parameters()


# --- Inf that was meant, and NaN made of it


@plant(array([1.0, 2.0], [3.0, 4.0]), op="subtract", element=(1, 0), kind="inf-minus-inf", value=nan)
def fully_masked_row(scores):
    masked = sg.where(np.array([[True, False], [False, False]]), scores, -inf)
    shifted = masked - masked.max(axis=1, keepdims=True)  # born
    e = np.exp(shifted)
    return (e / e.sum(axis=1, keepdims=True)).sum()


@plant(array(1.0, 2.0), op="multiply", element=(1,), kind="zero-times-inf", value=nan)
def zero_times_an_infinite_penalty(x):
    penalty = sg.where(x > 1.5, inf, 0.5)
    slack = x - 2
    return (penalty * slack).sum()  # born


# --- harmless Infs beside the one that counts


@plant(array(0.0, 4.0, 1.0), array(1.0, 0.0, 2.0), op="divide", element=(1,), kind="division-by-zero")
def harmless_log_beside_a_division(p, n):
    logs = sg.where(p > 0, np.log(p), 0.0)
    return np.sum(logs) + np.sum(p / n)  # born


@plant(array(1.0, 0.0, 2.0, 0.0), op="log", element=(3,), kind="log-of-zero", value=-inf)
def first_zero_masked_second_not(p):
    logs = np.log(p)  # born
    return np.sum(sg.where(np.array([True, False, True, True]), logs, 0.0))


@plant(array(-inf, 1.0), array(2.0, -3.0), op="sqrt", element=(1,), kind="root-of-negative", value=nan)
def exp_of_minus_inf_is_harmless(a, b):
    weights = np.exp(a)
    return np.sum(weights * np.sqrt(b))  # born


@plant(array(2.0, 0.0), array(3.0, -1.0), op="log", element=(1,), kind="log-of-negative", value=nan)
def minimum_takes_the_finite_one(a, b):
    capped = np.minimum(1 / a, 10.0)
    return capped.sum() + np.log(b).sum()  # born


@plant(array(0.0, 1.0), array(1.0, 800.0), op="exp", element=(1,), kind="overflow")
def inf_in_what_is_not_used(a, b):
    unused = np.log(a)
    kept = unused[1:]
    return kept.sum() + np.exp(b).sum()  # born


# --- born in the backward pass


@plant(array(4.0, 0.0), op="divide", element=(1,), kind="infinite-derivative", role="backward")
def derivative_of_sqrt_at_zero(x):
    return np.sqrt(x).sum()  # born


@plant(
    array([1.0, 2.0], [5.0, 5.0]),
    array([0.0, 0.0], [5.0, 5.0]),
    op="divide",
    element=(1,),
    kind="infinite-derivative",
    role="backward",
)
def distance_of_equal_points(a, b):
    d = a - b
    squares = np.sum(d * d, axis=1)
    distances = np.sqrt(squares)  # born
    return distances.sum()


@plant(array(2.0, 0.0), op="constant_power", element=(1,), kind="infinite-derivative", role="backward")
def derivative_of_a_root_as_a_power(x):
    return (x**0.5).sum()  # born


@plant(array(0.5, 1.0), op="divide", element=(1,), kind="infinite-derivative", role="backward")
def derivative_of_arcsin_at_one(x):
    return np.arcsin(x).sum()  # born


@plant(array(8.0, 0.0), op="divide", element=(1,), kind="infinite-derivative", role="backward")
def derivative_of_cbrt_at_zero(x):
    return np.cbrt(x).sum()  # born


@plant(array([1.0, 2.0], [2.0, 2.0]), op="divide", element=(1,), kind="infinite-derivative", role="backward")
def derivative_of_the_deviation_of_a_constant_row(x):
    variance = np.var(x, axis=1)
    deviation = np.sqrt(variance)  # born
    return deviation.sum()


@plant(array(1.0, 1e-30, dtype=f32), op="square", element=(1,), kind="overflow", role="backward")
def derivative_of_a_reciprocal_overflows(x):
    return sg.reciprocal(x).sum()  # born


@plant(array(1.0, 1e-42, dtype=f32), op="divide", element=(1,), kind="overflow", role="backward")
def derivative_of_a_log_overflows(x):
    return np.log(x).sum()  # born


@plant(array(1e-3, dtype=f16), op="multiply", element=(0,), kind="overflow", role="backward")
def gradient_overflows_in_float16(x):
    a = x * 200  # born
    b = a * 200
    c = b * 200
    return c.sum()


@plant(array(1.0, 0.0), op="divide", element=(1,), kind="infinite-derivative", role="backward", compiled=True)
def compiled_gradient_of_sqrt(x):
    y = np.sqrt(x)  # born
    return y.sum()


@sg.custom_rule
def halved(x):
    return x / 2


@halved.backward
def _halved_backward(g, out, x):
    return g / (out - out)


@plant(array(1.0, 2.0), op="divide", element=(0,), kind="infinite-derivative", role="backward")
def custom_rule_divides_by_zero(x):
    y = halved(x)  # born
    return y.sum()


@plant(array(1.0, 0.0), op="divide", element=(1,), kind="infinite-derivative", role="backward")
def inside_a_checkpoint(x):
    root = sg.checkpoint(lambda a: np.sqrt(a))  # born
    return root(x).sum()


# --- in an equation that reads other NaN and Inf, which are harmless


@plant(array(inf, 0.0, 2.0), op="log", element=(1,), kind="log-of-zero", value=-inf)
def born_beside_a_masked_inf(x):
    logs = np.log(x)  # born
    return np.sum(sg.where(np.array([False, True, True]), logs, 0.0))


@plant(
    array([inf, 1.0], [1e30, 1.0], dtype=f32),
    array([1e30], [1.0], dtype=f32),
    op="matmul",
    element=(1, 0),
    kind="overflow",
)
def row_that_overflows_below_one_that_is_not_used(a, b):
    c = a @ b  # born
    return c[1:].sum()


# --- of all kinds, written down before the first of them was run


@plant(
    array([1.0, 2.0], [3.0, 4.0]), array([0.0, 0.0], [1.0, 1.0]), op="divide", element=(0, 0), kind="division-by-zero"
)
def layer_norm_by_hand(x, s):
    n = x / s  # born
    return np.tanh(n).sum() + np.sum(n)


@plant(array(1.0, 2.0, 3.0, dtype=f32), op="exp", element=(2,), kind="overflow")
def chained_growth(x):
    a = x * 10
    b = a * 3
    c = np.exp(b)  # born
    return np.log(c).mean()


@plant(array([0.0, 1.0], [2.0, 0.0]), op="log", element=(1, 1), kind="log-of-zero", value=-inf)
def gathers_the_bad_one(p):
    logs = np.log(p)  # born
    picked = logs[np.array([0, 1]), np.array([1, 1])]
    return picked.sum()


@plant(array(3.0, -4.0), op="divide", element=(), kind="zero-over-zero", value=nan)
def cosine(a):
    b = a * 0
    na, nb = np.sum(a * a), np.sum(b * b)
    c = np.sum(a * b) / nb  # born
    return c + na


@plant(array([1e20, 1.0], [1.0, 1.0], dtype=f32), op="einsum", element=(0,), kind="overflow")
def einsum_overflows(a):
    q = np.einsum("ij,ij->i", a, a)  # born
    return q.sum()


@plant(array(2.0, 3.0), op="log", element=(0,), kind="log-of-zero", value=-inf, compiled=True)
def compiled_log_of_difference(x):
    d = x - x.min()
    logs = np.log(d)  # born
    return logs.sum()


@plant(array(0.0, 1.0), op="divide", element=(0,), kind="infinite-derivative", role="backward", compiled=True)
def backward_log_masked_forward(x):
    y = np.sqrt(np.abs(x))  # born
    return np.sum(y * np.array([1.0, 2.0]))


@plant(
    array([1.0, 2.0], [nan, 3.0], [4.0, 5.0]),
    op="input",
    element=(1, 0),
    kind="non-finite-input",
    value=nan,
    role="input",
)
def transposed_data(x):
    z = x.T.reshape(-1)[::-1]  # born
    return np.concatenate([z, z]).mean()


@plant(array(5.0, 1.0, -inf), op="input", element=(2,), kind="non-finite-input", value=-inf, role="input")
def minus_inf_data(x):
    return np.square(x).sum()  # born


@plant(array(1.0, 0.0), op="xlogy", element=(0,), kind="log-of-zero", value=-inf)
def xlogy_at_zero(x):
    return sg.special.xlogy(x, x * 0).sum()  # born


@plant(array(60000.0, 1.0, dtype=f16), op="add", element=(0,), kind="overflow")
def residual_in_float16(x):
    h = x
    y = x + h  # born
    return y.max()


@plant(array(0.5, 0.5), op="arccosh", element=(0,), kind="outside-domain", value=nan)
def arccosh_outside(x):
    return np.arccosh(x).sum()  # born


@plant(array(1.0, 1.0), op="divide", element=(1,), kind="infinite-derivative", role="backward", value=-inf)
def arccos_edge(x):
    return np.arccos(x * np.array([0.5, 1.0])).sum()  # born


@plant(array([2.0, 0.0], [0.0, 2.0]), op="divide", element=(1,), kind="division-by-zero")
def degree_normalisation(A):
    d = A.sum(axis=1) - np.array([1.0, 2.0])
    inv = 1 / d  # born
    return np.sum(inv[:, None] * A)


@plant(array(-1.0, 4.0), op="sqrt", element=(0,), kind="root-of-negative", value=nan)
def nan_through_max(x):
    r = np.sqrt(x)  # born
    return np.max(r)


# --- networks and training steps


def _lesson_network(Z_scale):
    rng = np.random.default_rng(0)
    W1, W2 = rng.normal(size=(4, 3)), rng.normal(size=(1, 4))
    X, Y = rng.normal(size=(3, 5)), (rng.random((1, 5)) > 0.5) * 1.0
    X[:, 2] *= Z_scale
    return W1, np.zeros((4, 1)), W2, np.zeros((1, 1)), X, Y


def _lesson_case():
    W1, b1, W2, b2, X, Y = _lesson_network(1e4)
    z = W2 @ np.maximum(W1 @ X, 0)
    op_on_zero = "low" if z[0, 2] < 0 else "high"
    assert op_on_zero == "low"  # so that Y_hat[0, 2] is 0

    @plant(W1, b1, W2, b2, X, Y, op="log", element=(0, 2), kind="log-of-zero", value=-inf)
    def lesson_network(W1, b1, W2, b2, X, Y):
        Z1 = W1 @ X + b1
        A1 = sg.relu(Z1)
        Z2 = W2 @ A1 + b2
        Y_hat = sg.sigmoid(Z2)
        cost = -np.mean(Y * np.log(Y_hat))  # born
        return cost


_lesson_case()


def _training(name, lr, optimizer, steps, compiled, dtype, **expected):
    """A step of training that goes wrong after some good ones; before it, the cells are as they were then."""
    rng = np.random.default_rng(1)
    W = sg.Parameter(rng.normal(size=(3, 1)).astype(dtype), name="W")
    opt = optimizer({"W": W}, lr=lr)
    X, y = rng.normal(size=(6, 3)).astype(dtype), rng.normal(size=(6, 1)).astype(dtype)

    def step(X, y):
        error = X @ W - y
        loss = np.mean(np.square(error))  # born
        opt.step(sg.backward(loss, {"W": W}))
        return loss

    called = sg.compile(step) if compiled else step
    before = {}
    for _ in range(steps):
        before = sg.snapshot(W, opt)
        loss = called(X, y)
        if not np.isfinite(loss.item()):
            break
    else:
        raise AssertionError(f"{name}: the loss stayed finite")
    CASES[name] = Case(called, (X, y), expected["op"], expected["element"], "overflow", inf, "forward", step, before)


_training("too_large_steps", 1e12, sg.optim.SGD, 20, False, f32, op="square", element=(0, 0))
_training("too_large_steps_compiled", 1e12, sg.optim.SGD, 20, True, f32, op="square", element=(0, 0))
_training("too_large_steps_in_float64", 1e60, sg.optim.SGD, 20, True, f64, op="square", element=(0, 0))


def _first_step():
    rng = np.random.default_rng(2)
    model = sg.nn.Sequential(sg.nn.Linear(3, 4, key=0), sg.nn.Tanh(), sg.nn.Linear(4, 1, key=1))
    x, y = rng.normal(size=(5, 3)).astype(f32), rng.normal(size=(5, 1)).astype(f32)
    x[3, 1] = nan

    @plant(x, y, op="input", element=(3, 1), kind="non-finite-input", value=nan, role="input", compiled=True)
    def module_with_nan_in_a_row(x, y):
        prediction = model(x)  # born
        return sg.losses.mse(prediction, y)

    W = sg.Parameter(array(1.0, 2.0, dtype=f32), name="W")
    V = sg.Parameter(array(1.0, 2.0, dtype=f32), name="V")
    zeros = array(1.0, 0.0, dtype=f32)

    @plant(zeros, op="divide", element=(1,), kind="zero-over-zero", value=nan, role="update", compiled=True)
    def update_divides_by_the_gradient(x):
        loss = np.sum(W * x)
        (g,) = sg.backward(loss, [W])
        W.assign(W - np.float32(0.1) * (g / np.abs(g)))  # born
        return loss

    @plant(zeros, op="divide", element=(), kind="division-by-zero", role="update", compiled=True)
    def clipping_by_a_norm_of_zero(x):
        loss = np.sum(V * (x * 0))
        (g,) = sg.backward(loss, [V])
        scale = 1 / np.sum(np.abs(g))  # born
        V.assign(V - scale * g)
        return loss


_first_step()
