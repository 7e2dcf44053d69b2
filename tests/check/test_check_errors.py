"""Bad input to check_gradients: each error says what happened, why that is wrong, and what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, GradientError, ShapeError

X = np.array([1.0, 2.0, 3.0])
counter = iter(range(1_000_000))
noise = np.random.default_rng(0)


def first_log(x: Any) -> Any:
    y = x - 2.0
    z = sg.log(y)
    return sg.sum(z)


def random_each_time(x: Any) -> Any:
    y = sg.exp(x)
    return sg.sum(y * noise.standard_normal(3))


def grows(x: Any) -> Any:
    for _ in range(next(counter) + 1):
        x = sg.sin(x)
    return sg.sum(x)


@pytest.mark.parametrize(
    ("fn", "args", "settings", "kind", "texts"),
    [
        (
            lambda x: sg.sum(x),
            [np.array([1.0, np.nan])],
            {},
            ArgumentError,
            ["x (2,) has the value nan at element [1]", "no derivative at a point that is not finite"],
        ),
        (
            lambda x: sg.sum(x),
            [np.array([[np.inf]])],
            {},
            ArgumentError,
            ["x (1, 1) has the value inf at element [0, 0]"],
        ),
        (
            first_log,
            [X],
            {},
            ArgumentError,
            ["first_log returned NaN or infinity, which log made first", "element [0]", "z = sg.log(y)", "domain"],
        ),
        (
            lambda n: sg.sum(n),
            [np.arange(3)],
            {"wrt": 0},
            DtypeError,
            ["with respect to n (3,) int64 was to be checked", "change in steps", "x.astype(np.float64)"],
        ),
        (
            lambda n: sg.sum(n * sg.State(2)),
            [3],
            {"wrt": "n"},
            DtypeError,
            ["with respect to n () int64", "write 3.0 for 3"],
        ),
        (
            lambda z: sg.sum(z),
            [X + 1j],
            {},
            DtypeError,
            ["z has dtype complex128", "real numbers"],
        ),
        (
            lambda x: 3.0,
            [X],
            {},
            GradientError,
            ["<lambda> returned float 3.0", "not computed from the arguments"],
        ),
        (lambda x: None, [X], {}, GradientError, ["<lambda> returned NoneType None"]),
        (lambda x: [], [X], {}, GradientError, ["<lambda> returned list []"]),
        (
            lambda x: sg.argmax(x),
            [X],
            {},
            GradientError,
            ["int64", "change in steps, so they have no derivative", "return floating-point numbers"],
        ),
        (
            random_each_time,
            [X],
            {},
            GradientError,
            [
                "random_each_time did not compute the same when it was called twice",
                "others in the second call",
                "return sg.sum(y * noise.standard_normal(3))",
                "from a fixed key or seed",
            ],
        ),
        (
            grows,
            [X],
            {},
            GradientError,
            ["grows did not compute the same", "the first call computes sum there, and the second sin"],
        ),
        (
            lambda x: x,
            [X],
            {"wrt": 2},
            ArgumentError,
            ["wrt=2 was asked for, and <lambda> was given the arguments x", "by position, from 0, or by name"],
        ),
        (lambda x: x, [X], {"wrt": "y"}, ArgumentError, ["wrt='y' was asked for"]),
        (lambda x: x, [X], {"wrt": sg.State(3)}, DtypeError, ["int64 numbers change in steps"]),
        (
            lambda x: x,
            [X],
            {"directions": 0},
            ArgumentError,
            ["directions=0", "at least one direction", "directions=8"],
        ),
        (lambda x: x, [X], {"tolerance": -1.0}, ArgumentError, ["tolerance=-1.0"]),
        (
            lambda x: sg.sum(x @ np.ones((2, 2))),
            [X],
            {},
            ShapeError,
            ["matmul(x (3,) float64", "test_check_errors.py"],
        ),
    ],
)
def test_errors_say_what_and_where(fn: Any, args: Any, settings: Any, kind: type[Exception], texts: list[str]) -> None:
    with pytest.raises(kind) as caught:
        sg.check_gradients(fn, *args, **settings)
    text = str(caught.value)
    for part in texts:
        assert part in text, text
    assert "\n  why: " in text
    assert "\n  instead: " in text


def test_cells_keep_their_values_when_the_function_fails() -> None:
    cell = sg.State(1.0)

    def fails(x: Any) -> Any:
        cell.assign(cell + 1)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sg.check_gradients(fails, X)
    assert cell.item() == 1.0


def test_infinite_constants_inside_are_fine() -> None:
    masked = np.array([0.0, -np.inf, 0.0])
    report = sg.check_gradients(lambda x: sg.softmax(x + masked), X)
    assert report.ok, report
    report = sg.check_gradients(lambda x: sg.sum(sg.where(x > 1.5, sg.log(x - 1.5), 0.0)), X)
    assert report.ok, report
