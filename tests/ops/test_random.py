"""Random numbers: frozen values, the published algorithm, moments and distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special, stats

import stepgrad as sg
from stepgrad.errors import ArgumentError, DtypeError
from stepgrad.tape.recording import recording

KEY = sg.random.key(2024)
MANY = 20_000


# --- the generator


def philox(key: Any, counter: list[int]) -> list[int]:
    """Philox4x64-10 as published: ten rounds of two multiplications (Salmon et al. 2011, section 4.3)."""
    word = 2**64 - 1
    k, c = [int(w) for w in key], list(counter)
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k[0], b & word, (a >> 64) ^ c[3] ^ k[1], a & word]
        k = [(k[0] + 0x9E3779B97F4A7C15) & word, (k[1] + 0xBB67AE8584CAA73B) & word]
    return c


def words(key: Any, count: int, purpose: int = 0, block: int = 0) -> np.ndarray:
    found: list[int] = []
    while len(found) < count:
        found += philox(np.asarray(key), [block, 0, 0, purpose])
        block += 1
    return np.array(found[:count], np.uint64)


def test_the_published_known_answers() -> None:
    """The first two are in the test vectors of Random123, the authors' own implementation."""
    assert philox([0, 0], [0, 0, 0, 0]) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    ones = 2**64 - 1
    assert philox([ones, ones], [ones] * 4) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


def test_numbers_are_made_of_words_as_documented() -> None:
    w = words(KEY, 10)
    np.testing.assert_array_equal(sg.random.uniform(KEY, 10, dtype=np.float64), (w >> 11) * 2.0**-53)
    np.testing.assert_array_equal(sg.random.uniform(KEY, (2, 5)).numpy().ravel(), (w >> 40) * 2.0**-24)
    z = special.ndtri(((w >> 12) + 0.5) * 2.0**-52)
    np.testing.assert_array_equal(sg.random.normal(KEY, 10, dtype=np.float64), z)
    np.testing.assert_array_equal(sg.random.normal(KEY, 10), z.astype(np.float32))
    np.testing.assert_array_equal(sg.random.bernoulli(KEY, 0.3, 10), (w >> 11) * 2.0**-53 < 0.3)
    np.testing.assert_array_equal(sg.random.integers(KEY, -5, 95, 10), [-5 + (int(v) * 100 >> 64) for v in w])
    np.testing.assert_array_equal(sg.random.integers(KEY, 2**32 - 1, shape=10), [int(v) * (2**32 - 1) >> 64 for v in w])
    np.testing.assert_array_equal(sg.random.permutation(KEY, 10), np.argsort(w))
    np.testing.assert_array_equal(sg.random.split(KEY, 3), words(KEY, 6, purpose=1).reshape(3, 2))
    for number in (0, 7, 2**64 - 1):
        np.testing.assert_array_equal(sg.random.fold_in(KEY, number), words(KEY, 2, purpose=2, block=number))


def test_frozen_values() -> None:
    """These numbers never change: seeds in other people's code stand for them."""
    key = sg.random.key(0)
    np.testing.assert_array_equal(key, [0, 0])
    np.testing.assert_array_equal(sg.random.key(2**64 + 5), [5, 1])
    expected = np.array([0.08723908662796021, 0.8559721708297729, 0.8433753252029419], np.float32)
    np.testing.assert_array_equal(sg.random.uniform(key, 3), expected)
    np.testing.assert_allclose(sg.random.normal(key, 3), [-1.3579541, 1.0623968, 1.0084275], rtol=1e-6)
    np.testing.assert_array_equal(sg.random.integers(key, 1, 7, 5), [1, 6, 6, 3, 1])
    np.testing.assert_array_equal(sg.random.permutation(key, 5), [4, 0, 3, 2, 1])


# --- keys


def test_the_same_key_gives_the_same_numbers() -> None:
    for draw in (sg.random.uniform, sg.random.normal):
        np.testing.assert_array_equal(draw(KEY, (3, 4)), draw(KEY, (3, 4)))
        np.testing.assert_array_equal(draw(KEY, 100)[:7], draw(KEY, 7))
        np.testing.assert_array_equal(draw(KEY.numpy(), 7), draw(KEY, 7))
    assert not np.any(sg.random.uniform(KEY, 50).numpy() == sg.random.uniform(sg.random.key(2025), 50).numpy())


def test_new_keys_are_independent() -> None:
    keys = [KEY, *sg.random.split(KEY, 4), *(sg.random.fold_in(KEY, i) for i in range(4))]
    assert len({tuple(k.tolist()) for k in keys}) == len(keys)
    draws = np.array([sg.random.normal(k, MANY, dtype=np.float64).numpy() for k in keys])
    correlations = np.corrcoef(draws)[np.triu_indices(len(keys), 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(MANY)


def test_more_keys_begin_with_the_same() -> None:
    np.testing.assert_array_equal(sg.random.split(KEY, 5)[:2], sg.random.split(KEY))
    first, second = sg.random.split(KEY)
    assert first.shape == second.shape == (2,)
    assert sg.random.split(KEY, 0).shape == (0, 2)


def test_a_step_may_be_a_tensor() -> None:
    np.testing.assert_array_equal(sg.random.fold_in(KEY, sg.tensor(3)), sg.random.fold_in(KEY, 3))


# --- distributions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (lambda k, t: sg.random.uniform(k, MANY, dtype=t), stats.uniform()),
        (lambda k, t: sg.random.uniform(k, MANY, -2.0, 3.0, dtype=t), stats.uniform(-2, 5)),
        (lambda k, t: sg.random.normal(k, MANY, dtype=t), stats.norm()),
        (lambda k, t: sg.random.normal(k, MANY, 5.0, 2.0, dtype=t), stats.norm(5, 2)),
    ],
    ids=["uniform", "uniform -2 3", "normal", "normal 5 2"],
)
def test_distributions(draw: Any, distribution: Any, dtype: Any) -> None:
    drawn = draw(KEY, dtype).numpy()
    assert drawn.dtype == dtype
    assert stats.kstest(drawn.astype(np.float64), distribution.cdf).pvalue > 0.01
    assert abs(drawn.mean() - distribution.mean()) < 4 * distribution.std() / np.sqrt(MANY)
    assert abs(drawn.std() / distribution.std() - 1) < 0.03


def test_bernoulli_and_integers() -> None:
    chances = np.array([0.0, 0.1, 0.5, 1.0])
    drawn = sg.random.bernoulli(KEY, chances, (MANY, 4)).numpy()
    assert drawn.dtype == np.bool_
    np.testing.assert_allclose(drawn.mean(axis=0), chances, atol=0.02)
    assert drawn[:, 3].all()
    assert not drawn[:, 0].any()
    counts = np.bincount(sg.random.integers(KEY, 6, shape=MANY).numpy())
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.01


def test_permutation() -> None:
    order = sg.random.permutation(KEY, 1000).numpy()
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15
    x = sg.tensor(np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(sg.random.permutation(KEY, x), x.numpy()[sg.random.permutation(KEY, 3).numpy()])


# --- shapes, dtypes, gradients


@pytest.mark.parametrize("shape", [(), (0,), 3, (2, 0, 3), (2, 3), [4]])
def test_shapes(shape: Any) -> None:
    wanted = (shape,) if isinstance(shape, int) else tuple(shape)
    assert sg.random.uniform(KEY, shape).shape == wanted
    assert sg.random.normal(KEY, shape, 1.0, 2.0).shape == wanted
    assert sg.random.bernoulli(KEY, 0.5, shape).shape == wanted
    assert sg.random.integers(KEY, 9, shape=shape).shape == wanted


def test_dtypes_follow_the_settings() -> None:
    assert sg.random.normal(KEY, 3).dtype == np.float32
    assert sg.random.normal(KEY, 3, np.zeros(3)).dtype == np.float64
    assert sg.random.uniform(KEY, 3, np.zeros(3), 1.0, dtype=np.float32).dtype == np.float32
    assert sg.random.bernoulli(KEY, np.float32([0.1, 0.2])).shape == (2,)


def test_gradients_flow_to_the_settings() -> None:
    z = sg.random.normal(KEY, (2, 3), dtype=np.float64).numpy()
    mean, std = np.zeros(3), np.ones((2, 1))
    dmean, dstd = sg.grad(lambda m, s: sg.sum(sg.random.normal(KEY, (2, 3), m, s)), (0, 1))(mean, std)
    np.testing.assert_allclose(dmean, [2, 2, 2])
    np.testing.assert_allclose(dstd, z.sum(axis=1, keepdims=True))
    u = sg.random.uniform(KEY, 4, dtype=np.float64).numpy()
    low, high = sg.grad(lambda a, b: sg.sum(sg.random.uniform(KEY, 4, a, b)), (0, 1))(0.0, 1.0)
    np.testing.assert_allclose([low, high], [(1 - u).sum(), u.sum()])


def test_a_draw_is_an_equation_of_its_key() -> None:
    with recording(equations=[]) as state:
        sg.random.normal(sg.random.fold_in(KEY, 1), (2,))
    assert [e.op.name for e in state.equations or ()] == ["random_fold_in", "random_normal"]


# --- errors


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sg.random.normal(0, 3), r"0 was given as the key[^$]*sg\.random\.key\(seed\)"),
        (lambda: sg.random.normal(np.zeros(2), 3), r"a key of shape \(2,\) and dtype float64 was given"),
        (lambda: sg.random.uniform(sg.random.split(KEY), 3), r"a key of shape \(2, 2\)"),
        (lambda: sg.random.key(-1), "the seed -1 was given[^$]*from 0 to"),
        (lambda: sg.random.key(1.5), "the seed was given as 1.5"),
        (lambda: sg.random.split(KEY, -1), "the number of keys was given as -1"),
        (lambda: sg.random.fold_in(KEY, -1), "-1 was folded into a key"),
        (lambda: sg.random.fold_in(KEY, "layer"), "folded into a key|can't be made into a tensor"),
        (lambda: sg.random.fold_in(KEY, 0.5), "0.5 was folded into a key"),
        (lambda: sg.random.uniform(KEY, (2, -1)), r"shape=\(2, -1\) was given"),
        (lambda: sg.random.uniform(KEY, 2.5), "a length in shape was given as 2.5"),
        (lambda: sg.random.normal(KEY, 3, 0.0, -1.0), "std=-1.0 was given to normal"),
        (lambda: sg.random.bernoulli(KEY, 1.5), r"probability=1.5 was given to bernoulli[^$]*sg\.sigmoid"),
        (lambda: sg.random.bernoulli(KEY, [0.5, -0.1]), "probability=-0.1"),
        (lambda: sg.random.bernoulli(KEY, np.nan), "probability=nan"),
        (lambda: sg.random.integers(KEY, 5, 5), "the range is empty"),
        (lambda: sg.random.integers(KEY, 0, 2**40), r"more than 2\*\*32 - 1"),
        (lambda: sg.random.normal(KEY, (), np.zeros(3)), r"broadcast to \(3,\)[^$]*pass shape=\(3,\)"),
        (lambda: sg.random.permutation(KEY, -1), "the number of elements was given as -1"),
    ],
)
def test_bad_arguments_say_what_to_write(call: Any, text: str) -> None:
    with pytest.raises((ArgumentError, DtypeError), match=text) as caught:
        call()
    assert caught.value.why
    assert caught.value.instead


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(DtypeError, match="dtype int64 were asked for"):
        sg.random.uniform(KEY, 3, dtype=np.int64)
    with pytest.raises(DtypeError, match="float16"):
        sg.random.normal(KEY, 3, dtype=np.float16)
