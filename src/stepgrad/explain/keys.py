"""Keys, one at a time and by name, as they are pressed; with the standard library only."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

Read = Callable[[float], str | None]
"""Waits for a key for some seconds: its name, or None."""

_ESCAPES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "[H": "home", "[F": "end", "[5~": "page up",
    "[6~": "page down",
    "[1~": "home", "[4~": "end", "[7~": "home", "[8~": "end", "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "OH": "home", "OF": "end",
}  # fmt: skip
_PLAIN = {"\r": "enter", "\n": "enter", " ": "space", "\x1b": "escape", "\x7f": "backspace", "\b": "backspace"}
_WINDOWS = {
    "H": "up",
    "P": "down",
    "M": "right",
    "K": "left",
    "G": "home",
    "O": "end",
    "I": "page up",
    "Q": "page down",
}


def name_of(pressed: str) -> str:
    """What a key that sends these characters is called; itself if it is a letter.

    Example:
        >>> name_of("\\x1b[C"), name_of("q")
        ('right', 'q')
    """
    if pressed.startswith("\x1b") and len(pressed) > 1:
        return _ESCAPES.get(pressed[1:], "unknown")
    return _PLAIN.get(pressed, pressed)


if sys.platform == "win32":

    @contextlib.contextmanager
    def keys() -> Iterator[Read]:
        """Reads keys of the console."""
        import msvcrt

        def read(timeout: float) -> str | None:
            until = time.monotonic() + timeout
            while not msvcrt.kbhit():
                if time.monotonic() > until:
                    return None
                time.sleep(0.02)
            pressed = msvcrt.getwch()
            if pressed == "\x03":
                raise KeyboardInterrupt
            if pressed in "\x00\xe0":
                return _WINDOWS.get(msvcrt.getwch(), "unknown")
            return name_of(pressed)

        yield read

else:

    @contextlib.contextmanager
    def keys() -> Iterator[Read]:
        """Reads keys of the terminal that is standard input; restores it afterwards."""
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)

        def waiting(timeout: float) -> bool:
            return bool(select.select([terminal], [], [], timeout)[0])

        def read(timeout: float) -> str | None:
            if not waiting(timeout):
                return None
            pressed = os.read(terminal, 1)
            if not pressed:
                return "q"  # the terminal was closed
            if pressed == b"\x1b":
                while waiting(0.03) and len(pressed) < 8:
                    pressed += os.read(terminal, 1)
                    if pressed[1:2] not in (b"[", b"O") or (len(pressed) > 2 and 0x40 <= pressed[-1] <= 0x7E):
                        break
            return name_of(pressed.decode("latin-1"))

        try:
            tty.setcbreak(terminal)
            yield read
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
