"""check_gradients on right functions: it agrees, says how it compared, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
TARGETS = np.array([2, 0, 1, 1])


def sample_calls() -> list[Any]:
    """Each op on each of its samples that holds floating-point arrays."""
    found = []
    for op in registry.values():
        for i, sample in enumerate(op.samples):
            rng = np.random.default_rng(1)
            params = sample[-1] if isinstance(sample[-1], dict) else {}
            values = [s.draw(rng) if isinstance(s, Sample) else s for s in sample if not isinstance(s, dict)]
            values = [v if type(v) in (float, int, bool) else np.asarray(v) for v in values]
            floating = [k for k, v in enumerate(values) if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
            if floating and op.rules and (callable(op.rules) or any(op.rules)):
                found.append(pytest.param(op, params, values, floating, id=f"{op.name}-{i}"))
    return found


def call_of(op: Any, params: Any, values: Any, floating: Any) -> tuple[Any, list[Any]]:
    def fn(*arrays: Any) -> Any:
        operands = list(values)
        for k, array in zip(floating, arrays, strict=True):
            operands[k] = array
        return op(*operands, **params)

    return fn, [values[k] for k in floating]


@pytest.mark.parametrize(("op", "params", "values", "floating"), sample_calls())
def test_every_op_on_its_samples(op: Any, params: Any, values: Any, floating: Any) -> None:
    fn, arrays = call_of(op, params, values, floating)
    if not fn(*map(sg.tensor, arrays)).equation.type.is_float:
        return
    report = sg.check_gradients(fn, *[a.astype(np.float32) for a in arrays])
    assert report, report
    assert not report.kinks, report
    assert all(a.count for a in report.arguments)


def two_layers(X: Any, W1: Any, b1: Any, W2: Any) -> Any:
    Z1 = X @ W1 + b1
    A1 = sg.tanh(Z1)
    return sg.mean(sg.square(A1 @ W2))


def numpy_only(x: Any) -> Any:
    return np.sum(np.where(x > 0, np.sqrt(np.abs(x)), np.exp(x) * x[0, 0]))


def recurrent(x: Any, W: Any) -> Any:
    h = sg.tensor(np.zeros(3))
    for row in x:
        h = sg.tanh(row + h @ W)
    return h


def branching(x: Any) -> Any:
    total = sg.sum(x)
    return total * 3 if total > 0 else sg.exp(total)


def penalised(x: Any) -> Any:
    gradient = sg.grad(lambda x: sg.sum(x**3))(x)
    return sg.sum(sg.square(gradient))


@sg.checkpoint
def checkpointed(x: Any) -> Any:
    return sg.tanh(sg.sin(x) * 2)


@sg.custom_rule
def log1pexp(x: Any) -> Any:
    return sg.log(1 + sg.exp(x))


@log1pexp.backward
def _(g: Any, out: Any, x: Any) -> Any:
    return g * sg.sigmoid(x)


@sg.custom_rule
def scaled_product(a: Any, b: Any, *, factor: float) -> Any:
    return a * b * factor


@scaled_product.backward
def _(g: Any, out: Any, a: Any, b: Any, *, factor: float) -> Any:
    return g * b * factor, g * a * factor


FUNCTIONS = {
    "two layers": (two_layers, X, RNG.standard_normal((3, 5)), np.zeros(5), RNG.standard_normal((5, 2))),
    "numpy only": (numpy_only, X),
    "recurrent": (recurrent, X, np.eye(3) * 0.5),
    "branching": (branching, X),
    "gradient penalty": (penalised, X),
    "checkpoint": (checkpointed, X),
    "custom rule": (log1pexp, X),
    "custom rule of two": (lambda a, b: scaled_product(a, b * a, factor=3.0), X, X + 2),
    "cross entropy": (lambda z: -sg.mean(sg.log_softmax(z)[np.arange(4), TARGETS]), X),
    "shared value": (lambda x: x * x + sg.sum(x) * x, X),
    "stop_gradient": (lambda x: x * sg.stop_gradient(sg.exp(x)), X),
    "a number": (lambda t: t**3, 1.7),
    "several outputs": (lambda x: {"a": sg.sum(x), "b": [x * x, x]}, X),
    "the same output twice": (lambda x: (sg.exp(x),) * 2, X),
    "an argument returned": (lambda x: x, X),
    "sorting": (lambda x: sg.sort(x, axis=0) * np.arange(3.0), X),
    "indexing": (lambda x: x[1:, ::-1] * x[[0, 0, 2]], X),
    "normalised": (lambda x: (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True), X),
    "far from 1": (lambda x: sg.sum(sg.log(x * 1e-9 + 1e9)) * 1e12, X * 1e6),
    "of very different sizes": (lambda x: sg.sum(sg.log(x)), np.array([1e-9, 1.0, 1e9])),
    "cancelling": (lambda x: sg.sum((x + 1e6) - 1e6), X),
    "steep": (lambda x: sg.sum(sg.tanh(1e4 * x)), np.array([1e-5, -2e-5, 3.0])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_functions_agree(name: str) -> None:
    fn, *args = FUNCTIONS[name]
    report = sg.check_gradients(fn, *args)
    assert report.ok, report
    assert bool(report) is True
    assert not report.kinks, report
    assert all(a.count == np.size(x) for a, x in zip(report.arguments, args, strict=True))


def test_float32_arguments_are_checked_in_float64() -> None:
    report = sg.check_gradients(lambda x: sg.sum(sg.exp(x) * np.float32(0.1)), X.astype(np.float32))
    assert report.ok
    assert report.max_error < 1e-13  # float32 would leave 1e-7


def test_conversions_to_float32_inside_do_not_round() -> None:
    report = sg.check_gradients(lambda x: sg.sum(sg.relu(x).astype(np.float32)), X + 5)
    assert report.ok
    assert report.max_error < 1e-9


def test_the_complex_step_is_used_where_every_op_is_analytic() -> None:
    report = sg.check_gradients(lambda x, y: sg.sum(sg.exp(x) * y.astype(np.float64)), X, X.astype(np.float32))
    assert [a.method for a in report.arguments] == ["complex step"] * 2
    assert report.max_error < 1e-13


def test_differences_are_used_where_an_op_is_not() -> None:
    report = sg.check_gradients(lambda x, b: sg.sum(sg.sin(sg.abs(x)) + b), X, X)
    assert [a.method for a in report.arguments] == ["central differences", "complex step"]


def test_large_arguments_are_checked_along_random_directions() -> None:
    report = sg.check_gradients(lambda x, b: sg.mean(sg.relu(x) + b), RNG.standard_normal((30, 20)), np.ones(20))
    large, small = report.arguments
    assert (large.directions, large.count, small.directions, small.count) == (True, 8, False, 20)
    assert "8 random directions" in repr(report)
    assert "20 elements" in repr(report)
    assert sg.check_gradients(lambda x: sg.sum(x), np.ones(201), directions=3).arguments[0].count == 3


def test_parameters_that_the_function_uses_are_arguments() -> None:
    W, b = sg.Parameter(RNG.standard_normal((3, 2)), name="W"), sg.Parameter([0.1, 0.2])
    before = W.numpy().copy()
    scale = sg.tensor(2.0)
    report = sg.check_gradients(lambda x: sg.sum(sg.sigmoid(x @ W + b) * scale), X)
    assert report.ok
    assert [(a.name, a.shape) for a in report.arguments] == [("x", (4, 3)), ("W", (3, 2)), ("b", (2,)), ("scale", ())]
    np.testing.assert_array_equal(W.numpy(), before)


def test_modules_are_arguments_by_their_parameters() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(3, 4), sg.nn.GELU(), sg.nn.LayerNorm(4), sg.nn.Linear(4, 3))
    x = X.astype(np.float32)
    by_argument = sg.check_gradients(lambda model, x: sg.losses.cross_entropy(model(x), TARGETS), model, x)
    by_closure = sg.check_gradients(lambda: sg.losses.cross_entropy(model(x), TARGETS))
    assert by_argument.ok, by_argument
    assert by_closure.ok, by_closure
    assert [a.name for a in by_argument.arguments] == ["x", *model.parameters()]
    assert [a.name for a in by_closure.arguments] == list(model.parameters())
    assert sg.check_gradients(model, x).ok


def test_dropout_draws_the_same_numbers_each_time() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(3, 8), sg.nn.Dropout(0.5), sg.nn.Linear(8, 2))
    before = {name: state.numpy().copy() for name, state in model.states().items()}
    report = sg.check_gradients(lambda x: sg.sum(sg.square(model(x))), X.astype(np.float32))
    assert report.ok, report
    for name, state in model.states().items():
        np.testing.assert_array_equal(state.numpy(), before[name])


def test_state_that_the_function_assigns_keeps_its_value() -> None:
    count = sg.State(0)

    def fn(x: Any) -> Any:
        count.assign(count + 1)
        return sg.sum(x) * count

    count.assign(3)
    assert sg.check_gradients(fn, X).ok
    assert count.item() == 3


def test_wrt_chooses_by_position_name_and_parameter() -> None:
    W = sg.Parameter(np.ones(3), name="W")

    def fn(x: Any, y: Any) -> Any:
        return sg.sum(x * y * W)

    def names(wrt: Any) -> list[str]:
        return [a.name for a in sg.check_gradients(fn, X, X, wrt=wrt).arguments]

    assert names(0) == ["x"]
    assert names(-1) == ["y"]
    assert names("y") == ["y"]
    assert names([W, "x"]) == ["x", "W"]
    assert names({"weights": W}) == ["W"]
    assert names(None) == ["x", "y", "W"]


def test_nested_arguments_are_named_by_their_path() -> None:
    report = sg.check_gradients(lambda p: sg.sum(p["W"] @ p["b"][0]), {"W": X, "b": [np.ones(3)], "steps": 3})
    assert [a.name for a in report.arguments] == ["p['W']", "p['b'][0]"]
    assert report.ok


def test_integers_and_settings_are_passed_on() -> None:
    def fn(x: Any, labels: Any, mode: str, times: int, flag: bool) -> Any:
        assert (type(labels), mode, times, flag) == (np.ndarray, "sum", 2, True)
        return sg.sum(x[np.arange(4), labels]) * times

    report = sg.check_gradients(fn, X, TARGETS, "sum", 2, True)
    assert [a.name for a in report.arguments] == ["x"]
    assert report.ok


def test_every_local_rule_is_checked_once_in_order() -> None:
    report = sg.check_gradients(two_layers, *FUNCTIONS["two layers"][1:])
    assert [e.op for e in report.equations] == [
        "matmul", "expand", "add", "tanh", "matmul", "square", "mean",
    ]  # fmt: skip
    assert all(e.ok and e.error < 1e-6 and e.problem == "" for e in report.equations)
    assert report.first_wrong is None
    first = report.equations[0]
    assert first.code == "Z1 = X @ W1 + b1"
    assert first.file == __file__


def test_the_same_seed_gives_the_same_report() -> None:
    fn, *args = FUNCTIONS["two layers"]
    assert repr(sg.check_gradients(fn, *args)) == repr(sg.check_gradients(fn, *args))
    assert repr(sg.check_gradients(fn, *args)) != repr(sg.check_gradients(fn, *args, seed=1))


def test_a_report_reads_well() -> None:
    report = sg.check_gradients(two_layers, *FUNCTIONS["two layers"][1:])
    lines = str(report).splitlines()
    assert lines[0].startswith("gradients agree: 4 arguments, 42 derivatives compared, max relative error ")
    assert lines[1].split() == ["X", "(4,", "3)", lines[1].split()[3], "12", "elements,", "complex", "step"]
    assert lines[5].startswith("  7 local rules agree with differences, max relative error ")
    assert all(len(line) <= 100 for line in lines)


def test_many_arguments_are_collapsed() -> None:
    report = sg.check_gradients(lambda xs: sum(sg.sum(x) for x in xs), [np.ones(2)] * 50)
    assert "… and 20 more, max relative error" in str(report)


def test_an_empty_array_leaves_nothing_to_compare() -> None:
    report = sg.check_gradients(lambda x: sg.sum(sg.exp(x)), np.zeros((0, 3)))
    assert report.ok
    assert "nothing to compare: it is empty" in str(report)
    assert report.arguments[0].count == 0


def test_an_unused_argument_is_noted() -> None:
    report = sg.check_gradients(lambda x, y: sg.sum(x), X, X)
    assert report.ok
    assert "note: the function does not use y" in str(report)


def test_a_cut_path_is_noted_with_its_line() -> None:
    def fn(x: Any, y: Any) -> Any:
        z = sg.floor(y)
        return sg.sum(x * z)

    report = sg.check_gradients(fn, X, X)
    assert report.ok, report
    assert "no gradient flows to y: it stops at floor" in str(report)
    assert "z = sg.floor(y)" in str(report)


def test_what_no_grad_computes_counts_as_constant() -> None:
    def fn(x: Any) -> Any:
        with sg.no_grad():
            weight = sg.exp(x)
        return sg.sum(x * weight)

    assert sg.check_gradients(fn, X).ok


def test_numbers_that_leave_the_tape_are_noted() -> None:
    def fn(x: Any) -> Any:
        return sg.sum(x * x.numpy().max())

    report = sg.check_gradients(fn, X)
    assert report.ok
    notes = " ".join(report.notes)
    assert "numbers that change with the arguments are not on the tape" in notes
    assert "x * x.numpy().max()" in notes


def test_nothing_to_differentiate_is_noted() -> None:
    report = sg.check_gradients(lambda n: sg.sum(np.ones(3) * sg.tensor(2.0)), 3)
    assert report.ok
    assert "no floating-point argument" in report.notes[0]
