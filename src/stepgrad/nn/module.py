"""The module: a part of a network, as a plain Python object that holds parameters and other modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from stepgrad import attributes
from stepgrad.cells import Cell, Parameter, State
from stepgrad.errors import ArgumentError, UnsupportedError
from stepgrad.saving import load_values, values_of
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import Array


class Module:
    """A part of a network. Abstract: a subclass writes `__init__` and `forward`.

    What it holds is found by looking at its attributes, in the order in which they were set:
    parameters, states and modules, and lists, tuples and dicts of them. Nothing has to be
    registered, and `super().__init__()` need not be called. A parameter's path, such as
    "layers.0.weight", becomes its name in messages and printing.

    Example:
        >>> class Line(sg.nn.Module):
        ...     def __init__(self):
        ...         self.slope = sg.Parameter(2.0)
        ...         self.intercept = sg.Parameter(1.0)
        ...
        ...     def forward(self, x):
        ...         return self.slope * x + self.intercept
        >>> line = Line()
        >>> line(np.float32(3))
        tensor(7., dtype=float32)
        >>> line
        Line()   slope () · intercept ()   2 parameters
    """

    training = True
    """Whether it is being trained (Dropout drops) or used; set by `train` and `eval`."""

    _path = ""

    __new__, __setattr__, __delattr__ = attributes.new, attributes.assign, attributes.delete

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses write it."""
        raise UnsupportedError(
            f"{type(self).__name__} was called, and has no forward",
            "a module computes what its method forward says",
            f"add a method def forward(self, x) to {type(self).__name__}",
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = RECORDING.get()
        if state.equations is None:
            return self.forward(*args, **kwargs)
        if not state.scope:
            self._name_parts()
        with recording(scope=(*state.scope, self._path or type(self).__name__)):
            return self.forward(*args, **kwargs)

    # --- what it holds

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Its attributes, by the names that paths are made of."""
        return iter(vars(self).items())

    def _walk(self) -> list[tuple[str, Cell | Module]]:
        """Itself and all cells and modules that it holds, with their paths, each once."""
        found: list[tuple[str, Cell | Module]] = [("", self)]
        seen: set[int] = {id(self)}

        def visit(module: Module, path: str) -> None:
            for name, part in _held_by(module):
                if id(part) not in seen:
                    seen.add(id(part))
                    inner = path + name
                    found.append((inner, part))
                    if isinstance(part, Module):
                        visit(part, inner + ".")

        visit(self, "")
        return found

    def _cells(self, kind: type[Cell]) -> dict[str, Any]:
        pairs = [(path, part) for path, part in self._walk() if isinstance(part, kind)]
        cells = dict(pairs)
        if len(cells) < len(pairs):
            raise _ambiguous([path for path, _ in pairs])
        return cells

    def _name_parts(self) -> None:
        for path, module in self.named_modules().items():
            if not module._path or path.endswith("." + module._path):  # an outer module knows the longer path
                module._path = path
        _name(self._cells(Cell))

    def parameters(self) -> dict[str, Parameter]:
        """Its parameters and those of the modules it holds, by path; a shared one stands once.

        Example:
            >>> list(sg.nn.Sequential(sg.nn.Linear(2, 3), sg.nn.ReLU()).parameters())
            ['0.weight', '0.bias']
        """
        return _name(self._cells(Parameter))

    def states(self) -> dict[str, State]:
        """What it holds that is not trained, such as random keys, by path."""
        return _name(self._cells(State))

    def named_modules(self) -> dict[str, Module]:
        """Itself, under the path "", and every module that it holds, by path; a shared one stands once."""
        return {path: part for path, part in self._walk() if isinstance(part, Module)}

    def train(self, training: bool = True) -> Self:
        """Switches it and every module that it holds to training; returns it."""
        for module in self.named_modules().values():
            module.training = training
        return self

    def eval(self) -> Self:
        """Switches it and every module that it holds to use: nothing is dropped; returns it."""
        return self.train(False)

    # --- saving

    def state_dict(self) -> dict[str, Array]:
        """Copies of the values of all parameters and states, by path."""
        return values_of(self._cells(Cell))

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Puts saved values back.

        Args:
            values: path -> array, of exactly the paths and shapes of `state_dict`. Floating-point
                values are converted to the dtype of the parameter.

        Raises:
            ArgumentError, ShapeError, DtypeError: something is missing, unexpected, or does not
                fit; then nothing is changed.
        """
        load_values(self._cells(Cell), values, type(self).__name__)

    # --- printing

    def __repr__(self) -> str:
        rows = _rows(self, "", "", "")
        total = sum(cell.size for cell in self.parameters().values())
        unit = "parameter" if total == 1 else "parameters"
        rows[0] = (*rows[0][:2], f"{total:,} {unit}" if total else "")
        width = max(len(label) for label, _, _ in rows)
        held = max(len(cells) for _, cells, _ in rows)
        lines = (f"{label:<{width}}   {cells:<{held}}   {count}".rstrip() for label, cells, count in rows)
        return "\n".join(lines)


def _held_by(module: Module) -> list[tuple[str, Cell | Module]]:
    """The cells and modules in a module's own attributes, with their names."""
    found: list[tuple[str, Cell | Module]] = []
    for name, part in module._parts():
        if isinstance(part, (Cell, Module)):
            found.append((name, part))
        elif isinstance(part, (list, tuple, dict)):
            _look_inside(part, name, found)
    return found


def _look_inside(parts: Any, path: str, found: list[tuple[str, Cell | Module]]) -> None:
    for name, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
        if isinstance(part, (Cell, Module)):
            found.append((f"{path}.{name}", part))
        elif isinstance(part, (list, tuple, dict)):
            _look_inside(part, f"{path}.{name}", found)


def _ambiguous(paths: list[str]) -> ArgumentError:
    twice = next(path for path in paths if paths.count(path) > 1)
    return ArgumentError(
        f"two parameters of a module have the path {twice!r}",
        "values are saved and gradients returned by path, so each has to be different",
        "choose dict keys and attribute names without dots",
    )


def _name(cells: dict[str, Any]) -> dict[str, Any]:
    """Names cells by their paths, and returns them; a name that the user chose is kept."""
    for path, cell in cells.items():
        name = cell.name
        if name != path and (name is None or path.endswith("." + name)):
            cell.name = path
    return cells


def _rows(module: Module, label: str, first: str, rest: str) -> list[tuple[str, str, str]]:
    """The lines of a module's repr: label, shapes of what it holds itself, number of parameters."""
    plain = (int, float, str, np.dtype)
    settings = [
        f"{name}={value!r}"
        for name, value in module._parts()
        if (isinstance(value, plain) or _is_numbers(value)) and name[0] != "_" and name != "training"
    ]
    held = _held_by(module)
    cells = [(name, part) for name, part in held if isinstance(part, Cell)]
    size = sum(cell.size for _, cell in cells if isinstance(cell, Parameter))
    kind = f"{type(module).__name__}({', '.join(settings)})"
    shapes = " · ".join(f"{name} {cell.shape}" for name, cell in cells)
    rows = [(first + (f"{label} " if label else "") + kind, shapes, f"{size:,}" if size else "")]
    children = [(name, part) for name, part in held if isinstance(part, Module)]
    for i, (name, child) in enumerate(children):
        last = i == len(children) - 1
        rows += _rows(child, name, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return rows


def _is_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, (int, float)) for n in value)
