"""Arguments of a traced function: arrays become named inputs of the tape, all else is passed on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.errors import ArgumentError
from stepgrad.tape.equation import Equation
from stepgrad.tape.leaves import tensor
from stepgrad.tensor import ArrayLike


@dataclass
class Arguments:
    """The arguments of one call.

    Attributes:
        args, kwargs: what to call the function with.
        inputs: the leaf made for each array or tensor, with the names it may get, best first.
        cells: the names that each cell may get, best first.
        origins: equation or cell -> the name of the argument it came from.
    """

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: dict[Equation, tuple[str, ...]] = field(default_factory=dict)
    cells: dict[Cell, tuple[str, ...]] = field(default_factory=dict)
    origins: dict[Any, str] = field(default_factory=dict)

    def _open(self, value: Any, argument: str, path: str, key: str, numbers: bool) -> Any:
        """The argument with its arrays replaced by tensors; `key` is the innermost dict key that names it."""
        names = tuple(dict.fromkeys([key or path, path]))
        if isinstance(value, Cell):
            self._add_cell(value, argument, (value.name, *names) if value.name else names)
        elif isinstance(value, ArrayLike):
            own = value._tensor.equation.name
            return self._input(value.numpy(), argument, (own, *names) if own else names)
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiubc":
            return self._input(value, argument, names)
        elif numbers and type(value) is float:
            return self._input(np.float64(value), argument, names)
        elif callable(getattr(value, "parameters", None)):
            self.module(value, argument)
        elif isinstance(value, dict):
            return {
                k: self._open(v, argument, f"{path}_{k}", str(k) if _names_itself(k) else "", numbers)
                for k, v in value.items()
            }
        elif isinstance(value, list | tuple):
            items = [
                self._open(v, argument, f"{path}_{i}", f"{key}_{i}" if key else "", numbers)
                for i, v in enumerate(value)
            ]
            if isinstance(value, list):
                return items
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        return value

    def _input(self, value: Any, argument: str, names: tuple[str, ...]) -> Any:
        made = tensor(value)
        made.equation.value = made.value  # also of an input that nothing reads
        self.inputs[made.equation] = names
        self.origins[made.equation] = argument
        return made

    def _add_cell(self, cell: Cell, argument: str, names: tuple[str, ...]) -> None:
        self.cells.setdefault(cell, names)
        self.origins.setdefault(cell, argument)

    def module(self, module: Any, argument: str) -> None:
        for held in (module.parameters, getattr(module, "states", dict)):
            for path, cell in held().items():
                if isinstance(cell, Cell):
                    self._add_cell(cell, argument, (path, f"{argument}.{path}"))


def open_arguments(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
    """Makes inputs of a call's arrays, named by the function's signature.

    Python numbers are settings and are passed on as they are, unless nothing else could be an
    input; then those with a decimal point are.
    """
    found = Arguments()
    names = _argument_names(fn, args, kwargs)
    if callable(getattr(fn, "parameters", None)):
        found.module(fn, "model")
    for numbers in (False, True):
        found.args = [found._open(value, name, name, "", numbers) for name, value in zip(names, args, strict=True)]
        found.kwargs = {name: found._open(value, name, name, "", numbers) for name, value in kwargs.items()}
        if found.inputs or found.cells:
            break
    return found


def _argument_names(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """What the function calls each positional argument."""
    called = getattr(fn, "forward", fn)
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):  # a function written in C
        return [f"x{i}" for i in range(len(args))]
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(
            f"{getattr(fn, '__name__', fn)} can't be called with {len(args)} positional arguments"
            + (f" and {', '.join(kwargs)}" if kwargs else ""),
            f"Python says: {error}",
            f"call sg.trace(fn, ...) with the arguments that fn takes: {signature}",
        ) from None
    names: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(len(args) - len(names))]
        elif parameter.kind is not parameter.KEYWORD_ONLY and len(names) < len(args):
            names.append(parameter.name)
    return names[: len(args)]


def _names_itself(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier()
