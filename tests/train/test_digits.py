"""The embedded digits."""

from __future__ import annotations

from importlib import resources

import numpy as np

from stepgrad.train import digits


def test_digits_are_what_uci_has() -> None:
    X, y = digits.load()
    assert (X.shape, X.dtype) == ((1797, 64), np.float32)
    assert (y.shape, y.dtype) == ((1797,), np.int64)
    assert (X.min(), X.max()) == (0, 1)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (16 * X).sum() == 561718


def test_a_fifth_is_held_out_and_it_is_always_the_same() -> None:
    (X, y), (X_test, y_test) = digits.split()
    assert (len(X), len(X_test)) == (1437, 360)
    assert y_test[:10].tolist() == digits.split()[1][1][:10].tolist()
    together = np.concatenate([X, X_test])
    assert sorted(map(bytes, together)) == sorted(map(bytes, digits.load()[0]))
    assert np.bincount(np.concatenate([y, y_test])).sum() == 1797


def test_they_are_attributed() -> None:
    text = resources.files("stepgrad.train").joinpath("data", "README.md").read_text(encoding="utf-8")
    assert "E. Alpaydin and C. Kaynak" in text
    assert "CC BY 4.0" in text
