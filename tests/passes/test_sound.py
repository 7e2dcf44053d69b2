"""Every rewrite of a plan is verified, and so are its order and its memory: broken ones are found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import stepgrad as sg
from stepgrad.compile.recorded import record_step
from stepgrad.errors import VerificationError
from stepgrad.execute.cpu.plan import Plan, make_plan
from stepgrad.execute.cpu.target import host
from stepgrad.passes.buffers import Buffers
from stepgrad.passes.pipeline import Log
from stepgrad.passes.sound import verify_plan
from stepgrad.tape.equation import leaves
from stepgrad.tape.tape import Tape

A, B = (sg.State(np.ones((3, 4)), name=name) for name in "AB")
W = sg.Parameter(np.ones((5, 3, 4), np.float64), name="W")


def swapped(x: Any, ids: Any) -> Any:
    """Something for every rewrite to do: picks, sums over uneven axes, cells swapped, a leaf returned."""
    a, b = A * 1, B * 1
    loss = sg.sum(np.tanh(W[:, ids] * x[:, ::2]) @ x[0].mT)
    (dW,) = sg.backward(loss, [W])
    A.assign(B)
    B.assign(a)
    W.assign(W - 0.1 * dW)
    return loss, x, np.sum(sg.swapaxes(x, 0, 1)[:, :, 1:], axis=(0, 1)), b


def planned(memory: int | None = None) -> Plan:
    recorded = record_step(swapped, (np.ones((5, 6, 4)), np.array([0, 2, 1])), {}, ("x", "ids"))
    return make_plan(recorded.tape, recorded.user_outputs, host(), 2, memory)


def deep(memory: int | None = None) -> Plan:
    weights = [sg.Parameter(np.ones((8, 8)), name=f"W{i}") for i in range(12)]

    def step(x: Any) -> Any:
        for weight in weights:
            x = np.tanh(x @ weight)
        return sg.backward(sg.sum(x), weights)

    recorded = record_step(step, (np.ones((4, 8)),), {}, ("x",))
    return make_plan(recorded.tape, recorded.user_outputs, host(), 1, memory)


PASSES = [entry.name for entry in planned().log.entries]


def test_all_kinds_of_rewrites_are_in_this() -> None:
    assert {"assignments", "checks", "layouts", "outputs", "axes"} < set(PASSES)
    assert "rematerialisation" in [e.name for e in deep(deep().buffers.size // 2).log.entries]


@pytest.mark.parametrize("name", sorted({*PASSES, "rematerialisation"}))
def test_each_of_them_is_verified(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(log: Any, of: str, before: Tape, after: Tape, changes: Any) -> Tape:
        if of == name:
            after = Tape((*after.equations, after.equations[-1]), after.inputs, after.outputs)
        return add(log, of, before, after, changes)

    add = Log.add
    monkeypatch.setattr(Log, "add", spoilt)
    with pytest.raises(VerificationError, match=f"after the pass '{name}', the tape is broken"):
        deep(3_000) if name == "rematerialisation" else planned()


# --- order and memory


def elsewhere(plan: Plan) -> set[Any]:
    return {e for e in plan.tensors if e.op in leaves}.union(plan.results)


def test_a_kernel_that_comes_too_early_is_found() -> None:
    plan = deep()
    verify_plan(plan.steps, plan.buffers, elsewhere(plan))
    with pytest.raises(VerificationError, match="is read before it is computed"):
        verify_plan(plan.steps[::-1], plan.buffers, elsewhere(plan))


def test_memory_that_is_used_twice_is_found() -> None:
    plan = deep()
    offsets, lives = plan.buffers.offsets, plan.buffers.lives
    one, other = next(
        (a, b) for a in offsets for b in offsets if a is not b and lives[a][0] <= lives[b][0] <= lives[a][1]
    )
    for broken in (
        dataclasses.replace(plan.buffers, offsets={**offsets, other: offsets[one]}),
        dataclasses.replace(plan.buffers, size=plan.buffers.size - 1),
    ):
        with pytest.raises(VerificationError, match="is that of another tensor"):
            verify_plan(plan.steps, broken, elsewhere(plan))
    with pytest.raises(VerificationError, match="has no memory"):
        verify_plan(plan.steps, Buffers({}, 0, {}), elsewhere(plan))
