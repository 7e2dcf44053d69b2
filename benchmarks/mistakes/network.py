"""A network written by hand: its source text, what is declared about it, and how its two functions are called."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import itertools
import linecache
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

MARKER = "# --- what the benchmark knows about it"
NAMES_OF_GRADIENTS = r"(self\.)?(d_?[A-Za-z]\w*|g[A-Z]\w*|grad\w*(\[.+\])?|delta\w*|nabla\w*(\[.+\])?)"
_SERIAL = itertools.count()


@dataclass(frozen=True)
class Network:
    """Source text with a forward and a backward, and what is declared below its marker."""

    name: str
    source: str
    declared: Mapping[str, Any] = field(repr=False)

    @cached_property
    def code(self) -> str:
        """The part that a person wrote."""
        return self.source.split(MARKER)[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.code)

    def get(self, name: str, default: Any = ()) -> Any:
        return self.declared.get(name, default)

    @property
    def is_object(self) -> bool:
        return "OBJECT" in self.declared

    def inputs(self, rng: np.random.Generator) -> dict[str, Any]:
        return self.declared["make_inputs"](rng)

    @cached_property
    def gradient_pattern(self) -> re.Pattern[str]:
        return re.compile(self.get("GRADIENT_NAMES", NAMES_OF_GRADIENTS))


def read(path: Path) -> Network:
    """The network in a file."""
    return parsed(path.stem, path.read_text(encoding="utf-8"))


def parsed(name: str, source: str) -> Network:
    """The network in a source text; what is declared is found by running it."""
    with imported(source) as module:
        return Network(name, source, dict(vars(module)))


def hand_written() -> list[Network]:
    """All networks of the folder `networks`, by name."""
    folder = Path(__file__).parent / "networks"
    return [read(path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]


@contextmanager
def imported(source: str) -> Iterator[ModuleType]:
    """A module made of source text, in a file of its own for as long as it is used, so that its lines can be read."""
    name = f"mistakes_{next(_SERIAL)}"
    with tempfile.TemporaryDirectory(prefix="stepgrad-mistakes-") as folder:
        path = Path(folder) / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        written = sys.dont_write_bytecode
        sys.dont_write_bytecode = True
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            sys.dont_write_bytecode = written
            del sys.modules[name]
            linecache.cache.pop(str(path), None)


# --- calling


@dataclass
class Calls:
    """One user's module at work: forward, then backward, as often as wanted, with what state it keeps."""

    network: Network
    module: ModuleType
    layer: Any = None

    def __post_init__(self) -> None:
        if self.network.is_object:
            maker = vars(self.module)["make_object"]
            self.layer = maker(np.random.default_rng(5))

    @property
    def functions(self) -> tuple[Any, Any]:
        if self.layer is not None:
            return self.layer.forward, self.layer.backward
        first, second = self.network.declared["PAIR"]
        return getattr(self.module, first), getattr(self.module, second)

    def forward(self, inputs: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
        """The loss or output, and the other things that the forward returns."""
        result = self.functions[0](**inputs)
        return (result[0], result[1:]) if isinstance(result, tuple) else (result, ())

    def backward(self, inputs: Mapping[str, Any], rest: tuple[Any, ...], downstream: Any) -> dict[str, Any]:
        """The gradients by name, arrays copied; what the backward asks for is found by the names of its parameters."""
        forward, backward = self.functions
        available = {**inputs, **dict(zip(_returned_names(forward, len(rest)), rest, strict=True))}
        arguments, open_places = {}, []
        for name, parameter in inspect.signature(backward).parameters.items():
            if name in available:
                arguments[name] = available[name]
            elif parameter.default is parameter.empty:
                open_places.append(name)
        if open_places and downstream is not None:
            arguments[open_places.pop(0)] = downstream
        for name in open_places:
            arguments[name] = rest[0]
        return self._by_name(backward(**arguments))

    def _by_name(self, result: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.layer is not None:
            for name in self.network.declared["GRADIENTS"]:
                if name.startswith("self.") and hasattr(self.layer, name[5:]):
                    found[name] = getattr(self.layer, name[5:])
            if result is not None:
                found["x"] = result
        elif isinstance(result, dict):
            found = dict(_leaves(result))
        elif isinstance(result, tuple):
            found = {str(place): value for place, value in enumerate(result)}
        else:
            found = {"0": result}
        return {name: np.array(value) for name, value in found.items() if value is not None}


def _returned_names(forward: Any, count: int) -> list[str]:
    """What the forward calls the things that it returns besides the loss."""
    function = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            return [item.id if isinstance(item, ast.Name) else f"?{k}" for k, item in enumerate(node.value.elts[1:])]
    return [f"?{k}" for k in range(count)]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}[{key!r}]" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}[{place}]")
    else:
        yield path, value


def input_of(network: Network, gradient: str) -> str:
    """The input that a gradient belongs to."""
    declared = network.declared["GRADIENTS"]
    return declared[int(gradient)] if isinstance(declared, tuple) else declared[gradient]


def entries(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays inside nested inputs, by path, as `params['W1']`; they are the arrays themselves, not copies."""
    return {path: value for path, value in _leaves(dict(inputs)) if isinstance(value, np.ndarray)}


def fresh(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs that may be written to."""
    return copy.deepcopy(dict(inputs))
