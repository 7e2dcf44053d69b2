"""Every op, on every one of its samples: inference, reference meaning, text, local rules to second order.

The oracle for rules is central differences in float64. An op without samples fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample
from stepgrad.tape.equation import INPUT, Equation
from stepgrad.tape.expressions import evaluate
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import record, recording
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify
from stepgrad.tensor import Tensor

STEP = 1e-6


def cases() -> list[Any]:
    return [
        pytest.param(op, sample, id=f"{op.name}-{i}") for op in registry.values() for i, sample in enumerate(op.samples)
    ]


def draw(sample: tuple[Any, ...], seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
    """Arrays (float64, integers, booleans) for the operands, and the params."""
    rng = np.random.default_rng(seed)
    params = sample[-1] if isinstance(sample[-1], dict) else {}
    arrays = [s.draw(rng) if isinstance(s, Sample) else s for s in sample if not isinstance(s, dict)]
    return [a if type(a) in (float, int, bool) else np.asarray(a) for a in arrays], params


def call(op: Any, operands: list[Any], params: dict[str, Any]) -> Tensor:
    return op(*operands, **params)


def floats(arrays: list[Any], op: Any) -> list[int]:
    return [
        i for i, a in enumerate(arrays) if isinstance(a, np.ndarray) and a.dtype.kind == "f" and op.rule(i) is not None
    ]


def differences(f: Any, x: np.ndarray) -> np.ndarray:
    """The gradient of f at x by central differences."""
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += STEP
        down[i] -= STEP
        out[i] = (f(up) - f(down)) / (2 * STEP)
    return out


def test_every_op_has_samples() -> None:
    bare = [op.name for op in registry.values() if not op.samples]
    assert not bare, f"without samples: {bare}"


@pytest.mark.parametrize(("op", "sample"), cases())
def test_inference_agrees_with_the_reference_meaning(op: Any, sample: Any) -> None:
    arrays, params = draw(sample)
    for dtype in (np.float64, np.float32):
        cast = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arrays]
        out = call(op, [sg.tensor(a) if isinstance(a, np.ndarray) else a for a in cast], params)
        value = op.numpy(*[e.value for e in recorded(op, cast, params)[0].inputs], **params)
        assert out.shape == np.shape(value) == out.numpy().shape
        assert out.dtype == out.numpy().dtype == np.asarray(value).dtype, f"{op} for {np.dtype(dtype)}"
        np.testing.assert_array_equal(out.numpy(), value)


def recorded(op: Any, arrays: list[Any], params: dict[str, Any]) -> tuple[Equation, Tape]:
    with recording(equations=[]):
        inputs = [sg.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
        out = call(op, inputs, params)
    tape = Tape.of(out)
    verify(tape)
    return out.equation, tape


@pytest.mark.parametrize(("op", "sample"), cases())
def test_abstract_recording_infers_the_same(op: Any, sample: Any) -> None:
    arrays, params = draw(sample)
    concrete, _ = recorded(op, arrays, params)
    with recording(equations=[]):
        abstract = [
            Tensor(None, Equation(INPUT, (), {}, type_of(a.shape, a.dtype), True)) if isinstance(a, np.ndarray) else a
            for a in arrays
        ]
        out = call(op, abstract, params)
    assert (out.value, out.shape, out.dtype) == (None, concrete.type.shape, concrete.type.dtype)


@pytest.mark.parametrize(("op", "sample"), cases())
def test_text_is_numpy_and_means_the_same(op: Any, sample: Any) -> None:
    arrays, params = draw(sample)
    equation, _ = recorded(op, arrays, params)
    np.testing.assert_allclose(evaluate(equation), equation.value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("op", "sample"), cases())
def test_rules_to_second_order(op: Any, sample: Any) -> None:
    arrays, params = draw(sample)
    positions = floats(arrays, op)
    out = call(op, arrays, params)
    if not positions or out.dtype.kind != "f":
        return
    rng = np.random.default_rng(1)
    downstream = rng.standard_normal(out.shape)

    def loss(*xs: Any) -> Any:
        full = list(arrays)
        for i, x in zip(positions, xs, strict=True):
            full[i] = x
        return (call(op, full, params) * downstream).sum()

    xs = [arrays[i] for i in positions]
    gradients = sg.grad(loss, tuple(range(len(xs))))(*xs)
    for i, (x, gradient) in enumerate(zip(xs, gradients, strict=True)):
        expected = differences(lambda v, i=i: float(loss(*xs[:i], v, *xs[i + 1 :])), x)
        np.testing.assert_allclose(gradient, expected, rtol=2e-6, atol=2e-6, err_msg=f"{op}, operand {positions[i]}")

    directions = [rng.standard_normal(x.shape) for x in xs]

    def slope(*ys: Any) -> Any:
        gs = sg.grad(loss, tuple(range(len(ys))))(*ys)
        return sum((g * d).sum() for g, d in zip(gs, directions, strict=True))

    products = sg.hvp(loss, tuple(xs), tuple(directions))
    for i, (x, product) in enumerate(zip(xs, products, strict=True)):
        expected = differences(lambda v, i=i: float(slope(*xs[:i], v, *xs[i + 1 :])), x)
        np.testing.assert_allclose(
            product, expected, rtol=5e-5, atol=5e-5, err_msg=f"{op}, second order, {positions[i]}"
        )


@pytest.mark.parametrize(("op", "sample"), cases())
def test_complex_step_where_analytic(op: Any, sample: Any) -> None:
    if not op.analytic:
        return
    arrays, params = draw(sample)
    equation, _ = recorded(op, arrays, params)
    values = [e.value for e in equation.inputs]
    for i, v in enumerate(values):
        if not isinstance(v, np.ndarray) or v.dtype.kind != "f" or op.rule(i) is None:
            continue
        direction = np.random.default_rng(2).standard_normal(v.shape)
        moved = [*values]
        moved[i] = v + 1e-30j * direction
        slope = np.imag(op.numpy(*moved, **params)) / 1e-30

        def along(t: float, values: Any = values, i: int = i, v: Any = v, direction: Any = direction) -> Any:
            return op.numpy(*values[:i], v + t * direction, *values[i + 1 :], **params)

        expected = (along(STEP) - along(-STEP)) / (2 * STEP)
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6, err_msg=f"{op}: not analytic in {i}")


@pytest.mark.parametrize(("op", "sample"), cases())
def test_a_perturbed_rule_is_caught(op: Any, sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests the test above: with any local rule 1 % off, it has to fail."""
    arrays, _ = draw(sample)
    for operand in floats(arrays, op):
        right = op.rule(operand)

        def wrong(g: Tensor, *rest: Any, right: Any = right, **settings: Any) -> Tensor:
            return right(g, *rest, **settings) * 1.01 + 1e-3

        rules = op.rules

        def planted(i: int, operand: int = operand, wrong: Any = wrong, rules: Any = rules) -> Any:
            return wrong if i == operand else (rules(i) if callable(rules) else rules[i])

        with monkeypatch.context() as patch:
            patch.setattr(op, "rules", planted)
            op.signatures.clear()
            with pytest.raises(AssertionError):
                test_rules_to_second_order(op, sample)
        op.signatures.clear()


def test_record_is_what_calls_use() -> None:
    """An op called directly and one recorded by hand make the same equation."""
    x = sg.tensor(np.ones(3))
    assert record(registry["exp"], (x,), {}).equation.op is sg.exp(x).equation.op
