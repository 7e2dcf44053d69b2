"""`stepgrad check`: exit status, where arguments come from, and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stepgrad.cli.check import check
from stepgrad.errors import StepgradError

NET = """
import numpy as np
import stepgrad as sg
import helper_of_net

W = sg.Parameter(np.ones((3, 2)), name="W")


def right(X, W, scale=2.0):
    return sg.sum(sg.tanh(X @ W)) * scale


@sg.custom_rule
def squash(x):
    return sg.tanh(x)


@squash.backward
def _(g, out, x):
    return g * (1 - out)


def wrong(X):
    Z = squash(X * 2)
    return sg.mean(Z)


def nearly(X):
    return sg.sum(sg.custom_rule(lambda x: x * 2, lambda g, out, x: g * 2.002)(X))


def no_arguments():
    return sg.sum(W * helper_of_net.FACTOR)


def indexed(x, labels):
    return sg.sum(x[np.arange(3), labels])


def indexed_inputs():
    return {"x": np.eye(3), "labels": np.array([2, 0, 1])}


def from_table(a, *, b):
    return sg.sum(a * b)


INPUTS = {"a": np.ones(2), "b": np.full(2, 3.0), "other": 1}


def raises(X):
    raise KeyError("lost")


def integers_only(a):
    return sg.argmax(a)


def _private(x):
    return x


number = 3
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "helper_of_net.py").write_text("FACTOR = 3.0\n")
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def call(*arguments: Any) -> tuple[int, str]:
    """Exit status and output, as `stepgrad check` gives them."""
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, StepgradError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def test_right_gradients_exit_with_0(net: Path) -> None:
    status, output = call(f"{net}:right", "--shape", "X=4,3", "--shape", "W=3,2")
    assert status == 0, output
    assert "gradients agree: 3 arguments, 19 derivatives compared" in output
    assert f"right in net.py, imported with {net.parent} on sys.path" in output


def test_wrong_gradients_exit_with_1_and_name_the_line(net: Path) -> None:
    status, output = call(f"{net}:wrong", "--shape", "X=4,3")
    assert status == 1
    assert "the local rule of squash" in output
    assert f"net.py:{NET.splitlines().index('    Z = squash(X * 2)') + 1}: Z = squash(X * 2)" in output
    assert f"its backward is at net.py:{NET.splitlines().index('@squash.backward') + 1}" in output


def test_parameters_are_found_without_arguments(net: Path) -> None:
    status, output = call(f"{net}:no_arguments")
    assert status == 0, output
    assert "W  (3, 2)" in output


def test_inputs_come_from_a_function_in_the_file(net: Path) -> None:
    status, output = call(f"{net}:indexed")
    assert status == 0, output
    assert "gradients agree: 1 argument, 9 derivatives" in output


def test_inputs_come_from_a_table_in_the_file(net: Path) -> None:
    status, output = call(f"{net}:from_table")
    assert status == 0, output
    assert "a  (2,)" in output


def test_a_shape_goes_before_the_file(net: Path) -> None:
    status, output = call(f"{net}:from_table", "--shape", "a=5,2")
    assert status == 0, output
    assert "a  (5, 2)" in output


def test_a_single_number_and_one_argument_only(net: Path) -> None:
    options = ("--shape", "X=4,3", "--shape", "W=3,2", "--shape", "scale=", "--wrt", "scale")
    status, output = call(f"{net}:right", *options)
    assert status == 0, output
    assert "1 argument, 1 derivative compared" in output


def test_seed_and_tolerance_are_used(net: Path) -> None:
    options = ("--shape", "X=4,3", "--shape", "W=3,2")
    assert call(f"{net}:right", *options, "--seed", 3) == call(f"{net}:right", *options, "--seed", 3)
    assert call(f"{net}:right", *options)[1] != call(f"{net}:right", *options, "--seed", 4)[1]
    assert call(f"{net}:nearly", "--shape", "X=2,2")[0] == 1
    assert call(f"{net}:nearly", "--shape", "X=2,2", "--tolerance", 0.01)[0] == 0


def test_inputs_may_be_a_tuple(tmp_path: Path) -> None:
    file = tmp_path / "pair.py"
    file.write_text(
        "import numpy as np\ndef f(x, y):\n    return x[0] * x[1] * y\ndef inputs():\n    return np.ones(2), 3.0\n"
    )
    status, output = call(file)  # the only function
    assert status == 0, output
    assert "2 arguments, 3 derivatives" in output


def test_the_file_and_its_folder_stay_as_they_are(net: Path) -> None:
    before = sorted(os.listdir(net.parent)), net.read_bytes(), list(sys.path)
    call(f"{net}:right", "--shape", "X=4,3", "--shape", "W=3,2")
    assert (sorted(os.listdir(net.parent)), net.read_bytes(), list(sys.path)) == before
    assert "net" not in sys.modules


@pytest.mark.parametrize(
    ("target", "options", "texts"),
    [
        ("nowhere.py:f", [], ["nowhere.py can't be imported", "no such file", "net.py:loss"]),
        ("NET:rihgt", [], ["net.py has no function rihgt", "it defines right, wrong", "name one: net.py:right"]),
        ("NET:number", [], ["number is a int"]),
        ("NET", [], ["net.py was given without a function", "it defines right, wrong"]),
        ("NET:right", [], ["right has no value for X, W", "--shape X=3,5 --shape W=3,5", "INPUTS = {'X': …, 'W': …}"]),
        ("NET:right", ["--shape", "Y=3"], ["--shape Y=… gives a value for Y", "parameters X, W, scale"]),
        ("NET:right", ["--shape", "X=3,b"], ["--shape X=3,b can't be read", "--shape X=3,5"]),
        ("NET:right", ["--shape", "X=-1"], ["--shape X=-1 can't be read"]),
        ("NET:right", ["--shape", "X"], ["--shape X can't be read"]),
        ("NET:right", ["--shape", "X=4,3", "--shape", "W=2,3"], ["matmul", "Z", "why"][:1]),
        ("NET:raises", ["--shape", "X=2"], ["raises() raised KeyError: 'lost'", "net.py:", 'raise KeyError("lost")']),
        ("NET:integers_only", [], ["change in steps"]),
        ("NET:right", ["--shape", "X=4,3", "--shape", "W=3,2", "--wrt", "Q"], ["wrt='Q' was asked for"]),
    ],
)
def test_usage_errors_exit_with_2(net: Path, target: str, options: list[str], texts: list[str]) -> None:
    status, output = call(target.replace("NET", str(net)), *options)
    assert status == 2, output
    for text in texts:
        assert text in output
    assert "why: " in output
    assert "instead: " in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("def f(x:\n    pass\n", ["raised SyntaxError", "broken.py:1: def f(x:"]),
        ("import stepgrad as sg\nx = missing\n", ["raised NameError", "broken.py:2: x = missing"]),
        ("raise SystemExit(0)\n", ["raised SystemExit"]),
        ("import not_installed_anywhere\n", ["raised ModuleNotFoundError"]),
        ("x = 1\n", ["without a function", "it defines none"]),
        ("def f(x): return x\ndef inputs(): return 3\n", ["inputs gives a int", "dict by parameter name"]),
        ("def f(x): return x\ndef inputs(): return 1.0, 2.0\n", ["inputs gives 2 values, and f has the parameters x"]),
        ("def f(x): return x\ndef f_inputs(): return {'y': 1.0}\n", ["f_inputs() gives a value for y"]),
        ("def f(x): return x\ndef f_inputs(): return 1 / 0\n", ["f_inputs() raised ZeroDivisionError", "broken.py:2"]),
    ],
)
def test_a_broken_file_is_explained(tmp_path: Path, code: str, texts: list[str]) -> None:
    file = tmp_path / "broken.py"
    file.write_text(code)
    status, output = call(file)
    assert status == 2, output
    for text in texts:
        assert text in output


def test_help_tells_where_arguments_come_from() -> None:
    status, output = call("--help")
    assert status == 0
    for text in ("--shape", "--seed", "--tolerance", "FUNCTION_inputs()", "INPUTS", "Exit status", "never changed"):
        assert text in " ".join(output.split())


def test_the_installed_command(net: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stepgrad.cli", "check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=net.parent, check=False, timeout=60)

    right, wrong, lost = run("net.py:no_arguments"), run("net.py:wrong", "--shape", "X=2,2"), run("net.py:none")
    assert (right.returncode, wrong.returncode, lost.returncode) == (0, 1, 2), (right, wrong, lost)
    assert right.stdout.startswith("gradients agree")
    assert wrong.stdout.startswith("GRADIENTS ARE WRONG")
    assert lost.stderr.startswith("no_arguments") or "net.py has no function none" in lost.stderr
    assert not (net.parent / "__pycache__").exists()
