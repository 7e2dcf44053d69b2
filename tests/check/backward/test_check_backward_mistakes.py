"""`sg.check_backward` from outside: mistakes in passes of every style, and what is left as it is.

The passes stand in this file as users would write them, because their source is read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_layers import Values, forward, line_of, mistakes, right, two_layers

import stepgrad as sg

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


@pytest.mark.parametrize(
    "backward", [right, two_at_once, raising, raising_on_purpose, cache_mutated, with_wrong_helper]
)
def test_nothing_of_the_user_changes(backward: Callable[..., Any]) -> None:
    functions = [forward, backward, right, relu_gradient, relu_gradient_without_mask]
    codes = [f.__code__ for f in functions]
    files = {path: path.read_bytes() for path in {Path(f.__code__.co_filename) for f in functions}}
    inputs = two_layers()
    np.random.seed(3)
    state = np.random.get_state(legacy=False)
    sg.check_backward(forward, backward, inputs)
    assert all(f.__code__ is code for f, code in zip(functions, codes, strict=True))
    assert all(path.read_bytes() == source for path, source in files.items())
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
