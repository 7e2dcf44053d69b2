"""The ledger against what eager execution really keeps; the cost against numbers counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.explain.lesson import PARAMETERS, network, network_inputs
from stepgrad.tape.backward import reachable

rng = np.random.default_rng(0)


def owner(value: Any) -> Any:
    while isinstance(value.base, np.ndarray):
        value = value.base
    return value


def kept_by_eager_execution(fn: Any, *arrays: Any) -> int:
    """Bytes of the computed values that the tape of an eager call keeps alive."""
    inputs = [sg.tensor(a) for a in arrays]
    tape = reachable([fn(*inputs).equation])
    held = {id(owner(t.value)) for t in inputs}
    values = {id(o): o.nbytes for e in tape if e.inputs and e.value is not None for o in [owner(e.value)]}
    return sum(size for storage, size in values.items() if storage not in held)


def normal(*shape: int) -> Any:
    return rng.standard_normal(shape)


def two_layers(W1: Any, b1: Any, W2: Any, X: Any) -> Any:
    return (sg.sigmoid(W2 @ sg.relu(W1 @ X + b1)) ** 2).mean()


def views(x: Any, w: Any) -> Any:
    y = np.exp(x)
    return (y.T.reshape(-1) * w + y.T.reshape(-1)).sum()


def broadcast(x: Any, w: Any) -> Any:
    scale = np.exp(w)
    return (x * scale).sum() + (x * scale[:1]).sum()


def shared(x: Any, w: Any) -> Any:
    h = np.tanh(x)
    return (h * h + np.sin(h) * w).sum()


def sums(x: Any, w: Any) -> Any:
    return (x + w + x - w + 1.0).sum()


@pytest.mark.parametrize(
    ("fn", "arrays"),
    [
        (two_layers, (normal(4, 3), normal(4, 1), normal(2, 4), normal(3, 5))),
        (views, (normal(2, 3), normal(6))),
        (broadcast, (normal(2, 3), normal(3))),
        (shared, (normal(3), normal(3))),
        (sums, (normal(3), normal(3))),
        (network, tuple(network_inputs().values())),
    ],
)
def test_the_ledger_is_what_eager_execution_keeps(fn: Any, arrays: Any) -> None:
    assert sg.trace(fn, *arrays).cache().saved_bytes == kept_by_eager_execution(fn, *arrays)


def test_the_ledger_of_the_lesson() -> None:
    ledger = sg.trace(network, **network_inputs(), wrt=PARAMETERS).cache()
    rows = {row.name: row for row in ledger.rows}
    assert set(rows) == {"W2", "X", "Y", "Z1", "A1", "Y_hat", "t1", "t2"}
    assert (rows["Z1"].shape, rows["Z1"].dtype, rows["Z1"].bytes) == ((4, 5), "float64", 160)
    assert (rows["Y_hat"].read_by, rows["Y_hat"].freed_after) == ((5, 4), 4)
    assert (rows["W2"].kind, rows["W2"].freed_after) == ("input", None)
    assert ledger.saved_bytes == sum(row.bytes for row in ledger.rows if row.kind == "saved") == 160 + 160 + 3 * 40


def test_the_peak() -> None:
    """y = sin(x), z = cos(y): x is held, y is saved; then dz, and with it cos'(y), dy and so on."""

    def net(x: Any) -> Any:
        y = np.exp(x)
        return np.exp(y)

    ledger = sg.trace(net, np.ones(100)).cache()
    assert ledger.saved_bytes == 2 * 800  # exp reads its output
    assert ledger.peak_bytes == 4 * 800  # y, exp(y), what arrives, and its product with exp(y)


def test_views_cost_nothing() -> None:
    def net(x: Any) -> Any:
        y = np.exp(x)
        flat = y.reshape(-1)
        return (y * y).sum() + (flat * flat).sum()

    rows = {row.name: row for row in sg.trace(net, np.ones((2, 3))).cache().rows}
    assert (rows["flat"].view_of, rows["flat"].bytes) == ("y", 0)


def test_costs_counted_by_hand() -> None:
    def net(a: Any) -> Any:
        b = a * a
        c = b * b
        return c.sum()

    cost = sg.trace(net, np.ones(3)).cost()
    assert cost.forward_flops == 3 + 3 + 3
    assert cost.backward_flops == 4 * 3 + 2 * 3  # four products, and twice two contributions added up
    assert (cost.paths, cost.without_reuse) == (4, 4 * 6)  # two ways through each product, two products a way
    assert cost.forward_bytes == 2 * 3 * 24 + 24 + 8


def test_the_cost_of_the_lesson() -> None:
    inputs = network_inputs()
    cost = sg.trace(network, **inputs, wrt=PARAMETERS).cost()
    sigmoid = sg.trace(sg.sigmoid, inputs["Y"]).cost().forward_flops
    layers = (2 * 4 * 3 * 5 + 20) + 20 + (2 * 4 * 5 + 5)
    assert cost.forward_flops == layers + sigmoid + 8 * 5 + 1  # eight operations on five numbers, and the sign
    assert cost.paths == 2 * 4  # from each of four parameters to Y_hat, and from there by both logarithms
    assert cost.without_reuse > cost.backward_flops


@pytest.mark.parametrize("depth", [1, 10, 200, 3000])
def test_a_residual_chain_has_twice_the_paths_at_each_block(depth: int) -> None:
    def residual(x: Any) -> Any:
        for _ in range(depth):
            x = x + np.sin(x)
        return x

    cost = sg.trace(residual, np.array(1.0)).cost()
    assert cost.paths == 2**depth
    # Along each path, one product and one cosine for every block that it does not skip: half of them.
    assert cost.without_reuse == 2 * depth * 2**depth // 2
    assert cost.reuse == pytest.approx(depth * 2**depth / (3 * depth), rel=1e-9) if depth < 900 else cost.reuse > 1e200
    assert "times the backward pass" in str(cost)
