"""Steps: the equations of a tape grouped as the user wrote the lines, forward and backward together."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from stepgrad.explain.formulas import Line
from stepgrad.explain.watch import Statement
from stepgrad.tape.equation import Equation


@dataclass(frozen=True, eq=False)
class Gradient:
    """A gradient that arrives at a step or leaves it.

    Attributes:
        name: what it is called, such as `dZ1`.
        text: how it is written: its name, or another name for the same numbers, or an expression.
        of: the value it is the gradient of.
        equation: the equation that computed it.
        kind: "input" or "parameter" if it is wanted for itself, "upstream" if an earlier step needs it.
        part: None, or (i, n): only the i-th of n contributions to the gradient is in it yet.
    """

    name: str
    text: str
    of: Equation
    equation: Equation
    kind: str
    part: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One line of the user's code, with what it computes forward and how gradients pass it backward.

    Attributes:
        number: counted from 1, in the order of the forward pass.
        statement: the user's line: file, line and text.
        scope: the modules it ran in, outermost first.
        kind: "forward", or "update" for what an optimizer computes.
        inputs: the values from before that it reads.
        outputs: the values that later steps, or the caller, read.
        equations: its single forward equations, in order.
        lines: the same as formulas.
        arrives: the downstream gradients of its outputs.
        gives: the gradients of its inputs that it contributes to.
        reads: the cached forward values that its local rules read.
        backward: the single equations that its local rules emitted, in order.
        backward_lines: the same as formulas.
    """

    number: int
    statement: Statement
    scope: tuple[str, ...]
    kind: str
    inputs: tuple[Equation, ...]
    outputs: tuple[Equation, ...]
    equations: tuple[Equation, ...]
    lines: tuple[Line, ...]
    arrives: tuple[Gradient, ...] = ()
    gives: tuple[Gradient, ...] = ()
    reads: tuple[Equation, ...] = ()
    backward: tuple[Equation, ...] = ()
    backward_lines: tuple[Line, ...] = ()

    def __repr__(self) -> str:
        return f"<step {self.number}: {'; '.join(map(str, self.lines))}>"


@dataclass(frozen=True)
class Flow:
    """How gradients flow over the forward equations, as the backward walk found it.

    Attributes:
        gradients: equation -> the equation of its gradient, for every equation that a gradient
            reaches, the last equations first.
        edges: for each of them, (equation, operand) of those that send it a contribution, in the
            order in which the walk met them.
        order: (equation, operand) -> the how-manieth contribution it sends, from 1; what the walk
            began with counts as the first.
        sums: for each equation, its gradient after each contribution; the last is the whole gradient.
    """

    gradients: Mapping[Equation, Equation]
    edges: Mapping[Equation, list[tuple[Equation, int]]]
    order: Mapping[tuple[Equation, int], int]
    sums: Mapping[Equation, list[Equation]]


def flow_of(gradients: Mapping[Equation, Equation], seeds: Container[Equation]) -> Flow:
    """The flow of gradients, out of the map that the walk made."""
    edges: dict[Equation, list[tuple[Equation, int]]] = {e: [] for e in gradients}
    order: dict[tuple[Equation, int], int] = {}
    for equation in gradients:
        for operand, source in enumerate(equation.inputs):
            if source in edges and equation.op.rule(operand) is not None:
                edges[source].append((equation, operand))
                order[equation, operand] = len(edges[source]) + (source in seeds)
    sums: dict[Equation, list[Equation]] = {}
    for equation, gradient in gradients.items():
        partial = [gradient]
        for _ in range(len(edges[equation]) + (equation in seeds) - 1):  # the walk added them one by one
            partial.append(partial[-1].inputs[0])
        sums[equation] = partial[::-1]
    return Flow(gradients, edges, order, sums)
