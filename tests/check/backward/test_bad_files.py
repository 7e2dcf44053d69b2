"""`stepgrad check FILE.py` on files that raise, loop, print, read, exit, or need something."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stepgrad.check.backward.limits import limited
from stepgrad.cli.check import check
from stepgrad.errors import StepgradError

START = """import numpy as np
INPUTS = {"x": np.linspace(-1, 1, 12).reshape(4, 3), "w": np.linspace(0, 1, 6).reshape(3, 2)}
scale = 1.0
"""
PASSES = """
def forward(x, w):
    z = x @ w
    return scale * np.sum(z ** 2), z
def backward(x, w, z):
    dx = 2 * scale * z @ w.T
    dw = 2 * scale * x.T @ z
    return dx, dw
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def call(file: Path, code: str, *options: Any) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    file.write_text(code)
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, [str(file), *map(str, options)])
    if isinstance(result.exception, StepgradError):
        return 2, "", str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_what_a_file_prints_is_kept_apart(file: Path) -> None:
    code = START + "print('epoch 1')\n" + PASSES.replace("    z = x", "    print('forward')\n    z = x")
    status, report, told = call(file, code)
    assert status == 0, report + told
    assert "epoch" not in report + told
    assert "forward\n" not in report
    assert "mine.py printed " in told
    assert "--output shows what" in told
    status, report, told = call(file, code, "--output")
    assert "epoch 1\nforward\n" in told
    assert "epoch" not in report


def test_files_are_read_from_the_folder_and_arguments_from_the_option(file: Path) -> None:
    (file.parent / "scale.txt").write_text("3.0")
    code = (
        START + "import sys\nscale = float(open('scale.txt').read()) * float(sys.argv[1]) + len(sys.argv[2])\n" + PASSES
    )
    before = os.getcwd(), list(sys.argv)
    status, report, told = call(file, code, "--args", "2 'a b'")
    assert status == 0, report + told
    assert (os.getcwd(), sys.argv) == before
    assert file.read_text() == code
    assert sorted(p.name for p in file.parent.iterdir()) == ["mine.py", "scale.txt"]


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("while True:\n    pass\n", ["was still running after 1 seconds at mine.py:", "while True:", "--seconds"]),
        (
            START + "def forward(x, w):\n    while True:\n        x = x + 1\ndef backward(x, w):\n    return x\n",
            ["still running after 1 seconds at mine.py:", " in forward: ", "if __name__ == '__main__'"],
        ),
        (
            START + "import os\ndef forward(x, w):\n    os._exit(3)\ndef backward(x, w):\n    return x\n",
            ["mine.py ended its process with status 3"],
        ),
        ("import ctypes\nctypes.string_at(0)\n", ["mine.py ended its process with signal SIGSEGV"]),
        ("n = int(input())\n", ["raised EOFError", "mine.py:1: n = int(input())", "write the values in the file"]),
        (
            "import argparse\np = argparse.ArgumentParser()\np.add_argument('n')\np.parse_args()\n",
            ["raised SystemExit: 2", "mine.py:4", "--args"],
        ),
        ("open('nowhere.txt')\n", ["raised FileNotFoundError", "nowhere.txt", "mine.py:1"]),
        ("x = 3\nx += 1\n", ["mine.py was given without a function", "put the passes into functions"]),
        (
            START + PASSES.replace("x @ w", "x @ x"),
            ["forward() raised ValueError", "mine.py:", "z = x @ x", "run `python mine.py`"],
        ),
        (START + PASSES.replace("return scale * np.sum(z ** 2), z", "return None"), ["forward returned nothing"]),
        (START + PASSES.replace("return scale * np.sum(z ** 2), z", "return 'high'"), ["forward returned a str"]),
    ],
)  # fmt: skip
def test_errors_exit_with_2_and_have_three_parts(file: Path, code: str, texts: list[str]) -> None:
    status, report, told = call(file, code, "--seconds", 1 if "while" in code else 60)
    assert status == 2, report + told
    for text in [*texts, "why: ", "instead: "]:
        assert text in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        (PASSES.replace("    return dx, dw\n", ""), ["backward returns nothing", "gradient-missing"]),
        (
            PASSES.replace("return dx, dw", "return {'dx': dx, 'dv': dw}"),
            ["dw is wrong", "dv belongs to no input: is it misspelt?", "gradient-missing"],
        ),
        (PASSES.replace("return dx, dw", "return {'dx': dx, 'dw': dw, 'dq': dw}"), ["dq is wrong", "gradient-extra"]),
        (
            PASSES.replace("return dx, dw", "dw = dw.astype(np.float32)\n    return dx, dw"),
            ["float32", "low-precision"],
        ),
        (
            PASSES.replace("z = x @ w", "z = x @ w + np.random.default_rng().random()"),
            ["forward returns something else each time", "not-deterministic"],
        ),
    ],
)
def test_passes_that_do_not_fit_exit_with_1(file: Path, code: str, texts: list[str]) -> None:
    status, report, told = call(file, START + code)
    assert status == 1, report + told
    for text in texts:
        assert text in report.replace("\n  ", " ")


def test_threads_and_processes_of_a_file_do_not_keep_it(file: Path) -> None:
    started = "import threading, time\nthreading.Thread(target=time.sleep, args=(50,)).start()\n"
    status, report, told = call(file, START + started + PASSES)
    assert status == 0, report + told


def test_errors_keep_their_class(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import stepgrad as sg\ndef f(x):\n    return sg.matmul(x, x)\nINPUTS = {'x': [[1.0, 2.0, 3.0]]}\n")
    request = {"path": str(path), "name": "f", "shapes": {"x": (2, 3)}, "wrt": [], "directions": 8,
               "tolerance": 1e-6, "seed": 0}  # fmt: skip
    with pytest.raises(StepgradError) as caught:
        limited("stepgrad.check.backward.scripted:check_file", request, str(path), [], 60)
    assert type(caught.value).__name__ == "ShapeError"
