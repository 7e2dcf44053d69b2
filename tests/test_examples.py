"""Every example runs: doctests in docstrings, and the code blocks of README and docs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepgrad as sg

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def modules() -> list[str]:
    found = ["stepgrad"]
    found += [m.name for m in pkgutil.walk_packages(sg.__path__, "stepgrad.")]
    return [name for name in found if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in finder.find(module, name, extraglobs={"sg": sg, "np": np, "Tape": sg.Tape}):
        runner.run(test, out=lambda text: print(text, end=""))
    assert not runner.failures


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(page, number, text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if kind == language
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_source_is_what_stands_in_the_file(page: Path) -> None:
    for file, text in re.findall(r"^```python file=(\S+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        assert text in (ROOT / file).read_text(encoding="utf-8"), f"{file} no longer has:\n{text}"


@pytest.mark.parametrize(("page", "number", "text"), blocks("python"))
def test_python_blocks(page: Path, number: int, text: str, tmp_path: Path) -> None:
    """Each block runs on its own, in an empty folder."""
    script = tmp_path / "example.py"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "number", "text"), blocks("console"))
def test_terminal_captures(page: Path, number: int, text: str) -> None:
    """`$ command` prints what stands below it; `...` stands for any lines."""
    first, _, shown = text.partition("\n")
    command = first.removeprefix("$ ").split()
    assert command[0] == "stepgrad"
    done = subprocess.run([sys.executable, "-m", "stepgrad.cli", *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    position = 0
    for part in re.split(r"^\.\.\.$\n?", shown, flags=re.M):
        found = printed.find(part.strip("\n"), position)
        assert found >= 0, f"not printed, or not in this order:\n{part}\nby {first}:\n{printed}"
        position = found + len(part.strip("\n"))


@pytest.mark.parametrize(("page", "number", "text"), blocks("pycon"))
def test_console_blocks(page: Path, number: int, text: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    test = doctest.DocTestParser().get_doctest(text, {"sg": sg, "np": np}, page.name, str(page), 0)
    result = doctest.DocTestRunner(optionflags=flags).run(test, out=lambda text: print(text, end=""))
    assert not result.failed
