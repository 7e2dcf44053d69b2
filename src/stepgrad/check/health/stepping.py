"""Running recorded parts of a training step on a batch, without any cell changing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from stepgrad.check.health.subject import Subject, cells_kept, nothing_assigned, same_parts
from stepgrad.compile import compile
from stepgrad.errors import AbstractValueError, StaleError, UnsupportedError
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import Tensor
from stepgrad.tree import map_leaves

Part = Callable[[Any, Any], Any]
"""(x, y) -> tensors: records something onto the tape that is being recorded."""


class Programs:
    """Programs made of parts of a step: compiled, or for NumPy. Where a part can't be compiled it is run as Python.

    Args:
        subject: whose steps they are.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._made: dict[Any, Any] = {}
        self._built_in: list[dict[str, Any]] = []
        self._in_python = False

    @property
    def compiled(self) -> bool:
        """Whether there is native code of any part."""
        return any(compiled for _, compiled in self._made)

    def made(self, part: Part, x: Any, y: Any, compiled: bool) -> bool:
        """Whether there is a program for this already."""
        return (
            self._key(part, compiled) in self._made and (x.shape, y.shape) in self._made[self._key(part, compiled)][1]
        )

    def run(self, part: Part, x: Any, y: Any, compiled: bool = False) -> Any:
        """What a part gives for a batch: its structure, with arrays in place of tensors.

        Args:
            part: a method or function; its programs are kept under its name.
            x, y: the batch.
            compiled: whether to make native code of it; otherwise NumPy runs it.
        """
        built_in = self._subject.built_in()
        if not same_parts(built_in, self._built_in):
            self._made, self._built_in, self._in_python = {}, built_in, False
        with np.errstate(all="ignore"):
            if not self._in_python:
                try:
                    return _arrays(self._program(part, x, y, compiled)(x, y))
                except (AbstractValueError, StaleError, UnsupportedError):
                    self._in_python = True
            return _arrays(self._as_python(part, x, y))

    def _key(self, part: Part, compiled: bool) -> Any:
        return part.__name__, compiled

    def _program(self, part: Part, x: Any, y: Any, compiled: bool) -> Any:
        program, shapes = self._made.get(self._key(part, compiled), (None, set()))
        if program is None:

            def recorded(x: Any, y: Any) -> Any:
                with nothing_assigned():
                    return part(x, y)

            executor = None if compiled else "numpy"
            program = compile(recorded, executor=executor, denormals="flush" if compiled else "keep")
            self._made[self._key(part, compiled)] = program, shapes
        shapes.add((x.shape, y.shape))
        return program

    def _as_python(self, part: Part, x: Any, y: Any) -> Any:
        with cells_kept(self._subject.cells()), on_a_tape():
            return part(x, y)


@contextmanager
def on_a_tape() -> Iterator[None]:
    """Records what is called inside, with values, onto a tape of its own."""
    with recording(equations=[], closed=True, region=None, differentiable=True, scope=(), of=None, operand=None):
        yield


def _arrays(tree: Any) -> Any:
    with recording(closed=False):
        return map_leaves(lambda leaf: leaf.numpy() if isinstance(leaf, Tensor) else leaf, tree)


def is_recording() -> bool:
    """Whether a step is called inside of a function that is being recorded, where nothing can be looked at."""
    state = RECORDING.get()
    return state.equations is not None or state.closed
