"""Moves that layers are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgrad as sg
from programs.running import Run, Value, move


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
