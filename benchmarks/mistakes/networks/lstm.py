"""A long short-term memory layer over time, (batch, time, features); a downstream gradient `dh`."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
    H = prev_h.shape[1]
    a = x @ Wx + prev_h @ Wh + b
    i = sigmoid(a[:, :H])
    f = sigmoid(a[:, H : 2 * H])
    o = sigmoid(a[:, 2 * H : 3 * H])
    g = np.tanh(a[:, 3 * H :])
    next_c = f * prev_c + i * g
    tanh_c = np.tanh(next_c)
    next_h = o * tanh_c
    cache = (x, prev_h, prev_c, i, f, o, g, tanh_c)
    return next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache, Wx, Wh):
    x, prev_h, prev_c, i, f, o, g, tanh_c = cache
    do = dnext_h * tanh_c
    dc = dnext_c + dnext_h * o * (1 - tanh_c**2)
    df = dc * prev_c
    di = dc * g
    dg = dc * i
    dprev_c = dc * f
    da = np.hstack((di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)))
    dx = da @ Wx.T
    dWx = x.T @ da
    dprev_h = da @ Wh.T
    dWh = prev_h.T @ da
    db = np.sum(da, axis=0)
    return dx, dprev_h, dprev_c, dWx, dWh, db


def lstm_forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    h = []
    caches = []
    prev_h = h0
    prev_c = np.zeros(h0.shape)
    for t in range(T):
        prev_h, prev_c, cache = lstm_step_forward(x[:, t, :], prev_h, prev_c, Wx, Wh, b)
        h.append(prev_h)
        caches.append(cache)
    return np.stack(h, axis=1), caches


def lstm_backward(dh, Wx, Wh, cache):
    caches = cache
    N, T, H = dh.shape
    D = Wx.shape[0]
    dx = np.zeros((N, T, D))
    dWx = np.zeros((D, 4 * H))
    dWh = np.zeros((H, 4 * H))
    db = np.zeros(4 * H)
    dprev_h = np.zeros((N, H))
    dprev_c = np.zeros((N, H))
    for t in range(T - 1, -1, -1):
        dnext_h = dh[:, t, :] + dprev_h
        dx_t, dprev_h, dprev_c, dWx_t, dWh_t, db_t = lstm_step_backward(dnext_h, dprev_c, caches[t], Wx, Wh)
        dx[:, t, :] = dx_t
        dWx += dWx_t
        dWh += dWh_t
        db += db_t
    dh0 = dprev_h
    return dx, dh0, dWx, dWh, db


# --- what the benchmark knows about it

PAIR = ("lstm_forward", "lstm_backward")
GRADIENTS = ("x", "h0", "Wx", "Wh", "b")
WEIGHTS = ("Wx", "Wh")
BIASES = ("db",)
DIVISORS = {}


def make_inputs(rng):
    return {
        "x": rng.normal(size=(2, 3, 5)),
        "h0": rng.normal(size=(2, 7)),
        "Wx": rng.normal(size=(5, 28)),
        "Wh": 0.5 * rng.normal(size=(7, 28)),
        "b": rng.normal(size=28),
    }


PLANTS = {
    "derivative-twice": [("dg * (1 - g**2)", "dg * (1 - g**2) ** 2")],
    "other-layers-cache": [
        ("df = dc * prev_c", "df = dc * tanh_c"),
        ("di = dc * g", "di = dc * i"),
        ("dg = dc * i", "dg = dc * f"),
        ("dWh = prev_h.T @ da", "dWh = (o * tanh_c).T @ da"),
        ("dprev_c, caches[t], Wx", "dprev_c, caches[t - 1], Wx"),
    ],
    "preactivation-for-activation": [
        ("cache = (x, prev_h, prev_c, i, f, o, g, tanh_c)", "cache = (x, prev_h, prev_c, i, f, o, g, next_c)")
    ],
    "activation-derivative-missing": [
        ("di * i * (1 - i)", "di"),
        ("df * f * (1 - f)", "df"),
        ("dg * (1 - g**2)", "dg"),
        ("dnext_h * o * (1 - tanh_c**2)", "dnext_h * o"),
    ],
    "derivative-at-activation": [
        ("(1 - g**2)", "(1 - np.tanh(g) ** 2)"),
        ("do * o * (1 - o)", "do * sigmoid(o) * (1 - sigmoid(o))"),
    ],
    "path-forgotten": [
        ("dc = dnext_c + dnext_h * o * (1 - tanh_c**2)", "dc = dnext_h * o * (1 - tanh_c**2)"),
        ("dc = dnext_c + dnext_h * o * (1 - tanh_c**2)", "dc = dnext_c"),
        ("dnext_h = dh[:, t, :] + dprev_h", "dnext_h = dh[:, t, :]"),
        ("dnext_h = dh[:, t, :] + dprev_h", "dnext_h = dprev_h"),
    ],
    "wrong-order": [
        ("in range(T - 1, -1, -1)", "in range(T)"),
        ("np.hstack((di * i * (1 - i), df * f * (1 - f), ", "np.hstack((df * f * (1 - f), di * i * (1 - i), "),
    ],
    "weights-after-update": [("    dprev_h = da @ Wh.T", "    Wh = Wh - 0.1 * prev_h.T @ da\n    dprev_h = da @ Wh.T")],
    "cache-mutated": [("    dprev_h = da @ Wh.T", "    prev_h *= 0.9\n    dprev_h = da @ Wh.T")],
    "forward-disagrees-with-cache": [
        ("cache = (x, prev_h, prev_c, i, f, o, g, tanh_c)", "cache = (x, next_h, prev_c, i, f, o, g, tanh_c)"),
        ("cache = (x, prev_h, prev_c, i, f, o, g, tanh_c)", "cache = (x, prev_h, next_c, i, f, o, g, tanh_c)"),
    ],
    "stale-cache": [("        caches.append(cache)", "        caches.append(caches[0] if caches else cache)")],
}
