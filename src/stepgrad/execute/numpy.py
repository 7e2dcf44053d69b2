"""The reference executor: one NumPy call for each equation, in the order of the tape.

Every other executor is compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.cells import cell_of
from stepgrad.errors import ArgumentError, ShapeError, UnsupportedError
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import CELL, LITERAL, Equation
from stepgrad.tape.places import place_text
from stepgrad.tape.printing import line
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array

Inputs = Mapping[Equation, Any] | Sequence[Any]
"""Values of leaves: by equation, or one for each of `tape.inputs`, in order."""


class Program:
    """A tape made ready for NumPy: where each value is put, and after which equation it is let go.

    Args:
        tape: what is computed. What its equations read and neither compute nor find among the
            inputs (constants, cells, Python numbers) keeps the value that it was recorded with.
        precision: the floating dtype to compute in, in place of the recorded ones: constants are
            converted to it, and so are params that name a floating dtype (those of `astype`). The
            inputs are taken as they are given. With a complex dtype constants stay real.
    """

    __slots__ = ("_bare", "_fixed", "_outputs", "_slots", "_steps", "tape")

    def __init__(self, tape: Tape, precision: Any = None) -> None:
        self.tape = tape
        wanted = None if precision is None else np.dtype(precision)
        slots = self._slots = {e: i for i, e in enumerate(dict.fromkeys(tape.inputs))}
        self._fixed: list[Any] = [_own_value(e, wanted) for e in tape.inputs]
        last: dict[int, int] = {}
        computed: list[Any] = []
        for number, equation in enumerate(tape.equations):
            for source in equation.inputs:
                if source not in slots:
                    slots[source] = len(self._fixed)
                    self._fixed.append(_own_value(source, wanted))
                last[slots[source]] = number
            slots[equation] = len(self._fixed)
            self._fixed.append(None)
            last.setdefault(slots[equation], number)  # perhaps nobody reads it
            params = equation.params if wanted is None else widened(equation.params, wanted)
            dtype = equation.type.dtype if wanted is None else None
            computed.append((equation, tuple([slots[e] for e in equation.inputs]), params, dtype, slots[equation]))
        for output in tape.outputs:
            if output not in slots:
                slots[output] = len(self._fixed)
                self._fixed.append(_own_value(output, wanted))
        self._outputs = tuple([slots[e] for e in tape.outputs])
        computable = set(tape.equations)
        self._bare = [(e, i) for e, i in slots.items() if self._fixed[i] is None and e not in computable]
        free: dict[int, list[int]] = {}
        for slot, number in last.items():
            if slot not in self._outputs:
                free.setdefault(number, []).append(slot)
        self._steps = [(*step, tuple(free.get(number, ()))) for number, step in enumerate(computed)]

    def run(self, inputs: Inputs) -> list[Array]:
        """The values of `tape.outputs`.

        Args:
            inputs: arrays by equation, or one for each of `tape.inputs`. Left out of a mapping, a
                leaf keeps the value it was recorded with.

        Raises:
            ArgumentError: an input has no value; or NumPy refused an equation, which is then named.
            ShapeError: a value has another shape than its leaf.
        """
        values = self._filled(inputs)
        for equation, sources, params, dtype, slot, free in self._steps:
            try:
                value = equation.op.numpy(*[values[i] for i in sources], **params)
            except Exception as error:
                raise _refused(equation, [values[i] for i in sources], error) from error
            if equation.type.weak:  # a Python number, which takes the dtype of what it meets
                value = np.asarray(value).item()
            elif type(value) is not np.ndarray:
                value = np.asarray(value, dtype)
            values[slot] = value
            for i in free:
                values[i] = None
        return [np.asarray(values[i]) for i in self._outputs]

    def _filled(self, inputs: Inputs) -> list[Any]:
        values = self._fixed.copy()
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(self.tape.inputs):
                raise ArgumentError(
                    f"{len(inputs)} values were given to a program with {len(self.tape.inputs)} inputs",
                    "each input takes one value, in the order of tape.inputs",
                    "pass one array for each of: " + ", ".join(map(_called, self.tape.inputs)),
                )
            inputs = dict(zip(self.tape.inputs, inputs, strict=True))
        for equation, value in inputs.items():
            slot = self._slots.get(equation)
            if slot is None:
                raise ArgumentError(
                    f"a value was given for {_called(equation)}",
                    "the program does not read it",
                    "pass values for: " + ", ".join(map(_called, self.tape.inputs)),
                )
            if np.shape(value) != equation.type.shape:
                raise ShapeError(
                    f"{_called(equation)} was given a value of shape {np.shape(value)}",
                    "a program is recorded for one set of shapes",
                    f"pass an array of shape {equation.type.shape}, or record the function again",
                )
            values[slot] = np.asarray(value).item() if equation.type.weak else value
        for equation, slot in self._bare:
            if values[slot] is None:
                raise ArgumentError(
                    f"{_called(equation)} was given no value",
                    "it was recorded abstractly, or eagerly, which keeps only the values that the backward pass reads",
                    f"pass an array of shape {equation.type.shape} for it",
                )
        return values


class Engine:
    """A recorded step on NumPy: it reads cells, computes, and then writes the cells that were assigned to.

    Args:
        tape: its outputs are what the user wants, and then the last ASSIGN of each cell that is written.
        user_outputs: how many of the outputs are the user's.
    """

    __slots__ = ("_kept", "_program", "_read", "_written", "tape")

    def __init__(self, tape: Tape, user_outputs: int) -> None:
        needed = set(reachable(tape.outputs))
        self.tape = tape
        self._program = Program(Tape((e for e in tape.equations if e in needed), tape.inputs, tape.outputs))
        self._read = [(e, e.params["cell"]) for e in tape.leaves() if e.op is CELL and e in needed]
        self._written = [cell_of(e) for e in tape.outputs[user_outputs:]]
        self._kept = user_outputs

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """One step: an array (a Python number where the type is weak) for each of `tape.inputs`.

        Returns:
            The user's outputs, in arrays that nobody else will write to.
        """
        values = dict(zip(self.tape.inputs, inputs, strict=True))
        values.update((leaf, cell._array) for leaf, cell in self._read)
        given = {id(value) for value in inputs}
        with np.errstate(all="ignore"):
            found = [_owned(value, given) for value in self._program.run(values)]
        for cell, value in zip(self._written, found[self._kept :], strict=True):
            cell._hold(value)
        return found[: self._kept]

    def scan(self, inputs: Sequence[Any], steps: int, scanned: Sequence[bool]) -> list[Array]:
        """Several steps, one after the other.

        Args:
            inputs: as for `run`; those that are scanned have a leading axis, an element of it for each step.
            steps: how many, from 1.
            scanned: for each input, whether it is.

        Returns:
            The user's outputs of all steps, stacked along a new leading axis.
        """
        rows = [
            self.run([x[i] if each else x for x, each in zip(inputs, scanned, strict=True)])
            for i in range(steps)
        ]  # fmt: skip
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def __repr__(self) -> str:
        return f"program on NumPy, {len(self._program.tape)} equations\n{self._program.tape!r}"


def load(
    tape: Tape, user_outputs: int, *, memory: int | None, threads: int | None, shadow: bool, denormals: str = "keep"
) -> Engine:
    """An engine for a recorded step; this is how every executor is called (see `stepgrad.compile`).

    NumPy computes equation by equation on one thread and is the reference itself, so there is
    nothing for `threads` and `shadow` to do. It always keeps `denormals`.

    Raises:
        UnsupportedError: a memory budget was set.
    """
    if memory is not None:
        raise UnsupportedError(
            f"memory={memory} was asked for, and the step runs on NumPy",
            "there each equation makes a new array, so nobody can promise how much memory they take together",
            "leave memory out, or wrap parts of the network in sg.checkpoint",
        )
    return Engine(tape, user_outputs)


def _owned(value: Array, given: set[int]) -> Array:
    """The value in an array that nobody else can write to."""
    if value.base is not None or id(value) in given:
        value = value.copy()
    value.setflags(write=False)
    return value


def run(program: Tape | Program, inputs: Inputs, precision: Any = None) -> list[Array]:
    """Runs a program once.

    Args:
        program: a tape, or a `Program` made of one.
        inputs: arrays by equation, or one for each of the tape's inputs, in order.
        precision: for a tape, the floating dtype to compute in (see `Program`).

    Returns:
        The values of the tape's outputs.

    Example:
        >>> x = sg.tensor([1.0, 2.0], name="x")
        >>> tape = sg.Tape.of((x * 3).sum())
        >>> run(tape, [np.array([1.0, 10.0])])
        [array(33.)]
    """
    return (program if isinstance(program, Program) else Program(program, precision)).run(inputs)


def run_all(tape: Tape, inputs: Inputs, precision: Any = None) -> dict[Equation, Array]:
    """The value of every equation of a tape, rather than of its outputs only."""
    everything = Tape(tape.equations, tape.inputs, tape.equations)
    return dict(zip(tape.equations, run(everything, inputs, precision), strict=True))


def _own_value(leaf: Equation, precision: np.dtype[Any] | None) -> Any:
    """The value that a leaf was recorded with."""
    value = leaf.value
    if leaf.op is LITERAL:
        return leaf.params["value"]
    if value is None or precision is None or value.dtype.kind not in "fc":
        return value
    real = np.empty(0, precision).real.dtype
    return value.astype(real if value.dtype.kind == "f" else np.result_type(real, np.complex64), copy=False)


def widened(params: dict[str, Any], precision: np.dtype[Any]) -> dict[str, Any]:
    """Params with floating dtypes replaced."""
    return {k: precision if isinstance(v, np.dtype) and v.kind in "fc" else v for k, v in params.items()}


def _called(equation: Equation) -> str:
    return f"{equation.name or equation.op.name} {equation.type}"


def _refused(equation: Equation, values: list[Any], error: Exception) -> ArgumentError:
    shown = ", ".join(f"{getattr(v, 'dtype', type(v).__name__)}{list(np.shape(v))}" for v in values)
    return ArgumentError(
        f"{line(equation).partition('  # ')[0]} could not be computed\n  at {place_text(equation.where)}",
        f"NumPy refused {equation.op.name}({shown}): {error}",
        "look at the values that reach this line; it was recorded with others",
    )
