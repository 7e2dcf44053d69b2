"""One head of scaled dot-product attention, (time, features), with the full derivative of the softmax."""

import numpy as np


def attention(x, Wq, Wk, Wv, Wo, target):
    Q = x @ Wq
    K = x @ Wk
    V = x @ Wv
    d = Q.shape[1]
    S = Q @ K.T / np.sqrt(d)
    S = S - S.max(axis=1, keepdims=True)
    E = np.exp(S)
    P = E / E.sum(axis=1, keepdims=True)
    O = P @ V
    out = O @ Wo
    diff = out - target
    loss = 0.5 * np.mean(np.sum(diff**2, axis=1))
    return loss, dict(Q=Q, K=K, V=V, P=P, O=O, diff=diff)


def attention_grad(x, Wq, Wk, Wv, Wo, cache):
    Q, K, V, P, O = (cache[k] for k in ("Q", "K", "V", "P", "O"))
    T, d = Q.shape
    dout = cache["diff"] / T
    dWo = O.T @ dout
    dO = dout @ Wo.T
    dV = P.T @ dO
    dP = dO @ V.T
    dS = P * (dP - np.sum(dP * P, axis=1, keepdims=True))
    dS = dS / np.sqrt(d)
    dQ = dS @ K
    dK = dS.T @ Q
    dWq = x.T @ dQ
    dWk = x.T @ dK
    dWv = x.T @ dV
    dx = dQ @ Wq.T + dK @ Wk.T + dV @ Wv.T
    return {"x": dx, "Wq": dWq, "Wk": dWk, "Wv": dWv, "Wo": dWo}


# --- what the benchmark knows about it

PAIR = ("attention", "attention_grad")
GRADIENTS = {name: name for name in ("x", "Wq", "Wk", "Wv", "Wo")}
WEIGHTS = ("Wq", "Wk", "Wv", "Wo")
DIVISORS = {"/ T": ("/ d", "/ cache['diff'].size", "/ cache['diff'].shape[1]")}


def make_inputs(rng):
    return {
        "x": rng.normal(size=(5, 7)),
        "Wq": rng.normal(size=(7, 3)),
        "Wk": rng.normal(size=(7, 3)),
        "Wv": rng.normal(size=(7, 11)),
        "Wo": rng.normal(size=(11, 2)),
        "target": rng.normal(size=(5, 2)),
    }


PLANTS = {
    "other-layers-cache": [("dQ = dS @ K", "dQ = dS @ Q"), ("dK = dS.T @ Q", "dK = dS.T @ K")],
    "other-layers-weights": [("dQ @ Wq.T", "dQ @ Wk.T"), ("dK @ Wk.T", "dK @ Wq.T")],
    "softmax-diagonal-only": [
        ("P * (dP - np.sum(dP * P, axis=1, keepdims=True))", "dP * P * (1 - P)"),
        ("P * (dP - np.sum(dP * P, axis=1, keepdims=True))", "P * dP"),
    ],
    "activation-derivative-missing": [("dS = P * (dP - np.sum(dP * P, axis=1, keepdims=True))", "dS = dP")],
    "constant-factor": [("    dS = dS / np.sqrt(d)\n", "")],
    "wrong-divisor": [("dS / np.sqrt(d)", "dS / d")],
    "half-of-the-loss": [('cache["diff"] / T', '2 * cache["diff"] / T')],
    "transposed": [
        ("dV = P.T @ dO", "dV = P @ dO"),
        ("dK = dS.T @ Q", "dK = dS @ Q"),
        ("dQ = dS @ K", "dQ = dS.T @ K"),
    ],
    "weights-after-update": [("    dO = dout @ Wo.T", "    Wo = Wo - 0.1 * dWo\n    dO = dout @ Wo.T")],
    "cache-mutated": [
        ("    dP = dO @ V.T", "    P *= P > 0.1\n    dP = dO @ V.T"),
        ('    dout = cache["diff"] / T', '    cache["diff"] /= T\n    dout = cache["diff"]'),
    ],
    "forward-disagrees-with-cache": [("P=P, O=O", "P=E, O=O"), ("dict(Q=Q,", "dict(Q=Q / np.sqrt(d),")],
    "batch-leakage": [('dout = cache["diff"] / T', 'dout = (cache["diff"] - cache["diff"].mean(axis=0)) / T')],
    "rounded-predictions": [('dout = cache["diff"] / T', 'dout = np.round(cache["diff"]) / T')],
}
