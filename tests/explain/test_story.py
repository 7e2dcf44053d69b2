"""What is printed, as reviewed text. `UPDATE_GOLDEN=1 pytest tests/explain` writes the files anew."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.explain.lesson import PARAMETERS, network, network_inputs
from stepgrad.explain.story import repetitions, story

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Compares with the reviewed text; line numbers of this file do not count."""
    text = re.sub(r"test_story\.py:\d+", "test_story.py", text).rstrip() + "\n"
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    file = GOLDEN / name
    if "UPDATE_GOLDEN" in os.environ:
        file.write_text(text)
    assert text == file.read_text(), f"{name} reads otherwise; if it is meant to, run with UPDATE_GOLDEN=1"


def lesson() -> sg.Trace:
    return sg.trace(network, **network_inputs(), wrt=PARAMETERS)


def spread(*shape: int) -> Any:
    """Numbers that do not depend on a random generator."""
    return np.sin(np.arange(1.0, 1 + np.prod(shape))).reshape(shape)


def recurrent(W: Any, U: Any, b: Any, xs: Any) -> Any:
    h = np.zeros((2, 1))
    for x in xs:
        h = np.tanh(W @ h + U @ x + b)
    return (h * h).sum()


def deep(x: Any, Ws: Any) -> Any:
    for W in Ws:
        z = x @ W
        x = x + np.tanh(z)
    return (x * x).mean()


def test_the_lesson() -> None:
    golden("lesson_story.txt", str(lesson()))
    golden("lesson_cache.txt", str(lesson().cache()))
    golden("lesson_cost.txt", str(lesson().cost()))


def test_the_lesson_as_source() -> None:
    golden("lesson_source.py.txt", lesson().source())


def test_the_lesson_with_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    lesson().show(numbers=True)
    golden("lesson_numbers.txt", capsys.readouterr().out)


def test_an_opened_step(capsys: pytest.CaptureFixture[str]) -> None:
    lesson().show(open=3)
    golden("lesson_open.txt", capsys.readouterr().out)


def test_a_shared_value() -> None:
    golden(
        "recurrent_story.txt", str(sg.trace(recurrent, spread(2, 2), spread(2, 3), spread(2, 1), [spread(3, 1)] * 2))
    )


def test_a_long_network_is_told_once() -> None:
    trace = sg.trace(deep, spread(2, 3), [spread(3, 3) / 4] * 30)
    text = str(trace)
    assert len(trace.steps) == 61
    assert len(text.splitlines()) < 90
    golden("deep_story.txt", text)


def test_modules_and_a_training_step() -> None:
    model = sg.nn.Sequential(sg.nn.Linear(3, 2), sg.nn.ReLU(), sg.nn.Linear(2, 2))
    for parameter in model.parameters().values():
        parameter.assign(spread(*parameter.shape).astype(np.float32))
    optimizer = sg.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        optimizer.step(sg.backward(loss, model.parameters()))
        return loss

    golden("training_story.txt", str(sg.trace(step, spread(4, 3).astype(np.float32), np.array([0, 1, 1, 0]))))


def test_an_opened_step_of_a_long_network_is_not_collapsed() -> None:
    trace = sg.trace(deep, spread(2, 3), [spread(3, 3) / 4] * 30)
    text = story(trace, open=[21])
    assert "z_11 = x_10 @ Ws_10" in text
    assert "matmul's rule 1" in text


def test_in_a_terminal_it_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = str(lesson())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    coloured = str(lesson())
    assert "\x1b[" in coloured
    assert [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()] == plain.splitlines()


def test_steps_as_data() -> None:
    trace = lesson()
    step = trace.steps[2]
    named = lambda equations: [trace.names[e] for e in equations]
    assert (step.number, step.statement.text, step.kind) == (3, "Z2 = W2 @ A1 + b2", "forward")
    assert named(step.inputs) == ["W2", "A1", "b2"]
    assert named(step.outputs) == ["Z2"]
    assert named(step.reads) == ["A1", "W2"]
    assert [g.name for g in step.arrives] == ["dZ2"]
    assert {(g.name, g.kind) for g in step.gives} == {("dW2", "input"), ("db2", "input"), ("dA1", "upstream")}
    assert [e.op.name for e in step.equations] == ["matmul", "expand", "add"]
    assert [e.op.name for e in step.backward if e.op.name != "transpose"] == ["sum", "matmul", "matmul"]
    assert trace.value == pytest.approx(network(**network_inputs()).item())


def test_every_forward_equation_stands_in_one_step() -> None:
    trace = lesson()
    found = [e for s in trace.steps for e in s.equations]
    assert found == list(trace.arranged.forward)
    assert sorted((e for s in trace.steps for e in s.backward), key=lambda e: e.serial) == list(trace.arranged.backward)


def test_no_line_is_longer_than_100_columns() -> None:
    def verbose(a_rather_long_name_for_an_input: Any, another_long_name_for_another_input: Any) -> Any:
        a_result_with_a_name_that_is_so_long_that_it_does_not_fit = (
            a_rather_long_name_for_an_input * another_long_name_for_another_input * another_long_name_for_another_input
        )
        return a_result_with_a_name_that_is_so_long_that_it_does_not_fit.sum()

    text = str(sg.trace(verbose, spread(3), spread(3)))
    assert max(map(len, text.splitlines())) <= 100
    assert "a_result_with_a_name_that_is_so_long" in text


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("aaaaa", [(0, 5, 1)]),
        ("abab", [(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1)]),
        ("abcabcabcabcd", [(0, 4, 3), (12, 1, 1)]),
        ("", []),
    ],
)
def test_repetitions(items: str, expected: list[tuple[int, int, int]]) -> None:
    assert list(repetitions(items)) == expected
