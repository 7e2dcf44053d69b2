"""What the native driver finds in memory: the 8-byte words of a program, of the pool of threads, and of mailboxes.

A program is a block of words (`Program`) that points to a table of rows, the operands of the rows, and each
thread's addresses.

Who writes what:
- the caller (thread 0) writes the program's words, and the mailboxes of the workers that are to help;
- each thread writes only its own row of slots, and adds itself to ARRIVED;
- thread 0 writes ABORT between two barriers, so all threads read the same.
"""

from __future__ import annotations

import enum

from stepgrad.execute.cpu import platform

LINE = platform.CACHE_LINE // 8
"""Words in a cache line."""


class Flag(enum.IntFlag):
    """What a row of the table asks for."""

    BARRIER = 1
    """All threads meet before it: it reads what another thread wrote, or overwrites what another may still read."""
    SINGLE = 2
    """One thread does it alone: the number in the flags' bits from OWNER_SHIFT on, modulo the number of threads."""
    FALLBACK = 4
    """Python does it: thread 0 calls back with the row's number, and all threads meet before and after."""
    CHECK = 8
    """All threads do all of it, and end the run if it sets ABORT: an index is out of range, say."""


OWNER_SHIFT = 8
"""Of the number of the thread that does a row with `Flag.SINGLE`, in the row's flags."""


class Row(enum.IntEnum):
    """The words of a row of the table."""

    FUNCTION = 0
    FLAGS = 1
    FIRST = 2
    COUNT = 3


class Program(enum.IntEnum):
    """The words of a program's block."""

    TABLE = 0
    ROWS = 1
    OPERANDS = 2
    SLOTS = 3
    SLOTS_PER_THREAD = 4
    MOVING = 5
    """Pairs (slot, stride): slots that are set anew for each run, and by how many bytes they move after a step."""
    MOVING_COUNT = 6
    CALLBACK = 7
    TIMES = 8
    """Null, or where each thread notes when each row of the last step began and ended, in ticks."""
    YIELD = 9
    """A C function without arguments that lets other threads run, or null."""
    OWNER = 10
    """Where the thread is noted that may set up and run the program now, or 0. Programs that write to the
    same buffers share the place."""
    FLUSH = 12
    """Not 0: denormal numbers count as 0."""
    CHANGES = 11
    """Null, or a counter that each run counts up by one when all is written."""
    ARRIVED = LINE
    """How often threads have come to barriers. It only grows; a run counts from where it found it."""
    ABORT = 2 * LINE
    WORDS = 3 * LINE


class Pool(enum.IntEnum):
    """The words at the start of the pool's block; worker w's mailbox is w * `Mailbox.WORDS` words further on."""

    TAKEN = 0
    STARTED = LINE
    """How many workers there are; they are numbered from 1."""
    SPINS = LINE + 1
    """How many pauses an idle worker makes before it sleeps."""
    ACQUIRE = LINE + 2
    RELEASE = LINE + 3


class Mailbox(enum.IntEnum):
    """The words through which one worker gets its jobs: two lines, the second of which never changes."""

    STATE = 0
    PROGRAM = 1
    THREADS = 2
    STEPS = 3
    ARRIVED = 4
    LOCK = LINE
    NUMBER = LINE + 1
    POOL = LINE + 2
    WORDS = 2 * LINE


class State(enum.IntEnum):
    """What a mailbox says. The worker changes IDLE to ASLEEP and WORK to IDLE, the caller anything to WORK or STOP."""

    IDLE = 0
    WORK = 1
    ASLEEP = 2
    STOP = 3
    GONE = 4


class Entered(enum.IntEnum):
    """What `enter` found."""

    BUSY = 0
    NOW = 1
    ALREADY = 2


class Code(enum.IntEnum):
    """How a run ended."""

    DONE = 0
    FAILED = 1
    """A row that Python does raised an exception; the rows after it were not done."""
    WORKERS = 2
    """Nothing was run: there are fewer workers than it takes."""
