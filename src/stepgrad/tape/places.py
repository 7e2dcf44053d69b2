"""Places in the user's code: the line that recorded an equation, and what a variable is called there."""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
from types import CodeType, FrameType

from stepgrad.tensor import ArrayLike, Tensor, functions

Where = tuple[CodeType, int]
"""A place in the user's code: a code object and the position of the instruction in it."""

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MODULES = "calls cells compile entries losses missing recorded rules stale tensor transforms"
_ENGINE = tuple(
    _ROOT + part
    for part in (
        *(folder + os.sep for folder in ("tape", "ops", "optim", "passes")),
        *(module + ".py" for module in _MODULES.split()),
    )
)
for _package in ("numpy", "scipy"):  # they call back into tensors; scipy is found without importing it
    _found = importlib.util.find_spec(_package)
    _ENGINE += tuple(os.path.join(folder, "") for folder in (_found and _found.submodule_search_locations) or ())
known_files: dict[str, bool] = {}
"""Source file -> whether it is the engine's own, for the files seen so far."""


def in_engine(frame: FrameType) -> bool:
    """Whether a frame runs the engine's own code, and not the user's (nor that of `nn`)."""
    file = frame.f_code.co_filename
    if file not in known_files:
        known_files[file] = file.startswith(_ENGINE)
    return known_files[file]


def user_frame(depth: int = 2) -> FrameType | None:
    """The innermost frame that is not the engine's own."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and in_engine(frame):
        frame = frame.f_back
    return frame


def user_where(depth: int = 2) -> Where | None:
    """The instruction that the user's innermost frame is running."""
    frame = user_frame(depth)
    return None if frame is None else (frame.f_code, frame.f_lasti)


def variable_name(tensor: Tensor) -> str | None:
    """The user's name for a tensor: the one it has, or that of a variable bound to it."""
    if tensor.equation.name:
        return tensor.equation.name
    frame = user_frame()
    while frame is not None:
        if not known_files.get(frame.f_code.co_filename):
            for name, bound in frame.f_locals.items():
                if bound is tensor or (isinstance(bound, ArrayLike) and bound._tensor is tensor):
                    return name
        frame = frame.f_back if frame.f_code.co_name != "<module>" else None
    return None


def place_text(where: Where | None) -> str:
    """`net.py:12: Z = W @ X`: how messages speak of a place in the user's code."""
    file, number = place(where)
    source = source_line(where)
    return f"{os.path.basename(file)}:{number}" + (f": {source}" if source else "")


def place(where: Where | None) -> tuple[str, int]:
    """File and line number; ("<unknown>", 0) where there is none."""
    if where is None:
        return "<unknown>", 0
    code, position = where
    for start, end, line in code.co_lines():
        if line is not None and start <= position < end:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno


def source_line(where: Where | None) -> str:
    """The user's line of code, stripped; empty where the source can't be read."""
    return linecache.getline(*place(where)).strip()


functions["variable_name"] = variable_name
