"""Files read whole and written whole: a file is either as it was, or complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stepgrad.errors import FileError


def read(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file.

    Raises:
        FileError: there is no such file, it is a directory, or it may not be read.
    """
    path = Path(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileError(f"there is no file {path}", _what_is_there(path), "check the name and the folder") from None
    except IsADirectoryError:
        raise FileError(
            f"{path} is a directory", "one file is read at a time", f"name a file in it, such as {path / 'data.csv'}"
        ) from None
    except OSError as error:
        raise FileError(
            f"{path} can't be read", f"the system says: {error.strerror}", "check its permissions, or copy it"
        ) from None


def _what_is_there(path: Path) -> str:
    import difflib

    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    names = difflib.get_close_matches(path.name, os.listdir(folder), n=3, cutoff=0.6)
    return f"the folder {folder.resolve()} has no such entry" + (f"; it has {', '.join(names)}" if names else "")


def write(path: str | os.PathLike[str], content: bytes, *, durable: bool = True) -> None:
    """Writes a file in one move: a reader sees the old content or the new, never a part.

    Args:
        path: where.
        content: all of it.
        durable: holds even if the machine fails; this waits for the disk, some milliseconds. Without, a part may
            be there after such a failure, so its reader has to be able to tell.

    Raises:
        FileError: it can't be written; what was there is untouched.
    """
    path = Path(path)
    try:
        with _beside(path) as (file, temporary):
            with file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise _not_writable(path, error) from None


def check_writable(path: str | Path, *, unlike: str | Path | None = None) -> None:
    """Raises FileError if a later `write` would fail.

    Args:
        path: where something will be written.
        unlike: a file that is being read, and must not be overwritten.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(
            f"{path} is a directory", "the result is written to one file", f"name a file in it: {path / 'result'}"
        )
    if unlike is not None and path.exists() and path.samefile(unlike):
        raise FileError(
            f"{path} is to be written, and is also what is read",
            "writing the result would destroy its own input",
            "give the result another name",
        )
    try:
        with _beside(path):
            pass
    except OSError as error:
        raise _not_writable(path, error) from None


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file in the folder of `path`, open; gone afterwards unless it was renamed."""
    temporary = path.parent / f".{path.name[:100]}.{os.urandom(8).hex()}"
    file = open(temporary, "xb")  # noqa: SIM115 - closed below, and only then removed
    try:
        with file:
            yield file, temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _not_writable(path: Path, error: OSError) -> FileError:
    if not path.parent.is_dir():
        return FileError(
            f"{path} can't be written",
            f"there is no folder {path.parent}",
            f"make it first (mkdir -p {path.parent}), or name another place",
        )
    return FileError(
        f"{path} can't be written",
        f"the system says: {error.strerror}",
        "name a file in a folder where you may write, on a disk with room",
    )
