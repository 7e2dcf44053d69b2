"""Abstract recording: a function becomes a tape from the shapes and dtypes of its arguments, without values."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.cells import AbstractCells, Cell
from stepgrad.errors import AbstractValueError, ArgumentError, UnsupportedError
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation, Role
from stepgrad.tape.leaves import read_only_copy
from stepgrad.tape.op import type_of
from stepgrad.tape.places import place_text
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import ArrayLike, Tensor, describe
from stepgrad.tree import Rebuild, flatten


@dataclass
class Arguments:
    """The arguments of one call, taken apart.

    Attributes:
        key: what a program is made for: the structure, shapes, dtypes, and values that are no arrays.
        values: the arrays, and Python floats, which are inputs as well.
        names: what each of them may be called.
        sources: equations of those that gradients can flow to.
        held: objects that the key knows by their identity.
        rebuild: puts the arguments together from as many other values: (args, kwargs).
        flat: each positional argument is an array or float, and there are no others.
    """

    key: tuple[Any, ...] = ()
    values: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sources: list[Equation] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)
    rebuild: Rebuild = field(default=lambda new: ((), {}))
    flat: bool = False


def take_apart(
    args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str] = (), tensors: bool = False
) -> Arguments:
    """Takes the arguments of a call apart.

    Arrays, tensors, NumPy scalars and Python floats become inputs, wherever they stand in nested
    lists, tuples and dicts. Cells and modules stay what they are. All else is part of the key.

    Args:
        args, kwargs: the arguments.
        names: what the positional ones are called.
        tensors: leave tensors what they are, for a call that is part of a recording.

    Raises:
        ArgumentError: something that is neither an array nor hashable.
        DtypeError: an array of something other than real numbers.
    """
    found = Arguments()
    key: list[Any] = [len(args), *sorted(kwargs)]

    def add(value: Any, name: str) -> Rebuild:
        position = len(found.values)
        found.values.append(value)
        found.names.append(name)
        key.append(_FLOAT if type(value) is float else (value.shape, value.dtype))
        return lambda new: new[position]

    def take(node: Any, name: str) -> Rebuild:
        if type(node) is float:
            return add(node, name)
        if isinstance(node, (np.ndarray, np.generic)):
            return add(_plain(node), name)
        if isinstance(node, Tensor):
            if tensors:
                return add(node, name)
            if type(node.value) is float:
                return add(node.value, name)
            if node.equation.active:
                found.sources.append(node.equation)
            return add(_plain(node.numpy()), name)
        if isinstance(node, dict):
            key.append((dict, *node))
            parts = {k: take(v, f"{name}_{k}") for k, v in node.items()}
            return lambda new: {k: part(new) for k, part in parts.items()}
        if isinstance(node, (list, tuple)):
            kind = type(node)
            key.append((kind, len(node)))
            items = [take(item, f"{name}_{i}") for i, item in enumerate(node)]
            if hasattr(kind, "_fields"):  # a named tuple
                return lambda new: kind(*[item(new) for item in items])
            return lambda new: (list if kind is list else tuple)(item(new) for item in items)
        found.held.append(node)
        key.append((Cell, id(node)) if isinstance(node, Cell) else (type(node), node))
        _check_hashable(node, name)
        return lambda new: node

    called = [*names, *(f"x{i}" for i in range(len(names), len(args)))]
    positional = [take(value, name) for value, name in zip(args, called, strict=False)]
    by_name = {name: take(kwargs[name], name) for name in sorted(kwargs)}
    found.rebuild = lambda new: ([part(new) for part in positional], {k: part(new) for k, part in by_name.items()})
    found.flat = not kwargs and len(found.values) == len(args) == len(key) - 1
    found.key = tuple(key)
    return found


_FLOAT = "float"


def _plain(array: Any) -> Any:
    """A plain array of real numbers in native byte order."""
    if type(array) is not np.ndarray or array.dtype.kind not in "fiub":
        array = read_only_copy(array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _check_hashable(value: Any, name: str) -> None:
    try:
        hash(value)
    except TypeError:
        raise ArgumentError(
            f"a compiled function was given a {type(value).__name__} as {name}",
            "a value that is no array is built into the program, so it has to be one that can't change",
            "pass arrays, numbers, strings, or lists, tuples and dicts of them; or let the function take it "
            "from outside",
        ) from None


@dataclass(frozen=True)
class Recorded:
    """A function recorded without values.

    Attributes:
        tape: its inputs are the arrays and floats among the arguments, in order; its outputs are what
            the user wants, each once, and then the last ASSIGN of each cell that is written.
        user_outputs: how many of the outputs are the user's.
        cells: every cell that is read or written.
        written: the cells that are written, in the order of the outputs.
        results: for each leaf of the result, the number of an output; or None for what was no
            abstract tensor, and is kept.
        kept: for each leaf of the result, what is kept.
        paths: the path of each leaf in the result.
        rebuild: puts the result together from its leaves.
    """

    tape: Tape
    user_outputs: int
    cells: tuple[Cell, ...]
    written: tuple[Cell, ...]
    results: tuple[int | None, ...]
    kept: tuple[Any, ...]
    paths: tuple[str, ...]
    rebuild: Rebuild


def record_step(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str] = ()
) -> Recorded:
    """Records a call of a function. Only shapes, dtypes and what is no array are looked at.

    No cell changes: reading one gives a leaf without a value, and assigning to one an equation.

    Args:
        fn: any function of tensors and cells.
        args, kwargs: its arguments, see `take_apart`.
        names: what the positional arguments are called.

    Raises:
        AbstractValueError: the function asked for the value of a tensor or cell.
        UnsupportedError: it returned something other than tensors and plain Python values.
    """
    arguments = take_apart(args, kwargs, names)
    inputs = [_input(value, name) for value, name in zip(arguments.values, arguments.names, strict=True)]
    args, kwargs = arguments.rebuild([Tensor(None, leaf) for leaf in inputs])
    cells, equations = AbstractCells(), []  # type: ignore[var-annotated]
    plain: dict[str, Any] = {"of": None, "operand": None, "observe": None, "gradients": None, "masks": None}
    with recording(equations=equations, cells=cells, role=Role.FORWARD, scope=(), region=None, closed=True, **plain):
        result = fn(*args, **kwargs)
    return _collect(equations, inputs, cells, result)


def _input(value: Any, name: str) -> Equation:
    weak = type(value) is float
    kind = type_of((), np.dtype(np.float64), weak=True) if weak else type_of(value.shape, value.dtype)
    leaf = Equation(INPUT, (), {}, kind, kind.is_float and not weak)
    leaf.name = name
    return leaf


def _collect(equations: list[Equation], inputs: list[Equation], cells: AbstractCells, result: Any) -> Recorded:
    own = {*inputs, *equations}
    settled: dict[Equation, Equation] = dict(cells.assigned)

    def settle(source: Equation) -> Equation:
        """What an operand is on the tape: values from outside are constants there."""
        if source in own or source.op is LITERAL:
            return source
        found = settled.get(source)
        if found is None:
            inside = source.op is CONSTANT or (source.op is CELL and source.value is None)
            found = settled[source] = source if inside else _constant_of(source)
        return found

    for equation in equations:
        equation.inputs = tuple([settle(source) for source in equation.inputs])

    leaves, paths, rebuild = flatten(result)
    outputs: dict[Equation, int] = {}
    results: list[int | None] = []
    for leaf, path in zip(leaves, paths, strict=True):
        if isinstance(leaf, Tensor) and leaf.value is None:
            results.append(outputs.setdefault(settle(leaf.equation), len(outputs)))
        else:
            _check_result(leaf, path)
            results.append(None)
    written = {cell: equation for cell, equation in cells.written.items() if equation in own}
    tape = Tape(equations, inputs, [*outputs, *written.values()])
    used = [e.params["cell"] for e in tape.leaves() if e.op is CELL]
    kept = tuple([None if i is not None else leaf for i, leaf in zip(results, leaves, strict=True)])
    return Recorded(
        tape, len(outputs), tuple(dict.fromkeys(used)), tuple(written), tuple(results), kept, tuple(paths), rebuild
    )


def _constant_of(source: Equation) -> Equation:
    """A constant with the value of something that was computed outside of the function."""
    if source.value is None:
        raise AbstractValueError(
            f"{describe(Tensor(None, source))} was used in a function that is being recorded, and comes from another "
            f"recording\n  at {place_text(source.where)}",
            "what is recorded abstractly has no value outside of its own recording",
            "return it from the compiled function that computes it, and pass it as an argument",
        )
    constant = Equation(CONSTANT, (), {}, source.type, False)
    constant.value, constant.name = source.value, source.name
    return constant


def _check_result(leaf: Any, path: str) -> None:
    if isinstance(leaf, (ArrayLike, np.ndarray, np.generic, *_PLAIN)):
        return
    raise UnsupportedError(
        f"a compiled function returned a {type(leaf).__name__}" + (f" at {path}" if path else ""),
        "it is run without Python, and what it returns is put together from tensors and plain values",
        "return tensors and numbers, in lists, tuples and dicts",
    )


_PLAIN = (int, float, complex, str, bytes, type(None), np.dtype, type, enum.Enum)
