"""Random numbers from a key: the same key gives the same numbers, everywhere and in every executor.

The generator is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), a
function from a key of two 64-bit words and a counter of four to four random words. Nothing is stored
and nothing advances: new numbers come from new keys, made by `split` and `fold_in`.

How numbers are made of words, so that any executor can make the same:

- The counter of the n-th block is (n, 0, 0, purpose), lowest word first: purpose 0 for drawing, 1 for
  `split`, 2 for `fold_in`. Each element takes one word, in C order.
- `uniform`: the highest bits of the word, as many as the dtype's significand has (53 for float64, 24
  for float32), as a fraction: (word >> 11) * 2**-53, (word >> 40) * 2**-24.
- `normal`: ndtri(((word >> 12) + 0.5) * 2**-52), the inverse of the normal distribution function, in
  float64; then rounded to the dtype.
- `integers`: low + floor(word * (high - low) / 2**64).
- `permutation`: the order that sorts the words.
- `split`: key i is words 2 i and 2 i + 1. `fold_in`: the first two words of the block with that number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError
from stepgrad.ops.arguments import array_of, dtype_of, whole, whole_numbers
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.lazy import special
from stepgrad.ops.registry import register
from stepgrad.ops.samples import constant as always
from stepgrad.ops.taking import take
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tape.op import Op, Shape, TensorType
from stepgrad.tape.recording import record
from stepgrad.tensor import Array, ArrayLike, Tensor, describe, functions

__all__ = ["bernoulli", "fold_in", "integers", "key", "normal", "permutation", "split", "uniform"]

_SEED = always(np.array([7, 0], np.uint64))


def random_words(key: Array, count: int, purpose: int = 0, block: int = 0) -> Array:
    """`count` 64-bit words of Philox4x64-10 from a block on."""
    before = (block + (purpose << 192) - 1) % 2**256  # NumPy counts up before it draws
    return np.random.Philox(key=key, counter=before).random_raw(count)


def random_uniform(key: Array, shape: Shape, dtype: Any) -> Array:
    """Numbers spread evenly over [0, 1)."""
    bits = np.finfo(dtype).nmant + 1
    words = random_words(key, math.prod(shape)) >> (64 - bits)
    return (words.astype(dtype) * np.asarray(2.0**-bits, dtype)).reshape(shape)


def random_normal(key: Array, shape: Shape, dtype: Any) -> Array:
    """Standard normal numbers."""
    inside = ((random_words(key, math.prod(shape)) >> 12) + 0.5) * 2.0**-52  # never 0, never 1
    return special.ndtri(inside).astype(dtype).reshape(shape)


def random_integers(key: Array, shape: Shape, count: int) -> Array:
    """Integers from 0 to count - 1, which is below 2**32."""
    words = random_words(key, math.prod(shape))
    low, high = words & 0xFFFFFFFF, words >> 32
    return ((high * count + (low * count >> 32)) >> 32).astype(np.int64).reshape(shape)


def random_permutation(key: Array, count: int) -> Array:
    """The numbers from 0 to count - 1 in random order."""
    return np.argsort(random_words(key, count), stable=True)


def random_split(key: Array, count: int) -> Array:
    """New keys, one in each row."""
    return random_words(key, 2 * count, 1).reshape(count, 2)


def random_fold_in(key: Array, number: Any) -> Array:
    """A new key for a number."""
    return random_words(key, 2, 2, int(number))


def _is_key(key: TensorType) -> None:
    if key.shape != (2,) or key.dtype != np.uint64:
        raise ArgumentError(
            f"a key of shape {key.shape} and dtype {key.dtype} was given",
            "a key is two 64-bit words: shape (2,), dtype uint64",
            "make one with sg.random.key(seed), and more of it with sg.random.split(key)",
        )


def _draw_shape(key: TensorType, shape: Shape, **params: Any) -> Shape:
    _is_key(key)
    return shape


def _numbers_shape(key: TensorType, count: int) -> Shape:
    _is_key(key)
    return (count,)


def _keys_shape(key: TensorType, count: int) -> Shape:
    _is_key(key)
    return (count, 2)


def _folded_shape(key: TensorType, number: TensorType) -> Shape:
    _is_key(key)
    return (2,)


def _drawing(numpy: Any, shape: Any, dtype: Any, text: str, *samples: Any, operands: int = 1) -> Op:
    return register(
        Op(
            numpy.__name__,
            shape=shape,
            dtype=dtype,
            numpy=numpy,
            rules=(None,) * operands,
            text=f"{numpy.__name__}({text})",
            samples=samples,
            doc=numpy.__doc__,
        )
    )


def _asked(*types: TensorType, **params: Any) -> np.dtype[Any]:
    return params["dtype"]


def _integers(*types: TensorType, **params: Any) -> np.dtype[Any]:
    return np.dtype(np.int64)


def _words(*types: TensorType, **params: Any) -> np.dtype[Any]:
    return np.dtype(np.uint64)


_float32, _float64 = np.dtype(np.float32), np.dtype(np.float64)
_BOTH = [(_SEED, {"shape": (2, 3), "dtype": dtype}) for dtype in (_float32, _float64)]

_uniform = _drawing(random_uniform, _draw_shape, _asked, "{0}, {shape}, np.{dtype}", *_BOTH)
_normal = _drawing(random_normal, _draw_shape, _asked, "{0}, {shape}, np.{dtype}", *_BOTH)
_integers_op = _drawing(
    random_integers, _draw_shape, _integers, "{0}, {shape}, {count}", (_SEED, {"shape": (4,), "count": 6})
)
_permutation = _drawing(random_permutation, _numbers_shape, _integers, "{0}, {count}", (_SEED, {"count": 5}))
_split = _drawing(random_split, _keys_shape, _words, "{0}, {count}", (_SEED, {"count": 3}))
_fold_in = _drawing(random_fold_in, _folded_shape, _words, "{0}, {1}", (_SEED, 3), operands=2)


# --- keys


def key(seed: int) -> Tensor:
    """The key for a seed: its two lowest 64-bit words.

    Args:
        seed: a whole number from 0 to 2**128 - 1.

    Example:
        >>> sg.random.key(7)
        tensor([7, 0], dtype=uint64)
    """
    number = whole(seed, "the seed")
    if not 0 <= number < 2**128:
        raise ArgumentError(f"the seed {number} was given", "a key has 128 bits", "use a seed from 0 to 2**128 - 1")
    return constant(np.array([number & 0xFFFFFFFFFFFFFFFF, number >> 64], np.uint64))


def split(key: Any, n: int = 2) -> Tensor:
    """New keys, whose numbers have nothing to do with each other's and the old key's.

    Args:
        key: a key; use it for nothing else.
        n: how many.

    Returns:
        Shape (n, 2): one key in each row, to be unpacked.

    Example:
        >>> first, second = sg.random.split(sg.random.key(7))
        >>> first
        tensor([11310874879079425737,  2033989612907493575], dtype=uint64)
    """
    return record(_split, (_key(key),), {"count": _count(n, "the number of keys")})


def fold_in(key: Any, number: Any) -> Tensor:
    """A new key for a number, such as a step or the position of a layer.

    Args:
        key: a key.
        number: a whole number from 0 to 2**64 - 1, or an integer tensor of shape ().

    Example:
        >>> sg.random.fold_in(sg.random.key(7), 3).shape
        (2,)
    """
    tensor = array_of(number)
    if tensor.shape != () or tensor.dtype.kind not in "iu":
        raise ArgumentError(
            f"{describe(tensor)} was folded into a key" if tensor.shape else f"{number!r} was folded into a key",
            "each whole number gives a new key",
            "pass one int; for a name use zlib.crc32(name.encode())",
        )
    if tensor.value is not None and not 0 <= int(tensor.value) < 2**64:
        raise ArgumentError(
            f"{int(tensor.value)} was folded into a key", "the number is one 64-bit word", "use one from 0 to 2**64 - 1"
        )
    return record(_fold_in, (_key(key), tensor), {})


def _key(key: Any) -> Tensor:
    if not isinstance(key, (ArrayLike, np.ndarray)):
        raise ArgumentError(
            f"{key!r} was given as the key",
            "a key is two 64-bit words: shape (2,), dtype uint64",
            "make one with sg.random.key(seed), and more of it with sg.random.split(key)",
        )
    return as_tensor(key)


def _count(n: Any, meaning: str) -> int:
    number = whole(n, meaning)
    if number < 0:
        raise ArgumentError(f"{meaning} was given as {number}", "it can't be negative", "pass 0 or more")
    return number


def _shape(shape: Any) -> Shape:
    lengths = whole_numbers(shape, "a length in shape")
    if any(n < 0 for n in lengths):
        raise ArgumentError(f"shape={shape} was given", "no axis has a negative length", "pass lengths of 0 or more")
    return lengths


# --- numbers


def uniform(key: Any, shape: Any = (), low: Any = 0.0, high: Any = 1.0, dtype: Any = None) -> Tensor:
    """Numbers spread evenly over [low, high).

    Args:
        key: a key from `key`, `split` or `fold_in`; use each for one draw.
        shape: an int or a tuple.
        low, high: numbers, or tensors that broadcast to the shape; gradients flow to them, by
            low + (high - low) * u. (Rounding may reach `high`.)
        dtype: float32 or float64; by default that of `low` and `high` if they are arrays, else float32.

    Example:
        >>> sg.random.uniform(sg.random.key(0), 3)
        tensor([0.08723909, 0.8559722 , 0.8433753 ], dtype=float32)
    """
    kind = _dtype_of(dtype, low, high)
    unit = record(_uniform, (_key(key),), {"shape": _shape(shape), "dtype": kind})
    if _is_number(low, 0) and _is_number(high, 1):
        return unit
    start, end = _setting(low, kind), _setting(high, kind)
    plain = start.equation.type.weak and end.equation.type.weak  # then Python subtracts, and the dtype stays open
    return _spread(unit, start, as_tensor(high - low) if plain else functions["subtract"](end, start))


def normal(key: Any, shape: Any = (), mean: Any = 0.0, std: Any = 1.0, dtype: Any = None) -> Tensor:
    """Normally distributed numbers.

    Args:
        key: a key from `key`, `split` or `fold_in`; use each for one draw.
        shape: an int or a tuple.
        mean, std: numbers, or tensors that broadcast to the shape; gradients flow to them, by mean + std * z.
        dtype: float32 or float64; by default that of `mean` and `std` if they are arrays, else float32.

    Example:
        >>> sg.random.normal(sg.random.key(0), 3)
        tensor([-1.3579541,  1.0623968,  1.0084275], dtype=float32)
    """
    kind = _dtype_of(dtype, mean, std)
    unit = record(_normal, (_key(key),), {"shape": _shape(shape), "dtype": kind})
    spread = as_tensor(std).value
    if spread is not None and not np.all(np.asarray(spread) >= 0):
        raise ArgumentError(
            f"std={std} was given to normal", "a standard deviation is not negative", "pass numbers of 0 or more"
        )
    if _is_number(mean, 0) and _is_number(std, 1):
        return unit
    return _spread(unit, _setting(mean, kind), _setting(std, kind))


def bernoulli(key: Any, probability: Any = 0.5, shape: Any = None) -> Tensor:
    """True with a probability, and otherwise False.

    Args:
        key: a key from `key`, `split` or `fold_in`; use each for one draw.
        probability: from 0 to 1, a number or a tensor that broadcasts to the shape.
        shape: an int or a tuple; by default that of `probability`.

    Returns:
        Booleans, to which no gradient flows.

    Example:
        >>> sg.random.bernoulli(sg.random.key(0), 0.3, shape=4)
        tensor([ True, False, False, False], dtype=bool)
    """
    chance = as_tensor(probability)
    if chance.value is not None:
        value = np.asarray(chance.value)
        if not np.all((value >= 0) & (value <= 1)):
            raise ArgumentError(
                f"probability={value.min() if value.ndim and value.min() < 0 else value.max()} was given to bernoulli",
                "probabilities run from 0 to 1",
                "divide by 100 if it is in percent; apply sg.sigmoid if it is a logit",
            )
    lengths = chance.shape if shape is None else _shape(shape)
    unit = record(_uniform, (_key(key),), {"shape": lengths, "dtype": _float64})
    return _fits(functions["less"](unit, chance), lengths)


def integers(key: Any, low: int, high: int | None = None, shape: Any = ()) -> Tensor:
    """Whole numbers from `low` to `high` - 1, each as likely as the others.

    Args:
        key: a key from `key`, `split` or `fold_in`; use each for one draw.
        low, high: the range; with one of them given, from 0 to that.
        shape: an int or a tuple.

    Example:
        >>> sg.random.integers(sg.random.key(0), 1, 7, shape=5)
        tensor([1, 6, 6, 3, 1], dtype=int64)
    """
    start, stop = (0, whole(low, "high")) if high is None else (whole(low, "low"), whole(high, "high"))
    if not 0 < stop - start < 2**32:
        raise ArgumentError(
            f"whole numbers from {start} to {stop - 1} were asked for",
            "the range is empty" if stop <= start else "the range has more than 2**32 - 1 numbers",
            "pass low < high" if stop <= start else "combine two draws",
        )
    drawn = record(_integers_op, (_key(key),), {"shape": _shape(shape), "count": stop - start})
    return functions["add"](drawn, start) if start else drawn


def permutation(key: Any, x: Any) -> Tensor:
    """The numbers from 0 to `x` - 1 in random order; or the rows of an array in random order.

    Args:
        key: a key from `key`, `split` or `fold_in`; use each for one draw.
        x: how many; or a tensor or array, which is shuffled along its first axis.

    Example:
        >>> sg.random.permutation(sg.random.key(0), 5)
        tensor([4, 0, 3, 2, 1], dtype=int64)
    """
    rows = isinstance(x, (ArrayLike, np.ndarray, list)) and np.ndim(x) > 0
    count = len(x) if rows else _count(x, "the number of elements")
    order = record(_permutation, (_key(key),), {"count": count})
    return take(x, order, axis=0) if rows else order


def _dtype_of(dtype: Any, *settings: Any) -> np.dtype[Any]:
    arrays = [t.dtype for t in map(as_tensor, settings) if not t.equation.type.weak and t.dtype.kind == "f"]
    found = dtype_of(dtype) if dtype is not None else np.result_type(*arrays) if arrays else _float32
    if found not in (_float32, _float64):
        raise DtypeError(
            f"random numbers with dtype {found} were asked for",
            "they are made as float32 or float64",
            "convert them afterwards with .astype",
        )
    return found


def _is_number(x: Any, number: float) -> bool:
    return isinstance(x, (int, float)) and x == number


def _setting(x: Any, dtype: np.dtype[Any]) -> Tensor:
    tensor = as_tensor(x)
    return tensor if tensor.equation.type.weak else to_dtype(tensor, dtype)


def _spread(unit: Tensor, low: Tensor, width: Tensor) -> Tensor:
    return _fits(functions["add"](low, functions["multiply"](width, unit)), unit.shape)


def _fits(drawn: Tensor, shape: Shape) -> Tensor:
    if drawn.shape != shape:
        raise ArgumentError(
            f"numbers of shape {shape} were asked for, with settings that broadcast to {drawn.shape}",
            "one number would be used in several places, and the copies would not be independent",
            f"pass shape={drawn.shape}",
        )
    return drawn
