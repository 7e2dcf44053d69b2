"""Running what runs the user's code in a process of its own: with a time limit, its output kept apart.

A script may loop for ever, print, ask for input, end the process, or crash it. None of this reaches
the process that reports on it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stepgrad import errors
from stepgrad.errors import ArgumentError, StepgradError

_GRACE = 5.0
"""Seconds that the process gets beyond the limit: to start, and to say where it was."""


@dataclass(frozen=True)
class Answer:
    """What a check found.

    Attributes:
        text: the report.
        status: the exit status: 0 right, 1 wrong, 2 could not be told.
        heading: which file was run, and how.
        printed: what the user's code wrote to its standard output and error.
    """

    text: str
    status: int
    heading: str = ""
    printed: str = ""


def limited(function: str, arguments: Mapping[str, Any], path: str, argv: Sequence[str], seconds: float) -> Answer:
    """Calls a function of stepgrad's in a process of its own, in the folder of the user's file.

    Args:
        function: `module:name` of a function that returns an `Answer`.
        arguments: its keyword arguments; what JSON can hold.
        path: the user's file. Its folder is the working directory; standard input is empty.
        argv: what the file finds in sys.argv[1:].
        seconds: the time limit.

    Raises:
        StepgradError: what the function raised.
        ArgumentError: the time limit was reached, or the user's code ended the process.
    """
    with tempfile.TemporaryDirectory(prefix="stepgrad-check-") as folder:
        request, answer, printed = (os.path.join(folder, n) for n in ("request.json", "answer.json", "printed.txt"))
        told = {
            "function": function,
            "arguments": dict(arguments),
            "path": path,
            "argv": [path, *argv],
            "seconds": seconds,
            "answer": answer,
        }
        with open(request, "w", encoding="utf-8") as file:
            json.dump(told, file)
        command = [sys.executable, "-P", "-c", f"from {__name__} import inside; inside()", request]
        with open(printed, "wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                process.wait(seconds + _GRACE)
            except subprocess.TimeoutExpired:
                raise _too_long(path, seconds, "") from None
            finally:
                _stop(process)
        with open(printed, encoding="utf-8", errors="replace") as file:
            output = file.read()
        if not os.path.exists(answer):
            raise _ended(path, process.returncode, output)
        with open(answer, encoding="utf-8") as file:
            found = json.load(file)
    if "error" in found:
        kind = getattr(errors, found["error"])
        raise kind(*found["parts"])
    if "running" in found:
        raise _too_long(path, seconds, found["running"])
    return Answer(**{**found, "printed": output})


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and what it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def _too_long(path: str, seconds: float, running: str) -> ArgumentError:
    name = os.path.basename(path)
    return ArgumentError(
        f"{name} was still running after {seconds:g} seconds{running and f' {running}'}",
        "it is imported as Python does, which runs its top level, and its functions are then called several times",
        "put what trains under `if __name__ == '__main__':`, pass smaller inputs, or allow more: --seconds 600",
    )


def _ended(path: str, status: int, output: str) -> ArgumentError:
    name = os.path.basename(path)
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    last = output.strip().splitlines()[-1:]
    return ArgumentError(
        f"{name} ended its process with {how}" + (f"; the last it printed was {last[0]!r:.100}" if last else ""),
        "the process in which it was checked was gone before it could report",
        f"run `python {name}` to see why; leave out os._exit",
    )


# --- in the process of its own


def inside() -> None:
    """Answers the request in the file that sys.argv names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        told = json.load(file)
    module, _, name = told["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    sys.argv = told["argv"]
    os.chdir(os.path.dirname(told["path"]))
    watchdog = threading.Timer(told["seconds"], _give_up, (told, threading.get_ident()))
    watchdog.daemon = True
    watchdog.start()
    try:
        found = asdict(function(**told["arguments"]))
    except StepgradError as error:
        found = {"error": type(error).__name__, "parts": [error.what, error.why, error.instead]}
    watchdog.cancel()
    _write(told["answer"], found)
    sys.stdout.flush()
    os._exit(0)  # threads that the user's code has started don't keep it


def _give_up(told: Mapping[str, Any], thread: int) -> None:
    frame = sys._current_frames().get(thread)
    stack = traceback.extract_stack(frame) if frame is not None else []
    mine = [f for f in stack if os.path.abspath(f.filename) == told["path"]]
    where = ""
    if mine:
        inner = mine[-1]
        within = "" if inner.name == "<module>" else f" in {inner.name}"
        where = f"at {os.path.basename(told['path'])}:{inner.lineno}{within}: {inner.line}"
    _write(told["answer"], {"running": where})
    os._exit(0)


def _write(path: str, found: Mapping[str, Any]) -> None:
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(found, file)
    os.replace(path + ".part", path)
