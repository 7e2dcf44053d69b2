"""Random correct networks that walk over their layers in a loop, with dictionaries or lists of caches."""

from __future__ import annotations

import itertools
import random

from benchmarks.mistakes.network import MARKER

ACTIVATIONS = {
    "relu": ("np.maximum(0, Z)", "(Z > 0)"),
    "tanh": ("np.tanh(Z)", "(1 - np.tanh(Z) ** 2)"),
    "sigmoid": ("1 / (1 + np.exp(-Z))", "np.exp(-Z) / (1 + np.exp(-Z)) ** 2"),
    "leaky": ("np.where(Z > 0, Z, 0.01 * Z)", "np.where(Z > 0, 1, 0.01)"),
}

KEYED = '''"""Random network {seed}."""

import numpy as np


def activate(Z):
    return {function}


def activate_backward(dA, Z):
    return dA * {derivative}


def forward(X, Y, params):
    L = len(params) // 2
    cache = {{"A0": X}}
    A = X
    for l in range(1, L + 1):
        Z = {product} + params["b" + str(l)]
        A = activate(Z) if l < L else Z
        cache["Z" + str(l)] = Z
        cache["A" + str(l)] = A
    m = {count}
    loss = {half}np.sum((A - Y) ** 2){mean}
    return loss, cache


def backward(X, Y, params, cache):
    L = len(params) // 2
    m = {count}
    grads = {{}}
    dZ = {twice}(cache["A" + str(L)] - Y){mean}
    for l in {order}:
        grads["{d}W" + str(l)] = {weights}
        grads["{d}b" + str(l)] = np.sum(dZ, axis={axis}, keepdims=True)
        if l > 1:
            dA = {back}
            dZ = activate_backward(dA, cache["Z" + str(l - 1)])
    return grads


'''

LISTED = '''"""Random network {seed}."""

import numpy as np


def forward(X, Y, Ws, bs):
    A = X
    caches = []
    for W, b in zip(Ws, bs):
        Z = {listed_product} + b
        caches.append((A, Z))
        A = {function}
    m = {count}
    loss = {half}np.sum((A - Y) ** 2){mean}
    return loss, A, caches


def backward(Y, Ws, bs, A, caches):
    m = {listed_count}
    dWs = [None] * len(Ws)
    dbs = [None] * len(bs)
    dA = {twice}(A - Y){mean}
    for i in {listed_order}:
        A_prev, Z = caches[i]
        dZ = dA * {derivative}
        dWs[i] = {listed_weights}
        dbs[i] = np.sum(dZ, axis={axis}, keepdims=True)
        dA = {listed_back}
    return {{"Ws": dWs, "bs": dbs}}


'''


def write(choose: random.Random, seed: int) -> str:
    """The source text of a random network with a loop."""
    rows, keyed, half = choose.random() < 0.5, choose.random() < 0.5, choose.random() < 0.5
    depth = choose.choice((2, 3, 4))
    sizes = choose.sample((2, 3, 5, 7, 11), k=depth + 1)
    function, derivative = choose.choice(list(ACTIVATIONS.values()))
    prefix = choose.choice(("d", "", "grad_"))
    back_w = 'params["W" + str(l)].T'
    values = {
        "seed": seed,
        "function": function,
        "derivative": derivative,
        "product": 'A @ params["W" + str(l)]' if rows else 'np.dot(params["W" + str(l)], A)',
        "count": "X.shape[0]" if rows else "X.shape[1]",
        "half": "0.5 * " if half else "",
        "twice": "" if half else "2 * ",
        "mean": choose.choice((" / m", "")),
        "order": choose.choice(("range(L, 0, -1)", "reversed(range(1, L + 1))")),
        "d": prefix,
        "weights": 'cache["A" + str(l - 1)].T @ dZ' if rows else 'np.dot(dZ, cache["A" + str(l - 1)].T)',
        "axis": 0 if rows else 1,
        "back": f"dZ @ {back_w}" if rows else f"np.dot({back_w}, dZ)",
        "listed_product": "A @ W" if rows else "W @ A",
        "listed_count": "A.shape[0]" if rows else "A.shape[1]",
        "listed_order": choose.choice(("reversed(range(len(Ws)))", "range(len(Ws) - 1, -1, -1)")),
        "listed_weights": "A_prev.T @ dZ" if rows else "dZ @ A_prev.T",
        "listed_back": "dZ @ Ws[i].T" if rows else "Ws[i].T @ dZ",
    }
    layers = range(1, depth + 1)
    if keyed:
        gradients = {f"{prefix}{kind}{k}": f"params['{kind}{k}']" for k in layers for kind in "Wb"}
    else:
        gradients = {f"{kind}[{k}]": f"{kind}[{k}]" for k in range(depth) for kind in ("Ws", "bs")}
    text = (KEYED if keyed else LISTED).format(**values)
    return text + _declarations(rows, keyed, sizes, gradients, choose.choice((13, 17, 19)))


def _declarations(rows: bool, keyed: bool, sizes: list[int], gradients: dict[str, str], count: int) -> str:
    def shape(features: int) -> tuple[int, int]:
        return (count, features) if rows else (features, count)

    lines = []
    pairs = list(itertools.pairwise(sizes))
    weights = [f"rng.normal(size={(a, b) if rows else (b, a)})" for a, b in pairs]
    biases = [f"rng.normal(size={(1, b) if rows else (b, 1)})" for _, b in pairs]
    if keyed:
        entries = [f'"W{k}": {w}, "b{k}": {b}' for k, (w, b) in enumerate(zip(weights, biases, strict=True), 1)]
        lines.append(f'        "params": {{{", ".join(entries)}}},\n')
    else:
        lines.append(f'        "Ws": [{", ".join(weights)}],\n        "bs": [{", ".join(biases)}],\n')
    return (
        f"{MARKER}\n\n"
        'PAIR = ("forward", "backward")\n'
        f"GRADIENTS = {gradients!r}\n"
        'GRADIENT_NAMES = r"dA|dZ|grads\\[.+\\]|d[Wb]s\\[.+\\]"\n'
        "WEIGHTS = ('params[\"W\" + str(l)]', \"params['W' + str(l)]\", 'Ws[i]')\n"
        "BIASES = ('dbs[i]', \"grads['db' + str(l)]\", \"grads['b' + str(l)]\", \"grads['grad_b' + str(l)]\")\n\n\n"
        "def make_inputs(rng):\n"
        "    return {\n"
        f'        "X": rng.normal(size={shape(sizes[0])}),\n'
        f'        "Y": rng.normal(size={shape(sizes[-1])}),\n' + "".join(lines) + "    }\n"
    )
