"""Arrays for functions that come without any: shapes guessed from the names of parameters, and tried.

`X`, `W1`, `b1`, `Y` say what they are, but not whether examples are rows or columns, or whether labels
are numbers or one-hot vectors. So every arrangement is tried until the functions run; lengths are
distinct primes, so that a wrong arrangement does not run by chance.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.check.backward.naming import DATA

EXAMPLES = 7
_WIDTHS = {1: (5, 2), 2: (5, 3, 2), 3: (5, 11, 3, 2), 4: (5, 11, 13, 3, 2)}
_WEIGHT = re.compile(r"(?:W|w|weights?|kernel|theta|Theta)_?(\d*)")
_BIAS = re.compile(r"(?:b|bias|biases|beta|gamma)_?(\d*)")
_LABELS = re.compile(r"[yYtT]|labels?|targets?|[yY]_?(true|train|batch|onehot|one_hot)|one_hot|onehot|ground_truth")
_NUMBER = re.compile(
    r"lambd\w*|reg\w*|l2\w*|alpha|beta|eps\w*|keep_prob|p|prob|slope|negative_slope|temperature|\w*decay|momentum|scale"
)
_LIST = re.compile(r"(weights?|[wW]s|biases|bs)")
_TABLE = re.compile(r"_?(params?|parameters?|weights|theta|network|net|model|state)", re.IGNORECASE)
_DATA = re.compile(
    rf"{DATA.pattern}|A_?prev\w*|[zZ]\d?|a|h_?prev\w*|logits|scores|preds?|predictions|probs?|[yY]_?(hat|pred)"
)


def guesses(
    names: Sequence[str], functions: Sequence[Callable[..., Any]], lengths: Sequence[int], seed: int
) -> Iterator[dict[str, Any]]:
    """Values for parameters, by their names, in every arrangement that may be meant.

    Nothing is given where a name says nothing.

    Args:
        names: the parameters without a value.
        functions: the functions they belong to: dicts of parameters get the keys that these read.
        lengths: those of arrays that are known: data may have to fit them.
        seed: where the random numbers start.
    """
    keys = {n: _keys(n, functions) for n in names if _TABLE.fullmatch(n)}
    keys = {n: found for n, found in keys.items() if found}
    texts = {n: found for n in names if n not in keys and (found := _compared_with(n, functions)) is not None}
    lists = {n: [f"{n[0]}1", f"{n[0]}2"] for n in names if _LIST.fullmatch(n) and _is_list(n, functions)}
    single = [n for n in names if n not in keys and n not in texts and n not in lists]
    every = [*single, *(k for found in [*keys.values(), *lists.values()] for k in found)]
    if not all(_known(n, alone=len(every) == 1) for n in every):
        return
    layers = max((int(m[1] or 1) for n in every for m in [_WEIGHT.fullmatch(n)] if m), default=1)
    if layers not in _WIDTHS:
        return
    fitting = [(a, b) for a, b in itertools.permutations(lengths[:6], 2)] + [(a, a) for a in lengths[:6]]
    whole = _WIDTHS[layers]
    usual = [whole, (*whole[:-1], 1), (*whole[:-1], whole[0])]
    if not any(_WEIGHT.fullmatch(n) for n in every):  # scores and labels have as many classes; or an object has weights
        usual = [(usual[0][0],) * 2, *usual, *fitting]
    arrangements = itertools.product(usual, ("rows", "columns"), (0, 1, 2), (0, 1, 2), (0, 1, 2))
    for widths, examples, flat_bias, labels, turned in arrangements:
        rng = np.random.default_rng(seed)
        made = {n: _value(n, widths, examples, flat_bias, labels, turned, rng) for n in every}
        in_lists = {n: [made[k] for k in found] for n, found in lists.items()}
        yield {
            **texts,
            **in_lists,
            **{n: made[n] for n in single},
            **{n: {k: made[k] for k in found} for n, found in keys.items()},
        }


def _known(name: str, alone: bool) -> bool:
    return alone or any(p.fullmatch(name) for p in (_WEIGHT, _BIAS, _LABELS, _NUMBER, _DATA))


def _value(
    name: str,
    widths: tuple[int, ...],
    examples: str,
    flat_bias: int,
    labels: int,
    turned: int,
    rng: np.random.Generator,
) -> Any:
    rows = examples == "rows"
    weight, bias = _WEIGHT.fullmatch(name), _BIAS.fullmatch(name)
    if weight:
        layer = int(weight[1] or 1)
        if layer == 0 or layer >= len(widths):
            return rng.standard_normal(widths[:2])
        before, after = widths[layer - 1], widths[layer]
        if turned == 2:
            return rng.standard_normal(before)
        return rng.standard_normal((before, after) if rows != bool(turned) else (after, before))
    if bias:
        layer = int(bias[1] or len(widths) - 1 if bias[0][0] == "b" and "beta" not in bias[0] else 0)
        length = widths[min(layer, len(widths) - 1)]
        shape = ((length,), (1, length) if rows else (length, 1), ())[flat_bias]
        if shape == ():
            return float(rng.standard_normal())
        return rng.standard_normal(shape) + (0.5 if "gamma" in name else 0.0)
    if _LABELS.fullmatch(name):
        return _labels(widths[-1], rows, labels, rng)
    if _NUMBER.fullmatch(name):
        return 0.7
    return rng.standard_normal((EXAMPLES, widths[0]) if rows else (widths[0], EXAMPLES))


def _labels(classes: int, rows: bool, kind: int, rng: np.random.Generator) -> Any:
    """One-hot vectors, numbers of classes, or zeros and ones."""
    numbers = rng.integers(0, max(classes, 2), EXAMPLES)
    numbers[:2] = 0, 1
    if kind == 1:
        return numbers
    if kind == 2:
        return numbers.astype(np.float64)
    hot = np.eye(classes)[numbers] if classes > 1 else numbers[:, None].astype(np.float64)
    return hot if rows else hot.T


def _nodes(functions: Sequence[Callable[..., Any]]) -> Iterator[ast.AST]:
    """What the source of functions is made of."""
    for function in functions:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
        except (OSError, TypeError, SyntaxError):
            continue
        yield from ast.walk(tree)


def _keys(name: str, functions: Sequence[Callable[..., Any]]) -> list[str]:
    """The keys that functions read from a dict: `params["W1"]`, or W1, W2, W3 for `params["W" + str(l)]`."""
    found: dict[str, None] = {}
    for node in _nodes(functions):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == name:
            key = node.slice
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                found[key.value] = None
            start = _start(key)
            if start:
                found.update({f"{start}{i}": None for i in (1, 2, 3)})
    return list(found)


def _compared_with(name: str, functions: Sequence[Callable[..., Any]]) -> str | None:
    """The first text that a parameter is compared with: "relu" for `if activation == "relu"`."""
    for node in _nodes(functions):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == name:
            text = node.comparators[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                return text.value
    return None


def _is_list(name: str, functions: Sequence[Callable[..., Any]]) -> bool:
    """Whether functions walk through a parameter: `zip(weights, biases)`, `len(weights)`."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("zip", "len", "enumerate", "reversed")
        and any(isinstance(a, ast.Name) and a.id == name for a in node.args)
        for node in _nodes(functions)
    )


def _start(key: ast.expr) -> str | None:
    """W for `"W" + str(l)` and `f"W{l}"`."""
    if isinstance(key, ast.BinOp):
        key = key.left
        while isinstance(key, ast.BinOp):
            key = key.left
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
    if isinstance(key, ast.JoinedStr) and key.values and isinstance(key.values[0], ast.Constant):
        return str(key.values[0].value)
    return None


def shapes_told(values: Mapping[str, Any]) -> str:
    """The guessed values in words: X (7, 5), W1 (5, 3)."""
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            parts.append(shapes_told(value))
        elif isinstance(value, list):
            parts.append(shapes_told({f"{name}[{i}]": v for i, v in enumerate(value)}))
        else:
            parts.append(f"{name} {value.shape}" if isinstance(value, np.ndarray) else f"{name} = {value}")
    return ", ".join(parts)
