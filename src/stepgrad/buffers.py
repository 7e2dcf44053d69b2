"""Buffers: memory that compiled programs write to in place, and who may do so when."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

JOINED = -1
"""What the owner of a guard says that has been joined to another."""

changes = np.zeros(1, np.int64)
"""How many runs of programs, in this process, have written to buffers. Each such run counts it up by one,
in native code or here; a snapshot of a buffer is right as long as the count is the one it was taken at."""

_count = changes.data  # a memoryview: reading an element of it is twice as fast


class Guard:
    """Keeps programs that use the same buffers from running at the same time. A context manager.

    Guards are joined when a program uses the buffers of several; the joined ones act as one.

    Attributes:
        lock: held by who uses the buffers.
        owner: int64, one element, for native code that does not take the lock: the thread that uses the
            buffers, 0 for none, or `JOINED`. Only a small program does that, which holds the GIL from
            beginning to end; it looks here, and takes the lock after all if the buffers are in use.
    """

    __slots__ = ("__weakref__", "_held", "_next", "lock", "owner")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owner = np.zeros(1, np.int64)
        self._next: Guard | None = None
        self._held: list[Any] = []
        locked.add(self)

    def root(self) -> Guard:
        guard = self
        while guard._next is not None:
            guard = guard._next
        return guard

    def acquire(self) -> Any:
        """Waits for its turn; returns the lock to release."""
        guard = self
        while True:
            lock = guard.lock
            lock.acquire()
            if guard._next is None:
                return lock
            lock.release()
            guard = guard._next  # it was joined to another

    def __enter__(self) -> None:
        lock = self.acquire()
        owner = self.root().owner
        self._held.append((lock, owner, int(owner[0])))
        owner[0] = threading.get_ident()

    def __exit__(self, *error: object) -> None:
        lock, owner, before = self._held.pop()
        owner[0] = before
        lock.release()


class _Locks:
    """What is locked in this process, so that a forked one can begin with free locks."""

    def __init__(self) -> None:
        self.joining = threading.Lock()
        self.all: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, locked: Any) -> None:
        self.all.add(locked)

    def renew(self) -> None:
        self.joining = threading.Lock()
        for each in self.all:
            each.lock = threading.RLock()
            if isinstance(each, Guard) and each.owner[0] != JOINED:
                each.owner[0] = 0


locked = _Locks()
"""Everything with an attribute `lock`: after a fork, threads that held one are gone."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=locked.renew)


def join(guards: Iterable[Guard]) -> Guard:
    """One guard for all that these guarded; waits until none of their programs runs."""
    with locked.joining:
        roots = list(dict.fromkeys(guard.root() for guard in guards)) or [Guard()]
        first, *others = roots
        first.lock.acquire()
        try:
            for other in others:
                with other.lock:
                    other._next = first
                    other.owner[0] = JOINED  # for good: its programs look for the new one
        finally:
            first.lock.release()
    return first


class Buffer:
    """An array that programs write to in place, and a copy of it that nobody writes to.

    Args:
        value: what it holds at first, in an array that nobody will write to.

    Attributes:
        array: the memory.
        guard: held by whoever writes to it.
    """

    __slots__ = ("_copy", "_taken", "array", "guard")

    def __init__(self, value: Array) -> None:
        self.array = aligned(value.shape, value.dtype)
        self.guard = Guard()
        self.fill(value)

    def fill(self, value: Array) -> None:
        """Puts a value in, given in an array that nobody will write to. Snapshots stay as they are."""
        if not value.flags.c_contiguous:
            value = value.copy()
            value.setflags(write=False)
        with self.guard:
            self._taken = _count[0]
            np.copyto(self.array, value)
            self._copy = value

    def snapshot(self) -> Array:
        """The value in an array that nobody writes to: the same one until the value changes."""
        if self._taken != _count[0]:
            with self.guard:
                taken = _count[0]
                if not _same_bytes(self.array, self._copy):
                    self._copy = self.array.copy()
                    self._copy.setflags(write=False)
                self._taken = taken
        return self._copy


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised C-contiguous array whose address is a multiple of `ALIGNMENT`."""
    kind = np.dtype(dtype)
    size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(kind).reshape(shape)


def _same_bytes(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits, NaN included."""
    a, b = one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)
    return bool((a[:_PEEK] == b[:_PEEK]).all() and (a == b).all())


_PEEK = 256
"""Bytes compared first: what has changed at all has mostly changed there."""
