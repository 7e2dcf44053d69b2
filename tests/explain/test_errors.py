"""What `sg.trace` refuses, and says instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError

x = np.array([1.0, 2.0])


def test_a_value_that_is_not_on_the_tape() -> None:
    def net(x: Any) -> Any:
        return 3

    with pytest.raises(sg.errors.GradientError, match=r"(?s)net returned int 3.*not computed from the arguments"):
        sg.trace(net, x)


def test_an_integer_value() -> None:
    with pytest.raises(sg.errors.GradientError, match="int64 numbers change in steps"):
        sg.trace(lambda x: np.argmax(x), x)


def test_arguments_that_do_not_fit_the_function() -> None:
    with pytest.raises(sg.errors.ArgumentError, match="missing a required argument: 'b'"):
        sg.trace(lambda a, b: a, x)


def test_a_wrt_that_is_not_there() -> None:
    with pytest.raises(sg.errors.ArgumentError, match="no floating-point input or parameter") as caught:
        sg.trace(lambda W, b: (W * b).sum(), x, x, wrt="w")
    assert caught.value.instead == "name one of: W, b"


def test_a_wrt_that_the_value_does_not_depend_on() -> None:
    with pytest.raises(sg.errors.GradientError, match=r"detached by sg.stop_gradient"):
        sg.trace(lambda a, b: (a * sg.stop_gradient(b)).sum(), x, x, wrt="b")


def test_a_downstream_gradient_of_another_shape() -> None:
    with pytest.raises(sg.errors.ArgumentError, match=r"shapes \[\(3,\)\] were given for values of shapes \[\(2,\)\]"):
        sg.trace(lambda a: a * 2, x, downstream=np.ones(3))


def test_wrt_for_a_function_that_takes_gradients_itself() -> None:
    w = sg.Parameter(x)

    def step() -> Any:
        loss = (w * w).sum()
        sg.backward(loss, w)
        return loss

    with pytest.raises(sg.errors.ArgumentError, match=r"calls sg.backward itself"):
        sg.trace(step, wrt="w")
    assert list(sg.trace(step).gradients) == ["w"]


def test_nothing_to_differentiate_is_said() -> None:
    trace = sg.trace(lambda n: n * 2.0, np.array([1, 2]))
    assert not trace.gradients
    assert "nothing here has a gradient" in str(trace)
    assert "def backward" in trace.source()


def test_an_error_in_the_function_comes_through() -> None:
    with pytest.raises(sg.errors.ShapeError, match="do not broadcast"):
        sg.trace(lambda a, b: a + b, x, np.ones(3))


def test_a_call_that_makes_no_sense_is_told() -> None:
    f = lambda x: np.sum(x * x)
    with pytest.raises(ArgumentError, match="it records the call of a function"):
        sg.trace(None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="it names arguments and parameters"):
        sg.trace(f, np.ones(2), wrt=0)  # type: ignore[arg-type]
    for step in (99, "a"):
        with pytest.raises(ArgumentError, match="was to be opened"):
            sg.trace(f, np.ones(2)).show(open=step)


def test_downstream_gradients_go_by_the_keys_of_dicts() -> None:
    trace = sg.trace(
        lambda x: {"a": x * 1.0, "b": x * 10.0}, np.array([1.0]), downstream={"b": np.ones(1), "a": np.zeros(1)}
    )
    assert trace.gradients["x"].tolist() == [10.0]
