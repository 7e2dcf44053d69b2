"""Arranging what was recorded: parts, names, formulas, and the steps they make.

This is where a tape becomes something to read; story, source, ledger and cost only look at the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.cells import Parameter
from stepgrad.explain.arguments import Arguments
from stepgrad.explain.formulas import Line, Written, write
from stepgrad.explain.names import Names
from stepgrad.explain.steps import Flow, Gradient, Step, flow_of
from stepgrad.explain.watch import Statement, Watcher
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation, Role
from stepgrad.tape.expressions import helpers
from stepgrad.tensor import Tensor

INLINE = 16
"""Constant arrays with at most this many elements are written into the source."""


@dataclass(frozen=True)
class Recorded:
    """One call, as it was recorded.

    Attributes:
        arguments: what it was called with.
        watcher: what was seen of the user's variables and statements.
        inside: the equations of the call, in order.
        walked: the equations of the backward walk that followed it; none if the function took
            gradients itself.
        walks: the gradients of each backward walk to be explained, by equation, last equations first.
        seeds: the downstream gradients that these walks began with, by equation.
        outputs: the tensors that the function returned.
        own: the function took its gradients itself: it is a whole training step.
    """

    arguments: Arguments
    watcher: Watcher
    inside: Sequence[Equation]
    walked: Sequence[Equation]
    walks: Sequence[Mapping[Equation, Tensor]]
    seeds: Mapping[Equation, Equation]
    outputs: Sequence[Equation]
    own: bool


@dataclass
class Arranged:
    """A call and its backward pass, ready to be read.

    Attributes:
        forward, backward, update: the equations of each part, in order; only what is needed for the
            outputs, the gradients and the user's variables.
        names: equation -> identifier.
        inputs, parameters, constants: the leaves by name. Constants are arrays that came from outside.
        targets: the leaves whose gradients are wanted -> the name of the gradient.
        flows: how gradients flow, for each backward walk.
        seeds: the downstream gradients that the backward pass begins with, by the equation they arrive at.
        outputs: what the function returned.
        written: the formulas.
        assigned: name of a parameter or state -> the value that was put into it last.
        steps: the formulas, grouped.
        gradient_names: value -> name of its gradient.
    """

    forward: tuple[Equation, ...] = ()
    backward: tuple[Equation, ...] = ()
    update: tuple[Equation, ...] = ()
    names: Names = field(default_factory=Names)
    inputs: dict[str, Equation] = field(default_factory=dict)
    parameters: dict[str, Equation] = field(default_factory=dict)
    constants: dict[str, Equation] = field(default_factory=dict)
    targets: dict[Equation, str] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    seeds: dict[Equation, Equation] = field(default_factory=dict)
    outputs: tuple[Equation, ...] = ()
    written: Written = field(default_factory=lambda: Written({}, {}))
    steps: list[Step] = field(default_factory=list)
    gradient_names: dict[Equation, str] = field(default_factory=dict)
    assigned: dict[str, Equation] = field(default_factory=dict)

    def wanted_gradients(self) -> dict[str, Equation]:
        """Name of an input or parameter -> the equation of its gradient."""
        found: dict[str, Equation] = {}
        for flow in self.flows:
            for leaf in self.targets:
                if leaf in flow.gradients:
                    found.setdefault(self.names.of[leaf], flow.gradients[leaf])
        return found

    def text(self, equation: Equation) -> str:
        """How an equation's value is written where it is read."""
        if equation in self.names.of:
            return self.names.of[equation]
        return self.written.inline.get(equation) or leaf_text(equation)


def arrange(recorded: Recorded) -> Arranged:
    """Names, formulas and steps for a recorded call."""
    made = Arranged(outputs=tuple(recorded.outputs), seeds=dict(recorded.seeds))
    parts = _parts(recorded)
    made.flows = [flow_of({e: g.equation for e, g in walk.items()}, made.seeds) for walk in recorded.walks]
    made.names.reserve(f.__name__ for f in helpers([*recorded.inside, *recorded.walked]))
    _name_leaves(made, recorded)
    made.assigned = {made.names.of[e.inputs[0]]: e.inputs[1] for e in recorded.inside if e.op.name == "assign"}
    _name_variables(made, recorded, parts)
    for equation, seed in made.seeds.items():
        made.names.give(seed, "d" + made.names.of.get(equation, "output"))
    for walk in recorded.walks if recorded.own else [*recorded.watcher.walks, *recorded.walks]:
        made.gradient_names |= made.names.give_gradients(walk)
    wanted = {e for flow in made.flows for e in flow.gradients if e.op in (INPUT, CELL)}
    made.targets = {
        e: made.gradient_names[e]
        for e in [*made.inputs.values(), *made.parameters.values()]
        if e in wanted and e in made.gradient_names
    }
    _keep_live(made, parts)
    _write(made, recorded)
    made.steps = _Steps(made, recorded).steps
    return made


def _parts(recorded: Recorded) -> dict[Equation, str]:
    """Which part each equation belongs to: forward, backward or update."""
    parts: dict[Equation, str] = {}
    for equation in recorded.inside:
        if equation.role is Role.UPDATE:
            part = "update"
        elif recorded.own and equation.role is Role.BACKWARD:
            part = "backward"
        elif recorded.own and any(parts.get(e, "forward") != "forward" for e in equation.inputs):
            part = "update"  # what the user does with gradients before the optimizer gets them
        else:
            part = "forward"
        parts[equation] = part
    return parts | dict.fromkeys(recorded.walked, "backward")


def is_inline(constant: Equation) -> bool:
    """A constant array that is small enough to be written into the source."""
    return constant.type.size <= INLINE


def arguments_of(made: Arranged) -> dict[str, Equation]:
    """The arguments of `forward`: inputs, parameters, and constants too large to be written out."""
    large = {name: leaf for name, leaf in made.constants.items() if not is_inline(leaf)}
    return {**made.inputs, **made.parameters, **large}


# --- names


def _name_leaves(made: Arranged, recorded: Recorded) -> None:
    known = set(recorded.inside) | set(recorded.walked)
    bound = {e: name for e, (_, _, name) in recorded.watcher.bound.items()}
    for equation, wanted in recorded.arguments.inputs.items():
        made.inputs[made.names.give(equation, *wanted)] = equation
    copies: dict[Any, Equation] = {}
    cells: dict[Any, str] = {}
    for equation in [*recorded.inside, *recorded.walked]:
        for leaf in equation.inputs:
            if leaf in known or leaf in made.names.of or leaf.op is LITERAL or leaf in made.seeds.values():
                continue
            known.add(leaf)
            if leaf.op is CELL:
                made.parameters[made.names.give(leaf, *_cell_names(leaf, recorded, bound, cells))] = leaf
                cells.setdefault(leaf.params["cell"], made.names.of[leaf])
            elif leaf.op is INPUT:
                made.inputs[made.names.give(leaf, leaf.name or bound.get(leaf, "x"))] = leaf
            elif leaf.value is not None and leaf.type.shape:
                key = (leaf.type, np.asarray(leaf.value).tobytes())
                same = copies.setdefault(key, leaf)
                if same is leaf:
                    name = leaf.name or bound.get(leaf)
                    made.constants[made.names.unique(name) if name else made.names.numbered("constant")] = leaf
                    made.names.of[leaf] = list(made.constants)[-1]
                else:
                    made.names.of[leaf] = made.names.of[same]


def _cell_names(
    leaf: Equation, recorded: Recorded, bound: Mapping[Equation, str], known: Mapping[Any, str]
) -> tuple[str, ...]:
    """What a parameter or state may be called, best first."""
    cell = leaf.params["cell"]
    if cell in known:  # read again after something else was put into it
        return (f"{known[cell]}_later",)
    if cell in recorded.arguments.cells:
        return recorded.arguments.cells[cell]
    module = recorded.watcher.modules.get(leaf)
    if cell.name is None or module is None:
        return (cell.name or bound.get(leaf, cell.kind),)
    return cell.name, f"{module}.{cell.name}"


def leaf_text(leaf: Equation) -> str:
    """A leaf without a name: a number of a certain dtype."""
    value = np.asarray(leaf.value)
    text = str(value[()]) if value.dtype.kind != "c" else repr(complex(value))
    return f"np.{value.dtype.name}({_SPECIAL.get(text, text)})"


_SPECIAL = {"nan": "np.nan", "inf": "np.inf", "-inf": "-np.inf"}


def _name_variables(made: Arranged, recorded: Recorded, parts: Mapping[Equation, str]) -> None:
    bound = recorded.watcher.bound
    bases: dict[Equation, str] = {}
    for equation, part in parts.items():
        if part == "backward":
            continue
        if equation.name and equation.role is not Role.BACKWARD:
            bases[equation] = equation.name
        elif equation in bound:
            bases[equation] = bound[equation][2]
    for cell, equation in made.assigned.items():
        if parts.get(equation) == "update" and not equation.name:
            bases[equation] = f"{cell}_new"
    made.names.give_variables(bases)
    for output in made.outputs:
        if output.inputs:
            made.names.give(output, "y" if output.type.shape else "loss")


# --- formulas


def _keep_live(made: Arranged, parts: Mapping[Equation, str]) -> None:
    """Drops what neither the outputs nor the gradients nor a variable of the user's needs."""
    ends = {*made.outputs, *made.assigned.values()}
    ends.update(e for e, part in parts.items() if part == "forward" and e in made.names.of)
    ends.update(made.wanted_gradients().values())
    live = [e for e in reachable(ends) if e in parts]  # without assignments: they compute nothing
    made.forward, made.backward, made.update = (
        tuple(e for e in live if parts[e] == part) for part in ("forward", "backward", "update")
    )


def _write(made: Arranged, recorded: Recorded) -> None:
    run_of = {e: i for i, run in enumerate(recorded.watcher.runs) for e in run.equations}
    backward, update = set(made.backward), set(made.update)

    def block(equation: Equation) -> Hashable:
        if equation in backward and equation.of is not None:
            return "backward", run_of.get(equation.of, -1)
        return "update" if equation in update else "forward", run_of.get(equation, -1)

    hints: dict[Equation, Callable[[], str | None]] = {}
    for flow in made.flows:
        for equation, gradient in flow.gradients.items():
            for i, part in enumerate(flow.sums[equation][:-1], 1):
                hints.setdefault(part, _hint(made.names, equation, f"_part{i}"))
            hints.setdefault(gradient, _hint(made.names, equation, ""))
    results = {e for e in (*made.outputs, *made.assigned.values()) if e.inputs}
    results.update(made.wanted_gradients().values())
    equations = [*made.forward, *made.backward, *made.update]
    made.written = write(equations, made.names, block, results, hints, leaf_text)


def _hint(names: Names, equation: Equation, ending: str) -> Callable[[], str | None]:
    return lambda: f"d{names.of[equation]}{ending}" if equation in names.of else None


# --- steps


class _Steps:
    """Groups lines into steps: one for each run of a statement of the user's."""

    def __init__(self, made: Arranged, recorded: Recorded) -> None:
        self.made = made
        self.steps: list[Step] = []
        self.parts = dict.fromkeys(made.forward, "forward") | dict.fromkeys(made.update, "update")
        emitted: dict[Equation, list[Equation]] = {}
        for equation in made.backward:
            if equation.of is not None:
                emitted.setdefault(equation.of, []).append(equation)
        self.emitted = emitted
        self.readers: dict[Equation, set[Equation]] = {}
        for line in made.written.lines.values():
            for source in line.reads:
                self.readers.setdefault(source, set()).add(line.equation)
        runs = {e for run in recorded.watcher.runs for e in run.equations}
        before = sorted((e for e in emitted if e not in runs), key=lambda e: e.serial)
        if before:  # a backward pass in the function went on into what had been computed before
            self._add(Statement("", 0, 0, "(before the call)"), (), "forward", tuple(before))
        for run in recorded.watcher.runs:
            for part in ("forward", "update"):
                equations = tuple(e for e in run.equations if self.parts.get(e) == part)
                if equations:
                    self._add(run.statement, run.scope, part, equations)

    def _add(self, statement: Statement, scope: tuple[str, ...], kind: str, equations: tuple[Equation, ...]) -> None:
        made, inside = self.made, set(equations)
        lines = self._lines(equations)
        backward = tuple(sorted((g for e in equations for g in self.emitted.get(e, ())), key=lambda e: e.serial))
        backward_lines = self._lines(backward)
        if not lines and not backward_lines:
            return
        arrives: list[Gradient] = []
        gives: list[Gradient] = []
        for flow in made.flows:
            arrives += self._arrives(flow, equations, inside)
            gives += self._gives(flow, equations, inside)
        read = dict.fromkeys(s for line in lines for s in line.reads if s not in inside)
        cached = dict.fromkeys(s for line in backward_lines for s in line.reads if self._is_forward(s))
        self.steps.append(
            Step(
                number=len(self.steps) + 1,
                statement=statement,
                scope=scope,
                kind=kind,
                inputs=tuple(read),
                outputs=tuple(
                    line.equation
                    for line in lines
                    if line.equation in made.outputs
                    or not inside.issuperset(self.readers.get(line.equation, (line.equation.inputs[0],)))
                ),
                equations=equations,
                lines=lines,
                arrives=tuple(arrives),
                gives=tuple(gives),
                reads=tuple(cached),
                backward=backward,
                backward_lines=backward_lines,
            )
        )

    def _lines(self, equations: Iterable[Equation]) -> tuple[Line, ...]:
        lines = self.made.written.lines
        return tuple(lines[e] for e in equations if e in lines)

    def _is_forward(self, source: Equation) -> bool:
        if source.op in (INPUT, CELL, CONSTANT):
            return source in self.made.names.of and source not in self.made.seeds.values()
        return self.parts.get(source) == "forward"

    def _arrives(self, flow: Flow, equations: Iterable[Equation], inside: set[Equation]) -> list[Gradient]:
        return [
            self._gradient(e, flow.gradients[e], "downstream", None)
            for e in equations
            if e in flow.gradients
            and (e in self.made.seeds or any(sender not in inside for sender, _ in flow.edges[e]))
        ]

    def _gives(self, flow: Flow, equations: Iterable[Equation], inside: set[Equation]) -> list[Gradient]:
        found = []
        last: dict[Equation, int] = {}
        for e in equations:
            for operand, source in enumerate(e.inputs):
                if source not in inside and (e, operand) in flow.order and source in flow.sums:
                    last[source] = max(last.get(source, 0), flow.order[e, operand])
        for source, position in last.items():
            sums = flow.sums[source]
            part = None if len(sums) == 1 else (position, len(sums))
            found.append(self._gradient(source, sums[position - 1], _kind(source), part))
        return found

    def _gradient(self, of: Equation, equation: Equation, kind: str, part: tuple[int, int] | None) -> Gradient:
        text = self.made.text(equation)
        whole = part is None or part[0] == part[1]
        name = text
        if whole and of in self.made.names.of:
            name = self.made.gradient_names.get(of, "d" + self.made.names.of[of])
        return Gradient(name, text, of, equation, kind, part)


def _kind(source: Equation) -> str:
    if source.op is CELL and isinstance(source.params["cell"], Parameter):
        return "parameter"
    return "input" if source.op in (INPUT, CELL) else "upstream"
