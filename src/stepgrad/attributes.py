"""Attributes of modules and optimizers: which have changed since some moment.

What a function reads while it is recorded is built into its program: `training`, say, which `eval` switches. So
changes are counted, in memory that native code looks at before it runs a program, and the last ones are
remembered. A value that was changed and changed back, as in a validation between epochs, has not changed.

Only assignments are seen (`module.p = 0.1`), and not what happens inside of a value (`module.sizes.append(3)`).
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from threading import get_ident
from typing import Any

import numpy as np

count = np.zeros(1, np.int64)
"""A number that is another one after each change. A moment is what it was then."""

_count = count.data  # a memoryview: reading an element of it is twice as fast
_numbers = itertools.count(1)

_KEPT = 4096
_changes: deque[tuple[int, int, Any, str | None, Any]] = deque(maxlen=_KEPT)
"""(number, thread, object, attribute, value before); without an attribute: the object was made."""


def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """`__new__` of a class whose objects' attributes are noted."""
    made = object.__new__(cls)
    _note(made, None, None)  # nothing that was recorded before can have read it
    return made


def assign(self: Any, name: str, value: Any) -> None:
    """`__setattr__` of such a class."""
    before = _value(self, name)
    object.__setattr__(self, name, value)
    if before is not value and not hasattr(before, "__set__"):  # a property sets what it sets
        _note(self, name, before)


def delete(self: Any, name: str) -> None:
    """`__delattr__` of such a class."""
    before = _value(self, name)
    object.__delattr__(self, name)
    _note(self, name, before)


def now() -> int:
    """The moment."""
    return _count[0]


def now_or(before: int) -> int:
    """The moment, if only this thread has changed anything since the one before; else that one.

    A function may set attributes while it is recorded, and that is no reason to record it again. What another
    thread sets meanwhile is: the function may have read the value before.
    """
    found, own = now(), get_ident()
    others = any(number > before and thread != own for number, thread, *_ in list(_changes))
    return before if others or _is_forgotten(before) else found


def changed_since(moment: int) -> bool:
    """Whether an attribute of an object that was there then has another value, or may have."""
    first: dict[tuple[int, str], tuple[Any, Any]] = {}
    made: set[int] = set()
    if _is_forgotten(moment):
        return True
    for number, _, reference, name, before in list(_changes):
        if number <= moment:
            continue
        if name is None:
            made.add(id(reference))
        elif id(reference) not in made:
            first.setdefault((id(reference), name), (reference, before))
    for (_, name), (reference, before) in first.items():
        each = reference()
        if each is not None:
            value = _value(each, name)
            if value is not before and not (type(value) is type(before) and repr(value) == repr(before)):
                return True
    return False


def _is_forgotten(moment: int) -> bool:
    """Whether there were more changes since then than are kept."""
    return len(_changes) == _KEPT and _changes[0][0] > moment + 1


_MISSING = object()
_PLAIN = (bool, int, float, str, type(None))


def _value(each: Any, name: str) -> Any:
    """An attribute as it is found: the object's own, or its class's."""
    value = each.__dict__.get(name, _MISSING)
    return getattr(type(each), name, _MISSING) if value is _MISSING else value


class _Gone:
    """Stands for a value before that is not kept, and so equals nothing."""


def _note(each: Any, name: str | None, before: Any) -> None:
    if before is not _MISSING and not isinstance(before, _PLAIN):
        before = _Gone()
    number = next(_numbers)
    _changes.append((number, get_ident(), weakref.ref(each), name, before))
    _count[0] = number
