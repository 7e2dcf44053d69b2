"""A small convolutional network: im2col, relu, 2 × 2 max pooling, a fully connected layer, softmax."""

import numpy as np


def im2col_indices(x_shape, field_height, field_width):
    N, C, H, W = x_shape
    out_height = H - field_height + 1
    out_width = W - field_width + 1
    i0 = np.tile(np.repeat(np.arange(field_height), field_width), C)
    i1 = np.repeat(np.arange(out_height), out_width)
    j0 = np.tile(np.arange(field_width), field_height * C)
    j1 = np.tile(np.arange(out_width), out_height)
    i = i0.reshape(-1, 1) + i1.reshape(1, -1)
    j = j0.reshape(-1, 1) + j1.reshape(1, -1)
    k = np.repeat(np.arange(C), field_height * field_width).reshape(-1, 1)
    return k, i, j


def convnet_forward(X, y, W1, b1, W2, b2):
    N, C, H, W = X.shape
    F, _, HH, WW = W1.shape
    k, i, j = im2col_indices(X.shape, HH, WW)
    X_col = X[:, k, i, j].transpose(1, 2, 0).reshape(C * HH * WW, -1)
    conv = W1.reshape(F, -1) @ X_col + b1.reshape(-1, 1)
    conv = conv.reshape(F, H - HH + 1, W - WW + 1, N).transpose(3, 0, 1, 2)
    relu = np.maximum(conv, 0)
    windows = relu.reshape(N, F, (H - HH + 1) // 2, 2, (W - WW + 1) // 2, 2)
    pool = windows.max(axis=(3, 5))
    flat = pool.reshape(N, -1)
    scores = flat @ W2 + b2
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    probs = np.exp(log_probs)
    loss = -np.mean(log_probs[np.arange(N), y])
    cache = (X.shape, X_col, conv, relu, pool, flat, probs)
    return loss, cache


def convnet_backward(y, W1, W2, cache):
    X_shape, X_col, conv, relu, pool, flat, probs = cache
    N, C, H, W = X_shape
    F, _, HH, WW = W1.shape

    dscores = probs.copy()
    dscores[np.arange(N), y] -= 1
    dscores /= N

    db2 = dscores.sum(axis=0)
    dW2 = flat.T @ dscores
    dflat = dscores @ W2.T

    dpool = dflat.reshape(pool.shape)
    dpool_up = dpool.repeat(2, axis=2).repeat(2, axis=3)
    pool_mask = relu == pool.repeat(2, axis=2).repeat(2, axis=3)
    drelu = dpool_up * pool_mask
    dconv = drelu * (conv > 0)

    dconv_col = dconv.transpose(1, 2, 3, 0).reshape(F, -1)
    db1 = dconv_col.sum(axis=1)
    dW1 = (dconv_col @ X_col.T).reshape(W1.shape)
    dX_col = W1.reshape(F, -1).T @ dconv_col
    dX = np.zeros(X_shape)
    k, i, j = im2col_indices(X_shape, HH, WW)
    dX_col = dX_col.reshape(C * HH * WW, -1, N).transpose(2, 0, 1)
    np.add.at(dX, (slice(None), k, i, j), dX_col)
    return {"dX": dX, "dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


# --- what the benchmark knows about it

PAIR = ("convnet_forward", "convnet_backward")
GRADIENTS = {"dX": "X", "dW1": "W1", "db1": "b1", "dW2": "W2", "db2": "b2"}
WEIGHTS = ("W2", "W1.reshape(F, -1)")
BIASES = ("db1", "db2")
DIVISORS = {"/= N": ("/= probs.shape[1]", "/= C", "/= N * C")}


def make_inputs(rng):
    return {
        "X": rng.normal(size=(5, 3, 7, 9)),
        "y": rng.integers(0, 7, size=5),
        "W1": rng.normal(size=(2, 3, 2, 4)),
        "b1": rng.normal(size=2),
        "W2": rng.normal(size=(18, 7)),
        "b2": rng.normal(size=7),
    }


PLANTS = {
    "preactivation-for-activation": [("pool_mask = relu ==", "pool_mask = conv ==")],
    "other-layers-cache": [("conv > 0", "dconv_col > 0")],
    "activation-derivative-missing": [
        ("dconv = drelu * (conv > 0)", "dconv = drelu"),
        ("drelu = dpool_up * pool_mask", "drelu = dpool_up"),
    ],
    "mask-inverted": [("(conv > 0)", "(conv < 0)"), ("pool_mask = relu ==", "pool_mask = relu !=")],
    "mask-from-gradient": [("(conv > 0)", "(drelu > 0)")],
    "activation-as-mask": [("drelu * (conv > 0)", "drelu * relu")],
    "rounded-predictions": [("dscores = probs.copy()", "dscores = np.round(probs)")],
    "mean-missing": [("    dscores /= N\n", "")],
    "mean-twice": [("dscores /= N", "dscores /= N * N")],
    "path-forgotten": [("    dscores[np.arange(N), y] -= 1\n", "")],
    "overwritten-at-fan-out": [
        ("np.add.at(dX, (slice(None), k, i, j), dX_col)", "dX[:, k, i, j] = dX_col"),
        ("np.add.at(dX, (slice(None), k, i, j), dX_col)", "dX[:, k, i, j] += dX_col"),
    ],
    "derivative-kept-with-fused-loss": [
        ("    dscores /= N\n", "    dscores *= probs * (1 - probs)\n    dscores /= N\n")
    ],
    "weights-after-update": [("    dflat = dscores @ W2.T", "    W2 = W2 - 0.1 * dW2\n    dflat = dscores @ W2.T")],
    "cache-mutated": [("    dW2 = flat.T @ dscores", "    flat /= flat.max()\n    dW2 = flat.T @ dscores")],
    "forward-disagrees-with-cache": [
        (
            "cache = (X.shape, X_col, conv, relu, pool, flat, probs)",
            "cache = (X.shape, X_col, conv, relu, pool, flat, log_probs)",
        ),
        ("cache = (X.shape, X_col, conv,", "cache = (X.shape, X_col - X_col.mean(), conv,"),
    ],
    "wrong-order": [
        ("dconv.transpose(1, 2, 3, 0)", "dconv.transpose(1, 3, 2, 0)"),
        (".reshape(C * HH * WW, -1, N).transpose(2, 0, 1)", ".reshape(N, C * HH * WW, -1)"),
    ],
}
