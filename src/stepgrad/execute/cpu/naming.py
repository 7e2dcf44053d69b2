"""Names for what is inside a program: the user's own where there are any, and what things belong to where not.

A value is called after the variable on whose line it was computed (`loss`, and `loss.exp` for what came
before it there) or after the module (`0.matmul`), a gradient after what it is the gradient of
(`d0.matmul`), and what an update computes after the cell that it is for (`0.weight.sqrt`).
"""

from __future__ import annotations

import functools
import keyword
import os
import re
from collections.abc import Iterable
from typing import Any

from stepgrad.cells import ASSIGN, cell_of
from stepgrad.execute.cpu.plan import Plan
from stepgrad.passes.kinds import VIEWS
from stepgrad.passes.reruns import RECOMPUTED
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, Role, leaves
from stepgrad.tape.places import place, source_line
from stepgrad.tape.tape import Tape


class Names:
    """What everything on a program's tape is called.

    Args:
        plan: names are given on the tape that its passes began with, and follow what they changed.

    Attributes:
        of: equation or leaf -> its name; no two are the same.
        origin: equation -> the recorded one that it stands for, or is a part of.
    """

    def __init__(self, plan: Plan) -> None:
        log, tape = plan.log, plan.tape
        self.of: dict[Equation, str] = {}
        self.origin: dict[Equation, Equation] = {}
        self._taken: dict[str, int] = {}
        for flag, check in plan.checks:
            self._give(flag, f"{check.index.name or 'index'}.outside")
        for leaf in (*tape.leaves(), *log.tape.leaves()):
            self._give(leaf, leaf.name or leaf.op.name)
        for assign in plan.fusion.assigned:
            self._give(assign, f"{self.cell(assign)}.new")
        self._name_recorded(log.tape)
        for entry in log.entries:
            for old, new in entry.changes.moved.items():
                self._follow(old, new, self.of.get(old, old.op.name))
                for part in entry.changes.parts.get(old, ()):
                    self._follow(old, part, f"{self.of.get(old, old.op.name)}.{part.op.name}")
            for change in entry.changes.made:
                if change.kind is RECOMPUTED and change.new is not None:
                    self._follow(change.old, change.new, f"{self.of.get(change.old, change.old.op.name)}.again")
        for equation in (*tape.leaves(), *tape.equations):
            self._give(equation, equation.name or equation.op.name)

    def _follow(self, old: Equation, new: Equation, name: str) -> None:
        self.origin.setdefault(new, self.origin.get(old, old))
        if self.of.get(old) == name:
            self.of.setdefault(new, name)
        else:
            self._give(new, name)

    def _give(self, equation: Equation, name: str) -> None:
        if equation in self.of:
            return
        if equation.op is LITERAL or (equation.op is CONSTANT and equation.type.size == 1):
            value = equation.params["value"] if equation.op is LITERAL else equation.value
            self.of[equation] = f"{float(value):.6g}" if isinstance(value, float) else str(value)
            return
        count = self._taken.get(name, 0) + 1
        self._taken[name] = count
        self.of[equation] = name if count == 1 else f"{name}_{count}"

    # --- what was recorded

    def _name_recorded(self, tape: Tape) -> None:
        owners = _owners(tape)
        last = _last_of_lines(tape)
        ends = {(e.of, e.operand): e for e in tape.equations if e.role is Role.BACKWARD}
        for e in tape.equations:
            if e.name:
                self._give(e, e.name)
            elif e.op is ASSIGN:
                self._give(e, f"{self.cell(e)}.new")
            elif e.role is Role.UPDATE:
                self._give(e, f"{owners.get(e) or 'update'}.{e.op.name}")
            elif e.role is Role.BACKWARD and e.of is not None:
                self._give(e, self._gradient(e, ends[e.of, e.operand] is e))
            elif e.scope:
                self._give(e, f"{e.scope[-1]}.{e.op.name}")
            else:
                variable = _variable(e)
                self._give(e, variable if variable and e in last else ".".join(filter(None, (variable, e.op.name))))

    def _gradient(self, e: Equation, is_last: bool) -> str:
        added = next((x for x in reversed(e.inputs) if e.operand is None and x.operand is not None), e)
        of, operand = added.of, added.operand
        assert of is not None
        target = of if operand is None or operand >= len(of.inputs) else of.inputs[operand]
        while target.op.name in VIEWS and target.type.size == target.inputs[0].type.size:
            target = target.inputs[0]
        same = target.type.size == e.type.size and target.op is not LITERAL
        if is_last and same and target in self.of:
            return f"d{self.of[target]}"
        return f"d{self.of.get(of, of.op.name)}.{e.op.name}"

    # --- in words

    def cell(self, assign: Equation) -> str:
        """The name of the cell that an equation assigns to."""
        leaf = assign
        while leaf.op is ASSIGN:
            leaf = leaf.inputs[0]
        return self.of.get(leaf) or leaf.name or "cell"

    def part(self, equation: Equation) -> str:
        """Which computation of the user an equation is a part of: `tanh`, `tanh backward`, `update`."""
        recorded = self.origin.get(equation, equation)
        if recorded.role is Role.UPDATE:
            return "update"
        if recorded.role is Role.BACKWARD:
            return "sum of gradients" if recorded.operand is None else f"{self._op(recorded.of)} backward"
        return self._op(recorded)

    @staticmethod
    def _op(equation: Equation | None) -> str:
        return "gradient" if equation is None else equation.op.name

    def where(self, equation: Equation) -> str:
        """Where the user wrote it: `module 0`, or `net.py:12`; empty where that is not known."""
        recorded = self.origin.get(equation, equation)
        written = recorded.of or recorded
        if written.scope:
            return f"module {written.scope[-1]}"
        file, number = place(written.where)
        return f"{os.path.basename(file)}:{number}" if number else ""


def role_of(members: Iterable[Equation]) -> str:
    """`forward`, `backward + update`, …"""
    found = {e.role for e in members}
    return " + ".join(role.value for role in Role if role in found)


def _owners(tape: Tape) -> dict[Equation, str | None]:
    """Equations of the update -> the cell that they are for; None if it is more than one."""
    owners: dict[Equation, Any] = {}
    first: dict[str, str] = {}
    for e in reversed(tape.equations):
        if e.op is ASSIGN:
            name = cell_of(e).name or "cell"
            owners[e] = first.setdefault(name, name)
        if e.role is not Role.UPDATE or e not in owners:
            continue
        for source in e.inputs[1:] if e.op is ASSIGN else e.inputs:
            if source.op not in leaves:
                known = owners.setdefault(source, owners[e])
                if known is not None and owners[e] is not None and known != owners[e]:
                    owners[source] = _shared(known, owners[e])
    return owners


def _shared(one: str, other: str) -> str | None:
    """The cell that two others belong to: `0.weight` for `0.weight.m` and `0.weight.v`; None if there is none."""
    if one.startswith(other):
        return other
    if other.startswith(one):
        return one
    parts = []
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts) or None


def _last_of_lines(tape: Tape) -> set[Equation]:
    """The last equation of each run of equations that one line recorded."""
    found = set()
    before: Equation | None = None
    forward = [e for e in tape.equations if e.role is Role.FORWARD]
    for e in forward:
        if before is not None and place(before.where) != place(e.where):
            found.add(before)
        before = e
    return found if before is None else found | {before}


def _variable(e: Equation) -> str | None:
    """The variable that the line of an equation assigns to."""
    return _assigned(source_line(e.where)) if e.where is not None else None


@functools.lru_cache(maxsize=4096)
def _assigned(line: str) -> str | None:
    found = re.match(r"([^\W\d]\w*)\s*(?:=(?!=)|[-+*/@]=)", line)
    return None if found is None or keyword.iskeyword(found[1]) else found[1]


def identifier(name: str, taken: set[str]) -> str:
    """A Python identifier for a name, and none of those that are taken; it is taken then.

    Example:
        >>> [identifier(t, set()) for t in ("0.weight.m", "d0.weight", "x", "lambda")]
        ['weight_0_m', 'd0_weight', 'x', 'lambda_']
    """
    parts = [p for p in re.split(r"\W+", name) if p] or ["x"]
    first = next((i for i, p in enumerate(parts) if not p[0].isdigit()), 0)
    parts.insert(0, parts.pop(first))
    text = "_".join(parts)
    text = f"x{text}" if text[0].isdigit() else text
    text += "_" if keyword.iskeyword(text) else ""
    made, number = text, 2
    while made in taken:
        made, number = f"{text}_{number}", number + 1
    taken.add(made)
    return made
