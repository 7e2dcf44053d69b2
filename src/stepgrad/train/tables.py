"""Reading CSV files: every field as text, every problem with its row and line."""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from stepgrad import files
from stepgrad.errors import DataError, FileError

MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "?"))
"""What counts as a missing value, in lower case."""

LARGEST = 1e30
"""Numbers beyond this are refused: their squares do not fit into float32."""

DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """A CSV file: the text of every field, by column.

    Attributes:
        path: where it was read.
        columns: name -> one text per row, without surrounding blanks.
        lines: the line of the file on which each row ends.
        decimal_comma: "1,5" means 1.5, as in files separated by semicolons.
        notices: what was noticed while reading, for the user.
    """

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: tuple[int, ...]
    decimal_comma: bool = False
    notices: tuple[str, ...] = ()
    _parsed: dict[str, list[float | None]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.lines)

    def __repr__(self) -> str:
        return f"Table({self.path}: {len(self)} rows, columns {', '.join(self.columns)})"

    def place(self, row: int) -> str:
        """`row 17 (line 18)` for a row counted from 0; people count from 1, after the header."""
        return f"row {row + 1} (line {self.lines[row]})"

    def column(self, name: str) -> tuple[str, ...]:
        """The texts of a column.

        Raises:
            DataError: there is no such column; the message lists names that are near.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.path} has no column {name!r}",
                f"its columns are {listed(self.columns)}",
                f"{did_you_mean(name, self.columns)}the name has to be written as in the first line of the file",
            )
        return self.columns[name]

    def numbers(self, name: str) -> list[float]:
        """A column as numbers; NaN where the value is missing.

        Raises:
            DataError: a field is not a number, infinite, or too large for float32.
        """
        values = self.parsed(name)
        for row, value in enumerate(values):
            if value is None:
                raise DataError(
                    f"{self.place(row)} of {self.path} has {self.columns[name][row]!r} in column {name!r}",
                    "the column holds numbers, and this is not one",
                    "correct the field, or leave it empty: a missing number is filled with the column's median",
                )
            if abs(value) > LARGEST:
                raise DataError(
                    f"{self.place(row)} of {self.path} has {self.columns[name][row]!r} in column {name!r}",
                    "a network computes in float32, where such numbers overflow; often they stand for a missing value",
                    "leave the field empty if the value is not known, or use a unit in which it is smaller",
                )
        return cast("list[float]", values)

    def parsed(self, name: str) -> list[float | None]:
        """A column's fields as numbers: NaN where the value is missing, None where it is text."""
        if name not in self._parsed:
            self._parsed[name] = [self._parse(text) for text in self.column(name)]
        return self._parsed[name]

    def _parse(self, text: str) -> float | None:
        if self.decimal_comma and text.count(",") == 1 and "." not in text:
            text = text.replace(",", ".")
        try:
            value = float(text)
        except ValueError:
            return math.nan if is_missing(text) else None
        return None if "_" in text else value  # Python reads 1_000 as a number; nobody writes that into a table


def is_missing(text: str) -> bool:
    return text.lower() in MISSING


def read(path: str | Path) -> Table:
    """Reads a CSV file.

    The first line names the columns. Fields are separated by commas, semicolons, tabs or bars
    (found from the file), may be quoted, and are UTF-8, with or without a byte order mark.

    Raises:
        FileError: the file can't be read, or isn't UTF-8 text.
        DataError: it is empty, has no header, two columns of one name, or a row with too few or
            too many fields; the message says which.
    """
    path = Path(path)
    text = _decoded(path)
    if not text.strip():
        raise DataError(
            f"{path} is empty", "there is nothing to learn from", "write a first line of column names, and rows below"
        )
    delimiter = _delimiter(text)
    records = _records(path, text, delimiter)
    names = [name.strip() for name in next(records)[1]]
    notices = _check_header(path, names)
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, record in records:
        if len(record) != len(names):
            raise _broken_row(path, len(rows), line, record, names, delimiter)
        rows.append(record)
        lines.append(line)
    texts = zip(*rows, strict=True) if rows else ((),) * len(names)
    columns = {name: tuple([t.strip() for t in column]) for name, column in zip(names, texts, strict=True) if name}
    return Table(path, columns, tuple(lines), delimiter == ";", tuple(notices))


def _decoded(path: Path) -> str:
    content = files.read(path)
    if content.startswith(b"PK\x03\x04"):
        raise FileError(
            f"{path} is not a CSV file", "it begins like a spreadsheet or a zip file", "save the sheet as CSV (UTF-8)"
        )
    if b"\x00" in content[:4096]:
        raise FileError(
            f"{path} is not UTF-8 text",
            "it holds zero bytes: it is UTF-16 text, or not text at all",
            f"save it as CSV (UTF-8), or convert it: iconv -f utf-16 -t utf-8 {path} > new.csv",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"line {line} of {path} is not UTF-8 text",
            f"byte {content[error.start]:#04x} can't be read as UTF-8 there",
            f"save it as CSV (UTF-8), or convert it: iconv -f latin1 -t utf-8 {path} > new.csv",
        ) from None


def _delimiter(text: str) -> str:
    """The delimiter by which the first rows agree most on their number of fields."""

    def agreement(delimiter: str) -> tuple[float, int]:
        reader = csv.reader(io.StringIO(text[:100_000], newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            counts = [len(record) for record in itertools.islice(reader, 50) if record]
        except csv.Error:
            return (0.0, 0)
        return (counts.count(counts[0]) / len(counts) if counts[0] > 1 else 0.0, counts[0])

    return max(DELIMITERS, key=agreement)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line on which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows = 0
    start = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                (f"row {rows} of {path}, which begins on line {start}," if rows else f"the first line of {path}")
                + " can't be read",
                f"its quotes do not match ({error})",
                'close every quoted field, and write a quote inside one twice: "12"" screen"',
            ) from None
        start = reader.line_num + 1
        if record:
            rows += 1
            yield reader.line_num, record


def _check_header(path: Path, names: list[str]) -> list[str]:
    """Refuses names that can't tell the columns apart; returns notices."""
    notices = []
    if all(_is_number(name) for name in names):
        raise DataError(
            f"the first line of {path} is {listed(names)}",
            "it has numbers where the names of the columns are expected",
            "add a first line with a name for each column",
        )
    if names[0] == "" and len(names) > 1:
        notices.append("the first column has no name: taken for row numbers, and left out")
    for position, name in enumerate(names):
        if name == "" and position > 0:
            raise DataError(
                f"column {position + 1} of {path} has no name",
                f"the first line has to name every column; it reads {listed(names)}",
                "name it; or, if each line ends with a separator, remove that",
            )
        if name in names[:position]:
            raise DataError(
                f"{path} has two columns named {name!r}: the {ordinal(names.index(name))} and the {ordinal(position)}",
                "columns are told apart by their names",
                "rename one of them in the first line",
            )
    return notices


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _broken_row(
    path: Path, row: int, line: int, record: Sequence[str], names: Sequence[str], delimiter: str
) -> DataError:
    separators = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
    shown = delimiter.join(record)
    shown = shown if len(shown) <= 70 else shown[:69] + "…"
    fields = "1 field" if len(record) == 1 else f"{len(record)} fields"
    return DataError(
        f"row {row + 1} of {path} (line {line}) has {fields}: {shown}",
        f"the first line names {len(names)} columns, and every row must have as many fields",
        f"add or remove fields; a field that contains a {separators[delimiter]} has to stand in double quotes",
    )


# --- how messages speak


def listed(names: Sequence[str] | dict[str, object] | dict[str, tuple[str, ...]], most: int = 8) -> str:
    """`a, b, c and 4 more`."""
    names = [name or "''" for name in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: str, names: Sequence[str] | dict[str, tuple[str, ...]]) -> str:
    """`did you mean 'price'? `, or nothing if no name is near."""
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(repr(lower[n]) for n in near)}? " if near else ""


def ordinal(position: int) -> str:
    """`1st` for 0, and so on."""
    n = position + 1
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def no_target(table: Table) -> DataError:
    """The error for training on a table without saying what to learn."""
    last = next(reversed(table.columns))
    return DataError(
        f"{table.path} is to be trained on, and no target is named",
        f"one of its columns has to be what is predicted: {listed(table.columns)}",
        f"add --target, for example --target {last!r}",
    )
