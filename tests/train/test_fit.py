"""The training loop."""

from __future__ import annotations

import functools
import io
import math
from itertools import chain
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import stepgrad as sg
from stepgrad.errors import ArgumentError, DataError, GradientError, ShapeError, TrainingError
from stepgrad.train.fit import Step
from stepgrad.train.history import History


@pytest.fixture(autouse=True, params=[False, True], ids=["in Python", "compiled"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every test is run in both ways, unless it says `compiled=False` itself."""
    monkeypatch.setattr(sg, "fit", functools.partial(sg.fit, compiled=request.param))
    return request.param


def line(n: int = 40, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    X = np.linspace(-1, 1, n, dtype=dtype).reshape(-1, 1)
    return X, 2 * X + 1


def blobs(n: int = 90, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    centres = rng.normal(0, 4, (classes, 2))
    return centres[y] + rng.normal(0, 0.2, (n, 2)), y


def linear(inputs: int = 1, outputs: int = 1, **settings: Any) -> Any:
    return sg.nn.Linear(inputs, outputs, key=0, **settings)


def run(model: Any, data: Any, loss: Any = sg.losses.mse, lr: float = 0.1, **settings: Any) -> History:
    return sg.fit(model, loss, sg.optim.SGD(model.parameters(), lr=lr), data, progress=False, **settings)


def weights(model: Any) -> dict[str, list[Any]]:
    return {path: value.tolist() for path, value in model.state_dict().items()}


# --- learning


def test_a_line_is_found() -> None:
    model = linear()
    history = run(model, line(), epochs=40, batch_size=8)
    assert model.weight.item() == pytest.approx(2, abs=1e-3)
    assert model.bias.item() == pytest.approx(1, abs=1e-3)
    assert len(history.loss) == 40
    assert history.loss[-1] < 1e-5 < history.loss[0]
    assert history.accuracy == history.validation_loss == []


def test_classes_are_told_apart() -> None:
    model = sg.nn.Sequential(linear(2, 16), sg.nn.ReLU(), linear(16, 3))
    history = run(model, blobs(), sg.losses.cross_entropy, epochs=40, validation=0.2)
    assert history.accuracy[-1] > 0.95
    assert history.validation_accuracy[-1] > 0.95
    assert len(history.validation_loss) == len(history) == 40


def test_float64_networks_stay_float64() -> None:
    model = linear(dtype=np.float64)
    run(model, line(dtype=np.float32), epochs=1)
    assert model.weight.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_become_the_dtype_of_the_network(dtype: Any) -> None:
    X, y = np.array([[0], [1], [1], [0]], dtype), np.array([[1], [3], [3], [1]])
    seen: list[Any] = []

    class Watching(sg.nn.Module):
        def __init__(self) -> None:
            self.layer = linear()

        def forward(self, x: Any) -> Any:
            seen.append(np.asarray(x).dtype)
            return self.layer(x)

    model = Watching()
    history = run(model, (X, y), epochs=300, batch_size=4)
    assert history.loss[-1] < 1e-3
    assert set(seen) == {np.dtype(np.float32)}


def test_indices_of_an_embedding_stay_integers() -> None:
    model = sg.nn.Sequential(sg.nn.Embedding(5, 3, key=0), sg.nn.Linear(3, 5, key=1))
    X = np.arange(5)
    history = run(model, (X, (X + 1) % 5), sg.losses.cross_entropy, lr=1.0, epochs=200)
    assert history.accuracy[-1] == 1


def test_every_row_is_used_once_per_epoch_and_the_last_batch_takes_the_rest() -> None:
    X = np.arange(10.0).reshape(-1, 1)
    batches: list[list[float]] = []

    def loss(outputs: Any, y: Any) -> Any:
        if len(y) == 2 and not outputs.equation.active:
            return sg.mean(outputs)  # the trial run before the first step
        batches.append(np.asarray(y)[:, 0].tolist())
        return sg.losses.mse(outputs, y)

    run(linear(), (X, X), loss, lr=1e-3, epochs=2, batch_size=4)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert sorted(first) == sorted(second) == X[:, 0].tolist()
    assert first != second


def test_the_same_seed_gives_the_same_weights() -> None:
    def result(seed: int) -> Any:
        model = linear()
        run(model, line(), epochs=2, batch_size=7, seed=seed, validation=0.25)
        return weights(model)

    assert result(1) == result(1)
    assert result(1) != result(2)


def test_dropout_drops_in_training_only() -> None:
    modes: list[bool] = []

    class Watching(sg.nn.Module):
        def __init__(self) -> None:
            self.layer = linear()

        def forward(self, x: Any) -> Any:
            modes.append(self.training)
            return self.layer(x)

    model = Watching()
    run(model, line(8), epochs=1, batch_size=8, validation=line(8))
    assert modes == [False, True, False]  # the trial run, one step, validation
    assert not model.training


def test_data_given_are_not_touched() -> None:
    X, y = line(dtype=np.float32)
    before = X.copy()
    run(linear(), (X, y.astype(np.float32)), epochs=1)
    assert X.flags.writeable
    assert (before == X).all()


def test_metrics_of_ones_own() -> None:
    history = run(linear(), line(), epochs=3, validation=line(10), metrics={"worst": lambda o, y: abs(o - y).max()})
    assert len(history.metric("worst")) == len(history.metric("validation worst")) == 3
    assert history.metric("worst")[-1] < history.metric("worst")[0]


def test_best_weights_are_those_of_the_least_validation_loss() -> None:
    model = linear()
    kept: list[Any] = []
    turn = iter([0.5, 0.1, -0.5])  # the last step goes uphill

    class Jumping:
        def step(self, grads: Any) -> None:
            rate = next(turn)
            for path, p in model.parameters().items():
                p.assign(p - rate * grads[path])
            kept.append(weights(model))

    data = line(16)
    settings = {"epochs": 3, "batch_size": 16, "validation": data, "progress": False}
    history = sg.fit(model, sg.losses.mse, Jumping(), data, compiled=None, **settings)  # recording would call next
    assert history.best_epoch == 2
    assert history.best is history.epochs[1]
    assert weights(model) == kept[1]


# --- ending early


def test_callbacks_are_told_each_step_and_can_end_the_run() -> None:
    told: list[Step] = []

    def watch(step: Step) -> bool:
        told.append(step)
        return step.step < 7

    history = run(linear(), line(20), epochs=9, batch_size=4, callbacks=[watch])
    assert [(s.step, s.epoch) for s in told] == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)]
    assert set(told[0].grads) == {"weight", "bias"}
    assert told[0].loss > told[-1].loss
    assert history.stopped
    assert not history.interrupted
    assert len(history) == 2


def test_stop_training_ends_the_run() -> None:
    def stop(step: Step) -> None:
        raise sg.StopTraining

    history = run(linear(), line(), epochs=5, batch_size=10, callbacks=[stop])
    assert history.stopped
    assert len(history) == 1


def test_ctrl_c_keeps_the_best_weights() -> None:
    model, kept = linear(), []

    def press(step: Step) -> None:
        if step.epoch == 3 and step.step == 5:
            kept.append(weights(model))
            raise KeyboardInterrupt

    after: list[Any] = []
    history = run(
        model,
        line(16),
        epochs=9,
        batch_size=8,
        callbacks=[lambda step: after.append(weights(model)), press],
    )
    assert history.interrupted
    assert len(history) == 2
    assert weights(model) == after[3]  # the end of the second epoch
    assert weights(model) != kept[0]
    assert "interrupted" in repr(history)
    assert not model.training


def test_ctrl_c_in_the_first_epoch_keeps_what_there_is() -> None:
    def press(step: Step) -> None:
        raise KeyboardInterrupt

    model = linear()
    before = weights(model)
    history = run(model, line(), callbacks=[press])
    assert history.interrupted
    assert history.best_epoch == 0
    assert weights(model) != before
    assert repr(history) == "History: no epoch was completed, interrupted"


def test_an_error_in_a_callback_is_raised_and_the_best_weights_kept() -> None:
    model, after = linear(), []

    def fail(step: Step) -> None:
        after.append(weights(model))
        if step.epoch == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(model, line(8), epochs=3, batch_size=8, callbacks=[fail])
    assert weights(model) == after[0]


def test_a_loss_that_becomes_nan_or_infinite_stops_and_is_explained() -> None:
    model = linear()
    with pytest.raises(TrainingError) as caught:
        run(model, line(), lr=1e4, epochs=50)
    assert "the loss became " in caught.value.what
    assert " in epoch " in caught.value.what
    assert " step " in caught.value.what
    assert "weights grew" in caught.value.why
    assert "divide the learning rate (now 10000) by 10" in caught.value.instead
    assert all(math.isfinite(value) for value in np.ravel(model.state_dict()["weight"]))


def test_divergence_later_gives_the_best_weights_back() -> None:
    model, after, factor = linear(), [], sg.State(np.float32(1))

    def loss(outputs: Any, y: Any) -> Any:
        return sg.losses.mse(outputs, y) * factor

    def watch(step: Step) -> None:
        after.append(weights(model))
        factor.assign(np.float32(np.nan if len(after) == 5 else 1))

    with pytest.raises(TrainingError, match="the loss became nan in epoch 3, step 2 of 2"):
        run(model, line(16), loss, epochs=9, batch_size=8, callbacks=[watch])
    assert weights(model) == after[3]
    assert not model.training


def test_divergence_in_the_first_epoch_gives_the_first_weights_back() -> None:
    model = linear()
    before = weights(model)
    with pytest.raises(TrainingError, match="in epoch 1, step 2 of 2"):
        run(model, line(), lambda o, y: sg.losses.mse(o, y) * np.float32(1e30), lr=1e30, epochs=2)
    assert weights(model) == before


# --- what is shown


def test_lines_where_there_is_no_terminal() -> None:
    model, text = linear(), io.StringIO()
    optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
    console = Console(file=text, width=100)
    sg.fit(model, sg.losses.mse, optimizer, line(), epochs=20, validation=0.2, progress=console)
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("epoch  2/20   loss ")
    assert "validation loss" in lines[-1]


def test_a_bar_in_a_terminal() -> None:
    model, text = linear(), io.StringIO()
    optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
    console = Console(file=text, force_terminal=True, width=100)
    sg.fit(model, sg.losses.mse, optimizer, line(), epochs=3, validation=0.2, progress=console)
    assert "epoch 3/3" in text.getvalue()
    assert "100%" in text.getvalue()
    assert "(validation " in text.getvalue()


def test_nothing_is_shown_when_so_asked(capsys: pytest.CaptureFixture[str]) -> None:
    run(linear(), line(), epochs=1)
    assert capsys.readouterr() == ("", "")
    model = linear()
    sg.fit(model, sg.losses.mse, sg.optim.SGD(model.parameters()), line(), epochs=1)
    assert "epoch 1/1   loss " in capsys.readouterr().err


def test_history_prints_as_a_table() -> None:
    history = run(linear(), line(), epochs=30, validation=0.2)
    lines = repr(history).splitlines()
    assert lines[0].startswith("History: 30 epochs in ")
    assert lines[0].endswith("best epoch 30")
    assert lines[1].split() == ["epoch", "loss", "validation", "loss"]
    assert [row.split()[0] for row in lines[2:]] == ["1", "2", "3", "…", "29", "30"]


# --- input that can't be used

X2, Y2 = np.ones((6, 2)), np.arange(6) % 3
BAD = np.ones((6, 2))
BAD[4, 1] = np.nan


@pytest.mark.parametrize(
    ("data", "error", "what", "instead"),
    [
        ((X2, Y2[:5]), ShapeError, "X has 6 rows and y 5", "pass X.T"),
        ((BAD, Y2), DataError, "X has nan at row 4, column 1", "np.nan_to_num"),
        ((np.where(np.isnan(BAD), np.inf, BAD), Y2), DataError, "X has inf at row 4, column 1", "remove the row"),
        ((X2, np.array([0, 1, 2, np.nan, np.nan, 0])), DataError, "y has nan at row 3, and 1 more", "remove the row"),
        ((np.ones((0, 2)), np.ones(0)), DataError, "X is empty: shape (0, 2)", "check the filter"),
        ((X2, 3.0), ShapeError, "y is a single number", "one row per example"),
        (X2, ArgumentError, "data is a ndarray of 6 parts", "(X, y)"),
        ((X2, Y2 + 1), DataError, "y has the label 3 at row 2", "count the classes from 0"),
        ((X2, Y2 - 1), DataError, "y has the label -1 at row 0", "count the classes from 0"),
        ((np.ones((6, 5)), Y2), ShapeError, "5 features", ""),
        ((np.ones((6, 5), int), Y2), ShapeError, "5 features", ""),
        ((X2 * 1e300, Y2), DataError, "X has a number at row 0 that is too large: 1e+300", "standardise X"),
    ],
)
def test_data_that_can_not_be_used(data: Any, error: type[Exception], what: str, instead: str) -> None:
    model = linear(2, 3)
    before = weights(model)
    with pytest.raises(error) as caught:
        run(model, data, sg.losses.cross_entropy)
    assert what in caught.value.what  # type: ignore[attr-defined]
    assert instead in caught.value.instead  # type: ignore[attr-defined]
    assert caught.value.why  # type: ignore[attr-defined]
    assert weights(model) == before


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"epochs": 0}, ArgumentError, "epochs=0 was asked for"),
        ({"epochs": 1.5}, ArgumentError, "epochs=1.5 was asked for"),
        ({"batch_size": True}, ArgumentError, "batch_size=True was asked for"),
        ({"validation": 1.0}, ArgumentError, "validation=1.0 was asked for"),
        ({"validation": 0.001}, ArgumentError, "leaves 0 for validation and 40 for training"),
        ({"validation": (np.ones((3, 2)), np.ones((3, 1)))}, ShapeError, "and X of validation (3, 2)"),
        ({"validation": line(3)[:1]}, ArgumentError, "validation is a tuple of 1 parts"),
        ({"validation": (np.array([[np.nan]]), np.ones((1, 1)))}, DataError, "X of validation has nan at row 0"),
    ],
)
def test_settings_that_can_not_be_used(settings: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        run(linear(), line(), **settings)
    assert text in str(caught.value)


def test_targets_that_would_be_broadcast() -> None:
    X, y = line()
    with pytest.raises(ShapeError, match=r"returns shape \(rows, 1\) and y has shape \(40,\)\n.*\n.*y.reshape"):
        run(linear(), (X, y[:, 0]))


def test_a_model_that_loses_its_rows() -> None:
    class Summing(sg.nn.Module):
        def __init__(self) -> None:
            self.layer = linear()

        def forward(self, x: Any) -> Any:
            return sg.sum(self.layer(x), axis=0)

    with pytest.raises(ShapeError, match=r"for 2 rows of X the model returned shape \(1,\)"):
        run(Summing(), line())


def test_a_loss_that_is_not_one_number() -> None:
    with pytest.raises(ShapeError, match=r"the loss returned a tensor of shape \(2, 1\)\n.*\n.*loss.mean\(\)"):
        run(linear(), line(), lambda o, y: sg.losses.mse(o, y, reduction="none"))
    with pytest.raises(ShapeError, match="the loss returned a float"):
        run(linear(), line(), lambda o, y: 1.0)


def test_a_model_without_parameters() -> None:
    with pytest.raises(ArgumentError, match="the model, a ReLU, has no parameters"):
        sg.fit(sg.nn.ReLU(), sg.losses.mse, None, line(), progress=False)


def test_a_parameter_that_is_not_used() -> None:
    class Half(sg.nn.Module):
        def __init__(self) -> None:
            self.used, self.unused = linear(), linear()

        def forward(self, x: Any) -> Any:
            return self.used(x)

    with pytest.raises(GradientError, match=r"does not depend on .*unused"):
        run(Half(), line())
