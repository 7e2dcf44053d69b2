"""Ops that put elements elsewhere, and running sums: native, and the same bits as NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.execute.cpu import moves

RNG = np.random.default_rng(0)
FORMS = [(6,), (1,), (5, 4), (4, 64), (65, 17), (3, 1, 7), (2, 3, 4), (2, 1500), (3000, 2), (9000,)]

MOVES: dict[str, Callable[[Any, int], Any]] = {
    "concatenate": lambda x, d: sg.concatenate([x, x * 2, x], axis=d),
    "concatenate parts": lambda x, d: sg.concatenate([x[1:], x[:1], x[::-1], x.T if x.ndim == 1 else x], axis=0),
    "concatenate expanded": lambda x, d: sg.concatenate([sg.broadcast_to(x[:1], x.shape), x], axis=d),
    "stack": lambda x, d: sg.stack([x, x + 1], axis=d),
    "stack turned": lambda x, d: sg.stack([np.swapaxes(x, 0, -1), np.swapaxes(x, 0, -1)[::-1]], axis=d),
    "pad": lambda x, d: np.pad(x, [(2, 1) if i == d else (0, 0) for i in range(x.ndim)], constant_values=-1.5),
    "pad all": lambda x, d: np.pad(x, 1),
    "roll": lambda x, d: np.roll(x, 2, axis=d),
    "roll all": lambda x, d: np.roll(x, -3),
    "tile": lambda x, d: np.tile(x, 3),
    "repeat": lambda x, d: np.repeat(x, 2, axis=d),
    "cumsum": lambda x, d: np.cumsum(x, axis=d),
    "cumsum back": lambda x, d: np.flip(np.cumsum(np.flip(x, axis=d), axis=d), axis=d),
    "cumprod": lambda x, d: np.cumprod(x / 4, axis=d),
    "clip": lambda x, d: np.clip(x, -1, 2.5),
    "triangles": lambda x, d: np.tril(x, d) + np.triu(x, -1) * 2 if x.ndim > 1 else x * 2,
    "take apart": lambda x, d: sg.concatenate(sg.array_split(x, 2, axis=d)[::-1], axis=d),
}


def gradient(function: Any) -> Any:
    def of(x: Any) -> Any:
        def weighted(x: Any) -> Any:
            out = function(x)
            return sg.sum(out * np.arange(1, out.size + 1, dtype=out.dtype).reshape(out.shape) / 8)

        return sg.grad(weighted)(x)

    return of


@pytest.fixture(autouse=True)
def shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share out small kernels, too."""
    from stepgrad.execute.cpu import plan

    monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(moves, "ALONE", 64)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", MOVES)
def test_values(name: str, form: tuple[int, ...]) -> None:
    x = RNG.integers(-3, 4, form).astype(np.float32)
    for d in range(len(form)):
        function = lambda x, d=d: MOVES[name](x, d)
        expected = function(sg.tensor(x)).numpy()
        for threads in (1, 3):
            compiled = sg.compile(function, threads=threads)
            np.testing.assert_array_equal(compiled(x).numpy(), expected)
            assert not compiled.program.fallbacks()


@pytest.mark.parametrize("form", [(6,), (5, 4), (2, 3, 4), (70, 65)], ids=str)
@pytest.mark.parametrize("name", [name for name in MOVES if name != "cumprod"])
def test_gradients(name: str, form: tuple[int, ...]) -> None:
    x = RNG.integers(-3, 4, form).astype(np.float64)
    function = gradient(lambda x: MOVES[name](x, len(form) - 1))
    compiled = sg.compile(function, threads=2)
    np.testing.assert_array_equal(compiled(x).numpy(), function(sg.tensor(x)).numpy())
    assert not compiled.program.fallbacks()


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint32", "int64", "bool", "float64"])
def test_any_dtype_is_moved(dtype: str) -> None:
    x = RNG.integers(0, 2, (70, 33)).astype(dtype)
    for name in ("concatenate parts", "roll", "tile", "repeat"):
        function = lambda x, name=name: MOVES[name](x, 1)
        compiled = sg.compile(function, threads=2)
        np.testing.assert_array_equal(compiled(x).numpy(), function(sg.tensor(x)).numpy(), strict=True)
        assert not compiled.program.fallbacks()


INDICES: list[Any] = [
    np.s_[1:], np.s_[::-1],
    np.s_[::2], np.s_[-3::-2], np.s_[2], np.s_[-1], np.s_[:, 1], np.s_[:, None, 2:3], np.s_[1, 2],
    np.s_[..., ::3], np.s_[1:4:2, ::-3], np.s_[4:1:-2, None, 3], np.s_[2:3], np.s_[5:9:3, 1:],
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_gradients_of_slices(index: Any) -> None:
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    function = gradient(lambda x: x[index])
    compiled = sg.compile(function)
    np.testing.assert_array_equal(compiled(x).numpy(), function(sg.tensor(x)).numpy())
    assert not compiled.program.fallbacks()


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, 1e-45, -1.5])
def test_padding_keeps_the_bits_of_its_number(value: float) -> None:
    x = np.ones((3, 20), np.float32)
    found = sg.compile(lambda x: np.pad(x, ((0, 0), (3, 30)), constant_values=value))(x).numpy()
    expected = np.pad(x, ((0, 0), (3, 30)), constant_values=value)
    assert found.tobytes() == expected.astype(np.float32).tobytes()


def test_clip_at_hard_numbers() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3.0, 1e-45] * 4, np.float32)
    for low, high in [(0.0, 1.0), (-0.0, 1.0), (-1.0, -0.0), (np.nan, 1.0), (0.0, np.nan), (3, 1), (-np.inf, np.inf)]:
        ends = [np.asarray(e, np.float32) for e in (low, high)]
        compiled = sg.compile(np.clip)
        assert compiled(x, *ends).numpy().tobytes() == np.clip(x, *ends).tobytes(), (low, high)
        assert not compiled.program.fallbacks()
    ids = np.arange(-5, 6)
    np.testing.assert_array_equal(sg.compile(lambda x: np.clip(x, -2, 3))(ids).numpy(), np.clip(ids, -2, 3))


def test_masks_of_triangles_keep_what_is_hidden_out_of_sums() -> None:
    x = np.full((4, 4), np.nan, np.float32)
    x[np.tril_indices(4)] = 1
    assert sg.compile(lambda x: np.sum(np.tril(x)))(x).item() == 10
