"""sg.why names the place where a gradient is cut off or shrinks, the reason, and the gain of each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, GradientError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
Y = RNG.normal(size=(6, 1))


def parameters() -> tuple[Any, Any, Any]:
    W = sg.Parameter(RNG.normal(size=(4, 5)), name="W")
    b = sg.Parameter(np.zeros(5), name="b")
    V = sg.Parameter(RNG.normal(size=(5, 1)), name="V")
    return W, b, V


Built = tuple[Any, Any]
CASES: dict[str, tuple[Callable[[], Built], str, str]] = {}


def case(verdict: str, reason: str) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """A function that returns a loss and a parameter; the line to be named ends with `# here`."""

    def enter(build: Callable[[], Built]) -> Callable[[], Built]:
        CASES[build.__name__] = (build, verdict, reason)
        return build

    return enter


# --- no path


@case("none", "stop-gradient")
def detached() -> Built:
    W, b, V = parameters()
    h = sg.tanh(X @ W + b)
    h = sg.stop_gradient(h)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("none", "stop-gradient")
def detached_of_a_value_that_is_gone() -> Built:
    W, _, V = parameters()
    h = sg.stop_gradient(sg.tanh(X @ W))  # here
    return np.mean(np.square(h @ V - Y)), W


@case("none", "no-grad")
def under_no_grad() -> Built:
    W, _, V = parameters()
    z = X @ W
    with sg.no_grad():
        h = sg.tanh(z)  # here
    return np.mean(h @ V), W


@case("none", "integer")
def cast_to_integers() -> Built:
    W, _, V = parameters()
    z = X @ W
    counts = z.astype(np.int64)  # here
    return np.mean(counts.astype(np.float64) @ V), W


@case("none", "argmax")
def argmax() -> Built:
    W, _, V = parameters()
    z = X @ W
    labels = sg.argmax(z, axis=1)  # here
    return np.sum(labels * 1.0) + np.sum(V), W


@case("none", "comparison")
def comparison() -> Built:
    W, _, V = parameters()
    z = X @ W
    right = z > 0  # here
    return np.mean(right * 1.0) + np.sum(V), W


@case("none", "rounding")
def rounding() -> Built:
    W, _, V = parameters()
    z = X @ W
    steps = np.round(z)  # here
    return np.mean(steps @ V), W


@case("none", "not-used")
def not_used() -> Built:
    W, _, V = parameters()
    return np.mean(X[:, :1] @ V[:1]), W


@case("none", "not-used")
def left_the_tape() -> Built:
    W, _, V = parameters()
    h = (X @ W).numpy()
    return np.mean(h @ V), W


@case("none", "state")
def a_state() -> Built:
    mean = sg.State(np.zeros(4), name="mean")
    W, _, _ = parameters()
    return np.mean((X - mean) @ W), mean


@case("none", "integer")
def an_integer_tensor() -> Built:
    n = sg.tensor([1, 2, 3], name="n")
    x = sg.tensor([1.0, 2.0, 3.0])
    return np.sum(n * x), n


@case("none", "compiled")
def a_compiled_loss() -> Built:
    W, _, _ = parameters()
    loss = sg.compile(lambda x: np.mean(x @ W))
    return loss(X), W


# --- a gradient of zero


@case("zero", "dead-units")
def dead_relu() -> Built:
    W, b, V = parameters()
    b.assign(np.full(5, -100.0))
    z = X @ W + b
    h = sg.relu(z)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("zero", "saturated")
def saturated_to_nothing() -> Built:
    W, b, V = parameters()
    b.assign(np.full(5, 60.0))
    h = sg.tanh(X @ W + b)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("zero", "masked")
def masked_by_where() -> Built:
    W, _, V = parameters()
    h = sg.where(X[:, :1] > 100, X @ W, 0.0)  # here
    return np.mean(h @ V), W


@case("zero", "clipped")
def clipped() -> Built:
    W, _, _ = parameters()
    z = np.clip(X @ W + 50, 0, 1)  # here
    return np.mean(z), W


@case("zero", "not-the-largest")
def never_the_largest() -> Built:
    W, _, _ = parameters()
    z = np.maximum(X @ W, 1000 * np.ones((6, 5)))  # here
    return np.mean(z), W


@case("zero", "not-selected")
def not_selected() -> Built:
    W, _, _ = parameters()
    z = sg.concatenate([X @ W, X], axis=1)
    last = z[:, -1]  # here
    return np.mean(last), W


@case("zero", "multiplied-by-zero")
def weights_of_zero() -> Built:
    W, b, V = parameters()
    V.assign(np.zeros((5, 1)))
    h = sg.tanh(X @ W + b)
    p = h @ V  # here
    return np.mean(np.square(p - Y)), W


@case("zero", "multiplied-by-zero")
def factor_of_zero() -> Built:
    W, _, V = parameters()
    penalty = 0.0 * np.sum(W * W)  # here
    return np.sum(V) + penalty, W


@case("zero", "underflow")
def too_small_for_float32() -> Built:
    w = sg.tensor(np.ones(3, np.float32), name="w")
    small = w * np.full(3, 1e-30, np.float32)  # here
    return np.sum(small * np.full(3, 1e-30, np.float32)), w


@case("zero", "cancels")
def cancels() -> Built:
    W, _, V = parameters()
    return np.sum(W) - np.sum(W) + np.sum(V), W  # here


@case("zero", "at-its-minimum")
def perfect_prediction() -> Built:
    W, _, _ = parameters()
    error = X @ W - X @ W.numpy()
    return np.mean(np.square(error)), W  # here


# --- tiny, partly zero, fine


@case("tiny", "saturated")
def saturated() -> Built:
    W, b, V = parameters()
    b.assign(np.full(5, -30.0))
    z = X @ W + b
    h = sg.sigmoid(z)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("tiny", "scaled-down")
def scaled_down() -> Built:
    W, _, V = parameters()
    scaled = 1e-9 * (X @ W)  # here
    return np.mean(np.square(scaled @ V - Y)), W


@case("tiny", "shrinks-gradually")
def many_sigmoids() -> Built:
    w = sg.tensor(np.ones(3), name="w")
    h = w
    for _ in range(15):
        h = sg.sigmoid(h)
    return np.sum(h), w


@case("partly zero", "dead-units")
def two_dead_units() -> Built:
    W, b, V = parameters()
    b.assign(np.array([0.0, -100.0, 0.0, -100.0, 50.0]))
    h = sg.relu(X @ W + b)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("partly zero", "not-selected")
def rows_of_a_table() -> Built:
    table = sg.Parameter(RNG.normal(size=(10, 3)), name="table")
    rows = table[np.array([1, 4, 4])]  # here
    return np.mean(np.square(rows)), table


@case("partly zero", "multiplied-by-zero")
def inputs_that_are_zero() -> Built:
    W, b, V = parameters()
    x = X * np.array([1.0, 0.0, 1.0, 1.0])
    h = sg.tanh(x @ W + b)  # here
    return np.mean(np.square(h @ V - Y)), W


@case("fine", "nothing-wrong")
def fine() -> Built:
    W, b, V = parameters()
    h = sg.tanh(X @ W + b)
    return np.mean(np.square(h @ V - Y)), W


@case("not finite", "not-finite")
def not_finite() -> Built:
    x = sg.tensor([0.0, 1.0], name="x")
    return np.sum(np.sqrt(x)), x


@pytest.mark.parametrize("name", CASES)
def test_reason_and_place(name: str) -> None:
    build, verdict, reason = CASES[name]
    loss, parameter = build()
    answer = sg.why(loss, parameter)
    assert (answer.verdict, answer.reason) == (verdict, reason)
    lines, first = inspect.getsourcelines(build)
    here = [first + i for i, text in enumerate(lines) if "# here" in text]
    assert [answer.line] == (here or [0])
    if here:
        assert answer.file == __file__
        assert f"test_why.py:{here[0]}" in str(answer)
    assert reason in str(answer) or verdict == "fine"


@pytest.mark.parametrize(
    "name", ["dead_relu", "saturated", "fine", "two_dead_units", "many_sigmoids", "weights_of_zero"]
)
def test_gradient_and_gains(name: str) -> None:
    loss, parameter = CASES[name][0]()
    answer = sg.why(loss, parameter)
    gradient = sg.backward(loss, parameter).numpy()
    assert answer.gradient is not None
    assert np.array_equal(answer.gradient, gradient)
    assert answer.norm == pytest.approx(np.linalg.norm(gradient))
    assert answer.path[0].arrives == 1
    for step, after in zip(answer.path, answer.path[1:], strict=False):  # no value here is read twice
        assert after.arrives == pytest.approx(step.arrives * step.gain)
    assert answer.path[-1].arrives * answer.gains[-1] == pytest.approx(answer.norm)


def test_the_path_is_the_one_along_which_most_came() -> None:
    x = sg.tensor(np.ones(3), name="x")
    small = 1e-3 * sg.tanh(x)
    large = 5 * x
    answer = sg.why(np.sum(small + large), x)
    assert "tanh" not in [step.op for step in answer.path]
    assert answer.gains[-1] == pytest.approx(5)


def test_a_cut_that_can_not_be_proved_is_not_claimed() -> None:
    loss, W = CASES["detached_of_a_value_that_is_gone"][0]()
    answer = sg.why(loss, W)
    assert not answer.certain
    assert "perhaps at" in str(answer)
    z = X @ W
    h = sg.stop_gradient(z)
    assert sg.why(np.mean(h), W).certain


def test_all_places_of_a_zero_gradient_are_named() -> None:
    W, _, V = parameters()
    a = sg.relu(X @ W - 1000)
    b = np.clip(X @ W, 1e3, 1e4)
    answer = sg.why(np.sum(a @ V) + np.sum(b), W)
    assert answer.verdict == "zero"
    places = [answer.place, *answer.others]
    assert sorted(p.split(": ", 1)[1] for p in places) == ["a = sg.relu(X @ W - 1000)", "b = np.clip(X @ W, 1e3, 1e4)"]


def test_a_parameter_that_was_assigned_since() -> None:
    W, b, V = parameters()
    loss = np.mean(sg.tanh(X @ W + b) @ V)
    W.assign(W + 1)
    assert sg.why(loss, W).verdict == "fine"


def test_a_parameter_of_another_model() -> None:
    W, b, V = parameters()
    old, _, _ = parameters()
    answer = sg.why(np.mean(sg.tanh(X @ W + b) @ V), old)
    assert answer.reason == "not-used"
    assert "another parameter that is called W" in answer.explanation


def test_a_chain_of_thousands() -> None:
    x = sg.tensor(np.ones(2), name="x")
    h = x
    for _ in range(5000):
        h = h * 0.999
    answer = sg.why(np.sum(h), x)
    assert answer.verdict == "fine"
    assert len(answer.path) == 5001
    assert len(str(answer).splitlines()) < 40


# --- traces


def network(W1: Any, W2: Any, x: Any) -> Any:
    z = x @ W1
    h = sg.sigmoid(z - 40)
    y = h @ W2
    return np.sum(y)


def test_a_trace_knows_names_and_values() -> None:
    trace = sg.trace(network, RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2)), X)
    answer = sg.why(trace, "W1")
    assert (answer.verdict, answer.reason, answer.code) == ("tiny", "saturated", "h = sg.sigmoid(z - 40)")
    assert [s.text for s in answer.path][-3:] == ["h = sigmoid(...)", "z - 40", "z = x @ W1"]
    assert np.array_equal(answer.gradient, trace.gradients["W1"])  # type: ignore[arg-type]


def test_a_cut_in_a_trace() -> None:
    def fn(w: Any, v: Any) -> Any:
        steps = np.floor(w * 3)
        return np.sum(steps * v)

    answer = sg.why(sg.trace(fn, np.ones(3), np.ones(3)), "w")
    assert (answer.verdict, answer.reason, answer.code) == ("none", "rounding", "steps = np.floor(w * 3)")
    assert answer.certain


def test_a_training_step_in_a_trace() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(4, 3, key=0), sg.nn.ReLU(), sg.nn.Linear(3, 1, key=1))
    opt = sg.optim.SGD(model.parameters(), lr=0.1)
    model.parameters()["0.bias"].assign(np.full(3, -100, np.float32))

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.mse(model(x), y)
        opt.step(sg.backward(loss, model.parameters()))
        return loss

    answer = sg.why(sg.trace(step, X.astype(np.float32), Y.astype(np.float32)), "0.weight")
    assert (answer.verdict, answer.reason) == ("zero", "dead-units")
    assert answer.code == "loss = sg.losses.mse(model(x), y)"


def test_it_reads_well() -> None:
    W = sg.Parameter(np.ones((4, 2)), name="W")
    x = np.ones((3, 4))
    z = x @ W - 5
    h = sg.relu(z)
    loss = np.mean(h)
    answer = sg.why(loss, W)
    first = inspect.currentframe().f_lineno - 4  # type: ignore[union-attr]
    assert str(answer) == EXPECTED.format(first, first + 1, first + 2)


EXPECTED = """\
The gradient of W is zero: dead-units
  at test_why.py:{1}: h = sg.relu(z)
  relu(z): it passes on 0 of 6 elements; 2 of 2 units (along the last axis) pass on nothing for any
    example; the largest element of z is -1

  from the loss back   arrives   gain   zeros   line
  ──────────────────   ───────   ────   ─────   ───────────────
  loss = h.mean()            1   0.41           test_why.py:{2}
  h = relu(z)             0.41      0    100%   test_why.py:{1}
  z = ... - 5                0      0    100%   test_why.py:{0}
  x @ W                      0      0    100%   test_why.py:{0}

  instead: lower the learning rate, start biases at 0 or a little above, use sg.nn.LeakyReLU; dead
    units stay dead for good if they are dead for all data"""


def test_bad_input() -> None:
    W, _, _ = parameters()
    loss = np.mean(X @ W)
    with pytest.raises(ArgumentError, match="only a tensor knows what it was computed from"):
        sg.why(1.0, W)
    with pytest.raises(ArgumentError, match="gradients belong to tensors and parameters"):
        sg.why(loss, np.ones(3))
    with pytest.raises(ArgumentError, match=r"pass one of them: model.parameters\(\)\['0.weight'\]"):
        sg.why(loss, sg.nn.Sequential(sg.nn.Linear(2, 3)))
    with pytest.raises(ArgumentError, match="or a trace"):
        sg.why(loss, "W")
    with pytest.raises(ArgumentError, match="name one of: W1, W2, x"):
        sg.why(sg.trace(network, np.ones((4, 3)), np.ones((3, 2)), X), "W3")
    with pytest.raises(GradientError, match="not one number"):
        sg.why(X @ W, W)
