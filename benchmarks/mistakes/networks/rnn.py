"""A vanilla recurrent network over a sequence of characters, column vectors kept in dictionaries by time step."""

import numpy as np


def loss_forward(inputs, targets, hprev, Wxh, Whh, Why, bh, by):
    xs, hs, ys, ps = {}, {}, {}, {}
    hs[-1] = hprev
    loss = 0
    vocab_size = Wxh.shape[1]
    for t in range(len(inputs)):
        xs[t] = np.zeros((vocab_size, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh)
        ys[t] = np.dot(Why, hs[t]) + by
        ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
        loss += -np.log(ps[t][targets[t], 0])
    return loss, (xs, hs, ys, ps)


def loss_backward(inputs, targets, Wxh, Whh, Why, bh, by, cache):
    xs, hs, ys, ps = cache
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dhnext = np.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Why.T, dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t - 1].T)
        dhnext = np.dot(Whh.T, dhraw)
    return dWxh, dWhh, dWhy, dbh, dby


# --- what the benchmark knows about it

PAIR = ("loss_forward", "loss_backward")
GRADIENTS = ("Wxh", "Whh", "Why", "bh", "by")
WEIGHTS = ("Why", "Whh")
DIVISORS = {}


def make_inputs(rng):
    return {
        "inputs": [3, 0, 4, 1],
        "targets": [0, 4, 1, 2],
        "hprev": rng.normal(size=(7, 1)),
        "Wxh": rng.normal(size=(7, 5)),
        "Whh": 0.5 * rng.normal(size=(7, 7)),
        "Why": rng.normal(size=(5, 7)),
        "bh": rng.normal(size=(7, 1)),
        "by": rng.normal(size=(5, 1)),
    }


PLANTS = {
    "preactivation-for-activation": [("dy = np.copy(ps[t])", "dy = np.copy(ys[t])")],
    "other-layers-cache": [
        ("np.dot(dhraw, hs[t - 1].T)", "np.dot(dhraw, hs[t].T)"),
        ("np.dot(dy, hs[t].T)", "np.dot(dy, hs[t - 1].T)"),
        ("(1 - hs[t] * hs[t])", "(1 - hs[t - 1] * hs[t - 1])"),
    ],
    "weights-after-update": [
        (
            "        dhnext = np.dot(Whh.T, dhraw)",
            "        Whh = Whh - 0.1 * dWhh\n        dhnext = np.dot(Whh.T, dhraw)",
        )
    ],
    "activation-derivative-missing": [("dhraw = (1 - hs[t] * hs[t]) * dh", "dhraw = dh")],
    "derivative-at-activation": [("(1 - hs[t] * hs[t])", "(1 - np.tanh(hs[t]) ** 2)")],
    "derivative-of-preactivation": [
        ("(1 - hs[t] * hs[t])", "(1 - (np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh) ** 2)"),
    ],
    "derivative-kept-with-fused-loss": [
        ("        dy[targets[t]] -= 1\n", "        dy[targets[t]] -= 1\n        dy *= ps[t] * (1 - ps[t])\n")
    ],
    "path-forgotten": [
        ("np.dot(Why.T, dy) + dhnext", "np.dot(Why.T, dy)"),
        ("        dhnext = np.dot(Whh.T, dhraw)\n", ""),
        ("        dy[targets[t]] -= 1\n", ""),
    ],
    "wrong-order": [("in reversed(range(len(inputs)))", "in range(len(inputs))")],
    "cache-mutated": [
        ("dy = np.copy(ps[t])", "dy = ps[t]"),
        (
            "        dh = np.dot(Why.T, dy) + dhnext\n",
            "        hs[t] *= 0.9\n        dh = np.dot(Why.T, dy) + dhnext\n",
        ),
    ],
    "clip-mismatch": [
        (
            "    return dWxh, dWhh, dWhy, dbh, dby",
            "    for dparam in [dWxh, dWhh, dWhy, dbh, dby]:\n        np.clip(dparam, -0.5, 0.5, out=dparam)\n    return dWxh, dWhh, dWhy, dbh, dby",
        ),
    ],
    "rounded-predictions": [
        ("dy = np.copy(ps[t])", "dy = np.round(ps[t])"),
        ("dy = np.copy(ps[t])", "dy = 1.0 * (ps[t] == ps[t].max())"),
    ],
    "sign": [("dy[targets[t]] -= 1", "dy[targets[t]] += 1")],
    "wrong-divisor": [("    return dWxh, dWhh,", "    dWhh /= len(inputs)\n    return dWxh, dWhh,")],
    "overwritten-at-fan-out": [
        ("dh = np.dot(Why.T, dy) + dhnext", "dh = dhnext if t < len(inputs) - 1 else np.dot(Why.T, dy)")
    ],
}
