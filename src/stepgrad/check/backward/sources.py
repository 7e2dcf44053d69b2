"""The source of a user's function: its text, the places in it where values are made, and changes of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType

Span = tuple[int, int, int, int]
"""(line, column, end line, end column) in the file, as `ast` counts: columns in UTF-8 bytes."""


@dataclass(frozen=True)
class Site:
    """A place in the user's code where a value is made.

    Attributes:
        file, line: where the statement, or the entry of a dict display, begins.
        code: its source on one line.
        function: the function it is in.
        names: what it assigns, as the user calls it.
        reads: the variables that it reads.
        span: (line, column, end line, end column) of the statement.
        value: the same of the expression whose value is assigned.
        kind: "assign", "update" (`+=`), "store" (`x[i] = …`), "entry" (of a dict), "return" or "call".
    """

    file: str
    line: int
    code: str
    function: str
    names: tuple[str, ...]
    reads: frozenset[str]
    span: Span
    value: Span
    kind: str

    def __repr__(self) -> str:
        return f"line {self.line}: {self.code}"


@dataclass(frozen=True)
class Edit:
    """Other text for a part of a function's source.

    Attributes:
        span: (line, column, end line, end column) in the file, as `ast` counts: columns in UTF-8 bytes.
        text: what stands there instead.
    """

    span: Span
    text: str


@dataclass(frozen=True)
class Source:
    """The text of a function, made such that it parses by itself with its own line and column numbers.

    Attributes:
        first, last: its lines in the file, counted from 1.
        lines: those lines.
        header: what goes before them, one line.
    """

    first: int
    last: int
    lines: tuple[str, ...]
    header: str

    @property
    def offset(self) -> int:
        """What to add to a parsed line number for the line in the file."""
        return self.first - 1 - (1 if self.header else 0)

    def edited(self, edits: Sequence[Edit]) -> str:
        """The text to parse, with other text in places. It keeps its number of lines."""
        lines = list(self.lines)
        for edit in sorted(edits, key=lambda e: e.span, reverse=True):
            line, column, end_line, end_column = edit.span
            top, bottom = lines[line - self.first].encode(), lines[end_line - self.first].encode()
            text = edit.text.replace("\n", " ")
            lines[line - self.first] = top[:column].decode() + text + bottom[end_column:].decode()
            for between in range(line + 1, end_line + 1):
                lines[between - self.first] = "\n"
        return self.header + "".join(lines)

    def text(self, span: Span) -> str:
        """The source of a part."""
        line, column, end_line, end_column = span
        if line == end_line:
            return self.lines[line - self.first].encode()[column:end_column].decode()
        parts = [self.lines[line - self.first].encode()[column:].decode()]
        parts += [self.lines[i - self.first] for i in range(line + 1, end_line)]
        return "".join([*parts, self.lines[end_line - self.first].encode()[:end_column].decode()])


def source_of(function: FunctionType) -> Source | None:
    """The source of a function; None where it can't be read."""
    return _source(function.__code__)


@functools.lru_cache(maxsize=512)
def _source(code: CodeType) -> Source | None:
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return None
    if not lines or not lines[0].strip() or code.co_name == "<lambda>":
        return None
    indented = lines[0][0] in " \t"
    header = f"def factory({', '.join(code.co_freevars)}):\n" if indented else ""
    if code.co_freevars and not indented:
        return None
    first = max(first, 1)
    return Source(first, first + len(lines) - 1, tuple(lines), header)
