"""Two plain functions: what each parameter of the backward gets, and which gradient belongs to which input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.check.backward.calling import copied, subject_of
from stepgrad.check.backward.naming import forward_name
from stepgrad.check.backward.signatures import returned_names
from stepgrad.check.backward.subject import Subject
from stepgrad.errors import ArgumentError

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))


def forward(x: Any, w: Any) -> Any:
    z = x @ w
    return np.sum(z**2), z


def backward(x: Any, w: Any, z: Any) -> Any:
    dx = 2 * z @ w.T
    dw = 2 * x.T @ z
    return dx, dw


def gradients(subject: Subject) -> dict[str, Any]:
    _, context = subject.forward(subject.inputs)
    return subject.backward(subject.inputs, context, None)


def right(first: Callable[..., Any], second: Callable[..., Any], inputs: Any = None) -> bool:
    return sg.check_backward(first, second, {"x": X, "w": W} if inputs is None else inputs).ok


# --- what the backward gets


def test_inputs_by_name_and_in_order() -> None:
    assert right(forward, backward)
    assert right(forward, backward, (X, W))
    assert right(forward, backward, [X, W])


def test_values_that_forward_returns_without_a_name_go_to_the_parameters_that_are_left() -> None:
    def unnamed(x: Any, w: Any) -> Any:
        z = x @ w
        memory: dict[str, Any] = {}
        memory.setdefault("cache", z)
        return np.sum(np.exp(z)) + np.sum(z**2), np.exp(z), memory["cache"]

    def of_them(x: Any, w: Any, e: Any, z: Any) -> Any:
        dz = e + 2 * z
        return dz @ w.T, x.T @ dz

    assert right(unnamed, of_them)

    def only_one(x: Any, w: Any) -> Any:
        z = x @ w
        return np.sum(np.exp(z)), np.exp(z), z

    def by_name(x: Any, w: Any, z: Any, d: Any) -> Any:
        assert z.shape == d.shape
        return d @ w.T, x.T @ d

    assert right(only_one, by_name)


def test_one_value_of_another_name_is_what_is_missing() -> None:
    def renamed(x: Any, w: Any, scores: Any) -> Any:
        return backward(x, w, scores)

    assert right(forward, renamed)


def test_caches_and_their_entries() -> None:
    def kept(params: Any, x: Any) -> Any:
        h = np.tanh(x @ params["W1"])
        return np.sum(h @ params["W2"]), {"h": h}

    def entry(parameters: Any, x: Any, h: Any) -> Any:
        dh = np.ones((len(x), parameters["W2"].shape[1])) @ parameters["W2"].T
        return {"W1": x.T @ (dh * (1 - h**2)), "W2": h.sum(axis=0)[:, None] + 0 * parameters["W2"]}

    def cached(x: Any, W2: Any, cache: Any) -> Any:
        h = cache["h"]
        dh = np.ones((len(x), W2.shape[1])) @ W2.T
        dW1 = x.T @ (dh * (1 - h**2))
        dW2 = h.sum(axis=0)[:, None] + 0 * W2
        return dW1, dW2

    inputs = {"params": {"W1": RNG.normal(size=(3, 5)), "W2": RNG.normal(size=(5, 2))}, "x": X}
    assert right(kept, entry, inputs)
    assert right(kept, cached, inputs)


def test_outputs_and_defaults() -> None:
    def tanh(x: Any) -> Any:
        return np.tanh(x)

    def its_backward(dout: Any, out: Any, p: float = 0.5, lr: float = 2.0) -> Any:
        return dout * (1 - out**2) * p * lr  # defaults are no output and no rate

    assert right(tanh, its_backward, X)
    assert right(np.tanh, its_backward, [X])  # it has no signature, or one of (*args)


def test_what_only_the_backward_takes() -> None:
    seen = []

    def with_rate(x: Any, w: Any, z: Any, penalty: Any) -> Any:
        seen.append(penalty)
        return backward(x, w, z)

    assert right(forward, with_rate, {"x": X, "w": W, "penalty": 3})
    assert set(seen) == {3}


def test_a_parameter_that_nothing_is_known_of() -> None:
    def asks(x: Any, w: Any, z: Any, q: Any) -> Any:
        return backward(x, w, z)

    with pytest.raises(ArgumentError, match="asks needs q, and there is no value of that name"):
        right(forward, asks)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": X, "v": W}, "inputs has 'v', and forward has the parameters x, w"),
        ({"x": X}, "forward needs w"),
        ([X, W, W], "forward was given 3 inputs"),
        ({"x": "a", "w": "b"}, "the inputs hold no floating-point array: x is str"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        subject_of(forward, backward, inputs)


def test_functions_that_are_none() -> None:
    with pytest.raises(ArgumentError, match="was given 3 as backward"):
        subject_of(forward, 3, {})  # type: ignore[arg-type]


def test_a_forward_that_returns_nothing() -> None:
    def nowhere(x: Any) -> None:
        x + 1

    subject = subject_of(nowhere, backward, [X])
    with pytest.raises(ArgumentError, match="nowhere returned nothing"):
        subject.forward({"x": X})


# --- what it returns


def test_gradients_by_name() -> None:
    def other_order(x: Any, w: Any, z: Any) -> Any:
        dx, dw = backward(x, w, z)
        return dw, dx

    subject = subject_of(forward, other_order, {"x": X, "w": W})
    assert gradients(subject)["w"].shape == W.shape
    assert subject.gradient_names == {"x": "dx", "w": "dw"}


def test_gradients_without_names_are_those_of_the_inputs_in_order() -> None:
    def swapped(x: Any, w: Any, z: Any) -> Any:
        return 2 * x.T @ z, 2 * z @ w.T

    assert not right(forward, swapped)

    def only_w(x: Any, w: Any, z: Any) -> Any:
        return 2 * x.T @ z

    subject = subject_of(forward, only_w, {"x": X, "w": W})
    assert list(gradients(subject)) == ["w"]  # by its shape
    assert right(forward, only_w)


def test_a_gradient_of_a_wrong_shape_is_rather_that_of_a_parameter() -> None:
    def wrong(x: Any, w: Any, z: Any) -> Any:
        return 2 * (x.T @ z).T

    assert list(gradients(subject_of(forward, wrong, {"x": X, "w": W}))) == ["w"]


def test_keys_that_are_the_names_of_inputs() -> None:
    def keyed(x: Any, w: Any, z: Any) -> Any:
        dx, dw = backward(x, w, z)
        return {"w": dw, "x": dx}

    assert right(forward, keyed)


@pytest.mark.parametrize("result", ["(dx, None)", "{'dx': dx, 'dw': None}"])
def test_none_is_a_gradient_that_is_missing(result: str) -> None:
    space: dict[str, Any] = {"both": backward}
    exec(f"def nothing(x, w, z):\n    dx, dw = both(x, w, z)\n    return {result}", space)
    report = sg.check_backward(forward, space["nothing"], {"x": X, "w": W})
    assert "gradient-missing" in [f.mistake for f in report.findings]


def test_one_value_too_many() -> None:
    def more(x: Any, w: Any, z: Any) -> Any:
        dx, dw = backward(x, w, z)
        return dx, dw, dw

    report = sg.check_backward(forward, more, {"x": X, "w": W})
    assert [f.mistake for f in report.findings] == ["gradient-extra"]
    assert "dw at position 2" in str(report)

    def unnamed(x: Any, w: Any, z: Any) -> Any:
        return 2 * z @ w.T, 2 * x.T @ z, 2 * x.T @ z

    report = sg.check_backward(forward, unnamed, {"x": X, "w": W})
    assert [f.mistake for f in report.findings] == ["gradient-extra"]
    assert "a value at position 2" in str(report)


def test_returned_names() -> None:
    assert returned_names(forward) == [None, "z"]
    assert returned_names(backward) == ["dx", "dw"]


def test_forward_names() -> None:
    first = {
        "dW2": "W2", "grad_x": "x", "b1_grad": "b1", "self.dW": "W", "grads['dW1']": "W1", "nabla_w": "w",
        "dj_dw": "w", "dL_dW": "W", "delta_W2": "W2", "gb1": "b1", "grads['x']": "x", "dWs.append": "Ws",
        "nabla_w[-1]": "w[-1]", "gamma": "gamma", "W1": "W1",
    }  # fmt: skip
    assert {name: forward_name(name)[0] for name in first} == first


# --- inputs that are changed first


def test_integers_that_have_a_gradient() -> None:
    whole = {"x": np.arange(6).reshape(2, 3), "w": np.arange(6).reshape(3, 2) - 2}
    assert list(subject_of(forward, backward, whole).inputs) == ["x", "w"]
    assert list(subject_of(forward, backward, {**whole, "w": W}).inputs) == ["x", "w"]
    assert right(forward, backward, whole)


def test_labels_stay_integers() -> None:
    def loss(w: Any, x: Any, y: Any) -> Any:
        e = np.exp(x @ w)
        probabilities = e / e.sum(axis=1, keepdims=True)
        return -np.log(probabilities[np.arange(len(y)), y]).mean(), probabilities

    def of_loss(x: Any, y: Any, probabilities: Any) -> Any:
        dy = probabilities.copy()
        dy[np.arange(len(y)), y] -= 1
        return x.T @ dy / len(y)

    inputs = {"w": W, "x": X, "y": np.array([0, 1, 1, 0])}
    assert list(subject_of(loss, of_loss, inputs).inputs) == ["w", "x"]
    assert right(loss, of_loss, inputs)
    whole = {"w": np.eye(3, 2, dtype=int), "x": np.arange(12).reshape(4, 3), "y": inputs["y"]}
    assert list(subject_of(loss, of_loss, whole).inputs) == ["w", "x"]


def test_large_inputs_are_cut_down_where_both_run_with_that() -> None:
    inputs = {"x": np.ones((600, 80)), "w": np.ones((80, 2))}
    subject = subject_of(forward, backward, inputs)
    assert {n: v.shape for n, v in subject.inputs.items()} == {"x": (7, 11), "w": (11, 2)}
    assert subject.notes == ("large inputs were cut down: 7 of 600, 11 of 80 along an axis",)

    def fixed(x: Any, w: Any, z: Any) -> Any:
        return backward(x.reshape(600, 80), w, z)

    subject = subject_of(forward, fixed, inputs)
    assert subject.inputs["x"].shape == (600, 80)
    assert subject.notes == ()


# --- random numbers and copies


GENERATOR = np.random.default_rng(5)


@pytest.mark.parametrize("draw", ["np.random.rand(*x.shape)", "generator.random(x.shape)"])
def test_a_mask_drawn_again_in_the_backward_is_another(draw: str) -> None:
    space: dict[str, Any] = {"np": np, "generator": GENERATOR}
    exec(
        f"def dropped(x):\n    mask = {draw} < 0.5\n    return np.sum(x * mask), mask\n"
        f"def again(x):\n    mask = {draw} < 0.5\n    return mask * 1.0\n"
        "def kept(x, mask):\n    return mask * 1.0",
        space,
    )
    before = GENERATOR.bit_generator.state, np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    subject = subject_of(space["dropped"], space["again"], X)
    _, context = subject.forward(subject.inputs)
    _, same = subject.forward(subject.inputs)
    assert np.array_equal(context.returned[1], same.returned[1])
    assert not np.array_equal(subject.backward(subject.inputs, context, None)["x"], context.returned[1])
    assert right(space["dropped"], space["kept"], X)
    assert before == (GENERATOR.bit_generator.state, np.random.get_state()[1].tolist())  # type: ignore[index, union-attr]


def test_copies_keep_what_is_the_same_object() -> None:
    array = np.ones(2)
    value = {"a": array, "b": [array, (array, "text")]}
    made = copied(value)
    assert made["a"] is made["b"][0] is made["b"][1][0]
    assert made["a"] is not array
