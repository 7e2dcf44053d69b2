"""Compiling: a function is recorded without values, and the tape is run as one program.

A call goes through these files in this order: `decorator.py` (`sg.compile` and its settings), `compiled.py` (which
program, and whether to record again), `recorded.py` (a function becomes a tape), `stale.py` (what differs between
two recordings), `entries.py` (a program, and what its calls look like).
"""

from stepgrad.compile.compiled import Compiled
from stepgrad.compile.decorator import compile

__all__ = ["Compiled", "compile"]
