"""Reading CSV files, and turning columns into numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from stepgrad.errors import DataError, FileError
from stepgrad.train import tables
from stepgrad.train.columns import Categorical, Classes, Numeric, Quantity, choose_columns, choose_target, encode


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(tmp_path: Path, text: str | bytes) -> tables.Table:
    return tables.read(written(tmp_path, text))


def rows(header: str, *lines: str, times: int = 4) -> str:
    return "\n".join([header, *(lines * times)]) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    table = read(tmp_path, f'a{delimiter}b\n1{delimiter}"x{delimiter}y"\n2{delimiter}z\n')
    assert table.columns == {"a": ("1", "2"), "b": (f"x{delimiter}y", "z")}


def test_quotes_newlines_blanks_and_byte_order_mark(tmp_path: Path) -> None:
    table = read(tmp_path, b'\xef\xbb\xbf"a", b\r\n\r\n"two\r\nlines", "12"" screen"\r\n 3 ,4\r\n')
    assert table.columns == {"a": ("two\r\nlines", "3"), "b": ('12" screen', "4")}
    assert table.lines == (4, 5)
    assert table.place(1) == "row 2 (line 5)"


def test_commas_in_numbers_between_semicolons(tmp_path: Path) -> None:
    assert read(tmp_path, "a;b\n1,5;2\n-0,25;3\n").numbers("a") == [1.5, -0.25]
    assert read(tmp_path, 'a,b\n"1,5",2\n').parsed("a") == [None]


def test_missing_values(tmp_path: Path) -> None:
    table = read(tmp_path, "a,b\n,1\nNA,1\nnan,1\nNULL,1\nNone,1\n?,1\nN/A,1\n0,1\n")
    assert np.isnan(table.numbers("a")).tolist() == [True] * 7 + [False]


def test_unnamed_first_column_is_left_out_with_a_notice(tmp_path: Path) -> None:
    table = read(tmp_path, ",a\n0,5\n1,6\n")
    assert list(table.columns) == ["a"]
    assert table.notices == ("the first column has no name: taken for row numbers, and left out",)


@pytest.mark.parametrize(
    ("text", "what", "why", "instead"),
    [
        ("a,b\n1,2\n3\n", "row 2 of .*data.csv (line 3) has 1 field: 3", "names 2 columns", "in double quotes"),
        ("a,b\n1,2,3\n", "row 1 of .*data.csv (line 2) has 3 fields: 1,2,3", "names 2 columns", "contains a comma"),
        ('a,b\n1,"2\n3,4\n', "row 1 of .*data.csv, which begins on line 2, can't be read", "quotes", "close every"),
        ('"a,b\n1,2\n', "the first line of .*data.csv can't be read", "quotes", "close every"),
        ("", "data.csv is empty", "nothing to learn", "first line of column names"),
        (" \n\n", "data.csv is empty", "nothing to learn", "first line of column names"),
        ("1,2\n3,4\n", "the first line of .* is 1, 2", "numbers where the names", "add a first line"),
        ("a,b,a\n1,2,3\n", "two columns named 'a': the 1st and the 3rd", "by their names", "rename one"),
        ("a,b,\n1,2,\n", "column 3 of .* has no name", "name every column", "ends with a separator"),
        (b"a,b\n1,\xe9\n", "line 2 of .* is not UTF-8 text", "byte 0xe9", "iconv -f latin1"),
        ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8 text", "zero bytes", "iconv -f utf-16"),
        (b"PK\x03\x04....", "is not a CSV file", "spreadsheet", "save the sheet as CSV"),
    ],
)
def test_what_can_not_be_read(tmp_path: Path, text: str | bytes, what: str, why: str, instead: str) -> None:
    with pytest.raises((DataError, FileError)) as caught:
        read(tmp_path, text)
    assert re.search(re.sub(r"([()])", r"\\\1", what), caught.value.what)
    assert why in caught.value.why
    assert instead in caught.value.instead


def test_no_such_file_names_what_is_near(tmp_path: Path) -> None:
    written(tmp_path, "a\n1\n")
    with pytest.raises(FileError, match=r"there is no file .*date.csv\n  why: .* it has data.csv\n  instead: check"):
        tables.read(tmp_path / "date.csv")
    with pytest.raises(FileError, match="there is no folder"):
        tables.read(tmp_path / "nowhere" / "data.csv")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is a directory\n  why: one file is read at a time\n  instead: name a file"):
        tables.read(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a\n1\n")
    path.chmod(0)
    with pytest.raises(FileError, match="Permission denied"):
        tables.read(path)


def test_unknown_column_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'Prize'\n  why: its columns are price, size\n  .*mean 'price'"):
        read(tmp_path, "price,size\n1,2\n").column("Prize")


# --- targets


def target_of(table: tables.Table, name: str = "y", task: str = "auto") -> tuple[Classes | Quantity, str]:
    return choose_target(table, name, task, range(len(table)))


def test_text_is_classes(tmp_path: Path) -> None:
    target, why = target_of(read(tmp_path, rows("x,y", "1,yes", "2,no", "3,yes")))
    assert target == Classes("y", ("no", "yes"))
    assert why == "since it holds text"


def test_few_whole_numbers_are_classes_in_order_of_size(tmp_path: Path) -> None:
    table = read(tmp_path, rows("x,y", "1,10", "2,9", "3,9.0"))
    target, why = target_of(table)
    assert target == Classes("y", ("9", "10"))
    assert "2 different whole numbers (otherwise: --task regression)" in why
    assert target.encode(table)[:3].tolist() == [1, 0, 0]


def test_many_numbers_are_a_quantity(tmp_path: Path) -> None:
    table = read(tmp_path, "x,y\n" + "".join(f"1,{i}.5\n" for i in range(12)))
    target, why = target_of(table)
    assert isinstance(target, Quantity)
    assert why.startswith("since it holds 12 different numbers")
    encoded = target.encode(table)
    assert encoded.shape == (12, 1)
    assert encoded.dtype == np.float32
    assert abs(encoded.mean()) < 1e-6
    assert abs(encoded.std() - 1) < 1e-6
    assert target.decode(encoded) == pytest.approx([i + 0.5 for i in range(12)], abs=1e-5)


def test_the_task_can_be_said(tmp_path: Path) -> None:
    table = read(tmp_path, rows("x,y", "1,0", "2,1"))
    assert isinstance(target_of(table, task="regression")[0], Quantity)
    assert isinstance(target_of(table, task="classification")[0], Classes)


@pytest.mark.parametrize(
    ("text", "task", "what", "instead"),
    [
        (
            rows("x,y", "1,2", "1,"),
            "auto",
            "row 2 (line 3) of .* has no value in the target column 'y'",
            "remove the row",
        ),
        (rows("x,y", "1,2", "1,NA"), "auto", "target column 'y': 'NA' means missing", "remove the row"),
        (rows("x,y", "1,a", "2,a"), "auto", "'y' of .* is 'a' in every row", "name another target"),
        (rows("x,y", "1,5", "2,5"), "regression", "'y' of .* is '5' in every row", "name another target"),
        (
            rows("x,y", "1,5", "2,high"),
            "regression",
            "row 2 (line 3) of .* has 'high' in column 'y'",
            "correct the field",
        ),
        (rows("x,y", "1,5", "2,inf"), "auto", "row 2 (line 3) of .* has 'inf' in column 'y'", "leave the field empty"),
        ("x,y\n" + "".join(f"1,t{i}\n" for i in range(20)), "auto", "has 20 different values in 20 rows", "--task reg"),
        (rows("x,z", "1,5"), "auto", "has no column 'y'", "as in the first line"),
    ],
)
def test_targets_that_can_not_be_learned(tmp_path: Path, text: str, task: str, what: str, instead: str) -> None:
    with pytest.raises(DataError) as caught:
        target_of(read(tmp_path, text + text.partition("\n")[2] * 3 if "t1" not in text else text), task=task)
    assert re.search(re.sub(r"([()])", r"\\\1", what), caught.value.what)
    assert instead in caught.value.instead


# --- columns


def columns_of(table: tables.Table, **settings: tuple[str, ...]) -> tuple[dict[str, Numeric | Categorical], list[str]]:
    columns, notices = choose_columns(table, "y", range(len(table)), **settings)
    return {column.name: column for column in columns}, notices


def test_numbers_are_standardised_and_gaps_filled_with_the_median(tmp_path: Path) -> None:
    table = read(tmp_path, "x,y\n1,0\n2,0\n,0\n9,0\n")
    columns, notices = columns_of(table)
    x = np.array([1.0, 2.0, 2.0, 9.0])
    assert columns["x"] == Numeric("x", 2.0, float(x.mean()), float(x.std()))
    assert notices == ["x: 1 missing, filled with the median 2"]
    encoded, _ = encode(table, list(columns.values()))
    assert encoded[:, 0] == pytest.approx((x - x.mean()) / x.std())
    assert encoded.dtype == np.float32


def test_texts_are_one_hot_and_a_missing_one_is_a_category(tmp_path: Path) -> None:
    table = read(tmp_path, "x,y\nb,0\na,0\n,0\nb,0\n")
    columns, _ = columns_of(table)
    assert columns["x"].categories == ("", "a", "b")  # type: ignore[union-attr]
    encoded, notices = encode(table, list(columns.values()))
    assert encoded.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert notices == []
    unseen, notices = encode(read(tmp_path, "x\nc\nd\nc\n"), list(columns.values()))
    assert unseen.tolist() == [[0, 0, 0]] * 3
    assert notices == ["x: 3 rows have a category not seen in training (c, d), read as none"]


def test_statistics_come_from_the_training_rows_only(tmp_path: Path) -> None:
    table = read(tmp_path, "x,t,y\n1,a,0\n3,b,0\n100,c,0\n")
    columns, _ = choose_columns(table, "y", [0, 1])
    assert columns == (Numeric("x", 2.0, 2.0, 1.0), Categorical("t", ("a", "b")))


def test_columns_that_tell_nothing_are_left_out_and_named(tmp_path: Path) -> None:
    text = "id,same,const,gone,x,y\n" + "".join(f"n{i},s,7,,{i},0\n" for i in range(30))
    columns, notices = columns_of(read(tmp_path, text))
    assert list(columns) == ["x"]
    assert notices == [
        "id: 30 different texts, left out (to use it: --categorical id)",
        "same: the same in every row, left out",
        "const: the same in every row, left out",
        "gone: no row has a value, left out",
    ]


def test_ignore_and_categorical(tmp_path: Path) -> None:
    table = read(tmp_path, "zip,x,y\n10,1,0\n20,2,0\n10,3,0\n")
    columns, _ = columns_of(table, ignore=("x",), categorical=("zip",))
    assert columns == {"zip": Categorical("zip", ("10", "20"))}
    with pytest.raises(DataError, match="no column 'zipp'"):
        columns_of(table, ignore=("zipp",))
    with pytest.raises(DataError, match=r"no column to learn from besides 'y'.*\n.*\n.*--ignore"):
        columns_of(table, ignore=("x", "zip"))


def test_only_the_most_frequent_categories_are_kept(tmp_path: Path) -> None:
    texts = [f"c{i}" for i in range(120) for _ in range(3)] + [f"c{i}" for i in range(10)]
    columns, notices = columns_of(read(tmp_path, "x,y\n" + "".join(f"{t},0\n" for t in texts)))
    assert columns["x"].width == 100
    assert notices == ["x: the 100 most frequent of 120 categories"]


@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400", "1e31"])
def test_numbers_too_large(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 \(line 3\) of .* has '{text}' in column 'x'\n.*overflow"):
        columns_of(read(tmp_path, f"x,y\n1,0\n{text},0\n"))


def test_a_text_among_numbers_is_not_taken_for_a_category(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i},0\n" for i in range(15)) + "1O,0\n"
    with pytest.raises(
        DataError, match=r"row 16 \(line 17\) .* '1O' in column 'x'\n.*15 of its 16.*\n.*--categorical x"
    ):
        columns_of(read(tmp_path, text))


def test_a_number_far_from_all_in_training(tmp_path: Path) -> None:
    column = Numeric("x", 0.0, 0.0, 1e-20)
    with pytest.raises(DataError, match=r"row 1 \(line 2\) .* has 1e\+25 in column 'x'\n.*standard deviation of 1e-20"):
        column.encode(read(tmp_path, "x\n1e25\n"))
