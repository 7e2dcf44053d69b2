"""Losses: values by definition, gradients, extremes, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, IndexingError, ShapeError, StepgradError
from stepgrad.tape.recording import recording

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((5, 3))
LABELS = np.array([0, 2, 1, 1, 0])
SOFT = RNG.dirichlet(np.ones(3), 5)
WEIGHT = np.array([0.5, 2.0, 1.5])
P, T = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
YES = RNG.uniform(size=(4, 3))


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


CASES: list[Any] = [
    pytest.param(lambda p, r: sg.losses.mse(p, T, reduction=r), P, (P - T) ** 2, id="mse"),
    pytest.param(lambda p, r: sg.losses.mae(p, T, reduction=r), P, np.abs(P - T), id="mae"),
    pytest.param(
        lambda p, r: sg.losses.huber(p, T, delta=0.7, reduction=r),
        P,
        np.where(np.abs(P - T) <= 0.7, (P - T) ** 2 / 2, 0.7 * (np.abs(P - T) - 0.35)),
        id="huber",
    ),
    pytest.param(
        lambda p, r: sg.losses.binary_cross_entropy(p, YES, reduction=r),
        P,
        -YES * np.log(1 / (1 + np.exp(-P))) - (1 - YES) * np.log(1 / (1 + np.exp(P))),
        id="binary",
    ),
    pytest.param(
        lambda z, r: sg.losses.cross_entropy(z, LABELS, reduction=r),
        Z,
        -log_softmax(Z)[np.arange(5), LABELS],
        id="integer",
    ),
    pytest.param(
        lambda z, r: sg.losses.cross_entropy(z, SOFT, reduction=r), Z, -(SOFT * log_softmax(Z)).sum(-1), id="soft"
    ),
    pytest.param(
        lambda z, r: sg.losses.cross_entropy(z, LABELS, label_smoothing=0.2, reduction=r),
        Z,
        -((0.8 * np.eye(3)[LABELS] + 0.2 / 3) * log_softmax(Z)).sum(-1),
        id="smoothed",
    ),
    pytest.param(
        lambda z, r: sg.losses.cross_entropy(z, SOFT, weight=WEIGHT, reduction=r),
        Z,
        -(SOFT * WEIGHT * log_softmax(Z)).sum(-1),
        id="soft weighted",
    ),
]


@pytest.mark.parametrize(("loss", "x", "each"), CASES)
def test_values_and_reductions(loss: Any, x: np.ndarray, each: np.ndarray) -> None:
    np.testing.assert_allclose(loss(x, "none").numpy(), each, rtol=1e-12)
    np.testing.assert_allclose(loss(x, "sum").numpy(), each.sum(), rtol=1e-12)
    np.testing.assert_allclose(loss(x, "mean").numpy(), each.mean(), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("loss", "x", "each"), CASES)
def test_gradients(loss: Any, x: np.ndarray, each: np.ndarray, reduction: str) -> None:
    downstream = np.random.default_rng(1).standard_normal(loss(x, reduction).shape)

    def total(v: Any) -> Any:
        return sg.sum(loss(v, reduction) * downstream)

    gradient, step = sg.grad(total)(x), 1e-6
    expected = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[i] = step
        expected[i] = (float(total(x + moved)) - float(total(x - moved))) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_the_weighted_mean_of_integer_labels_is_weighted() -> None:
    each = -log_softmax(Z)[np.arange(5), LABELS] * WEIGHT[LABELS]
    mean = sg.losses.cross_entropy(Z, LABELS, weight=WEIGHT)
    assert mean.item() == pytest.approx(each.sum() / WEIGHT[LABELS].sum(), rel=1e-12)


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot() -> None:
    gradient = sg.grad(lambda z: sg.losses.cross_entropy(z, LABELS))(Z)
    np.testing.assert_allclose(gradient, (np.exp(log_softmax(Z)) - np.eye(3)[LABELS]) / 5, rtol=1e-12)


def test_soft_labels_have_gradients_too() -> None:
    gradient = sg.grad(lambda t: sg.losses.cross_entropy(Z, t))(SOFT)
    np.testing.assert_allclose(gradient, -log_softmax(Z) / 5, rtol=1e-12)


def test_cross_entropy_of_integer_labels_takes_few_equations() -> None:
    z = sg.tensor(Z)
    with recording(equations=[]) as state:
        sg.backward(sg.losses.cross_entropy(z, LABELS), z)
    assert state.equations is not None
    assert [e.op.name for e in state.equations] == [
        "cross_entropy", "one_hot", "softmax", "subtract", "divide", "expand", "multiply",
    ]  # fmt: skip


def test_classes_are_on_the_last_axis_of_any_number() -> None:
    z, labels = RNG.standard_normal((2, 5, 3)), RNG.integers(0, 3, (2, 5))
    flat = sg.losses.cross_entropy(z.reshape(-1, 3), labels.ravel())
    assert sg.losses.cross_entropy(z, labels).item() == pytest.approx(flat.item(), rel=1e-12)
    assert sg.losses.cross_entropy(z[0, 0], labels[0, 0], reduction="none").shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_give_finite_losses_and_gradients(dtype: Any, size: float) -> None:
    z = sg.tensor(np.array([[size, -size, 0.0], [-size, size, -size]], dtype))
    for loss in (
        sg.losses.cross_entropy(z, np.array([0, 1])),
        sg.losses.cross_entropy(z, np.array([1, 0]), label_smoothing=0.1),
        sg.losses.cross_entropy(z, np.full((2, 3), 1 / 3, dtype)),
        sg.losses.binary_cross_entropy(z, np.array([[1, 0, 1], [0, 1, 0.5]], dtype)),
        sg.losses.huber(z, np.zeros((2, 3), dtype)),
        sg.losses.mae(z, np.zeros((2, 3), dtype)),
    ):
        assert loss.dtype == dtype
        assert np.isfinite(loss.item())
        assert np.all(np.isfinite(sg.backward(loss, z).numpy()))


def test_small_losses_keep_their_digits() -> None:
    """log(1 + exp(-20)) is 2e-9, which is lost when 20 is added and subtracted again in float32."""
    z = np.array([20.0, -20.0], np.float32)
    each = sg.losses.binary_cross_entropy(z, np.array([1, 0]), reduction="none").numpy()
    np.testing.assert_allclose(each, np.log1p(np.exp(-20.0)), rtol=1e-6)


@pytest.mark.parametrize("loss", [sg.losses.mse, sg.losses.mae, sg.losses.huber, sg.losses.binary_cross_entropy])
def test_float32_predictions_take_integers_and_lists(loss: Any) -> None:
    p = np.array([0.5, -0.5], np.float32)
    for targets in ([0, 1], np.array([0, 1]), np.array([False, True]), sg.tensor(np.array([0, 1]))):
        assert loss(p, targets).dtype == np.float32


def test_binary_weights_count_elements() -> None:
    w = np.array([[1.0, 2.0, 0.0]] * 4)
    each = sg.losses.binary_cross_entropy(P, YES, reduction="none").numpy()
    weighted = sg.losses.binary_cross_entropy(P, YES, weight=w)
    assert weighted.item() == pytest.approx((each * w).mean(), rel=1e-12)


F32 = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: sg.losses.mse(np.ones((3, 1)), np.ones(3)),
            ShapeError,
            r"mse was given predictions \(3, 1\) and targets \(3,\)\n.*broadcasting.*\n.*predictions\[\.\.\., 0\]",
        ),
        (lambda: sg.losses.mae(np.ones(3), np.ones((3, 1))), ShapeError, r"targets\[\.\.\., 0\]"),
        (lambda: sg.losses.huber(np.ones(3), np.ones(4)), ShapeError, r"\(3,\) and targets \(4,\)"),
        (lambda: sg.losses.mse(np.ones(0), np.ones(0)), ArgumentError, "there are no examples"),
        (lambda: sg.losses.mse(F32, np.zeros((2, 3))), DtypeError, r"float64 as targets.*np\.float32"),
        (lambda: sg.losses.mse(np.ones(3, int), np.ones(3)), DtypeError, "int64 as predictions"),
        (lambda: sg.losses.mse(P, T, reduction="avg"), ArgumentError, r"reduction='avg'"),
        (lambda: sg.losses.huber(P, T, delta=0), ArgumentError, "delta=0"),
        (lambda: sg.losses.binary_cross_entropy(P, T), ArgumentError, "was given the target -.*probability"),
        (lambda: sg.losses.binary_cross_entropy(P[0], [2, 0, 1]), ArgumentError, "the target 2"),
        (lambda: sg.losses.binary_cross_entropy(P, YES, weight=[1.0, 2.0]), ShapeError, r"weights of shape \(2,\)"),
        (
            lambda: sg.losses.cross_entropy(F32, np.array([0, 3])),
            IndexingError,
            r"the label 3 in row 1, for 3 classes\n.*0 to 2",
        ),
        (lambda: sg.losses.cross_entropy(F32, np.array([-1, 0], np.int8)), IndexingError, "the label -1 in row 0"),
        (
            lambda: sg.losses.cross_entropy(F32[None], np.array([[0, 7]])),
            IndexingError,
            r"the label 7 in row \(0, 1\)",
        ),
        (lambda: sg.losses.cross_entropy(F32, np.array([0.0, 1.0])), DtypeError, r"labels\.astype\(np\.int64\)"),
        (lambda: sg.losses.cross_entropy(F32, np.array([True, False])), DtypeError, r"labels\.astype\(np\.int64\)"),
        (lambda: sg.losses.cross_entropy(F32, np.eye(3, dtype=int)[:2]), ShapeError, r"labels\.astype\(np\.float32\)"),
        (lambda: sg.losses.cross_entropy(F32, np.zeros((2, 1), int)), ShapeError, r"labels\[\.\.\., 0\]"),
        (lambda: sg.losses.cross_entropy(F32, np.zeros(4, int)), ShapeError, r"pass labels of shape \(2,\)"),
        (lambda: sg.losses.cross_entropy(F32, np.zeros((2, 2), np.float32)), ShapeError, r"soft labels of shape"),
        (lambda: sg.losses.cross_entropy(F32, np.zeros((2, 3))), DtypeError, "silently be computed in float64"),
        (lambda: sg.losses.cross_entropy(F32[:0], np.zeros(0, int)), ShapeError, "there is no example"),
        (lambda: sg.losses.cross_entropy(np.float32(1), 0), ShapeError, "a single number has no classes"),
        (lambda: sg.losses.cross_entropy(F32, [0, 1], label_smoothing=2), ArgumentError, "label_smoothing=2"),
        (lambda: sg.losses.cross_entropy(F32, [0, 1], weight=[1, 2]), ShapeError, "give 3 weights"),
        (lambda: sg.losses.cross_entropy(np.zeros((2, 3), int), [0, 1]), DtypeError, "int64 as logits"),
    ],
)
def test_bad_input(call: Callable[[], Any], error: type[StepgradError], text: str) -> None:
    with pytest.raises(error, match=f"(?s){text}") as caught:
        call()
    assert caught.value.why
    assert caught.value.instead
