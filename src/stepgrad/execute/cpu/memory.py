"""Memory: what a program takes, what was computed again to take less, and what takes most. For `program.memory()`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepgrad.execute.cpu.naming import Names
from stepgrad.execute.cpu.plan import Plan
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, Equation
from stepgrad.tape.layout import count_text, plural, size_text, table

_MOST_SHOWN = 8


@dataclass(frozen=True)
class Life:
    """A tensor in planned memory.

    Attributes:
        name: what it is called.
        bytes: its size.
        first, last: the numbers of the kernels between which it is needed, from 0.
    """

    name: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, repr=False)
class Memory:
    """What a program takes, in bytes. Print it.

    A budget, `sg.compile(…, memory=…)`, is for the values between kernels: `planned`. The rest is there anyway.

    Attributes:
        budget: what it was to be planned in; None without one.
        planned: the block that all values between kernels lie in: the peak of what is needed at once.
        measured: how much of that block the operating system has really given so far, in whole pages: run
            the program once before. None where it can't be asked.
        scratch: of all threads.
        cells, inputs, constants, results: parameters and states; arguments; arrays that are built in;
            what a call returns.
        kernels: how many kernels a step runs.
        again: floating-point operations that are done again.
        forward: floating-point operations of the forward pass.
        recomputed: the name of each value that is computed again, and how often.
        lives: the tensors in planned memory: the largest first, and of equal ones those that are needed for longest.
    """

    budget: int | None
    planned: int
    measured: int | None
    scratch: int
    cells: int
    inputs: int
    constants: int
    results: int
    kernels: int
    again: int
    forward: int
    recomputed: dict[str, int]
    lives: tuple[Life, ...]

    @property
    def extra_passes(self) -> float:
        """What is computed again, in forward passes."""
        return self.again / self.forward if self.forward else 0.0

    def __repr__(self) -> str:
        measured = "not known here" if self.measured is None else size_text(self.measured)
        budget = "none" if self.budget is None else size_text(self.budget)
        times = sum(self.recomputed.values())
        lines = [
            f"planned   {size_text(self.planned)} for the values between {plural(self.kernels, 'kernel')}; "
            f"measured {measured}; budget {budget}",
            f"besides   {size_text(self.cells)} in cells, {size_text(self.inputs)} of arguments, "
            f"{size_text(self.constants)} of constants, {size_text(self.results)} of results, "
            f"{size_text(self.scratch)} of scratch",
            "again     nothing is computed again"
            if not times
            else f"again     {plural(times, 'equation')} ({plural(len(self.recomputed), 'value')}): "
            f"{count_text(self.again)} operations, {self.extra_passes:.2f} forward passes",
        ]
        if times:
            often = sorted(self.recomputed.items(), key=lambda item: -item[1])[:_MOST_SHOWN]
            shown = ", ".join(name if count == 1 else f"{name} {count} times" for name, count in often)
            rest = len(self.recomputed) - len(often)
            lines.append(f"          {shown}" + (f" and {rest:,} more" if rest else ""))
        if self.lives:
            rows = [(life.name, size_text(life.bytes), f"{life.first} to {life.last}") for life in self.lives]
            lines += ["", *table(("largest", "size", "kernels"), rows[:_MOST_SHOWN], right=(1,))]
        return "\n".join(lines)


def memory_of(plan: Plan, budget: int | None, measured: int | None) -> Memory:
    """What a plan takes."""
    names = Names(plan)
    first: dict[Equation, int] = {}
    last: dict[Equation, int] = {}
    for i, step in enumerate(plan.steps):
        for tensor in step.kernel.operands:
            if tensor in plan.buffers.offsets:
                first.setdefault(tensor, i)
                last[tensor] = i
    lives = [Life(names.of[t], t.type.nbytes, first[t], last[t]) for t in first]
    made = plan.rematerialised
    recomputed: dict[str, int] = {}
    for change in made.changes.made if made is not None else ():
        name = names.of.get(change.old, change.old.op.name)
        recomputed[name] = recomputed.get(name, 0) + 1
    return Memory(
        budget,
        plan.buffers.size,
        measured,
        plan.scratch * plan.threads,
        _bytes(e for e in plan.tensors if e.op is CELL),
        _bytes(e for e in plan.tensors if e.op is INPUT),
        _bytes(e for e in plan.tensors if e.op is CONSTANT),
        _bytes(plan.results),
        len(plan.steps),
        made.again if made is not None else 0,
        made.forward if made is not None else 0,
        recomputed,
        tuple(sorted(lives, key=lambda life: (-life.bytes, life.first - life.last))),
    )


def _bytes(tensors: Iterable[Equation]) -> int:
    return sum(e.type.nbytes for e in tensors)
