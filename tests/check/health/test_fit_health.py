"""`sg.health` in `sg.fit` and by hand: training takes the same course, and what went wrong is found."""

import math
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.health import Health
from stepgrad.check.health.pacing import LEAST, Pace
from stepgrad.errors import ArgumentError, GradientError, TrainingError
from stepgrad.train.steps import Steps

RNG = np.random.default_rng(11)
X = RNG.standard_normal((96, 5)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)


def network() -> sg.nn.Sequential:
    return sg.nn.Sequential(
        sg.nn.Linear(5, 12, key=1), sg.nn.ReLU(), sg.nn.Dropout(0.2, key=2), sg.nn.Linear(12, 3, key=3)
    )


def trained(
    watch: bool, *, compiled: bool, every: int = 5, callbacks: Any = (), **settings: Any
) -> tuple[Health, Any, dict[str, Any]]:
    model = network()
    optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
    health = sg.health(model, sg.losses.cross_entropy, optimizer, every=every)
    given = [*callbacks, health] if watch else list(callbacks)
    arguments: dict[str, Any] = {"epochs": 4, "batch_size": 20, "validation": 0.2, "progress": False, **settings}
    data = X, LABELS
    history = sg.fit(model, sg.losses.cross_entropy, optimizer, data, callbacks=given, compiled=compiled, **arguments)
    return health, history, {**model.state_dict(), **optimizer.state_dict()}


@pytest.mark.parametrize("compiled", [False, True])
def test_training_takes_the_same_course_to_the_last_bit(compiled: bool) -> None:
    health, history, weights = trained(True, compiled=compiled)
    _, without, others = trained(False, compiled=compiled)
    assert history.loss == without.loss
    assert all(np.array_equal(weights[name], others[name]) for name in others)
    run = health.run
    assert [s.step for s in run.samples] == [1, 6, 11]  # step 16 has fewer rows
    assert [s.epoch for s in run.samples] == [1, 2, 3]
    assert len(run.losses) == 16
    assert [s.loss for s in run.samples] == pytest.approx([run.losses[s.step - 1] for s in run.samples], rel=1e-4)
    assert [(e.epoch, e.step, e.validation_loss) for e in run.epochs] == [
        (i + 1, 4 * (i + 1), value) for i, value in enumerate(history.validation_loss)
    ]
    assert (run.settings.batch_size, run.settings.epochs, run.settings.rows) == (20, 4, 77)
    assert run.data is not None
    assert sum(run.data.counts) == 77
    assert run.failure is None
    assert run.initial_loss_expected == pytest.approx(math.log(3))


def test_steps_are_still_run_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slices: list[int] = []
    take = Steps.take

    def counted(self: Steps, batches: Any) -> Any:
        done = take(self, batches)
        slices.append(len(done.losses))
        return done

    monkeypatch.setattr(Steps, "take", counted)
    trained(True, compiled=True, every=10, epochs=30, batch_size=7, validation=None)
    assert sum(slices) == 30 * 14
    assert max(slices) > 5


def test_with_another_callback_it_sees_the_same() -> None:
    told: list[int] = []
    both, _, _ = trained(True, compiled=True, callbacks=[lambda step: told.append(step.step)])
    alone, _, _ = trained(True, compiled=True)
    assert told == list(range(1, 17))
    assert both.run.samples == alone.run.samples


def test_smaller_last_batches_are_passed_over() -> None:
    health, _, _ = trained(True, compiled=False, every=4, batch_size=20)  # the fourth of each epoch has 17 rows
    assert {s.batch_size for s in health.run.samples} == {20}


def test_a_second_run_begins_anew() -> None:
    model = network()
    optimizer = sg.optim.SGD(model.parameters())
    health = sg.health(model, sg.losses.cross_entropy, optimizer, every=3)
    for _ in range(2):
        sg.fit(model, sg.losses.cross_entropy, optimizer, (X, LABELS), callbacks=[health], epochs=2, progress=False)
        assert len(health.run.losses) == 6
        assert [s.step for s in health.run.samples] == [1, 4]


def test_a_health_of_another_network_is_refused() -> None:
    health = sg.health(network(), sg.losses.cross_entropy, sg.optim.SGD(network().parameters()))
    model = network()
    with pytest.raises(ArgumentError, match="a health of another model"):
        sg.fit(
            model,
            sg.losses.cross_entropy,
            sg.optim.SGD(model.parameters()),
            (X, LABELS),
            callbacks=[health],
            progress=False,
        )


# --- when it breaks


def entropy(p: Any, y: Any) -> Any:
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_the_first_cause_of_a_nan_between_two_looks(compiled: bool) -> None:
    model = sg.nn.Sequential(sg.nn.Linear(5, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 1, key=1), sg.nn.Sigmoid())
    optimizer = sg.optim.Adam(model.parameters(), lr=0.1)
    health = sg.health(model, entropy, optimizer, every=7)
    targets = (X[:, :1] > 0).astype(np.float32)
    with pytest.raises(TrainingError):
        sg.fit(
            model, entropy, optimizer, (X, targets), callbacks=[health], epochs=300, progress=False, compiled=compiled
        )
    run = health.run
    assert run.failure is not None
    assert run.failure.cause["kind"] == "log-of-zero"
    assert "np.log(" in run.failure.cause["code"]
    assert run.failure.step == len(run.losses)
    assert not math.isfinite(run.losses[-1])
    assert all(math.isfinite(loss) for loss in run.losses[:-1])
    assert 1 <= run.failure.replayed <= 8
    assert all(np.isfinite(value).all() for value in model.state_dict().values())


def test_a_nan_in_the_data_by_hand() -> None:
    model = network()
    optimizer = sg.optim.SGD(model.parameters())
    health = sg.health(model, sg.losses.cross_entropy, optimizer)
    x = X.copy()
    x[50, 3] = np.nan
    for i in range(0, 96, 12):
        health.before(x[i : i + 12], LABELS[i : i + 12])
        loss = sg.losses.cross_entropy(model(x[i : i + 12]), LABELS[i : i + 12])
        optimizer.step(sg.backward(loss, model.parameters()))
        health.after(loss)
    failure = health.run.failure
    assert failure is not None
    assert failure.step == 5
    assert failure.cause["kind"] == "non-finite-input"
    assert failure.cause["element"] == "(2, 3)"


def test_a_step_that_raises() -> None:
    class Two(sg.nn.Module):
        def __init__(self) -> None:
            self.used, self.unused = sg.nn.Linear(5, 3, key=0), sg.nn.Linear(5, 3, key=1)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    model = Two()
    optimizer = sg.optim.SGD(model.parameters())
    health = sg.health(model, sg.losses.cross_entropy, optimizer)
    with pytest.raises(GradientError):
        sg.fit(model, sg.losses.cross_entropy, optimizer, (X, LABELS), callbacks=[health], progress=False)
    run = health.run
    assert [p.status for p in run.parameters] == ["trained", "trained", "unused", "unused"]
    assert run.failure is not None
    assert run.failure.loss is None
    assert "unused.weight" in run.failure.error


# --- by hand


def test_by_hand_around_a_compiled_step() -> None:
    model = network()
    optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
    health = sg.health(model, sg.losses.cross_entropy, optimizer, every=4)

    @sg.compile
    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        optimizer.step(sg.backward(loss, model.parameters()))
        return loss

    for epoch in range(2):
        for i in range(0, 96, 16):
            health.before(X[i : i + 16], LABELS[i : i + 16])
            health.after(step(X[i : i + 16], LABELS[i : i + 16]))
        health.epoch(validation_loss=1.0 - epoch / 2, validation_accuracy=0.5)
    run = health.run
    assert [s.step for s in run.samples] == [1, 5, 9]
    assert [s.epoch for s in run.samples] == [1, 1, 2]
    assert len(run.losses) == 12
    assert [e.step for e in run.epochs] == [6, 12]
    assert run.epochs[1].loss == pytest.approx(np.mean(run.losses[6:]))
    assert run.epochs[1].validation_metrics == {"accuracy": 0.5}
    assert run.data is not None
    assert run.data.rows == 192
    assert "labels" in run.data.target_kind
    assert "are the gradients right" in str(health).lower()


def test_inside_of_a_compiled_step_it_is_refused() -> None:
    model = network()
    health = sg.health(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()))

    @sg.compile
    def step(x: Any) -> Any:
        health.before(x, LABELS[:4])
        return model(x).sum()

    with pytest.raises(ArgumentError, match="inside of a function"):
        step(X[:4])


def test_an_optimizer_of_ones_own() -> None:
    class Plain:
        def __init__(self, parameters: Any) -> None:
            self.parameters, self.calls = parameters, 0

        def step(self, gradients: Any) -> None:
            self.calls += 1
            for path, parameter in self.parameters.items():
                parameter.assign(parameter - np.float32(0.1) * gradients[path])

    model = sg.nn.Linear(5, 1, key=0)
    optimizer = Plain(model.parameters())
    health = sg.health(model, sg.losses.mse, optimizer, every=2)
    sg.fit(model, sg.losses.mse, optimizer, (X, X[:, :1]), callbacks=[health], epochs=2, progress=False)
    assert optimizer.calls == 6
    for sample in health.run.samples:
        assert sample.update_norm == pytest.approx(0.1 * sample.gradient_norm, rel=1e-3)
        assert sample.parameters[0].ratio == pytest.approx(
            0.1 * sample.parameters[0].gradient_norm / sample.parameters[0].norm, rel=1e-3
        )


def test_before_a_step_was_seen() -> None:
    model = network()
    health = sg.health(model, sg.losses.cross_entropy, sg.optim.SGD(model.parameters()))
    assert "no step was seen" in repr(health)
    with pytest.raises(TrainingError, match="no step was seen"):
        _ = health.run


# --- when to look


def looks(pace: Pace, steps: int, seconds: float) -> list[int]:
    found, step = [], 1
    while step <= steps:
        waiting = pace.wait(step)
        if waiting == 0:
            found.append(step)
            pace.looked(step, seconds, seconds)
            waiting = 1
        step += waiting
    return found


def test_looks_that_cost_nothing_are_close_at_first_and_even_later() -> None:
    found = looks(Pace(None, 10_000), 10_000, 0.0)
    assert found[:5] == [1, 2, 3, 4, 5]
    assert np.diff(found).max() == 100
    assert 100 <= len(found) <= 130


def test_looks_that_are_dear_are_few() -> None:
    found = looks(Pace(None, 10_000), 10_000, 1000.0)
    assert LEAST <= len(found) <= LEAST + 10
    assert found[-1] > 8_000
    assert looks(Pace(4), 12, 1000.0) == [1, 5, 9]
