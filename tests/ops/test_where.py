"""The promise of `where`: NaN and Inf from a branch that is not taken never reach a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg

BAD = np.array([-1.0, 0.0, 0.5, 2.0])
HUGE = np.array([-1.0, 0.5, 800.0, 1e6])


EDGE = np.array([0.5, 1.0, 2.0])
POSITIVE = BAD > 0

PROMISES: list[Any] = [
    # name, function, point, where the branch is taken, first and second derivative there
    ("log", lambda x: sg.where(x > 0, sg.log(x), 0.0), BAD, POSITIVE, lambda x: 1 / x, lambda x: -1 / x**2),
    ("sqrt", lambda x: sg.where(x > 0, sg.sqrt(x), 0.0), BAD, POSITIVE,
     lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5),
    ("cbrt", lambda x: sg.where(x > 0, sg.cbrt(x), 0.0), BAD, POSITIVE,
     lambda x: x ** (-2 / 3) / 3, lambda x: -2 / 9 * x ** (-5 / 3)),
    ("division", lambda x: sg.where(x > 0, 1 / x, 0.0), BAD, POSITIVE, lambda x: -1 / x**2, lambda x: 2 / x**3),
    ("x / x", lambda x: sg.where(x > 0, x / x, 0.0), BAD, POSITIVE, lambda x: 0 * x, lambda x: 0 * x),
    ("reciprocal", lambda x: sg.where(x > 0, sg.reciprocal(x), 0.0), BAD, POSITIVE,
     lambda x: -1 / x**2, lambda x: 2 / x**3),
    ("x ** -1.5", lambda x: sg.where(x > 0, x**-1.5, 0.0), BAD, POSITIVE,
     lambda x: -1.5 * x**-2.5, lambda x: 3.75 * x**-3.5),
    ("x ** x", lambda x: sg.where(x > 0, x**x, 0.0), BAD, POSITIVE,
     lambda x: x**x * (np.log(x) + 1), lambda x: x**x * ((np.log(x) + 1) ** 2 + 1 / x)),
    ("exp", lambda x: sg.where(x < 1, sg.exp(x), 0.0), HUGE, HUGE < 1, np.exp, np.exp),
    ("exp of exp", lambda x: sg.where(x < 1, sg.exp(sg.exp(x)), 0.0), HUGE, HUGE < 1,
     lambda x: np.exp(np.exp(x) + x), lambda x: np.exp(np.exp(x) + x) * (np.exp(x) + 1)),
    ("x * inf", lambda x: sg.where(x > 0, x * np.where(BAD > 0, 3.0, np.inf), 0.0), BAD, POSITIVE,
     lambda x: 0 * x + 3, lambda x: 0 * x),
    ("arctanh", lambda x: sg.where(x < 1, sg.arctanh(x), 0.0), EDGE, EDGE < 1,
     lambda x: 1 / (1 - x**2), lambda x: 2 * x / (1 - x**2) ** 2),
    ("arccos", lambda x: sg.where(abs(x) < 1, sg.arccos(x), 0.0), EDGE, EDGE < 1,
     lambda x: -1 / np.sqrt(1 - x**2), lambda x: -x * (1 - x**2) ** -1.5),
    ("other branch", lambda x: sg.where(x <= 0, 0.0, sg.log(x)), BAD, POSITIVE,
     lambda x: 1 / x, lambda x: -1 / x**2),
    ("log of sqrt", lambda x: sg.where(x > 0, sg.log(sg.sqrt(x)), 0.0), BAD, POSITIVE,
     lambda x: 0.5 / x, lambda x: -0.5 / x**2),
    ("nested", lambda x: sg.where(x > 0, sg.where(x < 1, sg.log(x), sg.sqrt(x)), 0.0), BAD, POSITIVE,
     lambda x: np.where(x < 1, 1 / x, 0.5 * x**-0.5), lambda x: np.where(x < 1, -1 / x**2, -0.25 * x**-1.5)),
    ("inside clip", lambda x: sg.clip(sg.log(x), -5.0, 5.0), BAD, POSITIVE, lambda x: 1 / x, lambda x: -1 / x**2),
    ("inside maximum", lambda x: sg.maximum(sg.log(x), -5.0), BAD, POSITIVE, lambda x: 1 / x, lambda x: -1 / x**2),
    ("inside minimum", lambda x: sg.minimum(sg.exp(x), 4.0), HUGE, HUGE < 1, np.exp, np.exp),
    ("nan_to_num", lambda x: sg.nan_to_num(sg.log(x)), BAD, POSITIVE, lambda x: 1 / x, lambda x: -1 / x**2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "x", "taken", "first", "second"),
    [pytest.param(*case[1:], id=case[0]) for case in PROMISES],
)
def test_where_never_leaks_what_was_not_taken(function: Any, x: Any, taken: Any, first: Any, second: Any) -> None:
    expected, expected_second = np.zeros_like(x), np.zeros_like(x)
    expected[taken], expected_second[taken] = first(x[taken]), second(x[taken])

    def total(v: Any) -> Any:
        return sg.sum(function(v))

    with np.errstate(all="ignore"):
        np.testing.assert_allclose(sg.grad(total)(x), expected, rtol=1e-12)
        np.testing.assert_allclose(sg.hessian(total)(x), np.diag(expected_second), rtol=1e-11, atol=1e-12)


def shared(x: Any) -> Any:
    y = sg.sqrt(x)
    return sg.where(x > 0, y * sg.log(y), 0.0)


THROUGH = [
    pytest.param(shared, id="shared"),
    pytest.param(lambda x: sg.where(x > 0, sg.sqrt(x) * sg.log(x), 0.0), id="added up"),
    pytest.param(lambda x: sg.where((x > 0).reshape(4, 1), sg.log(sg.sqrt(x).reshape(4, 1)), 0.0), id="reshaped"),
    pytest.param(lambda x: sg.where(sg.stack([x, x]) > 0, sg.stack([sg.sqrt(x), sg.log(x)]), 0.0), id="stacked"),
    pytest.param(lambda x: sg.where(x[1:] > 0, sg.log(sg.sqrt(x)[1:]), 0.0), id="indexed"),
    pytest.param(lambda x: sg.where(np.zeros((2, 4), bool), sg.log(sg.sqrt(x) * np.ones((2, 4))), 0.0), id="expanded"),
]


@pytest.mark.parametrize("function", THROUGH)
def test_where_never_leaks_through_other_ops(function: Any) -> None:
    with np.errstate(all="ignore"):
        assert np.isfinite(sg.grad(lambda v: sg.sum(function(v)))(BAD)).all()


@pytest.mark.parametrize(
    "f",
    [
        lambda v: sg.where(v == 5, 0.0, sg.where(v == 0, 0.0, sg.sqrt(v))),
        lambda v: sg.clip(sg.where(v > 0, sg.log(v), 0.0), -9, 9),
    ],
)
def test_masks_inside_masks(f: Any) -> None:
    gradient = sg.grad(lambda v: sg.sum(f(v)))(np.array([0.0, 1.0, 4.0]))
    assert np.isfinite(gradient).all()
    assert gradient[0] == 0
    assert gradient[1] != 0
