"""`sg.check_backward` from outside: what a user writes, and what the report says about it.

Right and wrong passes stand in this file as users would write them, because their source is read.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check import BackwardReport
from stepgrad.check.backward.mistakes import CATALOGUE

Values = dict[str, Any]


def two_layers(seed: int = 0) -> Values:
    """Inputs with distinct prime sizes: 5 features, 3 hidden units, 2 outputs, 7 examples."""
    rng = np.random.default_rng(seed)
    shapes = {"X": (5, 7), "Y": (2, 7), "W1": (3, 5), "b1": (3, 1), "W2": (2, 3), "b2": (2, 1)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def forward(X: Any, Y: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = np.maximum(Z1, 0)
    Z2 = W2 @ A1 + b2
    loss = np.sum((Z2 - Y) ** 2) / X.shape[1]
    return loss, (Z1, A1, Z2)


def line_of(function: Callable[..., Any], text: str) -> int:
    """The number of the first line in this file, from the function's start on, that has the text."""
    start = function.__code__.co_firstlineno
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(n for n in range(start, len(lines) + 1) if text in lines[n - 1])


def mistakes(report: BackwardReport) -> list[tuple[str | None, str]]:
    return [(f.gradient, f.mistake) for f in report.findings]


# --- the issue's own example


def transposed(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y) / m
    dW2 = A1 @ dZ2.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_transposed_product() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    assert report.ok is False
    assert not report
    (found,) = report.findings
    assert found.gradient == "dW2"
    assert found.line == line_of(transposed, "dW2 = ")
    assert found.code == "dW2 = A1 @ dZ2.T"
    assert found.mistake == "transposed"
    assert found.candidates[0] == "transposed"
    assert found.fix == "dW2 = dZ2 @ A1.T"
    assert found.file is not None
    assert Path(found.file) == Path(__file__)
    assert found.evidence


def test_report_as_it_is_read() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    text = repr(report)
    assert f"dW2 is wrong (line {line_of(transposed, 'dW2 = ')}):  dW2 = A1 @ dZ2.T" in text
    assert "it is the transpose of the gradient: shape (3, 2), W2 has (2, 3)" in " ".join(text.split())
    assert "write:  dW2 = dZ2 @ A1.T" in text
    assert "Everything else agrees with finite differences (3 gradients" in text


def test_report_of_each_gradient() -> None:
    report = sg.check_backward(forward, transposed, two_layers())
    by_name = {g.name: g for g in report.gradients}
    assert set(by_name) == {"dW1", "db1", "dW2", "db2"}
    assert [name for name, g in by_name.items() if not g.ok] == ["dW2"]
    assert by_name["dW2"].of == "W2"
    assert by_name["dW2"].shape == (2, 3)
    assert by_name["dW2"].error > 0.1
    assert all(g.error < 1e-9 for g in report.gradients if g.ok)
    assert report.max_error == max(g.error for g in report.gradients if g.ok)
    assert report.difference_error < 1e-5
    assert report.points >= 3


# --- right passes, in the styles that people write


def right(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y) / m
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def right_as_tuple(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    gradients = right(X, Y, W2, cache)
    dW1, db1, dW2, db2 = gradients["dW1"], gradients["db1"], gradients["dW2"], gradients["db2"]
    return dW1, db1, dW2, db2


def right_as_list(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    return list(right_as_tuple(X, Y, W2, cache))


def right_in_place(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = Z2 - Y
    dZ2 *= 2 / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = np.sum(dZ2, axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2
    dZ1[Z1 <= 0] = 0
    return {"W1": dZ1 @ X.T, "b1": np.sum(dZ1, axis=1, keepdims=True), "W2": dW2, "b2": db2}


def right_with_mean_in_products(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y)
    dW2 = dZ2 @ A1.T / m
    db2 = dZ2.sum(axis=1, keepdims=True) / m
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T / m
    db1 = dZ1.sum(axis=1, keepdims=True) / m
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def right_at_zero_inclusive(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dZ1 = W2.T @ dZ2 * (Z1 >= 0)
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def make_closure() -> Callable[..., Any]:
    factor = 2.0

    def backward(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
        Z1, A1, Z2 = cache
        dZ2 = factor * (Z2 - Y) / X.shape[1]
        dA1 = W2.T @ dZ2
        dZ1 = np.where(Z1 > 0, dA1, 0)
        dW2, dW1 = dZ2 @ A1.T, dZ1 @ X.T
        db2, db1 = dZ2.sum(axis=1, keepdims=True), dZ1.sum(axis=1, keepdims=True)
        return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}

    return backward


RIGHT = [
    right,
    right_as_tuple,
    right_as_list,
    right_in_place,
    right_with_mean_in_products,
    right_at_zero_inclusive,
    make_closure(),
]


@pytest.mark.parametrize("backward", RIGHT, ids=lambda f: f.__qualname__.partition(".")[0])
def test_right_passes(backward: Callable[..., Any]) -> None:
    report = sg.check_backward(forward, backward, two_layers())
    assert report.ok is True, report
    assert report
    assert report.findings == ()
    assert len(report.gradients) == 4
    assert report.max_error < 1e-9


def test_kinks_at_zero_weights_are_no_mistake() -> None:
    """With W1 = 0 and b1 = 0 every unit sits exactly at relu's kink, where any slope from 0 to 1 is right."""
    inputs = two_layers()
    inputs["W1"][:], inputs["b1"][:] = 0.0, 0.0
    assert sg.check_backward(forward, right, inputs).ok
    assert sg.check_backward(forward, right_at_zero_inclusive, inputs).ok


def test_wrong_at_zero_biases_too() -> None:
    inputs = two_layers()
    inputs["b1"][:], inputs["b2"][:] = 0.0, 0.0
    assert mistakes(sg.check_backward(forward, transposed, inputs)) == [("dW2", "transposed")]


# --- one mistake in each style


def bias_not_summed_in_tuple(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return dW1, db1, dW2, db2


def test_mistake_in_a_tuple() -> None:
    report = sg.check_backward(forward, bias_not_summed_in_tuple, two_layers())
    assert mistakes(report) == [("db2", "bias-not-summed")]
    assert report.findings[0].line == line_of(bias_not_summed_in_tuple, "db2 = dZ2")


def inverted_in_place(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dZ1 = W2.T @ dZ2
    dZ1[Z1 > 0] = 0
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_mistake_in_an_assignment_to_elements() -> None:
    report = sg.check_backward(forward, inverted_in_place, two_layers())
    (found,) = report.findings  # dW1 and db1 inherit the error, and are not blamed
    assert found.line == line_of(inverted_in_place, "dZ1[Z1 > 0] = 0")
    assert found.mistake == "mask-inverted"
    assert [g.name for g in report.gradients if not g.ok] == ["dW1", "db1"]


def mean_missing(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y)
    dW2 = dZ2 @ A1.T / m
    db2 = dZ2.sum(axis=1, keepdims=True) / m
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True) / m
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_mean_missing_where_products_divide() -> None:
    """dZ2 without 1/m is a convention; the one product that then lacks it is the mistake."""
    report = sg.check_backward(forward, mean_missing, two_layers())
    assert mistakes(report) == [("dW1", "mean-missing")]
    fix = report.findings[0].fix
    assert fix is not None
    assert ast.dump(ast.parse(fix)) == ast.dump(ast.parse("dW1 = dZ1 @ X.T / m"))  # brackets or none


def mean_twice(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    m = X.shape[1]
    dZ2 = 2 * (Z2 - Y) / m
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T / m
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_mean_twice_where_dz_has_it() -> None:
    report = sg.check_backward(forward, mean_twice, two_layers())
    assert mistakes(report) == [("dW1", "mean-twice")]
    assert report.findings[0].line == line_of(mean_twice, "dW1 = ")


def two_at_once(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = A1 @ dZ2.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 < 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_two_mistakes_at_once() -> None:
    report = sg.check_backward(forward, two_at_once, two_layers())
    assert {(f.line, f.mistake) for f in report.findings} == {
        (line_of(two_at_once, "dW2 = "), "transposed"),
        (line_of(two_at_once, "dZ1 = "), "mask-inverted"),
    }


# --- loops, helpers, closures


def deep_forward(X: Any, Y: Any, parameters: Any) -> Any:
    cache = {"A0": X}
    A = X
    for l in (1, 2, 3):  # noqa: E741
        cache["Z" + str(l)] = parameters["W" + str(l)] @ A + parameters["b" + str(l)]
        A = np.tanh(cache["Z" + str(l)])
        cache["A" + str(l)] = A
    loss = np.sum((A - Y) ** 2) / (2 * X.shape[1])
    return loss, cache


def deep_right(Y: Any, parameters: Any, cache: Any) -> Any:
    grads = {}
    m = Y.shape[1]
    dA = (cache["A3"] - Y) / m
    for l in reversed(range(1, 4)):  # noqa: E741
        dZ = dA * (1 - cache["A" + str(l)] ** 2)
        grads["dW" + str(l)] = dZ @ cache["A" + str(l - 1)].T
        grads["db" + str(l)] = np.sum(dZ, axis=1, keepdims=True)
        dA = parameters["W" + str(l)].T @ dZ
    return grads


def deep_at_preactivation(Y: Any, parameters: Any, cache: Any) -> Any:
    grads = {}
    m = Y.shape[1]
    dA = (cache["A3"] - Y) / m
    for l in reversed(range(1, 4)):  # noqa: E741
        dZ = dA * (1 - cache["Z" + str(l)] ** 2)
        grads["dW" + str(l)] = dZ @ cache["A" + str(l - 1)].T
        grads["db" + str(l)] = np.sum(dZ, axis=1, keepdims=True)
        dA = parameters["W" + str(l)].T @ dZ
    return grads


def deep_inputs() -> Values:
    rng = np.random.default_rng(1)
    sizes = (5, 3, 2, 2)
    parameters = {}
    for layer, (before, after) in enumerate(pairwise(sizes), 1):
        parameters[f"W{layer}"] = rng.normal(size=(after, before))
        parameters[f"b{layer}"] = rng.normal(size=(after, 1))
    return {"X": rng.normal(size=(5, 7)), "Y": rng.normal(size=(2, 7)), "parameters": parameters}


def test_loop_with_keys_made_of_numbers() -> None:
    report = sg.check_backward(deep_forward, deep_right, deep_inputs())
    assert report.ok, report
    assert sorted(g.name for g in report.gradients) == ["dW1", "dW2", "dW3", "db1", "db2", "db3"]


def test_mistake_in_a_loop_is_told_once() -> None:
    report = sg.check_backward(deep_forward, deep_at_preactivation, deep_inputs())
    (found,) = report.findings
    assert found.line == line_of(deep_at_preactivation, "dZ = dA")
    assert found.mistake == "derivative-of-preactivation"


def relu_gradient(dA: Any, Z: Any) -> Any:
    dZ = dA * (Z > 0)
    return dZ  # noqa: RET504 - an assignment is what is looked at


def relu_gradient_without_mask(dA: Any, Z: Any) -> Any:
    dZ = dA * 1.0
    return dZ  # noqa: RET504 - an assignment is what is looked at


def with_helper(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = relu_gradient(W2.T @ dZ2, Z1)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def with_wrong_helper(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = relu_gradient_without_mask(W2.T @ dZ2, Z1)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_helper_of_the_same_file() -> None:
    assert sg.check_backward(forward, with_helper, two_layers()).ok
    report = sg.check_backward(forward, with_wrong_helper, two_layers())
    (found,) = report.findings
    assert found.line == line_of(relu_gradient_without_mask, "dZ = dA * 1.0")
    assert found.mistake == "activation-derivative-missing"


def wrong_closure() -> Callable[..., Any]:
    sign = -1.0

    def backward(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
        Z1, A1, Z2 = cache
        dZ2 = 2 * sign * (Z2 - Y) / X.shape[1]
        dZ1 = W2.T @ dZ2 * (Z1 > 0)
        dW2 = dZ2 @ A1.T
        db2 = dZ2.sum(axis=1, keepdims=True)
        dW1 = dZ1 @ X.T
        db1 = dZ1.sum(axis=1, keepdims=True)
        return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}

    return backward


def test_mistake_in_a_closure() -> None:
    backward = wrong_closure()
    report = sg.check_backward(forward, backward, two_layers())
    assert mistakes(report) == [("dZ2", "sign")]
    assert report.findings[0].line == line_of(backward, "dZ2 = ")


# --- forwards of other kinds


def forward_in_place(X: Any, Y: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    cache = {}
    Z1 = W1 @ X
    Z1 += b1
    cache["Z1"] = Z1
    cache["A1"] = np.maximum(Z1, 0)
    Z2 = W2 @ cache["A1"]
    Z2 += b2
    cache["Z2"] = Z2
    return np.sum((Z2 - Y) ** 2) / X.shape[1], cache


def of_dict_cache(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    return right(X, Y, W2, (cache["Z1"], cache["A1"], cache["Z2"]))


def preactivation_of_dict_cache(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    dZ2 = 2 * (cache["Z2"] - Y) / X.shape[1]
    dW2 = dZ2 @ cache["Z1"].T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (cache["Z1"] > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_cache_that_is_filled_in_place() -> None:
    assert sg.check_backward(forward_in_place, of_dict_cache, two_layers()).ok
    report = sg.check_backward(forward_in_place, preactivation_of_dict_cache, two_layers())
    assert mistakes(report) == [("dW2", "preactivation-for-activation")]
    assert report.findings[0].fix == 'dW2 = dZ2 @ cache["A1"].T'


def unrecordable_forward(x: Any, w: Any) -> Any:
    z = x @ w
    loss = sum(math.log(1 + float(v) ** 2) for v in z)
    return loss, z


def right_of_logarithms(x: Any, w: Any, z: Any) -> Any:
    dz = 2 * z / (1 + z**2)
    dw = x.T @ dz
    dx = np.outer(dz, w)
    return {"dw": dw, "dx": dx}


def half_of_logarithms(x: Any, w: Any, z: Any) -> Any:
    dz = 2 * z / (1 + z**2)
    dw = x.T @ dz / 2
    dx = np.outer(dz, w)
    return {"dw": dw, "dx": dx}


def test_forward_that_cannot_be_recorded_is_compared_with_differences() -> None:
    rng = np.random.default_rng(2)
    inputs = {"x": rng.normal(size=(5, 3)), "w": rng.normal(size=3)}
    report = sg.check_backward(unrecordable_forward, right_of_logarithms, inputs)
    assert report.ok, report
    assert "differences" in report.reference
    wrong = sg.check_backward(unrecordable_forward, half_of_logarithms, inputs)
    (found,) = wrong.findings
    assert (found.gradient, found.line) == ("dw", line_of(half_of_logarithms, "dw = "))
    assert [g.name for g in wrong.gradients if not g.ok] == ["dw"]


# --- what goes wrong otherwise


def raising(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_backward_that_raises() -> None:
    report = sg.check_backward(forward, raising, two_layers())
    assert not report.ok
    found = report.findings[0]
    assert found.line == line_of(raising, "dW2 = ")
    assert found.fix == "dW2 = dZ2 @ A1.T"


def raising_on_purpose(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    dZ2 = 2 * (cache[2] - Y) / X.shape[1]
    assert dZ2.size
    raise RuntimeError("not written yet")


def test_backward_that_raises_whatever_is_done() -> None:
    report = sg.check_backward(forward, raising_on_purpose, two_layers())
    assert not report.ok
    assert "RuntimeError: not written yet" in repr(report)
    assert report.findings[0].line == line_of(raising_on_purpose, "raise ")


def forgetful(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    gradients = right(X, Y, W2, cache)
    del gradients["db2"]
    return gradients


def test_gradient_missing() -> None:
    report = sg.check_backward(forward, forgetful, two_layers())
    assert mistakes(report) == [("db2", "gradient-missing")]
    assert report.findings[0].line is None


def cache_mutated(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = Z2
    dZ2 -= Y
    dZ2 *= 2 / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_cache_mutated_though_the_gradients_are_right() -> None:
    report = sg.check_backward(forward, cache_mutated, two_layers())
    assert not report.ok
    assert {f.mistake for f in report.findings} == {"cache-mutated"}
    assert all(g.ok for g in report.gradients)
    assert report.findings[0].line == line_of(cache_mutated, "dZ2 -= Y")


def low_precision(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = (W2.T @ dZ2 * (Z1 > 0)).astype(np.float32)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_low_precision() -> None:
    report = sg.check_backward(forward, low_precision, two_layers())
    assert not report.ok
    assert report.findings[0].mistake == "low-precision"
    assert report.findings[0].line == line_of(low_precision, "dZ1 = ")


def noisy(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    Z1, A1, Z2 = cache
    dZ2 = 2 * (Z2 - Y) / X.shape[1]
    dW2 = dZ2 @ A1.T
    db2 = dZ2.sum(axis=1, keepdims=True)
    dZ1 = W2.T @ dZ2 * (Z1 > 0) * np.random.default_rng().uniform(0.5, 1.5, Z1.shape)
    dW1 = dZ1 @ X.T
    db1 = dZ1.sum(axis=1, keepdims=True)
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


def test_not_deterministic() -> None:
    report = sg.check_backward(forward, noisy, two_layers())
    assert not report.ok
    assert report.findings[0].mistake == "not-deterministic"


# --- the user's things are left as they were


@pytest.mark.parametrize("backward", [right, transposed, raising, raising_on_purpose, cache_mutated, with_wrong_helper])
def test_nothing_of_the_user_changes(backward: Callable[..., Any]) -> None:
    functions = [forward, backward, right, relu_gradient, relu_gradient_without_mask]
    codes = [f.__code__ for f in functions]
    source = Path(__file__).read_bytes()
    inputs = two_layers()
    np.random.seed(3)
    state = np.random.get_state(legacy=False)
    sg.check_backward(forward, backward, inputs)
    assert all(f.__code__ is code for f, code in zip(functions, codes, strict=True))
    assert Path(__file__).read_bytes() == source
    assert all(np.array_equal(value, two_layers()[name]) for name, value in inputs.items())
    assert str(np.random.get_state(legacy=False)) == str(state)


def broken_forward(X: Any, Y: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    raise KeyError("no such layer")


def test_code_is_put_back_when_forward_raises() -> None:
    codes = broken_forward.__code__, right.__code__
    with pytest.raises(Exception, match="no such layer"):
        sg.check_backward(broken_forward, right, two_layers())
    assert (broken_forward.__code__, right.__code__) == codes


def interrupted(X: Any, Y: Any, W2: Any, cache: Any) -> Any:
    dZ2 = 2 * (cache[2] - Y) / X.shape[1]
    assert dZ2.size
    raise KeyboardInterrupt


def test_code_is_put_back_when_the_user_interrupts() -> None:
    code = interrupted.__code__
    with pytest.raises(KeyboardInterrupt):
        sg.check_backward(forward, interrupted, two_layers())
    assert interrupted.__code__ is code


def test_same_seed_same_report() -> None:
    first, second = (repr(sg.check_backward(forward, two_at_once, two_layers(), seed=5)) for _ in range(2))
    assert first == second


# --- the page about it


def test_the_page_lists_every_mistake() -> None:
    page = (Path(__file__).parents[3] / "docs" / "wrong-gradient.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- catalogue: begin -->")[2].partition("<!-- catalogue: end -->")[0]
    rows = [f"| [{name}](mistakes.md#{name}) | {mistake.produces} |" for name, mistake in CATALOGUE.items()]
    assert [line for line in listed.splitlines() if line.startswith("| [")] == rows
