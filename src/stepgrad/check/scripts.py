"""Functions in a user's file: importing them as Python does, and finding arguments to call them with."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, FileError


@dataclass(frozen=True)
class Script:
    """A function in a file.

    Attributes:
        path: the file.
        name: the function's name.
        function: the function, or a module of a network.
        module: the imported file.
    """

    path: str
    name: str
    function: Callable[..., Any]
    module: ModuleType


@contextmanager
def script(target: str) -> Iterator[Script]:
    """Imports `file.py:function`, with the file's folder first on sys.path while inside.

    The file is only read: no bytecode is written next to it.

    Raises:
        FileError: there is no such file.
        ArgumentError: the file raises an error, or has no such function.
    """
    path, name = parted(target)
    with imported(path) as module:
        yield function_in(module, name)


def parted(target: str) -> tuple[str, str]:
    """The absolute path and the name in `file.py:function`; the name is empty where none is given.

    Raises:
        FileError: there is no such file.
    """
    path, _, name = target.partition(":") if not os.path.exists(target) else (target, "", "")
    if not os.path.isfile(path):
        raise FileError(
            f"{path} can't be imported",
            "there is no such file" if not os.path.isdir(path) else "it is a folder",
            "pass a Python file and a function in it, as in net.py:loss",
        )
    return os.path.abspath(path), name


@contextmanager
def imported(path: str) -> Iterator[ModuleType]:
    """Imports a file as Python does, with its folder first on sys.path while inside.

    Args:
        path: an absolute path.

    Raises:
        FileError: it is no Python file.
        ArgumentError: it raises an error.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    taken = stem in sys.modules
    known = f"script_{stem}" if taken else stem
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None:
        raise FileError(f"{path} can't be imported", "it is not a Python file", "pass a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, os.path.dirname(path))
    sys.modules[known] = module
    try:
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise raised(f"importing {os.path.basename(path)}", path, error) from error
        yield module
    finally:
        sys.path.remove(os.path.dirname(path))
        sys.modules.pop(known, None)
        sys.dont_write_bytecode = writing


def function_in(module: ModuleType, name: str) -> Script:
    """A function of an imported file; without a name the only one.

    Raises:
        ArgumentError: there is no such function, or several.
    """
    path = str(module.__file__)
    return Script(path, name or _only_function(module, path), _function(module, path, name), module)


def raised(doing: str, path: str, error: BaseException) -> ArgumentError:
    """The error for an exception out of the user's own code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) == path]
    at = f"\n  at {os.path.basename(path)}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    if isinstance(error, SyntaxError):
        at = f"\n  at {os.path.basename(error.filename or path)}:{error.lineno}: {(error.text or '').strip()}"
    instead = f"run `python {os.path.basename(path)}` to see the whole traceback"
    if isinstance(error, SystemExit):
        instead = "put what runs a program under `if __name__ == '__main__':`; `stepgrad check` also has --args 'A B …'"
    if isinstance(error, EOFError):
        instead = "write the values in the file: nothing can be typed in while it is checked"
    return ArgumentError(
        f"{doing} raised {type(error).__name__}: {error}{at}",
        "the code in the file stopped before its gradient could be computed",
        instead,
    )


def _functions(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not _gives_inputs(name)
    ]


def _gives_inputs(name: str) -> bool:
    return name.startswith("_") or name == "inputs" or name.endswith("_inputs")


def _only_function(module: ModuleType, path: str) -> str:
    names = _functions(module)
    if len(names) != 1:
        raise ArgumentError(
            f"{os.path.basename(path)} was given without a function",
            f"it defines {', '.join(names)}"
            if names
            else "it defines none, and lines outside of functions run only once",
            f"name one: {os.path.basename(path)}:{names[0]}"
            if names
            else "put the passes into functions: def forward(X, W): … return loss, cache; def backward(cache): …",
        )
    return names[0]


def _function(module: ModuleType, path: str, name: str) -> Callable[..., Any]:
    found = getattr(module, name or _only_function(module, path), None)
    if callable(found):
        return found
    names = _functions(module)
    close = difflib.get_close_matches(name, names, 1)
    raise ArgumentError(
        f"{os.path.basename(path)} has no function {name}"
        + ("" if found is None else f": {name} is a {type(found).__name__}"),
        f"it defines {', '.join(names)}" if names else "it defines none",
        f"name one: {os.path.basename(path)}:{(close or names or ['function'])[0]}",
    )


# --- arguments


def prepared(script: Script, shapes: Mapping[str, tuple[int, ...]], seed: int) -> tuple[Callable[..., Any], list[Any]]:
    """The function and its positional arguments.

    For each parameter the first of these that there is: random numbers of the shape asked for; what
    the file's `<function>_inputs()` returns, or its `inputs()`, or its dict INPUTS; the default.

    Args:
        script: the function.
        shapes: parameter -> shape of an array of standard normal numbers.
        seed: where the random numbers start.

    Raises:
        ArgumentError: a parameter has no value; the message says how to give it one.
    """
    callable_ = getattr(script.function, "forward", script.function)
    parameters = [
        p for p in inspect.signature(callable_).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    names = [p.name for p in parameters]
    given = given_by(script, names)
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name not in names:
            raise _unknown(script, f"--shape {name}=…", name, names)
        given[name] = rng.standard_normal(shape)
    bare = [p.name for p in parameters if p.name not in given and p.default is p.empty]
    if bare:
        options = " ".join(f"--shape {name}=3,5" for name in bare)
        raise ArgumentError(
            f"{script.name} has no value for {', '.join(bare)}",
            "gradients are checked at values; defaults in the function's signature, INPUTS and "
            f"{script.name}_inputs() in the file were looked at",
            f"give shapes for random arrays: stepgrad … {os.path.basename(script.path)}:{script.name} {options}\n"
            f"           or write in the file: INPUTS = {{{', '.join(f'{n!r}: …' for n in bare)}}}",
        )
    values = {p.name: given.get(p.name, p.default) for p in parameters}
    keywords = {p.name: values[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    function = functools.partial(script.function, **keywords) if keywords else script.function
    return function, [values[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]


def given_by(script: Script, names: Sequence[str]) -> dict[str, Any]:
    """What the file itself says the arguments of a function are."""
    module = script.module
    for source in (f"{script.name}_inputs", "inputs", "INPUTS"):
        found = getattr(module, source, None)
        if found is None:
            continue
        if callable(found):
            try:
                found = found()
            except Exception as error:
                raise raised(f"{source}()", script.path, error) from error
        if isinstance(found, (tuple, list)):
            if len(found) > len(names):
                raise ArgumentError(
                    f"{source} gives {len(found)} values, and {script.name} has the parameters {', '.join(names)}",
                    "each parameter takes one value",
                    "return as many values, or a dict by name",
                )
            return dict(zip(names, found, strict=False))
        if not isinstance(found, dict):
            raise ArgumentError(
                f"{source} gives a {type(found).__name__}",
                "arguments are a dict by parameter name, or a tuple or list in order",
                f"write {{{', '.join(f'{n!r}: …' for n in names)}}}",
            )
        if source.endswith("_inputs"):
            for name in found:
                if name not in names:
                    raise _unknown(script, f"{source}()", name, names)
        return {name: value for name, value in found.items() if name in names}
    return {}


def _unknown(script: Script, source: str, name: str, names: Sequence[str]) -> ArgumentError:
    close = difflib.get_close_matches(name, names, 1)
    return ArgumentError(
        f"{source} gives a value for {name}",
        f"{script.name} has the parameters {', '.join(names)}" if names else f"{script.name} has no parameters",
        f"did you mean {close[0]}?" if close else "leave it out, or rename it",
    )


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads `X=3,5` (and `X=` for a single number) into a dict."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, lengths = text.partition("=")
        try:
            shape = tuple(int(n) for n in lengths.strip("() ").split(",") if n.strip())
        except ValueError:
            shape = (-1,)
        if not equals or not name.isidentifier() or any(n < 0 for n in shape):
            raise ArgumentError(
                f"--shape {text} can't be read",
                "it says of which shape the array for one parameter is to be",
                "write the parameter, = and the lengths: --shape X=3,5; for a single number --shape x=",
            )
        shapes[name] = shape
    return shapes
