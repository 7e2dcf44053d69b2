"""How far apart two right executors may be: a model of rounding, run on the tape itself.

Executors may add up sums in another order, and compute functions to within 2 units in the last place.
Nothing else may differ. So the tape is run again a few times with exactly these ops disturbed by about
as much, and what comes of it says for each element of each output by how much it may differ: where
only exact ops led to it, not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.tape import Tape

ROUNDED_ONCE = frozenset(
    """absolute add alias any all argmax argmin argsort assign astype bitwise_and bitwise_or bitwise_xor ceil clip
    concatenate copysign diagonal divide equal expand fabs flip floor floor_divide fmax fmin gather getitem greater
    greater_equal hardtanh heaviside invert isclose isfinite isinf isnan last_of_equals leaky_relu less less_equal
    logical_and logical_not logical_or logical_xor max maximum min minimum multiply negative nonzero not_equal
    on_diagonal one_hot pad positive reciprocal relu repeat reshape rint roll scatter searchsorted sign signbit sort
    sqrt square stop_gradient subtract take_along_axis tile transpose tril triu trunc where random_fold_in
    random_integers random_permutation random_split remainder""".split()
)
"""Every executor gives the same bits, given the same inputs."""
SUMS = frozenset("sum matmul einsum tensordot outer cumsum add_along_axis scatter_add prod cumprod".split())
"""The same, as long as every partial result is exact."""
ROUNDS = 4
MARGIN = 30.0
"""How much further than the disturbed runs another executor may be: they are a few, and errors add up."""


def allowed(tape: Tape, values: Mapping[Equation, Any]) -> list[tuple[Any, Any]]:
    """For each output of a tape, its value, and by how much each element may differ.

    Args:
        values: of the inputs and cells.
    """
    with np.errstate(all="ignore"):
        plain, clean = _run(tape, values, None, None)
        spread = dict.fromkeys(tape.outputs, 0.0)
        for seed in range(ROUNDS):
            noisy, _ = _run(tape, values, np.random.default_rng(seed), clean)
            for e in spread:
                if e in clean and not clean[e] and np.asarray(plain[e]).dtype.kind == "f":
                    a, b = np.asarray(plain[e], np.float64), np.asarray(noisy[e], np.float64)
                    distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
                    spread[e] = np.maximum(spread[e], np.where(np.isnan(distance), np.inf, distance))
        found = []
        for e in tape.outputs:
            a = np.asarray(plain[e])
            if clean.get(e, True) or a.dtype.kind != "f":
                found.append((a, 0.0))
            else:
                size = np.abs(a[np.isfinite(a)]).max(initial=0.0)
                eps = np.finfo(a.dtype).eps
                usual = _usual(spread[e], np.abs(a))
                margin = MARGIN * spread[e] + (MARGIN / 4 * usual + 4 * eps) * np.abs(a) + eps * size
                found.append((a, margin + np.finfo(a.dtype).tiny))
    return found


def _usual(spread: Any, size: Any) -> float:
    """What most elements are disturbed by, as part of their size: in one or the other, disturbances cancel."""
    parts = (np.asarray(spread) / np.where(size, size, np.inf)).ravel()
    parts = parts[np.isfinite(parts) & (parts > 0)]
    return float(np.median(parts)) if parts.size else 0.0


def _run(tape: Tape, values: Mapping[Equation, Any], rng: Any, known: Any) -> tuple[dict[Any, Any], dict[Any, bool]]:
    """Runs a tape; with a random generator, disturbed. Also says which equations are the same bits everywhere."""
    found: dict[Equation, Any] = dict(values)
    clean: dict[Equation, bool] = {}
    for leaf in tape.leaves():
        if leaf not in found:
            found[leaf] = leaf.params["value"] if leaf.op is LITERAL else leaf.value
    for e in tape.equations:
        inputs = [found[i] for i in e.inputs]
        same = all(clean.get(i, True) for i in e.inputs)
        name = e.op.name
        exact = name in ROUNDED_ONCE or not e.type.is_float or (name == "constant_power" and _is_simple(e))
        if rng is not None and not known[e]:
            if not exact:
                inputs = [_disturbed(x, rng) for x in inputs]
            value = np.asarray(e.op.numpy(*inputs, **e.params))
            if not exact:
                value = _disturbed(value, rng, 1 if e.op.elementwise else 4)
            if name in SUMS:  # each partial sum may be as large as the terms' absolute values together
                sizes = [x if np.asarray(x).dtype.kind in "ib" else np.abs(x) for x in inputs]
                terms = max(np.size(x) for x in inputs) / max(1, value.size)
                times = max(2.0, np.sqrt(terms) / 10)
                value = value + _disturbed(np.asarray(e.op.numpy(*sizes, **e.params)), rng, times, only=True)
        else:
            value = np.asarray(e.op.numpy(*inputs, **e.params))
        value = np.asarray(value).astype(e.type.dtype, copy=False) if not e.type.weak else value.item()
        if rng is None:
            clean[e] = same and (exact or (name in SUMS and _is_exact(inputs, value)))
        found[e] = value
    return found, clean


def _is_simple(e: Equation) -> bool:
    return e.params.get("exponent") in (1, 2, -1, 0.5)


def _disturbed(x: Any, rng: np.random.Generator, times: float = 1, only: bool = False) -> Any:
    """A value changed by one or two units in the last place (or several times that), up or down; or only the change."""
    if isinstance(x, (int, float, bool)) or x.dtype.kind != "f":
        return x
    change = times * np.finfo(x.dtype).eps * rng.choice([-2.0, -1.0, 1.0, 2.0], x.shape)  # never nothing
    return np.asarray(x * (change if only else 1 + change).astype(x.dtype))


def _is_exact(inputs: list[Any], value: Any) -> bool:
    """Whole numbers (or quarters of them) so small that no partial sum is rounded."""
    digits = 2.0 ** np.finfo(value.dtype).nmant
    most, terms = 1.0, 1.0
    for x in inputs:
        x = np.asarray(x, np.float64)
        if not np.isfinite(x).all() or (x * 4 != np.rint(x * 4)).any():
            return False
        most *= 4 * np.abs(x).max(initial=0.0)
        terms = max(terms, x.size)
    return bool(most * terms < digits)
