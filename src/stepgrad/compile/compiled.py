"""A compiled function: recorded once for each kind of arguments, without values, and then run as a program."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stepgrad import attributes
from stepgrad.buffers import join, locked
from stepgrad.compile.entries import Entry, Sources, loader
from stepgrad.compile.recorded import Arguments, record_step, take_apart
from stepgrad.compile.stale import check
from stepgrad.errors import ArgumentError, ShapeError, UnsupportedError
from stepgrad.ops.joining import stack
from stepgrad.tape.equation import Cut
from stepgrad.tape.recording import RECORDING
from stepgrad.tensor import Tensor
from stepgrad.tree import flatten


class Compiled:
    """A function that is recorded once for each kind of arguments, and then run as a program.

    Made by `sg.compile`.

    Attributes:
        fn: the function itself.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        memory: int | None,
        threads: int | None,
        recheck: str,
        shadow: bool,
        denormals: str,
        executor: Any,
    ) -> None:
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self._settings = (memory, threads, recheck, shadow, denormals, executor)
        self._name = getattr(fn, "__name__", type(fn).__name__)
        self._names = _argument_names(fn)
        self._attribute = self._name  # of a class, if it is a method
        self._entries: dict[Any, Entry] = {}
        self._last: Entry | None = None  # the last one used, if calls can be matched with it at a glance
        self._used: Entry | None = None
        self._fast: Callable[..., Any] | None = None  # its builtin function, if it has one
        code = getattr(fn, "__code__", None)
        self._cut = Cut("a compiled function", None if code is None else (code, 0), ())
        self.lock = threading.RLock()
        locked.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fast, entry = self._fast, self._last
        if fast is not None and not kwargs:
            if entry is None:  # a small program, which nobody can come between
                return fast(*args)
            lock = entry.guard.acquire()
            try:
                result = fast(*args)
            finally:
                lock.release()
            return self._call(args, kwargs) if result is NotImplemented else result
        if (
            entry is None
            or kwargs
            or len(args) != entry.count
            or RECORDING.get() is not _EAGER
            or (self._settings[2] == "second" and entry.is_doubtful())
        ):
            return self._call(args, kwargs)
        values = []
        sources = entry.sources
        for x, (shape, dtype, kind) in zip(args, entry.expected, strict=True):
            found = type(x)
            if found is np.ndarray:
                if x.dtype is not dtype or x.shape != shape:
                    return self._call(args, kwargs)
            elif found is Tensor:
                equation = x.equation
                if equation.type is not kind or x.value is None:
                    return self._call(args, kwargs)
                if equation.active and entry.linked:
                    sources = sources.with_more((equation,))
                x = x.value
            elif found is not float or dtype is not None:
                return self._call(args, kwargs)
            values.append(x)
        lock = entry.guard.acquire()
        try:
            results = entry.engine.run(values)
        finally:
            lock.release()
        return entry.result(results, sources)

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call in full: with any arguments, recording and checking where that is due."""
        if _is_recording():
            return self.fn(*args, **kwargs)
        arguments = take_apart(args, kwargs, self._names)
        entry = self._entry(arguments, 1)
        lock = entry.guard.acquire()
        try:
            results = entry.engine.run(arguments.values)
        finally:
            lock.release()
        differentiable = RECORDING.get().differentiable
        return entry.result(results, entry.sources.with_more(arguments.sources) if differentiable else Sources())

    def scan(self, *args: Any) -> Any:
        """Runs the step once for each element along the leading axis of the arrays, without Python in between.

        Args:
            args: as for a call; every array and tensor, also inside of lists, tuples and dicts, has a
                leading axis more, of one length for all. Python numbers stay the same in all steps.

        Returns:
            What the step returns, each tensor with a leading axis more: one element for each step.

        Raises:
            ShapeError: the leading axes differ, or an array has no axis.

        Example:
            >>> total = sg.State(0.0)
            >>> @sg.compile
            ... def add(x):
            ...     total.assign(total + x)
            ...     return total * 1
            >>> print(add.scan(np.array([1.0, 2.0, 3.0])).numpy())
            [1. 3. 6.]
        """
        recording = _is_recording()
        whole = take_apart(args, {}, self._names, tensors=recording)
        scanned = [not _is_number(value) for value in whole.values]
        steps = self._steps(whole, scanned)
        if recording:
            return self._scan_recorded(whole, scanned, steps)
        first = [
            np.broadcast_to(np.zeros((), value.dtype), value.shape[1:]) if each else value  # only its type counts
            for value, each in zip(whole.values, scanned, strict=True)
        ]
        arguments = take_apart(whole.rebuild(first)[0], {}, self._names)
        entry = self._entry(arguments, steps)
        if not steps:
            results = [np.empty((0, *kind.shape), kind.dtype) for kind in entry.types]
        else:
            lock = entry.guard.acquire()
            try:
                results = entry.engine.scan(whole.values, steps, scanned)
            finally:
                lock.release()
        differentiable = RECORDING.get().differentiable
        return entry.result(results, entry.sources.with_more(whole.sources) if differentiable else Sources(), steps)

    def _steps(self, whole: Arguments, scanned: Sequence[bool]) -> int:
        """The length of the leading axis."""
        found: dict[int, str] = {}
        for value, name, each in zip(whole.values, whole.names, scanned, strict=True):
            if each and not value.shape:
                raise ShapeError(
                    f"{self._name}.scan was given {name} () {value.dtype}",
                    "it takes an element of each array in each step, and this array has no axis",
                    f"pass one value of {name} for each step, or a Python float if it stays the same",
                )
            if each:
                found.setdefault(value.shape[0], f"{name} {value.shape}")
        if not found:
            raise ArgumentError(
                f"{self._name}.scan was given no array",
                "it runs one step for each element along the leading axis of its arrays",
                f"pass arrays, or call {self._name} in a loop",
            )
        if len(found) > 1:
            raise ShapeError(
                f"{self._name}.scan was given {' and '.join(found.values())}",
                "each step takes an element along the leading axis of every array, so these axes are equally long",
                "cut or repeat one of the arrays",
            )
        return next(iter(found))

    def _scan_recorded(self, whole: Arguments, scanned: Sequence[bool], steps: int) -> Any:
        """The steps as part of a recording that is going on: the function itself, called in a loop."""
        rows = []
        for i in range(steps):
            row = [value[i] if each else value for value, each in zip(whole.values, scanned, strict=True)]
            rows.append(flatten(self.fn(*whole.rebuild(row)[0])))
        if not rows:
            raise ArgumentError(
                f"{self._name}.scan was called with no steps inside of a function that is being recorded",
                "without a step there is nothing to record, and the shapes of the results are not known",
                "leave the call out where there are no steps",
            )
        columns = zip(*[row[0] for row in rows], strict=True)
        return rows[0][2]([stack(column) if isinstance(column[0], Tensor) else column[0] for column in columns])

    def _entry(self, arguments: Arguments, steps: int) -> Entry:
        """The program for these arguments, recorded or checked if that is due, for the next so many steps."""
        recheck = self._settings[2]
        with self.lock:
            entry = self._entries.get(arguments.key)
            again = entry is not None and (
                recheck == "always" or (recheck == "second" and (not entry.checked or entry.is_doubtful()))
            )
            if entry is None:
                entry = self._record(arguments)
                again = steps > 1 and recheck != "never"
            if again:
                self._last = self._fast = None
                moment = attributes.now()
                args, kwargs = arguments.rebuild(arguments.values)
                try:
                    with _without_collecting():
                        check(entry.recorded, record_step(self.fn, args, kwargs, self._names), self._name)
                except BaseException:
                    self._entries.pop(arguments.key, None)  # the next call begins anew
                    raise
                entry.checked = True
                entry.seen[0] = attributes.now_or(moment)
            self._entries[arguments.key] = self._used = entry
            settled = recheck == "never" or (recheck == "second" and entry.checked)
            self._last, self._fast = (entry, self._builtin(entry)) if settled and arguments.flat else (None, None)
            if self._fast is not None and entry.alone:
                self._last = None
        return entry

    def _builtin(self, entry: Entry) -> Callable[..., Any] | None:
        """The builtin function that runs an entry's program, if the executor makes such functions."""
        this = weakref.ref(self)

        def slow(*args: Any) -> Any:
            compiled = this()
            assert compiled is not None  # it is calling this
            return compiled._call(args, {})

        return entry.builtin(slow, (RECORDING, _EAGER), self._settings[2] == "second")

    def _record(self, arguments: Arguments) -> Entry:
        memory, threads, _, shadow, denormals, executor = self._settings
        moment = attributes.now()
        args, kwargs = arguments.rebuild(arguments.values)
        with _without_collecting():
            recorded = record_step(self.fn, args, kwargs, self._names)
            moment = attributes.now_or(moment)
            load = loader(executor)
            guard = join(cell._bound().guard for cell in recorded.cells)
            with guard:
                engine = load(
                    recorded.tape,
                    recorded.user_outputs,
                    memory=memory,
                    threads=threads,
                    shadow=shadow,
                    denormals=denormals,
                )
        return Entry(recorded, engine, guard, self._cut, arguments, moment)

    @property
    def program(self) -> Any:
        """The program that was used last.

        Raises:
            ArgumentError: there is none yet.
        """
        if self._used is None:
            raise ArgumentError(
                f"the program of {self._name} was asked for, and there is none yet",
                "shapes and dtypes are known only when it is called",
                f"call {self._name} once first",
            )
        return self._used.engine

    @property
    def programs(self) -> tuple[Any, ...]:
        """All programs, one for each kind of arguments, in the order in which they were made."""
        with self.lock:
            return tuple(entry.engine for entry in self._entries.values())

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: Any, owner: Any = None) -> Compiled:
        """As a method: each object has programs of its own, kept with the object."""
        if instance is None:
            return self
        if not hasattr(instance, "__dict__"):
            raise UnsupportedError(
                f"{self._name}, a compiled method, was called on a {type(instance).__name__} with __slots__",
                "the programs of a method are kept with its object, and there is no place for them",
                "leave __slots__ out, or compile a function that calls the method",
            )
        bound = Compiled(self.fn.__get__(instance, owner), *self._settings)
        return vars(instance).setdefault(self._attribute, bound)

    def __deepcopy__(self, memo: Any) -> Compiled:
        import copy

        return Compiled(copy.deepcopy(self.fn, memo), *self._settings)

    def __reduce__(self) -> Any:
        """Pickled are the function and the settings; programs are made again."""
        if getattr(self.fn, "__self__", None) is None and hasattr(self.fn, "__qualname__"):
            return self.fn.__qualname__  # the decorated function, found by its name
        return _again, (self.fn, *self._settings)

    def __repr__(self) -> str:
        count = len(self._entries)
        return f"<compiled {self._name}, {count} program{'' if count == 1 else 's'}>"


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Pauses the garbage collector: nearly all of the many objects made meanwhile live on, and it would look at each.

    It took a fifth of the time to compile a network of 100 layers.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _again(fn: Any, *settings: Any) -> Compiled:
    return fn if isinstance(fn, Compiled) else Compiled(fn, *settings)


_EAGER = contextvars.Context().run(RECORDING.get)
"""The recording state in which nothing is recorded."""


def _is_recording() -> bool:
    """Whether calls are part of a recording, or of a function that is being differentiated."""
    state = RECORDING.get()
    return state.equations is not None or state.closed or state.region is not None


def _is_number(value: Any) -> bool:
    """Whether an input of a scan is a Python number: those stay the same in all steps."""
    return type(value) is float or (isinstance(value, Tensor) and value.equation.type.weak)


def _argument_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(getattr(fn, "forward", fn)).parameters.values()
    except (TypeError, ValueError):  # a function written in C
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
