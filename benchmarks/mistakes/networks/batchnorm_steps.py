"""Batch normalisation as a layer, (batch, features), its computational graph walked back step by step."""

import numpy as np


def batchnorm_forward(x, gamma, beta, eps):
    N, D = x.shape
    # step 1: the mean
    mu = 1.0 / N * np.sum(x, axis=0)
    # step 2: subtract it from every example
    xmu = x - mu
    # step 3: the lower branch: the variance
    sq = xmu**2
    var = 1.0 / N * np.sum(sq, axis=0)
    # step 4: the inverse standard deviation
    sqrtvar = np.sqrt(var + eps)
    ivar = 1.0 / sqrtvar
    # step 5: normalise, scale and shift
    xhat = xmu * ivar
    gammax = gamma * xhat
    out = gammax + beta
    cache = (xhat, gamma, xmu, ivar, sqrtvar, var, eps)
    return out, cache


def batchnorm_backward(dout, cache):
    xhat, gamma, xmu, ivar, sqrtvar, var, eps = cache
    N, D = dout.shape

    dbeta = np.sum(dout, axis=0)
    dgammax = dout
    dgamma = np.sum(dgammax * xhat, axis=0)
    dxhat = dgammax * gamma

    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar

    dsqrtvar = -1.0 / (sqrtvar**2) * divar
    dvar = 0.5 * 1.0 / np.sqrt(var + eps) * dsqrtvar
    dsq = 1.0 / N * np.ones((N, D)) * dvar
    dxmu2 = 2 * xmu * dsq

    dx1 = dxmu1 + dxmu2
    dmu = -1 * np.sum(dxmu1 + dxmu2, axis=0)
    dx2 = 1.0 / N * np.ones((N, D)) * dmu
    dx = dx1 + dx2
    return dx, dgamma, dbeta


# --- what the benchmark knows about it

PAIR = ("batchnorm_forward", "batchnorm_backward")
GRADIENTS = ("x", "gamma", "beta")
BIASES = ("dbeta",)
BROADCAST = ("dgamma",)
DIVISORS = {"1.0 / N": ("1.0 / D", "1.0 / (N - 1)")}


def make_inputs(rng):
    return {
        "x": 2 * rng.normal(size=(11, 5)) + 1,
        "gamma": rng.normal(size=5),
        "beta": rng.normal(size=5),
        "eps": 1e-5,
    }


PLANTS = {
    "other-layers-cache": [
        ("dxhat * xmu", "dxhat * xhat"),
        ("dgammax * xhat", "dgammax * xmu"),
        ("2 * xmu * dsq", "2 * xhat * dsq"),
    ],
    "batch-statistics-as-constants": [
        ("dx = dx1 + dx2", "dx = dxmu1"),
        ("dx1 = dxmu1 + dxmu2", "dx1 = dxmu1"),
        ("dx = dx1 + dx2", "dx = dx1"),
    ],
    "path-forgotten": [("np.sum(dxmu1 + dxmu2, axis=0)", "np.sum(dxmu1, axis=0)")],
    "constant-factor": [("2 * xmu * dsq", "xmu * dsq"), ("0.5 * 1.0 / np.sqrt", "1.0 / np.sqrt")],
    "sign": [("-1.0 / (sqrtvar**2)", "1.0 / (sqrtvar**2)"), ("-1 * np.sum", "np.sum")],
    "cache-mutated": [("    dxhat = dgammax * gamma", "    xhat *= gamma\n    dxhat = dgammax * gamma")],
    "forward-disagrees-with-cache": [
        ("cache = (xhat, gamma, xmu,", "cache = (gammax, gamma, xmu,"),
        ("xmu, ivar, sqrtvar, var, eps)\n    return", "xmu, ivar, sqrtvar, sqrtvar, eps)\n    return"),
        ("ivar, sqrtvar, var, eps)\n    return", "ivar, var, var, eps)\n    return"),
    ],
    "batch-leakage": [("dxhat = dgammax * gamma", "dxhat = dgammax.mean(axis=0) * gamma + 0 * xhat")],
    "broadcast-not-undone": [("np.sum(dxhat * xmu, axis=0)", "dxhat * xmu")],
}
