"""Tests of the check: rules planted wrong are caught, named with their line, and told apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_check_gradients import call_of, sample_calls

import stepgrad as sg
from stepgrad.check import Report
from stepgrad.ops.registry import registry
from stepgrad.tensor import Tensor

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 3))


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Any:
    """plant(op name, operand, change): the rule of that operand returns change(what it should)."""
    planted = []

    def change_rule(name: str, operand: int, change: Callable[[Tensor], Tensor]) -> None:
        op = registry[name]
        rules, right = op.rules, op.rule(operand)
        assert right is not None

        def wrong(g: Any, *rest: Any, **params: Any) -> Any:
            return change(right(g, *rest, **params))

        def changed(i: int) -> Any:
            return wrong if i == operand else rules(i) if callable(rules) else rules[i]

        monkeypatch.setattr(op, "rules", changed)
        op.signatures.clear()
        planted.append(op)

    yield change_rule
    monkeypatch.undo()
    for op in planted:
        op.signatures.clear()


def network(X: Any, W: Any) -> Any:
    Z = X @ W
    A = sg.tanh(Z)
    return sg.mean(A * A)


def line_of(fn: Any, code: str) -> int:
    lines, start = inspect.getsourcelines(fn)
    return start + next(i for i, text in enumerate(lines) if code in text)


def check_is_wrong(report: Report, op: str, code: str, problem: str) -> None:
    assert not report.ok
    assert bool(report) is False
    first = report.first_wrong
    assert first is not None, report
    assert (first.op, first.code) == (op, code)
    assert problem in first.problem
    text = str(report)
    assert text.startswith("GRADIENTS ARE WRONG")
    assert f"the local rule of {op} for " in text
    assert f":{first.line}: {code}" in text
    assert problem in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("op", "operand", "change", "code", "problem"),
    [
        ("tanh", 0, lambda g: g * 1.001, "A = sg.tanh(Z)", "it is 1.001 times the derivative"),
        ("tanh", 0, lambda g: -g, "A = sg.tanh(Z)", "the sign is wrong"),
        ("tanh", 0, lambda g: g * 0.0, "A = sg.tanh(Z)", "the rule returns zeros"),
        ("tanh", 0, lambda g: g * g, "A = sg.tanh(Z)", "not a multiple of the derivative"),
        ("tanh", 0, lambda g: g / 0.0, "A = sg.tanh(Z)", "the rule returns "),
        ("mean", 0, lambda g: g * 12.0, "return sg.mean(A * A)", "is a mean over 12 elements missing?"),
        ("mean", 0, lambda g: g / 4.0, "return sg.mean(A * A)", "is a mean over 4 elements too many?"),
        ("matmul", 0, lambda g: g.T, "Z = X @ W", "shape (3, 4) for an operand of shape (4, 3): it is transposed"),
        ("matmul", 1, lambda g: g.T, "Z = X @ W", "it is transposed"),
        ("matmul", 1, lambda g: g.sum(), "Z = X @ W", "the rule returns shape () for an operand of shape (3, 3)"),
        ("multiply", 1, lambda g: g + 1e-3, "return sg.mean(A * A)", "not a multiple"),
    ],
)
def test_a_wrong_rule_is_named(plant: Any, op: str, operand: int, change: Any, code: str, problem: str) -> None:
    plant(op, operand, change)
    report = sg.check_gradients(network, X, W)
    check_is_wrong(report, op, code, problem)
    first = report.first_wrong
    assert first is not None
    assert (first.operand, first.file, first.line) == (operand, __file__, line_of(network, code))
    assert report.max_error > 1e-4


def test_results_are_named_by_the_users_variables(plant: Any) -> None:
    plant("tanh", 0, lambda g: g * 2.0)
    report = sg.check_gradients(network, X, W)
    assert [(e.op, e.name, e.operand_name) for e in report.equations[:2]] == [
        ("matmul", "Z", "X"),
        ("tanh", "A", "Z"),
    ]
    assert "the local rule of tanh for Z is wrong" in str(report)


def test_the_users_line_is_named_and_not_that_of_a_layer(plant: Any) -> None:
    plant("gelu", 0, lambda g: g * 2.0)
    model = sg.nn.Sequential(sg.nn.Linear(3, 4), sg.nn.GELU())

    def loss(x: Any) -> Any:
        y = model(
            x * 2,
        )
        return sg.sum(y)

    report = sg.check_gradients(loss, X.astype(np.float32))
    assert report.first_wrong is not None
    assert (report.first_wrong.file, report.first_wrong.line) == (__file__, line_of(loss, "y = model("))
    assert report.first_wrong.code == "y = model( x * 2, )"


def test_the_first_of_several_wrong_rules_is_the_first_recorded(plant: Any) -> None:
    plant("mean", 0, lambda g: g * 2.0)
    plant("matmul", 0, lambda g: g * 2.0)
    report = sg.check_gradients(network, X, W)
    assert [(e.op, e.ok) for e in report.equations] == [
        ("matmul", False), ("tanh", True), ("multiply", True), ("mean", False),
    ]  # fmt: skip
    assert report.first_wrong is report.equations[0]
    assert "also   1 more equation with a wrong rule: mean at test_wrong_rules.py:" in str(report)


def test_only_the_arguments_behind_it_are_wrong(plant: Any) -> None:
    plant("sin", 0, lambda g: g * 1.001)
    report = sg.check_gradients(lambda a, b: sg.sum(sg.sin(a) * b), X, X)
    assert [a.ok for a in report.arguments] == [False, True]
    assert "backpropagation says" in str(report)


def test_the_worst_element_is_shown(plant: Any) -> None:
    at = np.zeros((4, 3))
    at[2, 1] = 1.0
    plant("sin", 0, lambda g: g * (1 + 0.5 * at))
    report = sg.check_gradients(lambda a: sg.sum(sg.sin(a)), X)
    argument = report.arguments[0]
    assert argument.worst == (2, 1)
    np.testing.assert_allclose([argument.ours, argument.theirs], np.cos(X[2, 1]) * np.array([1.5, 1]), rtol=1e-8)


@pytest.mark.parametrize(("op", "params", "values", "floating"), sample_calls())
def test_every_rule_perturbed_is_caught(plant: Any, op: Any, params: Any, values: Any, floating: Any) -> None:
    """With the rule of any operand of any op 0.1 % off, that op and operand are named."""
    fn, arrays = call_of(op, params, values, floating)
    if not fn(*map(sg.tensor, arrays)).equation.type.is_float:
        return
    for operand in floating:
        if op.rule(operand) is None:
            continue
        plant(op.name, operand, lambda g: g * 1.001)
        report = sg.check_gradients(fn, *arrays)
        plant(op.name, operand, lambda g: g / 1.001)  # right again
        checked = next((e for e in report.equations if e.op == op.name), None)
        if checked is None or (checked.problem == "" and _derivative_is_zero(fn, arrays, floating.index(operand))):
            continue
        assert not report.ok
        first = report.first_wrong
        assert first is not None
        assert (first.op, first.operand) == (op.name, operand), report
        assert first.error == pytest.approx(1e-3, rel=0.5)


def _derivative_is_zero(fn: Any, arrays: Any, position: int) -> bool:
    pulled = sg.vjp(fn, *arrays)[1](np.ones(fn(*map(sg.tensor, arrays)).shape))[position]
    return bool(np.abs(pulled).max(initial=0) < 1e-9)


# --- custom rules


@sg.custom_rule
def cubed(x: Any) -> Any:
    return x * x * x


@cubed.backward
def wrong_backward(g: Any, out: Any, x: Any) -> Any:
    return g * 3 * x


def uses_cubed(x: Any) -> Any:
    y = sg.sin(x)
    return sg.sum(cubed(y))


def test_a_wrong_custom_backward_is_named_with_its_own_line() -> None:
    report = sg.check_gradients(uses_cubed, X)
    check_is_wrong(report, "cubed", "return sg.sum(cubed(y))", "not a multiple of the derivative")
    first = report.first_wrong
    assert first is not None
    assert (first.operand, first.rule) == (0, (__file__, line_of(wrong_backward, "@cubed.backward")))
    assert f"its backward is at test_wrong_rules.py:{first.rule[1]}" in str(report)
    assert [e.op for e in report.equations] == ["sin", "cubed", "sum"]  # not those inside


def test_the_wrong_operand_of_a_custom_rule_is_named() -> None:
    affine = sg.custom_rule(
        lambda x, W, b: x @ W + b,
        lambda g, out, x, W, b: (g @ W.T, x.T @ g, g.sum(axis=0) / 4),
    )
    b = sg.Parameter(np.zeros(3), name="b")
    report = sg.check_gradients(lambda x, W: sg.sum(affine(x, W, b)), X, W)
    first = report.first_wrong
    assert first is not None
    assert (first.operand, first.operand_name) == (2, "b")
    assert "4 times too small: is a mean over 4 elements too many?" in first.problem
    assert [(a.name, a.ok) for a in report.arguments] == [("x", True), ("W", True), ("b", False)]


def test_a_straight_through_backward_differs_and_fails() -> None:
    rounded = sg.custom_rule(lambda x: sg.round(x * 4) / 4, lambda g, out, x: g)
    report = sg.check_gradients(lambda x: sg.sum(rounded(x) ** 2), X)
    assert not report.ok
    assert report.first_wrong is not None
    assert report.first_wrong.rule is not None


def test_a_backward_of_the_wrong_shape_stops_with_a_report() -> None:
    product = sg.custom_rule(lambda x, W: x @ W, lambda g, out, x, W: (g @ W.T, g.T @ x))
    tall = RNG.standard_normal((3, 2))
    report = sg.check_gradients(lambda x, W: sg.sum(sg.sin(product(x, W))), X, tall)
    assert not report.ok
    assert report.max_error == float("inf")
    assert report.first_wrong is not None
    assert "returned shape (2, 3) for W (3, 2)" in report.first_wrong.problem
    assert "no gradient was compared" in str(report)


def test_a_backward_that_raises_is_named() -> None:
    def broken(g: Any, out: Any, x: Any) -> Any:
        raise RuntimeError("not written yet")

    unfinished = sg.custom_rule(lambda x: x * 2, broken)
    report = sg.check_gradients(lambda x: sg.sum(unfinished(x)), X)
    assert report.first_wrong is not None
    assert report.first_wrong.problem == "RuntimeError: not written yet"


def test_a_forward_that_uses_what_is_not_an_operand_is_named() -> None:
    scale = sg.Parameter(2.0, name="scale")
    scaled = sg.custom_rule(lambda x: x * scale, lambda g, out, x: g * scale)
    report = sg.check_gradients(lambda x: sg.sum(scaled(x) + scale), X)
    assert not report.ok
    first = report.first_wrong
    assert first is not None
    assert first.operand is None
    assert "its forward uses scale, which is not one of its operands" in first.problem
    assert [(a.name, a.ok) for a in report.arguments] == [("x", True), ("scale", False)]


def test_an_operand_that_depends_on_another_is_held_apart() -> None:
    product = sg.custom_rule(lambda a, b: a * b, lambda g, out, a, b: (g * b, g * a))
    assert sg.check_gradients(lambda x: sg.sum(product(x, sg.exp(x))), X).ok


def test_a_custom_rule_inside_a_custom_rule_counts_by_its_value() -> None:
    outer = sg.custom_rule(lambda x: cubed(x) * 2, lambda g, out, x: g * 6 * x * x)
    assert sg.check_gradients(lambda x: sg.sum(outer(x)), X).ok  # cubed's wrong backward is not used


def test_a_wrong_rule_among_kinks_is_still_found(plant: Any) -> None:
    plant("matmul", 1, lambda g: g * 1.01)
    report = sg.check_gradients(lambda x, W: sg.sum(sg.relu(x @ W)), np.zeros((4, 3)), W)
    assert report.first_wrong is None or report.first_wrong.op == "matmul"
    report = sg.check_gradients(lambda x, W: sg.sum(sg.relu(x @ W)), np.vstack([X, np.zeros(3)]), W)
    assert report.first_wrong is not None
    assert report.first_wrong.op == "matmul"
