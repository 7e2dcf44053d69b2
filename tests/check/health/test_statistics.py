"""The numbers of a sampled step, against the same numbers computed by NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.health import Health

Array = np.ndarray[Any, np.dtype[Any]]

RNG = np.random.default_rng(7)
X = RNG.standard_normal((24, 6)).astype(np.float32)
LABELS = RNG.integers(0, 3, 24)


def network(activation: Any = None) -> sg.nn.Sequential:
    return sg.nn.Sequential(sg.nn.Linear(6, 10, key=1), activation or sg.nn.ReLU(), sg.nn.Linear(10, 3, key=2))


def looked(model: Any, loss: Any, optimizer: Any, x: Array, y: Array, **settings: Any) -> Health:
    health = sg.health(model, loss, optimizer, every=1, **settings)
    health.before(x, y)
    return health


@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_of_layers_and_parameters(compiled: bool) -> None:
    model = network()
    optimizer = sg.optim.Adam(model.parameters(), lr=0.01, eps=1e-4)
    run = looked(model, sg.losses.cross_entropy, optimizer, X, LABELS, compiled=compiled).run
    W1, b1, W2, b2 = (p.numpy().astype(np.float64) for p in model.parameters().values())
    Z1 = X @ W1 + b1
    A1 = np.maximum(Z1, 0)
    Z2 = A1 @ W2 + b2
    P = np.exp(Z2) / np.exp(Z2).sum(axis=1, keepdims=True)
    dZ2 = (P - np.eye(3)[LABELS]) / 24
    dZ1 = (dZ2 @ W2.T) * (Z1 > 0)
    first, last = run.samples[0].layers
    close = pytest.approx

    assert (first.mean, first.std) == close((Z1.mean(), Z1.std()), rel=1e-4)
    assert (first.activation_mean, first.activation_std) == close((A1.mean(), A1.std()), rel=1e-4)
    assert first.activation_rms == close(np.sqrt(np.mean(A1**2)), rel=1e-4)
    assert first.zeros == np.mean(A1 == 0)
    assert first.active == tuple((A1 > 0).sum(axis=0))
    assert first.gradient_norm == close(np.linalg.norm(dZ1), rel=1e-4)
    assert first.gradient_zeros == np.mean(dZ1 == 0)
    assert first.positions == 24
    assert last.gain == close(np.sqrt(np.mean(dZ1**2)) / np.sqrt(np.mean(dZ2**2)), rel=1e-4)
    assert first.gain is None
    assert first.saturated is None
    assert last.active == (24, 24, 24)

    weight = run.samples[0].parameters[0]
    dW1 = X.T @ dZ1
    assert weight.norm == close(np.linalg.norm(W1), rel=1e-5)
    assert weight.largest == close(np.abs(W1).max(), rel=1e-5)
    assert weight.gradient_norm == close(np.linalg.norm(dW1), rel=1e-4)
    assert weight.gradient_mean == close(dW1.mean(), rel=1e-3, abs=1e-7)
    assert weight.gradient_max == close(np.abs(dW1).max(), rel=1e-4)
    assert weight.gradient_zeros == np.mean(dW1 == 0)
    change = 0.01 * dW1 / (np.abs(dW1) + 1e-4)  # the first step of Adam
    assert weight.update_norm == close(np.linalg.norm(change), rel=1e-3)
    assert weight.ratio == close(np.linalg.norm(change) / np.linalg.norm(W1), rel=1e-3)
    assert weight.below_epsilon == close(np.mean(np.abs(dW1[dW1 != 0]) < 1e-4))

    outputs = run.samples[0].outputs
    assert outputs is not None
    assert outputs.predicted == tuple(np.bincount(Z2.argmax(axis=1), minlength=3))
    assert outputs.labels == tuple(np.bincount(LABELS, minlength=3))
    assert outputs.row_std == close(Z2.std(axis=0).mean(), rel=1e-4)
    assert run.samples[0].loss == close(-np.log(P[np.arange(24), LABELS]).mean(), rel=1e-5)


def test_looking_changes_nothing() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(6, 10), sg.nn.Dropout(0.5, key=3), sg.nn.Linear(10, 3))
    optimizer = sg.optim.Adam(model.parameters())
    before = {**model.state_dict(), **optimizer.state_dict()}
    looked(model, sg.losses.cross_entropy, optimizer, X, LABELS)
    after = {**model.state_dict(), **optimizer.state_dict()}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_noise_scale_from_the_halves_of_a_batch() -> None:
    model = sg.nn.Linear(6, 1, key=0)
    y = X[:, :1]
    run = looked(model, sg.losses.mse, sg.optim.SGD(model.parameters()), X, y).run
    parameters = model.parameters()
    halves = [sg.backward(sg.losses.mse(model(X[i : i + 12]), y[i : i + 12]), parameters) for i in (0, 12)]
    one, other = (np.concatenate([g.numpy().ravel() for g in half.values()]).astype(np.float64) for half in halves)
    whole = (one + other) / 2
    small = (one @ one + other @ other) / 2  # McCandlish et al. 2018, equations A.2 and A.3, for 24 and 12 rows
    noise = run.samples[0].noise
    assert noise is not None
    assert noise.squared_norm == pytest.approx((24 * whole @ whole - 12 * small) / 12, rel=1e-4)
    assert noise.trace == pytest.approx((small - whole @ whole) / (1 / 12 - 1 / 24), rel=1e-4)


@pytest.mark.parametrize(
    ("activation", "name", "saturates"),
    [
        (sg.nn.Tanh(), "tanh", True),
        (sg.nn.LeakyReLU(0.1), "leaky_relu", False),
        (lambda z: np.maximum(z, 0), "relu", False),
        (lambda z: 1 / (1 + np.exp(-z)), "sigmoid", True),
        (lambda z: np.where(z > 0, z, 0.2 * z), "leaky_relu", False),
        (lambda z: z * sg.sigmoid(z), "silu", False),
        (lambda z: 2 * z, None, False),
        (sg.nn.Softmax(), None, False),
    ],
)
def test_activations_are_recognised(activation: Any, name: str | None, saturates: bool) -> None:
    model = network(activation)
    run = looked(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()), X, LABELS).run
    assert run.layers[0].activation == name
    assert (run.samples[0].layers[0].saturated is not None) == saturates
    assert [layer.name for layer in run.layers] == ["0", "2"]


def test_saturated_and_dead_units_are_counted() -> None:
    model = network(sg.nn.Tanh())
    model[0].bias.assign(np.float32([20, -20, *[0] * 8]))
    run = looked(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()), X, LABELS).run
    layer = run.samples[0].layers[0]
    assert layer.saturated_units == 2
    assert layer.saturated is not None
    assert layer.saturated >= 0.2
    assert layer.active[:2] == (0, 0)
    assert layer.spread_units == 2

    model = network()
    model[0].bias.assign(np.float32([-100, *[0] * 9]))
    layer = looked(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()), X, LABELS).run.samples[0].layers[0]
    assert [unit for unit, count in enumerate(layer.active) if count == 0] == [0]


class Chain(sg.nn.Module):
    """Everything in one module, with a parameter that is not used and one that is cut off."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.W1 = sg.Parameter(rng.standard_normal((6, 5)).astype(np.float32))
        self.b1 = sg.Parameter(np.zeros(5, np.float32))
        self.W2 = sg.Parameter(rng.standard_normal((5, 3)).astype(np.float32))
        self.scale = sg.Parameter(np.ones(3, np.float32))
        self.spare = sg.Parameter(np.ones(3, np.float32))

    def forward(self, x: Any) -> Any:
        return np.tanh(x @ self.W1 + self.b1) @ self.W2 * sg.stop_gradient(self.scale)


def test_layers_of_one_module_and_parameters_that_get_no_gradient() -> None:
    model = Chain()
    optimizer = sg.optim.SGD({"W1": model.W1, "b1": model.b1})
    run = looked(model, sg.losses.cross_entropy, optimizer, X, LABELS).run
    assert [(layer.name, layer.before, layer.parameters) for layer in run.layers] == [
        ("W1", None, ("W1", "b1")),
        ("W2", "W1", ("W2",)),
        ("scale", "W2", ("scale",)),
    ]
    assert [p.status for p in run.parameters] == ["trained", "trained", "frozen", "disconnected", "unused"]
    assert "stop_gradient" in run.parameters[3].cut
    assert "np.tanh(x @ self.W1" in run.layers[0].place
    assert run.gradient_checks[0].ok


def test_a_plain_function_with_examples_in_columns() -> None:
    parameters = {
        "W1": sg.Parameter(RNG.standard_normal((5, 6)).astype(np.float32)),
        "b1": sg.Parameter(np.zeros((5, 1), np.float32)),
        "W2": sg.Parameter(RNG.standard_normal((1, 5)).astype(np.float32)),
    }

    def model(x: Any) -> Any:
        return parameters["W2"] @ np.maximum(parameters["W1"] @ x + parameters["b1"], 0)

    run = looked(model, sg.losses.mse, sg.optim.SGD(parameters), X.T, X.T[:1]).run
    assert [(layer.fan_in, layer.fan_out, layer.units) for layer in run.layers] == [(6, 5, 5), (5, 1, 1)]
    hidden = np.maximum(parameters["W1"].numpy() @ X.T, 0)
    assert run.samples[0].layers[0].active == tuple((hidden > 0).sum(axis=1))
    assert run.samples[0].batch_size == 24
    assert run.data is not None
    assert run.data.rows == 24
    assert set(run.gradient_checks[0].errors) == {"W1", "b1", "W2"}


def test_theory_agrees_with_wide_networks() -> None:
    """With many units the means over units are those of theory."""
    init = sg.nn.initialise.kaiming_normal

    def layer(a: int, b: int, key: int) -> sg.nn.Linear:
        return sg.nn.Linear(a, b, bias=False, key=key, weight_init=init)

    model = sg.nn.Sequential(layer(300, 300, 1), sg.nn.ReLU(), layer(300, 300, 2), sg.nn.Tanh(), layer(300, 300, 3))
    x = RNG.standard_normal((60, 300)).astype(np.float32)
    run = looked(model, sg.losses.mse, sg.optim.SGD(model.parameters()), x, x).run
    for known, seen in zip(run.layers, run.samples[0].layers, strict=True):
        assert known.expected is not None
        assert known.expected.output_rms == pytest.approx(np.hypot(seen.mean, seen.std), rel=0.05)
        assert known.expected.activation_rms == pytest.approx(seen.activation_rms, rel=0.05)
        if seen.gain is not None:
            assert known.expected.gain == pytest.approx(seen.gain, rel=0.1)


def test_parts_of_the_loss() -> None:
    model = network()

    def loss(outputs: Any, y: Any) -> Any:
        data = sg.losses.cross_entropy(outputs, y)
        return data + 0.1 * sg.sum(model[0].weight ** 2)

    run = looked(model, loss, sg.optim.SGD(model.parameters()), X, LABELS).run
    data, penalty = run.samples[0].loss_parts
    assert (data.penalty, penalty.penalty) == (False, True)
    assert penalty.value == pytest.approx(0.1 * np.sum(model[0].weight.numpy() ** 2), rel=1e-5)
    assert data.value + penalty.value == pytest.approx(run.samples[0].loss, rel=1e-5)


def test_clipping_is_seen() -> None:
    model = network()

    def clip(gradients: Any) -> Any:
        return sg.optim.clip_by_norm(gradients, 0.01)

    run = looked(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters(), lr=1.0), X, LABELS, prepare=clip).run
    clipping = run.samples[0].clipping
    assert clipping is not None
    assert clipping.norm == pytest.approx(run.samples[0].gradient_norm)
    assert clipping.factor * clipping.norm == pytest.approx(0.01, rel=1e-3)
    assert run.samples[0].update_norm == pytest.approx(0.01, rel=1e-3)


def test_the_best_step_along_the_update_of_a_parabola() -> None:
    """Along any line mse of a linear network is a parabola, whose vertex the search has to find."""
    model = sg.nn.Linear(6, 1, bias=False, key=0)
    W = model.weight.numpy().astype(np.float64)
    g = 2 * X.T @ (X @ W - X[:, :1]) / 24
    exact = float(np.sum(g * g) / (2 * np.mean((X @ g) ** 2)))  # the best learning rate
    run = looked(model, sg.losses.mse, sg.optim.SGD(model.parameters(), lr=exact / 5), X, X[:, :1]).run
    descent = run.descents[0]
    assert descent.best_factor == pytest.approx(5, rel=1e-3)
    assert descent.predicted == pytest.approx(-exact / 5 * np.sum(g * g), rel=1e-4)
    assert descent.actual == pytest.approx(descent.predicted * 0.9, rel=1e-3)
    assert descent.cosine == pytest.approx(1, rel=1e-5)
    assert descent.curvature == pytest.approx(2 * np.mean((X @ g) ** 2) / np.sum(g * g), rel=1e-3)
    assert looked(model, sg.losses.mse, sg.optim.SGD(model.parameters(), lr=50 * exact), X, X[:, :1]).run.descents[
        0
    ].best_factor == pytest.approx(0.02, rel=0.05)


def test_a_wrong_gradient_is_found_with_its_line() -> None:
    @sg.custom_rule
    def doubled(x: Any) -> Any:
        return x * 2

    @doubled.backward
    def _(g: Any, out: Any, x: Any) -> Any:
        return g * 3

    model = network(doubled)
    check = looked(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()), X, LABELS).run.gradient_checks[0]
    assert not check.ok
    assert check.errors["0.weight"] > 0.1
    assert check.errors["2.weight"] < 1e-6
    assert "doubled" in check.first_wrong


def batches() -> list[tuple[Array, Array]]:
    return [(X[:16], LABELS[:16]), (X[16:], LABELS[16:])] * 3


@pytest.mark.parametrize("compiled", [False, True])
def test_batches_of_two_sizes(compiled: bool) -> None:
    model = network()
    health = sg.health(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()), every=1, compiled=compiled)
    for x, y in batches():
        health.before(x, y)
    samples = health.run.samples
    assert [s.batch_size for s in samples] == [16, 8] * 3
    assert [s.layers[0].positions for s in samples] == [16, 8] * 3
    assert samples[0].layers == samples[2].layers


def test_a_value_that_is_asked_for_in_the_model() -> None:
    class Asks(sg.nn.Module):
        def __init__(self) -> None:
            self.layer = sg.nn.Linear(6, 3, key=0)

        def forward(self, x: Any) -> Any:
            outputs = self.layer(x)
            return outputs if float(sg.stop_gradient(outputs).numpy().sum()) > 1e9 else 2 * outputs

    model = Asks()
    optimizer = sg.optim.Adam(model.parameters())
    before = model.state_dict()
    run = looked(model, sg.losses.cross_entropy, optimizer, X, LABELS).run
    assert run.problem == ""
    assert run.samples[0].update_norm > 0
    assert optimizer.steps == 0
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [lambda m, o: sg.health(m, sg.losses.mse, m), lambda m, o: sg.health(m, o, o)])
def test_arguments_in_another_order(wrong: Callable[[Any, Any], Any]) -> None:
    model = network()
    with pytest.raises(sg.errors.ArgumentError, match="a network, its loss, and an optimizer"):
        wrong(model, sg.optim.SGD(model.parameters()))
