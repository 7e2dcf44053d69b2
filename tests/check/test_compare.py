"""sg.compare names the first value in which two traces part, in ulps, and the first equation that is another one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.ulps import apart
from stepgrad.errors import ArgumentError

RNG = np.random.default_rng(0)
ARRAYS = [RNG.normal(size=s) for s in [(4, 3), (4, 1), (1, 4), (1, 1), (3, 5), (1, 5)]]


def network(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = sg.relu(Z1)
    Z2 = W2 @ A1 + b2
    L = np.mean(np.square(Z2 - Y))
    return L  # noqa: RET504 - so that it has a name


def in_dtype(dtype: Any) -> list[Any]:
    return [a.astype(dtype) for a in ARRAYS]


def traced(fn: Callable[..., Any], arrays: Any = None) -> sg.Trace:
    return sg.trace(fn, *(ARRAYS if arrays is None else arrays))


# --- two runs of the same code


def test_the_same_call_twice() -> None:
    c = sg.compare(traced(network), traced(network))
    assert c
    assert (c.same, c.first, c.worst, c.change, c.differences) == (True, None, None, None, ())
    assert str(c) == (
        f"network (float64) and network (float64) are the same: identical bits in all {c.compared} values compared"
    )
    tape = traced(network).tape
    assert c.compared == len(tape) + 7  # six inputs, and the 1 that the backward pass begins with


def test_one_ulp_in_one_input() -> None:
    moved = [a.copy() for a in ARRAYS]
    moved[1][2, 0] = np.nextafter(moved[1][2, 0], 9)
    c = sg.compare(traced(network), traced(network, moved))
    assert not c
    assert c.change is None
    assert c.first is not None
    assert (c.first.name, c.first.role, c.first.element, c.first.ulps) == ("b1", "input", (2, 0), 1)
    assert (c.first.count, c.first.size) == (1, 4)
    assert (c.first.first.value, c.first.second.value) == (ARRAYS[1][2, 0], moved[1][2, 0])
    assert c.first.first.line == network.__code__.co_firstlineno + 1


def test_a_random_number_that_differs() -> None:
    noise = iter([0.0, 1e-3])

    def noisy(w: Any) -> Any:
        y = np.square(w)
        z = y + next(noise) * np.ones(3)
        return z.sum()

    w = np.array([1.0, 2.0, 3.0])
    c = sg.compare(sg.trace(noisy, w), sg.trace(noisy, w))
    assert c.change is None
    assert c.first is not None
    assert c.first.role == "input"  # the constant
    assert c.first.count == 3
    assert [d.name for d in c.differences][1:] == ["z", "loss"]


@pytest.mark.parametrize("change", ["nan", "inf", "minus zero"])
def test_numbers_that_are_special(change: str) -> None:
    x = np.array([1.0, 0.0, np.nan])
    y = x.copy()
    y[1] = {"nan": np.nan, "inf": np.inf, "minus zero": -0.0}[change]
    fn = lambda x: np.sum(np.tanh(x)[:2])
    assert sg.compare(sg.trace(fn, x), sg.trace(fn, x)).same  # NaN is NaN
    c = sg.compare(sg.trace(fn, x), sg.trace(fn, y))
    assert not c.same
    assert c.first is not None
    assert (c.first.name, c.first.element, c.first.count) == ("x", (1,), 1)
    assert c.first.ulps == (0 if change == "minus zero" else np.inf)


def test_integers() -> None:
    fn = lambda x, i: np.sum(x[i])
    x = np.arange(4.0)
    c = sg.compare(sg.trace(fn, x, np.array([0, 1])), sg.trace(fn, x, np.array([0, 3])))
    assert c.first is not None
    assert (c.first.name, c.first.ulps, c.first.dtype) == ("i", 2, "int64")


# --- two precisions


def test_float32_against_float64() -> None:
    c = sg.compare(traced(network, in_dtype(np.float64)), traced(network, in_dtype(np.float32)))
    assert c.change is None
    assert c.tolerance == 1
    assert c.first is not None
    assert c.worst is not None
    assert c.first.dtype == "float32"
    assert c.first.role == "forward"
    assert 1 < c.first.ulps <= c.worst.ulps < 1e4
    expected = traced(network, in_dtype(np.float64)).gradients["W1"]
    (dW1,) = [d for d in sg.compare(traced(network), traced(network, in_dtype(np.float32)), tolerance=0).differences
              if d.name == "dW1"]  # fmt: skip
    assert dW1.first.value == expected[dW1.element]
    assert sg.compare(traced(network), traced(network, in_dtype(np.float32)), tolerance=1e6).first is None


def test_conversions_between_precisions_do_not_count() -> None:
    scale = np.array([0.5, 0.25, 2.0])  # float64, so float32 is converted

    def fn(x: Any) -> Any:
        return np.sum(x * scale)

    x = np.array([1.0, 2.0, 4.0])
    c = sg.compare(sg.trace(fn, x), sg.trace(fn, x.astype(np.float32)))
    assert c.change is None
    assert c.first is None
    assert not c.same  # the dtypes differ
    assert "no difference above 1 ulp" in str(c)


def test_overflow_in_the_coarser_one() -> None:
    fn = lambda x: np.sum(np.exp(x))
    c = sg.compare(sg.trace(fn, np.array([1.0, 100.0])), sg.trace(fn, np.array([1.0, 100.0], np.float32)))
    assert c.first is not None
    assert (c.first.op, c.first.element, c.first.ulps) == ("exp", (1,), np.inf)
    assert "infinitely many ulps of float32" in str(c)


# --- two versions of the code


def renamed(V1: Any, c1: Any, V2: Any, c2: Any, X: Any, Y: Any) -> Any:
    hidden = sg.relu(V1 @ X + c1)
    return np.mean(np.square(V2 @ hidden + c2 - Y))


def other_activation(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = sg.tanh(Z1)  # here
    Z2 = W2 @ A1 + b2
    return np.mean(np.square(Z2 - Y))


def added(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = sg.relu(Z1)
    A1 = A1 * 0.5  # here
    Z2 = W2 @ A1 + b2
    return np.mean(np.square(Z2 - Y))


def other_axis(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = sg.relu(Z1)
    Z2 = W2 @ A1 + b2
    return np.sum(np.square(Z2 - Y)) / 6  # here


def other_operand(W1: Any, b1: Any, W2: Any, b2: Any, X: Any, Y: Any) -> Any:
    Z1 = W1 @ X + b1
    A1 = sg.relu(Z1)
    Z2 = W2 @ A1 + b2
    return np.mean(np.square(Z2 - Z2))  # here


def test_what_variables_are_called_does_not_matter() -> None:
    assert sg.compare(traced(network), traced(renamed)).same


@pytest.mark.parametrize(
    ("fn", "kind"),
    [(other_activation, "changed"), (added, "added"), (other_axis, "changed"), (other_operand, "changed")],
)
def test_the_first_equation_that_is_another_one(fn: Callable[..., Any], kind: str) -> None:
    lines, start = inspect.getsourcelines(fn)
    (marked,) = [start + i for i, text in enumerate(lines) if "# here" in text]
    c = sg.compare(traced(network), traced(fn))
    assert c.change is not None
    assert (c.change.kind, c.change.second[0].line) == (kind, marked)
    back = sg.compare(traced(fn), traced(network))
    assert back.change is not None
    assert back.change.kind == {"added": "removed"}.get(kind, kind)
    assert back.change.first[0].line == marked
    assert back.change.places == c.change.places
    assert (back.compared, len(back.differences)) == (c.compared, len(c.differences))


def test_what_comes_before_and_after_a_change_is_compared() -> None:
    c = sg.compare(traced(network), traced(added))
    assert c.first is not None
    assert (c.first.name, c.first.role) == ("W2 @ A1", "forward")
    names = [d.name for d in c.differences]
    assert "Z1" not in names
    assert "dW1" in names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x, w: np.sum(x * 2), lambda x, w: np.sum(x * 3)),
        (lambda x, w: np.sum(x * w - x), lambda x, w: np.sum(x * w - w)),
        (lambda x, w: np.sum(np.sum(x, axis=0) * w[0]), lambda x, w: np.sum(np.sum(x, axis=1) * w[0])),
    ],
)
def test_other_numbers_operands_and_settings(one: Any, other: Any) -> None:
    x, w = RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3))
    c = sg.compare(sg.trace(one, x, w), sg.trace(other, x, w))
    assert c.change is not None
    assert c.change.kind == "changed"


def test_other_shapes_are_told() -> None:
    fn = lambda x: np.sum(np.tanh(x))
    c = sg.compare(sg.trace(fn, np.ones(3)), sg.trace(fn, np.ones(4)))
    assert c.change is not None
    assert "(3,)" in c.change.first[0].text
    assert "(4,)" in c.change.second[0].text


def test_training_steps_are_compared_to_the_update() -> None:
    def step_of(lr: float) -> Any:
        model = sg.nn.Sequential(sg.nn.Linear(3, 4, key=0), sg.nn.ReLU(), sg.nn.Linear(4, 1, key=1))
        opt = sg.optim.SGD(model.parameters(), lr=lr)

        def step(x: Any, y: Any) -> Any:
            loss = sg.losses.mse(model(x), y)
            opt.step(sg.backward(loss, model.parameters()))
            return loss

        return sg.trace(step, np.ones((2, 3), np.float32), np.ones((2, 1), np.float32))

    assert sg.compare(step_of(0.1), step_of(0.1)).same
    c = sg.compare(step_of(0.1), step_of(0.2))
    assert c.change is None
    assert c.first is not None
    assert c.first.name == "lr"
    assert {d.role for d in c.differences} == {"input", "update"}


def test_long_tapes() -> None:
    def chain(x: Any, skip: int) -> Any:
        for i in range(3000):
            x = x * 1.0001 if i != skip else x + 1.0
        return np.sum(x)

    x = np.ones(2)
    assert sg.compare(sg.trace(chain, x, skip=-1), sg.trace(chain, x, skip=-1)).same
    c = sg.compare(sg.trace(chain, x, skip=-1), sg.trace(chain, x, skip=1500))
    assert c.change is not None
    assert c.change.kind == "changed"
    assert len(str(c).splitlines()) < 20


# --- ulps


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("steps", [1, 3])
def test_ulps_are_steps_between_neighbours(dtype: Any, steps: int) -> None:
    a = np.array([1.5, -0.3, 1e-3], dtype)
    b = a.copy()
    for _ in range(steps):
        b[1] = np.nextafter(b[1], dtype(9))
    found = apart(a, b)
    assert (found.count, found.element, found.ulps, found.dtype) == (1, (1,), steps, np.dtype(dtype).name)
    assert found.relative == pytest.approx(abs(float(a[1]) - float(b[1])) / 1.5)


def test_ulps_are_those_of_the_coarser_dtype() -> None:
    found = apart(np.array([1.0]), np.array([1 + 2**-23], np.float32))
    assert (found.ulps, found.dtype) == (1, "float32")
    assert apart(np.array([1e300]), np.array([np.inf], np.float32)).ulps == np.inf
    assert apart(np.array([1e300]), np.array([1.0], np.float32)).ulps == np.inf


def test_it_reads_well() -> None:
    def square(x: Any) -> Any:
        y = x * x
        return y.sum()

    def cube(x: Any) -> Any:
        y = x * x * x
        return y.sum()

    c = sg.compare(sg.trace(square, np.array([1.0, 2.0])), sg.trace(cube, np.array([1.0, 2.0])))
    assert str(c) == EXPECTED.format(*(square.__code__.co_firstlineno + i for i in (1, 2, 5, 6)))


EXPECTED = """\
square (float64) and cube (float64)
  the second has an equation that the first has not, the first of 3 changes
    second: y = x * x * x (2,)  (test_compare.py:{2}: y = x * x * x)
  they part at loss (forward, 4 of 7 values compared)
    at test_compare.py:{1}: return y.sum()
    at test_compare.py:{3}: return y.sum()
    1 of 1 element, by up to 2.25e+15 ulps of float64 (0.4444 of the largest magnitude)
    loss: 5.0 and 9.0
    before it: 3 values, identical bits
    after it: 1 more value that differs
  furthest apart: dx (backward)
    at test_compare.py:{0}: y = x * x
    at test_compare.py:{2}: y = x * x * x
    2 of 2 elements, by up to 4.5e+15 ulps of float64 (0.6667 of the largest magnitude)
    dx[1]: 4.0 and 12.0"""


def test_bad_input() -> None:
    t = traced(network)
    with pytest.raises(ArgumentError, match=r"sg.compare was given a function.*\n.*\n.*pass two traces"):
        sg.compare(t, network)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="number of ulps"):
        sg.compare(t, t, tolerance=-1)
