"""Which attributes of an object are inputs, and where its backward has left their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.backward.naming import is_gradient_container, is_gradient_name, matched, tokens
from stepgrad.check.backward.state import held
from stepgrad.check.backward.subject import as_array
from stepgrad.tensor import Array
from stepgrad.tree import flatten

UNNAMED = "what backward returned"


@dataclass(frozen=True)
class Attribute:
    """What stood at a path: the value itself, and a copy as it was then."""

    held: Any
    value: Any


@dataclass(frozen=True)
class Collected:
    """What a backward gave.

    Attributes:
        gradients: by input; what belongs to no input under the user's own name.
        names: input -> the user's name of its gradient.
    """

    gradients: dict[str, Any]
    names: dict[str, str]


def attributes(owner: Any) -> dict[str, Attribute]:
    """Every array and number that an object holds, by path."""
    return {path: Attribute(v, v.copy() if isinstance(v, np.ndarray) else v) for path, v in held(owner)}


def find_attribute_inputs(
    before: Mapping[str, Attribute], after: Mapping[str, Attribute], arguments: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The arrays of an object that a gradient can be asked for.

    Floating-point arrays that forward leaves as they are, and that are not called after the gradient
    of another: so caches, running statistics and gradients are none.

    Args:
        before, after: the attributes before and after a forward.
        arguments: the names of forward's own arguments.

    Returns:
        The first path of each -> all its paths.
    """
    last = [tokens(path)[-1] for path in before] + list(arguments)
    found: dict[int, list[str]] = {}
    for path, was in before.items():
        now = after.get(path)
        if not isinstance(was.held, np.ndarray) or was.held.dtype.kind != "f" or now is None:
            continue
        if now.held is was.held and np.array_equal(now.value, was.value, equal_nan=True):
            found.setdefault(id(was.held), []).append(path)
    return {paths[0]: tuple(paths) for paths in found.values() if not any(_is_gradient(path, last) for path in paths)}


def number_inputs(
    before: Mapping[str, Attribute], after: Mapping[str, Attribute], found: Collected
) -> dict[str, tuple[str, ...]]:
    """The numbers of an object that its backward has a gradient for, as in `self.b = 0.0` with `self.db`.

    Other numbers are settings: learning rates, slopes, probabilities.
    """
    numbers = {path: path for path, was in before.items() if not isinstance(was.held, np.ndarray)}
    set_ = [path for path, now in after.items() if path not in before or not _is_same(before[path], now)]
    unknown = [path for path in found.gradients if path not in found.names]
    return {name: (name,) for name in matched([*unknown, *set_], numbers).values()}


def _is_gradient(path: str, names: Sequence[str]) -> bool:
    parts = tokens(path)
    return (
        parts[-1] in ("grad", "gradient")
        or is_gradient_name(parts[-1], names)
        or any(is_gradient_container(p) for p in parts[:-1])
    )


def moved_by(
    before: Mapping[str, Attribute], after: Mapping[str, Attribute], places: Mapping[str, tuple[str, ...]]
) -> dict[str, Array]:
    """By how much a backward has changed each input."""
    found = {}
    for path in places:
        now = after.get(path)
        if now is not None and np.shape(now.value) == np.shape(before[path].value):
            change = np.asarray(now.value) - before[path].value
            if np.any(change):
                found[path] = change
    return found


def collected(
    result: Any,
    called: Sequence[str | None],
    arguments: Mapping[str, str],
    places: Mapping[str, tuple[str, ...]],
    before: Mapping[str, Attribute],
    after: Mapping[str, Attribute],
) -> Collected:
    """The gradients that a backward returned, and those it left in attributes.

    What it returned is matched by name first (a dict by its keys, a tuple by the names in the return
    statement), then in the order of forward's arguments. Of attributes those count that it has set.

    Args:
        result: what it returned.
        called: what its return statement calls that.
        arguments: forward's own floating-point inputs, in order.
        places: attribute inputs -> all their paths.
        before, after: the attributes before and after the backward.
    """
    aliases = {**arguments, **{alias: path for path, paths in places.items() for alias in paths}}
    returned = _returned(result, called)
    found = matched(returned, aliases)
    if not isinstance(result, dict):
        found |= _in_order(returned, found, list(arguments))
    gradients = {name: returned[path] for path, name in found.items()}
    names = {name: f"the gradient of {name}" if path.startswith(UNNAMED) else path for path, name in found.items()}
    set_ = {
        path: now.value
        for path, now in after.items()
        if path not in aliases and (path not in before or not _is_same(before[path], now))
    }
    left = {alias: name for alias, name in aliases.items() if name not in gradients}
    for path, name in matched(set_, left).items():
        gradients[name], names[name] = np.asarray(set_[path]), path
    extra = {path: value for path, value in returned.items() if path not in found}
    return Collected({**gradients, **extra}, names)


def _is_same(was: Attribute, now: Attribute) -> bool:
    return now.held is was.held and np.array_equal(now.value, was.value, equal_nan=True)


def _returned(result: Any, called: Sequence[str | None]) -> dict[str, Array]:
    """What was returned, by the user's own names."""
    parts: dict[str, Any]
    if isinstance(result, dict):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, (tuple, list)):
        names = list(called) if len(called) == len(result) and isinstance(result, tuple) else [None] * len(result)
        listed = called[0] if len(called) == 1 and called[0] else UNNAMED
        parts = {name or f"{listed}[{i}]": value for i, (name, value) in enumerate(zip(names, result, strict=True))}
    else:
        parts = {(called[0] if len(called) == 1 else None) or UNNAMED: result}
    found = {}
    for name, value in parts.items():
        leaves, paths, _ = flatten(value)
        for leaf, path in zip(leaves, paths, strict=True):
            array = as_array(leaf)
            if array is not None:
                found[name + path] = array
    return found


def _in_order(returned: Mapping[str, Array], found: Mapping[str, str], arguments: Sequence[str]) -> dict[str, str]:
    """Gradients without a telling name: the first is that of forward's first argument, and so on."""
    open_ = [path for path in returned if path not in found and returned[path].dtype.kind in "fiu"]
    free = [name for name in arguments if name not in found.values()]
    return dict(zip(open_, free, strict=False))
