"""`special` stands for scipy.special, which is imported when a function of it is called.

The import takes longer than that of stepgrad itself, and most programs call none of them. The ops name
the functions as ever: `special.erf`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from stepgrad.tensor import functions, numpy_functions


class _Function:
    """A function of scipy.special, looked up at its first call."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._found: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **settings: Any) -> Any:
        if self._found is None:
            self._found = getattr(importlib.import_module("scipy.special"), self.__name__)
        return self._found(*args, **settings)

    def __repr__(self) -> str:
        return f"<scipy.special.{self.__name__}, imported when it is called>"


class _Special:
    """Has a `_Function` under each name, one object for each."""

    def __getattr__(self, name: str) -> _Function:
        if name.startswith("_"):
            raise AttributeError(name)
        function = _Function(name)
        setattr(self, name, function)
        return function


special: Any = _Special()


def counterpart(function: Any) -> Callable[..., Any] | None:
    """stepgrad's function for one of scipy.special's own, which a user has called on a tensor; None for any other."""
    module, name = sys.modules.get("scipy.special"), getattr(function, "__name__", "")
    if module is None or getattr(module, name, None) is not function:
        return None
    ours = numpy_functions.get(getattr(special, name))
    if ours is not None:
        numpy_functions[function] = ours
    return ours


functions["counterpart"] = counterpart
