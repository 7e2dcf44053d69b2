"""Optimizers: their update equations, states, errors, and what is on the tape."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError, ShapeError, StepgradError
from stepgrad.optim import slabs
from stepgrad.tape.equation import Role
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify

SHAPES = {"W": (3, 4), "b": (4,), "scale": ()}

OPTIMIZERS: list[Any] = [
    pytest.param(kind, settings, id=f"{kind.__name__} {settings}")
    for kind, several in {
        sg.optim.SGD: [
            {},
            {"weight_decay": 0.1},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.3},
            {"momentum": 0.9, "nesterov": True},
        ],
        sg.optim.Adam: [{}, {"amsgrad": True, "weight_decay": 0.1}],
        sg.optim.AdamW: [{}, {"amsgrad": True, "weight_decay": 0.0}],
        sg.optim.RMSprop: [{}, {"centered": True, "momentum": 0.9, "weight_decay": 0.1}],
        sg.optim.Adagrad: [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}],
    }.items()
    for settings in several
]


def parameters(dtype: Any = np.float32, seed: int = 0) -> dict[str, sg.Parameter]:
    rng = np.random.default_rng(seed)
    return {name: sg.Parameter(rng.standard_normal(shape).astype(dtype)) for name, shape in SHAPES.items()}


def gradients(steps: int, dtype: Any = np.float32) -> list[dict[str, sg.Tensor]]:
    rng = np.random.default_rng(1)
    return [{n: sg.tensor(rng.standard_normal(s).astype(dtype)) for n, s in SHAPES.items()} for _ in range(steps)]


def values(cells: Any) -> list[np.ndarray]:
    return [cell.numpy() for cell in cells.values()]


# --- one definition of each update, several ways to run it


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_steps_on_a_tape_and_on_arrays_agree(kind: Any, settings: Any) -> None:
    one, two = parameters(np.float64), parameters(np.float64)
    eager, recorded = kind(one, lr=0.1, **settings), kind(two, lr=0.1, **settings)
    for i, g in enumerate(gradients(4, np.float64)):
        eager.lr = recorded.lr = 0.1 / (i + 1)
        eager.step(g)
        with recording(equations=[]) as state:
            recorded.step(g)
        assert state.equations is not None
        assert {e.role for e in state.equations} == {Role.UPDATE}
    for a, b in zip(values(one) + values(eager.states()), values(two) + values(recorded.states()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_updates_on_a_tape_keep_float32(kind: Any, settings: Any) -> None:
    one, two = parameters(), parameters()
    eager, recorded = kind(one, **settings), kind(two, **settings)
    for g in gradients(3):
        eager.step(g)
        with recording(equations=[]):
            recorded.step(g)
    for a, b in zip(values(one), values(two), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_whole_training_step_makes_a_well_formed_tape() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(3, 2, key=0), sg.nn.Tanh(), sg.nn.Linear(2, 2, key=1))
    opt = sg.optim.Adam(model.parameters())
    with recording(equations=[]) as state:
        loss = sg.losses.cross_entropy(model(np.ones((4, 3), np.float32)), [0, 1, 1, 0])
        opt.step(sg.backward(loss, model.parameters()))
    assert state.equations is not None
    assigned = [e for e in state.equations if e.op.name == "assign"]
    assert len(assigned) == 1 + 4 * 3  # the step count; each parameter and its two moments
    verify(Tape(state.equations, (), assigned))


@pytest.mark.parametrize("laid", [slabs._MOST_LAID, 3])
@pytest.mark.parametrize("piece", [slabs._PIECE, 5])
def test_how_parameters_are_laid_together_changes_nothing(laid: int, piece: int, monkeypatch: Any) -> None:
    expected, found = parameters(), parameters()
    plain, cut = sg.optim.Adam(expected), sg.optim.Adam(found)
    steps = gradients(3)
    for g in steps:
        plain.step(g)
    monkeypatch.setattr(slabs, "_MOST_LAID", laid)
    monkeypatch.setattr(slabs, "_PIECE", piece)
    for g in steps:
        cut.step(g)
    for a, b in zip(values(expected) + values(plain.states()), values(found) + values(cut.states()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_dtypes_keep_theirs() -> None:
    one, two = sg.Parameter(np.ones(3, np.float32)), sg.Parameter(np.ones(3))
    opt = sg.optim.Adam([one, two])
    opt.step([np.ones(3, np.float32), np.ones(3)])
    assert (one.dtype, two.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-6)


def test_an_assignment_between_steps_is_seen() -> None:
    cells = parameters()
    opt = sg.optim.SGD(cells, lr=1.0)
    zero = {n: np.zeros(s, np.float32) for n, s in SHAPES.items()}
    opt.step(zero)
    cells["b"].assign(np.arange(4, dtype=np.float32))
    opt.step(zero)
    np.testing.assert_array_equal(cells["b"].numpy(), [0, 1, 2, 3])


def test_values_read_before_a_step_stay_as_they_were() -> None:
    cells = parameters()
    opt = sg.optim.Adam(cells, lr=0.1)
    for g in gradients(2):
        held = values(cells) + values(opt.states())
        before = [v.copy() for v in held]
        opt.step(g)
        for a, b in zip(held, before, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="read-only"):
        cells["W"].numpy()[0] = 1


def test_a_backward_pass_after_the_step_is_still_of_the_values_before() -> None:
    W = sg.Parameter([2.0], name="W")
    opt = sg.optim.SGD({"W": W}, lr=1.0)
    loss = sg.sum(W * W * W)
    first = sg.backward(loss, {"W": W})
    opt.step(first)
    assert sg.backward(loss, {"W": W})["W"].tolist() == first["W"].tolist() == [12.0]


def test_nan_gradients_are_let_through() -> None:
    W = sg.Parameter([1.0, 1.0])
    sg.optim.SGD([W], lr=0.5).step([np.array([np.nan, 1.0], np.float32)])
    assert np.isnan(W.numpy()[0])
    assert W.numpy()[1] == 0.5


# --- structures of parameters


def test_gradients_have_the_structure_of_the_parameters() -> None:
    a, b, c = sg.Parameter([1.0]), sg.Parameter([2.0]), sg.Parameter([3.0])
    nested = {"x": [a, b], "y": {"W": c}}
    opt = sg.optim.SGD(nested, lr=1.0)
    opt.step(sg.backward(sg.sum(a * a + b * b + c * c), nested))
    assert [p.item() for p in (a, b, c)] == [-1, -2, -3]
    assert list(sg.optim.Adam(nested).states())[2:] == ["x.0.m", "x.0.v", "x.1.m", "x.1.v", "y.W.m", "y.W.v"]


def test_a_single_parameter_and_a_module_are_structures_too() -> None:
    W = sg.Parameter([2.0])
    sg.optim.SGD(W, lr=0.5).step(sg.backward(sg.sum(W * W), W))
    assert W.item() == 0
    layer = sg.nn.Linear(2, 1, key=0)
    sg.optim.SGD(layer).step(sg.backward(sg.sum(layer(np.ones((1, 2), np.float32))), layer))


def test_the_order_of_a_dict_does_not_matter() -> None:
    one, two = parameters(), parameters()
    g = gradients(1)[0]
    sg.optim.SGD(one).step(g)
    sg.optim.SGD(two).step(dict(reversed(g.items())))
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_array_equal(a, b)


# --- learning rate and state


def test_states_are_named_after_parameters() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(2, 1, bias=False, key=0))
    opt = sg.optim.Adam(model.parameters(), amsgrad=True)
    assert list(opt.states()) == ["lr", "step", "0.weight.m", "0.weight.v", "0.weight.largest_v"]
    assert opt.states()["0.weight.m"].name == "0.weight.m"


def test_the_learning_rate_can_be_changed_between_steps() -> None:
    W = sg.Parameter([0.0])
    opt = sg.optim.SGD([W], lr=1.0)
    opt.step([np.ones(1, np.float32)])
    opt.lr = 0.25
    opt.step([np.ones(1, np.float32)])
    assert (W.item(), opt.lr, opt.steps) == (-1.25, 0.25, 2)


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_a_loaded_state_continues_as_if_nothing_happened(kind: Any, settings: Any) -> None:
    steps = gradients(6)
    whole, first = parameters(), parameters()
    opt = kind(whole, **settings)
    for g in steps:
        opt.step(g)
    before = kind(first, **settings)
    for g in steps[:3]:
        before.step(g)
    saved = before.state_dict()
    after = kind(first, lr=0.5, **settings)
    after.load_state_dict(saved)
    for g in steps[3:]:
        after.step(g)
    for a, b in zip(values(whole), values(first), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_deep_copied_pair_of_model_and_optimizer_trains_on_its_own() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(2, 1, key=0))
    opt = sg.optim.Adam(model.parameters())
    g = {n: np.ones(p.shape, p.dtype) for n, p in model.parameters().items()}
    opt.step(g)
    twin, twin_opt = copy.deepcopy((model, opt))
    before = model.state_dict()
    twin_opt.step(g)
    np.testing.assert_array_equal(model[0].weight.numpy(), before["0.weight"])
    assert np.any(twin[0].weight.numpy() != before["0.weight"])
    opt.step(g)
    np.testing.assert_array_equal(twin[0].weight.numpy(), model[0].weight.numpy())


def test_repr() -> None:
    assert repr(sg.optim.SGD(parameters(), lr=0.1, momentum=0.9)) == "SGD(17 parameters, lr=0.1, momentum=0.9)"


# --- errors

G = gradients(1)[0]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda g: g.pop("b"), ArgumentError, "missing: b"),
        (lambda g: g.update(c=G["b"]), ArgumentError, "unexpected: c"),
        (lambda g: g.update(c=g.pop("b")), ArgumentError, "missing: b; unexpected: c"),
        (lambda g: g.update(b=None), ArgumentError, "NoneType None as the gradient of b"),
        (lambda g: g.update(W=G["W"].T), ShapeError, r"shape \(4, 3\) for W \(3, 4\)"),
        (lambda g: g.update(b=np.zeros(4)), DtypeError, r"float64 gradient for b.*astype\(np\.float32\)"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(change: Any, error: Any, text: str) -> None:
    cells = parameters()
    opt = sg.optim.Adam(cells)
    before = {**{n: c.numpy() for n, c in cells.items()}, **opt.state_dict()}
    g = dict(G)
    change(g)
    with pytest.raises(error, match=f"(?s){text}") as caught:
        opt.step(g)
    assert "nothing was changed" in str(caught.value)
    for name, value in {**{n: c.numpy() for n, c in cells.items()}, **opt.state_dict()}.items():
        np.testing.assert_array_equal(value, before[name])


def test_a_list_of_gradients_for_a_dict_of_parameters() -> None:
    with pytest.raises(ArgumentError, match=r"missing: W, b, scale; unexpected: 0, 1, 2"):
        sg.optim.SGD(parameters()).step(list(G.values()))
    with pytest.raises(ArgumentError, match="unexpected: a single gradient"):
        sg.optim.SGD(parameters()).step(G["W"])


W = sg.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: sg.optim.SGD({}), "without parameters"),
        (lambda: sg.optim.SGD(sg.nn.Sequential(sg.nn.ReLU())), "without parameters"),
        (lambda: sg.optim.SGD([sg.tensor([1.0])]), "was given Tensor .*as parameter 0.*sg.Parameter"),
        (lambda: sg.optim.SGD({"a": W, "b": W}), "the same parameter as a and as b"),
        (lambda: sg.optim.SGD([W], lr=-1), "learning rate was set to -1"),
        (lambda: sg.optim.SGD([W], lr=math.nan), "learning rate was set to nan"),
        (lambda: sg.optim.SGD([W], lr=lambda step: 1), "opt.lr = schedule"),
        (lambda: setattr(sg.optim.SGD([W]), "lr", "fast"), "learning rate was set to 'fast'"),
        (lambda: sg.optim.SGD([W], nesterov=True), "nesterov=True with momentum=0.0"),
        (lambda: sg.optim.SGD([W], momentum=-0.1), "momentum=-0.1"),
        (lambda: sg.optim.Adam([W], betas=(0.9, 1.0)), r"beta2=1.0.*from 0 to below 1"),
        (lambda: sg.optim.AdamW([W], eps=-1.0), r"eps=-1.0.*from 0 on"),
        (lambda: sg.optim.RMSprop([W], alpha=math.nan), "alpha=nan"),
        (lambda: sg.optim.Adagrad([W], lr_decay="x"), "lr_decay='x'"),
        (lambda: sg.optim.SGD([W]).load_state_dict({"lr": 1.0}), "missing: step.*nothing was changed"),
        (lambda: sg.optim.clip_by_norm([], 1.0), "no gradients"),
        (lambda: sg.optim.clip_by_norm([W], 0.0), "max_norm=0.0"),
        (lambda: sg.optim.schedules.cosine(1.0, 0), "cosine was given 0 steps"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(StepgradError, match=f"(?s){text}") as caught:
        make()
    assert caught.value.why
    assert caught.value.instead


# --- clipping and schedules


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_by_norm(max_norm: float) -> None:
    clipped, norm = sg.optim.clip_by_norm(G, max_norm)
    every = np.concatenate([g.numpy().ravel() for g in G.values()])
    assert norm.item() == pytest.approx(np.linalg.norm(every), rel=1e-6)
    assert list(clipped) == list(G)
    factor = min(1, max_norm / np.linalg.norm(every))
    for name, g in clipped.items():
        assert g.dtype == np.float32
        np.testing.assert_allclose(g.numpy(), G[name].numpy() * factor, rtol=1e-5)


def test_clipping_gradients_whose_squares_overflow() -> None:
    clipped, norm = sg.optim.clip_by_norm([sg.tensor(np.array([3e30, 4e30], np.float32))], 1.0)
    assert norm.item() == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(clipped[0].numpy(), [0.6, 0.8], rtol=1e-5)


def test_schedules() -> None:
    cosine = sg.optim.schedules.cosine(1.0, steps=4, final=0.2)
    np.testing.assert_allclose([cosine(s) for s in (0, 2, 4, 9)], [1, 0.6, 0.2, 0.2])
    whole = sg.optim.schedules.warmup(2, then=cosine)
    np.testing.assert_allclose([whole(s) for s in (0, 1, 2, 4, 6)], [0.5, 1, 1, 0.6, 0.2])


# --- it learns


@pytest.mark.parametrize(
    ("kind", "lr"),
    [
        (sg.optim.SGD, 0.1),
        (sg.optim.Adam, 0.05),
        (sg.optim.AdamW, 0.05),
        (sg.optim.RMSprop, 0.02),
        (sg.optim.Adagrad, 0.2),
    ],
)
def test_every_optimizer_fits_exclusive_or(kind: Any, lr: float) -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([0, 1, 1, 0])
    model = sg.nn.Sequential(sg.nn.Linear(2, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 2, key=1))
    opt = kind(model.parameters(), lr=lr, **({"momentum": 0.9} if kind is sg.optim.SGD else {}))
    for _ in range(150):
        opt.step(sg.backward(sg.losses.cross_entropy(model(x), y), model.parameters()))
    assert sg.losses.cross_entropy(model(x), y).item() < 0.1
