"""`stepgrad doctor`: exit status, what it prints and writes, and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import stepgrad as sg
from stepgrad.cli.doctor import doctor
from stepgrad.errors import FileError

app = typer.Typer()
app.command()(doctor)


def recorded(path: Path, *, rate: float) -> Path:
    """A saved run of a small regression."""
    X = np.random.default_rng(0).standard_normal((128, 3)).astype(np.float32)
    model = sg.nn.Linear(3, 1, key=0)
    optimizer = sg.optim.SGD(model.parameters(), lr=rate)
    health = sg.health(model, sg.losses.mse, optimizer, every=2)
    targets = X[:, :1] - X[:, 1:2]
    sg.fit(model, sg.losses.mse, optimizer, (X, targets), epochs=8, callbacks=[health], progress=False)
    health.save(path)
    return path


def test_a_healthy_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(recorded(tmp_path / "run.json", rate=0.1))])
    assert result.exit_code == 0
    assert "nothing was found" in result.output
    assert "Are the gradients right?  yes" in result.output


def test_an_ill_run_and_the_files(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run.json", rate=1.05)  # at 1 the mean squared error of such data just grows
    before = run.read_bytes()
    files = {kind: tmp_path / f"report.{kind}" for kind in ("html", "json", "markdown")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", str(path))]
    result = CliRunner().invoke(app, [str(run), *options])
    assert result.exit_code == 1
    assert "learning-rate-too-high" in files["markdown"].read_text()
    assert "learning-rate-too-high" in files["html"].read_text()
    assert json.loads(files["json"].read_text())
    assert run.read_bytes() == before


def test_the_run_is_not_overwritten(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run.json", rate=0.1)
    result = CliRunner().invoke(app, [str(run), "--json", str(run)])
    assert isinstance(result.exception, FileError)
    assert "also what is read" in str(result.exception)


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_no_run(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    result = CliRunner().invoke(app, [str(path)])
    assert isinstance(result.exception, FileError)
    assert not list(tmp_path.glob("*.html"))
