"""The pool of threads that help to run programs. There is one in a process.

Workers are threads of the operating system that Python knows nothing of: they hold no GIL, run native code only,
and use no processor time shortly after the last job. The calling thread always takes part as thread 0.
Only one run at a time has the workers; a run that finds them taken goes on alone, with the same results.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from stepgrad.execute.cpu import cache, driver, platform
from stepgrad.execute.cpu import native as machine
from stepgrad.execute.cpu.target import host
from stepgrad.execute.cpu.words import Mailbox, Pool, State

MAXIMUM = 256
"""The largest number of threads."""

SPIN_SECONDS = 60e-6
"""How long an idle worker waits awake: longer than Python takes from one step to the next."""

Words = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Driver:
    """The driver's functions, as ctypes functions that release the GIL, and the address of each by name."""

    run: Any
    stop: Any
    enter: Any
    leave: Any
    pause: Any
    ticks: Any
    addresses: dict[str, int]


@functools.cache
def native() -> Driver:
    """The driver's machine code, made once in a process and never freed: workers may be in it until the very end."""
    addresses = machine_code("driver", driver.NAMES, driver.emit)
    signatures: dict[str, tuple[Any, ...]] = {
        "run": (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
        "stop": (None, ctypes.c_int64),
        "enter": (ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
        "leave": (None, ctypes.c_int64),
        "pause": (None, ctypes.c_int64),
        "ticks": (ctypes.c_int64,),
    }
    functions = {name: ctypes.CFUNCTYPE(*types)(addresses[name]) for name, types in signatures.items()}
    return Driver(**functions, addresses=addresses)


def machine_code(name: str, functions: Sequence[str], emit: Callable[[ir.Module, str], None]) -> dict[str, int]:
    """The addresses of a part of the runtime, from disk or made now.

    Args:
        name: of the part.
        functions: their names.
        emit: adds them to a module, given the target's triple.
    """
    target = host()
    key = "runtime_" + cache.key(name, target)
    code = cache.find(key)
    if code is None:
        module = machine.new_module(target)
        emit(module, target.triple)
        code = machine.assemble(str(module), target)
        cache.keep(key, code)
    return machine.load([code], functions, target)


class Workers:
    """The pool: its words in memory, which native code reads, and what starts and stops its threads."""

    def __init__(self) -> None:
        self._memory = platform.aligned(MAXIMUM * Mailbox.WORDS * 8, 4096).view(np.int64)
        keep_forever(self._memory)
        self.address: int = self._memory.ctypes.data
        self._locks = platform.python_addresses(
            "PyThread_allocate_lock", "PyThread_acquire_lock", "PyThread_release_lock", "PyThread_start_new_thread"
        )
        self.forget()

    def forget(self) -> None:
        """Starts over without workers, as in a forked process, where none of them exists."""
        self._memory[:] = 0
        self._starting = threading.Lock()

    @property
    def started(self) -> int:
        """How many workers there are."""
        return int(self._memory[Pool.STARTED])

    @property
    def asleep(self) -> int:
        """How many of them sleep; for tests and reports."""
        states = self._memory[Mailbox.STATE :: Mailbox.WORDS][1 : self.started + 1]
        return int(np.count_nonzero(states == State.ASLEEP))

    def grow(self, threads: int) -> int:
        """Starts the workers that a run with this many threads takes.

        Returns:
            How many threads a run can have now: fewer where threads can't be started, or locks not be found.
        """
        threads = min(threads, MAXIMUM)
        with self._starting:
            if self._locks is not None and self.started < threads - 1:
                _, self._memory[Pool.ACQUIRE], self._memory[Pool.RELEASE], _ = self._locks
                self._memory[Pool.SPINS] = _pauses(SPIN_SECONDS)
                while self.started < threads - 1 and self._start(self.started + 1):
                    self._memory[Pool.STARTED] += 1
            return min(threads, self.started + 1)

    def _start(self, number: int) -> bool:
        """Starts one worker. Whether that was possible."""
        lock = _allocate_lock()
        if not lock:
            return False
        mailbox = self._memory[number * Mailbox.WORDS :]
        mailbox[Mailbox.STATE] = State.IDLE
        mailbox[Mailbox.LOCK], mailbox[Mailbox.NUMBER], mailbox[Mailbox.POOL] = lock, number, self.address
        start = ctypes.pythonapi.PyThread_start_new_thread
        start.argtypes, start.restype = (ctypes.c_void_p, ctypes.c_void_p), ctypes.c_ulong
        failed = ctypes.c_ulong(-1).value
        return start(native().addresses["worker"], mailbox.ctypes.data) != failed

    def stop(self) -> None:
        """Ends the workers at the interpreter's exit; runs after that are done by their callers alone."""
        if not self.started:
            return
        native().stop(self.address)
        states = self._memory[Mailbox.STATE :: Mailbox.WORDS][1 : self.started + 1]
        patience = time.monotonic() + 0.2  # a worker that is at work is left to the operating system
        while np.any(states != State.GONE) and time.monotonic() < patience:
            time.sleep(0.0002)


@functools.cache
def workers() -> Workers:
    """The process's pool; without threads until a program asks for them."""
    made = Workers()
    atexit.register(made.stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=made.forget)
    return made


def _allocate_lock() -> int:
    """A new lock, which is held: the first who waits for it sleeps."""
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype, acquire.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)
    lock = allocate()
    if lock:
        acquire(lock, 1)
    return lock or 0


def _pauses(seconds: float) -> int:
    """How many pauses take that long: 10 ns to 100 ns each, depending on the processor."""
    pause, shortest = native().pause, float("inf")
    for _ in range(5):
        began = time.perf_counter()
        pause(1000)
        shortest = min(shortest, time.perf_counter() - began)
    return max(100, int(seconds / shortest * 1000))


@functools.cache
def seconds_per_tick() -> float:
    """The unit of the driver's clock, measured against Python's for 10 ms; NaN on processors without such a clock."""
    ticks = native().ticks
    began, first = time.perf_counter(), ticks()
    time.sleep(0.01)
    seconds, counted = time.perf_counter() - began, ticks() - first
    return seconds / counted if counted else float("nan")


def keep_forever(kept: Any) -> None:
    """Never frees an object, not even at exit, because threads that Python does not know of use its memory."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
