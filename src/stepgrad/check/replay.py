"""Recording the function under test, and recording its tape again in float64."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad import missing
from stepgrad.cells import ASSIGN, Cell
from stepgrad.errors import ArgumentError, DtypeError, GradientError
from stepgrad.explain.watch import Statement, Watcher
from stepgrad.rules import CustomRule
from stepgrad.tape.equation import CELL, LITERAL, Equation, next_serial
from stepgrad.tape.leaves import constant, tensor
from stepgrad.tape.places import place, source_line
from stepgrad.tape.recording import record, recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array, ArrayLike, Tensor, describe
from stepgrad.tree import flatten


@dataclass(frozen=True)
class Recorded:
    """The tape of one call of the function under test.

    Attributes:
        tape: its inputs are the leaves to differentiate with respect to; its outputs are what the
            function returned.
        names: what to call each of the tape's inputs.
        held: equations whose values count as constant because the user said so: the results of
            stop_gradient, and what was computed under no_grad.
        inner: for each equation with a custom rule, the equations of its forward function.
        statements: the user's statement that recorded each equation.
    """

    tape: Tape
    names: Mapping[Equation, str]
    held: frozenset[Equation]
    inner: Mapping[Equation, tuple[Equation, ...]]
    statements: Mapping[Equation, Statement]

    def place(self, equation: Equation) -> tuple[str, int, str]:
        """The user's file, line and code for an equation; outside of stepgrad's own layers if possible."""
        statement = self.statements.get(equation)
        if statement is not None:
            return statement.file, statement.line, statement.text
        return *place(equation.where), source_line(equation.where)

    def place_text(self, equation: Equation) -> str:
        """`net.py:12: Z = W @ X`."""
        file, line, code = self.place(equation)
        return f"{os.path.basename(file)}:{line}" + (f": {code}" if code else "")


# --- recording a call


def record_call(
    fn: Callable[..., Any], args: Sequence[Any], wrt: Any, move: np.random.Generator | None = None
) -> Recorded:
    """Calls the function once, with everything on the tape. Cells that it assigns get their values back.

    Args:
        fn: the function under test.
        args: its positional arguments.
        wrt: None, or positions, argument names, tensors, parameters or modules, as one or nested.
        move: changes floating-point arguments a little, at random.
    """
    asked = None if wrt is None else _Asked(fn, args, wrt)
    names = _argument_names(fn, len(args))
    leaves: dict[Equation, str] = {}
    opener = _Opener(leaves, asked is not None, move)
    start = next_serial()
    opened = [
        opener.open(argument, names[i]) if asked is None or i in asked.positions else argument
        for i, argument in enumerate(args)
    ]
    recorded: list[Equation] = []
    watcher = Watcher(sys._getframe())
    with (
        recording(equations=recorded, observe=watcher, closed=True, region=None, differentiable=True, scope=()),
        _cells_restored(recorded),
    ):
        result = fn(*opened)
    watcher.finish()
    outputs = [_output(leaf, fn) for leaf in flatten(result)[0]]
    if not outputs:
        raise missing.not_on_tape(result, fn)
    equations = _needed(outputs, set(recorded))
    for equation in equations:
        if equation.name is None and equation in watcher.bound:
            equation.name = watcher.bound[equation][2]
    statements = {e: run.statement for run in watcher.runs for e in run.equations}

    known = set(equations)
    read = dict.fromkeys([*(source for e in equations for source in e.inputs), *outputs])
    first = _first_leaves(recorded)
    outside = [
        e
        for e in read
        if e not in known and e.active and (e.serial < start or (e.op is CELL and first.get(e.params["cell"], e) is e))
    ]
    closed_over = outside if asked is None else asked.equations
    for equation in closed_over:
        leaves.setdefault(equation, _outside_name(equation, fn))

    inner = {e: _forward_of(e, known) for e in equations if custom_rule_of(e) is not None}
    inside = {e for part in inner.values() for e in part}
    held = frozenset(e for e in equations if e not in inside and _is_detached(e))
    return Recorded(Tape(equations, leaves, outputs), leaves, held, inner, statements)


class _Asked:
    """What `wrt` asks for: positions of arguments, and equations of tensors and parameters."""

    def __init__(self, fn: Callable[..., Any], args: Sequence[Any], wrt: Any) -> None:
        self.positions: set[int] = set()
        self.equations: list[Equation] = []
        names = _argument_names(fn, len(args))
        for leaf in flatten(wrt)[0]:
            if isinstance(leaf, ArrayLike):
                if not leaf._tensor.equation.type.is_float:
                    raise _not_floating(describe(leaf._tensor), leaf.dtype)
                leaf._tensor.equation.value = leaf._tensor.value
                self.equations.append(leaf._tensor.equation)
                continue
            position = names.index(leaf) if leaf in names else leaf
            if not isinstance(position, int) or not -len(args) <= position < len(args):
                raise ArgumentError(
                    f"wrt={leaf!r} was asked for, and {called(fn)} was given the arguments {', '.join(names) or '()'}",
                    "wrt names arguments by position, from 0, or by name, or is a tensor, parameter or module",
                    "name an argument that is passed",
                )
            self.positions.add(position % len(args))


@dataclass(frozen=True)
class _Opener:
    """Makes the floating-point arrays in arguments differentiable.

    Attributes:
        leaves: where it enters the leaf of each, and what to call it.
        strict: refuse other numbers, instead of leaving them as they are.
        move: changes them a little, at random.
    """

    leaves: dict[Equation, str]
    strict: bool
    move: np.random.Generator | None

    def open(self, node: Any, path: str) -> Any:
        """The argument with new leaves in it; modules and cells stay what they are."""
        if hasattr(node, "parameters") or isinstance(node, Cell):
            return node
        if isinstance(node, dict):
            return {key: self.open(value, f"{path}[{key!r}]") for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            items = [self.open(value, f"{path}[{i}]") for i, value in enumerate(node)]
            return type(node)(*items) if hasattr(node, "_fields") else type(node)(items)
        if isinstance(node, (Tensor, np.ndarray, np.generic, float, int)):
            return self._leaf(node, path)
        return node

    def _leaf(self, node: Any, path: str) -> Any:
        dtype = np.result_type(type(node)) if isinstance(node, (float, int)) else node.dtype
        if dtype.kind == "c":
            raise DtypeError(
                f"{path} has dtype {dtype}",
                "gradients are checked for real numbers",
                "pass the real and the imaginary part as two arguments",
            )
        if dtype.kind != "f":
            if self.strict:
                raise _not_floating(f"{path} {np.shape(node)} {dtype}", dtype)
            return node
        if self.move is not None:
            value = np.asarray(node.numpy() if isinstance(node, Tensor) else node)
            node = (value * (1 + 1e-3 * self.move.standard_normal(value.shape))).astype(dtype)
        opened = tensor(node, name=path if path.isidentifier() else None)
        opened.equation.value = opened.value  # also where the function does not read it
        self.leaves[opened.equation] = path
        return opened


def _not_floating(what: str, dtype: Any) -> DtypeError:
    return DtypeError(
        f"the gradient with respect to {what} was to be checked",
        f"{dtype} numbers change in steps, so there is no derivative",
        "convert first: x.astype(np.float64), or write 3.0 for 3; or leave it out of wrt",
    )


@contextmanager
def _cells_restored(recorded: list[Equation]) -> Iterator[None]:
    """Puts the values back that cells had before they were assigned inside."""
    try:
        yield
    finally:
        with recording(equations=None):
            for cell, leaf in _first_leaves(recorded).items():
                cell.assign(leaf.value)


def _first_leaves(recorded: list[Equation]) -> dict[Cell, Equation]:
    """For each cell that is assigned, the leaf of the value that it had before."""
    first: dict[Cell, Equation] = {}
    for equation in recorded:
        if equation.op is ASSIGN:
            first.setdefault(equation.inputs[0].params["cell"], equation.inputs[0])
    return first


def _output(leaf: Any, fn: Callable[..., Any]) -> Equation:
    if not isinstance(leaf, ArrayLike):
        raise missing.not_on_tape(leaf, fn)
    if leaf.dtype.kind != "f":
        raise GradientError(
            f"{called(fn)} returned {describe(leaf._tensor)}",
            f"{leaf.dtype} numbers change in steps, so they have no derivative",
            "return floating-point numbers computed from the arguments",
        )
    return leaf._tensor.equation


def _needed(outputs: Sequence[Equation], recorded: set[Equation]) -> list[Equation]:
    """The recorded equations that the outputs depend on, in the order of recording."""
    found = {e for e in outputs if e in recorded}
    todo = list(found)
    while todo:
        for source in todo.pop().inputs:
            if source in recorded and source not in found:
                found.add(source)
                todo.append(source)
    return sorted(found, key=lambda e: e.serial)


def custom_rule_of(equation: Equation) -> CustomRule | None:
    """The custom rule that an equation carries, if it does."""
    owner = getattr(equation.op.rules, "__self__", None)
    return owner if isinstance(owner, CustomRule) else None


def _forward_of(equation: Equation, recorded: set[Equation]) -> tuple[Equation, ...]:
    """The equations between the operands of a custom rule and the value it passes on."""
    operands = set(equation.inputs[1:])
    found: set[Equation] = set()
    todo = [equation.inputs[0]]
    while todo:
        current = todo.pop()
        if current in recorded and current not in operands and current not in found and not current.active:
            found.add(current)
            todo.extend(current.inputs)
    return tuple(sorted(found, key=lambda e: e.serial))


def _is_detached(equation: Equation) -> bool:
    """Whether the user, and not the operation, keeps gradients from flowing through it."""
    if equation.op.name == "stop_gradient":
        return True
    flows = equation.op.signature(tuple(e.type for e in equation.inputs), equation.params).flows
    return not equation.active and any(equation.inputs[i].active for i in flows)


# --- names


def called(fn: Callable[..., Any]) -> str:
    """What messages call a function."""
    fn = fn.func if isinstance(fn, functools.partial) else fn
    return getattr(fn, "__name__", type(fn).__name__)


def _argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """The names of the first parameters of a function; `argument 0` where it tells none."""
    names: list[str] = []
    try:
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
            elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.kind is not parameter.VAR_KEYWORD:
                names.append(parameter.name)
    except (TypeError, ValueError):
        pass
    return [*names, *(f"argument {i}" for i in range(len(names), count))][:count]


def _outside_name(equation: Equation, fn: Callable[..., Any]) -> str:
    """The name of a parameter or tensor that the function found for itself."""
    if equation.name:
        return equation.name
    try:
        seen = inspect.getclosurevars(fn)
    except TypeError:
        seen = None
    for name, value in {**seen.globals, **seen.nonlocals}.items() if seen else ():
        for leaf, path in zip(*flatten({name: value})[:2], strict=True):
            if isinstance(leaf, ArrayLike) and leaf._tensor.equation is equation:
                return name + path.removeprefix(f"[{name!r}]")
    return f"{equation.op.name} of shape {equation.type.shape}"


# --- the same tape in float64


def in_float64(recorded: Recorded, moved: Mapping[Equation, Array] | None = None) -> Recorded:
    """Records the equations again, on float64 leaves.

    Args:
        recorded: the call.
        moved: other values for some of the tape's inputs.
    """
    new: dict[Equation, Tensor] = {}
    with recording(equations=[], closed=True, region=None, masks=None, of=None) as state:
        for leaf in recorded.tape.inputs:
            value = np.asarray(leaf.value if moved is None else moved[leaf], np.float64)
            new[leaf] = tensor(value, name=leaf.name)
        for equation in recorded.tape.equations:
            for source in equation.inputs:
                if source not in new:
                    new[source] = _constant(source)
            state.differentiable = equation.active
            state.role, state.scope = equation.role, equation.scope
            params = {
                k: _FLOAT64 if isinstance(v, np.dtype) and v.kind == "f" else v for k, v in equation.params.items()
            }
            again = record(equation.op, tuple([new[e] for e in equation.inputs]), params)
            again.equation.where, again.equation.name = equation.where, equation.name
            new[equation] = again
        for output in recorded.tape.outputs:
            if output not in new:
                new[output] = _constant(output)

    def renewed(equations: Any) -> tuple[Equation, ...]:
        return tuple(new[e].equation for e in equations)

    tape = Tape(renewed(recorded.tape.equations), renewed(recorded.tape.inputs), renewed(recorded.tape.outputs))
    for made in new.values():
        if made.equation.value is None:
            made.equation.value = made.value
    return Recorded(
        tape,
        {new[e].equation: name for e, name in recorded.names.items()},
        frozenset(renewed(recorded.held)),
        {new[e].equation: renewed(part) for e, part in recorded.inner.items()},
        {new[e].equation: recorded.statements[e] for e in recorded.tape.equations if e in recorded.statements},
    )


_FLOAT64 = np.dtype(np.float64)


def _constant(leaf: Equation) -> Tensor:
    if leaf.op is LITERAL:
        return Tensor(leaf.params["value"], leaf)
    return constant(leaf.value.astype(np.float64) if leaf.type.dtype.kind == "f" else leaf.value)
