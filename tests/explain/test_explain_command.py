"""`stepgrad explain` from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stepgrad.cli.explain import explain
from stepgrad.errors import StepgradError

app = typer.Typer()
app.command()(explain)

NET = """
import numpy as np

def loss(W, x=np.array([1.0, 2.0])):
    y = np.tanh(W @ x)
    return (y * y).sum()

def loss_inputs():
    return {"W": np.array([[1.0, 0.5], [0.25, -1.0]])}

def broken(W):
    return undefined(W)
"""


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(NET)
    return str(file)


def test_without_a_function_it_explains_the_lesson() -> None:
    told = command()
    assert "dW2 = dZ2 @ A1.T" in told
    assert "dZ1 = dA1 * (Z1 > 0)" in told
    assert "dX" not in told


def test_the_source_of_the_lesson_runs() -> None:
    module: dict[str, Any] = {}
    exec(command("--source"), module)
    assert {"forward", "backward"} <= set(module)


def test_views_can_be_asked_for_together() -> None:
    told = command("--cache", "--cost")
    assert told.index("saved for the backward pass") < told.index("Without reuse")
    assert "Forward pass" not in told


def test_numbers_and_opened_steps() -> None:
    told = command("--numbers", "--open", "3")
    assert "[[" in told
    assert "matmul's rule 2" in told


def test_a_function_in_a_file(net: str) -> None:
    told = command(f"{net}:loss")
    assert "y = np.tanh(W @ x)" in told
    assert "loss(W, x)" in told
    assert "dx" not in command(f"{net}:loss", "--wrt", "W")


def test_random_inputs_of_a_shape(net: str) -> None:
    assert "W (3, 2)" in command(f"{net}:loss", "--shape", "W=3,2")
    assert command(f"{net}:loss", "--shape", "W=3,2", "--seed", "1") != command(f"{net}:loss", "--shape", "W=3,2")


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("nothing", [], "has no function nothing"),
        ("broken", ["--shape", "W=2"], "raised NameError: name 'undefined' is not defined"),
        ("broken", [], "has no value for W"),
        ("loss", ["--wrt", "w"], "name one of: W, x"),
    ],
)
def test_what_is_wrong_is_said(net: str, function: str, options: list[str], said: str) -> None:
    with pytest.raises(StepgradError) as caught:
        command(f"{net}:{function}", *options)
    assert said in str(caught.value)


def test_numbers_are_those_of_the_function(net: str) -> None:
    W, x = np.array([[1.0, 0.5], [0.25, -1.0]]), np.array([1.0, 2.0])
    y = np.tanh(W @ x)
    norm = np.linalg.norm(np.outer(2 * y * (1 - y * y), x))
    assert f"norm {norm:.3g}" in command(f"{net}:loss")
