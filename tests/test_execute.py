"""The reference executor: run(program, inputs) computes what was recorded."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, ShapeError
from stepgrad.execute.numpy import Program, run, run_all
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample
from stepgrad.tape.equation import INPUT, Equation
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import recording
from stepgrad.tensor import Tensor


def network(dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    x = sg.tensor(rng.standard_normal((4, 3)).astype(dtype), name="x")
    W = sg.Parameter(rng.standard_normal((3, 2)).astype(dtype), name="W")
    with recording(equations=[]):
        h = sg.relu(x @ W + np.asarray(0.1, dtype))
        return x, W, sg.mean(h * h)


def test_the_recorded_values_come_back() -> None:
    x, W, loss = network()
    tape = sg.Tape.of(loss)
    (value,) = run(tape, [{"x": x, "W": W}[e.name].numpy() for e in tape.inputs])
    assert value.dtype == np.float32
    assert value == loss.numpy()


def test_other_values_give_what_the_function_gives_for_them() -> None:
    x, W, loss = network()
    new = np.full((3, 2), 0.5, np.float32)
    tape = sg.Tape.of(loss)
    changed = run(tape, {W._tensor.equation: new, x.equation: x.numpy()})[0]
    W.assign(new)
    h = sg.relu(x @ W + np.float32(0.1))
    assert changed == sg.mean(h * h).numpy() != loss.numpy()


def test_cells_and_constants_keep_their_recorded_values_unless_given() -> None:
    x, W, loss = network()
    assert run(sg.Tape.of(loss), {x.equation: x.numpy()})[0] == loss.numpy()
    W.assign(np.zeros((3, 2), np.float32))
    assert run(sg.Tape.of(loss), {x.equation: x.numpy()})[0] == loss.numpy()


def test_the_backward_pass_runs_as_well() -> None:
    with recording(equations=[]):
        x, W, loss = network(np.float64)
        gradient = sg.backward(loss, W)
    values = {x.equation: x.numpy() * 2, W._tensor.equation: W.numpy()}
    (found,) = run(sg.Tape.of(gradient), values)
    twice = sg.relu(values[x.equation] @ W + 0.1)
    np.testing.assert_allclose(found, sg.backward(sg.mean(twice * twice), W).numpy(), rtol=1e-14)


def test_precision_computes_in_float64_what_was_recorded_in_float32() -> None:
    x = sg.tensor(np.array([1.0, 2.0], np.float64))
    with recording(equations=[]):
        y = x.astype(np.float32) * np.float32(0.1) + np.zeros(2, np.float32)
    tape = sg.Tape.of(y)
    third = {x.equation: np.array([1 / 3, 1.0])}
    rounded, exact = run(tape, third)[0], run(tape, third, np.float64)[0]
    assert (rounded.dtype, exact.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(exact, np.array([1 / 3, 1.0]) * float(np.float32(0.1)))
    assert np.any(rounded != exact)


def test_complex_inputs_give_the_derivative_by_the_complex_step() -> None:
    x = sg.tensor([0.3, 2.0])
    tape = sg.Tape.of(sg.sum(sg.exp(x) * x.astype(np.float32).astype(np.float64)))
    (value,) = run(tape, [np.array([0.3 + 1e-30j, 2.0])], np.complex128)
    np.testing.assert_allclose(value.imag / 1e-30, np.exp(0.3) * 1.3, rtol=1e-15)


def test_one_program_runs_many_times_on_what_it_is_given() -> None:
    x = sg.tensor([1.0, 2.0])
    program = Program(sg.Tape.of(sg.sum(x * x)))
    assert [float(program.run([np.array([float(n), 0.0])])[0]) for n in range(4)] == [0, 1, 4, 9]
    assert float(run(program, [np.array([5.0, 0.0])])[0]) == 25


def test_all_values() -> None:
    x = sg.tensor([1.0, 2.0])
    tape = sg.Tape.of(sg.sum(x * 3))
    values = run_all(tape, [np.array([10.0, 20.0])])
    assert list(values) == list(tape.equations)
    assert [v.tolist() for v in values.values()] == [[30.0, 60.0], 90.0]


def test_an_input_can_be_an_output() -> None:
    x = sg.tensor([1.0, 2.0])
    assert run(sg.Tape.of(x), [np.array([3.0, 4.0])])[0].tolist() == [3.0, 4.0]
    y = x * 2
    first, second = run(sg.Tape.of(y, x), [np.array([3.0, 4.0])])
    assert (first.tolist(), second.tolist()) == ([6.0, 8.0], [3.0, 4.0])


def test_values_are_let_go_after_their_last_use() -> None:
    x = sg.tensor(np.ones(100_000))
    y: Any = x
    for _ in range(50):
        y = sg.exp(y * 0.5)
    program = Program(sg.Tape.of(sg.sum(y)))
    value = np.ones(100_000)
    tracemalloc.start()
    program.run([value])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * value.nbytes, f"{peak / value.nbytes:.1f} arrays at a time"


@pytest.mark.parametrize("name", sorted(registry))
def test_every_op_runs(name: str) -> None:
    op = registry[name]
    for sample in op.samples:
        rng = np.random.default_rng(0)
        params = sample[-1] if isinstance(sample[-1], dict) else {}
        arrays = [s.draw(rng) if isinstance(s, Sample) else s for s in sample if not isinstance(s, dict)]
        with recording(equations=[]):
            inputs = [a if type(a) in (float, int, bool) else sg.tensor(a) for a in arrays]
            out = op(*inputs, **params)
        (value,) = run(sg.Tape.of(out), {})
        assert value.dtype == out.dtype
        np.testing.assert_array_equal(value, out.numpy())


def test_a_wrong_shape_is_refused_by_name() -> None:
    x, _, loss = network()
    with pytest.raises(ShapeError, match=r"x float32\[4,3\] was given a value of shape \(2,\)"):
        run(sg.Tape.of(loss), {x.equation: np.ones(2)})


def test_a_wrong_number_of_inputs_is_refused() -> None:
    _, _, loss = network()
    with pytest.raises(ArgumentError, match=r"(?s)1 values were given to a program with 2 inputs.*W float32"):
        run(sg.Tape.of(loss), [np.ones((4, 3))])


def test_a_value_for_something_else_is_refused() -> None:
    _, _, loss = network()
    with pytest.raises(ArgumentError, match=r"given for other float64\[\]"):
        run(sg.Tape.of(loss), {sg.tensor(1.0, name="other").equation: np.ones(())})


def test_an_eager_tape_without_the_value_of_a_constant_says_so() -> None:
    x = sg.tensor([1.0, 2.0])
    tape = sg.Tape.of(x + np.array([3.0, 4.0]))  # the backward pass of add reads nothing
    with pytest.raises(ArgumentError, match=r"constant float64\[2\] was given no value"):
        run(tape, [np.zeros(2)])


def test_an_abstract_input_needs_a_value() -> None:
    leaf = Equation(INPUT, (), {}, type_of((2,), np.dtype(np.float64)), True)
    leaf.name = "z"
    with recording(equations=[]):
        out = sg.exp(Tensor(None, leaf))
    tape = sg.Tape.of(out)
    with pytest.raises(ArgumentError, match=r"z float64\[2\] was given no value"):
        run(tape, {})
    np.testing.assert_array_equal(run(tape, [np.zeros(2)])[0], [1.0, 1.0])


def test_what_numpy_refuses_names_the_equation_and_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sg.tensor([1.0, 2.0], name="x")
    z = sg.name(sg.exp(x), "z")  # the line to name

    def refuse(a: Any) -> Any:
        raise ValueError("not today")

    tape = sg.Tape.of(z)
    monkeypatch.setattr(tape.equations[0].op, "numpy", refuse)
    with pytest.raises(ArgumentError) as caught:
        run(tape, [np.ones(2)])
    text = str(caught.value)
    assert "z: float64[2] = exp(x) could not be computed" in text
    assert "test_execute.py" in text
    assert "the line to name" in text
    assert "NumPy refused exp(float64[2]): not today" in text
