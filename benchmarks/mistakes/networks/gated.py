"""Two gated recurrent steps, (batch, features), without a loop; gradients of shared weights add up."""

import numpy as np


def sig(v):
    return 1 / (1 + np.exp(-v))


def gru_loss(x1, x2, h0, Wz, Uz, Wr, Ur, Wc, Uc, y):
    z1 = sig(x1 @ Wz + h0 @ Uz)
    r1 = sig(x1 @ Wr + h0 @ Ur)
    c1 = np.tanh(x1 @ Wc + (r1 * h0) @ Uc)
    h1 = (1 - z1) * h0 + z1 * c1
    z2 = sig(x2 @ Wz + h1 @ Uz)
    r2 = sig(x2 @ Wr + h1 @ Ur)
    c2 = np.tanh(x2 @ Wc + (r2 * h1) @ Uc)
    h2 = (1 - z2) * h1 + z2 * c2
    loss = np.abs(h2 - y).sum() / len(y)
    return loss, (z1, r1, c1, h1, z2, r2, c2, h2)


def gru_step_back(dh, x, h, z, r, c, Wz, Uz, Wr, Ur, Wc, Uc):
    dz = dh * (c - h)
    dc = dh * z
    dpre_c = dc * (1 - c**2)
    drh = dpre_c @ Uc.T
    dr = drh * h
    dpre_r = dr * r * (1 - r)
    dpre_z = dz * z * (1 - z)
    dh_prev = dh * (1 - z)
    dh_prev += drh * r
    dh_prev += dpre_r @ Ur.T
    dh_prev += dpre_z @ Uz.T
    dUc = (r * h).T @ dpre_c
    dUr = h.T @ dpre_r
    dUz = h.T @ dpre_z
    return dh_prev, x.T @ dpre_z, dUz, x.T @ dpre_r, dUr, x.T @ dpre_c, dUc


def gru_grads(x1, x2, h0, Wz, Uz, Wr, Ur, Wc, Uc, y, cache):
    z1, r1, c1, h1, z2, r2, c2, h2 = cache
    dh2 = np.sign(h2 - y) / len(y)
    dh1, dWz, dUz, dWr, dUr, dWc, dUc = gru_step_back(dh2, x2, h1, z2, r2, c2, Wz, Uz, Wr, Ur, Wc, Uc)
    dh0, *earlier = gru_step_back(dh1, x1, h0, z1, r1, c1, Wz, Uz, Wr, Ur, Wc, Uc)
    dWz += earlier[0]
    dUz += earlier[1]
    dWr += earlier[2]
    dUr += earlier[3]
    dWc += earlier[4]
    dUc += earlier[5]
    return {"h0": dh0, "Wz": dWz, "Uz": dUz, "Wr": dWr, "Ur": dUr, "Wc": dWc, "Uc": dUc}


# --- what the benchmark knows about it

PAIR = ("gru_loss", "gru_grads")
GRADIENTS = {name: name for name in ("h0", "Wz", "Uz", "Wr", "Ur", "Wc", "Uc")}
WEIGHTS = ("Uc", "Ur", "Uz")
DIVISORS = {"/ len(y)": ("/ y.size", "/ y.shape[1]")}


def make_inputs(rng):
    inputs = {"x1": rng.normal(size=(3, 5)), "x2": rng.normal(size=(3, 5)), "h0": rng.normal(size=(3, 7))}
    for gate in "zrc":
        inputs["W" + gate] = rng.normal(size=(5, 7))
        inputs["U" + gate] = rng.normal(size=(7, 7))
    return inputs | {"y": rng.normal(size=(3, 7))}


PLANTS = {
    "other-layers-cache": [
        ("x2, h1, z2, r2, c2, Wz", "x2, h1, z2, r1, c2, Wz"),
        ("x2, h1, z2, r2, c2, Wz", "x2, h2, z2, r2, c2, Wz"),
        ("dc = dh * z", "dc = dh * r"),
        ("dr = drh * h", "dr = drh * c"),
        ("dUc = (r * h).T", "dUc = h.T"),
    ],
    "other-layers-weights": [
        ("dpre_r @ Ur.T", "dpre_r @ Uz.T"),
        ("dpre_z @ Uz.T", "dpre_z @ Uc.T"),
        ("dpre_c @ Uc.T", "dpre_c @ Ur.T"),
    ],
    "activation-derivative-missing": [
        ("dc * (1 - c**2)", "dc"),
        ("dr * r * (1 - r)", "dr"),
        ("dz * z * (1 - z)", "dz"),
    ],
    "derivative-at-activation": [
        ("(1 - c**2)", "(1 - np.tanh(c) ** 2)"),
        ("dz * z * (1 - z)", "dz * sig(z) * (1 - sig(z))"),
    ],
    "path-forgotten": [
        ("    dh_prev += drh * r\n", ""),
        ("    dUz += earlier[1]\n", ""),
        ("dz = dh * (c - h)", "dz = dh * c"),
    ],
    "rounded-predictions": [("np.sign(h2 - y)", "np.sign(np.round(h2) - y)")],
    "activation-as-mask": [("dc * (1 - c**2)", "dc * c")],
    "wrong-order": [
        ("    dWz += earlier[0]\n    dUz += earlier[1]\n", "    dWz += earlier[2]\n    dUz += earlier[1]\n")
    ],
    "forward-disagrees-with-cache": [
        ("return loss, (z1, r1, c1, h1,", "return loss, (z1, r1, c1, c1,"),
        ("return loss, (z1, r1, c1, h1, z2, r2, c2, h2)", "return loss, (z1, r1, c1, h1, z2, r2, np.tanh(c2), h2)"),
    ],
    "cache-mutated": [("    drh = dpre_c @ Uc.T", "    h *= r\n    drh = dpre_c @ Uc.T")],
    "weights-after-update": [
        ("    dh_prev += dpre_r @ Ur.T", "    Ur = Ur - 0.1 * h.T @ dpre_r\n    dh_prev += dpre_r @ Ur.T")
    ],
}
