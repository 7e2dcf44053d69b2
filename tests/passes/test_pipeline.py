"""The whole pipeline on training steps: the same outputs, less work, and a log that says what happened."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tapes import apply, assert_same_bits, ops_of, record_call

import stepgrad as sg
from stepgrad.errors import VerificationError
from stepgrad.execute.numpy import run
from stepgrad.passes.common import common
from stepgrad.passes.dead import dead
from stepgrad.passes.decompose import REWRITES as COMPOSITES
from stepgrad.passes.pipeline import PIPELINE, Pass, optimise
from stepgrad.passes.rewriting import Changes, Rewrite, copied, rewrite
from stepgrad.tape.equation import Equation, Role
from stepgrad.tape.op import Op, type_of
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify

GOLDEN = Path(__file__).parent / "golden"


class Attention(sg.nn.Module):
    """One head over embedded words, with what comes later left out."""

    def __init__(self, dtype: Any) -> None:
        self.words = sg.nn.Embedding(10, 6, key=1, dtype=dtype)
        self.query, self.key, self.read = (sg.nn.Linear(6, n, key=n, dtype=dtype) for n in (5, 5, 10))
        self.norm = sg.nn.LayerNorm(6, dtype=dtype)
        self.dtype = dtype

    def forward(self, ids: Any) -> Any:
        x = self.norm(self.words(ids))
        scores = self.query(x) @ self.key(x).mT / self.dtype(np.sqrt(5))
        earlier = sg.softmax(sg.where(np.tril(np.ones((4, 4), bool)), scores, -np.inf))
        return self.read(sg.gelu(earlier @ x) + x)


def layers(dtype: Any, *between: sg.nn.Module, out: int = 4) -> sg.nn.Sequential:
    return sg.nn.Sequential(
        sg.nn.Linear(8, 16, key=1, dtype=dtype), *between, sg.nn.Linear(16, out, key=2, dtype=dtype)
    )


STEPS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "cross entropy, Adam": (lambda d: layers(d, sg.nn.ReLU()), sg.losses.cross_entropy, sg.optim.Adam),
    "mse, momentum": (
        lambda d: layers(d, sg.nn.Tanh()),
        lambda p, y: sg.losses.mse(p, np.eye(4, dtype=p.dtype)[[0, 1, 3, 2, 2]]),
        lambda p: sg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "layer norm, dropout, AdamW": (
        lambda d: layers(d, sg.nn.LayerNorm(16, dtype=d), sg.nn.GELU(), sg.nn.Dropout(0.3, key=3)),
        sg.losses.cross_entropy,
        lambda p: sg.optim.AdamW(p, lr=0.1),
    ),
    "yes or no, RMSprop": (
        lambda d: layers(d, sg.nn.SiLU(), out=4),
        lambda p, y: sg.losses.binary_cross_entropy(p, np.eye(4, dtype=p.dtype)[[0, 1, 3, 2, 2]]),
        sg.optim.RMSprop,
    ),
    "attention, Adam": (
        Attention,
        lambda p, y: sg.losses.cross_entropy(p, np.array([[1, 2, 3, 4]] * 2)),
        lambda p: sg.optim.Adam(p, weight_decay=0.01, amsgrad=True),
    ),
}


def training_step(name: str, dtype: Any, clipped: bool = False) -> tuple[Tape, Any]:
    make, loss_of, optimizer_of = STEPS[name]
    model = make(dtype)
    optimizer = optimizer_of(model.parameters())

    def step(x: Any, y: Any) -> Any:
        loss = loss_of(model(x), y)
        gradients = sg.backward(loss, model.parameters())
        if clipped:
            gradients, _ = sg.optim.clip_by_norm(gradients, 0.1)
        optimizer.step(gradients)
        return loss

    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (2, 4)) if make is Attention else rng.normal(size=(5, 8)).astype(dtype)
    return record_call(step, x, np.array([0, 1, 3, 2, 2]))


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_gives_the_same(name: str, dtype: Any, clipped: bool) -> None:
    before, values = training_step(name, dtype, clipped)
    after, log = optimise(before)
    assert after.inputs == before.inputs
    assert len(after.outputs) == len(before.outputs)
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    for one, other in zip(run(before, values), run(after, values), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance)
    assert not set(ops_of(after)) & {name for kind in COMPOSITES for name in kind.ops}
    assert [entry.name for entry in log.entries] == [step.name for step in PIPELINE]
    assert log.entries[-1].after == len(after)


@pytest.mark.parametrize("name", STEPS)
def test_a_second_time_changes_nothing(name: str) -> None:
    once, _ = optimise(training_step(name, np.float32)[0])
    twice, log = optimise(once)
    assert repr(twice) == repr(once), str(log)


def test_the_log_and_the_tape_read_well() -> None:
    before, _ = training_step("cross entropy, Adam", np.float32)
    after, log = optimise(before)
    for name, text in (("log.txt", str(log)), ("tape.txt", repr(after))):
        file = GOLDEN / name
        text = re.sub(r"# line \d+", "# line N", text)
        assert text == file.read_text(encoding="utf-8").rstrip("\n"), f"if it reads better now, write it to {file}"


def _reversed(tape: Tape) -> Tape:
    return Tape(tape.equations[::-1], tape.inputs, tape.outputs)


def _doubled(tape: Tape) -> Tape:
    return Tape((*tape.equations, tape.equations[0]), tape.inputs, tape.outputs)


def _shortened(tape: Tape) -> Tape:
    return Tape(tape.equations[:-1], tape.inputs, tape.outputs)


def _mistyped(tape: Tape) -> Tape:
    last = copied(tape.equations[-1], tape.equations[-1].inputs, None)
    last.type = type_of((7,), last.type.dtype)
    return Tape((*tape.equations[:-1], last), tape.inputs, (last,))


def _misplaced(tape: Tape) -> Tape:
    last = copied(tape.equations[-1], tape.equations[-1].inputs, tape.equations[0])
    return Tape((*tape.equations[:-1], last), tape.inputs, (last,))


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (_reversed, "it reads exp, which is not computed before it"),
        (_doubled, "it stands on the tape twice"),
        (_shortened, "it is an output, but is not computed"),
        (_mistyped, r"it is marked float64\[7\], but its op infers float64\[3\]"),
        (_misplaced, "it was emitted by a local rule, but has the role forward"),
    ],
)
def test_a_pass_that_breaks_the_tape_is_found(broken: Any, what: str) -> None:
    tape, _ = record_call(lambda x: sg.exp(x) * 2, np.ones(3))
    step = Pass("wrong", lambda tape, changes: broken(tape))
    with pytest.raises(VerificationError, match=f"after the pass 'wrong', the tape is broken at: (.|\n)*{what}"):
        optimise(tape, passes=(*PIPELINE[:2], step))


def test_what_was_found_right_is_not_inferred_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tape, _ = record_call(lambda x: sg.exp(x) * 2 + sg.sin(x), np.ones(3))
    inferred: list[str] = []
    signature = Op.signature

    def counted(op: Op, types: Any, params: Any) -> Any:
        inferred.append(op.name)
        return signature(op, types, params)

    monkeypatch.setattr(Op, "signature", counted)
    sound: set[Equation] = set()
    verify(tape, sound)
    assert sorted(inferred) == sorted(ops_of(tape))
    verify(tape, sound)
    assert len(inferred) == len(tape)
    last = copied(tape.equations[-1], tape.equations[-1].inputs, None)
    verify(Tape((*tape.equations[:-1], last), tape.inputs, (last,)), sound)
    assert inferred[len(tape) :] == ["add"]


def test_a_replacement_of_another_type_is_refused() -> None:
    tape, _ = record_call(lambda x: sg.sum(sg.exp(x)), np.ones(3))
    kind = Rewrite("the operand for the sum", "it is not")
    with pytest.raises(VerificationError, match="'the operand for the sum' put"):
        rewrite(tape, lambda e, inputs: (kind, inputs[0]) if e.op.name == "sum" else None, Changes())


# --- common subexpressions


def test_what_is_computed_twice_is_computed_once() -> None:
    tape, values = record_call(lambda x, y: (x * y + 1) / (y * x + 1) - sg.sum(x * y, 0), np.ones(3), np.arange(3.0))
    after, made = apply(common, tape)
    assert ops_of(after) == ["multiply", "add", "divide", "sum", "expand", "subtract"]
    assert len(made) == 3
    assert_same_bits(tape, after, values)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x + 1, x + 1.0, x + True],
        lambda x: [x * 0.0, x * -0.0],
        lambda x: [x - 1, 1 - x],
        lambda x: (lambda y: [sg.maximum(x, y), sg.maximum(y, x)])(-x),  # which zero is the larger?
        lambda x: [sg.sum(x, 0), sg.sum(x, 1), sg.sum(x, 0, keepdims=True)],
        lambda x: [sg.random.uniform(sg.random.key(1), (2,)), sg.random.uniform(sg.random.key(2), (2,))],
    ],
)
def test_what_differs_stays_apart(function: Any) -> None:
    tape, values = record_call(function, np.ones((2, 2)))
    after, _ = apply(common, dead(tape, Changes()))
    for one, other in zip(tape.outputs, after.outputs, strict=True):
        assert one is other
    assert_same_bits(tape, after, values)


def test_equal_constants_and_keys_are_one() -> None:
    def twice(x: Any) -> Any:
        noise = [sg.random.uniform(sg.random.key(1), (3,)) for _ in range(2)]
        return (x + np.arange(3.0)) * (x + np.arange(3.0)) * (noise[0] - noise[1])

    tape, values = record_call(twice, np.ones(3))
    after, _ = apply(common, tape)
    assert [ops_of(after).count(name) for name in ("random_uniform", "add")] == [1, 1]
    assert_same_bits(tape, after, values)


def test_assignments_are_never_merged() -> None:
    one, other = sg.State(np.zeros(3)), sg.State(np.zeros(3))

    def assign(x: Any) -> Any:
        one.assign(x * 2)
        other.assign(x * 2)
        one.assign(x * 2)
        return x.sum()

    tape, _ = record_call(assign, np.ones(3))
    after, _ = apply(common, tape)
    assert ops_of(after).count("assign") == 3
    assert ops_of(after).count("multiply") == 1


def test_a_checkpoint_is_still_recomputed() -> None:
    def loss_of(x: Any, w: Any) -> Any:
        loss = sg.sum(sg.checkpoint(lambda h: sg.tanh(sg.tanh(h @ w) @ w))(x) ** 2)
        return loss, sg.backward(loss, w)

    tape, values = record_call(loss_of, np.ones((2, 3)), np.eye(3) / 2)
    after, _ = optimise(tape)
    tanhs = [e.role for e in after if e.op.name == "tanh"]
    assert tanhs.count(Role.FORWARD) == 2
    assert tanhs.count(Role.BACKWARD) >= 1
    for one, other in zip(run(tape, values), run(after, values), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12)


# --- dead code


def test_what_no_output_needs_is_left_out() -> None:
    cell = sg.State(np.zeros(3))

    def function(x: Any, y: Any) -> Any:
        sg.exp(sg.exp(x))
        cell.assign(y * 2)
        return x + 1

    tape, values = record_call(function, np.ones(3), np.ones(3))
    after, made = apply(dead, tape)
    assert ops_of(after) == ["multiply", "assign", "add"]
    assert made == ["left out", "left out"]
    assert after.inputs == tape.inputs
    assert_same_bits(tape, after, values)


def test_a_long_chain_does_not_overflow_the_stack() -> None:
    def chain(x: Any) -> Any:
        for _ in range(5000):
            x = sg.relu(-x)
        return x

    tape, values = record_call(chain, np.ones(2))
    after, _ = optimise(tape)
    assert len(after) == 10_000
    assert_same_bits(tape, after, values)
