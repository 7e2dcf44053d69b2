"""Losses, optimizers and whole trainings against PyTorch's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import stepgrad as sg

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

F = torch.nn.functional
RNG = np.random.default_rng(0)


def compare_losses(ours: Any, theirs: Any, *arrays: np.ndarray) -> None:
    """Values, and gradients with respect to every array, in float64."""
    tensors = [sg.tensor(a) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    loss, expected = ours(*tensors), theirs(*peers)
    np.testing.assert_allclose(loss.numpy(), expected.detach().numpy(), rtol=1e-11)
    downstream = np.random.default_rng(1).standard_normal(loss.shape)
    gradients = sg.backward(sg.sum(loss * downstream), tensors)
    expected.backward(torch.tensor(downstream))
    for gradient, peer in zip(gradients, peers, strict=True):
        np.testing.assert_allclose(gradient.numpy(), peer.grad.numpy(), rtol=1e-9, atol=1e-12)


# --- losses

REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_cross_entropy(reduction: str, smoothing: float, weighted: bool, soft: bool, scale: float) -> None:
    z = scale * RNG.standard_normal((6, 4))
    labels = RNG.dirichlet(np.ones(4), 6) if soft else RNG.integers(0, 4, 6)
    weight = RNG.uniform(0.5, 2, 4) if weighted else None
    compare_losses(
        lambda a: sg.losses.cross_entropy(
            a, labels, weight=weight, label_smoothing=smoothing, reduction=reduction
        ),
        lambda a: F.cross_entropy(
            a,
            torch.tensor(labels),
            weight=None if weight is None else torch.tensor(weight),
            label_smoothing=smoothing,
            reduction=reduction,
        ),
        z,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_binary_cross_entropy(reduction: str, scale: float) -> None:
    z, t, w = scale * RNG.standard_normal((5, 3)), RNG.uniform(size=(5, 3)), RNG.uniform(size=(5, 3))
    compare_losses(
        lambda a: sg.losses.binary_cross_entropy(a, t, reduction=reduction),
        lambda a: F.binary_cross_entropy_with_logits(a, torch.tensor(t), reduction=reduction),
        z,
    )
    compare_losses(
        lambda a, b: sg.losses.binary_cross_entropy(a, b, weight=w, reduction=reduction),
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, weight=torch.tensor(w), reduction=reduction),
        z,
        t,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("delta", [0.3, 1.0, 2.0])
def test_regression_losses(reduction: str, delta: float) -> None:
    p, t = RNG.standard_normal((5, 3)), RNG.standard_normal((5, 3))
    p[0] = t[0]  # errors of zero, where |error| has a kink
    p[1] = t[1] + delta  # and where the parabola ends
    compare_losses(
        lambda a, b: sg.losses.mse(a, b, reduction=reduction), lambda a, b: F.mse_loss(a, b, reduction=reduction), p, t
    )
    compare_losses(
        lambda a, b: sg.losses.mae(a, b, reduction=reduction), lambda a, b: F.l1_loss(a, b, reduction=reduction), p, t
    )
    compare_losses(
        lambda a, b: sg.losses.huber(a, b, delta=delta, reduction=reduction),
        lambda a, b: F.huber_loss(a, b, delta=delta, reduction=reduction),
        p,
        t,
    )


# --- optimizers


def combinations(**options: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())]


CASES = [
    *(
        ("SGD", s)
        for s in combinations(
            lr=[0.01], momentum=[0.0, 0.9], dampening=[0.0, 0.3], weight_decay=[0.0, 0.1], nesterov=[False, True]
        )
        if not s["nesterov"] or (s["momentum"] and not s["dampening"])
    ),
    *(
        (name, s)
        for name in ("Adam", "AdamW")
        for s in combinations(
            betas=[(0.9, 0.999), (0.5, 0.9)], eps=[1e-8, 1e-3], weight_decay=[0.0, 0.1], amsgrad=[False, True]
        )
    ),
    *(
        ("RMSprop", s)
        for s in combinations(
            lr=[1e-3], alpha=[0.99, 0.5], weight_decay=[0.0, 0.1], momentum=[0.0, 0.9], centered=[False, True]
        )
    ),
    *(
        ("Adagrad", s)
        for s in combinations(
            lr=[1e-2], lr_decay=[0.0, 0.1], weight_decay=[0.0, 0.1], initial_accumulator_value=[0.0, 0.5]
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_a_hundred_steps_of_an_optimizer(name: str, settings: dict[str, Any]) -> None:
    """float32 rounding over 100 steps; the same in float64 to many more digits."""
    shapes = [(3, 4), (4,), ()]
    for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-12)):
        rng = np.random.default_rng(0)
        start = [np.asarray(rng.standard_normal(s), dtype) for s in shapes]
        cells = [sg.Parameter(a) for a in start]
        peers = [torch.tensor(a, requires_grad=True) for a in start]
        ours = getattr(sg.optim, name)(cells, **settings)
        theirs = getattr(torch.optim, name)(peers, **settings)
        for _ in range(100):
            gradients = [np.asarray(rng.standard_normal(s), dtype) for s in shapes]
            ours.step(gradients)
            for peer, g in zip(peers, gradients, strict=True):
                peer.grad = torch.tensor(g)
            theirs.step()
        for cell, peer in zip(cells, peers, strict=True):
            assert cell.dtype == dtype
            np.testing.assert_allclose(cell.numpy(), peer.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_clipping() -> None:
    gradients = [RNG.standard_normal((3, 4)), RNG.standard_normal(4)]
    for max_norm in (0.5, 100.0):
        peers = [torch.zeros(g.shape, dtype=torch.float64) for g in gradients]
        for peer, g in zip(peers, gradients, strict=True):
            peer.grad = torch.tensor(g)
        expected = torch.nn.utils.clip_grad_norm_(peers, max_norm)
        clipped, norm = sg.optim.clip_by_norm([sg.tensor(g) for g in gradients], max_norm)
        assert norm.item() == pytest.approx(expected.item(), rel=1e-12)
        for ours, peer in zip(clipped, peers, strict=True):
            np.testing.assert_allclose(ours.numpy(), peer.grad.numpy(), rtol=1e-12)


# --- layers and whole trainings


def test_layers() -> None:
    x = RNG.standard_normal((5, 8))
    norm, peer = sg.nn.LayerNorm(8, eps=1e-4, dtype=np.float64), torch.nn.LayerNorm(8, eps=1e-4, dtype=torch.float64)
    compare_losses(lambda a: norm(a), lambda a: peer(a), x)
    ids = RNG.integers(0, 6, (2, 3))
    table = sg.nn.Embedding(6, 4, key=0, dtype=np.float64)
    peer = torch.nn.Embedding.from_pretrained(torch.tensor(table.weight.numpy().copy()))
    np.testing.assert_array_equal(table(ids).numpy(), peer(torch.tensor(ids)).numpy())


def test_initial_values_have_the_spread_of_torchs() -> None:
    ours, theirs = sg.nn.Linear(50, 400, key=0), torch.nn.Linear(50, 400)
    assert ours.weight.numpy().std() == pytest.approx(theirs.weight.std().item(), rel=0.03)
    assert ours.bias.numpy().std() == pytest.approx(theirs.bias.std().item(), rel=0.15)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_training_takes_the_same_course(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 8)), rng.integers(0, 3, 64)
    sizes = [8, 16, 16, 3]
    layers: list[Any] = []
    peer_layers: list[Any] = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layer, peer = sg.nn.Linear(n, m, key=i, dtype=np.float64), torch.nn.Linear(n, m, dtype=torch.float64)
        with torch.no_grad():
            peer.weight.copy_(torch.tensor(layer.weight.numpy().T.copy()))
            peer.bias.copy_(torch.tensor(layer.bias.numpy().copy()))
        layers += [layer, sg.nn.GELU()]
        peer_layers += [peer, torch.nn.GELU()]
    model, peer_model = sg.nn.Sequential(*layers[:-1]), torch.nn.Sequential(*peer_layers[:-1])
    opt = getattr(sg.optim, name)(model.parameters(), lr=0.01)
    peer_opt = getattr(torch.optim, name)(peer_model.parameters(), lr=0.01)
    for step in range(50):
        batch = slice(step % 4 * 16, step % 4 * 16 + 16)
        loss = sg.losses.cross_entropy(model(x[batch]), y[batch])
        opt.step(sg.backward(loss, model.parameters()))
        expected = F.cross_entropy(peer_model(torch.tensor(x[batch])), torch.tensor(y[batch]))
        peer_opt.zero_grad()
        expected.backward()
        peer_opt.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
