"""Kernels described: what each computes in the user's words, what it reads and writes, and who waits for whom.

The listing, the log, the profile and the sources all speak of kernels as they are described here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgrad.cells import ASSIGN
from stepgrad.execute.cpu.naming import Names, role_of
from stepgrad.execute.cpu.plan import Plan
from stepgrad.passes.checks import FAULT
from stepgrad.passes.kinds import DTYPES, VIEWS
from stepgrad.passes.scheduling import Step, _touched
from stepgrad.passes.sharing import Part
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, Equation, Role
from stepgrad.tape.op import TensorType


@dataclass(frozen=True)
class Operand:
    """A tensor in memory that a kernel reads or writes.

    Attributes:
        name: what it is called.
        type: its shape and dtype.
        home: where it lives: "input", "cell", "constant", "result", or "at 1,024" bytes of the intermediates.
    """

    name: str
    type: TensorType
    home: str


@dataclass(frozen=True)
class Described:
    """A kernel in the order of the program.

    Attributes:
        name: `k1`, `k2`, …
        title: what it computes, in a line.
        chain: the values that it computes one after the other, by name; the last ones are stored.
        role: forward, backward, update.
        members: its equations.
        reads, writes: tensors in memory.
        shared: how it is shared out among threads.
        barrier: why all threads wait before it; None if they don't.
        flops: floating-point operations, as the tape counts them.
        nbytes: bytes of the tensors that it reads and writes.
        function: the number of its machine function, from 1; 0 where NumPy computes it.
        step: its place in the plan.
        lines: where the user wrote what it computes.
    """

    name: str
    title: str
    chain: tuple[str, ...]
    role: str
    members: tuple[Equation, ...]
    reads: tuple[Operand, ...]
    writes: tuple[Operand, ...]
    shared: str
    barrier: str | None
    flops: int
    nbytes: int
    function: int
    step: Step
    lines: tuple[str, ...]


def describe(plan: Plan, names: Names) -> tuple[Described, ...]:
    """The kernels of a program, in order."""
    functions: dict[object, int] = {}
    barriers = why_barriers(plan, names)
    return tuple(_described(plan, names, i, functions, barriers.get(i)) for i in range(len(plan.steps)))


def _described(plan: Plan, names: Names, i: int, functions: dict[object, int], barrier: str | None) -> Described:
    step = plan.steps[i]
    kernel = step.kernel
    reads, writes = (
        tuple(_operand(plan, names, kernel.operands[k]) for k in sorted(found) if kernel.operands[k] is not FAULT)
        for found in (kernel.reads, kernel.writes)
    )
    is_check = kernel.body is not None and kernel.body.kind == "check"
    members = () if is_check else tuple(kernel.group.members)
    number = 0
    if kernel.body is not None:
        number = functions.setdefault((kernel.body, step.split), len(functions) + 1)
    return Described(
        f"k{i + 1}",
        f"stop if {reads[0].name}" if is_check else _title(step, members, names),
        chain(members, names),
        role_of(members),
        members,
        reads,
        writes,
        _shared(step, plan.threads),
        barrier,
        sum(map(flops, members)),
        sum(operand.type.nbytes for operand in (*reads, *writes)),
        number,
        step,
        tuple(dict.fromkeys(filter(None, (names.where(e) for e in members)))),
    )


def flops(equation: Equation) -> int:
    """Floating-point operations of one equation."""
    if equation.op.cost is not None:
        return int(equation.op.cost(*[e.type for e in equation.inputs], equation.type, **equation.params))
    return equation.type.size if equation.op.elementwise else 0


def home_of(plan: Plan, equation: Equation) -> str:
    """Where a tensor lives."""
    for op in (INPUT, CELL, CONSTANT):
        if equation.op is op:
            return op.name
    offset = plan.buffers.offsets.get(equation)
    return "result" if offset is None else f"at {offset:,}"


def _operand(plan: Plan, names: Names, equation: Equation) -> Operand:
    return Operand(names.of.get(equation, equation.op.name), equation.type, home_of(plan, equation))


def _title(step: Step, members: Sequence[Equation], names: Names) -> str:
    body = step.kernel.body
    parts = ", ".join(dict.fromkeys(names.part(e) for e in members))
    if body is None:
        return f"NumPy {members[0].op.name}: {parts}"
    if body.matrices is not None:
        batch = f"{body.rows} × " if body.rows > 1 else ""
        inner = body.matrices.inner
        return f"product {batch}({body.reduced},{inner}) @ ({inner},{body.inner}): {parts}"
    shape = f"({','.join(map(str, step.kernel.group.domain))})"
    if body.kind == "columns":
        return f"columns of {shape}: {parts}"
    if step.kernel.group.domain == ():
        return f"scalars: {parts}"
    reduces = any(node[0] == "reduce" for node in body.nodes)
    return f"{'rows' if reduces else 'elements' if body.kind == 'rows' else body.kind} of {shape}: {parts}"


def chain(members: Sequence[Equation], names: Names) -> tuple[str, ...]:
    """What a kernel computes one after the other: for each part of it the last value, or the cells it updates."""
    found: dict[str, str] = {}
    cells: dict[str, None] = {}
    for e in members:
        if e.op is ASSIGN:
            cells[names.cell(e)] = None
        elif e.role is not Role.UPDATE:
            part = f"{names.part(e)} {e.scope} {e.role} {names.origin.get(e, e).serial}"
            found[part] = names.of[e]
    return (*found.values(), *([", ".join(cells)] if cells else []))


def _shared(step: Step, threads: int) -> str:
    split, body = step.split, step.kernel.body
    if split is None or body is None:
        return "NumPy, on thread 0"
    if threads == 1:
        return "one thread"
    if body.kind == "check":
        return "every thread"
    if not split.length:
        return f"thread {step.owner} alone"
    things = split.axis
    if body.kind == "rows" and body.rows == 1:
        things = "elements"
    elif body.kind == "product" and body.rows > 1:
        things = "matrices"
    return f"{split.length * split.scale:,} {things} in blocks of {split.unit * split.scale}"


# --- why threads wait


def why_barriers(plan: Plan, names: Names) -> dict[int, str]:
    """For each kernel that all threads wait before, why. A single thread never waits."""
    if plan.threads == 1:
        return {}
    found: dict[int, str] = {}
    recent: dict[Equation, list[tuple[Part | None, bool, int]]] = {}
    for i, step in enumerate(plan.steps):
        touched = _touched(step.kernel, step.split)
        if step.split is not None and not step.split.length:
            touched = {e: (("one", step.owner), writes) for e, (_, writes) in touched.items()}
        if step.barrier:
            reasons: dict[tuple[int, bool, bool], list[str]] = {}
            for e, (part, writes) in touched.items():
                for other, wrote, j in recent.get(e, ()):
                    if (writes or wrote) and (part is None or part != other):
                        name = names.of.get(e, e.op.name)
                        if name not in reasons.setdefault((j, writes, wrote), []):
                            reasons[j, writes, wrote].append(name)
            shown = [_reason(found_names, i, *key) for key, found_names in reasons.items()]
            found[i] = "; ".join(shown[:2]) + (f"; and {len(shown) - 2} more" if len(shown) > 2 else "")
            recent.clear()
        for e, (part, writes) in touched.items():
            recent.setdefault(e, []).append((part, writes, i))
    return found


def _reason(names: list[str], i: int, j: int, writes: bool, wrote: bool) -> str:
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    does = "overwrites" if writes else "reads"
    return f"k{i + 1} {does} {listed}, which k{j + 1} {'wrote' if wrote else 'reads'} in other shares"


# --- what NumPy computes


@dataclass(frozen=True, repr=False)
class Fallback:
    """An equation that NumPy computes, inside of a program.

    Attributes:
        op: the name of its op.
        name: what its result is called.
        line: where the user wrote it; empty where that is not known.
        why: why no kernel computes it.
        type: of its result.
    """

    op: str
    name: str
    line: str
    why: str
    type: TensorType

    def __repr__(self) -> str:
        return f"{self.name}: {self.type} = {self.op}" + (f", {self.line}" if self.line else "") + f": {self.why}"


def fallbacks(plan: Plan, names: Names) -> list[Fallback]:
    """The equations that NumPy computes."""
    found = [step.kernel.group.members[0] for step in plan.steps if step.kernel.body is None]
    return [Fallback(e.op.name, names.of[e], names.where(e), _why(e), e.type) for e in found]


def _why(equation: Equation) -> str:
    others = dict.fromkeys(t.dtype.name for t in _types(equation) if t.dtype not in DTYPES)
    if others:
        return f"kernels have no {' and no '.join(others)} numbers"
    if any(t.size == 0 for t in _types(equation)):
        return "there are no elements to compute with"
    if equation.op.name == "matmul":
        return "only products of floating-point matrices are kernels"
    return f"there is no kernel for {equation.op.name}" + (
        f" of {' and '.join(dict.fromkeys(t.dtype.name for t in _types(equation)))} numbers"
        if equation.op.elementwise
        else ""
    )


def _types(equation: Equation) -> Iterable[TensorType]:
    yield from (e.type for e in equation.inputs if not e.type.weak)
    yield equation.type


# --- why values are stored


def why_stored(plan: Plan, kernels: Sequence[Described], names: Names) -> list[tuple[Operand, str]]:
    """The values that are put into memory between kernels, and why they can't stay in registers."""
    made: dict[Equation, str] = {}
    readers: dict[Equation, list[Described]] = {}
    for kernel in kernels:
        operands = kernel.step.kernel.operands
        for k in sorted(kernel.step.kernel.reads):
            readers.setdefault(operands[k], []).append(kernel)
        for k in sorted(kernel.step.kernel.writes):
            made.setdefault(operands[k], kernel.name)
    found = []
    for equation, maker in made.items():
        if equation.op is CELL or equation is FAULT:
            continue
        reasons = ["returned to the caller"] if equation in plan.results else []
        by = readers.get(equation, [])
        if by:
            first = ", ".join(k.name for k in by[:3]) + (f" and {len(by) - 3} more" if len(by) > 3 else "")
            multiplied = any(_multiplies(k, equation) for k in by)
            reasons.append(f"read by {first}" + (", as a factor of a product" if multiplied else ""))
        found.append((_operand(plan, names, equation), f"made by {maker}, " + "; ".join(reasons or ["read by nobody"])))
    return found


def _multiplies(kernel: Described, equation: Equation) -> bool:
    for member in kernel.members:
        if member.op.name == "matmul":
            for source in member.inputs:
                while source.op.name in VIEWS:
                    source = source.inputs[0]
                if source is equation:
                    return True
    return False
