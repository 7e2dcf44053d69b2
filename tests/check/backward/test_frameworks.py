"""torch.autograd.Function, jax.custom_vjp and sg.custom_rule as subjects of a check."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from differences import errors, right

import stepgrad as sg
from stepgrad.check.backward.frameworks import framework_subject
from stepgrad.check.backward.subject import Subject
from stepgrad.errors import ArgumentError, GradientError

X = np.random.default_rng(1).standard_normal((3, 5))
W = np.random.default_rng(2).standard_normal((5, 2))


def subject(function: Any, inputs: Any) -> Subject:
    made = framework_subject(function, inputs)
    assert made is not None
    return made


# --- sg.custom_rule


def affine(x: Any, w: Any, *, scale: float = 1.0) -> Any:
    return scale * (x @ w)


def test_custom_rule() -> None:
    def backward(g: Any, out: Any, x: Any, w: Any, scale: float = 1.0) -> Any:
        dx = scale * g @ w.mT
        dw = scale * x.mT @ g
        return dx, dw

    made = subject(sg.custom_rule(affine, backward), {"x": X, "w": W, "scale": 2.0})
    assert set(made.inputs) == {"x", "w"}
    assert right(made)
    assert made.gradient_names == {"x": "dx", "w": "dw"}
    assert made.functions == (backward,)
    assert made.file == __file__
    assert made.recordable
    out, _ = made.forward({name: sg.tensor(value) for name, value in made.inputs.items()})
    assert isinstance(out, sg.Tensor)


def test_wrong_custom_rule_keeps_its_wrong_shape() -> None:
    rule = sg.custom_rule(affine, lambda g, out, x, w: (g @ w.mT, g.mT @ x))
    found = errors(subject(rule, [X, W]))
    assert found["x"] < 1e-7
    assert found["w"] == float("inf")


def test_custom_rule_without_backward() -> None:
    with pytest.raises(GradientError, match=r"affine has no backward(.|\n)*@affine\.backward"):
        framework_subject(sg.custom_rule(affine), [X, W])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X}, "affine needs w, and inputs has 'x'"),
        ({"x": X, "W": W}, "inputs has 'W'"),
        ([X, W, W, W], "was given 4 inputs, and has the parameters x, w, scale"),
        ({"x": [1], "w": 2}, "no floating-point input"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, message: str) -> None:
    rule = sg.custom_rule(affine, lambda g, out, x, w: (g @ w.mT, x.mT @ g))
    with pytest.raises(ArgumentError, match=message):
        framework_subject(rule, inputs)


def test_anything_else_is_no_framework_function() -> None:
    assert framework_subject(lambda x: x, [X]) is None
    assert framework_subject(dict, [X]) is None


def test_frameworks_are_not_imported() -> None:
    script = (
        "import sys, stepgrad.check.backward.frameworks as f; f.framework_subject(len, [1.0]);"
        "assert not {'torch', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- PyTorch


@pytest.mark.peers
def test_torch_function() -> None:
    torch = pytest.importorskip("torch")

    class Affine(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, power: int = 2) -> Any:
            ctx.save_for_backward(x, w)
            ctx.power = power
            return (x @ w) ** power, x.sum()

        @staticmethod
        @torch.autograd.function.once_differentiable  # type: ignore[misc]
        def backward(ctx: Any, g: Any, g_sum: Any) -> Any:
            x, w = ctx.saved_tensors
            assert g.dtype == torch.float64
            assert ctx.needs_input_grad == (True, True)
            g = ctx.power * g * (x @ w) ** (ctx.power - 1)
            dx = g @ w.T + g_sum
            return dx, x.T @ g, None

    made = subject(Affine, {"x": torch.tensor(X, dtype=torch.float32), "w": W})
    assert right(made)
    assert not made.recordable
    assert made.functions[0].__code__.co_firstlineno > 0
    assert made.functions[0].__name__ == "backward"
    assert made.gradient_names == {"x": "dx", "w": "dw"}
    value = torch.ones(2)
    restored = made.as_given(np.zeros(2), value)
    assert isinstance(restored, torch.Tensor)
    assert isinstance(made.as_array(value), np.ndarray)


@pytest.mark.peers
def test_torch_function_with_setup_context() -> None:
    torch = pytest.importorskip("torch")

    class Exp(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(x: Any) -> Any:
            return torch.exp(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (out,) = ctx.saved_tensors
            return g.mul_(out)  # changes what it is given

    made = subject(Exp, X)
    assert right(made)
    outputs, context = made.forward(made.inputs)
    downstream = np.ones_like(outputs)
    first = made.backward(made.inputs, context, downstream)
    again = made.backward(made.inputs, context, downstream)
    np.testing.assert_array_equal(first["x"], again["x"])


@pytest.mark.peers
def test_torch_functions_that_cannot_be_called() -> None:
    torch = pytest.importorskip("torch")

    class Bare(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

    class Method(torch.autograd.Function):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    with pytest.raises(GradientError, match="Bare has no backward"):
        framework_subject(Bare, X)
    with pytest.raises(ArgumentError, match=r"Method\.forward is no static method"):
        framework_subject(Method, X)


# --- JAX


@pytest.mark.peers
def test_jax_custom_vjp() -> None:
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64

    @jax.custom_vjp  # type: ignore[misc]
    def layer(params: Any, x: Any) -> Any:
        return jax.numpy.tanh(x @ params["W"] + params["b"])

    def backward(residuals: Any, g: Any) -> Any:
        params, x, out = residuals
        assert out.dtype == "float64"
        dZ = g * (1 - out**2)
        return {"W": x.T @ dZ, "b": dZ.sum(0)}, dZ @ params["W"].T

    layer.defvjp(lambda params, x: ((out := layer.fun(params, x)), (params, x, out)), backward)
    made = subject(layer, {"params": {"W": W, "b": np.ones(2)}, "x": X.astype(np.float32)})
    assert set(made.inputs) == {"params['W']", "params['b']", "x"}
    assert right(made)
    assert not made.recordable
    assert made.remarks == ()
    assert jax.config.jax_enable_x64 == before


@pytest.mark.peers
def test_jax_nondifferentiable_arguments_and_a_forward_that_differs() -> None:
    jax = pytest.importorskip("jax")

    def clip(low: float, x: Any) -> Any:
        return jax.numpy.maximum(x, low) * x

    def forward(low: float, x: Any) -> Any:
        return jax.numpy.maximum(x, low), x

    function = jax.custom_vjp(clip, nondiff_argnums=(0,))
    with pytest.raises(GradientError, match=r"clip has no backward(.|\n)*defvjp"):
        framework_subject(function, [0.5, X])
    function.defvjp(forward, lambda low, x, g: (g * jax.numpy.where(x > low, 2 * x, low),))
    made = subject(function, [0.5, X])
    assert set(made.inputs) == {"x"}
    assert right(made)
    (remark,) = made.remarks
    assert remark.mistake == "forward-disagrees-with-cache"
    assert "forward returns another value than clip" in remark.text
