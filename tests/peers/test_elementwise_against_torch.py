"""Elementwise ops and activations against PyTorch: values, first and second derivatives, two precisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.peers

SHAPES = [(), (7,), (3, 4), (2, 1, 5)]
TOLERANCE = {"float64": 1e-10, "float32": 3e-5}

Interval = tuple[float, float]
REAL, POSITIVE, UNIT = (-3.0, 3.0), (0.1, 4.0), (-0.9, 0.9)

UNARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Interval]] = {
    "negative": (np.negative, torch.neg, REAL),
    "positive": (np.positive, torch.positive, REAL),
    "absolute": (np.absolute, torch.abs, REAL),
    "fabs": (np.fabs, torch.abs, REAL),
    "square": (np.square, torch.square, REAL),
    "sqrt": (np.sqrt, torch.sqrt, POSITIVE),
    "cbrt": (np.cbrt, lambda x: x ** (1 / 3), POSITIVE),
    "reciprocal": (np.reciprocal, torch.reciprocal, POSITIVE),
    "x ** 2": (lambda x: x**2, lambda x: x**2, REAL),
    "x ** 3": (lambda x: x**3, lambda x: x**3, REAL),
    "x ** 0": (lambda x: x**0 * x, lambda x: x**0 * x, REAL),
    "x ** 1": (lambda x: x**1, lambda x: x**1, REAL),
    "x ** -2": (lambda x: x**-2, lambda x: x**-2, POSITIVE),
    "x ** 2.5": (lambda x: x**2.5, lambda x: x**2.5, POSITIVE),
    "2 ** x": (lambda x: 2**x, lambda x: 2**x, REAL),
    "0.3 ** x": (lambda x: 0.3**x, lambda x: 0.3**x, REAL),
    "exp": (np.exp, torch.exp, REAL),
    "exp2": (np.exp2, torch.exp2, REAL),
    "expm1": (np.expm1, torch.expm1, REAL),
    "log": (np.log, torch.log, POSITIVE),
    "log2": (np.log2, torch.log2, POSITIVE),
    "log10": (np.log10, torch.log10, POSITIVE),
    "log1p": (np.log1p, torch.log1p, POSITIVE),
    "sin": (np.sin, torch.sin, REAL),
    "cos": (np.cos, torch.cos, REAL),
    "tan": (np.tan, torch.tan, (-1.2, 1.2)),
    "arcsin": (np.arcsin, torch.arcsin, UNIT),
    "arccos": (np.arccos, torch.arccos, UNIT),
    "arctan": (np.arctan, torch.arctan, REAL),
    "sinh": (np.sinh, torch.sinh, REAL),
    "cosh": (np.cosh, torch.cosh, REAL),
    "tanh": (np.tanh, torch.tanh, REAL),
    "arcsinh": (np.arcsinh, torch.arcsinh, REAL),
    "arccosh": (np.arccosh, torch.arccosh, (1.2, 4.0)),
    "arctanh": (np.arctanh, torch.arctanh, UNIT),
    "deg2rad": (np.deg2rad, torch.deg2rad, (-180.0, 180.0)),
    "rad2deg": (np.rad2deg, torch.rad2deg, REAL),
    "sinc": (np.sinc, torch.sinc, (0.3, 3.0)),
    "erf": (sg.erf, torch.erf, REAL),
    "erfc": (sg.erfc, torch.erfc, REAL),
    # steps: no gradient flows through them, so they are given a way around
    "sign": (lambda x: x * x * np.sign(x), lambda x: x * x * torch.sign(x), REAL),
    "floor": (lambda x: x * x * np.floor(x), lambda x: x * x * torch.floor(x), REAL),
    "ceil": (lambda x: x * x * np.ceil(x), lambda x: x * x * torch.ceil(x), REAL),
    "trunc": (lambda x: x * x * np.trunc(x), lambda x: x * x * torch.trunc(x), REAL),
    "rint": (lambda x: x * x * np.rint(x), lambda x: x * x * torch.round(x), REAL),
    "round": (lambda x: x * x * np.round(x, 1), lambda x: x * x * torch.round(x, decimals=1), REAL),
    "clip": (lambda x: np.clip(x, -1, 2) ** 2, lambda x: torch.clip(x, -1, 2) ** 2, REAL),
    "clip below": (lambda x: np.clip(x, 0.5, None) ** 2, lambda x: torch.clip(x, 0.5, None) ** 2, REAL),
    "nan_to_num": (lambda x: np.nan_to_num(x) ** 2, lambda x: torch.nan_to_num(x) ** 2, REAL),
    "maximum of a number": (lambda x: np.maximum(x, 0.5) ** 2, lambda x: torch.clamp(x, min=0.5) ** 2, REAL),
    "relu": (sg.relu, torch.relu, REAL),
    "relu6": (lambda x: sg.relu6(4 * x), lambda x: F.relu6(4 * x), REAL),
    "leaky_relu": (sg.leaky_relu, F.leaky_relu, REAL),
    "leaky_relu 0.3": (lambda x: sg.leaky_relu(x, negative_slope=0.3), lambda x: F.leaky_relu(x, 0.3), REAL),
    "elu": (sg.elu, F.elu, REAL),
    "elu 0.7": (lambda x: sg.elu(x, alpha=0.7), lambda x: F.elu(x, alpha=0.7), REAL),
    "selu": (sg.selu, F.selu, REAL),
    "celu": (sg.celu, F.celu, REAL),
    "celu 0.5": (lambda x: sg.celu(x, alpha=0.5), lambda x: F.celu(x, alpha=0.5), REAL),
    "gelu": (sg.gelu, F.gelu, REAL),
    "gelu tanh": (lambda x: sg.gelu(x, approximate="tanh"), lambda x: F.gelu(x, approximate="tanh"), REAL),
    "silu": (sg.silu, F.silu, REAL),
    "mish": (sg.mish, F.mish, REAL),
    "softplus": (sg.softplus, lambda x: F.softplus(x, threshold=1e9), REAL),
    "softsign": (sg.softsign, F.softsign, REAL),
    "hardtanh": (sg.hardtanh, F.hardtanh, REAL),
    "hardtanh -2 0.5": (lambda x: sg.hardtanh(x, -2, 0.5), lambda x: F.hardtanh(x, -2, 0.5), REAL),
    "hardsigmoid": (lambda x: sg.hardsigmoid(2 * x), lambda x: F.relu6(2 * x + 3) / 6, REAL),
    "hardswish": (lambda x: sg.hardswish(2 * x), lambda x: F.hardswish(2 * x), REAL),
    "sigmoid": (sg.sigmoid, torch.sigmoid, REAL),
    "log_sigmoid": (sg.log_sigmoid, F.logsigmoid, REAL),
}

BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Interval, Interval]] = {
    "add": (np.add, torch.add, REAL, REAL),
    "subtract": (np.subtract, torch.subtract, REAL, REAL),
    "multiply": (np.multiply, torch.multiply, REAL, REAL),
    "divide": (np.divide, torch.divide, REAL, POSITIVE),
    "power": (np.power, torch.pow, POSITIVE, REAL),
    "float_power": (np.float_power, torch.float_power, POSITIVE, REAL),
    "floor_divide": (lambda a, b: a * b * (a // b), lambda a, b: a * b * torch.floor(a / b), REAL, POSITIVE),
    "remainder": (lambda a, b: (a % b) ** 2, lambda a, b: torch.remainder(a, b) ** 2, REAL, POSITIVE),
    "fmod": (lambda a, b: np.fmod(a, b) ** 2, lambda a, b: torch.fmod(a, b) ** 2, REAL, POSITIVE),
    "copysign": (lambda a, b: np.copysign(a * a, b) + b, lambda a, b: torch.copysign(a * a, b) + b, REAL, REAL),
    "maximum": (lambda a, b: np.maximum(a, b) ** 2, lambda a, b: torch.maximum(a, b) ** 2, REAL, REAL),
    "minimum": (lambda a, b: np.minimum(a, b) ** 2, lambda a, b: torch.minimum(a, b) ** 2, REAL, REAL),
    "fmax": (lambda a, b: np.fmax(a, b) ** 2, lambda a, b: torch.fmax(a, b) ** 2, REAL, REAL),
    "fmin": (lambda a, b: np.fmin(a, b) ** 2, lambda a, b: torch.fmin(a, b) ** 2, REAL, REAL),
    "arctan2": (np.arctan2, torch.arctan2, REAL, REAL),
    "hypot": (np.hypot, torch.hypot, REAL, REAL),
    "logaddexp": (np.logaddexp, torch.logaddexp, REAL, REAL),
    "logaddexp2": (np.logaddexp2, torch.logaddexp2, REAL, REAL),
    "where": (
        lambda a, b: np.where(a > b, a * b, a / b),
        lambda a, b: torch.where(a > b, a * b, a / b),
        REAL,
        POSITIVE,
    ),
    "clip": (lambda a, b: np.clip(a, -b, b) ** 2, lambda a, b: torch.clip(a, -b, b) ** 2, REAL, POSITIVE),
}

PAIRS = [((), ()), ((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1), (1, 3)), ((), (5,)), ((2, 3, 1), (3, 2))]

REDUCED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (lambda x, axis: sg.softmax(x, axis=axis), lambda x, axis: torch.softmax(x, axis)),
    "log_softmax": (lambda x, axis: sg.log_softmax(x, axis=axis), lambda x, axis: torch.log_softmax(x, axis)),
    "logsumexp": (lambda x, axis: sg.logsumexp(x, axis=axis), lambda x, axis: torch.logsumexp(x, axis)),
    "logsumexp keepdims": (
        lambda x, axis: sg.logsumexp(x, axis=axis, keepdims=True),
        lambda x, axis: torch.logsumexp(x, axis, keepdim=True),
    ),
}


def agree(ours: Callable[..., Any], theirs: Callable[..., Any], xs: list[np.ndarray], seed: int) -> None:
    """Same value; same pulled gradients; same second derivatives along random directions."""
    rng = np.random.default_rng(seed)
    dtype = xs[0].dtype
    close = {"rtol": TOLERANCE[dtype.name], "atol": TOLERANCE[dtype.name]}
    inputs = [torch.tensor(x, requires_grad=True) for x in xs]
    out = theirs(*inputs)
    downstream = np.asarray(rng.standard_normal(tuple(out.shape)))
    directions = [np.asarray(rng.standard_normal(x.shape), dtype) for x in xs]

    def loss(*operands: Any) -> Any:
        return (ours(*operands) * downstream.astype(str(out.dtype)[6:])).sum()

    value = ours(*[sg.tensor(x) for x in xs]).numpy()
    assert value.dtype == out.detach().numpy().dtype
    np.testing.assert_allclose(value, out.detach().numpy(), **close)

    every = tuple(range(len(xs)))
    first = torch.autograd.grad((out * torch.tensor(downstream, dtype=out.dtype)).sum(), inputs, create_graph=True)
    for gradient, expected in zip(sg.grad(loss, every)(*xs), first, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, expected.detach().numpy(), **close)

    along = sum((g * torch.tensor(d)).sum() for g, d in zip(first, directions, strict=True))
    if along.requires_grad:
        second = torch.autograd.grad(along, inputs, allow_unused=True, materialize_grads=True)
    else:
        second = [torch.zeros_like(x) for x in inputs]
    for product, expected in zip(sg.hvp(loss, tuple(xs), tuple(directions)), second, strict=True):
        assert product.dtype == dtype
        np.testing.assert_allclose(
            product, expected.numpy(force=True), rtol=10 * close["rtol"], atol=10 * close["atol"]
        )


def draw(rng: np.random.Generator, interval: Interval, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers of the interval that are not within rounding of a kink at a multiple of 0.05."""
    steps = rng.integers(round(interval[0] * 20), round(interval[1] * 20), shape)
    return np.asarray((steps + rng.uniform(0.1, 0.9, shape)) / 20, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name: str, dtype: str) -> None:
    ours, theirs, interval = UNARY[name]
    for seed, shape in enumerate(SHAPES):
        agree(ours, theirs, [draw(np.random.default_rng(seed), interval, shape, dtype)], seed)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_operands(name: str, dtype: str) -> None:
    ours, theirs, left, right = BINARY[name]
    for seed, shapes in enumerate(PAIRS):
        rng = np.random.default_rng(seed)
        xs = [draw(rng, interval, shape, dtype) for interval, shape in zip((left, right), shapes, strict=True)]
        agree(ours, theirs, xs, seed)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties(name: str) -> None:
    ours, theirs = getattr(np, name), getattr(torch, name)
    x = np.array([1.0, 2.0, -1.0])
    y = np.array([1.0, 0.5, -1.0])
    inputs = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    expected = torch.autograd.grad(theirs(*inputs).sum(), inputs)
    gradients = sg.grad(lambda a, b: ours(a, b).sum(), (0, 1))(x, y)
    np.testing.assert_array_equal(gradients, [e.numpy() for e in expected])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", REDUCED)
def test_softmax_and_its_relatives(name: str, dtype: str) -> None:
    ours, theirs = REDUCED[name]
    for seed, (shape, axis) in enumerate([((5,), 0), ((3, 4), 1), ((3, 4), 0), ((2, 3, 4), -2), ((2, 1, 3), 1)]):
        x = np.asarray(np.random.default_rng(seed).normal(size=shape) * 3, dtype)
        agree(lambda v, axis=axis: ours(v, axis), lambda v, axis=axis: theirs(v, axis), [x], seed)


@pytest.mark.parametrize("name", REDUCED)
def test_entries_left_out(name: str) -> None:
    ours, theirs = REDUCED[name]
    x = np.array([[0.5, -np.inf, 2.0, 1.0], [-np.inf, -np.inf, 3.0, -1.0]])
    taken = np.isfinite(x)
    downstream = np.where(taken, 1.5, 0.0) if name.endswith("softmax") else np.ones_like(x[:, :1])

    def ours_total(v: Any) -> Any:
        out = ours(v, 1)
        return np.where(downstream != 0, out if out.ndim == 2 else out[:, None], 0.0).sum()

    def theirs_total(v: Any) -> Any:
        out = theirs(v, 1)
        return torch.where(torch.tensor(downstream != 0), out if out.ndim == 2 else out[:, None], 0.0).sum()

    inputs = torch.tensor(x, requires_grad=True)
    expected = torch.autograd.grad(theirs_total(inputs), inputs)[0].numpy()
    np.testing.assert_allclose(sg.grad(ours_total)(x), expected, rtol=1e-12, atol=1e-15)
