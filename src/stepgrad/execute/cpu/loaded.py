"""A program in memory, ready to run: its table, its slots, and who runs it now."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import numpy as np

from stepgrad.buffers import JOINED
from stepgrad.errors import StepgradError
from stepgrad.execute.cpu import platform
from stepgrad.execute.cpu.pool import MAXIMUM, Words, native, seconds_per_tick, workers
from stepgrad.execute.cpu.words import LINE, Code, Entered, Flag, Program, Row

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
_NOW, _WORKERS = int(Entered.NOW), int(Code.WORKERS)  # comparing with members of enumerations takes longer


class Loaded:
    """A program in memory.

    Only one thread at a time sets it up and runs it, inside `with program.entered()`. A run holds no GIL and
    can't be interrupted, so a long scan is best run in slices: between two calls of `run`, Ctrl-C and
    progress get their turn, and the slots go on from where they were.

    Args:
        table: int64, shape (rows, 4): address of the kernel, `Flag`s, first operand, number of operands.
        operands: int64: the slots of all rows' operands, one row's after another's.
        slots: how many slots there are. Slot 0 is each thread's scratch memory.
        scratch_bytes: of each thread.
        threads: how many threads may run it.
        small: the fast entry keeps the GIL and runs it on the calling thread alone.
        fallback: does the rows with `Flag.FALLBACK`: it is called with the row's number, on thread 0.
        owner: int64, one element: where the owner is noted. Programs that write to the same buffers are
            given the same one, so that only one of them runs at a time. By default the program's own.
        changes: int64, one element: a counter that each run counts up by one when all is written.
        flush: denormal numbers count as 0.
        found: the error for a run that a row with `Flag.CHECK` has ended.
        keep: what has to live as long as the program: machine code, buffers.

    Attributes:
        block: its words, for native code (`words.Program`).
        addresses: int64, shape (threads, slots or more): what is in each thread's slots.
    """

    def __init__(
        self,
        table: Any,
        operands: Any,
        slots: int,
        *,
        scratch_bytes: int = 0,
        threads: int = 1,
        small: bool = False,
        fallback: Callable[[int], None] | None = None,
        owner: Words | None = None,
        changes: Words | None = None,
        found: Callable[[], BaseException] | None = None,
        flush: bool = False,
        keep: Any = None,
    ) -> None:
        self.threads = max(1, min(threads, MAXIMUM))
        self.small = small
        self._keep = keep
        self._table = np.ascontiguousarray(table, np.int64).reshape(-1, len(Row))
        self._operands = np.ascontiguousarray(operands, np.int64)
        self._moving = np.zeros((0, 2), np.int64)
        per_thread = -(-slots // LINE) * LINE
        self.addresses = _words(self.threads * per_thread).reshape(self.threads, per_thread)
        line = platform.CACHE_LINE
        stride = -(-scratch_bytes // line) * line + line  # a line lies between the threads' memories
        self._scratch = platform.aligned(self.threads * stride, line)
        self.addresses[:, 0] = self._scratch.ctypes.data + stride * np.arange(self.threads)
        self._error: BaseException | None = None
        self._callback = _CALLBACK(_caller(weakref.ref(self), fallback)) if fallback else None
        self._native = native()
        self._changes = changes
        self._found = found
        self._torn = False

        self.block = _words(Program.WORDS)
        self.address: int = self.block.ctypes.data
        self._pool = workers().address
        block = self.block
        block[Program.TABLE], block[Program.ROWS] = self._table.ctypes.data, len(self._table)
        block[Program.OPERANDS] = self._operands.ctypes.data
        block[Program.SLOTS], block[Program.SLOTS_PER_THREAD] = self.addresses.ctypes.data, per_thread
        block[Program.CALLBACK] = platform.address_of(self._callback) if self._callback else 0
        block[Program.YIELD] = platform.yield_address()
        self.share(_words(1) if owner is None else owner)
        block[Program.FLUSH] = flush
        block[Program.CHANGES] = 0 if changes is None else changes.ctypes.data
        if self._callback is None and np.any(self._table[:, Row.FLAGS] & Flag.FALLBACK):
            raise ValueError("rows with Flag.FALLBACK, but nothing that does them")
        _programs.add(self)

    # --- setting up

    def share(self, owner: Words) -> None:
        """Says where the owner is noted from now on."""
        self.owner = owner
        self._owner = owner.data  # an element of a memoryview is read twice as fast
        self.block[Program.OWNER] = owner.ctypes.data

    def set_slot(self, slot: int, address: int) -> None:
        """Says where a slot's buffer is, for all threads."""
        self.addresses[:, slot] = address

    def set_moving(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Says which slots are set anew for each run, as pairs (slot, stride).

        After each step a slot moves on by its stride, in bytes: that is how a scan walks over its data and
        results. Of these slots only thread 0's addresses count; they may be set there alone, and are
        `steps * stride` further on after a run.
        """
        self._moving = np.array(pairs, np.int64).reshape(-1, 2)
        self.block[Program.MOVING] = self._moving.ctypes.data
        self.block[Program.MOVING_COUNT] = len(self._moving)

    @property
    def moving(self) -> list[tuple[int, int]]:
        """What `set_moving` was given."""
        return [(int(slot), int(stride)) for slot, stride in self._moving]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Makes this thread the program's owner; waits while another thread is.

        Raises:
            StepgradError: this thread is the owner already, or the process was forked during a run.
        """
        self._enter()
        try:
            yield
        finally:
            self._native.leave(self.address)

    def _enter(self) -> None:
        thread, pause = get_ident(), 20e-6
        if self._torn:
            raise StepgradError(
                "a compiled function was called in a forked process",
                "another thread was running it when the process was forked, so its values are half-written here",
                "fork between calls, or compile it again in the forked process",
            )
        while (found := self._native.enter(self.address, thread)) != _NOW:
            if found == Entered.ALREADY:
                raise StepgradError(
                    "a compiled function was called from within itself",
                    "it has one set of buffers, which the outer call is using",
                    "compile a second function for the inner call",
                )
            time.sleep(pause)
            pause = min(2 * pause, 1e-3)

    # --- running

    def run(self, steps: int = 1, threads: int | None = None) -> None:
        """Runs the program. Without an owner it is entered for the run.

        Args:
            steps: how often.
            threads: at most this many, and at most those it was made for, which is the default. The
                results are the same.

        Raises:
            Exception: what a row that Python does raised. The rows after it were not done.
        """
        count = self.threads if threads is None else max(1, min(threads, self.threads))
        native = self._native
        entered = self._owner[0] != get_ident()
        if entered:
            self._enter()
        try:
            code = native.run(self._pool, self.address, count, steps)
            if code == _WORKERS:
                code = native.run(self._pool, self.address, workers().grow(count), steps)
            if code:
                self.fail()
        finally:
            if entered:
                native.leave(self.address)

    def fail(self) -> None:
        """Raises what a row that Python does raised in the last run, or what a check has found."""
        error, self._error = self._error, None
        if error is None and self._found is not None:
            error = self._found()
        if error is not None:
            raise error

    def profile(self, steps: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Runs the program, and measures the last step.

        Returns:
            Shape (threads, rows, 2): when each thread began and ended each row, in seconds since the first
            began. What lies between a row's end and the next one's beginning was spent at a barrier.
            NaN where a thread took no part, or the processor has no clock for it.
        """
        times = np.zeros((self.threads, len(self._table), 2), np.int64)
        self.block[Program.TIMES] = times.ctypes.data
        try:
            self.run(steps)
        finally:
            self.block[Program.TIMES] = 0
        taken = times > 0
        first = times[taken].min() if taken.any() else 0
        return np.where(taken, (times - first) * seconds_per_tick(), np.nan)


def _words(count: int) -> Words:
    """Zeroed words at the start of a cache line."""
    memory = platform.aligned(count * 8, platform.CACHE_LINE).view(np.int64)
    memory[:] = 0
    return memory


def _caller(program: weakref.ref[Loaded], fallback: Callable[[int], None]) -> Callable[[int], int]:
    """What native code calls: 0, or 1 with the exception kept. (A weak reference, for callbacks are in cycles.)"""

    def call(row: int) -> int:
        try:
            fallback(row)
        except BaseException as error:
            owner = program()
            if owner is not None:
                owner._error = error
            return 1
        return 0

    return call


_programs: weakref.WeakSet[Loaded] = weakref.WeakSet()
_FORKED = -1
"""No thread's identity."""


_forking: list[Loaded] = []


def _before_fork() -> None:
    _forking[:] = [program for program in _programs if program.owner[0] not in (0, JOINED, get_ident())]


def _after_fork() -> None:
    """Programs that other threads were running are unusable in the new process; `_FORKED` keeps them entered."""
    for program in _forking:
        program.owner[0], program._torn = _FORKED, True
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_forking.clear, after_in_child=_after_fork)
