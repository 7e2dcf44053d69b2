"""Training with compiled programs: it gives what training in Python gives, and gives way to that where it has to."""

from __future__ import annotations

import gc
import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import stepgrad as sg
from stepgrad.errors import ArgumentError, GradientError, IndexingError, TrainingError
from stepgrad.train import compiled as compiling
from stepgrad.train import judging
from stepgrad.train.compiled import CanNotCompile, Paced, worth_compiling
from stepgrad.train.fit import Step, accuracy
from stepgrad.train.history import History
from stepgrad.train.judging import Judged

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # a notice is a failure, unless it is expected


def rows(n: int = 90, features: int = 5, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, features)).astype(dtype)


def labels(n: int = 90, classes: int = 3, dtype: Any = np.int64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, classes, n).astype(dtype)


def network(dtype: Any = np.float32, p: float = 0.0) -> Any:
    return sg.nn.Sequential(
        sg.nn.Linear(5, 8, key=0, dtype=dtype),
        sg.nn.Tanh(),
        *([sg.nn.Dropout(p, key=1)] if p else []),
        sg.nn.Linear(8, 3, key=2, dtype=dtype),
    )


def train(model: Any, data: Any, loss: Any = sg.losses.cross_entropy, **settings: Any) -> History:
    optimizer = settings.pop("optimizer", None) or sg.optim.Adam(model.parameters(), lr=0.02)
    settings = {"progress": False, "compiled": True, "epochs": 3, "batch_size": 16} | settings
    return sg.fit(model, loss, optimizer, data, **settings)


def numbers(history: History) -> list[dict[str, float]]:
    return [epoch.numbers() for epoch in history.epochs]


def bits(model: Any) -> dict[str, bytes]:
    return {path: value.tobytes() for path, value in model.state_dict().items()}


def agree(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    """Whether two runs, as (model, history), gave the same."""
    for (path, a), b in zip(one[0].state_dict().items(), other[0].state_dict().values(), strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, tolerance, tolerance, err_msg=path)
        else:
            assert (a == b).all(), path
    for a, b in zip(numbers(one[1]), numbers(other[1]), strict=True):
        assert a == pytest.approx(b, tolerance, tolerance)
    assert one[1].best_epoch == other[1].best_epoch


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The compiled functions that were made, so that a test knows whether there were any."""
    made: list[Any] = []
    original = compiling.compile

    def compile(fn: Any, **settings: Any) -> Any:
        made.append(original(fn, **settings))
        return made[-1]

    monkeypatch.setattr(compiling, "compile", compile)
    return made


def ran(programs: list[Any]) -> int:
    """How many programs there are."""
    return sum(len(each.programs) for each in programs)


# --- the same as in Python


@pytest.mark.parametrize("batch_size", [1, 16, 30, 89, 90, 1000])
def test_batches_of_any_size(batch_size: int, programs: list[Any]) -> None:
    def result(compiled: bool) -> Any:
        model = network()
        return model, train(model, (rows(), labels()), batch_size=batch_size, compiled=compiled, validation=0.2)

    one = result(True)
    assert ran(programs) == 2 + (72 % batch_size != 0 and batch_size < 72)  # and one for validation
    agree(one, result(False))


@pytest.mark.parametrize("kind", ["float64", "dropout", "embedding", "regression", "uint8", "bool", "norm", "image"])
def test_networks_and_data_of_all_kinds(kind: str, programs: list[Any]) -> None:
    def result(compiled: bool) -> Any:
        loss: Any = sg.losses.cross_entropy
        data: Any = (rows(), labels())
        tolerance = 1e-4
        if kind == "float64":
            model, tolerance = network(np.float64), 1e-10
        elif kind == "dropout":
            model = network(p=0.5)
        elif kind == "embedding":
            model = sg.nn.Sequential(sg.nn.Embedding(7, 4, key=0), sg.nn.Flatten(), sg.nn.Linear(8, 3, key=1))
            data = (np.random.default_rng(2).integers(0, 7, (90, 2)), labels())
        elif kind == "regression":
            model, loss, data = network(), sg.losses.mse, (rows(dtype=np.float64), rows(features=3))
        elif kind == "uint8":
            model, data = network(), (np.abs(rows() * 9).astype(np.uint8), labels(dtype=np.uint8))
        elif kind == "bool":
            model, data = network(), (rows() > 0, labels(classes=2).astype(bool))
        elif kind == "norm":
            model = sg.nn.Sequential(sg.nn.Linear(5, 6, key=0), sg.nn.LayerNorm(6), sg.nn.Linear(6, 3, key=1))
        else:
            model = sg.nn.Sequential(sg.nn.Flatten(), sg.nn.Linear(20, 3, key=1))
            data = (rows(features=20).reshape(90, 4, 5), labels())
        return model, train(model, data, loss, compiled=compiled, validation=0.3), tolerance

    one, other = result(True), result(False)
    assert ran(programs) == 3
    agree(one, other, one[2])


def test_metrics_are_judged_by_the_outputs_during_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "BATCH", 20)  # several parts, and a rest, for validation too

    def result(compiled: bool) -> Any:
        model = network()
        worst = {"worst": lambda o, y: float(np.abs(o).max()), "rows": lambda o, y: len(o) + len(y), "right": accuracy}
        return model, train(model, (rows(), labels()), validation=0.5, metrics=worst, compiled=compiled)

    agree(result(True), result(False))


def test_an_optimizer_of_ones_own_with_its_state_in_cells(programs: list[Any]) -> None:
    def result(compiled: bool) -> Any:
        model = network()
        rate = sg.State(np.float32(0.5))

        class Slowing:
            def step(self, grads: Any) -> None:
                for path, p in model.parameters().items():
                    p.assign(p - rate * grads[path])
                rate.assign(rate * np.float32(0.9))

        return model, train(model, (rows(), labels()), optimizer=Slowing(), compiled=compiled)

    agree(result(True), result(False))
    assert ran(programs) == 2


def test_the_bits_do_not_depend_on_how_long_slices_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def result() -> Any:
        model = network(p=0.3)
        history = train(model, (rows(400), labels(400)), batch_size=7)
        return bits(model), numbers(history)

    first = result()
    assert result() == first
    monkeypatch.setattr(compiling, "SLICE", 0.0)
    assert result() == first
    monkeypatch.setattr(compiling, "SLICE", 1e6)
    assert result() == first


def test_callbacks_are_told_the_same(programs: list[Any]) -> None:
    def result(compiled: bool) -> list[Step]:
        told: list[Step] = []

        def watch(step: Step) -> bool:
            told.append(step)
            return step.step < 8

        model = network()
        history = train(model, (rows(), labels()), callbacks=[watch], compiled=compiled)
        assert history.stopped
        assert history.accuracy
        return told

    one, other = result(True), result(False)
    assert [(s.step, s.epoch) for s in one] == [(s.step, s.epoch) for s in other]
    for a, b in zip(one, other, strict=True):
        assert a.loss == pytest.approx(b.loss, 1e-5)
        assert list(a.grads) == list(b.grads)
        for path in a.grads:
            np.testing.assert_allclose(a.grads[path].numpy(), b.grads[path].numpy(), 1e-4, 1e-6)
    assert ran(programs) == 2


def test_a_callback_that_sets_the_learning_rate(programs: list[Any]) -> None:
    def result(compiled: bool) -> Any:
        model = network()
        optimizer = sg.optim.Adam(model.parameters(), lr=0.1)

        def slow_down(step: Step) -> None:
            optimizer.lr = 0.1 / step.step

        return model, train(model, (rows(), labels()), optimizer=optimizer, callbacks=[slow_down], compiled=compiled)

    agree(result(True), result(False))


# --- where steps run in Python


def test_a_model_that_branches_on_values_is_trained_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    class Branching(sg.nn.Module):
        def __init__(self) -> None:
            self.inner = network()

        def forward(self, x: Any) -> Any:
            outputs = self.inner(x)
            if outputs.max() > 1e9:
                return outputs * 0
            return outputs

    def result(**settings: Any) -> Any:
        model = Branching()
        return model, train(model, (rows(), labels()), validation=0.2, **settings)

    with pytest.warns(RuntimeWarning, match="training steps run in Python") as caught:
        one = result()
    agree(one, result(compiled=False), 0)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "\n" not in text
    assert "test_fit_compiled.py" in text
    assert "if outputs.max() > 1e9:" in text
    assert caught[0].filename == __file__
    shown = io.StringIO()
    result(progress=Console(file=shown, width=100))
    assert shown.getvalue().count("training steps run in Python") == 1
    assert shown.getvalue().splitlines()[0].startswith("training steps run in Python")


@pytest.mark.parametrize("callbacks", [(), (lambda step: None,)], ids=["alone", "with callbacks"])
def test_a_loss_that_counts_in_python_is_noticed(callbacks: Any) -> None:
    count = itertools.count(1)

    def loss(outputs: Any, y: Any) -> Any:
        return sg.losses.cross_entropy(outputs, y) * (1 / next(count))

    with pytest.warns(RuntimeWarning, match="recorded again, and it is not what it was") as caught:
        history = train(network(), (rows(), labels()), loss, callbacks=callbacks)
    assert len(history) == 3
    assert "cross_entropy(outputs, y) * (1 / next(count))" in str(caught[0].message)


def test_a_callback_that_changes_an_attribute_of_the_model() -> None:
    def result(compiled: bool) -> Any:
        model = network(p=0.5)

        def drop_less(step: Step) -> None:
            if step.step == 2:
                model[2].p = 0.25

        return model, train(model, (rows(), labels()), callbacks=[drop_less], compiled=compiled, epochs=2)

    with pytest.warns(RuntimeWarning, match="training steps run in Python"):
        one = result(True)
    agree(one, result(False))


def test_a_callback_that_changes_what_the_loss_reads_is_noticed_with_the_next_epoch() -> None:
    factor = [1.0]

    def halve(step: Step) -> None:
        if step.step == 6:  # the last of the epoch
            factor[0] = 0.5

    def result(compiled: bool) -> Any:
        factor[0] = 1.0
        model = network()
        loss = lambda o, y: sg.losses.cross_entropy(o, y) * factor[0]
        return model, train(model, (rows(), labels()), loss, callbacks=[halve], compiled=compiled)

    with pytest.warns(RuntimeWarning, match="number 1.0 has become 0.5"):
        one = result(True)
    agree(one, result(False))


def test_a_mistake_is_told_as_such_and_not_as_a_reason_to_run_in_python() -> None:
    class Half(sg.nn.Module):
        def __init__(self) -> None:
            self.used, self.unused = network(), network()

        def forward(self, x: Any) -> Any:
            return self.used(x)

    with pytest.raises(GradientError, match=r"does not depend on .*unused"):
        train(Half(), (rows(), labels()))


def test_an_index_out_of_range_is_an_error_in_both_ways() -> None:
    X = np.zeros((40, 1), np.int64)
    X[33] = 9
    for compiled in (True, False):
        model = sg.nn.Sequential(sg.nn.Embedding(7, 4, key=0), sg.nn.Flatten(), sg.nn.Linear(4, 3, key=1))
        with pytest.raises(IndexingError):
            train(model, (X, labels(40)), compiled=compiled)


# --- by default


def test_what_pays_is_compiled(programs: list[Any]) -> None:
    data = rows(40), labels(40)
    train(network(), data, compiled=None, epochs=100)  # 200 steps, and 100 with the rest
    assert not ran(programs)
    train(network(), data, compiled=None, epochs=600)  # 1,200 steps and 600
    assert ran(programs) == 1
    assert not worth_compiling(size=17_000, rows=32, steps=300)
    assert worth_compiling(size=17_000, rows=32, steps=1_500)
    assert worth_compiling(size=8_000_000, rows=256, steps=5)


def test_an_optimizer_of_ones_own_is_not_recorded_by_default() -> None:
    calls: list[int] = []

    class Counting:
        def step(self, grads: Any) -> None:
            calls.append(len(grads))

    train(network(), (rows(16), labels(16)), optimizer=Counting(), compiled=None, epochs=1500)
    assert len(calls) == 1500


def test_compiled_is_yes_no_or_none() -> None:
    with pytest.raises(ArgumentError, match="compiled='yes' was asked for"):
        train(network(), (rows(), labels()), compiled="yes")


# --- ending early


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loss_that_is_nan_in_the_middle_of_a_slice(compiled: bool) -> None:
    model = network()
    steps = sg.State(np.int64(0))
    kept: list[Any] = []

    def loss(outputs: Any, y: Any) -> Any:
        if model.training:
            steps.assign(steps + 1)
        return sg.losses.cross_entropy(outputs, y) * sg.where(steps == 57, np.float32(np.inf), np.float32(1))

    def keep(outputs: Any, y: Any) -> float:
        kept.append(bits(model))
        return 0.0

    optimizer = sg.optim.Adam(model.parameters(), lr=0.02)
    settings: Any = {"optimizer": optimizer, "compiled": compiled, "batch_size": 4, "metrics": {"keep": keep}}
    with pytest.raises(TrainingError, match=r"the loss became inf in epoch 3, step 11 of 23"):
        train(model, (rows(), labels()), loss, epochs=9, **settings)
    assert len(kept) == 2
    assert bits(model) == kept[1]
    assert not model.training
    # The optimizer can be used again: no NaN is left in it, and the learning rate is the user's.
    assert all(np.isfinite(value).all() for value in optimizer.state_dict().values())
    assert (optimizer.steps, optimizer.lr) == (0, 0.02)
    optimizer.lr = 0.01
    assert train(model, (rows(), labels()), optimizer=optimizer, compiled=compiled).loss[-1] < 2


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_ends_a_run_of_native_steps_at_once(tmp_path: Any) -> None:
    program = textwrap.dedent("""
        import sys, threading, time
        import numpy as np
        import stepgrad as sg

        class Watched(sg.nn.Sequential):
            "Says when the steps have begun."
            def state_dict(self):
                print("epoch", flush=True)
                return super().state_dict()

        rng = np.random.default_rng(0)
        X = rng.normal(size=(200_000, 8)).astype(np.float32)
        model = Watched(sg.nn.Linear(8, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 1, key=1))
        optimizer = sg.optim.Adam(model.parameters())
        data = X, X[:, :1] * 2
        history = sg.fit(
            model, sg.losses.mse, optimizer, data, epochs=100_000, batch_size=1, progress=False, compiled=True
        )
        print(history.interrupted, len(history), model.training, np.isfinite(model(X[:9]).numpy()).all(), flush=True)
    """)
    script = tmp_path / "long.py"
    script.write_text(program)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            assert [next(lines), next(lines)] == ["epoch\n", "epoch\n"]  # what it begins with, and the first epoch
            os.kill(process.pid, signal.SIGINT)
            told = [line for line in lines if line != "epoch\n"]
            assert process.wait(60) == 0
        finally:
            process.kill()
    interrupted, epochs, *rest = told[0].split()
    assert interrupted == "True"
    assert int(epochs) >= 1
    assert rest == ["False", "True"]


# --- memory


def test_data_are_not_copied_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data = [rows(97), labels(97)]
    for array in data:
        array.setflags(write=False)
    gone = weakref.ref(data[0])
    held: list[bool] = []
    original = judging.Judged.result

    def look(judged: Judged) -> Any:
        tensors = [each for each in gc.get_objects() if type(each) is sg.Tensor]
        held.extend(t.value is gone() for t in tensors if t.value is not None and t.shape == (97, 5))
        return original(judged)

    monkeypatch.setattr(judging.Judged, "result", look)
    train(network(), tuple(data), epochs=1)
    assert held
    assert all(held)
    del data, array
    gc.collect()
    assert gone() is None


# --- the parts


class Clock:
    """A clock, and a function that takes some seconds of it for each element."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, 2.0**-10
        monkeypatch.setattr(compiling.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(compiling, "compile", lambda fn, **settings: self)
        self.programs = (1,)

    def scan(self, array: np.ndarray) -> np.ndarray:
        self.now += self.seconds * len(array)
        return array


def slices(program: Paced, array: np.ndarray) -> Iterator[int]:
    while len(array):
        _, done = program(array)
        yield done
        array = array[done:]


def test_slices_become_as_long_as_is_polite(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    program = Paced(len)
    assert list(slices(program, np.zeros(300))) == [2, 2, 64, 76, 76, 76, 4]
    assert list(slices(program, np.zeros(200))) == [76, 76, 48]  # a slice that was cut short says little
    clock.seconds = 0.05
    assert list(slices(program, np.zeros(80))) == [76, 1, 1, 1, 1]
    clock.seconds = 1
    assert list(slices(program, np.zeros(3))) == [1, 1, 1]


def test_an_error_of_a_program_that_was_made_is_no_reason_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    program = Paced(len)
    monkeypatch.setattr(clock, "scan", lambda array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        program(np.zeros(3))
    clock.programs = ()  # type: ignore[assignment]
    with pytest.raises(CanNotCompile):
        program(np.zeros(3))


def test_metrics_over_rows_that_come_bit_by_bit() -> None:
    outputs, targets = rows(50, 4), labels(50, 4)
    metrics = {"accuracy": accuracy, "largest": lambda o, y: o.max() + y.sum()}
    judged = Judged(metrics, 60)
    for part in (slice(0, 20), slice(20, 21), slice(21, 50)):
        judged.add(outputs[part], targets[part])
    assert judged.result() == {name: float(metric(outputs, targets)) for name, metric in metrics.items()}


def test_no_notice_where_nothing_was_to_be_compiled() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(network(), (rows(), labels()), compiled=False)
        train(network(), (rows(), labels()), compiled=None)
