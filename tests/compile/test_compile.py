"""Compiled functions: the same numbers as eager ones, nothing stale, nothing half done. On two engines."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.buffers import Guard, changes, join
from stepgrad.cells import cell_of
from stepgrad.compile.recorded import record_step
from stepgrad.errors import (
    AbstractValueError,
    ArgumentError,
    DtypeError,
    GradientError,
    ShapeError,
    StaleError,
    UnsupportedError,
)
from stepgrad.execute import cpu
from stepgrad.execute import numpy as reference
from stepgrad.tape.equation import CELL, INPUT, Role
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify

X = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1])


class InPlace:
    """An engine that keeps to buffers, as native programs do: it reads and writes them, and counts."""

    def __init__(self, tape: Tape, user_outputs: int) -> None:
        verify(tape)
        self.tape, self.kept = tape, user_outputs
        self.read = {e: e.params["cell"].bind() for e in tape.leaves() if e.op is CELL}
        self.written = [cell_of(e).bind() for e in tape.outputs[user_outputs:]]
        self.runs = 0

    def run(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        self.runs += 1
        values = dict(zip(self.tape.inputs, inputs, strict=True))
        with np.errstate(all="ignore"):
            found = [np.array(v) for v in reference.run(self.tape, {**values, **self.read})]
        for buffer, value in zip(self.written, found[self.kept :], strict=True):
            buffer[...] = value
        if self.written:
            changes[0] += 1
        return found[: self.kept]

    def scan(self, inputs: Sequence[Any], steps: int, scanned: Sequence[bool]) -> list[np.ndarray]:
        rows = [self.run([x[i] if s else x for x, s in zip(inputs, scanned, strict=True)]) for i in range(steps)]
        return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.fixture(params=["numpy", "in place"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def load(tape: Tape, user_outputs: int, **settings: Any) -> Any:
        return InPlace(tape, user_outputs) if request.param == "in place" else reference.Engine(tape, user_outputs)

    monkeypatch.setattr(cpu, "load", load, raising=False)
    return request.param


def network(key: int = 0) -> sg.nn.Module:
    return sg.nn.Sequential(
        sg.nn.Linear(6, 8, key=key), sg.nn.Tanh(), sg.nn.Dropout(0.3, key=key), sg.nn.Linear(8, 3, key=key + 1)
    )


def training(optimizer: Callable[[Any], Any] = sg.optim.Adam) -> tuple[Any, Any, Callable[..., Any]]:
    model = network()
    opt = optimizer(model.parameters())

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        opt.step(sg.backward(loss, model.parameters()))
        return loss

    return model, opt, step


def state(model: Any, opt: Any) -> dict[str, np.ndarray]:
    return {**model.state_dict(), **{f"opt.{k}": v for k, v in opt.state_dict().items()}}


def assert_close(one: dict[str, Any], other: dict[str, Any], rtol: float = 1e-5) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=2e-6, err_msg=name)


# --- the same numbers

OPTIMIZERS = {
    "sgd": lambda p: sg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: sg.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: sg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: sg.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: sg.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: sg.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "adagrad": lambda p: sg.optim.Adagrad(p, lr=0.1, lr_decay=0.1),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("order", ["cccccc", "ecceec", "cececc", "eecccc"])
def test_eager_and_compiled_steps_mix_in_any_order(kind: str, order: str) -> None:
    model, opt, step = training(OPTIMIZERS[kind])
    expected = [step(X, Y).item() for _ in order]
    wanted = state(model, opt)
    model, opt, step = training(OPTIMIZERS[kind])
    compiled = sg.compile(step)
    found = [(compiled if each == "c" else step)(X, Y).item() for each in order]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_close(state(model, opt), wanted)
    assert opt.steps == len(order)


def test_in_float64_compiled_and_eager_agree_to_rounding() -> None:
    def run(compiled: bool) -> dict[str, Any]:
        layer = sg.nn.Linear(6, 3, key=0, dtype=np.float64)
        opt = sg.optim.Adam(layer.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            loss = sg.losses.cross_entropy(layer(x), y)
            opt.step(sg.backward(loss, layer.parameters()))
            return loss

        step = sg.compile(step) if compiled else step
        for _ in range(4):
            step(X.astype(np.float64), Y)
        return state(layer, opt)

    one, other = run(True), run(False)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, atol=1e-15)


LAYERS: dict[str, Callable[[], Any]] = {
    **{
        name: getattr(sg.nn, name)
        for name in "CELU ELU GELU Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish ReLU SELU SiLU Sigmoid "
        "Softmax Softplus Softsign Tanh".split()
    },
    "LayerNorm": lambda: sg.nn.LayerNorm(6),
    "Linear": lambda: sg.nn.Linear(6, 2, key=3),
    "Dropout": lambda: sg.nn.Dropout(0.5, key=0),
    "Flatten": sg.nn.Flatten,
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_computes_what_it_computes_eagerly(name: str) -> None:
    def losses(compiled: bool) -> list[Any]:
        layer = LAYERS[name]()
        first = sg.nn.Linear(6, 6, key=7)

        def step(x: Any) -> Any:
            out = layer(first(x))
            return sg.sum(out * out), sg.backward(sg.sum(out * out), first.parameters())

        step = sg.compile(step) if compiled else step
        return [step(X) for _ in range(3)]

    for (one, grads), (other, wanted) in zip(losses(True), losses(False), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
        for key in wanted:
            np.testing.assert_array_equal(grads[key].numpy(), wanted[key].numpy())


def test_an_embedding() -> None:
    words = sg.nn.Embedding(10, 3, key=0)
    f = lambda ids: sg.backward(sg.sum(words(ids) ** 2), words.weight)
    compiled = sg.compile(f)
    for ids in (np.array([1, 2, 2]), np.array([9, 0, 1])):
        np.testing.assert_array_equal(compiled(ids).numpy(), f(ids).numpy())


def test_random_numbers_are_those_of_eager_execution() -> None:
    def draws(compiled: bool) -> list[Any]:
        key = sg.State(sg.random.key(3))

        def draw() -> Any:
            following, mine = sg.random.split(key)
            key.assign(following)
            return sg.random.normal(mine, 4), sg.random.permutation(mine, 5)

        draw = sg.compile(draw) if compiled else draw
        return [[t.tolist() for t in draw()] for _ in range(4)]

    one = draws(True)
    assert one == draws(False)
    assert len({str(row) for row in one}) == 4


def test_running_statistics() -> None:
    mean = sg.State(np.zeros(6, np.float32), name="mean")

    @sg.compile
    def normalised(x: Any) -> Any:
        mean.assign(0.9 * mean + 0.1 * np.mean(x, axis=0))
        return x - mean

    expected = np.zeros(6, np.float32)
    for _ in range(3):
        expected = np.float32(0.9) * expected + np.float32(0.1) * X.mean(axis=0)
        np.testing.assert_allclose(normalised(X).numpy(), X - expected, rtol=1e-6)
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-6)


def test_two_steps_inside_of_one_program() -> None:
    def run(compiled: bool) -> Any:
        model, opt, step = training()

        def twice(x: Any, y: Any) -> Any:
            return step(x, y), step(x, y)

        twice = sg.compile(twice) if compiled else twice
        return [[t.item() for t in twice(X, Y)] for _ in range(3)], state(model, opt)

    (one, end), (other, wanted) = run(True), run(False)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert_close(end, wanted)


def test_gradients_inside_of_the_function() -> None:
    cube = lambda x: sg.sum(x**3)
    v = np.array([1.0, 2.0])
    for f in (
        sg.grad(cube),
        sg.grad(lambda x: sg.sum(sg.grad(cube)(x) ** 2)),
        lambda x: sg.hvp(cube, x, v),
        lambda x: sg.jvp(np.sin, x, v)[1],
        sg.hessian(cube),
        sg.grad(lambda x: sg.sum(sg.checkpoint(lambda x: np.tanh(np.sin(x)))(x))),
        lambda x: sg.vjp(np.exp, x)[1](v)[0],
    ):
        np.testing.assert_allclose(sg.compile(f)(v).numpy(), np.asarray(f(v)), rtol=1e-14)


def test_custom_rules() -> None:
    clipped = sg.custom_rule(lambda x: x * 1, lambda g, out, x: np.clip(g, -1, 1))
    f = sg.grad(lambda x: sg.sum(5 * clipped(x)))
    np.testing.assert_array_equal(sg.compile(f)(np.ones(2)).numpy(), [1, 1])
    looking = sg.custom_rule(lambda x: x * 2, lambda g, out, x: g * (7.0 if x.numpy()[0] > 0 else 2.0))
    with pytest.raises(AbstractValueError, match="recorded abstractly"):
        sg.compile(sg.grad(lambda x: sg.sum(looking(x))))(np.ones(2))


# --- arguments


def test_a_float_is_an_input_and_an_int_is_not() -> None:
    f = sg.compile(lambda x, scale, power: x**power * scale)
    assert f(np.float32(3), 0.5, 2).item() == 4.5
    assert f(np.float32(3), 2.5, 2).item() == 22.5
    assert f(np.float32(3), 2.5, 2).dtype == np.float32
    assert len(f.programs) == 1
    assert f(np.float32(3), 2.5, 3).item() == 67.5
    assert len(f.programs) == 2
    assert f(np.float32(3), 2.5, True).item() == 7.5
    assert len(f.programs) == 3


def test_a_float_stays_a_python_number() -> None:
    f = sg.compile(lambda lr: (lr, lr * 2, lr > 1))
    assert f(0.75) == (0.75, 1.5, False)
    assert f(1.75) == (1.75, 3.5, True)
    assert [type(v) for v in f(1.75)] == [float, float, bool]
    scaled = sg.compile(lambda x, s: x * (s * 2 + 1))
    for _ in range(3):
        assert scaled(X, 0.1).dtype == np.float32
        np.testing.assert_array_equal(scaled(X, 0.1).numpy(), X * 1.2)


def test_a_learning_rate_may_be_an_argument() -> None:
    W = sg.Parameter([0.0])
    opt = sg.optim.SGD([W], lr=1.0)

    @sg.compile
    def step(g: Any, lr: float) -> None:
        opt.lr = lr
        opt.step([g])

    for lr in (1.0, 0.5, 0.25):
        assert step(np.ones(1, np.float32), lr) is None
    assert (W.item(), opt.lr, opt.steps, len(step.programs)) == (-1.75, 0.25, 3, 1)


def test_arguments_and_results_may_be_nested() -> None:
    @sg.compile
    def f(batch: Any, *, scale: Any, mode: str) -> Any:
        a, (b, c) = batch["a"], batch["rest"]
        total = a * scale + b
        return {"total": total, "kept": [a, "x", None, 3], "twice": (total, total), "mode": mode}, c

    batch = {"a": np.ones(2), "rest": (np.arange(2), sg.tensor([5.0]))}
    for _ in range(3):
        out, c = f(batch, scale=np.float64(3), mode="sum")
    assert out["total"].tolist() == [3, 4]
    assert out["kept"][0].tolist() == [1, 1]
    assert out["kept"][1:] == ["x", None, 3]
    assert out["twice"][0] is out["twice"][1]
    assert (out["mode"], c.tolist(), len(f.programs)) == ("sum", [5], 1)
    f(mode="sum", batch=batch, scale=np.float64(3))
    f(batch, scale=np.float64(3), mode="max")
    assert len(f.programs) == 3


def test_each_shape_and_dtype_has_a_program() -> None:
    f = sg.compile(lambda x: np.sum(x))
    for _ in range(2):
        assert f(np.ones(3)).item() == 3
        assert f(np.ones((2, 2))).item() == 4
        assert f(np.ones(3, np.float32)).dtype == np.float32
        assert f(np.ones(3, ">f8")).item() == 3
    assert len(f.programs) == 3
    assert f.program is f.programs[0]


def test_views_and_read_only_arrays_are_taken() -> None:
    f = sg.compile(lambda x: x * 2)
    base = np.arange(12.0).reshape(3, 4)
    for view in (base[:, ::2], base.T[:2].T, np.broadcast_to(1.0, (3, 2))):
        np.testing.assert_array_equal(f(view).numpy(), view * 2)


def test_what_is_no_array_and_may_change_is_refused() -> None:
    with pytest.raises(ArgumentError, match="given a set as x"):
        sg.compile(lambda x: 1)({1, 2})
    with pytest.raises(DtypeError, match="<U1 can't be made into a tensor"):
        sg.compile(lambda x: x)(np.array(["a"]))
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        sg.compile(lambda x, y: x)(np.ones(2))


def test_results_are_fresh_and_nobody_elses() -> None:
    x = np.ones(2)
    W = sg.Parameter(np.zeros(2))

    @sg.compile
    def f(x: Any) -> Any:
        before = W * 1
        W.assign(x)
        return x, x[None], before, W * 1

    first = f(x)
    x[:] = 7
    assert [t.tolist() for t in first] == [[1, 1], [[1, 1]], [0, 0], [1, 1]]
    assert W.tolist() == [1, 1]
    second = f(x)
    assert [t.tolist() for t in first] == [[1, 1], [[1, 1]], [0, 0], [1, 1]]
    assert [t.tolist() for t in second] == [[7, 7], [[7, 7]], [1, 1], [7, 7]]
    with pytest.raises(ValueError, match="read-only"):
        second[0].numpy()[0] = 1


def test_cells_arrays_and_constants_are_returned_as_they_are() -> None:
    W, table = sg.Parameter([1.0], name="W"), np.arange(3)
    out = sg.compile(lambda x: (W, table, sg.tensor([2.0]), x))(X)
    assert out[0] is W
    np.testing.assert_array_equal(out[1], table)
    assert out[1] is not table
    assert out[2].tolist() == [2]
    with pytest.raises(UnsupportedError, match=r"returned a set at \[1\]"):
        sg.compile(lambda x: (x, {1}))(X)


def test_cells_and_modules_as_arguments() -> None:
    one, two = sg.Parameter([1.0]), sg.Parameter([2.0])

    @sg.compile
    def double(cell: Any) -> None:
        cell.assign(cell * 2)

    for _ in range(3):
        double(one)
        double(two)
    assert (one.item(), two.item(), len(double.programs)) == (8, 16, 2)
    layer = sg.nn.Linear(6, 2, key=0)
    np.testing.assert_array_equal(sg.compile(lambda m, x: m(x))(layer, X).numpy(), layer(X).numpy())
    np.testing.assert_array_equal(sg.compile(layer)(X).numpy(), layer(X).numpy())


# --- honest


def test_a_python_counter_is_found_out() -> None:
    count = 0

    @sg.compile
    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        return sg.sum(x) * count  # the line to name

    f(X)
    with pytest.raises(StaleError) as caught:
        f(X)
    text = str(caught.value)
    assert "f was recorded again, and it is not what it was: equation 2, multiply(sum, 2)" in text
    assert "the number 1 has become 2" in text
    assert "the line to name" in text


def test_a_flag_that_was_flipped_is_found_out() -> None:
    model = network()
    f = sg.compile(lambda x: model(x))
    f(X)
    model.eval()
    with pytest.raises(StaleError, match=r"equation \d+, .*matmul.*it was random_split|it returned|equation \d+"):
        f(X)
    np.testing.assert_array_equal(f(X).numpy(), model(X).numpy())  # recorded anew


def test_an_array_that_was_changed_is_found_out() -> None:
    table = np.array([1.0, 2.0, 3.0])
    f = sg.compile(lambda x: x * table)
    f(np.ones(3))
    table[1] = 5
    with pytest.raises(StaleError, match=r"an array from outside, float64\[3\], has changed: 2.0 became 5.0 at 1"):
        f(np.ones(3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda n: lambda x: np.sum(x, axis=n()), r"axis was \(1,\), and is \(2,\)"),
        (lambda n: lambda x: sg.exp(x) if n() == 1 else sg.sin(x), "it was exp"),
        (lambda n: lambda x: (x, n()), r"returned 1 at \[1\], and returns 2"),
        (lambda n: lambda x: [x] * n(), "it returned one value, and returns 2 values"),
        (lambda n: lambda x: sg.sum(x) if n() == 1 else sg.sum(x) * 1.5, "equation 2, multiply.*is new"),
        (lambda n: lambda x: x * sg.State(float(n())), "which is another cell"),
        (lambda n: lambda x: x.reshape(n(), -1), r"shape was \(1, 24\), and is \(2, 12\)"),
    ],
)
def test_what_else_is_found_out(make: Any, text: str) -> None:
    def counting() -> Any:
        numbers = iter(range(1, 9))
        return make(lambda: next(numbers))

    f = sg.compile(counting())
    x = np.ones((2, 3, 4))
    f(x)
    with pytest.raises(StaleError, match=f"(?s){text}"):
        f(x)
    never = sg.compile(counting(), recheck="never")
    for _ in range(3):
        never(x)
    assert len(never.programs) == 1


def test_recheck_always_looks_at_each_call() -> None:
    scale = 1.0
    f = sg.compile(lambda x: x * scale, recheck="always")
    second = sg.compile(lambda x: x * scale)
    for _ in range(3):
        f(X)
        second(X)
    scale = 2.0
    with pytest.raises(StaleError, match=r"the number 1\.0 has become 2\.0"):
        f(X)
    np.testing.assert_array_equal(second(X).numpy(), X)  # that is what "second" means


@pytest.mark.parametrize(
    "branch",
    [
        lambda W, x: x if W > 0 else -x,
        lambda W, x: x if x[0, 0] > 0 else -x,
        lambda W, x: x * float(W),
        lambda W, x: x * W.item(),
        lambda W, x: x[: int(W)],
        lambda W, x: np.asarray(x),
        lambda W, x: print(f"{W:.2f}"),
    ],
)
def test_asking_for_a_value_says_what_to_write_instead(branch: Any) -> None:
    W = sg.Parameter(np.float32(1), name="W")
    with pytest.raises(AbstractValueError, match=r"(?s)recorded abstractly.*use sg\.where"):
        sg.compile(lambda x: branch(W, x))(X)
    assert W.item() == 1


def test_an_exception_leaves_every_cell_as_it_was() -> None:
    model, opt, step = training()
    before = state(model, opt)

    @sg.compile
    def failing(x: Any, y: Any) -> Any:
        step(x, y)
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        failing(X, Y)
    for name, value in state(model, opt).items():
        np.testing.assert_array_equal(value, before[name])
    compiled = sg.compile(step)
    compiled(X, Y)
    after = state(model, opt)
    with pytest.raises(ArgumentError, match="could not be computed"):
        compiled(X, Y + 100)  # no class has this number, which only a run can tell
    for name, value in state(model, opt).items():
        np.testing.assert_array_equal(value, after[name])


def test_a_tensor_that_escaped_says_so() -> None:
    escaped: list[Any] = []
    f = sg.compile(lambda x: escaped.append(x * 2) or x)
    f(X)
    with pytest.raises(AbstractValueError, match="outside the function in which it was recorded"):
        escaped[0] + 1
    with pytest.raises(AbstractValueError, match="comes from another recording"):
        sg.compile(lambda x: x + escaped[0])(X)


def test_a_gradient_does_not_flow_through_unnoticed() -> None:
    W = sg.Parameter([2.0], name="W")
    f = sg.compile(lambda x: sg.sum(W * x))
    x = sg.tensor(np.ones(1, np.float32))
    for _ in range(3):
        loss = f(x) + sg.sum(W * W)
        with pytest.raises(GradientError, match="which a compiled function returned"):
            sg.backward(loss, W)
        with pytest.raises(GradientError, match="which a compiled function returned"):
            sg.backward(f(x) + sg.sum(x), x)
    model, _, step = training()
    loss = sg.compile(step)(X, Y)
    assert not loss.equation.active
    with pytest.raises(GradientError, match="a compiled function has no derivative"):
        sg.backward(loss, model.parameters())


# --- inside of other recordings


def test_inside_of_gradients_traces_and_other_compiled_functions_it_is_recorded() -> None:
    f = sg.compile(lambda x: x**3)
    for _ in range(3):
        assert float(sg.grad(f)(2.0)) == 12
        assert float(sg.grad(lambda x: sg.grad(f)(x))(2.0)) == 12
    assert not f.programs
    assert "x" in str(sg.trace(lambda x: sg.sum(f(x)), np.ones(2)))
    outer = sg.compile(lambda x: sg.grad(lambda x: sg.sum(f(x)))(x) + f(x))
    np.testing.assert_array_equal(outer(np.full(2, 2.0)).numpy(), [20, 20])
    assert not f.programs
    assert f(np.full(2, 2.0)).tolist() == [8, 8]
    with sg.no_grad():
        assert f(np.full(2, 2.0)).tolist() == [8, 8]


def test_scan_inside_of_a_compiled_function() -> None:
    total = sg.State(0.0)

    @sg.compile
    def add(x: Any, scale: float) -> Any:
        total.assign(total + x * scale)
        return total * 1, "text"

    values = np.arange(1.0, 5.0)
    outer = sg.compile(lambda xs: add.scan(xs, 2.0))
    for expected in ([2, 6, 12, 20], [22, 26, 32, 40]):
        sums, text = outer(values)
        assert (sums.tolist(), text) == (expected, "text")
    assert total.item() == 40


# --- scan


def test_scan_is_a_loop() -> None:
    xs = np.random.default_rng(1).standard_normal((7, 5, 6)).astype(np.float32)
    ys = np.random.default_rng(2).integers(0, 3, (7, 5))
    model, opt, step = training()
    compiled = sg.compile(step)
    losses = [compiled(x, y).item() for x, y in zip(xs, ys, strict=True)]
    wanted = state(model, opt)
    model, opt, step = training()
    compiled = sg.compile(step)
    found = compiled.scan(xs[:4], ys[:4])
    assert found.shape == (4,)
    rest = compiled.scan(sg.tensor(xs[4:]), ys[4:])
    assert found.tolist() + rest.tolist() == losses
    for name, value in state(model, opt).items():
        np.testing.assert_array_equal(value, wanted[name])
    assert len(compiled.programs) == 1


def test_scan_with_structures_floats_and_no_steps() -> None:
    f = sg.compile(lambda batch, scale: {"y": batch["x"] * scale, "n": [1, scale]})
    out = f.scan({"x": np.arange(3.0)}, 0.5)
    assert out["y"].tolist() == [0, 0.5, 1]
    assert out["n"][0] == 1
    assert out["n"][1].tolist() == [0.5, 0.5, 0.5]
    empty = f.scan({"x": np.zeros((0, 2))}, 0.5)
    assert empty["y"].shape == (0, 2)


def test_scan_refuses_what_does_not_fit() -> None:
    f = sg.compile(lambda x, y: x + y)
    with pytest.raises(ShapeError, match=r"f?.*scan was given x \(3,\) and y \(2,\)"):
        f.scan(np.ones(3), np.ones(2))
    with pytest.raises(ShapeError, match=r"given y \(\) float64"):
        f.scan(np.ones(3), np.float64(2))
    with pytest.raises(ArgumentError, match="was given no array"):
        f.scan(1.0, 2)


def test_scan_finds_stale_values_before_its_first_step() -> None:
    numbers = iter(range(9))
    total = sg.State(0.0)
    f = sg.compile(lambda x: total.assign(total + x * next(numbers)))
    with pytest.raises(StaleError, match="the number 0 has become 1"):
        f.scan(np.ones(3))
    assert total.item() == 0


# --- cells and buffers


def test_a_bound_cell_has_a_buffer_of_its_own() -> None:
    W = sg.Parameter(np.arange(6, dtype=np.float32).reshape(2, 3))
    held = W.numpy()
    buffer = W.bind()
    assert buffer is W.bind()
    assert (buffer.ctypes.data % 64, buffer.flags.c_contiguous, buffer.flags.writeable) == (0, True, True)
    leaf = W._tensor
    changes[0] += 1
    assert W._tensor is leaf  # counted, but not changed: still the same tensor
    buffer[0, 0] = 9
    changes[0] += 1
    assert W.numpy()[0, 0] == 9
    assert held[0, 0] == 0
    W.assign(np.ones((2, 3), np.float32))
    assert buffer[0, 0] == 1
    W.assign(W.numpy().T.reshape(2, 3) * 1)
    kept = W.numpy()
    buffer[:] = 3
    changes[0] += 1
    assert kept[0, 0] == 1
    assert sg.backward(sg.sum(W * W), W).numpy()[0, 0] == 6


@pytest.mark.parametrize("value", [np.float64(2), np.zeros((0, 3)), np.array([True, False]), np.ones((2, 2)).T])
def test_buffers_of_any_shape_and_dtype(value: Any) -> None:
    cell = sg.State(value)
    buffer = cell.bind()
    np.testing.assert_array_equal(buffer, value)
    assert (buffer.dtype, buffer.shape) == (value.dtype, value.shape)
    np.testing.assert_array_equal(cell.numpy(), value)


def test_another_program_does_not_part_a_cell_from_its_gradient() -> None:
    W, other = sg.Parameter([3.0]), sg.State(0.0)
    bump = sg.compile(lambda: other.assign(other + 1))
    read = sg.compile(lambda: W * 1)
    read()
    first = W * W
    bump()
    loss = sg.sum(first + W)
    assert sg.backward(loss, W).tolist() == [7]


def test_bound_cells_copy_pickle_and_load() -> None:
    model, opt, step = training()
    compiled = sg.compile(step)
    compiled(X, Y)
    saved = state(model, opt)
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model))
    compiled(X, Y)
    for other in (twin, again):
        for name, value in other.state_dict().items():
            np.testing.assert_array_equal(value, saved[name])
    model.load_state_dict(twin.state_dict())
    opt.load_state_dict({k.removeprefix("opt."): v for k, v in saved.items() if k.startswith("opt.")})
    compiled(X, Y)
    assert opt.steps == 2


def test_two_programs_share_their_cells() -> None:
    model, _, step = training()
    train, evaluate = sg.compile(step), sg.compile(lambda x: model(x) * 0 + model[0].weight[0, 0])
    for _ in range(3):
        train(X, Y)
        assert evaluate(X).numpy()[0, 0] == model[0].weight.numpy()[0, 0]


# --- methods, threads, processes


class Trainer:
    def __init__(self, start: float) -> None:
        self.total = sg.State(start)

    @sg.compile
    def add(self, x: Any) -> Any:
        """Adds."""
        self.total.assign(self.total + x)
        return self.total * 1

    @sg.compile(recheck="never", executor="numpy")
    def double(self) -> None:
        self.total.assign(self.total * 2)

    def _plain(self, x: Any) -> Any:
        return self.total + x

    under_another_name = sg.compile(_plain)


def test_methods_have_programs_for_each_object() -> None:
    one, two = Trainer(0.0), Trainer(100.0)
    for _ in range(3):
        one.add(1.0)
        two.add(2.0)
        one.double()
    assert (one.total.item(), two.total.item()) == (14, 106)
    assert one.add is one.add
    assert one.under_another_name is one.under_another_name
    assert one.under_another_name(1.0).item() == one._plain(1.0).item() == 15
    assert not isinstance(one._plain, type(one.add))
    assert len(one.add.programs) == len(two.add.programs) == 1
    assert not Trainer.add.programs
    assert Trainer.add.__doc__ == "Adds."
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin.add(1.0).item() == 15
    assert one.total.item() == 14
    assert pickle.loads(pickle.dumps(compiled_at_top)) is compiled_at_top


@sg.compile
def compiled_at_top(x: Any) -> Any:
    return x * 2


def test_a_method_needs_a_place_for_its_programs() -> None:
    class Slotted:
        __slots__ = ()
        method = sg.compile(lambda self, x: x)

    with pytest.raises(UnsupportedError, match="a Slotted with __slots__"):
        Slotted().method(1.0)


def test_calls_from_several_threads_take_turns() -> None:
    count = sg.State(0)
    other = sg.State(0)

    @sg.compile
    def add(x: Any) -> None:
        count.assign(count + x)

    @sg.compile
    def both() -> None:
        count.assign(count + 1)
        other.assign(other + 1)

    def work() -> None:
        for _ in range(100):
            add(np.int64(1))
            both()
            count.numpy()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count.item(), other.item()) == (800, 400)
    assert len(add.programs) == len(both.programs) == 1


def test_whoever_waits_for_a_guard_waits_for_what_it_was_joined_to() -> None:
    one, two = Guard(), Guard()
    order: list[str] = []
    two.lock.acquire()

    def wait() -> None:
        with two:
            order.append("waited")

    thread = threading.Thread(target=wait)
    thread.start()  # waits for the lock of `two`, or will come when `two` has been joined
    one.lock.acquire()
    assert join([one, two]) is one  # this thread holds both, so nobody runs
    two.lock.release()
    thread.join(0.2)
    order.append("held")
    one.lock.release()
    thread.join(30)
    assert order == ["held", "waited"]
    assert two.root() is one
    assert join([two, Guard()]) is one


def _in_child(f: Any, answer: Any) -> None:
    answer.put(f(np.float64(1)).item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_goes_on_even_if_a_thread_held_a_lock() -> None:
    count = sg.State(0.0)

    @sg.compile
    def add(x: Any) -> Any:
        count.assign(count + x)
        return count * 1

    add(np.float64(1))
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with count._bound().guard, add.lock:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = context.Process(target=_in_child, args=(add, answer), daemon=True)
    child.start()
    try:
        assert answer.get(timeout=30) == 2
    finally:
        done.set()
        thread.join()
        child.join(30)
    assert count.item() == 1


# --- what was recorded, and settings


def test_the_recorded_tape() -> None:
    model, _, step = training()
    recorded = record_step(step, (X, Y), {}, ("x", "y"))
    verify(recorded.tape)
    assert [e.name for e in recorded.tape.inputs] == ["x", "y"]
    assert all(e.op is INPUT and e.value is None for e in recorded.tape.inputs)
    assert recorded.user_outputs == 1
    assert len(recorded.tape.outputs) == 1 + len(recorded.written)
    assert len(recorded.written) == 1 + 1 + 4 * 3  # key, step count; each parameter with two moments
    assert {e.role for e in recorded.tape.outputs[1:]} == {Role.UPDATE}
    assert [cell_of(e) for e in recorded.tape.outputs[1:]] == list(recorded.written)
    assert set(model.parameters().values()) < set(recorded.cells)
    assert all(e.value is None for e in recorded.tape.leaves() if e.op is CELL)


def test_a_cell_read_after_an_assignment_is_the_assigned_tensor() -> None:
    W = sg.Parameter([1.0])

    def f(x: Any) -> Any:
        W.assign(W + x)
        gradient = sg.backward(sg.sum(W * W), W)
        W.assign(W - gradient)
        return gradient

    recorded = record_step(f, (np.ones(1, np.float32),), {})
    verify(recorded.tape)
    first, last = [e for e in recorded.tape if e.op.name == "assign"]
    assert recorded.tape.outputs[1] is last
    assert last.inputs[0] is first
    assert sum(e.op is CELL for e in recorded.tape.leaves()) == 1
    assert any(first in e.inputs for e in recorded.tape if e.op.name == "multiply")
    compiled = sg.compile(f)
    eager = [f(np.ones(1, np.float32)).item() for _ in range(3)]
    W.assign(np.ones(1, np.float32))
    assert [compiled(np.ones(1, np.float32)).item() for _ in range(3)] == eager


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"memory": "much"}, "memory='much'"),
        ({"memory": 0}, "memory=0"),
        ({"threads": 0}, "threads=0"),
        ({"recheck": "sometimes"}, "recheck='sometimes'"),
        ({"shadow": 1}, "shadow=1"),
        ({"executor": "abacus"}, "executor='abacus'"),
    ],
)
def test_settings_are_checked(settings: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        sg.compile(**settings)
    with pytest.raises(ArgumentError, match="compile was given 3"):
        sg.compile(3)


def test_settings_reach_the_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def load(tape: Tape, user_outputs: int, **settings: Any) -> Any:
        seen.append(settings)
        return reference.Engine(tape, user_outputs)

    monkeypatch.setattr(cpu, "load", load)
    sg.compile(lambda x: x, memory="1.5MiB", threads=2, shadow=True)(X)
    assert seen == [{"memory": 1_572_864, "threads": 2, "shadow": True, "denormals": "keep"}]
    with pytest.raises(UnsupportedError, match="the step runs on NumPy"):
        sg.compile(lambda x: x, memory="1.5MiB", executor="numpy")(X)
    monkeypatch.delattr(cpu, "load")
    assert isinstance(_program(sg.compile(lambda x: x)), reference.Engine)
    with pytest.raises(ArgumentError, match="executor='cpu'"):
        sg.compile(lambda x: x, executor="cpu")(X)


def _program(f: Any) -> Any:
    with pytest.raises(ArgumentError, match="there is none yet"):
        f.program
    f(X)
    return f.program


def test_reprs() -> None:
    f = sg.compile(lambda x: x * 2, executor="numpy")
    assert repr(f) == "<compiled <lambda>, 0 programs>"
    f(X)
    assert repr(f) == "<compiled <lambda>, 1 program>"
    assert "multiply(x, 2)" in repr(f.program)
