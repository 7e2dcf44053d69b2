"""Where ops and public functions are entered, so that operators, NumPy and tests find them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepgrad.tape.op import Op
from stepgrad.tensor import functions, numpy_functions

registry: dict[str, Op] = {}
"""Every op by name."""

F = TypeVar("F", bound=Callable[..., Any])


def register(op: Op) -> Op:
    """Enters an op that users reach only through functions."""
    assert op.name not in registry, f"two ops are called {op.name}"
    registry[op.name] = op
    return op


def public(function: F, *replaces: Any) -> F:
    """Enters a function, or an op that users call as one, under its own name.

    Args:
        function: the function or op.
        replaces: the NumPy functions that it stands for on tensors; a pair (ufunc, method) for one
            such as np.add.reduce.
    """
    if isinstance(function, Op):
        register(function)
    functions[function.__name__.rstrip("_")] = function
    for numpy_function in replaces:
        numpy_functions[numpy_function] = function
    return function
