"""The arrays that an object holds, by path: listing them, and putting others in their place."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepgrad.check.backward.naming import tokens
from stepgrad.errors import ArgumentError

_MOST = 10_000
_LIBRARIES = sys.stdlib_module_names | {"numpy", "scipy", "torch", "jax", "jaxlib", "stepgrad", "builtins"}


def is_users(value: Any) -> bool:
    """Whether a value is an instance of a class of the user's, so that its attributes are looked at."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and not callable(getattr(kind, "__get__", None))
        and kind.__module__.partition(".")[0] not in _LIBRARIES
    )


def held(owner: Any, root: str = "self") -> Iterator[tuple[str, Any]]:
    """Every array and number in an object's attributes, and in the objects, dicts, lists and tuples they hold.

    Yields:
        A path, such as `self.layers[0].params['W']`, and the value. What stands in two places is
        given twice; objects that refer to each other are walked once.
    """
    stack: list[tuple[str, Any]] = [(root, owner)]
    seen: set[int] = set()
    count = 0
    while stack:
        path, value = stack.pop()
        if isinstance(value, (np.ndarray, float, np.floating)):
            count += 1
            if count > _MOST:
                raise ArgumentError(
                    f"{type(owner).__name__} holds more than {_MOST:,} arrays",
                    "each of them is an input, whose gradient is looked for",
                    "check one layer at a time: sg.check_backward(network.layers[0], inputs={'x': x})",
                )
            yield path, value
        children = _children(path, value)
        if children and id(value) not in seen:
            seen.add(id(value))
            stack += reversed(children)


def users_objects(owner: Any) -> list[Any]:
    """The object, and the objects of the user's classes that it holds."""
    found: list[Any] = []
    stack, seen = [owner], set()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_users(value):
            found.append(value)
        stack += [child for _, child in reversed(_children("", value))]
    return found


def _children(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{path}[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"{path}[{i}]", child) for i, child in enumerate(value)]
    if is_users(value):
        return [(f"{path}.{name}", child) for name, child in vars(value).items()]
    return []


def duplicate(owner: Any) -> Any:
    """A copy of an object with all that it holds; floating-point arrays in float64.

    Raises:
        ArgumentError: it holds something that can't be copied.
    """
    try:
        made = copy.deepcopy(owner)
    except Exception as error:
        raise ArgumentError(
            f"{type(owner).__name__} can't be copied: {error}",
            "forward and backward are called many times, each time from the same state, and your object is left alone",
            "leave files, locks and modules out of its attributes, or give the class a __deepcopy__",
        ) from error
    narrow = {id(v): v for _, v in held(made) if isinstance(v, np.ndarray) and v.dtype in (np.float16, np.float32)}
    put(made, {key: value.astype(np.float64) for key, value in narrow.items()})
    return made


def put(owner: Any, new: Mapping[int, Any], seen: set[int] | None = None) -> Any:
    """Puts values in the place of others, wherever these are held: by the id of what was there.

    Returns:
        The object itself; another tuple where one held a value that is replaced.
    """
    seen = set() if seen is None else seen
    if id(owner) in new:
        return new[id(owner)]
    if id(owner) in seen:
        return owner
    if isinstance(owner, tuple):
        items = [put(item, new, seen) for item in owner]
        if all(item is was for item, was in zip(items, owner, strict=True)):
            return owner
        return type(owner)(*items) if hasattr(owner, "_fields") else tuple(items)
    seen.add(id(owner))
    if isinstance(owner, list):
        owner[:] = [put(item, new, seen) for item in owner]
    elif isinstance(owner, dict):
        for key in list(owner):
            owner[key] = put(owner[key], new, seen)
    elif is_users(owner):
        attributes = vars(owner)
        for name in list(attributes):
            attributes[name] = put(attributes[name], new, seen)
    return owner


def place(owner: Any, new: Mapping[str, Any]) -> None:
    """Puts values at paths, as `held` gives them. Where an array is held at several, it is replaced at all."""
    arrays = dict(held(owner))
    by_identity = {id(arrays[path]): value for path, value in new.items() if isinstance(arrays[path], np.ndarray)}
    for path, value in new.items():
        if not isinstance(arrays[path], np.ndarray):
            holder: Any = owner
            *between, last = tokens(path)[1:]
            for token in between:
                holder = _step(holder, token)
            if isinstance(holder, (dict, list)):
                holder[_index(holder, last)] = value
            else:
                vars(holder)[last] = value
    put(owner, by_identity)


def _step(holder: Any, token: str) -> Any:
    return holder[_index(holder, token)] if isinstance(holder, (dict, list, tuple)) else vars(holder)[token]


def _index(holder: Any, token: str) -> Any:
    return next(key for key in holder if str(key) == token) if isinstance(holder, dict) else int(token)
