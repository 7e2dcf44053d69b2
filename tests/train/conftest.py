"""Running the command line inside the test process, and tables to run it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stepgrad import cli


@dataclass(frozen=True)
class Done:
    """Exit code and output; `told` is the output with every run of blanks and line ends as one blank."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        return " ".join(self.out.split())


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs `stepgrad …`, as the console script does, and returns exit code and output."""

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["stepgrad", *map(str, words)])
        monkeypatch.setattr(cli, "COMMANDS", ("train", "predict"))
        monkeypatch.setattr(cli.app, "registered_commands", [])
        code = 0
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Three kinds that two measures tell apart, 90 rows."""
    rng = np.random.default_rng(0)
    lines = ["length,width,kind"]
    for i in range(90):
        k = i % 3
        lines.append(f"{rng.normal(3 * k, 0.5):.3f},{rng.normal(-2 * k, 0.5):.3f},{['rose', 'lily', 'iris'][k]}")
    path = tmp_path / "flowers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    """A price that depends on a size, with gaps, and on a town; an identifier and a constant beside them; 300 rows."""
    rng = np.random.default_rng(1)
    lines = ["id,size,town,country,price"]
    towns = {"Ulm": 1.0, '"Cologne, South"': 1.8, "": 1.3}
    for i in range(300):
        size, town = rng.uniform(30, 200), list(towns)[rng.integers(3)]
        shown = "NA" if rng.random() < 0.05 else f"{size:.1f}"
        lines.append(f"H{i:04d},{shown},{town},DE,{2000 * size * towns[town] + rng.normal(0, 5000):.0f}")
    path = tmp_path / "houses.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
