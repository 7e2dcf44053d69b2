"""Attributes of modules and optimizers that change after a function was compiled: never silently the old value."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad import attributes
from stepgrad.compile.compiled import Compiled
from stepgrad.errors import StaleError

X = np.ones((3, 4), np.float32)
EXECUTORS = ["cpu", "numpy"]


class Scaled(sg.nn.Module):
    """Reads an attribute, and is used without being called as well."""

    scale = 2.0

    def __init__(self) -> None:
        self.inner = sg.nn.Linear(4, 4, key=0)

    def scaled(self, x: Any) -> Any:
        return x * self.scale

    def forward(self, x: Any) -> Any:
        return self.scaled(self.inner(x))


class Bare(sg.nn.Module):
    """Nothing is set in it when it is made."""

    def forward(self, x: Any) -> Any:
        return x * 2 if self.training else x * getattr(self, "factor", 3)


def settled(function: Any, *args: Any, **settings: Any) -> Any:
    compiled = sg.compile(function, **settings)
    for _ in range(3):
        compiled(*args)
    return compiled


def records(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Counts the recordings from now on."""
    from stepgrad.compile import compiled as module

    found: list[Any] = []
    record = module.record_step
    monkeypatch.setattr(module, "record_step", lambda *args: found.append(args) or record(*args))
    return found


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("width", [4, 900])  # the one is run with the GIL held, the other without
def test_a_mode_that_is_switched_late_is_noticed(executor: str, width: int) -> None:
    model = sg.nn.Sequential(sg.nn.Linear(4, width, key=0), sg.nn.Dropout(0.5, key=1), sg.nn.Linear(width, 500, key=2))
    predict = settled(lambda x: model(x), X, executor=executor)
    model.eval()
    with pytest.raises(StaleError, match="was recorded again, and it is not what it was"):
        predict(X)
    np.testing.assert_allclose(predict(X).numpy(), model(X).numpy(), rtol=1e-4, atol=1e-5)  # recorded anew


@pytest.mark.parametrize(
    "call", [lambda f: f(X), lambda f: f(x=X), lambda f: f(sg.tensor(X)), lambda f: f.scan(X[None])]
)
def test_however_it_is_called(call: Any) -> None:
    model = Scaled()
    f = sg.compile(model.forward)
    for _ in range(3):
        call(f)
    model.scale = 5.0
    with pytest.raises(StaleError, match=r"the number 2\.0 has become 5\.0"):
        call(f)


def test_methods_and_things_that_are_never_called() -> None:
    model = Scaled()
    f = settled(lambda x: model.scaled(x), X)
    model.scale = 3.0
    with pytest.raises(StaleError):
        f(X)
    assert f(X).numpy()[0, 0] == 3
    f(X)
    del model.scale
    with pytest.raises(StaleError):
        f(X)
    assert f(X).numpy()[0, 0] == 2  # the class's


@pytest.mark.parametrize("name", ["training", "factor"])
def test_the_first_attribute_of_an_object(name: str) -> None:
    model = Bare()
    if name == "factor":
        model.eval()
    f = settled(lambda x: model(x), X)
    setattr(model, name, 0)
    with pytest.raises(StaleError):
        f(X)


def test_optimizers() -> None:
    W = sg.Parameter(np.ones(3))
    opt = sg.optim.SGD({"W": W}, lr=0.1, momentum=0.5)
    step = settled(lambda x: opt.step({"W": x}), np.ones(3))
    opt.lr = 0.5  # a state: an input of the program
    before = W.numpy()
    step(np.ones(3))
    assert np.all(W.numpy() < before - 0.4)
    opt.momentum = 0.25
    with pytest.raises(StaleError, match=r"the number 0\.5 has become 0\.25"):
        step(np.ones(3))


def test_what_is_switched_back_is_not_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sg.nn.Sequential(sg.nn.Linear(4, 4, key=0), sg.nn.Dropout(0.5, key=1))
    step, other = settled(lambda x: model(x), X), Scaled()
    found = records(monkeypatch)
    for _ in range(3):
        model.eval()
        model(X)
        model.train()
        step(X)
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(other))
    sg.nn.Linear(4, 4)  # what is made later can't have been read
    step(X)
    assert not found
    other.scale = 7.0  # whether the function reads it is found out once
    step(X)
    step(X)
    assert len(found) == 1


def test_what_the_function_itself_sets_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remembering(sg.nn.Module):
        def forward(self, x: Any) -> Any:
            self.last = x * 2
            return self.last

    model = Remembering()
    f = settled(lambda x: model(x), X)
    found = records(monkeypatch)
    f(X)
    assert not found


def test_what_keeps_changing_is_recorded_again_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = Scaled(), Scaled()
    f = settled(lambda x: model(x), X)
    found = records(monkeypatch)
    expected = f(X).numpy()
    for i in range(5):
        other.last = np.full(3, i)
        np.testing.assert_array_equal(f(X).numpy(), expected)
    assert len(found) == 5


def test_more_changes_than_are_kept() -> None:
    model, other = Scaled(), Scaled()
    f = settled(lambda x: model(x), X)
    model.scale = 3.0
    for i in range(attributes._KEPT + 10):
        other.scale = float(i)
    with pytest.raises(StaleError):
        f(X)


def test_never_means_never() -> None:
    model = Scaled()
    f = settled(lambda x: model.scaled(x), X, recheck="never")
    model.scale = 3.0
    assert f(X).numpy()[0, 0] == 2


def test_other_threads() -> None:
    """Attributes change while a program is being called: each result is that of one of the values."""
    model = Bare()
    f, found, stop = settled(lambda x: model(x), X), set(), threading.Event()

    def calling() -> None:
        while not stop.is_set():
            with contextlib.suppress(StaleError):
                found.add(float(f(X).numpy()[0, 0]))

    thread = threading.Thread(target=calling)
    thread.start()
    for i in range(200):
        model.training = i % 2 == 0
        model.factor = 3 + i % 5
    stop.set()
    thread.join()
    assert found <= {2.0, 3.0, 4.0, 5.0, 6.0, 7.0}
    model.eval()
    model.factor = 9
    with contextlib.suppress(StaleError):
        f(X)
    assert f(X).numpy()[0, 0] == 9


def test_other_arguments_while_others_record() -> None:
    """A call that does not fit does not keep the program from those that record: neither waits for the other."""
    state = sg.State(np.zeros(700, np.float32))

    @sg.compile(threads=2)
    def add(x: Any) -> Any:
        state.assign(state + np.tanh(sg.sum(x) + state))
        return state * 1

    big = np.ones((600, 700), np.float32)
    for _ in range(3):
        add(big)
    assert isinstance(add, Compiled)
    threads = [
        threading.Thread(target=lambda i=i: [add(np.ones(10 * i + j + 1, np.float32)) for j in range(4)])
        for i in range(2)
    ] + [threading.Thread(target=lambda: [add(x=np.ones((3, j + 1), np.float32)) for j in range(4)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
