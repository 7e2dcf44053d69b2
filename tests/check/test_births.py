"""sg.first_nan names the equation, line, element and kind of the first NaN or Inf, and blames nothing harmless."""

# ruff: noqa: RET504 - values are bound to names because these are told

from __future__ import annotations

from typing import Any

import numpy as np
import planted_births
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError

CASES = planted_births.CASES


def test_there_are_fifty_planted_cases() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_planted(name: str) -> None:
    case = CASES[name]
    birth = sg.first_nan(case.fn, *case.args, before=case.before)
    assert birth is not None
    assert (birth.op, birth.line, birth.element) == (case.op, case.line, case.element)
    assert (birth.kind, birth.role) == (case.kind, case.role)
    assert np.array_equal(birth.value, case.value, equal_nan=True)
    assert birth.file == planted_births.__file__
    assert birth.code in str(birth)
    assert birth.happened in str(birth)


# --- what is not blamed, and what is not changed


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: np.sum(sg.where(x > 0, np.log(x), 0.0)),
        lambda x: np.sum(np.exp(np.log(x)) * 2) * 0 + np.sum(np.exp(-1 / np.square(np.maximum(x, 0)))) * 0 + 1.0,
        lambda x: np.sum(np.minimum(1 / sg.stop_gradient(x), 5.0)) + x[1],
        lambda x: np.sum(sg.softmax(sg.where(x > 0, x, -np.inf))),
    ],
)
def test_nothing_is_blamed_where_what_comes_out_is_finite(fn: Any) -> None:
    x = np.array([0.0, 1.0, 2.0])
    value, gradient = sg.value_and_grad(fn)(x)
    assert np.isfinite(value)
    assert (sg.first_nan(fn, x) is None) == bool(np.isfinite(gradient).all())


def training_step(compiled: bool) -> tuple[Any, sg.nn.Module, Any]:
    model = sg.nn.Sequential(sg.nn.Linear(4, 8, key=0), sg.nn.ReLU(), sg.nn.Linear(8, 3, key=1))
    opt = sg.optim.Adam(model.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        opt.step(sg.backward(loss, model.parameters()))
        return loss

    return sg.compile(step) if compiled else step, model, opt


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_leaves_all_cells_as_they_were(compiled: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 3, 6)
    bad = x.copy()
    bad[2, 3] = np.nan
    (watched, _, _), (plain, _, _) = training_step(compiled), training_step(compiled)
    losses = []
    for _ in range(4):
        birth = sg.first_nan(watched, bad, y)
        assert birth is not None
        assert (birth.text, birth.element) == ("x", (2, 3))
        losses.append((watched(x, y).item(), plain(x, y).item()))
    assert all(a == b for a, b in losses)


def test_the_state_before_a_step_is_used_and_put_back() -> None:
    step, model, opt = training_step(compiled=True)
    x, y = np.ones((2, 4), np.float32), np.array([0, 1])
    step(x, y)
    before = sg.snapshot(step)
    assert set(before) == set(sg.snapshot(model, opt))
    weight = next(iter(model.parameters().values()))
    weight.assign(np.full((4, 8), np.nan, np.float32))
    birth = sg.first_nan(step, x, y)
    assert birth is not None
    assert (birth.kind, birth.count, birth.size) == ("non-finite-parameter", 32, 32)
    assert sg.first_nan(step, x, y, before=before) is None
    assert np.isnan(weight.numpy()).all()


# --- what else it says


def lesson(p: Any, y: Any) -> Any:
    logs = np.log(p)
    losses = y * logs
    loss = -losses.mean()
    return loss


P, Y = np.array([[0.5, 0.0, 1.0], [0.0, 0.1, 0.2]], np.float32), np.array([[1, 1, 1], [0, 1, 1]], np.float32)


def test_how_it_spreads() -> None:
    birth = sg.first_nan(lesson, P, Y)
    assert birth is not None
    assert [(s.text, s.nans, s.infs, s.size) for s in birth.spread] == [
        ("logs", 0, 2, 6),
        ("losses", 1, 1, 6),
        ("loss", 1, 0, 1),
    ]
    assert (birth.element, birth.count, birth.turned) == ((0, 1), 2, None)  # the first alone makes it infinite
    assert [end.text for end in birth.ends] == ["loss", "dp", "dy"]
    only_second = sg.first_nan(lesson, P[1:], Y[1:])
    assert only_second is not None
    assert (only_second.element, only_second.turned) == ((0, 0), "losses")


def test_it_reads_well() -> None:
    birth = sg.first_nan(lesson, P[1:], Y[1:])
    assert str(birth) == EXPECTED.format(line=lesson.__code__.co_firstlineno + 1)


EXPECTED = """\
The first cause is log(0) = -inf (log-of-zero)
  at test_births.py:{line}: logs = np.log(p)
  element [0, 0] of logs (3 elements)
  from p[0, 0] = 0
  float64 would not help: there it is -inf
  it spreads: losses: 1 nan of 3 → loss is nan
  Inf becomes NaN in losses
  in the end: loss is nan; dp: 1 nan of 3; dy: 1 infinite of 3
  instead: compute the loss from logits (sg.losses.cross_entropy, sg.losses.binary_cross_entropy,
    sg.log_softmax), or keep the argument away from 0: np.log(np.maximum(x, 1e-7))"""


@pytest.mark.parametrize(
    ("x", "fn", "wide"),
    [
        (np.float32([100.0]), lambda x: np.exp(x).sum(), np.exp(100.0)),
        (np.float16([300.0]), lambda x: np.square(x).sum(), 90000.0),
        (np.float32([-200.0]), lambda x: np.log(np.exp(x)).sum(), -200.0),
        (np.float64([800.0]), lambda x: np.exp(x).sum(), None),
        (np.float32([0.0]), lambda x: np.log(x).sum(), -np.inf),
    ],
)
def test_it_says_what_float64_would_have_made(x: Any, fn: Any, wide: float | None) -> None:
    birth = sg.first_nan(fn, x)
    assert birth is not None
    assert birth.in_float64 == (None if wide is None else pytest.approx(wide))
    assert ("in float64 it would be" in str(birth)) == (wide is not None and np.isfinite(wide))


def test_causes_that_stand_on_their_own_are_told_too() -> None:
    def fn(a: Any, b: Any) -> Any:
        first = np.log(a).sum()
        second = np.sqrt(b).sum()
        return first + second

    birth = sg.first_nan(fn, np.array([0.0]), np.array([-1.0]))
    assert birth is not None
    (other,) = birth.others
    assert other.endswith("second = np.sqrt(b).sum()")


def test_a_call_that_stops_because_of_nan() -> None:
    def fn(A: Any) -> Any:
        B = np.log(A)
        if not np.isfinite(B.numpy()).all():
            raise FloatingPointError("the matrix has no inverse")
        return sg.linalg.det(B)

    birth = sg.first_nan(fn, np.array([[1.0, 0.0], [2.0, 3.0]]))
    assert birth is not None
    assert (birth.op, birth.element) == ("log", (0, 1))
    assert birth.note == "then the call stopped: FloatingPointError: the matrix has no inverse"
    with pytest.raises(ZeroDivisionError):  # and one that stops for another reason
        sg.first_nan(lambda x: x / (1 // 0), np.ones(2))


def test_a_trace_will_do() -> None:
    with np.errstate(all="ignore"):
        trace = sg.trace(lesson, P, Y)
    assert str(sg.first_nan(trace)) == str(sg.first_nan(lesson, P, Y))


def test_a_long_chain() -> None:
    def fn(x: Any) -> Any:
        for _ in range(2000):
            x = x * 1.05
        return x.sum()

    birth = sg.first_nan(fn, np.ones(3, np.float32))
    assert birth is not None
    assert (birth.kind, birth.element) == ("overflow", (0,))
    assert len(str(birth).splitlines()) < 20


def test_bad_input() -> None:
    with pytest.raises(ArgumentError, match=r"sg.first_nan\(loss, x, y\), not sg.first_nan\(loss\(x, y\)\)"):
        sg.first_nan(sg.tensor(np.nan))
    with pytest.raises(ArgumentError, match="pass the trace alone"):
        sg.first_nan(sg.trace(lesson, P + 1, Y), P)
    with pytest.raises(ArgumentError, match=r"sg.snapshot\(model, optimizer\), before the step"):
        sg.first_nan(lesson, P, Y, before={"W": P})
    with pytest.raises(ArgumentError, match="call it once first"):
        sg.snapshot(sg.compile(lesson))
    with pytest.raises(ArgumentError, match="a snapshot of a int was asked for"):
        sg.snapshot(3)


def test_two_births_that_only_together_count() -> None:
    def fn(a: Any, b: Any) -> Any:
        first, second = 1 / sg.stop_gradient(a), 1 / sg.stop_gradient(b)
        smaller = np.minimum(first, second)
        return smaller.sum() + (a + b).sum()

    birth = sg.first_nan(fn, np.zeros(1), np.zeros(1))
    assert birth is not None
    assert (birth.text, birth.kind) == ("first", "division-by-zero")
    assert [s.text for s in birth.spread] == ["first", "loss"]
