"""Two residual blocks with shared names, (batch, features), squared error; contributions add up where paths meet."""

import numpy as np


def block_forward(x, W1, b1, W2, b2):
    u = x @ W1 + b1
    a = np.maximum(u, 0)
    r = a @ W2 + b2
    return x + r, (x, u, a)


def block_backward(dout, W1, W2, cache):
    x, u, a = cache
    dx = dout.copy()
    dr = dout
    dW2 = a.T @ dr
    db2 = dr.sum(0)
    da = dr @ W2.T
    du = da.copy()
    du[u < 0] = 0
    dW1 = x.T @ du
    db1 = du.sum(0)
    dx += du @ W1.T
    return dx, dW1, db1, dW2, db2


def net_forward(x, y, params):
    h1, cache1 = block_forward(x, *params[0])
    h2, cache2 = block_forward(h1, *params[1])
    loss = np.mean((h2 - y) ** 2)
    return loss, (h2, cache1, cache2)


def net_backward(x, y, params, cache):
    h2, cache1, cache2 = cache
    dh2 = 2 * (h2 - y) / y.size
    dh1, *grads2 = block_backward(dh2, params[1][0], params[1][2], cache2)
    dx, *grads1 = block_backward(dh1, params[0][0], params[0][2], cache1)
    return {"x": dx, "params": [tuple(grads1), tuple(grads2)]}


# --- what the benchmark knows about it

PAIR = ("net_forward", "net_backward")
GRADIENTS = {"x": "x"} | {f"params[{block}][{k}]": f"params[{block}][{k}]" for block in (0, 1) for k in range(4)}
WEIGHTS = ("W1", "W2")
BIASES = ("db1", "db2")
DIVISORS = {"/ y.size": ("/ y.shape[0]", "/ y.shape[1]")}


def make_inputs(rng):
    def block():
        return (rng.normal(size=(5, 7)), rng.normal(size=7), rng.normal(size=(7, 5)), rng.normal(size=5))

    return {"x": rng.normal(size=(3, 5)), "y": rng.normal(size=(3, 5)), "params": [block(), block()]}


PLANTS = {
    "preactivation-for-activation": [("dW2 = a.T @ dr", "dW2 = u.T @ dr")],
    "other-layers-cache": [
        ("params[0][2], cache1)", "params[0][2], cache2)"),
        ("params[1][2], cache2)", "params[1][2], cache1)"),
    ],
    "other-layers-weights": [
        ("params[1][0], params[1][2]", "params[0][0], params[1][2]"),
        ("params[1][0], params[1][2]", "params[1][0], params[0][2]"),
    ],
    "activation-derivative-missing": [("    du[u < 0] = 0\n", "")],
    "mask-inverted": [("du[u < 0] = 0", "du[u > 0] = 0")],
    "mask-from-gradient": [("du[u < 0] = 0", "du[du < 0] = 0"), ("du[u < 0] = 0", "du[da < 0] = 0")],
    "activation-as-mask": [("    du[u < 0] = 0\n", "    du *= a\n")],
    "overwritten-at-fan-out": [("dx += du @ W1.T", "dx = du @ W1.T")],
    "path-forgotten": [("    dx += du @ W1.T\n", ""), ("dx = dout.copy()", "dx = np.zeros_like(dout)")],
    "half-of-the-loss": [("2 * (h2 - y) / y.size", "(h2 - y) / y.size")],
    "weights-after-update": [("    da = dr @ W2.T", "    W2 = W2 - 0.1 * dW2\n    da = dr @ W2.T")],
    "cache-mutated": [("    dW2 = a.T @ dr", "    a += 1\n    dW2 = a.T @ dr")],
    "wrong-order": [("    du[u < 0] = 0\n    dW1 = x.T @ du\n", "    dW1 = x.T @ du\n    du[u < 0] = 0\n")],
    "rounded-predictions": [("2 * (h2 - y)", "2 * (np.round(h2) - y)")],
    "sign": [("2 * (h2 - y)", "2 * (y - h2)")],
    "forward-disagrees-with-cache": [
        ("return x + r, (x, u, a)", "return x + r, (x + r, u, a)"),
        ("return x + r, (x, u, a)", "return x + r, (x, u - b1, a)"),
    ],
    "batch-leakage": [("dr = dout\n", "dr = dout - dout.mean(0)\n")],
}
