"""Compiled functions in a training run: when they pay, how long they run at a time, and what if they can't be made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from stepgrad.compile import compile
from stepgrad.errors import StaleError
from stepgrad.tape.places import Where, in_engine, place_text
from stepgrad.train.arrays import Array

SLICE = 0.075
"""Seconds that a compiled function runs before Ctrl-C, progress and callbacks get a turn."""

_FIRST = 2
"""Steps of the first slice: two, so that the function is recorded twice, and compared, before anything is done."""

_GROWTH = 32
"""How many times longer than the last one a slice may be: one that short measures mostly what a call costs."""

_EAGER_STEP = 0.4e-3
"""Seconds that a small step takes in Python, without its arithmetic."""

_EAGER_SPEED = 1e11
"""Arithmetic operations a second."""

_COMPILING = 0.4
"""Seconds that it takes to make a program."""


def worth_compiling(size: int, rows: int, steps: int) -> bool:
    """Whether so many steps in Python take longer than it takes to make a program of them.

    It is estimated from counts alone: were it measured, two runs could differ in the last bits.

    Args:
        size: of all parameters.
        rows: in a step's batch.
        steps: in the whole run.
    """
    return steps * (_EAGER_STEP + 6 * size * rows / _EAGER_SPEED) > _COMPILING


class CanNotCompile(Exception):  # noqa: N818 - it says what to do next, and no user sees it
    """A function can't be compiled, or no longer; nothing was run. Its cause says why."""


class Choice:
    """Whether functions are compiled in this run: as the user wants, and as long as it works.

    Args:
        wanted: True: always, False: never, None: where it pays.
        notice: tells the user that it doesn't work.
    """

    def __init__(self, wanted: bool | None, notice: Callable[[str], None]) -> None:
        self.wanted, self.notice = wanted, notice

    def __call__(self, size: int, rows: int, steps: int) -> bool:
        """Whether to compile so many steps; see `worth_compiling`."""
        return worth_compiling(size, rows, steps) if self.wanted is None else self.wanted

    def give_up(self, what: str, problem: CanNotCompile) -> None:
        """From now on this is done in Python, and nothing else begins to be compiled; says so once."""
        if self.wanted is not False:
            self.notice(f"{what} in Python, which is slower than compiled: {_in_one_line(problem)}")
        self.wanted = False


class Paced:
    """A compiled function that is run over the leading axis of arrays, a slice of about `SLICE` seconds at a time.

    How long slices are depends on the clock; what is computed does not depend on how long slices are.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._compiled = compile(fn, denormals="flush")  # what trains has no use for numbers below 1e-38
        self._steps = _FIRST
        self._made = False

    def __call__(self, *arrays: Array) -> tuple[Any, int]:
        """Runs the function for the first few elements.

        Returns:
            What `scan` returns, and the number of elements.

        Raises:
            CanNotCompile: nothing was run.
        """
        steps = min(self._steps, len(arrays[0]))
        begin = time.perf_counter()
        result = self._run(self._compiled.scan, *(array[:steps] for array in arrays))
        seconds = time.perf_counter() - begin
        if self._made and (steps == self._steps or seconds > SLICE):
            self._steps = max(1, min(int(steps * SLICE / seconds), steps * _GROWTH))
        self._made = True  # the first slice took long because of that
        return result, steps

    def once(self, *arrays: Array) -> Any:
        """Runs the function for these arrays as they are.

        Raises:
            CanNotCompile: nothing was run.
        """
        return self._run(self._compiled, *arrays)

    def _run(self, call: Callable[..., Any], *arrays: Array) -> Any:
        try:
            return call(*arrays)
        except Exception as error:
            if isinstance(error, StaleError) or not self._compiled.programs:
                raise CanNotCompile from error
            raise  # the program was made, so it is the data's fault


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _in_one_line(problem: CanNotCompile) -> str:
    """What happened, and the user's line where it did."""
    error = problem.__cause__
    what = " ".join(str(getattr(error, "what", None) or error or type(error).__name__).split())
    where: Where | None = None
    step = error.__traceback__ if error else None
    while step is not None:
        frame = step.tb_frame
        if not frame.f_code.co_filename.startswith(_PACKAGE) and not in_engine(frame):
            where = frame.f_code, step.tb_lasti
        step = step.tb_next
    return what if where is None or " at " in what else f"{what} at {place_text(where)}"
