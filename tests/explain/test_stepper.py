"""The stepper: where keys lead, what is drawn, and a walk in a real terminal."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from examples import ALL, loop, not_finite, two_layers
from typer.testing import CliRunner

from stepgrad.cli.explain import explain
from stepgrad.errors import ArgumentError
from stepgrad.explain.document import Document, document
from stepgrad.explain.keys import name_of
from stepgrad.explain.stepper import Stepper, draw, fitted


def pressed(state: Stepper, *keys: str) -> Stepper:
    for key in keys:
        after = state.press(key)
        assert after is not None
        state = after
    return state


def screen(state: Stepper, width: int = 100, height: int = 40) -> str:
    return "\n".join(line.plain for line in draw(state, width, height))


@pytest.fixture(scope="module")
def lesson() -> Document:
    return document(two_layers())


@pytest.mark.parametrize(
    ("keys", "position"),
    [
        (["right", "j", "space", "l", "down"], 5),
        (["end"], 10),
        (["end", "right"], 10),
        (["left"], 0),
        (["G", "k", "h", "up", "left", "backspace"], 5),
        (["end", "home"], 0),
        (["right", "g"], 0),
        (["right", "n", "o", "x", "unknown"], 1),
    ],
)
def test_where_keys_lead(lesson: Document, keys: list[str], position: int) -> None:
    assert pressed(Stepper(lesson), *keys).position == position


@pytest.mark.parametrize("key", ["q", "escape"])
def test_ending(lesson: Document, key: str) -> None:
    assert Stepper(lesson).press(key) is None


def test_a_forward_step(lesson: Document) -> None:
    shown = screen(Stepper(lesson, 1), width=120)
    assert "forward pass, step 1  (1 of 10)" in shown
    assert "Z1 = W1 @ X + b1  (4, 5)  saved, for the backward of step 2" in shown
    assert "▼   1  Z1 = W1 @ X + b1" in shown
    assert "cache 160 B of 440 B   Z1" in shown
    assert "0.42" not in shown


def test_a_backward_step(lesson: Document) -> None:
    shown = screen(pressed(Stepper(lesson, 8), "n", "o"), height=60)
    assert "▲   3" in shown
    assert "dZ2 (1, 5)  from step 4" in shown
    assert "A1 (4, 5)  saved by step 2" in shown
    assert "dA1 = W2.T @ dZ2  (4, 5)  to step 2" in shown
    assert "can be freed now: A1" in shown
    assert "0.42" in shown
    assert "matmul's rule 2" in shown
    assert "matmul's rule 2" not in screen(Stepper(lesson, 8), height=60)


@pytest.mark.parametrize("made", ALL)
@pytest.mark.parametrize(("width", "height"), [(100, 30), (60, 12), (20, 7), (1, 1), (300, 100)])
def test_it_fits_the_screen_everywhere(made: Any, width: int, height: int) -> None:
    found = document(made())
    count = len(found["walk"])
    for position in {0, 1, count // 2, count}:
        state = Stepper(found, position, numbers=True, opened=True, scroll=3)
        lines = draw(fitted(state, width, height), width, height)
        assert len(lines) <= height
        assert all(line.cell_len <= width for line in lines)


def test_scrolling_ends_at_the_last_line(lesson: Document) -> None:
    state = pressed(Stepper(lesson, 8, numbers=True), *["page down"] * 50)
    state = fitted(state, 100, 12)
    assert "can be freed now: A1" in screen(state, height=12)
    assert "more lines" in screen(pressed(state, *["page up"] * 50), height=12)
    assert fitted(Stepper(lesson, 8, scroll=500), 100, 200).scroll == 0


def test_long_walks_show_the_steps_around() -> None:
    found = document(loop(300))
    shown = screen(Stepper(found, 150), height=20)
    assert "150  A = np.tanh(W @ A)" in shown
    assert "200  A" not in shown


def test_numbers_that_are_not_finite() -> None:
    assert "[-inf  nan  inf]" in screen(Stepper(document(not_finite()), 1, numbers=True))


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("\x1b[C", "right"), ("\x1bOD", "left"), ("\x1b[5~", "page up"), ("\x1b[1~", "home"), ("\x1b", "escape"),
        ("\x1b[24~", "unknown"), ("\r", "enter"), (" ", "space"), ("q", "q"), ("\x7f", "backspace"),
    ],
)  # fmt: skip
def test_names_of_keys(sent: str, name: str) -> None:
    assert name_of(sent) == name


def test_without_a_terminal_it_says_so() -> None:
    app = typer.Typer()
    app.command()(explain)
    with pytest.raises(ArgumentError, match="no terminal") as caught:
        CliRunner().invoke(app, ["--step"], catch_exceptions=False)
    assert "--html FILE" in caught.value.instead


def test_the_command_writes_files(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(explain)
    names = {option: tmp_path / f"lesson.{option}" for option in ("json", "html", "svg")}
    arguments = [a for option, file in names.items() for a in (f"--{option}", str(file))]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "Forward pass" not in result.stdout
    assert json.loads(names["json"].read_text(encoding="utf-8"))["function"] == "network"
    assert names["html"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert names["svg"].read_text(encoding="utf-8").startswith("<svg")


# --- in a terminal


class Terminal:
    """`stepgrad explain --step` in a terminal of its own."""

    def __init__(self) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.mine, self.its = pty.openpty()
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.settings = termios.tcgetattr(self.its)
        self.seen = ""
        code = "import sys; sys.argv = ['stepgrad', 'explain', '--step']; from stepgrad.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=self.its, stdout=self.its, stderr=self.its, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def until(self, text: str) -> None:
        """Reads what is drawn until the text is among it."""
        begun = time.monotonic()
        while text not in self.seen:
            assert time.monotonic() - begun < 60, self.seen[-2000:]
            if select.select([self.mine], [], [], 0.2)[0]:
                self.seen += os.read(self.mine, 65536).decode("utf-8", "replace")

    def send(self, keys: str, until: str) -> None:
        self.seen = ""
        os.write(self.mine, keys.encode())
        self.until(until)

    def ends(self) -> int:
        """Its exit code, after the terminal is as it was."""
        import termios

        code = self.process.wait(30)
        assert termios.tcgetattr(self.its) == self.settings
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.mine)
        os.close(self.its)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_walk_in_a_terminal(terminal: Terminal) -> None:
    terminal.until("before the first of 10 steps")
    assert "\x1b[?1049h" in terminal.seen  # the alternate screen
    terminal.send("\x1b[C", "forward pass, step 1")
    terminal.send("\x1b[F", "backward pass, step 1  (10 of 10)")
    terminal.send("\x1b[D", "backward pass, step 2")
    terminal.send("o", "relu")
    terminal.send("q", "\x1b[?1049l")
    assert terminal.ends() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_control_c_and_another_size_in_a_terminal(terminal: Terminal) -> None:
    import fcntl
    import struct
    import termios

    terminal.until("q quit")
    terminal.seen = ""
    fcntl.ioctl(terminal.its, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    terminal.until("─" * 60)
    assert "─" * 61 not in terminal.seen
    terminal.send("\x03", "\x1b[?1049l")
    assert terminal.ends() != 0
