"""Moves that compute each element by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import stepgrad as sg
from programs.running import Run, Value, fits, move

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
    conditions = [v for v in run.known if v.kind == "b" and fits(np.broadcast_shapes(a.shape, b.shape), v.shape)]
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
    b = run.float(q, lambda v: not v.rough and fits(a.shape, v.shape)) or a
    condition = [np.greater, np.less_equal, np.equal, np.not_equal][r % 4](a.x, b.x)
    others = [v for v in run.known if v.kind == "b" and fits(v.shape, np.broadcast_shapes(a.shape, b.shape))]
    if others and r > 30:
        f = [np.logical_and, np.logical_or, np.logical_xor, lambda x, y: np.logical_not(x) | y][r % 4]
        condition = f(condition, others[q % len(others)].x)
    return Value(condition, 1.0, False)


@move
def integer(run: Run, p: int, q: int, r: int, *_: int) -> Value | None:
    a = run.one(p, lambda v: v.kind in "ib")
    b = run.one(q, lambda v: v.kind in "ib" and fits(a.shape, v.shape))
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
