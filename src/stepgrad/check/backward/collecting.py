"""Which attributes of an object are inputs, and where its backward has left their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.backward.naming import (
    PARAMETER,
    gradient_roots,
    is_gradient_container,
    is_gradient_name,
    matched,
    tokens,
)
from stepgrad.check.backward.state import held
from stepgrad.check.backward.subject import as_array, short_name
from stepgrad.tensor import Array
from stepgrad.tree import flatten

UNNAMED = "return"
"""What is returned without a name is called `return`, or `return[1]`."""

AGAIN = " at position "
"""A variable that is returned twice has this behind its name the second time, and is no gradient of another input."""


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
    arguments: Mapping[str, Array],
    places: Mapping[str, tuple[str, ...]] | None = None,
    before: Mapping[str, Attribute] | None = None,
    after: Mapping[str, Attribute] | None = None,
) -> Collected:
    """The gradients that a backward returned, and those it left in attributes.

    What it returned is matched by name first (a dict by its keys, a tuple by the names in the return
    statement), then by shape in the order of forward's arguments. Of attributes those count that it has set.

    Args:
        result: what it returned.
        called: what its return statement calls that.
        arguments: forward's own floating-point inputs, in order.
        places: attribute inputs -> all their paths.
        before, after: the attributes before and after the backward.
    """
    places, before, after = places or {}, before or {}, after or {}
    short = [short_name(path) for path in arguments]
    aliases = {name: path for name, path in zip(short, arguments, strict=True) if short.count(name) == 1}
    aliases |= {path: path for path in arguments} | {alias: path for path, paths in places.items() for alias in paths}
    returned = _returned(result, called)
    found = matched(returned, aliases, keyed=isinstance(result, dict))
    if not isinstance(result, dict):
        found |= _in_order(returned, found, arguments)
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
    extra = {path: value for path, value in returned.items() if path not in found and value is not None}
    return Collected({**gradients, **extra}, names)


def _is_same(was: Attribute, now: Attribute) -> bool:
    return now.held is was.held and np.array_equal(now.value, was.value, equal_nan=True)


def _returned(result: Any, called: Sequence[str | None]) -> dict[str, Array | None]:
    """What was returned, by the user's own names; None where that stands in place of a gradient."""
    parts: dict[str, Any] = {}
    if isinstance(result, dict):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, (tuple, list)):
        names = list(called) if len(called) == len(result) and isinstance(result, tuple) else [None] * len(result)
        listed = called[0] if len(called) == 1 and called[0] else UNNAMED
        for i, (name, value) in enumerate(zip(names, result, strict=True)):
            parts[f"{name}{AGAIN}{i}" if name in parts else name or f"{listed}[{i}]"] = value
    elif result is not None:
        parts = {(called[0] if len(called) == 1 else None) or UNNAMED: result}
    found: dict[str, Array | None] = {}
    for name, value in parts.items():
        leaves, paths, _ = flatten(value)
        for leaf, path in zip(leaves, paths, strict=True):
            array = as_array(leaf)
            if array is not None or leaf is None:
                found[name + path] = array
    return found


def _in_order(
    returned: Mapping[str, Array | None], found: Mapping[str, str], arguments: Mapping[str, Array]
) -> dict[str, str]:
    """Gradients without a telling name, in the order of the arguments.

    Where there are fewer of them than arguments, those are meant that have their shapes; of a wrong
    shape is rather the gradient of a parameter than that of data.
    """
    alone = len(returned) in (1, len(arguments))
    open_ = [
        path
        for path, value in returned.items()
        if path not in found
        and AGAIN not in path
        and (value is None or value.dtype.kind in "fiu")
        and (alone or not gradient_roots(tokens(path)[-1]))
    ]
    free = [name for name in arguments if name not in found.values()]
    if len(open_) == len(free):
        return dict(zip(open_, free, strict=True))
    shapes = {path: value.shape for path, value in returned.items() if path in open_ and value is not None}
    chosen: dict[str, str] = {}
    for name in free:
        fit = next((p for p in shapes if p not in chosen and shapes[p] == arguments[name].shape), None)
        if fit is not None:
            chosen[fit] = name
    left = [name for name in free if name not in chosen.values()]
    wrong = [path for path in shapes if path not in chosen]
    parameters = [name for name in left if PARAMETER.fullmatch(short_name(name))]
    return chosen | dict(zip(wrong, parameters or ([] if chosen else left), strict=False))
