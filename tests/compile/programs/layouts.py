"""Moves that turn, cut, join and pick."""

from __future__ import annotations

import numpy as np

import stepgrad as sg
from programs.running import Run, Value, move

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
