"""`trace.source()`: executed on its own, it gives the engine's values and gradients, for any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from explained import agrees, close, run
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgrad as sg
from stepgrad.explain.lesson import PARAMETERS, network, network_inputs
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample

CASES: list[Any] = []
rng = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape)


def case(*args: Any, tolerance: float = 1e-12) -> Callable[[Any], Any]:
    def enter(fn: Any) -> Any:
        CASES.append(pytest.param(fn, args, tolerance, id=fn.__name__))
        return fn

    return enter


def test_the_lesson_network_reads_like_the_lesson() -> None:
    source = agrees(sg.trace(network, **network_inputs())).source()
    for formula in (
        "Z1 = W1 @ X + b1",
        "A1 = np.maximum(Z1, 0)",
        "Z2 = W2 @ A1 + b2",
        "dZ2 = dY_hat * (Y_hat * (1 - Y_hat))",
        "dW2 = dZ2 @ A1.T",
        "db2 = dZ2.sum(axis=1, keepdims=True)",
        "dA1 = W2.T @ dZ2",
        "dZ1 = dA1 * (Z1 > 0)",
        "dW1 = dZ1 @ X.T",
        "db1 = dZ1.sum(axis=1, keepdims=True)",
    ):
        assert f"    {formula}\n" in source


def test_the_gradients_are_those_of_backward() -> None:
    inputs = {k: sg.tensor(v) for k, v in network_inputs().items()}
    gradients = sg.backward(network(**inputs), {k: inputs[k] for k in PARAMETERS})
    _, mine, _ = run(sg.trace(network, **network_inputs(), wrt=PARAMETERS))
    for name in PARAMETERS:
        close(mine[name], gradients[name].numpy(), 1e-12, name)


@case({"W": [normal(4, 4) / 2 for _ in range(6)], "b": [normal(4, 1) for _ in range(6)]}, normal(4, 5))
def a_deep_loop_with_a_dict_of_caches(params: Any, X: Any) -> Any:
    cache = {"A0": X}
    for i, (W, b) in enumerate(zip(params["W"], params["b"], strict=True)):
        Z = W @ cache[f"A{i}"] + b
        cache[f"A{i + 1}"] = np.tanh(Z)
    return (cache["A6"] ** 2).mean()


@case(normal(3, 3) / 2, normal(3, 2), normal(3, 1), [normal(2, 4) for _ in range(5)])
def weights_shared_over_time(W: Any, U: Any, b: Any, xs: Any) -> Any:
    h = np.zeros((3, 4))
    for x in xs:
        h = np.tanh(W @ h + U @ x + b)
    return np.sum(h * h)


@case(normal(4, 3), [normal(3, 3) / 3 for _ in range(4)])
def residual(x: Any, Ws: Any) -> Any:
    for W in Ws:
        x = x + np.tanh(x @ W)
    return (x * x).sum()


@case(normal(2, 5, 6), normal(6, 6), normal(6, 6), normal(6, 6))
def attention(x: Any, Q: Any, K: Any, V: Any) -> Any:
    q, k, v = x @ Q, x @ K, x @ V
    weights = sg.softmax(q @ k.mT / np.sqrt(6.0), axis=-1)
    out = weights @ v
    return (out * out).mean()


@case(normal(3, 4))
def where_and_clip(x: Any) -> Any:
    a = np.clip(x, -0.5, 0.5)
    b = np.where(x > 0, np.log(np.abs(x) + 1), x**2)
    return (a * b).sum()


@case(normal(5, 4))
def indexing(x: Any) -> Any:
    rows = np.array([0, 2, 2])
    y, z, w = x[rows] * 2, x[1:4, ::2], x[x[:, 0] > 0]
    return y.sum() + (z**2).sum() + np.sum(w**3)


@case(normal(3, 4, 2))
def reductions(x: Any) -> Any:
    m = x.mean(axis=1, keepdims=True)
    v = ((x - m) ** 2).sum(axis=(0, 2))
    return v.max() + np.var(x) + x.std(axis=0).sum() + np.prod(x[0])


@case(normal(4, 3).astype(np.float32), normal(3, 2).astype(np.float32), np.float32(0.3), tolerance=1e-6)
def float32(X: Any, W: Any, c: Any) -> Any:
    y = sg.relu(X @ W) * c + 1
    return (y * 0.1).mean()


@case(normal(3, 4), normal(4, 2))
def not_a_scalar(A: Any, B: Any) -> Any:
    return A @ B


@case(normal(3, 4))
def second_order(x: Any) -> Any:
    g = sg.grad(lambda z: np.sum(np.tanh(z) ** 3))(x)
    return (g**2).sum()


@case(normal(3))
def nothing_at_all(x: Any) -> Any:
    return x


@case(normal(3))
def constants(x: Any) -> Any:
    scale = np.array([1.0, np.inf, 0.1])
    small = np.array([0.1, 2, 3], np.float32)
    mask = np.array([True, False, True])
    large = np.linspace(0, 1, 90).reshape(3, 30)
    y = np.where(mask, x * np.where(mask, scale, 1.0), small * x)
    return (y @ large).sum() + (y * np.float64(0.3)).sum()


@case(normal(3), normal(3), normal(3))
def one_gradient_of_many_values(a: Any, b: Any, c: Any) -> Any:
    s = a + b
    t = s + c
    return (t * t).sum()


@case(normal(4, 3), normal(1, 3))
def broadcasting_that_numpy_would_not_do(x: Any, b: Any) -> Any:
    first = np.broadcast_to(x[0], (4, 3))
    shifted = np.exp(np.broadcast_to(b, (4, 3)))
    return (first * 2).sum() + first.sum() + shifted.sum()


@case(normal(2, 3))
def several_values(x: Any) -> Any:
    y = x * 2
    return (y**2).sum(), y, {"z": y + 1}


block = sg.checkpoint(lambda x, W: np.tanh(np.sin(x @ W) @ W))


@case(normal(2, 3), normal(3, 3))
def recomputed(x: Any, W: Any) -> Any:
    return (block(x, W) ** 2).sum()


@sg.custom_rule
def scaled(x: Any, y: Any) -> Any:
    return x * y + 0


@scaled.backward
def _(g: Any, out: Any, x: Any, y: Any) -> Any:
    return g * y, None


@case(normal(3), normal(3))
def custom_rules(x: Any, y: Any) -> Any:
    return np.sum(scaled(x, y) * x)


@case(normal(3, 4), np.array([0, 2, 1]))
def cross_entropy(logits: Any, labels: Any) -> Any:
    return sg.losses.cross_entropy(logits, labels)


@case(normal(3, 3), normal(3))
def linear_algebra(A: Any, b: Any) -> Any:
    S = A @ A.T + 3 * np.eye(3)
    x = np.linalg.solve(S, b)
    return x @ b + np.linalg.slogdet(S)[1] + np.trace(np.linalg.inv(S))


@case(2.0, 3)
def plain_numbers(x: Any, n: Any) -> Any:
    return x**n


@case(normal(5))
def parts_without_gradients(x: Any) -> Any:
    with sg.no_grad():
        total = x.sum() * 3
    return np.sum(sg.stop_gradient(x * 2) * x * total)


model = sg.nn.Sequential(sg.nn.Linear(4, 8), sg.nn.ReLU(), sg.nn.Linear(8, 3))
deeper = sg.nn.Sequential(
    sg.nn.Embedding(10, 6), sg.nn.LayerNorm(6), sg.nn.Dropout(0.5), sg.nn.GELU(), sg.nn.Linear(6, 2)
)
rows, labels = normal(6, 4).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])


@case(model, rows, labels, tolerance=1e-5)
def a_module_as_an_argument(net: Any, x: Any, y: Any) -> Any:
    return sg.losses.cross_entropy(net(x), y)


@case(rows, labels, tolerance=1e-5)
def a_module_from_outside(x: Any, y: Any) -> Any:
    return sg.losses.cross_entropy(model(x), y)


@case(deeper, np.array([[1, 2, 3], [4, 5, 6]]), tolerance=1e-5)
def layers_with_states(net: Any, ids: Any) -> Any:
    return (net(ids) ** 2).mean()


@pytest.mark.parametrize(("fn", "args", "tolerance"), CASES)
def test_it_runs_on_its_own(fn: Any, args: Any, tolerance: float) -> None:
    agrees(sg.trace(fn, *args), tolerance)


def test_a_module_itself() -> None:
    trace = agrees(sg.trace(model, rows), 1e-5)
    assert set(trace.gradients) == {"x", "weight_0", "bias_0", "weight_2", "bias_2"}


def test_a_downstream_gradient_of_ones_own() -> None:
    downstream = np.arange(6.0).reshape(3, 2)
    trace = agrees(sg.trace(not_a_scalar, *(a := (normal(3, 4), normal(4, 2))), downstream=downstream))
    close(trace.gradients["A"], downstream @ a[1].T, 1e-12)


def test_backward_takes_another_downstream_gradient() -> None:
    trace = sg.trace(not_a_scalar, *(a := (normal(3, 4), normal(4, 2))))
    module: dict[str, Any] = {}
    exec(trace.source(), module)
    downstream = normal(3, 2)
    close(module["backward"](module["forward"](**trace.inputs)[1], downstream)["A"], downstream @ a[1].T, 1e-12)


def test_a_whole_training_step() -> None:
    net = sg.nn.Sequential(sg.nn.Linear(4, 3), sg.nn.Tanh(), sg.nn.Linear(3, 3))
    optimizer = sg.optim.Adam(net.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(net(x), y)
        gradients = sg.backward(loss, net.parameters())
        optimizer.step(gradients)
        return loss

    trace = agrees(sg.trace(step, rows, labels), 1e-5)
    assert {s.kind for s in trace.steps} == {"forward", "update"}
    module: dict[str, Any] = {}
    exec(trace.source(), module)
    _, cache = module["forward"](**trace.inputs)
    known = trace.inputs | {f"d{k}": v for k, v in module["backward"](cache).items()}
    wanted = module["update"].__code__.co_varnames[: module["update"].__code__.co_argcount]
    new = module["update"](**{name: known[name] for name in wanted})
    assert "x" not in trace.gradients, "nobody asked for it"
    for path, parameter in net.parameters().items():
        first, second = path.split(".")
        close(new[f"{second}_{first}"], parameter.numpy(), 1e-6, path)


def op_cases() -> list[Any]:
    return [pytest.param(op, s, id=f"{op.name}-{i}") for op in registry.values() for i, s in enumerate(op.samples)]


@pytest.mark.parametrize(("op", "sample"), op_cases())
def test_every_op_to_second_order(op: Any, sample: Any) -> None:
    params = sample[-1] if isinstance(sample[-1], dict) else {}
    draw = np.random.default_rng(0)
    arrays = [s.draw(draw) if isinstance(s, Sample) else s for s in sample if not isinstance(s, dict)]
    arrays = [a if type(a) in (float, int, bool) else np.asarray(a) for a in arrays]
    floats = [i for i, a in enumerate(arrays) if isinstance(a, np.ndarray) and a.dtype.kind == "f" and op.rule(i)]
    if op(*arrays, **params).dtype.kind != "f" or not floats:
        return

    def value(*xs: Any) -> Any:
        y = op(*xs, **params)
        return (y * y).sum()

    def slopes(*xs: Any) -> Any:
        return sum((g * g).sum() for g in sg.grad(value, floats)(*xs))

    agrees(sg.trace(value, *arrays), 1e-11)
    agrees(sg.trace(slopes, *arrays), 1e-10)
    halves = [a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in arrays]
    agrees(sg.trace(value, *halves), 1e-4)


INSTRUCTIONS = st.lists(
    st.tuples(st.sampled_from("add multiply matmul tanh mean column exp where index reshape".split()),
              st.integers(0, 5), st.integers(0, 5)),
    min_size=1,
    max_size=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(INSTRUCTIONS, st.sampled_from([np.float64, np.float32]))
def test_random_programs(instructions: Any, dtype: Any) -> None:
    def program(a: Any, b: Any) -> Any:
        values = [a, b]
        for name, i, j in instructions:
            x, y = values[i % len(values)], values[j % len(values)]
            match name:
                case "add":
                    z = x + y
                case "multiply":
                    z = x * y / 2
                case "matmul":
                    z = x @ y / 3
                case "tanh":
                    z = np.tanh(x)
                case "mean":
                    z = x - y.mean(axis=0)
                case "column":
                    z = x + y[:, :1]
                case "exp":
                    z = np.exp(-(x * x))
                case "where":
                    z = np.where(x > y, x, 2 * y)
                case "index":
                    z = x[np.array([2, 0, 0])]
                case "reshape":
                    z = x.reshape(9).reshape(3, 3).T
            values.append(z)
        return np.sum(values[-1] * values[len(values) // 2])

    draw = np.random.default_rng(len(instructions))
    arrays = [draw.standard_normal((3, 3)).astype(dtype) for _ in range(2)]
    trace = sg.trace(program, *arrays)
    agrees(trace, 1e-12 if dtype is np.float64 else 1e-3)
