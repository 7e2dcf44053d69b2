"""How a forward and a backward fit together: one remark for each way in which they don't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepgrad.check.backward.interface import gradients_of_integers, interface_remarks
from stepgrad.check.backward.naming import PARAMETER
from stepgrad.check.backward.subject import Remark, Subject

W = np.arange(6.0).reshape(2, 3) + 1
CALLS: list[int] = []


def remarks(
    backward: Any,
    forward: Any = None,
    expected: frozenset[str] | None = None,
    known: Any = (),
    watched: bool = False,
    before: tuple[Remark, ...] = (),
) -> list[Remark]:
    inputs = {"params['W1']": W, "params['W2']": W.copy(), "X": np.ones(3)}
    subject = Subject(
        name="backward",
        file=None,
        forward=forward or (lambda values: (np.sum(values["params['W1']"] * values["X"]), None)),
        backward=lambda values, context, downstream: backward(),
        inputs=inputs,
        functions=(),
        gradient_names={"params['W1']": "dW1"},
        expected=expected,
        remarks=before,
    )
    right = {"params['W1']": W, "params['W2']": W, "X": np.ones(3)}
    return list(interface_remarks(subject, None, right, known, watched=watched))


def test_nothing_to_remark() -> None:
    assert remarks(lambda: {"params['W1']": W, "params['W2']": W}) == []  # data needs no gradient
    assert (
        remarks(lambda: {"params['W1']": W, "params['W2']": W, "dZ1": W, "dA0": W, "cost": 1.0}, known=("Z1", "A"))
        == []
    )


def test_backward_that_returns_nothing() -> None:
    (remark,) = remarks(dict)
    assert (remark.mistake, remark.gradient) == ("gradient-missing", None)
    assert remark.text == "backward returns nothing, and no gradient of W1, W2, X"


def test_wrong_keys() -> None:
    (missing,) = remarks(lambda: {"params['W1']": W, "dV2": W})
    assert (missing.mistake, missing.gradient) == ("gradient-missing", "dW2")
    assert missing.text.endswith("dV2 belongs to no input: is it misspelt?")


def test_a_gradient_of_nothing() -> None:
    (extra,) = remarks(lambda: {"params['W1']": W, "params['W2']": W, "dQ": W})
    assert (extra.mistake, extra.gradient) == ("gradient-extra", "dQ")


def test_expected_gradients() -> None:
    found = remarks(lambda: {"params['W1']": W}, expected=frozenset(["X"]))
    assert [(r.mistake, r.gradient) for r in found] == [("gradient-missing", "dX")]


def test_dtypes() -> None:
    found = remarks(lambda: {"params['W1']": W.astype(int), "params['W2']": W.astype(np.float32)})
    assert [(r.mistake, r.gradient) for r in found] == [("wrong-dtype", "dW1"), ("low-precision", "dW2")]
    assert "int64" in found[0].text


def test_what_watching_tells_by_line() -> None:
    rng = np.random.default_rng()
    different = {"params['W1']": W.astype(int), "X": W}
    found = remarks(lambda: {**different, "params['W2']": rng.random((2, 3))}, watched=True)
    assert found == []
    assert [r.mistake for r in remarks(lambda: different, watched=True)] == ["gradient-missing"]


def test_parameters_of_which_none_has_a_gradient() -> None:
    found = remarks(lambda: {"X": W})
    assert [(r.mistake, r.gradient) for r in found] == [("gradient-missing", "dW1"), ("gradient-missing", "dW2")]


def test_none_in_place_of_a_gradient() -> None:
    (remark,) = remarks(lambda: {"params['W1']": W, "params['W2']": W, "X": None})
    assert (remark.mistake, remark.gradient) == ("gradient-missing", "dX")


@pytest.mark.parametrize(
    ("name", "belongs"),
    [("dW9", False), ("dA2", True), ("dA", True), ("dZ_1", True), ("dZ7", True), ("dW", True), ("return[2]", False)],
)
def test_gradients_in_a_loop(name: str, belongs: bool) -> None:
    found = remarks(lambda: {"params['W1']": W, "params['W2']": W, name: W}, known=("Z1", "A", "W", "W1"))
    assert [r.mistake for r in found] == ([] if belongs else ["gradient-extra"])


def test_names_of_parameters() -> None:
    names = "W b W1 b_visible W_xh Wq embed embedding beta kernel_2 biases[1]".split()
    assert all(PARAMETER.fullmatch(name) for name in names)
    assert not any(PARAMETER.fullmatch(name) for name in "X batch weight_decay w_scale y mask bold2x".split())


def test_a_forward_that_is_never_the_same() -> None:
    rng = np.random.default_rng()
    other = Remark("gradient-extra", "dQ", "")
    (remark,) = remarks(dict, forward=lambda values: (float(rng.random()), None), before=(other,))
    assert (remark.mistake, remark.gradient) == ("not-deterministic", None)


def test_a_backward_that_is_never_the_same() -> None:
    rng = np.random.default_rng()
    (remark,) = remarks(lambda: {"params['W1']": rng.random((2, 3)), "params['W2']": W})
    assert (remark.mistake, remark.gradient) == ("not-deterministic", "dW1")


def test_gradients_that_add_up() -> None:
    total = np.zeros((2, 3))

    def backward() -> dict[str, Any]:
        nonlocal total
        total = total + W
        return {"params['W1']": total, "params['W2']": W}

    (remark,) = remarks(backward)
    assert (remark.mistake, remark.gradient) == ("not-reset-between-calls", "dW1")


def test_gradients_of_integers() -> None:
    assert gradients_of_integers({"X": np.array([[1, 2]]), "y": np.array([0])}, ["dX", "dZ"]) == ["X"]
    assert gradients_of_integers({"X": np.array([1.0]), "n": 3}, ["dX", "dn"]) == []
