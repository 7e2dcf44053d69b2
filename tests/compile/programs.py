"""Random programs: data that is interpreted as a step over inputs and cells, so that any executor can run it.

A program is a list of moves, each an op's name and a few numbers that choose operands, axes and the like
from whatever is there. Every list of moves means something, so what is found to fail can be made smaller
by leaving moves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import stepgrad as sg

MOST = 40_000
"""Elements of the largest tensor."""
LARGE = 100.0
"""A number that may be larger than this is folded back before it is used in a product or a sum."""


@dataclass(frozen=True)
class Move:
    """An op, and the numbers that choose what it is applied to."""

    op: str
    picks: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A step over four arrays and four cells.

    Attributes:
        dtype: of floats.
        sizes: three lengths, of which shapes are made.
        moves: what is computed.
        returned: chooses the outputs.
        seed: of the inputs' values.
    """

    dtype: str
    sizes: tuple[int, int, int]
    moves: tuple[Move, ...]
    returned: tuple[int, ...]
    seed: int = 0

    def inputs(self) -> list[np.ndarray]:
        """x (n, m), v (m,), integers (n,) below m, booleans (n, m). Floats are small whole numbers."""
        n, m, _ = self.sizes
        rng = np.random.default_rng(self.seed)
        return [
            rng.integers(-3, 4, (n, m)).astype(self.dtype),
            rng.integers(-3, 4, m).astype(self.dtype),
            rng.integers(0, max(1, m), n),
            rng.random((n, m)) < 0.5,
        ]

    def cells(self) -> dict[str, Any]:
        """W, V (n, m), U (m, k), c (): trained and not."""
        n, m, k = self.sizes
        rng = np.random.default_rng(self.seed + 1)
        draw = lambda *shape: np.asarray(rng.integers(-3, 4, shape), self.dtype)
        return {
            "W": sg.Parameter(draw(n, m), name="W"),
            "V": sg.State(draw(n, m), name="V"),
            "U": sg.Parameter(draw(m, k), name="U"),
            "c": sg.State(draw(), name="c"),
        }

    def step(self, cells: dict[str, Any]) -> Callable[..., Any]:
        """The function of the inputs; it reads and assigns the cells."""

        def step(x: Any, v: Any, i: Any, mask: Any) -> Any:
            run = Run(cells, [x, v, i, mask])
            for move in self.moves:
                run.make(move)
            return run.results(self.returned)

        return step


@dataclass(frozen=True)
class Value:
    """A tensor, or what stands for one. `bound`: of its elements. `rough`: rounding may differ between executors."""

    x: Any
    bound: float
    rough: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def kind(self) -> str:
        return np.dtype(self.x.dtype).kind

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Run:
    """A program being interpreted."""

    def __init__(self, cells: dict[str, Any], inputs: list[Any]) -> None:
        self.cells = cells
        self.known = [Value(x, 70.0 if np.dtype(x.dtype).kind == "i" else 4.0, False) for x in inputs]

    def results(self, returned: tuple[int, ...]) -> Any:
        """Some of what is known: perhaps the same twice, an input, a view; and always the last."""
        found = [self.known[p % len(self.known)].x for p in returned]
        return [*found, self.known[-1].x]

    # --- choosing

    def one(self, pick: int, test: Callable[[Value], bool] = lambda v: True) -> Value | None:
        """One of the values that pass a test, late ones first."""
        found = [v for v in reversed(self.known) if test(v)]
        return found[pick % min(len(found), 6) if pick < 60 else pick % len(found)] if found else None

    def float(self, pick: int, test: Callable[[Value], bool] = lambda v: True) -> Value | None:
        return self.one(pick, lambda v: v.kind == "f" and test(v))

    def pair(self, p: int, q: int) -> tuple[Value, Value] | None:
        """Two floats that broadcast."""
        a = self.float(p)
        assert a is not None
        b = self.float(q, lambda v: _fits(a.shape, v.shape))
        return None if b is None else (a, b)

    def small(self, v: Value, most: float = LARGE) -> Value:
        """The value, folded into a small range if it may be large."""
        if v.bound <= most:
            return v
        if v.rough:
            return Value(np.tanh(v.x), 1.0, True)
        return Value(np.clip(v.x, -8, 8), 8.0, False)

    def make(self, move: Move) -> None:
        """Adds what a move computes, if it finds something to work on."""
        found = MOVES[move.op](self, *move.picks)
        for each in found if isinstance(found, list) else [found]:
            if each is not None and each.size <= MOST:
                self.known.append(each)


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= MOST
    except ValueError:
        return False


def _axes(pick: int, ndim: int) -> tuple[int, ...]:
    chosen = [d for d in range(ndim) if pick >> d & 1]
    return tuple(chosen) if chosen else tuple(range(ndim))


MOVES: dict[str, Callable[..., Any]] = {}
PICKS = 5


def move(f: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a move, by the name of its function."""
    MOVES[f.__name__.strip("_")] = f
    return f


# --- elementwise

_EXACT_ONE: list[tuple[Callable[[Any], Any], Callable[[float], float]]] = [
    (np.negative, lambda b: b),
    (np.absolute, lambda b: b),
    (np.square, lambda b: b * b),
    (sg.relu, lambda b: b),
    (lambda x: sg.leaky_relu(x, 2.0), lambda b: 2 * b),
    (lambda x: x**2, lambda b: b * b),
    (lambda x: x**3, lambda b: b**3),
    (lambda x: 2 - x, lambda b: b + 2),
    (lambda x: x * 3, lambda b: 3 * b),
    (lambda x: x / 2, lambda b: b),
    (lambda x: np.clip(x, -2, 5), lambda b: 5.0),
    (lambda x: np.maximum(x, 1), lambda b: b + 1),
    (lambda x: x * (x > 0), lambda b: b),
    (sg.stop_gradient, lambda b: b),
]
_STEPS: list[Callable[[Any], Any]] = [
    *(np.sign, np.floor, np.ceil, np.rint, np.trunc),
    lambda x: sg.astype(x > 0, x.dtype),
    lambda x: sg.astype(x >= 1, x.dtype) - sg.astype(x == 2, x.dtype),
    lambda x: np.fmax(x, 0),
    lambda x: sg.astype(np.isfinite(x), x.dtype) * x,
    lambda x: sg.astype(np.logical_and(x > 0, x < 2), x.dtype),
    lambda x: sg.astype(sg.astype(x, np.int64), x.dtype),
    lambda x: sg.astype(sg.astype(x, np.int32), x.dtype),
    lambda x: np.remainder(x, 3),
]
_ROUGH: list[tuple[Callable[[Any], Any], float]] = [
    (np.exp, math.exp(8)),
    (np.tanh, 1.0),
    (sg.sigmoid, 1.0),
    (sg.softplus, 10.0),
    (sg.gelu, 8.0),
    (sg.silu, 8.0),
    (np.sin, 1.0),
    (np.cos, 1.0),
    (sg.erf, 1.0),
    (sg.elu, 8.0),
    (sg.mish, 8.0),
    (sg.log_sigmoid, 9.0),
    (lambda x: np.log(np.absolute(x) + 1), 4.0),
    (lambda x: np.log1p(np.absolute(x)), 4.0),
    (lambda x: np.sqrt(np.absolute(x) + 1), 4.0),
    (lambda x: 1 / (1 + x * x), 1.0),
    (lambda x: np.expm1(x / 4), 8.0),
    (lambda x: np.arctan(x), 2.0),
    (lambda x: (np.absolute(x) + 1) ** 1.5, 30.0),
    (lambda x: 2.0 ** (x / 4), 8.0),
    (lambda x: (np.absolute(x) + 1) ** (x / 8), 10.0),
]


@move
def exact(run: Run, p: int, q: int, *_: int) -> Value:
    v = run.small(run.float(p))
    f, bound = _EXACT_ONE[q % len(_EXACT_ONE)]
    return Value(f(v.x), bound(v.bound), v.rough)


@move
def stepped(run: Run, p: int, q: int, *_: int) -> Value | None:
    v = run.float(p, lambda v: not v.rough)
    return None if v is None else Value(_STEPS[q % len(_STEPS)](v.x), v.bound, False)


@move
def rough(run: Run, p: int, q: int, *_: int) -> Value:
    v = run.small(run.float(p), 8.0)
    f, bound = _ROUGH[q % len(_ROUGH)]
    return Value(f(v.x), bound, True)


@move
def arithmetic(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    found = run.pair(p, q)
    if found is None:
        return None
    a, b = found
    if s % 2:
        a, b = b, a
    a, b = (run.small(v) for v in (a, b))
    rough = a.rough or b.rough
    f, bound = [
        (np.add, a.bound + b.bound),
        (np.subtract, a.bound + b.bound),
        (np.multiply, a.bound * b.bound),
        (np.maximum, max(a.bound, b.bound)),
        (np.minimum, max(a.bound, b.bound)),
        (lambda x, y: x / (1 + y * y), a.bound),
    ][r % 6]
    return Value(f(a.x, b.x), bound, rough)


@move
def choose(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    found = run.pair(p, q)
    if found is None:
        return None
    a, b = found
    conditions = [v for v in run.known if v.kind == "b" and _fits(np.broadcast_shapes(a.shape, b.shape), v.shape)]
    smooth = [v for v in (a, b) if not v.rough]
    if conditions and s % 2:
        condition = conditions[r % len(conditions)].x
    elif len(smooth) == 2:
        condition = [np.greater, np.less, np.equal, np.not_equal, np.less_equal][r % 5](a.x, b.x)
    else:
        return None
    return Value(sg.where(condition, a.x, b.x), max(a.bound, b.bound), a.rough or b.rough)


@move
def boolean(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    a = run.float(p, lambda v: not v.rough)
    if a is None:
        return None
    b = run.float(q, lambda v: not v.rough and _fits(a.shape, v.shape)) or a
    condition = [np.greater, np.less_equal, np.equal, np.not_equal][r % 4](a.x, b.x)
    others = [v for v in run.known if v.kind == "b" and _fits(v.shape, np.broadcast_shapes(a.shape, b.shape))]
    if others and r > 30:
        f = [np.logical_and, np.logical_or, np.logical_xor, lambda x, y: np.logical_not(x) | y][r % 4]
        condition = f(condition, others[q % len(others)].x)
    return Value(condition, 1.0, False)


@move
def integer(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    a = run.one(p, lambda v: v.kind in "ib")
    b = run.one(q, lambda v: v.kind in "ib" and _fits(a.shape, v.shape))
    if b is None:
        return None
    x, y = (sg.astype(v.x, np.int64) if v.kind == "b" else v.x for v in (a, b))
    if a.bound * b.bound > 1e4:
        x, y = x % 5, np.clip(y, 0, 9)
    f = [
        *(np.add, np.subtract, np.multiply, np.maximum, np.minimum),
        lambda x, y: x * (x > y),
        lambda x, y: sg.where(x < y, -x, y),
        lambda x, y: np.absolute(x - y),
        lambda x, y: sg.astype(x, np.int32) + 1,
    ][r % 9]
    return Value(f(x, y), 1e4, False)


@move
def cast(run: Run, p: int, q: int, *_: int) -> Value | None:
    if q % 4 == 0:
        a = run.one(p, lambda v: v.kind in "ib")
        return Value(sg.astype(a.x, [np.float32, np.float64][q // 4 % 2]), a.bound, False)
    if q % 4 == 1:
        a = run.float(p, lambda v: not v.rough)
        return None if a is None else Value(sg.astype(a.x, [np.int64, np.int32, np.bool_][q // 4 % 3]), a.bound, False)
    a = run.float(p)
    return Value(sg.astype(a.x, [np.float32, np.float64][q // 4 % 2]), a.bound, a.rough)


# --- reductions


@move
def reduction(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    v = run.small(run.float(p))
    if not v.shape:
        return None
    axes, keepdims = _axes(q, len(v.shape)), bool(s % 2)
    count = math.prod(v.shape[d] for d in axes)
    how = r % 8
    if how in (1, 2, 4, 5, 7) and not count:
        return None
    if how == 3:  # products of ones, zeros and minus ones stay small
        v = run.small(v, 1.0) if v.rough else Value(np.clip(v.x, -1, 1), 1.0, False)
    f, bound, rough = [
        (np.sum, v.bound * count, v.rough),
        (np.max, v.bound, v.rough),
        (np.min, v.bound, v.rough),
        (np.prod, 1.0, v.rough),
        (np.mean, v.bound, True),
        (np.var, v.bound**2, True),
        (lambda x, **how: np.sum(np.absolute(x), **how), v.bound * count, v.rough),
        (sg.logsumexp, v.bound + math.log(count + 1), True),
    ][how]
    return Value(f(v.x, axis=axes, keepdims=keepdims), bound, rough)


@move
def others_reduced(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    """Reductions of booleans and integers; places of extremes."""
    if r % 3 == 0:
        v = run.one(p, lambda v: v.kind == "b" and bool(v.shape))
        f = [np.any, np.all, np.sum][s % 3]
    elif r % 3 == 1:
        v = run.one(p, lambda v: v.kind == "i" and bool(v.shape) and v.size > 0)
        f = [np.sum, np.max, np.min][s % 3]
    else:
        v = run.one(p, lambda v: not v.rough and bool(v.shape) and v.size > 0)
        if v is None:
            return None
        f = [np.argmax, np.argmin][s % 2]
        return Value(f(v.x, axis=q % len(v.shape)), 1e4, False)
    if v is None:
        return None
    return Value(f(v.x, axis=_axes(q, len(v.shape)), keepdims=bool(s // 3 % 2)), 1e5, False)


# --- matrix products


@move
def product(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    a = run.float(p, lambda v: bool(v.shape))
    if a is None:
        return None
    ways: list[tuple[Value, Any, Any]] = []
    for b in [v for v in reversed(run.known) if v.kind == "f" and v.shape][:12]:
        for left in (a.x, a.x.mT if len(a.shape) > 1 else None):
            for right in (b.x, b.x.mT if len(b.shape) > 1 else None):
                if left is not None and right is not None and _multiply(tuple(left.shape), tuple(right.shape)):
                    ways += [(b, left, right)]
    if not ways:
        return None
    b, left, right = ways[q % len(ways)]
    inner = left.shape[-1]
    most = LARGE if inner < 1000 else 8.0
    if max(a.bound, b.bound) > most:
        left, right = (np.tanh(x) if v.rough else np.clip(x, -8, 8) for x, v in ((left, a), (right, b)))
    bound = min(a.bound, LARGE) * min(b.bound, LARGE) * inner
    if s % 4 == 3:
        left, right = right.mT if len(right.shape) > 1 else right, left.mT if len(left.shape) > 1 else left
        if not _multiply(tuple(left.shape), tuple(right.shape)):
            return None
    return Value(left @ right, bound, a.rough or b.rough)


def _multiply(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    inner = b[-2] if len(b) > 1 else b[-1]
    if a[-1] != inner:
        return False
    if not _fits(a[:-2], b[:-2]):
        return False
    rows, columns = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
    size = math.prod(np.broadcast_shapes(a[:-2], b[:-2])) * rows * columns
    return size <= MOST and size * inner <= 20_000_000


@move
def summed_products(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    a = run.float(p, lambda v: len(v.shape) == 2)
    if a is None or 0 in a.shape or a.size > 5000:
        return None
    a = run.small(a, 8.0)
    text = ["ij,ij->i", "ij,ij->j", "ij,kj->ik", "ij,ik->jk", "ij,ij->", "ij->ji", "ij,ik->kj"][q % 7]
    if math.prod(a.shape) * max(a.shape) > 4_000_000:
        return None
    count = text.split("->")[0].count(",") + 1
    return Value(sg.einsum(text, *[a.x] * count), a.bound**2 * a.size, a.rough)


# --- what layers are made of


@move
def layer(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    v = run.float(p, lambda v: bool(v.shape) and v.size > 0)
    if v is None:
        return None
    v = run.small(v, 8.0)
    axis = r % len(v.shape)

    def normalised(x: Any) -> Any:
        centred = x - np.mean(x, axis=axis, keepdims=True)
        return centred / np.sqrt(np.mean(centred * centred, axis=axis, keepdims=True) + 1.0)

    f = [
        lambda x: sg.softmax(x, axis=axis),
        lambda x: sg.log_softmax(x, axis=axis),
        lambda x: x - sg.logsumexp(x, axis=axis, keepdims=True),
        normalised,
        lambda x: x / (1 + np.max(np.absolute(x), axis=axis, keepdims=True)),
        lambda x: np.exp(x - np.max(x, axis=axis, keepdims=True)),
    ][q % 6]
    return Value(f(v.x), 20.0, True)


@move
def labels(run: Run, p: int, q: int, *_: int) -> Value | None:
    ids = run.known[2]
    if q % 3 == 0:
        a = run.known[0]
        return Value(sg.one_hot(ids.x, max(1, a.shape[-1]), dtype=a.x.dtype), 1.0, False)
    a = run.float(p, lambda v: len(v.shape) == 2 and v.shape == run.known[0].shape and v.size > 0)
    if a is None:
        return None
    a = run.small(a, 8.0)
    return Value(sg.losses.cross_entropy(a.x, ids.x, reduction=["mean", "sum"][q % 2]), 50.0, True)


# --- views


_SLICES = [(1, None), (None, None, -1), (None, None, 2), (-3, None, -2), (0, 1), (None, -1), (7, 2, -3)]


@move
def view(run: Run, p: int, q: int, r: int, s: int, t: int) -> Value | None:
    v = run.one(p, lambda v: t % 5 == 0 or v.kind == "f")
    shape, ndim = v.shape, len(v.shape)
    x = v.x
    how = q % 10
    if how == 0:
        x = x.reshape(-1)
    elif how == 1 and ndim > 1:
        x = np.swapaxes(x, r % ndim, s % ndim)
    elif how == 2:
        x = np.expand_dims(x, r % (ndim + 1))
    elif how == 3 and ndim:
        x = np.flip(x, axis=r % ndim)
    elif how == 4 and ndim:
        index = [slice(None)] * ndim
        index[r % ndim] = slice(*_SLICES[s % 7])
        x = x[tuple(index)]
    elif how == 5 and ndim and shape[r % ndim]:
        d = r % ndim
        x = x[(slice(None),) * d + (s % shape[d] - (shape[d] if t % 2 else 0),)]
    elif how == 6:
        x = sg.broadcast_to(x, ([1, 2, 3][r % 3], *shape))
    elif how == 7 and ndim == 2:
        d = s % 3
        n = shape[0]
        x = x.reshape(2, n // 2, shape[1]) if n % 2 == 0 and d else x.reshape(shape[1], n)
    elif how == 8 and ndim > 1:
        x = x.T if r % 2 else x.reshape(shape[0], -1)
    elif how == 9 and ndim:
        x = x[..., None] if r % 2 else x[None]
        x = x[(slice(None),) * (s % 2) + (slice(None, None, -1),)]
    else:
        return None
    return Value(x, v.bound, v.rough)


# --- joining and picking


@move
def joined(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    v = run.float(p, lambda v: bool(v.shape) and v.size <= 10_000)
    if v is None:
        return None
    other = run.float(q, lambda o: o.shape == v.shape) or v
    d = r % len(v.shape)
    rough, bound = v.rough or other.rough, max(v.bound, other.bound)
    widths = [(0, 0)] * len(v.shape)
    widths[d] = (s % 3, r % 2)
    f = [
        lambda a, b: sg.concatenate([a, b], axis=d),
        lambda a, b: sg.stack([a, b], axis=d),
        lambda a, b: np.pad(a, widths),
        lambda a, b: np.roll(a, s + 1, axis=d),
        lambda a, b: np.repeat(a, 2, axis=d),
        lambda a, b: sg.concatenate([a, a[::-1], b], axis=0),
    ][(s + r) % 6]
    return Value(f(v.x, other.x), bound, rough)


@move
def picked(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    v = run.float(p, lambda v: bool(v.shape) and v.size > 0)
    if v is None:
        return None
    d = r % len(v.shape)
    how = q % 4
    if how == 0:
        ids = run.known[2].x
        return Value(sg.take(v.x, ids % v.shape[d], axis=d), v.bound, v.rough)
    if how == 1 and not v.rough and v.size < 5000:
        return Value(np.cumsum(run.small(v, 8.0).x, axis=d), 8.0 * v.size, False)
    if how == 2 and not v.rough and v.size < 5000:
        return Value(np.sort(v.x, axis=d), v.bound, False)
    if how == 3 and not v.rough:
        order = np.expand_dims(np.argmax(v.x, axis=d), d)
        return Value(sg.take_along_axis(v.x, order, axis=d), v.bound, False)
    return None


@move
def triangle(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    v = run.float(p, lambda v: len(v.shape) >= 2)
    if v is None:
        return None
    return Value([np.tril, np.triu][q % 2](v.x, k=r % 5 - 2), v.bound, v.rough)


# --- constants and cells


@move
def made(run: Run, p: int, q: int, *_: int) -> Value:
    """Something that depends on nothing, or on the shape of something only."""
    v = run.one(p, lambda v: v.kind == "f")
    dtype = v.x.dtype
    x = [
        lambda: sg.tensor(np.asarray(q % 5 - 2, dtype)),
        lambda: sg.tensor(np.arange(v.size, dtype=dtype).reshape(v.shape) % 3),
        lambda: sg.zeros_like(v.x),
        lambda: sg.ones_like(v.x) * 2,
        lambda: v.x,
    ][q % 5]()
    return Value(x, max(3.0, v.bound), v.rough)


@move
def read(run: Run, p: int, *_: int) -> Value:
    name = "WVUc"[p % 4]
    return Value(run.cells[name] * 1 if p % 8 < 4 else +run.cells[name], 9.0, True)


@move
def assign(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    """Writes a cell: with something computed, with another cell's value, with its own turned about."""
    name = "WVUc"[p % 4]
    cell = run.cells[name]
    how = q % 6
    if how == 0 and name in "WV":  # two cells change places
        a, b = +run.cells["W"], +run.cells["V"]
        run.cells["W"].assign(run.cells["V"])
        run.cells["V"].assign(a if r % 2 else b * 1)
        return Value(a, 9.0, True)
    if how == 1 and len(cell.shape) == 2:
        turned = [lambda c: c[::-1], lambda c: c[:, ::-1], lambda c: -c, lambda c: np.roll(c, 1, axis=0)][r % 4](
            cell * 1 if s % 2 else +cell
        )
        cell.assign(turned)
        return None
    if how == 2 and len(cell.shape) == 2 and cell.shape[0] == cell.shape[1]:
        cell.assign(np.transpose(run.cells["W" if run.cells["W"].shape == cell.shape else name] * 1))
        return None
    if how == 3 and len(cell.shape) == 2 and cell.shape[0] == cell.shape[1]:
        out = np.tanh(cell @ cell)
        cell.assign(out)
        return Value(cell @ out, 1e3, True)
    v = run.float(r, lambda v: v.shape == tuple(cell.shape) and v.x.dtype == cell.dtype)
    if v is None:
        return None
    v = run.small(v, 8.0)
    old = +cell
    cell.assign(cell * 0.5 + v.x if s % 2 else v.x)
    return Value(old, 9.0, True) if s % 3 == 0 else None


@move
def gradient(run: Run, p: int, q: int, r: int, s: int, *_: int) -> list[Value]:
    """Gradients of something for the trained cells; perhaps the gradient of their square, too."""
    W, U = run.cells["W"], run.cells["U"]
    x, v = run.known[0].x, run.known[1].x
    h = [
        lambda: np.tanh(W * x + v) @ U,
        lambda: sg.relu(x * W) @ U,
        lambda: (W @ U) * 2,
        lambda: sg.softmax(W * x, axis=1) @ U,
        lambda: np.maximum(W, x) @ sg.softplus(U),
        lambda: (np.max(W, axis=1, keepdims=True) + W) @ U if 0 not in W.shape else W @ U,
        lambda: (W[::-1] * x) @ U,
        lambda: np.where(W > 0, np.square(W), x) @ U,
    ][q % 8]()
    loss = sg.sum(h * h) * 0.125 if r % 2 else sg.sum(h)
    later = [k for k in run.known[4:] if k.kind == "f" and k.size and k.size <= 5000][-3:]
    for each in later:
        loss = loss + sg.sum(sg.astype(np.tanh(run.small(each, 8.0).x), W.dtype)) * 0.5
    found = sg.backward(loss, [W, U])
    if s % 3 == 0:
        found = [*found, *sg.backward(sg.sum(np.tanh(found[0])) + sg.sum(found[1] * U), [W, U])]
    return [Value(loss, 1e6, True), *[Value(g, 1e6, True) for g in found]]
