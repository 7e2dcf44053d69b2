"""Plans: everything that is decided about a program before a single instruction is emitted."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrad.execute.cpu import columns, points, products, rows, specials
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.assignments import freed, last_assignments
from stepgrad.passes.axes import Uneven
from stepgrad.passes.bodies import Body
from stepgrad.passes.buffers import Buffers, plan_tightly
from stepgrad.passes.buffers import plan as plan_buffers
from stepgrad.passes.checks import Check, checks_of, with_checks
from stepgrad.passes.fusion import Fusion
from stepgrad.passes.kinds import Kinds
from stepgrad.passes.layouts import in_steps, layouts, own_outputs
from stepgrad.passes.lowering import Kernel, Lowering
from stepgrad.passes.pipeline import Log, Pass, optimise
from stepgrad.passes.rematerialise import Rematerialised, rematerialise
from stepgrad.passes.scheduling import Step, schedule
from stepgrad.passes.sharing import Split
from stepgrad.passes.sound import verify_plan
from stepgrad.tape.equation import Equation, leaves
from stepgrad.tape.tape import Tape

SMALL = 4e5
"""Programs of fewer floating-point operations than this are run by one thread: waiting for others would take longer."""


@dataclass(frozen=True)
class Plan:
    """A program before it is emitted.

    Attributes:
        tape: what is computed, after all passes.
        log: what the passes changed.
        fusion: which equations are computed together.
        steps: the kernels, in order.
        buffers: where intermediate tensors lie.
        tensors: everything that has an address.
        results: the tensors that are the user's outputs, each once.
        threads: how many threads run it at most.
        scratch: bytes of memory that each thread needs for itself.
        checks: what is looked at before a cell is written: a flag, and what it means.
        rematerialised: what is computed again to save memory, if anything had to be done about it.
    """

    tape: Tape
    log: Log
    fusion: Fusion
    steps: tuple[Step, ...]
    buffers: Buffers
    tensors: tuple[Equation, ...]
    results: tuple[Equation, ...]
    threads: int
    scratch: int
    checks: tuple[tuple[Equation, Check], ...]
    rematerialised: Rematerialised | None


def make_plan(tape: Tape, user_outputs: int, target: Target, threads: int, memory: int | None = None) -> Plan:
    """Decides how a recorded step is computed.

    Args:
        tape: what was recorded.
        user_outputs: how many of its outputs are the user's.
        target: the processor.
        threads: how many may run it.
        memory: bytes that the tensors between kernels may take; None: as many as it takes to be fast.

    Raises:
        BudgetError: they do not fit.
        VerificationError: a pass broke the tape.
    """
    log, count, checks = Log(tape), len(tape.outputs), list[Check]()
    tape = log.run(Pass("assignments", functools.partial(last_assignments, user_outputs=user_outputs)), tape)
    tape = log.run(Pass("checks", functools.partial(checks_of, found=checks)), tape)
    tape, _ = optimise(tape, log)
    tape = log.run(Pass("layouts", layouts), tape)
    tape, fusion, kernels = _lowered(tape, user_outputs, log)
    kernels = with_checks(kernels, _flags(tape, count, fusion), fusion)
    works = {kernel: work(kernel) for kernel in kernels}
    if sum(works.values()) < SMALL:
        threads = 1
    steps = schedule(kernels, lambda kernel: split_of(kernel.body, target, threads), works.__getitem__)
    buffers = plan_buffers(steps, _elsewhere(tape, user_outputs, steps))
    rematerialised = None
    if memory is not None and buffers.size > memory:
        made: dict[Tape, tuple[Tape, Log, Fusion, list[Step], Buffers]] = {}

        def measure(tape: Tape) -> int:
            own = Log(tape)
            fitted, fusion, kernels = _lowered(tape, user_outputs, own)
            kernels = with_checks(kernels, _flags(fitted, count, fusion), fusion)
            steps = schedule(kernels, lambda kernel: split_of(kernel.body, target, threads), work, in_order=True)
            steps, buffers = plan_tightly(steps, _elsewhere(fitted, user_outputs, steps))
            made.clear()
            made[tape] = fitted, own, fusion, steps, buffers
            return buffers.size

        rematerialised = rematerialise(fusion, set(tape.outputs[:user_outputs]), memory, measure)
        log.add("rematerialisation", tape, rematerialised.tape, rematerialised.changes)
        tape, own, fusion, steps, buffers = made[rematerialised.tape]
        log.entries += own.entries
    verify_plan(steps, buffers, _elsewhere(tape, user_outputs, steps))
    return Plan(
        tape,
        log,
        fusion,
        tuple(steps),
        buffers,
        tuple(dict.fromkeys(e for step in steps for e in step.kernel.operands)),
        _results(tape, user_outputs),
        threads,
        max((scratch_of(step.kernel.body, target, threads) for step in steps), default=0),
        tuple(zip(_flags(tape, count, fusion), checks, strict=True)),
        rematerialised,
    )


def _flags(tape: Tape, count: int, fusion: Fusion) -> list[Equation]:
    """What the checks have found: outputs from `count` on; of a view, what it is a view of."""
    return [fusion.base(flag) for flag in tape.outputs[count:]]


def _results(tape: Tape, user_outputs: int) -> tuple[Equation, ...]:
    return tuple(dict.fromkeys(e for e in tape.outputs[:user_outputs] if e.op not in leaves))


def _elsewhere(tape: Tape, user_outputs: int, steps: Sequence[Step]) -> set[Equation]:
    """What has memory of its own: leaves, and what is returned."""
    return {e for step in steps for e in step.kernel.operands if e.op in leaves}.union(_results(tape, user_outputs))


def _lowered(tape: Tape, user_outputs: int, log: Log) -> tuple[Tape, Fusion, list[Kernel]]:
    """The kernels of a tape, and the tape that they were made from."""
    outputs = Pass("outputs", functools.partial(own_outputs, user_outputs=user_outputs))
    while True:
        tape = log.run(outputs, tape)
        fusion = Fusion(tape, Kinds(points.can_emit))
        if fusion.unsettled:
            tape = log.run(Pass("assignments", functools.partial(freed, assignments=fusion.unsettled)), tape)
            continue
        try:
            return tape, fusion, Lowering(fusion).kernels
        except Uneven as found:
            tape = log.run(Pass("axes", functools.partial(in_steps, uneven=found.equations)), tape)


def split_of(body: Body | None, target: Target, threads: int) -> Split | None:
    """How a kernel is shared out; None where NumPy computes it."""
    if body is None:
        return None
    if body.kind == "rows":
        return rows.split_rows(body, products.UNIT)
    if body.kind == "columns":
        return columns.split_columns(body, target)
    if body.kind != "product":
        return specials.split_special(body, target)
    return products.plan(body, target, threads)[2]


def scratch_of(body: Body | None, target: Target, threads: int) -> int:
    """Bytes of memory of its own that a thread needs for a kernel."""
    if body is None or body.kind not in ("rows", "product"):
        return 0
    return rows.scratch_rows(body, target) if body.kind == "rows" else products.scratch_product(body, target, threads)


def work(kernel: Kernel) -> float:
    """About how many floating-point operations a kernel takes."""
    body = kernel.body
    if body is None:
        return 1e3 + max(e.type.size for e in kernel.operands)
    points = float(body.rows * body.reduced * body.inner)
    computed = sum(_COST.get(node[0], 1.0) for node in body.nodes if node[0] not in ("load", "const", "index"))
    return points * (computed + (2.0 * body.matrices.inner if body.matrices is not None else 0.0))


_COST = {"divide": 4.0, "sqrt": 4.0, "exp": 8.0, "log": 8.0, "tanh": 10.0, "pow": 20.0, "constant_power": 10.0}
