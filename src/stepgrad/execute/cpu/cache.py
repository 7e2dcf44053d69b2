"""Machine code kept between processes, on disk: one file for each kernel.

A file's name is the hash of everything that its content follows from: the kernel, how it is shared out,
the processor, the versions, and the code of this package that emits it. It begins with the hash of its
content, so a damaged file counts as none. Files are written whole, by renaming, so processes may write at the
same time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np
import platformdirs

from stepgrad.errors import FileError
from stepgrad.execute.cpu.target import Target
from stepgrad.files import write

MOST = 4096
"""Files that are kept; beyond, those go that were not read for longest."""


def folder() -> Path | None:
    """Where machine code is kept: $STEPGRAD_CACHE, or the user's folder for caches; None if nowhere.

    An empty STEPGRAD_CACHE switches it off.
    """
    chosen = os.environ.get("STEPGRAD_CACHE")
    if chosen == "":
        return None
    return Path(chosen or platformdirs.user_cache_path("stepgrad", appauthor=False)) / "kernels"


def key(described: str, target: Target) -> str:
    """The name of a kernel's file."""
    return hashlib.sha256(f"{_versions()}\n{target!r}\n{described}".encode()).hexdigest()


@functools.cache
def _versions() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *(here.parent.parent / "passes").glob("*.py")]):
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()} llvmlite {llvmlite.__version__} LLVM {llvm.llvm_version_info} numpy {np.__version__}"


def find(name: str) -> bytes | None:
    """The machine code kept under a name, if it is there and whole."""
    place = folder()
    if place is None:
        return None
    try:
        content = (place / name).read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    if hashlib.sha256(code).digest() != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(place / name)
    return code


def keep(name: str, code: bytes) -> None:
    """Keeps machine code under a name. A cache that can't be written is no error: then nothing is kept."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError, FileError):
        place.mkdir(parents=True, exist_ok=True)
        write(place / name, hashlib.sha256(code).digest() + code, durable=False)


def tidy() -> None:
    """Removes the files that were not read for longest, if there are too many."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        files = [entry for entry in os.scandir(place) if entry.is_file()]
        if len(files) > MOST:
            files.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in files[: len(files) - MOST * 3 // 4]:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
