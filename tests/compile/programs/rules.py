"""Moves with rules of their own: recomputed, with a gradient that the user wrote, and linear algebra."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgrad as sg
from programs.running import Run, Value, move


@sg.custom_rule
def clipped_back(x: Any, *, most: float = 1.0) -> Any:
    return x * 2


@clipped_back.backward
def _(g: Any, out: Any, x: Any, *, most: float = 1.0) -> Any:
    return np.clip(g, -most, most) + out * 0


@sg.custom_rule
def straight_through(x: Any, y: Any) -> Any:
    return np.round(x) + y


@straight_through.backward
def _(g: Any, out: Any, x: Any, y: Any) -> Any:
    return g * np.tanh(x), None


@move
def custom(run: Run, p: int, q: int, r: int, *_: int) -> Value | list[Value] | None:
    v = run.float(p, lambda v: not v.rough)
    if v is None:
        return None
    v = run.small(v, 8.0)
    if q % 3 == 0:
        return Value(clipped_back(v.x, most=[1.0, 0.5][r % 2]), 2 * v.bound, False)
    if q % 3 == 1:
        return Value(straight_through(v.x, v.x * 0.5), 2 * v.bound, False)
    W = run.cells["W"]
    loss = sg.sum(clipped_back(W * 3)) + sg.sum(straight_through(W, W) * W)
    return [Value(g, 1e4, True) for g in sg.backward(loss, [W])]


@move
def checkpointed(run: Run, p: int, q: int, r: int, s: int, *_: int) -> list[Value]:
    """What is computed again in the backward pass, one inside of another perhaps, and what is read twice."""
    W, U, x = run.cells["W"], run.cells["U"], run.known[0].x

    def block(h: Any) -> Any:
        return [
            lambda: np.tanh(h * W),
            lambda: sg.softmax(h + W, axis=1) * W,
            lambda: np.where(h > 0, np.square(W), h),
            lambda: np.tanh(h @ (U @ U.T)) if U.shape[0] <= 64 else np.tanh(h) * W,
        ][q % 4]()

    def twice(h: Any) -> Any:
        return sg.checkpoint(block)(block(h)) if r % 2 else block(block(h))

    h = sg.checkpoint(block)(x * 0.25)
    h = sg.checkpoint(twice)(h) + (h if s % 2 else 0)
    loss = sg.sum(h * h) + sg.sum(W * W)
    found = sg.backward(loss, [W])
    if s % 3 == 0:
        found = [*found, *sg.backward(sg.sum(np.tanh(found[0])), [W])]
    return [Value(h, 100.0, True), Value(loss, 1e6, True), *[Value(g, 1e6, True) for g in found]]


@move
def algebra(run: Run, p: int, q: int, r: int, *_: int) -> Value | list[Value] | None:
    """Linear algebra of matrices that are far from singular."""
    v = run.float(p, lambda v: len(v.shape) >= 2 and min(v.shape[-2:]) > 0 and v.size <= 2000)
    if v is None:
        return None
    n = min(*v.shape[-2:], 5)
    square = np.tanh(v.x[..., :n, :n]) * 0.5
    near = square + np.eye(n, dtype=v.x.dtype) * 2 * n
    definite = square @ square.mT + np.eye(n, dtype=v.x.dtype)
    return [
        lambda: Value(sg.linalg.inv(near), 2.0, True),
        lambda: Value(sg.linalg.solve(near, square), 2.0, True),
        lambda: Value(sg.linalg.det(near / (2 * n)), 3.0, True),
        lambda: Value(sg.linalg.cholesky(definite), 3.0, True),
        lambda: Value(sg.linalg.slogdet(near)[1], 20.0, True),
        lambda: Value(sg.grad(lambda a: sg.sum(sg.linalg.inv(a)))(near), 2.0, True),
        lambda: Value(sg.grad(lambda a: sg.sum(sg.linalg.solve(a, square) ** 2))(near), 9.0, True),
        lambda: Value(sg.linalg.trace(square) * np.ones((), v.x.dtype), 3.0, True),
    ][q % 8]()
