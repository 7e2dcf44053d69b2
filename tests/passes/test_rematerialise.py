"""Steps within a budget of memory: the same bits, never more than the budget, and never more work for more memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tapes import record_call

import stepgrad as sg
from stepgrad.cells import ASSIGN
from stepgrad.compile.recorded import record_step
from stepgrad.errors import BudgetError
from stepgrad.execute.cpu.plan import Plan, make_plan
from stepgrad.execute.cpu.target import host
from stepgrad.execute.numpy import run
from stepgrad.passes.checkpoints import advances
from stepgrad.tape.equation import Role
from stepgrad.tape.verify import verify

WIDTH = 16


class Block(sg.nn.Module):
    """A residual block, with dropout at its end or without."""

    def __init__(self, number: int, dropout: float = 0.0) -> None:
        self.norm = sg.nn.LayerNorm(WIDTH)
        self.up = sg.nn.Linear(WIDTH, 2 * WIDTH, key=2 * number)
        self.down = sg.nn.Linear(2 * WIDTH, WIDTH, key=2 * number + 1)
        self.dropout = sg.nn.Dropout(dropout, key=number) if dropout else None

    def forward(self, x: Any) -> Any:
        h = self.down(sg.gelu(self.up(self.norm(x))))
        return x + (self.dropout(h) if self.dropout else h)


class Attention(sg.nn.Module):
    """One head with what comes later left out, and a residual block."""

    def __init__(self, number: int) -> None:
        self.query, self.key, self.read, self.write = (sg.nn.Linear(WIDTH, WIDTH, key=4 * number + i) for i in range(4))
        self.block = Block(number)

    def forward(self, x: Any) -> Any:
        scores = self.query(x) @ self.key(x).mT / np.float32(4)
        earlier = sg.where(np.tril(np.ones((8, 8), bool)), scores, np.float32(-np.inf))
        return self.block(x + self.write(sg.softmax(earlier) @ self.read(x)))


def chain(count: int, activation: type[sg.nn.Module] = sg.nn.Tanh) -> list[sg.nn.Module]:
    return [m for i in range(count) for m in (sg.nn.Linear(WIDTH, WIDTH, key=i), activation())]


NETWORKS: dict[str, Callable[[], list[sg.nn.Module]]] = {
    "chain": lambda: chain(12),
    "chain of two values a layer": lambda: chain(12, sg.nn.GELU),
    "layer norm": lambda: [m for i in range(8) for m in (*chain(1), sg.nn.LayerNorm(WIDTH))],
    "widths that differ": lambda: [
        m
        for i in range(10)
        for m in (sg.nn.Linear(WIDTH + 4 * (i % 5), WIDTH + 4 * ((i + 1) % 5), key=i), sg.nn.SiLU())
    ],
    "residual": lambda: [Block(i) for i in range(8)],
    "dropout": lambda: [Block(i, 0.25) for i in range(8)],
    "attention": lambda: [Attention(i) for i in range(5)],
}


def training(name: str, optimizer: Any = sg.optim.Adam, penalised: bool = False) -> tuple[Any, Any, Any]:
    """A step, its network and a batch."""
    model = sg.nn.Sequential(*NETWORKS[name]())
    optimizer = optimizer(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.mse(model(x), y)
        if penalised:
            slope = sg.grad(lambda x: sg.sum(model(x)))(x)
            loss = loss + 0.01 * sg.sum(slope * slope)
        optimizer.step(sg.backward(loss, model.parameters()))
        return loss

    rng = np.random.default_rng(0)
    shape = (2, 8, WIDTH) if name == "attention" else (16, WIDTH)
    return step, model, [rng.normal(size=shape).astype(np.float32) for _ in range(2)]


def planned(name: str, memory: int | None = None, **settings: Any) -> Plan:
    step, _, batch = training(name, **settings)
    recorded = record_step(step, batch, {})
    return make_plan(recorded.tape, recorded.user_outputs, host(), 2, memory=memory)


def extra(plan: Plan) -> float:
    """What is computed again, in forward passes."""
    made = plan.rematerialised
    return made.again / made.forward if made is not None else 0.0


def smallest(name: str, **settings: Any) -> int:
    with pytest.raises(BudgetError) as caught:
        planned(name, memory=1, **settings)
    found = re.search(r"memory=(\d+) or more", caught.value.instead)
    assert found
    return int(found[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_training_gives_the_same_bits_in_less_memory(name: str) -> None:
    def trained(memory: int | None) -> tuple[Any, int]:
        step, model, batch = training(name)
        step = sg.compile(step, memory=memory)
        losses = [step(*batch).item() for _ in range(3)]
        assert losses[2] < losses[0]
        values = {k: p.numpy().tobytes() for k, p in model.parameters().items()}
        return (losses, values), step.program.memory().planned

    free, whole = trained(None)
    for budget in (whole // 2, whole // 4, smallest(name)):
        found, size = trained(budget)
        assert size <= budget
        assert found == free


@pytest.mark.parametrize("name", NETWORKS)
def test_more_memory_never_costs_more(name: str) -> None:
    whole, least = planned(name).buffers.size, smallest(name)
    assert least < whole // 3
    before = np.inf
    for budget in np.linspace(least, whole, 9).astype(int):
        plan = planned(name, memory=int(budget))
        assert plan.buffers.size <= budget
        assert extra(plan) <= before
        before = extra(plan)
    assert before == 0
    assert extra(planned(name, memory=least)) > 0.3


def test_without_a_budget_or_with_a_large_one_nothing_changes() -> None:
    free, large = planned("residual"), planned("residual", memory=10**9)
    assert repr(free.tape) == repr(large.tape)
    assert [s.phase for s in free.steps] == [s.phase for s in large.steps]
    assert free.rematerialised is large.rematerialised is None


def test_the_smallest_budget_is_told_and_is_enough() -> None:
    least = smallest("residual")
    assert planned("residual", memory=least).buffers.size == least
    with pytest.raises(BudgetError) as caught:
        planned("residual", memory=least - 1)
    assert str(caught.value) == (
        f"the program's values do not fit into {least - 1:,} bytes\n"
        "  why: some are needed at the same time, even if the others are computed again: "
        f"it takes {least:,} bytes, for at most 16 more forward passes\n"
        f"  instead: use memory={least} or more, or a smaller batch"
    )


@pytest.mark.parametrize("slots", [2, 3, 5, 10, 20, 39])
def test_a_chain_is_run_forward_as_often_as_the_binomial_schedule(slots: int) -> None:
    layers, state = 40, 16 * WIDTH * 4
    model = sg.nn.Sequential(*chain(layers))
    optimizer = sg.optim.SGD(model.parameters(), lr=0.01)

    def step(x: Any) -> None:
        optimizer.step(sg.backward(sg.sum(model(x)), model.parameters()))

    recorded = record_step(step, [np.zeros((16, WIDTH), np.float32)], {})
    # besides the states (the first of which is the argument): one value being computed, and two gradients
    plan = make_plan(recorded.tape, recorded.user_outputs, host(), 1, memory=(slots + 2) * state)
    assert plan.buffers.size <= (slots + 2) * state
    runs = sum(e.op.name == "tanh" for e in plan.tape)
    assert runs == advances(layers, slots) + 1  # the last layer's own run, after which its backward pass begins


def test_at_the_memory_of_square_roots_a_deep_chain_costs_one_more_forward_pass() -> None:
    layers, state = 400, 16 * WIDTH * 4
    model = sg.nn.Sequential(*chain(layers))
    optimizer = sg.optim.SGD(model.parameters(), lr=0.01)

    def step(x: Any) -> None:
        optimizer.step(sg.backward(sg.sum(model(x)), model.parameters()))

    recorded = record_step(step, [np.zeros((16, WIDTH), np.float32)], {})
    plan = make_plan(recorded.tape, recorded.user_outputs, host(), 1, memory=2 * 20 * state)
    assert plan.buffers.size <= 2 * 20 * state
    assert 0 < extra(plan) <= 1


def test_gradients_of_gradients_fit_into_less_memory_and_give_the_same() -> None:
    def trained(memory: int | None) -> tuple[Any, int]:
        step, model, batch = training("chain", penalised=True)
        step = sg.compile(step, memory=memory)
        losses = [step(*batch).item() for _ in range(2)]
        return (losses, {k: p.numpy().tobytes() for k, p in model.parameters().items()}), step.program.memory().planned

    free, whole = trained(None)
    budget = smallest("chain", penalised=True)
    assert budget < 0.6 * whole
    assert trained(budget)[0] == free
    assert extra(planned("chain", penalised=True, memory=budget)) > 0


def test_what_is_computed_again_reads_cells_as_they_were() -> None:
    """A weight that all layers share is written at the end only, and its last value is right."""
    weight = sg.Parameter(np.eye(WIDTH, dtype=np.float32) * 0.9, name="W")

    def step(x: Any) -> Any:
        h = x
        for _ in range(12):
            h = np.tanh(h @ weight)
        loss = sg.sum(h * h)
        weight.assign(weight - 0.01 * sg.backward(loss, {"W": weight})["W"])
        return loss

    x = np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32)

    def trained(memory: int | None) -> tuple[list[float], bytes]:
        weight.assign(np.eye(WIDTH, dtype=np.float32) * 0.9)
        compiled = sg.compile(step, memory=memory)
        losses = [compiled(x).item() for _ in range(3)]
        if memory is not None:
            assert compiled.program.memory().planned <= memory
            assert compiled.program.memory().extra_passes > 0.3
        return losses, weight.numpy().tobytes()

    assert trained(6 * 64 * WIDTH * 4) == trained(None)


@pytest.mark.parametrize("name", ["chain", "residual"])
def test_the_tape_with_reruns_is_well_formed_and_computes_the_same_in_numpy(name: str) -> None:
    step, _, batch = training(name, optimizer=sg.optim.SGD)
    tape, values = record_call(step, *batch)
    outputs = [e for e in tape.outputs if e.op is not ASSIGN]
    plan = make_plan(tape, len(outputs), host(), 1)
    tight = make_plan(tape, len(outputs), host(), 1, memory=plan.buffers.size // 4)
    verify(tight.tape)
    assert tight.rematerialised is not None
    again = [change.new for change in tight.rematerialised.changes.made]
    assert again
    assert all(e is not None and e.role is Role.BACKWARD and e.op is not ASSIGN for e in again)
    assert [e.op.name for e in tight.tape.outputs] == [e.op.name for e in plan.tape.outputs]
    for one, other in zip(run(plan.tape, values), run(tight.tape, values), strict=True):
        assert np.array_equal(one, other)


def test_memory_says_what_it_takes_and_what_it_costs() -> None:
    model = sg.nn.Sequential(*[m for i in range(30) for m in (sg.nn.Linear(128, 128, key=i), sg.nn.Tanh())])
    optimizer = sg.optim.SGD(model.parameters(), lr=0.01)

    @sg.compile(memory="4MB")
    def step(x: Any) -> Any:
        loss = sg.sum(model(x))
        optimizer.step(sg.backward(loss, model.parameters()))
        return loss

    step(np.zeros((512, 128), np.float32))
    memory = step.program.memory()
    assert memory.budget == 4_000_000
    assert 3_000_000 < memory.planned <= 4_000_000
    assert memory.measured is None or abs(memory.measured / memory.planned - 1) < 0.05
    assert memory.extra_passes == memory.again / memory.forward
    assert 0 < memory.extra_passes < 1
    assert memory.cells == 30 * (128 * 128 + 128) * 4 + 8 + 8  # the learning rate's and the step's as well
    assert memory.inputs == 512 * 128 * 4
    assert memory.lives[0].bytes == 512 * 128 * 4
    assert all(0 <= life.first <= life.last < memory.kernels for life in memory.lives)
    text = str(memory)
    assert "budget 4 MB" in text
    assert f"{memory.extra_passes:.2f} forward passes" in text
    assert "tanh" in text
