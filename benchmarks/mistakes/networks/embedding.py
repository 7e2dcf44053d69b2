"""Word embeddings averaged over a sentence, a hidden layer with tanh, softmax; repeated words add up."""

import numpy as np


def log_softmax(scores):
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def model_loss(tokens, labels, embed, w, bias, u):
    vectors = embed[tokens]
    mean = vectors.mean(axis=1)
    hidden = np.tanh(mean @ w + bias)
    logp = log_softmax(hidden @ u)
    batch = len(labels)
    loss = -logp[np.arange(batch), labels].sum() / batch
    return loss, (vectors, mean, hidden, logp)


def model_grads(tokens, labels, embed, w, u, cache):
    vectors, mean, hidden, logp = cache
    batch, length = tokens.shape
    dscores = np.exp(logp)
    dscores[np.arange(batch), labels] -= 1
    dscores /= batch
    du = hidden.T @ dscores
    dhidden = dscores @ u.T
    dpre = dhidden * (1 - hidden**2)
    dw = mean.T @ dpre
    dbias = dpre.sum(axis=0)
    dmean = dpre @ w.T
    dvectors = np.repeat(dmean[:, None, :], length, axis=1) / length
    dembed = np.zeros_like(embed)
    np.add.at(dembed, tokens, dvectors)
    return {"embed": dembed, "w": dw, "bias": dbias, "u": du}


# --- what the benchmark knows about it

PAIR = ("model_loss", "model_grads")
GRADIENTS = {name: name for name in ("embed", "w", "bias", "u")}
WEIGHTS = ("u", "w")
BIASES = ("dbias",)
DIVISORS = {"/= batch": ("/= length", "/= batch * length"), "/ length": ("/ batch",)}


def make_inputs(rng):
    return {
        "tokens": rng.integers(0, 6, size=(5, 4)),
        "labels": rng.integers(0, 3, size=5),
        "embed": rng.normal(size=(11, 7)),
        "w": rng.normal(size=(7, 13)),
        "bias": rng.normal(size=13),
        "u": rng.normal(size=(13, 3)),
    }


PLANTS = {
    "overwritten-at-fan-out": [
        ("np.add.at(dembed, tokens, dvectors)", "dembed[tokens] = dvectors"),
        ("np.add.at(dembed, tokens, dvectors)", "dembed[tokens] += dvectors"),
    ],
    "mean-missing": [("    dscores /= batch\n", ""), ("length, axis=1) / length", "length, axis=1)")],
    "mean-twice": [("dscores /= batch", "dscores /= batch**2")],
    "activation-derivative-missing": [("dpre = dhidden * (1 - hidden**2)", "dpre = dhidden")],
    "derivative-at-activation": [("(1 - hidden**2)", "(1 - np.tanh(hidden) ** 2)")],
    "derivative-of-preactivation": [("(1 - hidden**2)", "(1 - (mean @ w) ** 2)")],
    "rounded-predictions": [("dscores = np.exp(logp)", "dscores = np.round(np.exp(logp))")],
    "path-forgotten": [("    dscores[np.arange(batch), labels] -= 1\n", "")],
    "preactivation-for-activation": [
        ("du = hidden.T @ dscores", "du = np.arctanh(hidden).T @ dscores"),
        ("dscores = np.exp(logp)", "dscores = logp.copy()"),
    ],
    "other-layers-cache": [("dw = mean.T @ dpre", "dw = vectors[:, 0].T @ dpre")],
    "weights-after-update": [("    dhidden = dscores @ u.T", "    u = u - 0.1 * du\n    dhidden = dscores @ u.T")],
    "cache-mutated": [("    dpre = dhidden", "    hidden **= 3\n    dpre = dhidden")],
    "forward-disagrees-with-cache": [
        ("return loss, (vectors, mean, hidden, logp)", "return loss, (vectors, vectors.sum(axis=1), hidden, logp)")
    ],
    "batch-leakage": [("dmean = dpre @ w.T", "dmean = np.tile(dpre.mean(axis=0) @ w.T, (batch, 1))")],
}
