"""Random programs, and every op on its samples, compiled and on the NumPy executor: the same numbers.

`STEPGRAD_EXAMPLES` sets how many random programs are run (default: a few, in seconds).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import MOVES, PICKS, Move, Program
from rounding import allowed

import stepgrad as sg
from stepgrad.compile.recorded import record_step
from stepgrad.errors import BudgetError, StepgradError
from stepgrad.execute.cpu import plan
from stepgrad.execute.cpu.target import host
from stepgrad.ops.registry import registry
from stepgrad.ops.samples import Sample
from stepgrad.tape.equation import CELL
from stepgrad.tree import flatten

EXAMPLES = int(os.environ.get("STEPGRAD_EXAMPLES", "40"))

SMALL = st.sampled_from([1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65])
SIZES = st.one_of(
    st.tuples(SMALL, SMALL, SMALL),
    st.tuples(*[st.sampled_from([0, 1, 2, 17])] * 3),
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([130, 257, 8200, 9000]), st.sampled_from([1, 2, 3])),
    st.tuples(st.sampled_from([513, 600, 1030]), st.sampled_from([1, 3, 17, 33]), st.sampled_from([1, 2, 33])),
    st.tuples(st.sampled_from([65, 100, 128]), st.sampled_from([65, 130, 300]), st.sampled_from([33, 65, 100])),
)
PICK = st.integers(0, 63)
COMMON = ["arithmetic", "reduction", "view", "exact", "product", "assign", "gradient", "layer"]
PROGRAMS = st.builds(
    Program,
    st.sampled_from(["float32", "float64"]),
    SIZES,
    st.lists(
        st.builds(Move, st.sampled_from([*MOVES, *COMMON]), st.tuples(*[PICK] * PICKS)), min_size=2, max_size=15
    ).map(tuple),
    st.lists(PICK, max_size=4).map(tuple),
    st.integers(0, 999),
)


@pytest.fixture(autouse=True)
def threads_for_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small programs, too, are run by as many threads as were asked for."""
    monkeypatch.setattr(plan, "SMALL", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def arrays(result: Any) -> list[np.ndarray]:
    return [np.asarray(x.numpy() if isinstance(x, sg.Tensor) else x) for x in flatten(result)[0]]


def assert_agree(program: Program, threads: int, steps: int = 2, memory: int | None = None) -> None:
    """Runs a program on both executors, from the same state at each step.

    Args:
        memory: percent of the bytes between kernels that it may take; as near to them as can be.
    """
    inputs = program.inputs()
    plain, cells = program.cells(), program.cells()
    reference = sg.compile(program.step(plain), executor="numpy", recheck="never")
    compiled = sg.compile(program.step(cells), executor="cpu", threads=threads, recheck="never")
    if memory is not None:
        compiled = in_less_memory(program, cells, threads, memory)
    for _ in range(steps):
        before = {name: cell.numpy().copy() for name, cell in plain.items()}
        expected, found = arrays(reference(*inputs)), arrays(compiled(*inputs))
        recorded = reference._used.recorded
        tape = recorded.tape
        values = dict(zip(tape.inputs, inputs, strict=True))
        names = {id(cell): name for name, cell in plain.items()}
        values |= {e: before[names[id(e.params["cell"])]] for e in tape.leaves() if e.op is CELL}
        margins = allowed(tape, values)
        for place, one, other in zip(recorded.results, expected, found, strict=True):
            assert_within(other, one, margins[place][1] if place is not None else 0.0)
        after = dict(zip([names[id(cell)] for cell in recorded.written], margins[recorded.user_outputs :], strict=True))
        for name, cell in cells.items():
            assert_within(cell.numpy(), *after.get(name, (before[name], 0.0)))
            settled = np.nan_to_num(np.clip(plain[name].numpy(), -8, 8))
            plain[name].assign(settled)
            cell.assign(settled)


def in_less_memory(program: Program, cells: dict[str, Any], threads: int, percent: int) -> Any:
    """The step compiled with a budget of a part of what it takes, or of the least that it can do with."""

    def made(memory: int | None) -> Any:
        return sg.compile(program.step(cells), executor="cpu", threads=threads, recheck="never", memory=memory)

    plain = sg.compile(program.step(program.cells()), executor="cpu", threads=threads, recheck="never")
    plain(*program.inputs())
    budget = max(64, plain.program.memory().planned * percent // 100)
    recorded = record_step(program.step(cells), program.inputs(), {})
    try:
        plan.make_plan(recorded.tape, recorded.user_outputs, host(), threads, budget)
    except BudgetError as error:
        budget = int(re.findall(r"memory=(\d+)", error.instead)[0])
    return made(budget)


def assert_within(found: np.ndarray, expected: np.ndarray, margin: Any) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    a, b = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~((a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= margin))
    where = tuple(np.argwhere(wrong)[0]) if wrong.any() else ()
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} differ, first at {where}: {a[where]!r}, expected {b[where]!r}, "
        f"within {np.broadcast_to(margin, a.shape)[where]!r}"
    )


def usable(program: Program) -> bool:
    """Whether it records: a few moves ask for what stepgrad refuses, such as -1 in a reshape of nothing."""
    try:
        sg.compile(program.step(program.cells()), executor="numpy")(*program.inputs())
    except StepgradError:
        return False
    return True


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(PROGRAMS, st.sampled_from([1, 2, 3]))
def test_random_programs(program: Program, threads: int) -> None:
    if usable(program):
        assert_agree(program, threads)


@pytest.mark.timeout(300)
@settings(
    max_examples=max(1, EXAMPLES // 3),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(PROGRAMS, st.sampled_from([1, 2]), st.sampled_from([10, 50, 90]))
def test_random_programs_in_less_memory(program: Program, threads: int, percent: int) -> None:
    if usable(program):
        assert_agree(program, threads, memory=percent)


def test_eager_execution_is_the_reference() -> None:
    for seed in range(3):
        moves = tuple(Move(op, (seed, 7 * seed, 3, 1, 2)) for op in ("arithmetic", "layer", "product", "gradient"))
        program = Program("float64", (5, 7, 3), moves, (1, 2, 3), seed)
        eager = arrays(program.step(program.cells())(*[sg.tensor(a) for a in program.inputs()]))
        compiled = arrays(sg.compile(program.step(program.cells()), executor="cpu")(*program.inputs()))
        for one, other in zip(eager, compiled, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-11)


# --- what random programs found, kept


def both(step: Any, *arrays: np.ndarray, **cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a step of (inputs, cells) returns and leaves in the cells, twice over: compiled, and on NumPy."""
    found = []
    for executor in ("cpu", "numpy"):
        own = {name: sg.State(value.copy()) for name, value in cells.items()}
        compiled = sg.compile(lambda *xs, own=own: step(*xs, **own), executor=executor)
        results = [flatten(compiled(*arrays))[0] for _ in range(2)]
        found.append([t.numpy() for row in results for t in row] + [cell.numpy() for cell in own.values()])
    return zip(*found, strict=True)


def test_the_least_budget_that_is_named_is_enough() -> None:
    moves = [("gradient", 49, 33, 20, 34, 28), ("triangle", 45, 6, 48, 37, 43), ("joined", 54, 20, 63, 38, 44)]
    moves += [("reduction", 46, 58, 49, 28, 14), ("gradient", 21, 54, 50, 49, 16), ("exact", 31, 23, 37, 35, 21)]
    program = Program("float32", (100, 130, 65), tuple(Move(op, tuple(picks)) for op, *picks in moves), (), 57)
    assert_agree(program, 2, memory=10)


@pytest.mark.parametrize("n", [3, 64, 200])
@pytest.mark.parametrize("turn", ["reverse rows", "reverse columns", "transpose", "swap", "overwrite"])
def test_cells_in_awkward_orders(turn: str, n: int) -> None:
    def step(x: Any, W: Any, V: Any) -> Any:
        old = W * 1
        if turn == "reverse rows":
            W.assign(W[::-1])
        elif turn == "reverse columns":
            W.assign(W[:, ::-1])
        elif turn == "transpose":
            W.assign(V.T)
            V.assign(old.T)
        elif turn == "swap":
            W.assign(V)
            V.assign(old)
        else:
            W.assign(x)
            W.assign(np.tanh(old) + W)
        return W @ V, old, W * 2

    rng = np.random.default_rng(n)
    x, w, v = (rng.integers(-3, 4, (n, n)).astype(np.float32) for _ in range(3))
    for found, expected in both(step, x, W=w, V=v):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n", [5, 64, 200, 9000])
def test_long_rows_are_walked_in_the_right_order(n: int) -> None:
    def step(x: Any, W: Any) -> Any:
        e = np.exp(W)
        s = np.sum(e, axis=1, keepdims=True)
        twice = W * 2
        late = np.exp(np.tanh(x)) * np.sum(np.tanh(x), axis=1, keepdims=True)  # first needed in the second walk
        W.assign(W - e)  # while the second walk reads W again
        return np.sum(np.square(e + twice - s), axis=1), twice + s, late, sg.broadcast_to(s, W.shape) * 1

    x = np.random.default_rng(n).standard_normal((3, n))
    for found, expected in both(step, x, W=x[::-1].copy()):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("inner", [257, 514, 8200])
@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (5, 5), (2, 17), (33, 7)])
def test_products_cut_into_odd_blocks(inner: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(inner)
    a = rng.integers(-3, 4, (shape[0], inner)).astype(np.float32)
    b = rng.integers(-3, 4, (inner, shape[1])).astype(np.float32)
    np.testing.assert_array_equal(sg.compile(lambda a, b: a @ b)(a, b).numpy(), a @ b)


@pytest.mark.parametrize("shape", [(0, 31), (31, 0), (0, 0), (0,), (2, 0, 3)])
def test_empty_tensors_write_nothing(shape: tuple[int, ...]) -> None:
    def step(x: Any, W: Any) -> Any:
        W.assign(np.flip(W, axis=-1) * 2 + x)
        return np.exp(x), np.sum(x, axis=-1), (x + 1).reshape(tuple(reversed(shape))), sg.concatenate([x, W], axis=0)

    for found, expected in both(step, np.ones(shape, np.float32), W=np.ones(shape, np.float32)):
        np.testing.assert_array_equal(found, expected)


# --- every op


def samples() -> list[Any]:
    return [
        pytest.param(op, sample, dtype, id=f"{op.name}-{i}-{dtype}")
        for op in registry.values()
        for i, sample in enumerate(op.samples)
        for dtype in ("float32", "float64")
    ]


def gradients(op: Any, params: dict[str, Any], arrays: list[Any]) -> Any:
    """A function of the arrays: the op's value, and the gradients of a weighted sum of it where it has any."""
    positions = tuple(i for i, a in enumerate(arrays) if a.dtype.kind == "f" and op.rule(i) is not None)

    def weighted(*xs: Any) -> Any:
        out = op(*xs, **params)
        return sg.sum(out * np.cos(np.arange(out.size)).reshape(out.shape).astype(out.dtype))

    def function(*xs: Any) -> Any:
        out = op(*xs, **params)
        return (out, sg.grad(weighted, wrt=positions)(*xs)) if positions and out.dtype.kind == "f" else out

    return function


@pytest.mark.slow
@pytest.mark.parametrize(("op", "sample", "dtype"), samples())
def test_every_op_and_its_gradient(op: Any, sample: Any, dtype: str) -> None:
    assert_op_agrees(op, sample, dtype)


def assert_op_agrees(op: Any, sample: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    params = sample[-1] if isinstance(sample[-1], dict) else {}
    drawn = [np.asarray(s.draw(rng) if isinstance(s, Sample) else s) for s in sample if not isinstance(s, dict)]
    drawn = [a.astype(dtype) if a.dtype.kind == "f" else a for a in drawn]
    function = gradients(op, params, drawn)
    expected = arrays(sg.compile(function, executor="numpy")(*drawn))
    found = arrays(sg.compile(function, executor="cpu", threads=2)(*drawn))
    rtol = 1e-4 if dtype == "float32" else 1e-10
    for one, other in zip(expected, found, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        size = np.abs(one[np.isfinite(one)]).max(initial=1.0) if one.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(other, one, rtol=rtol if size else 0, atol=rtol * size)


NATIVE = (
    "add argmax clip constant_power divide exp gather logsumexp matmul max mean one_hot softmax sum var where".split()
)


@pytest.mark.parametrize("name", NATIVE)
def test_common_ops_and_their_gradients(name: str) -> None:
    for sample in registry[name].samples:
        assert_op_agrees(registry[name], sample, "float32")
