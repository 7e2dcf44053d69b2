"""Writing a view to a file, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from stepgrad.errors import FileError


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes text in one move: a reader sees the old file or the new one, never a part.

    Raises:
        FileError: it can't be written; what was there is untouched.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=".stepgrad.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # temporary files are private; this one is as any other
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        missing = not path.parent.is_dir()
        raise FileError(
            f"{path} can't be written",
            f"there is no folder {path.parent}" if missing else f"the system says: {error.strerror}",
            "make the folder first" if missing else "name a file in a folder where you may write",
        ) from None
