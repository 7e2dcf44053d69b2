"""Moves that add up: reductions and products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import stepgrad as sg
from programs.running import LARGE, MOST, Run, Value, axes_of, fits, move


@move
def reduction(run: Run, p: int, q: int, r: int, s: int, *_: int) -> Value | None:
    v = run.small(run.float(p))
    if not v.shape:
        return None
    axes, keepdims = axes_of(q, len(v.shape)), bool(s % 2)
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
    return Value(f(v.x, axis=axes_of(q, len(v.shape)), keepdims=bool(s // 3 % 2)), 1e5, False)


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
    if not fits(a[:-2], b[:-2]):
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
