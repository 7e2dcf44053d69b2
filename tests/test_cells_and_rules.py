"""Cells (Parameter, State), custom rules, stop_gradient, names, and printed tapes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, GradientError, ShapeError, VerificationError
from stepgrad.ops.registry import registry
from stepgrad.tape.printing import parse
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify


def test_a_parameter_is_float32_unless_given_an_array() -> None:
    assert sg.Parameter([1, 2]).dtype == np.float32
    assert sg.Parameter(np.ones(2)).dtype == np.float64
    with pytest.raises(DtypeError, match="was made from int64 numbers"):
        sg.Parameter(np.arange(3))


def test_assigning_keeps_shape_and_dtype() -> None:
    W = sg.Parameter(np.zeros((2, 3), np.float32), name="W")
    W.assign(np.ones((2, 3), np.float32))
    assert W.numpy().sum() == 6
    with pytest.raises(ShapeError, match=r"parameter W \(2, 3\) was assigned a tensor \(3, 2\)"):
        W.assign(np.ones((3, 2), np.float32))
    with pytest.raises(DtypeError, match="float32 network does not turn into float64 unnoticed"):
        W.assign(np.ones((2, 3)))
    assert W.numpy().sum() == 6


def test_the_loss_is_differentiated_at_the_values_it_was_computed_from() -> None:
    W = sg.Parameter(np.array([1.0, 2.0]), name="W")
    loss = sg.sum(W * W)
    W.assign(np.array([10.0, 20.0]))
    np.testing.assert_array_equal(sg.backward(loss, W).numpy(), [2, 4])


def test_state_carries_no_gradient() -> None:
    scale, x = sg.State(3.0), sg.tensor(2.0)
    assert sg.backward(x * scale, x).item() == 3
    with pytest.raises(GradientError, match="does not depend on state"):
        sg.backward(x * scale, scale)


def test_assigning_in_a_recording_is_an_update_equation() -> None:
    W = sg.Parameter(np.array([1.0, 2.0]), name="W")
    with recording(equations=[]) as state:
        W.assign(W - 0.1 * sg.backward(sg.sum(W * W), W))
        assert state.equations is not None
        roles = [e.role.value for e in state.equations]
    assert roles[-1] == "update"
    assert "backward" in roles
    np.testing.assert_allclose(W.numpy(), [0.8, 1.6])


def test_cells_copy_and_pickle() -> None:
    W = sg.Parameter([1.0], name="W")
    for other in (copy.deepcopy(W), pickle.loads(pickle.dumps(W))):
        assert other is not W
        assert (other.name, other.numpy().tolist()) == ("W", [1.0])
        other.assign(np.zeros(1, np.float32))
        assert W.numpy().tolist() == [1.0]


def test_custom_rule_is_used_and_may_be_differentiated() -> None:
    @sg.custom_rule
    def cube(x: Any) -> Any:
        return x * x * x

    @cube.backward
    def _(g: Any, out: Any, x: Any) -> Any:
        return g * 3 * x * x * 100  # not the true one, so that it can be told apart

    assert sg.grad(cube)(2.0) == 1200
    assert sg.grad(sg.grad(cube))(2.0) == 1200


def test_custom_rule_runs_its_backward_once_for_all_operands() -> None:
    calls = []

    def back(g: Any, out: Any, x: Any, y: Any, *, scale: float) -> Any:
        calls.append(1)
        return g * y * scale, None

    product = sg.custom_rule(lambda x, y, *, scale: x * y * scale, back)
    loss = lambda x, y: sg.sum(product(x, y, scale=2.0))
    loss(sg.tensor([1.0]), sg.tensor([1.0]))  # the rule is recorded once, abstractly
    calls.clear()
    gx, gy = sg.grad(loss, (0, 1))(np.array([3.0]), np.array([5.0]))
    assert (gx.item(), gy.item(), len(calls)) == (10, 0, 1)


def test_custom_rule_errors() -> None:
    forward_only = sg.custom_rule(lambda x: x * 2)
    with pytest.raises(GradientError, match="has no backward"):
        sg.grad(forward_only)(1.0)
    too_many = sg.custom_rule(lambda x: x * 2, lambda g, out, x: (g, g))
    with pytest.raises(GradientError, match="returned 2 gradients for 1 operands"):
        sg.grad(too_many)(1.0)
    wrong_shape = sg.custom_rule(lambda W, x: W @ x, lambda g, out, W, x: (g @ x.T, g))
    with pytest.raises(ShapeError, match="a gradient has the shape"):
        sg.grad(lambda W, x: sg.sum(wrong_shape(W, x)), (0, 1))(np.ones((2, 3)), np.ones((3, 4)))


def test_a_custom_backward_that_looks_at_values() -> None:
    @sg.custom_rule
    def f(x: Any) -> Any:
        return x * 2

    @f.backward
    def _(g: Any, out: Any, x: Any) -> Any:
        return g * (7.0 if x.numpy()[0] > 0 else 2.0)

    np.testing.assert_array_equal(sg.grad(lambda x: sg.sum(f(x)))(np.ones(2)), [7, 7])


def test_stop_gradient_and_names() -> None:
    x = sg.name(sg.tensor(2.0), "x")
    assert x.name == "x"
    assert sg.backward(x * sg.stop_gradient(x * x), x).item() == 4
    with pytest.raises(ArgumentError, match="only tensors have names"):
        sg.name(np.ones(2), "x")  # type: ignore[arg-type]


def lesson_tape() -> Tape:
    rng = np.random.default_rng(0)
    W1, b1 = sg.tensor(rng.normal(size=(4, 3)), name="W1"), sg.tensor(np.zeros((4, 1)), name="b1")
    X = sg.tensor(rng.normal(size=(3, 5)), name="X")
    with recording(equations=[]):
        Z1 = sg.name(W1 @ X + b1, "Z1")
        L = sg.name(sg.mean(sg.relu(Z1) * 2.0), "L")
        gradients = sg.backward(L, [W1, b1])
    return Tape.of(L, *gradients)


def test_a_printed_tape_parses_back() -> None:
    tape = lesson_tape()
    verify(tape)
    text = repr(tape)
    assert "Z1: float64[4,5] = add(" in text
    assert "dW1: float64[4,3] = matmul(dZ1, " in text
    again = parse(text, registry)
    verify(again)
    assert repr(again) == text


def test_verification_finds_a_broken_tape() -> None:
    tape = lesson_tape()
    with pytest.raises(VerificationError, match="not computed before it"):
        verify(Tape(reversed(tape.equations), tape.inputs, tape.outputs))
    with pytest.raises(ArgumentError, match="line 1 of a printed tape can't be read"):
        parse("nonsense", registry)


def test_reprs_show_value_dtype_and_name() -> None:
    x = sg.tensor([1.0, 2.0], name="x")
    assert repr(x) == "tensor([1., 2.], dtype=float64, name='x')"
    assert repr(sg.Parameter([1.0], name="W")) == "parameter([1.], dtype=float32, name='W')"
    assert "add" in repr((x + 1).equation)


def test_custom_rule_with_a_constant_operand() -> None:
    product = sg.custom_rule(lambda x, y: x * y, lambda g, out, x, y: (g * y, g * x))
    constant = np.array([3.0, 4.0])
    np.testing.assert_array_equal(sg.grad(lambda x: np.sum(product(x, constant)))(np.ones(2)), constant)
