"""Watching a function while it is recorded: which variable holds which tensor, which statement runs.

The tape calls the watcher with each new equation. It then looks at the frames of the user's functions:
their variables give tensors their names, and the statement that runs says which step an equation
belongs to. Frames that have ended keep their last variables for as long as the watcher holds them, so
what is bound just before a function returns is seen as well, without a tracing or profiling hook
(debuggers and coverage keep working).
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import sys
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import numpy as np

from stepgrad.tape.equation import CELL, CONSTANT, LITERAL, Equation
from stepgrad.tape.recording import RECORDING
from stepgrad.tensor import ArrayLike, Tensor
from stepgrad.tree import flatten

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple(_PACKAGE + part for part in ("nn" + os.sep, "losses.py", "optim" + os.sep, "train" + os.sep))

_LESSON = os.path.join(_PACKAGE, "explain", "lesson.py")  # reads like a user's code


@functools.cache
def _is_engine(file: str) -> bool:
    return file.startswith(_PACKAGE) and not file.startswith((*_LIBRARY, _LESSON))


@functools.cache
def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARY)


@dataclass(frozen=True)
class Statement:
    """A statement of the user's code.

    Attributes:
        file, line, column: where it begins.
        text: its source on one line; empty where the source can't be read.
    """

    file: str
    line: int
    column: int
    text: str


@dataclass
class Run:
    """One run of a statement: the equations that were recorded by it.

    Attributes:
        statement: the user's statement.
        scope: the modules it ran in, outermost first.
        equations: what it recorded, in order.
    """

    statement: Statement
    scope: tuple[str, ...]
    equations: list[Equation] = field(default_factory=list)


class Watcher:
    """Sees each equation as it is recorded.

    Args:
        outside: the frame whose callees are watched.

    Attributes:
        bound: equation -> (depth of the function, order, name): the first variable it was bound to in the
            outermost function that held it.
        modules: parameter -> the variable whose module it belongs to.
        runs: what each run of a statement recorded, in order.
        walks: the gradients of each backward walk in the function, by equation.
    """

    def __init__(self, outside: FrameType) -> None:
        self.outside = outside
        self.bound: dict[Equation, tuple[int, int, str]] = {}
        self.modules: dict[Equation, str] = {}
        self.runs: list[Run] = []
        self.walks: list[dict[Equation, Tensor]] = []
        self._chain: list[FrameType] = []
        self._anchor: FrameType | None = None
        self._callee: FrameType | None = None
        self._position = -1
        self._known: set[Equation] = set()

    def __call__(self, equation: Equation) -> None:
        chain, anchor, callee = self._look(sys._getframe(1))
        gradients = RECORDING.get().gradients
        if gradients is not None and not any(gradients is known for known in self.walks[-1:]):
            self.walks.append(gradients)
        self._bind(chain)
        position = anchor.f_lasti
        statement = statement_at(anchor.f_code, position)
        again = position < self._position or (position == self._position and callee is not self._callee)
        last = self.runs[-1] if self.runs else None
        if (
            last is None
            or anchor is not self._anchor
            or statement is not last.statement
            or again
            or equation.scope != last.scope
        ):
            last = Run(statement, equation.scope)
            self.runs.append(last)
        last.equations.append(equation)
        self._known.add(equation)
        self._anchor, self._callee, self._position = anchor, callee, position
        for source in equation.inputs:
            if source.op is not LITERAL and source not in self._known and source not in self.bound:
                self._name_leaf(source, anchor, len(chain))

    def finish(self) -> None:
        """Looks at the variables once more, when the function has returned; lets go of its frames."""
        for depth, frame in enumerate(self._chain):
            self._scan(frame, depth)
        self._chain, self._anchor, self._callee = [], None, None

    def _look(self, innermost: FrameType) -> tuple[list[FrameType], FrameType, FrameType]:
        """The user's frames, outermost first; the one whose statement is running; the frame it called."""
        chain: list[FrameType] = []
        anchor = callee = library = beneath = None
        frame: FrameType | None = innermost
        below = innermost
        while frame is not None and frame is not self.outside:
            file = frame.f_code.co_filename
            if not _is_engine(file):
                chain.append(frame)
                if _is_library(file):
                    library, beneath = frame, below
                elif anchor is None:
                    anchor, callee = frame, below
            below, frame = frame, frame.f_back
        chain.reverse()
        if anchor is None:  # the function being recorded is one of the library's, or an op
            anchor, callee = (library, beneath) if library is not None else (below, below)
        assert anchor is not None
        assert callee is not None
        return chain, anchor, callee

    def _bind(self, chain: list[FrameType]) -> None:
        common = 0
        for before, now in zip(self._chain, chain, strict=False):
            if before is not now:
                break
            common += 1
        for depth in range(len(self._chain) - 1, common - 1, -1):  # these have returned
            self._scan(self._chain[depth], depth)
        changed = len(self._chain) != len(chain) or common < len(chain)
        for depth in range(0 if changed else len(chain) - 1, len(chain)):
            if depth >= 0:
                self._scan(chain[depth], depth)
        self._chain = chain

    def _scan(self, frame: FrameType, depth: int) -> None:
        bound = self.bound
        for name, value in frame.f_locals.items():
            if isinstance(value, ArrayLike):
                equation = value._tensor.equation
                known = bound.get(equation)
                if (known is None or known[0] > depth) and name.strip("_") and name.isidentifier():
                    bound[equation] = (depth, len(bound), name)

    def _name_leaf(self, leaf: Equation, frame: FrameType, depth: int) -> None:
        """Names what came from outside of the function: globals, attributes of self, arrays.

        An array is copied when it meets a tensor; its name is that of a variable with the same numbers.
        """
        self._known.add(leaf)
        seen = {name: frame.f_globals[name] for name in frame.f_code.co_names if name in frame.f_globals}
        seen.update(vars(frame.f_locals["self"]) if hasattr(frame.f_locals.get("self"), "__dict__") else {})
        seen.update(frame.f_locals)
        for name, value in seen.items():
            if _is_same(leaf, value):
                self.bound[leaf] = (depth, len(self.bound), name)
                return
            if leaf.op is CELL and _holds(value, leaf.params["cell"]):
                self.modules[leaf] = name


def _holds(module: Any, cell: Any) -> bool:
    return callable(getattr(module, "parameters", None)) and any(held is cell for held in flatten(module)[0])


def _is_same(leaf: Equation, value: Any) -> bool:
    if isinstance(value, ArrayLike):
        return value._tensor.equation is leaf
    return (
        isinstance(value, np.ndarray)
        and leaf.op is CONSTANT
        and leaf.value is not None
        and value.ndim > 0
        and (value.shape, value.dtype) == (leaf.type.shape, leaf.type.dtype)
        and bool(np.array_equal(value, leaf.value, equal_nan=value.dtype.kind in "fc"))
    )


# --- which statement an instruction belongs to


@functools.lru_cache(maxsize=4096)
def statement_at(code: CodeType, position: int) -> Statement:
    """The statement that holds the instruction at a position in a code object."""
    line, column = _coordinates(code, position)
    text, starts = _statements(code.co_filename)
    best = None
    for node, start, end in starts:
        if start <= (line, column) < end and (best is None or start > best[1]):
            best = node, start, end
    if best is None:
        return _statement(code.co_filename, line, 0, linecache.getline(code.co_filename, line).strip())
    node, start, end = best
    segment = ast.get_source_segment(text, node) or ""
    if hasattr(node, "body"):  # the head of an if, for, while or with
        segment = segment.splitlines()[0]
    return _statement(code.co_filename, *start, " ".join(_without_comments(segment).split()))


@functools.cache
def _statement(file: str, line: int, column: int, text: str) -> Statement:
    return Statement(file, line, column, text)


def _coordinates(code: CodeType, position: int) -> tuple[int, int]:
    for index, (line, _, column, _) in enumerate(code.co_positions()):
        if index == position // 2:
            return line or code.co_firstlineno, column or 0
    return code.co_firstlineno, 0


@functools.lru_cache(maxsize=64)
def _parsed(file: str, text: str) -> tuple[str, list[tuple[Any, tuple[int, int], tuple[int, int]]]]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text, []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        if isinstance(body, list) and body:
            end = (body[0].lineno, body[0].col_offset)
        else:
            end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
        found.append((node, (node.lineno, node.col_offset), end))
    return text, found


def _statements(file: str) -> tuple[str, list[tuple[Any, tuple[int, int], tuple[int, int]]]]:
    return _parsed(file, "".join(linecache.getlines(file)))


def _without_comments(segment: str) -> str:
    if "#" not in segment:
        return segment
    try:
        return ast.unparse(ast.parse(segment.strip()))
    except SyntaxError:
        return segment
