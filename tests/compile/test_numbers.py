"""The hardest numbers, compiled: NaN, infinities, both zeros, denormals, the largest; and what is out of range."""

from __future__ import annotations

import mmap
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import IndexingError
from stepgrad.execute.cpu import plan
from stepgrad.tree import flatten

DTYPES = [np.float32, np.float64]


@pytest.fixture(autouse=True)
def threads_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs, too, are run by as many threads as were asked for."""
    monkeypatch.setattr(plan, "SMALL", 0)


def hard(dtype: Any) -> np.ndarray:
    """Numbers on which inexact algebra shows."""
    info = np.finfo(dtype)
    numbers = [np.nan, np.inf, -np.inf, 0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, info.tiny]
    numbers += [info.max, -info.max, 1.0, -1.0, 0.5, -2.5, 1.5, 2.5, 0.1, 7.3, -30.0, 88.0, 3e9, -3e9, 1e19, 255.0]
    return np.array(numbers, dtype)


def pairs(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Each with each."""
    x = hard(dtype)
    a, b = np.meshgrid(x, x)
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def rows(dtype: Any, n: int) -> np.ndarray:
    """Rows of n numbers: in the i-th row, hard ones at places that move; in the first rows one kind each."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((24, n)).astype(dtype)
    special = hard(dtype)
    for i in range(24):
        x[i, rng.integers(0, n, 1 + i % 3)] = special[i]
    x[0], x[1, :] = np.nan, -np.inf
    x[2] = -0.0
    x[3] = np.where(np.arange(n) % 2, np.inf, -np.inf)
    return x


def both(function: Callable[..., Any], *arrays: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(compiled, on NumPy) for each result."""
    found = []
    for executor in ("cpu", "numpy"):
        results = flatten(sg.compile(function, executor=executor)(*arrays))[0]
        found.append([np.asarray(t.numpy() if isinstance(t, sg.Tensor) else t) for t in results])
    return list(zip(*found, strict=True))


def plain(a: np.ndarray) -> np.ndarray:
    """The bits, with one NaN for all."""
    if a.dtype.kind != "f":
        return a
    return np.where(np.isnan(a), np.asarray(np.nan, a.dtype), a).view(f"i{a.itemsize}")


def assert_same_bits(found: np.ndarray, expected: np.ndarray, *inputs: np.ndarray, zeros: bool = True) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    wrong = plain(found) != plain(expected)
    if not zeros and found.dtype.kind == "f":
        wrong &= found != expected
    assert not wrong.any(), (
        found[wrong][:5],
        expected[wrong][:5],
        [a[wrong][:5] for a in inputs if a.shape == wrong.shape],
    )


ONE: dict[str, Callable[[Any], Any]] = {
    **{f.__name__: f for f in (np.negative, np.absolute, np.square, np.sqrt, np.sign, np.reciprocal)},
    **{f.__name__: f for f in (np.floor, np.ceil, np.trunc, np.rint, np.fabs)},
    **{f.__name__: f for f in (np.isnan, np.isinf, np.isfinite, np.signbit, np.logical_not)},
    "relu": sg.relu,
    "leaky_relu": lambda a: sg.leaky_relu(a, 0.25),
    "clip": lambda a: np.clip(a, -1, 2),
    "clip from below": lambda a: np.clip(a, 0, None),
    "masked": lambda a: a * (a > 0),
    "times zero": lambda a: a * 0,
    "plus zero": lambda a: a + 0.0,
    "minus itself": lambda a: a - a,
    "over itself": lambda a: a / a,
    "half": lambda a: a / 2,
    "square by power": lambda a: a**2,
    "cube": lambda a: a * a * a,
    "inverse by power": lambda a: a**-1,
    "where": lambda a: sg.where(a > 1, a, 1 / a),
    "nan_to_num": np.nan_to_num,
    "to bool": lambda a: sg.astype(a, np.bool_),
    "to the other float": lambda a: sg.astype(a, np.float32 if a.dtype == np.float64 else np.float64),
    "gradient of relu": sg.grad(lambda a: np.sum(sg.relu(a))),
    "gradient of abs": sg.grad(lambda a: np.sum(np.absolute(a))),
    "gradient of clip": sg.grad(lambda a: np.sum(np.clip(a, -1, 2))),
    "gradient of where": sg.grad(lambda a: np.sum(sg.where(a > 0, np.sqrt(a), 0.0))),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_operand(dtype: Any) -> None:
    x = np.tile(hard(dtype), 3)  # whole vectors and a rest
    for found, expected in both(lambda a: [f(a) for f in ONE.values()], x):
        assert_same_bits(found, expected, x)
    for name, f in ONE.items():  # alone, with nothing around it to be fused with
        (pair,) = both(f, x[:7])
        assert_same_bits(*pair, x[:7]), name


TWO: list[Callable[[Any, Any], Any]] = [
    *(np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.fmax, np.fmin, np.copysign),
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.logical_and, np.logical_or, np.logical_xor, np.heaviside),
    lambda a, b: sg.where(a > b, a, b),
    lambda a, b: a * b + a,
    lambda a, b: (a == b) & ~(a < b),
    sg.grad(lambda a, b: np.sum(np.maximum(a, b))),
    sg.grad(lambda a, b: np.sum(np.minimum(a, b)), wrt=1),
    sg.grad(lambda a, b: np.sum(sg.where(a > b, a * b, 0.0))),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_operands(dtype: Any) -> None:
    a, b = pairs(dtype)
    for found, expected in both(lambda a, b: [f(a, b) for f in TWO], a, b):
        assert_same_bits(found, expected, a, b)


FUNCTIONS: list[Callable[[Any], Any]] = [
    *(np.exp, np.log, np.tanh, np.sin, np.cos, np.expm1, np.log1p, np.arctan, np.exp2, np.log2, np.cbrt),
    *(sg.sigmoid, sg.softplus, sg.gelu, sg.silu, sg.elu, sg.erf, sg.log_sigmoid, sg.mish, sg.selu),
    *(lambda a: a**1.5, lambda a: a**3, lambda a: 2.0**a, lambda a: a**0.5),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions(dtype: Any) -> None:
    x = hard(dtype)
    eps = np.finfo(dtype).eps
    for k, (found, expected) in enumerate(both(lambda a: [f(a) for f in FUNCTIONS], x)):
        finite = np.isfinite(expected)
        assert_same_bits(np.where(finite, 0, found), np.where(finite, 0, expected), x)
        np.testing.assert_allclose(
            found[finite], expected[finite], rtol=64 * eps, atol=8 * np.finfo(dtype).tiny, err_msg=str(FUNCTIONS[k])
        )
        zero = expected == 0
        assert (np.signbit(found[zero]) == np.signbit(expected[zero])).all(), FUNCTIONS[k]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [np.int64, np.int32])
def test_to_integers(dtype: Any, target: Any) -> None:
    """Numbers that fit; what the others become, NumPy leaves to the processor."""
    x = hard(dtype)
    info = np.iinfo(target)
    (pair,) = both(lambda a: sg.astype(a, target), x)
    with np.errstate(invalid="ignore"):
        fits = (x > info.min) & (x < info.max)
    np.testing.assert_array_equal(pair[0][fits], np.trunc(x[fits]).astype(target))
    if sys.platform == "linux":
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize("n", [1, 3, 8, 17, 64, 65, 200])
def test_reductions(n: int) -> None:
    exact = [
        *(np.max, np.min, np.argmax, np.argmin, np.any, np.all),
        lambda x, axis: np.sum(np.isnan(x), axis=axis),
        lambda x, axis: np.sum(sg.astype(x > 0, np.int64), axis=axis),
        lambda x, axis: np.max(x > 1, axis=axis),
    ]
    for dtype in DTYPES:
        for axis in (0, 1):
            x = rows(dtype, n)
            for k, (found, expected) in enumerate(both(lambda x, axis=axis: [f(x, axis=axis) for f in exact], x)):
                assert_same_bits(found, expected, zeros=k > 1)  # of 0.0 and -0.0, either is the largest


@pytest.mark.parametrize("n", [1, 3, 8, 17, 65, 200])
def test_sums_products_and_softmax(n: int) -> None:
    def several(x: Any) -> Any:
        found = []
        for axis in (0, 1):
            found += [np.sum(x, axis=axis), np.prod(x, axis=axis), np.mean(x, axis=axis), np.var(x, axis=axis)]
            found += [sg.softmax(x, axis=axis), sg.log_softmax(x, axis=axis), sg.logsumexp(x, axis=axis)]
        return [*found, np.sum(x), x @ x.T]

    for dtype in DTYPES:
        eps = float(np.finfo(dtype).eps)
        x = rows(dtype, n)
        moderate = np.where(np.isfinite(x) & (np.abs(x) > 1e6), 1.0, x).astype(
            dtype
        )  # else sums overflow by their order
        for found, expected in both(several, moderate):
            finite = np.isfinite(expected)
            assert_same_bits(np.where(finite, 0, found), np.where(finite, 0, expected))
            size = np.abs(expected[finite]).max(initial=1.0)
            np.testing.assert_allclose(found[finite], expected[finite], rtol=200 * eps, atol=30 * eps * size)


def test_what_a_mask_leaves_out_counts_for_nothing() -> None:
    x = np.zeros((3, 70), np.float32)
    x[0] = -np.inf
    x[1, 5:] = -np.inf

    def masked(x: Any) -> Any:
        squares = sg.grad(lambda x: np.sum(sg.softmax(x, axis=1)[:, 1] ** 2))(x)
        return (
            sg.softmax(x, axis=1),
            sg.log_softmax(x, axis=1),
            squares,
            sg.grad(lambda x: np.sum(sg.logsumexp(x, axis=1)))(x),
        )

    for found, expected in both(masked, x):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
        assert np.array_equal(found[0], np.full(70, -np.inf)) or not found[0].any()


def test_integers_wrap_as_numpys() -> None:
    for dtype in (np.int32, np.int64):
        info = np.iinfo(dtype)
        x = np.array([0, 1, -1, info.max, info.min, 7, -7, 3], dtype)
        a, b = (np.ascontiguousarray(m) for m in np.meshgrid(x, x))
        functions = [
            *(np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.less, np.equal),
            lambda a, b: np.absolute(a) - b,
            lambda a, b: sg.astype(a, np.float32) + b,
            lambda a, b: a / b,
            lambda a, b: -a,
            lambda a, b: np.sum(a * b, axis=0),
            lambda a, b: np.max(a - b, axis=1),
            lambda a, b: sg.astype(sg.astype(a, np.int32), np.int64),
        ]
        for found, expected in both(lambda a, b, functions=functions: [f(a, b) for f in functions], a, b):
            assert_same_bits(found, expected)


# --- what is out of range

N = 6
READERS: dict[str, tuple[Callable[[Any, Any], Any], int, int]] = {
    "cross_entropy": (lambda x, i: sg.losses.cross_entropy(x, i), 0, N - 1),
    "take": (lambda x, i: sg.take(x, i, axis=1), -N, N - 1),
    "indexing": (lambda x, i: x[:, i], -N, N - 1),
    "take_along_axis": (lambda x, i: sg.take_along_axis(x, np.expand_dims(i, 1), axis=1), -N, N - 1),
    "embedding": (
        lambda x, i: sg.backward(np.sum(x.T[i] ** 2), x) if isinstance(x, sg.Parameter) else x.T[i],
        -N,
        N - 1,
    ),
}


@pytest.mark.parametrize("bad", [-N - 1, N, 10**12, -(2**40), np.iinfo(np.int64).min, np.iinfo(np.int64).max])
@pytest.mark.parametrize("name", READERS)
def test_what_is_out_of_range_raises_and_changes_nothing(name: str, bad: int) -> None:
    read, low, high = READERS[name]
    x = np.arange(4 * N, dtype=np.float32).reshape(4, N)
    good = np.array([0, high, low, 1])
    count = sg.State(np.zeros(3, np.float32))

    @sg.compile(threads=2)
    def step(x: Any, i: Any) -> Any:
        count.assign(count + 1)
        return read(x, i)

    expected = np.asarray(read(sg.tensor(x), good))
    np.testing.assert_allclose(step(x, good).numpy(), expected, rtol=1e-6)
    wrong = good.copy()
    wrong[2] = bad
    with pytest.raises(Exception) as eager:
        read(sg.tensor(x), wrong)
    with pytest.raises(IndexingError, match="out of range"):
        step(x, wrong)
    assert isinstance(eager.value, IndexError)
    np.testing.assert_array_equal(count.numpy(), [1, 1, 1])
    np.testing.assert_allclose(step(x, good).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("name", [*READERS, "one_hot", "scatter_add"])
def test_indices_of_any_integer_dtype(name: str, dtype: str) -> None:
    more = {
        "one_hot": lambda x, i: sg.one_hot(i, N, dtype=np.float32) * x,
        "scatter_add": lambda x, i: sg.ops.indexing.index_add(x.T, i, x[:, :4]),
    }
    read = more.get(name) or READERS[name][0]
    x = np.arange(4 * N, dtype=np.float32).reshape(4, N)
    good = np.array([0, N - 1, 2, 1], dtype)
    count = sg.State(np.zeros(3, np.float32))

    @sg.compile(threads=2)
    def step(x: Any, i: Any) -> Any:
        count.assign(count + 1)
        return read(x, i)

    np.testing.assert_array_equal(step(x, good).numpy(), sg.compile(read, executor="numpy")(x, good).numpy())
    assert dtype == "uint64" or not step.program.fallbacks()
    wrong = good.copy()
    wrong[2] = 100
    if name != "one_hot":  # a number that is no class has no one in its row
        with pytest.raises(IndexError, match=r"out of (range|bounds)"):
            step(x, wrong)
        np.testing.assert_array_equal(count.numpy(), [1, 1, 1])
    np.testing.assert_array_equal(step(x, good).numpy(), step(x, good).numpy())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", READERS)
def test_a_scan_ends_at_the_step_that_is_out_of_range(name: str, threads: int) -> None:
    read, low, high = READERS[name]
    x = np.arange(4 * N, dtype=np.float32).reshape(4, N)
    X, ids = np.stack([x] * 5), np.tile([0, high, low, 1], (5, 1))
    count = sg.State(np.zeros(3, np.float32))

    @sg.compile(threads=threads)
    def step(x: Any, i: Any) -> Any:
        count.assign(count + 1)
        return read(x, i) * count[0]

    step.scan(X, ids)
    ids[3, 1] = N
    with pytest.raises(IndexingError, match="the steps before this one are done, and it changed nothing"):
        step.scan(X, ids)
    np.testing.assert_array_equal(count.numpy(), [8, 8, 8])
    with pytest.raises(IndexingError, match="nothing was changed"):
        step(x, ids[3])
    np.testing.assert_allclose(step(x, ids[0]).numpy(), 9 * read(sg.tensor(x), ids[0]).numpy(), rtol=1e-6)


def test_adding_to_places_out_of_range() -> None:
    add = sg.compile(lambda x, i: sg.ops.indexing.index_add(x, i, np.ones((3, N), np.float32)), threads=2)
    x = np.zeros((7, N), np.float32)
    assert add(x, np.array([6, 0, -7])).numpy().sum() == 3 * N
    for bad in (7, -8):
        with pytest.raises(IndexingError, match="they run from -7 to 6"):
            add(x, np.array([6, bad, 0]))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "uint32"])
def test_narrow_integers_become_floats_natively(dtype: str) -> None:
    x = np.array([0, 1, np.iinfo(dtype).max, np.iinfo(dtype).min, 77] * 9, dtype)
    f = sg.compile(lambda x: (x.astype(np.float32) * 2, x.astype(np.float64), x.astype(np.int64) - 1, x.astype(bool)))
    expected = x.astype(np.float32) * 2, x.astype(np.float64), x.astype(np.int64) - 1, x.astype(bool)
    for found, one in zip(f(x), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), one, strict=True)
    assert not f.program.fallbacks()


@pytest.mark.skipif(sys.platform != "linux", reason="pages that can't be read are set up as on Linux")
def test_nothing_is_read_or_written_behind_an_array() -> None:
    """Inputs end where readable memory ends; in a process of its own, which reading on would end."""
    code = f"""
    import ctypes, mmap, numpy as np, stepgrad as sg, warnings
    warnings.simplefilter("ignore")
    from stepgrad.execute.cpu import plan
    plan.SMALL = 0
    libc = ctypes.CDLL(None)

    def guarded(x):
        size = -(-x.nbytes // {mmap.PAGESIZE}) * {mmap.PAGESIZE}
        block = mmap.mmap(-1, size + {mmap.PAGESIZE})
        buffer = (ctypes.c_char * (size + {mmap.PAGESIZE})).from_buffer(block)
        assert not libc.mprotect(ctypes.c_void_p(ctypes.addressof(buffer) + size), {mmap.PAGESIZE}, 0)
        found = np.ndarray(x.shape, x.dtype, buffer, size - x.nbytes)
        found[...] = x
        return found

    def step(x, w, i):
        h = x @ w
        g = x.T @ h
        return (h, g, w.T @ x.T, np.sum(x, axis=0), np.max(x, axis=1), sg.softmax(x, axis=1), x[:, ::-1] + 1, x.T * 2,
                np.exp(x[1:]), sg.take(x, i, axis=0), np.argmax(x, axis=1), np.cumsum(x, axis=0), np.sum(x * w[:, 0]),
                sg.concatenate([x, x]), np.pad(x, 1), np.roll(x, 1, axis=1), np.cumprod(x[::-1], axis=1), np.tril(x),
                sg.stack([x, x], axis=1), np.tile(x, (2, 2)), sg.one_hot(i, 9),
                sg.grad(lambda w: np.sum(np.tanh(x @ w)))(w))

    for dtype in ("float32", "float64"):
        for n, m, k in ((1, 1, 1), (3, 5, 2), (7, 17, 9), (33, 65, 3), (2, 300, 1), (64, 16, 16)):
            x, w = np.ones((n, m), dtype), np.ones((m, k), dtype)
            i = np.arange(n) % min(n, 9)
            sg.compile(step, threads=2, executor="cpu")(*map(guarded, (x, w, i)))
    print("fine")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100)
    assert done.stdout == "fine\n", (done.returncode, done.stderr[-2000:])


@pytest.mark.parametrize("threads", [1, 2])
def test_denormals_are_kept_unless_they_are_to_be_flushed(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL", 0)
    x = np.full((64, 64), 1e-39, np.float32)

    def twice(x: Any) -> Any:
        return x * np.float32(2)

    kept = sg.compile(twice, threads=threads)(x)
    flushed = sg.compile(twice, threads=threads, denormals="flush")(x)
    np.testing.assert_array_equal(kept.numpy(), x * np.float32(2))
    np.testing.assert_array_equal(flushed.numpy(), 0 * x)
    assert (x * np.float32(1)).max() > 0  # the calling thread's own arithmetic is as it was
    with pytest.raises(sg.errors.ArgumentError, match="denormals='drop'"):
        sg.compile(twice, denormals="drop")
