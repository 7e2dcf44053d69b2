"""What a compiled function keeps for each kind of arguments: an engine, and how its calls and results look."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from stepgrad import attributes
from stepgrad.buffers import Guard
from stepgrad.cells import Cell
from stepgrad.compile.recorded import Arguments, Recorded
from stepgrad.errors import ArgumentError, GradientError
from stepgrad.tape.equation import CONSTANT, Cut, Equation
from stepgrad.tape.op import Op, TensorType, type_of
from stepgrad.tensor import Array, Tensor, describe

EXECUTORS = {"cpu": "stepgrad.execute.cpu", "numpy": "stepgrad.execute.numpy"}
"""Executor -> the module whose `load(tape, user_outputs, *, memory, threads, shadow, denormals)` makes an engine."""


class Engine(Protocol):
    """A recorded step, ready to be run by an executor. It reads and writes cells itself."""

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """One step: an array of the recorded type for each of `tape.inputs` (a Python float where the
        type is weak) -> the user's outputs, in arrays that nobody else writes to."""

    def scan(self, inputs: Sequence[Any], steps: int, scanned: Sequence[bool]) -> list[Array]:
        """At least one step, taking element i of the scanned inputs in step i -> the outputs, stacked."""


def loader(executor: str | None) -> Callable[..., Engine]:
    """The function that makes engines."""
    if executor is not None:
        load = getattr(importlib.import_module(EXECUTORS[executor]), "load", None)
        if load is None:
            raise ArgumentError(
                f"executor={executor!r} was asked for",
                "it can't run recorded steps yet",
                "leave executor out: the fastest one that there is is used",
            )
        return load
    try:
        load = getattr(importlib.import_module(EXECUTORS["cpu"]), "load", None)
    except ImportError as error:
        warnings.warn(f"compiled functions run on NumPy here, which is slower: {error}", RuntimeWarning, stacklevel=5)
        load = None
    return load or importlib.import_module(EXECUTORS["numpy"]).load


class Entry:
    """A program, and what its calls look like.

    Attributes:
        engine: runs it.
        guard: keeps programs that use the same cells apart.
        recorded: what it was made from.
        checked: it was recorded again, and was the same.
        seen: the moment (see `attributes`) at which it was recorded, or was last found to be the same.
        held: what the key of the arguments knows by its identity, and so has to live as long.
        count, expected: for each positional argument shape, dtype and type (None: a float), to match calls with.
        types: of the user's outputs.
        sources: the parameters that the results depend on.
        linked: the results are on the tape as something that depends on these, and on arguments.
    """

    __slots__ = (
        "_cut",
        "_fast",
        "_single",
        "checked",
        "count",
        "engine",
        "expected",
        "guard",
        "held",
        "linked",
        "recorded",
        "seen",
        "sources",
        "types",
    )

    def __init__(
        self, recorded: Recorded, engine: Engine, guard: Guard, cut: Cut, arguments: Arguments, moment: int
    ) -> None:
        self.recorded, self.engine, self.guard = recorded, engine, guard
        self.checked = False
        self.seen = np.array([moment])
        self.held = arguments.held
        self.expected = [
            (None, None, None) if type(v) is float else (v.shape, v.dtype, type_of(v.shape, v.dtype))
            for v in arguments.values
        ]
        self.count = len(self.expected)
        self.types: list[TensorType] = [e.type for e in recorded.tape.outputs[: recorded.user_outputs]]
        # What a step that changes cells returns are plain numbers; gradients flow back through other
        # functions, and to ask for those is an error rather than a gradient that lacks a part.
        self.linked = not recorded.written
        self.sources = Sources(tuple(cell for cell in recorded.cells if cell.is_trained))
        self._cut = (cut,)
        self._fast: Callable[..., Any] | None = None
        self._single = recorded.results == (0,) and recorded.paths == ("",) and not self.types[0].weak

    def is_doubtful(self) -> bool:
        """Whether an attribute has changed that the function may have read."""
        now = attributes.now()
        if self.seen[0] == now:
            return False
        if attributes.changed_since(int(self.seen[0])):
            return True
        self.seen[0] = now
        return False

    def builtin(self, slow: Callable[..., Any], context: tuple[Any, Any], watched: bool) -> Callable[..., Any] | None:
        """A builtin function for calls with arrays that fit, while no attribute has changed if that is `watched`.

        All others are passed on to `slow`; unless the program is `alone`, NotImplemented is returned instead,
        so that `slow` can be called when the guard is free.
        """
        make = getattr(self.engine, "fast", None)
        if make is None:
            return None
        if self._fast is None:
            finish = self._finish if self._single and not self.linked else self._finish_any
            self._fast = make(
                slow=slow if self.alone else None,
                finish=finish,
                tensors=not self.linked,
                context=context,
                watched=(attributes.count, self.seen) if watched else None,
            )
        return self._fast

    @property
    def alone(self) -> bool:
        """The program holds the GIL from beginning to end, so nobody can come between."""
        return bool(getattr(self.engine, "small", False))

    def _finish_any(self, *values: Array) -> Any:
        for value in values:
            value.flags.writeable = False
        return self.result(values, self.sources)

    def _finish(self, value: Array) -> Tensor:
        """As `_finish_any`, for the result that most steps have."""
        value.flags.writeable = False
        equation = Equation(CONSTANT, (), {}, self.types[0], False)
        equation.cut = self._cut
        return Tensor(value, equation)

    def result(self, values: Sequence[Array], sources: Sources, steps: int | None = None) -> Any:
        """What the function returns, put together from the values of the outputs."""
        kinds = self.types
        if steps is not None:
            kinds = [type_of((steps, *t.shape), t.dtype) for t in kinds]
        if self._single:
            return self._tensor(values[0], kinds[0], sources)
        made = [
            value.item() if kind.weak else self._tensor(value, kind, sources)
            for value, kind in zip(values, kinds, strict=True)
        ]
        recorded = self.recorded
        leaves = [
            made[i] if i is not None else kept.copy() if isinstance(kept, np.ndarray) else kept
            for i, kept in zip(recorded.results, recorded.kept, strict=True)
        ]
        return recorded.rebuild(leaves)

    def _tensor(self, value: Array, kind: TensorType, sources: Sources) -> Tensor:
        if self.linked and kind.is_float and sources:
            return Tensor(value, Equation(_CALL, sources, {}, kind, True))  # type: ignore[arg-type]
        equation = Equation(CONSTANT, (), {}, kind, False)
        equation.cut = self._cut
        return Tensor(value, equation)


class Sources:
    """What the results of a call depend on: the leaves of cells, and equations of arguments.

    The leaves are looked up only if a backward walk asks for them: a leaf has a value, and to copy
    that out of its buffer at each call would take longer than the call.
    """

    __slots__ = ("_cells", "_given")

    def __init__(self, cells: tuple[Cell, ...] = (), given: tuple[Equation, ...] = ()) -> None:
        self._cells, self._given = cells, given

    def __len__(self) -> int:
        return len(self._cells) + len(self._given)

    def __iter__(self) -> Iterator[Equation]:
        yield from self._given
        for cell in self._cells:
            yield cell._tensor.equation

    def with_more(self, given: Iterable[Equation]) -> Sources:
        # What a compiled function returned does not hold on to what it was given, or a loop would make a chain.
        more = tuple(e for e in given if e.op is not _CALL)
        return Sources(self._cells, (*self._given, *more)) if more else self


def _no_gradient(g: Tensor, out: Tensor, *inputs: Tensor) -> Tensor:
    raise GradientError(
        f"a gradient was asked for that flows through {describe(out)}, which a compiled function returned",
        "a compiled function is run as a whole, and its inside is not on the tape",
        "compile the function that takes the gradient, too: inside of it, compiled functions are recorded as they "
        "are; or call the function itself, compiled.fn",
    )


def _not_run(*values: Any) -> Any:
    raise TypeError("a call of a compiled function is not an equation that can be run again")


_CALL = Op(
    "compiled",
    shape=_not_run,
    numpy=_not_run,
    rules=lambda operand: _no_gradient,
    text="compiled",
    samples=(),
    doc="What a compiled function returned.",
)
