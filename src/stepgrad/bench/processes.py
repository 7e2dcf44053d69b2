"""A candidate in a process of its own, as the parent sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

PAUSE = 0.25
"""Seconds before a measurement: the threads of the candidate before spin for a while before they sleep."""

PATIENCE = 600.0
"""Seconds after which a candidate that has not answered is given up."""


@dataclass(frozen=True)
class Candidate:
    """What is timed.

    Attributes:
        library: what the tables call it.
        peer: what --peers calls it; "" for stepgrad's own.
        file: of this folder, or a path: where it is written.
        function: of that file.
        threads: where it is not the number that all have.
        compared: whether its losses must be those of the others.
    """

    library: str
    peer: str
    file: str
    function: str
    threads: int | None = None
    compared: bool = True


class NotTimedError(Exception):
    """A candidate that could not be timed; its text is a note in the tables, and nothing ends by it."""


class Process:
    """A running candidate.

    Attributes:
        candidate: which.
        ready: what it told about its first call; see `worker.prepare`.

    Raises:
        NotTimedError: it failed, did not answer in time, or its process ended.
    """

    def __init__(self, candidate: Candidate, network: str, *, threads: int, checks: int, caches: Path) -> None:
        self.candidate = candidate
        threads = candidate.threads or threads
        request = {
            "file": str(HERE / candidate.file),
            "function": candidate.function,
            "network": network,
            "threads": threads,
            "checks": checks,
        }
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "worker.py"), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            env=_environment(threads, caches),
            text=True,
            encoding="utf-8",
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.stop()
            raise

    def measure(self, seconds: float) -> float:
        """Seconds for one step, after a pause."""
        time.sleep(PAUSE)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return float(self._answer()["seconds"])

    def stop(self) -> None:
        """Ends the process: it is told to, and killed if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._told.close()

    def _answer(self) -> dict[str, Any]:
        late = threading.Timer(PATIENCE, self._process.kill)
        late.daemon = True
        late.start()
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotTimedError(answer["error"])
        return answer

    def _ended(self) -> NotTimedError:
        code = self._process.wait()
        self._told.seek(0)
        lines = self._told.read().decode("utf-8", "replace").strip().splitlines()
        return NotTimedError(f"its process ended with status {code}" + (f": {lines[-1][:200]}" if lines else ""))


def _environment(threads: int, caches: Path) -> dict[str, str]:
    """The number of threads for every library that reads it there, and a cache folder that starts empty."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM")
    return (
        dict(os.environ)
        | {f"{name}_NUM_THREADS": str(threads) for name in names}
        | {"XDG_CACHE_HOME": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "torchinductor")}
        | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    )
