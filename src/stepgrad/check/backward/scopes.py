"""What a line of the user's could read: local variables, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scope:
    """What a line could read instead.

    Attributes:
        arrays: text -> value, for arrays that the line could read: `A1`, `cache["A1"]`, `self.x`.
        numbers: the same for numbers.
        functions: names of the user's functions.
        value: what the line computed.
        before: what its variable held before the line; None if nothing.
    """

    arrays: Mapping[str, Any]
    numbers: Mapping[str, Any]
    functions: tuple[str, ...] = ()
    value: Any = None
    before: Any = None


def scope_of(variables: Mapping[str, Any], functions: Iterable[str], value: Any) -> Scope:
    """The scope of a line: local variables, and what they hold."""
    arrays: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    counters: dict[Any, str] = {
        v: n for n, v in variables.items() if type(v) is int and len(n) <= 2
    }  # hs[t] rather than hs[3]

    def take(text: str, held: Any, depth: int) -> None:
        if isinstance(held, np.ndarray) and held.ndim:
            arrays[text] = held
        elif isinstance(held, (int, float, np.generic, np.ndarray)) and not isinstance(held, bool):
            numbers[text] = held
        elif isinstance(held, dict) and depth < 2:
            for key, part in list(held.items())[:40]:
                if isinstance(key, (str, int)):
                    take(f"{text}[{counters.get(key, _quoted(key))}]", part, depth + 1)
        elif isinstance(held, (list, tuple)) and depth < 2:
            for i, part in enumerate(held[:12]):
                take(f"{text}[{counters.get(i, i)}]", part, depth + 1)
        elif text == "self" and hasattr(held, "__dict__"):
            for name, part in vars(held).items():
                take(f"self.{name}", part, depth + 1)

    for name, held in variables.items():
        if not name.startswith("__"):
            take(name, held, 0)
    return Scope(arrays, numbers, tuple(functions), value)


def _quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)
