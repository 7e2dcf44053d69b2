"""Moves that make a step of a function: constants, cells, gradients."""

from __future__ import annotations

import numpy as np

import stepgrad as sg
from programs.running import Run, Value, move


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
