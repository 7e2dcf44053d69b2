"""Modules, layers and initial values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import (
    ArgumentError,
    DtypeError,
    IndexingError,
    ShapeError,
    StepgradError,
    UnsupportedError,
)
from stepgrad.tape.recording import recording


def network(dtype: Any = np.float32) -> sg.nn.Sequential:
    return sg.nn.Sequential(
        sg.nn.Linear(4, 5, key=0, dtype=dtype), sg.nn.Tanh(), sg.nn.Linear(5, 3, key=1, dtype=dtype)
    )


class Tower(sg.nn.Module):
    """Holds parts in every way that a module can."""

    def __init__(self) -> None:
        self.stem = network()
        self.blocks = [sg.nn.Linear(3, 3, key=2), sg.nn.ReLU()]
        self.heads = {"a": sg.nn.Linear(3, 1, key=3), "b": (sg.nn.Linear(3, 2, key=4),)}
        self.scale = sg.Parameter(2.0)
        self.calls = sg.State(0)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        self.calls.assign(self.calls + 1)
        return self.heads["a"](x) * self.scale


# --- what a module holds


def test_parameters_are_found_in_attributes_lists_tuples_and_dicts() -> None:
    tower = Tower()
    assert list(tower.parameters()) == [
        "stem.0.weight", "stem.0.bias", "stem.2.weight", "stem.2.bias", "blocks.0.weight", "blocks.0.bias",
        "heads.a.weight", "heads.a.bias", "heads.b.0.weight", "heads.b.0.bias", "scale",
    ]  # fmt: skip
    assert list(tower.states()) == ["calls"]
    assert list(tower.named_modules()) == [
        "", "stem", "stem.0", "stem.1", "stem.2", "blocks.0", "blocks.1", "heads.a", "heads.b.0",
    ]  # fmt: skip


def test_parameters_are_named_by_the_longest_path() -> None:
    stem = network()
    assert stem[0].weight.name == "0.weight"
    tower = Tower()
    tower.stem = stem
    tower.parameters()
    assert stem[0].weight.name == "stem.0.weight"
    stem.parameters()
    assert stem[0].weight.name == "stem.0.weight"


def test_a_name_given_by_the_user_is_kept() -> None:
    layer = sg.nn.Linear(2, 2, key=0)
    layer.weight.name = "mixing"
    assert list(sg.nn.Sequential(layer).parameters()) == ["0.weight", "0.bias"]
    assert layer.weight.name == "mixing"


def test_the_tenth_layer_keeps_its_own_name() -> None:
    layers = [sg.nn.Linear(1, 1, key=i) for i in range(11)]
    first = sg.nn.Sequential(layers[0])
    model = sg.nn.Sequential(*layers[1:], *first)
    model.parameters()
    assert layers[0].weight.name == "0.weight"
    assert layers[10].weight.name == "9.weight"


def test_shared_parameters_are_listed_once() -> None:
    layer = sg.nn.Linear(3, 3, key=0)
    model = sg.nn.Sequential(layer, sg.nn.ReLU(), layer)
    assert list(model.parameters()) == ["0.weight", "0.bias"]
    assert list(model.named_modules()) == ["", "0", "1"]
    gradients = sg.backward(model(np.ones((2, 3), np.float32)).sum(), model.parameters())
    assert gradients["0.weight"].shape == (3, 3)


def test_a_module_that_holds_itself_is_walked_once() -> None:
    class Ring(sg.nn.Module):
        def __init__(self) -> None:
            self.inner = sg.nn.Linear(1, 1, key=0)
            self.inner.outer = self

    assert list(Ring().parameters()) == ["inner.weight", "inner.bias"]


def test_paths_that_coincide_are_an_error() -> None:
    class Twice(sg.nn.Module):
        def __init__(self) -> None:
            self.parts = {"a.weight": sg.Parameter(1.0), "a": {"weight": sg.Parameter(2.0)}}

    with pytest.raises(ArgumentError, match=r"two parameters of a module have the path 'parts\.a\.weight'"):
        Twice().parameters()


def test_gradients_have_the_structure_of_the_parameters() -> None:
    model = network()
    gradients = sg.backward(sg.sum(model(np.ones((2, 4), np.float32))), model)
    assert {k: g.shape for k, g in gradients.items()} == {k: p.shape for k, p in model.parameters().items()}


def test_train_and_eval_reach_every_module() -> None:
    tower = Tower()
    assert tower.eval() is tower
    assert not any(m.training for m in tower.named_modules().values())
    tower.train()
    assert all(m.training for m in tower.named_modules().values())


def test_a_module_without_forward_says_so() -> None:
    class Empty(sg.nn.Module):
        pass

    with pytest.raises(UnsupportedError, match=r"Empty was called, and has no forward"):
        Empty()(1.0)


def test_while_a_tape_is_recorded_equations_know_their_module() -> None:
    model = network()
    model(np.ones((2, 4), np.float32))
    with recording(equations=[]) as state:
        model(np.ones((2, 4), np.float32))
    assert state.equations is not None
    scopes = list(dict.fromkeys(e.scope for e in state.equations))
    assert scopes == [("Sequential", "0"), ("Sequential", "1"), ("Sequential", "2")]


def test_repr_is_a_tree_with_shapes_and_counts() -> None:
    tree = repr(Tower())
    lines = tree.splitlines()
    assert lines[0].split() == ["Tower()", "scale", "()", "·", "calls", "()", "68", "parameters"]
    assert lines[1].startswith("├─ stem Sequential()")
    assert "│  ├─ 0 Linear(in_features=4, out_features=5)" in lines[2]
    assert "weight (4, 5) · bias (5,)" in lines[2]
    assert lines[2].endswith("25")
    assert lines[-1].startswith("└─ heads.b.0 Linear(in_features=3, out_features=2)")
    assert "training" not in tree


# --- saving


def test_state_dict_holds_copies_of_parameters_and_states() -> None:
    tower = Tower()
    saved = tower.state_dict()
    assert list(saved)[-2:] == ["scale", "calls"]
    saved["scale"][...] = 7
    assert tower.scale.item() == 2


def test_load_state_dict_restores_the_outputs() -> None:
    x = np.ones((2, 4), np.float32)
    one, other = network(), network()
    for p in other.parameters().values():
        p.assign(p * 0)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(one(x).numpy(), other(x).numpy())


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.pop("2.bias"), ArgumentError, r"missing: 2\.bias"),
        (lambda d: d.update(extra=1.0), ArgumentError, "unexpected: extra"),
        (
            lambda d: d.update({"0.weight": np.zeros((5, 4), np.float32)}),
            ShapeError,
            r"0\.weight \(5, 4\) instead of \(4, 5\)",
        ),
        (
            lambda d: d.update({"0.bias": np.zeros(5, np.complex64)}),
            DtypeError,
            r"0\.bias complex64 instead of float32",
        ),
    ],
)
def test_load_state_dict_changes_all_or_nothing(change: Any, error: Any, text: str) -> None:
    model = network()
    before = model.state_dict()
    values = {k: v + 1 for k, v in before.items()}
    change(values)
    with pytest.raises(error, match=text) as caught:
        model.load_state_dict(values)
    assert "nothing was changed" in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_computes_the_same_and_is_independent(clone: Callable[[Any], Any]) -> None:
    shared = sg.nn.Linear(3, 3, key=0)
    model = sg.nn.Sequential(shared, sg.nn.ReLU(), shared, sg.nn.Dropout(0.5, key=0), sg.nn.LayerNorm(3))
    twin = clone(model)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(twin(x).numpy(), model(x).numpy())
    assert twin[0] is twin[2]
    assert list(twin.parameters()) == list(model.parameters())
    twin[0].weight.assign(twin[0].weight * 0)
    assert np.any(model[0].weight.numpy())


# --- Sequential


def test_sequential_is_indexed_iterated_and_sliced() -> None:
    model = network()
    assert len(model) == 3
    assert list(model) == [model[0], model[1], model[2]]
    assert list(model[1:].parameters()) == ["1.weight", "1.bias"]
    assert model[1:][1] is model[2]


def test_sequential_takes_functions() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(2, 2, key=0), sg.relu, np.tanh)
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(model(x).numpy(), np.tanh(np.maximum(model[0](x).numpy(), 0)))


@pytest.mark.parametrize(
    ("layer", "text"),
    [(sg.nn.ReLU, r"the class ReLU as layer 0.*call it: ReLU\(\)"), ([sg.nn.ReLU()], r"a list as layer 0")],
)
def test_sequential_refuses_what_is_no_layer(layer: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=f"(?s){text}"):
        sg.nn.Sequential(layer)


# --- layers: values and gradients


def check_layer(layer: sg.nn.Module, x: np.ndarray) -> None:
    """Gradients with respect to the input and every parameter against central differences, in float64."""
    rng = np.random.default_rng(0)
    downstream = rng.standard_normal(layer(x).shape)
    cells = layer.parameters()
    tensor = sg.tensor(x)
    of_x, of_cells = sg.backward(sg.sum(layer(tensor) * downstream), (tensor, cells))

    def loss(v: Any) -> float:
        return float(np.sum(layer(v).numpy() * downstream))

    direction = rng.standard_normal(x.shape)
    step = 1e-6
    expected = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(np.sum(of_x.numpy() * direction), expected, rtol=1e-6, atol=1e-7)
    for name, cell in cells.items():
        value, direction = cell.numpy(), rng.standard_normal(cell.shape)
        cell.assign(value + step * direction)
        up = loss(x)
        cell.assign(value - step * direction)
        down = loss(x)
        cell.assign(value)
        slope = np.sum(of_cells[name].numpy() * direction)
        np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-6, atol=1e-7, err_msg=name)


def away_from_kinks(*shape: int) -> np.ndarray:
    x = np.random.default_rng(5).standard_normal(shape)
    return x + np.copysign(0.05, x)


ACTIVATIONS: list[tuple[sg.nn.Module, Callable[[np.ndarray], Any]]] = [
    (sg.nn.ReLU(), lambda x: np.maximum(x, 0)),
    (sg.nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    (sg.nn.Tanh(), np.tanh),
    (sg.nn.SELU(), lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    (sg.nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    (sg.nn.Mish(), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    (sg.nn.Softsign(), lambda x: x / (1 + np.abs(x))),
    (sg.nn.Softplus(), lambda x: np.log1p(np.exp(x))),
    (sg.nn.Hardswish(), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    (sg.nn.LogSigmoid(), lambda x: -np.log1p(np.exp(-x))),
    (sg.nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    (sg.nn.ELU(0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    (sg.nn.CELU(0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x / 0.5))),
    (sg.nn.GELU("tanh"), lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    (sg.nn.Hardtanh(-0.5, 0.7), lambda x: np.clip(x, -0.5, 0.7)),
    (sg.nn.Softmax(axis=0), lambda x: np.exp(x) / np.exp(x).sum(axis=0)),
    (sg.nn.LogSoftmax(), lambda x: x - np.log(np.exp(x).sum(axis=-1, keepdims=True))),
]


@pytest.mark.parametrize(("layer", "meaning"), ACTIVATIONS, ids=lambda v: type(v).__name__)
def test_activations(layer: sg.nn.Module, meaning: Callable[[np.ndarray], Any]) -> None:
    x = away_from_kinks(3, 4)
    np.testing.assert_allclose(layer(x).numpy(), meaning(x), rtol=1e-12, atol=1e-14)
    assert layer(x.astype(np.float32)).dtype == np.float32
    check_layer(layer, x)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    layer = sg.nn.Linear(4, 3, bias, key=0, dtype=np.float64)
    x = away_from_kinks(*shape)
    expected = x @ layer.weight.numpy() + (layer.bias.numpy() if bias else 0)
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-12)
    check_layer(layer, x)


@pytest.mark.parametrize(("shape", "axes"), [(4, (-1,)), ((3, 4), (-2, -1))])
def test_layer_norm(shape: Any, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    layer = sg.nn.LayerNorm(shape, eps=1e-3, dtype=np.float64)
    for cell in layer.parameters().values():
        cell.assign(rng.standard_normal(cell.shape))
    x = away_from_kinks(2, 3, 4)
    normal = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer(x).numpy(), normal * layer.weight.numpy() + layer.bias.numpy(), rtol=1e-12)
    check_layer(layer, x)


def test_embedding_looks_up_rows_and_adds_up_their_gradients() -> None:
    layer = sg.nn.Embedding(5, 3, key=0)
    ids = np.array([[1, 4], [1, 0]])
    np.testing.assert_array_equal(layer(ids).numpy(), layer.weight.numpy()[ids])
    gradient = sg.backward(layer(ids).sum(), layer.weight).numpy()
    np.testing.assert_array_equal(gradient[:, 0], [1, 2, 0, 0, 1])


@pytest.mark.parametrize(
    ("start", "shape", "expected"),
    [(1, (2, 3, 4), (2, 12)), (0, (2, 3), (6,)), (-2, (2, 3, 4), (2, 12)), (1, (0, 3, 4), (0, 12))],
)
def test_flatten(start: int, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_array_equal(sg.nn.Flatten(start)(x).numpy(), x.reshape(expected))


def test_dropout_drops_that_part_and_keeps_the_mean() -> None:
    dropout = sg.nn.Dropout(0.3, key=0)
    out = dropout(np.ones(20_000, np.float32)).numpy()
    assert out.dtype == np.float32
    assert np.mean(out == 0) == pytest.approx(0.3, abs=0.015)
    assert out.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.7], rtol=1e-6)


def test_dropout_masks_differ_from_call_to_call_and_repeat_with_the_key() -> None:
    x = np.ones(100, np.float32)
    one, two = sg.nn.Dropout(0.5, key=3), sg.nn.Dropout(0.5, key=3)
    first, second = one(x).numpy(), one(x).numpy()
    assert np.any(first != second)
    np.testing.assert_array_equal(two(x).numpy(), first)
    np.testing.assert_array_equal(two(x).numpy(), second)


def test_dropout_passes_gradients_through_what_it_kept() -> None:
    x = sg.tensor(np.arange(1.0, 101.0))
    out = sg.nn.Dropout(0.25, key=0)(x)
    gradient = sg.backward(out.sum(), x).numpy()
    np.testing.assert_allclose(gradient * x.numpy(), out.numpy(), rtol=1e-12)


def test_dropout_in_use_and_at_its_ends() -> None:
    x = np.ones(10, np.float32)
    np.testing.assert_array_equal(sg.nn.Dropout(0.5).eval()(x).numpy(), x)
    np.testing.assert_array_equal(sg.nn.Dropout(0.0)(x).numpy(), x)
    np.testing.assert_array_equal(sg.nn.Dropout(1.0)(x).numpy(), 0 * x)


# --- bad input


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: network()(np.ones((2, 7), np.float32)),
            ShapeError,
            r"layer 0 \(Linear\) was given .*\(2, 7\) float32, with 7 features\n.*for 4 features.*\n.*Linear\(7, …\)",
        ),
        (lambda: network()(np.ones((4, 2), np.float32)), ShapeError, r"last axis.*x\.T"),
        (lambda: sg.nn.Linear(12, 2)(np.ones((5, 3, 4), np.float32)), ShapeError, r"x\.reshape\(len\(x\), -1\)"),
        (lambda: network()(np.float32(3)), ShapeError, "without axes"),
        (lambda: network()(np.ones((2, 4))), DtypeError, r"float64\n.*float32.*\n.*x\.astype\(np\.float32\)"),
        (lambda: network()(np.ones((2, 4), int)), DtypeError, r"int64 numbers have no gradient.*\n.*np\.float32"),
        (lambda: network(np.float64)(np.ones((2, 4), np.float32)), DtypeError, r"x\.astype\(np\.float64\)"),
        (lambda: sg.nn.LayerNorm(3)(np.ones((2, 4), np.float32)), ShapeError, r"last axes are \(3,\)"),
        (lambda: sg.nn.Embedding(3, 2)(np.array([0, 3])), IndexingError, r"number 3\n.*from 0 to 2"),
        (lambda: sg.nn.Embedding(3, 2)(np.array([-1])), IndexingError, "number -1"),
        (lambda: sg.nn.Embedding(3, 2)(np.array([1.0])), DtypeError, r"ids\.astype\(np\.int64\)"),
        (lambda: sg.nn.Flatten(2)(np.ones((2, 4))), ShapeError, "there are 2 axes"),
        (lambda: sg.nn.Dropout()(np.ones(3, int)), DtypeError, "floating-point"),
        (lambda: sg.nn.Dropout(1.5), ArgumentError, r"p=1\.5"),
        (lambda: sg.nn.Linear(0, 3), ArgumentError, "in_features=0"),
        (lambda: sg.nn.Linear(2, 3.0), ArgumentError, r"out_features=3\.0"),
        (lambda: sg.nn.Linear(2, 3, dtype=int), DtypeError, "dtype=int64"),
        (lambda: sg.nn.Linear(2, 3, key="a"), ArgumentError, "'a' was given as a seed"),
        (lambda: sg.nn.LayerNorm(()), ArgumentError, "a size is a whole number"),
    ],
)
def test_bad_input_is_named_at_the_layer(call: Callable[[], Any], error: type[StepgradError], text: str) -> None:
    with pytest.raises(error, match=f"(?s){text}") as caught:
        call()
    assert caught.value.why
    assert caught.value.instead


def test_lists_take_the_dtype_of_the_layer() -> None:
    assert network()([[1, 2, 3, 4.0]]).dtype == np.float32


def test_an_empty_batch_passes_through() -> None:
    assert network()(np.ones((0, 4), np.float32)).shape == (0, 3)


# --- initial values

FUNCTIONS = [
    name
    for name, value in vars(sg.nn.initialise).items()
    if callable(value) and value.__module__ == "stepgrad.nn.initialise" and name not in ("seed", "generator", "fans")
    and name[0] != "_"
]  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_initial_values_follow_the_key(name: str) -> None:
    function = getattr(sg.nn.initialise, name)
    one, two, other = (function(key, (4, 6), np.float32) for key in (0, 0, 1))
    assert one.shape == (4, 6)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, two)
    assert name in ("zeros", "ones") or np.any(one != other)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("xavier_uniform", 2 / 500),
        ("xavier_normal", 2 / 500),
        ("kaiming_uniform", 2 / 200),
        ("kaiming_normal", 2 / 200),
        ("lecun_uniform", 1 / 200),
        ("lecun_normal", 1 / 200),
    ],
)
def test_initial_variances(name: str, variance: float) -> None:
    drawn = getattr(sg.nn.initialise, name)(0, (200, 300), np.float64)
    assert drawn.var() == pytest.approx(variance, rel=0.03)
    assert abs(drawn.mean()) < 0.01 * np.sqrt(variance)


def test_fans_count_the_receptive_field() -> None:
    assert sg.nn.initialise.fans((3, 3, 8, 16)) == (72, 144)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    q = sg.nn.initialise.orthogonal(0, shape, np.float64, gain=2.0) / 2
    product = q.T @ q if shape[0] >= shape[1] else q @ q.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-12)
    with pytest.raises(ArgumentError, match="orthogonal initial values of shape"):
        sg.nn.initialise.orthogonal(0, (3,))


def test_truncated_normal_stays_inside() -> None:
    drawn = sg.nn.initialise.truncated_normal(0, (10_000,), np.float64, mean=1.0, std=0.5, bound=1.5)
    assert np.abs(drawn - 1).max() <= 0.75
    assert drawn.mean() == pytest.approx(1, abs=0.02)


def test_linear_starts_within_one_over_root_in_features() -> None:
    layer = sg.nn.Linear(100, 1000, key=0)
    for cell in (layer.weight, layer.bias):
        assert 0.098 < np.abs(cell.numpy()).max() <= 0.1


def test_weight_and_bias_init_are_used() -> None:
    layer = sg.nn.Linear(3, 2, key=0, weight_init=sg.nn.initialise.orthogonal, bias_init=sg.nn.initialise.ones)
    np.testing.assert_allclose(layer.weight.numpy().T @ layer.weight.numpy(), np.eye(2), atol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 1])


def test_layers_without_a_key_differ_and_repeat_after_seed() -> None:
    sg.nn.seed(0)
    one, two = sg.nn.Linear(3, 3).weight.numpy(), sg.nn.Linear(3, 3).weight.numpy()
    assert np.any(one != two)
    sg.nn.seed(0)
    np.testing.assert_array_equal(sg.nn.Linear(3, 3).weight.numpy(), one)
    np.testing.assert_array_equal(sg.nn.Linear(3, 3).weight.numpy(), two)


def test_keys_are_seeds_random_keys_or_generators() -> None:
    key = sg.random.key(5)
    one, two = (sg.nn.Linear(2, 2, key=key).weight.numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    rng = np.random.default_rng(0)
    assert np.any(sg.nn.Linear(2, 2, key=rng).weight.numpy() != sg.nn.Linear(2, 2, key=rng).weight.numpy())
