"""Cost: what forward and backward pass take, and what gradients would take without reuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepgrad.explain.arrange import Arranged
from stepgrad.explain.formulas import is_view
from stepgrad.explain.steps import Flow
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.layout import count_text, ratio_text, size_text, table


@dataclass(frozen=True, repr=False)
class Cost:
    """What the passes cost, counted on the tape.

    A floating-point operation is one addition or multiplication; functions such as exp count as one
    for each element, a matrix product of (n, k) and (k, m) as 2nkm. Bytes moved are those that each
    single equation reads and writes; views move none.

    Without reuse, each gradient would be derived on its own, along every path: the sum over the
    inputs and parameters whose gradients are wanted, over every path of equations from it to the
    loss, of the costs of the local rules along the path. It is counted exactly, by dynamic
    programming over the tape: with n(e) the number of paths from equation e to the loss and c(e, i)
    the cost of the local rule of e's operand i,

        n(x) = sum of n(e) over all (e, i) that read x,
        s(x) = sum of s(e) + n(e) c(e, i) over all (e, i) that read x.

    Attributes:
        forward_flops, backward_flops: floating-point operations.
        forward_bytes, backward_bytes: bytes moved.
        paths: the number of paths from the inputs and parameters to the loss.
        without_reuse: floating-point operations of a backward pass without reuse.
    """

    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int
    paths: int
    without_reuse: int

    @property
    def ratio(self) -> float:
        """Backward over forward floating-point operations."""
        return self.backward_flops / self.forward_flops if self.forward_flops else float("nan")

    @property
    def reuse(self) -> float:
        """How many times the backward pass would cost without reuse: why backpropagation is practical."""
        if not self.backward_flops:
            return float("nan")
        whole, rest = divmod(self.without_reuse, self.backward_flops)
        return float("inf") if whole >= 10**300 else whole + rest / self.backward_flops

    def __repr__(self) -> str:
        forward, backward = (self.forward_flops, self.forward_bytes), (self.backward_flops, self.backward_bytes)
        rows = [
            ("forward pass", count_text(forward[0]), size_text(forward[1])),
            ("backward pass", count_text(backward[0]), size_text(backward[1])),
            ("backward / forward", ratio_text(backward[0], forward[0]), ratio_text(backward[1], forward[1])),
        ]
        reuse = ratio_text(self.without_reuse, self.backward_flops)
        return "\n".join(
            [
                *table(("", "operations", "bytes moved"), rows, right=(1, 2)),
                "",
                f"Without reuse, deriving each gradient along each of the {count_text(self.paths)} paths to the loss",
                f"would take {count_text(self.without_reuse)} operations: {reuse} times the backward pass.",
            ]
        )


def cost(made: Arranged) -> Cost:
    """The cost of an arranged call; see `Trace.cost`."""
    paths = without_reuse = 0
    rules = _rule_costs(made.backward)
    for flow in made.flows:
        n, s = _paths(flow, rules, made)
        targets = [e for e in made.targets if e in flow.gradients]
        paths += sum(n[e] for e in targets)
        without_reuse += sum(s[e] for e in targets)
    return Cost(
        sum(map(flops, made.forward)),
        sum(map(flops, made.backward)),
        sum(map(bytes_moved, made.forward)),
        sum(map(bytes_moved, made.backward)),
        paths,
        without_reuse,
    )


def flops(equation: Equation) -> int:
    """Floating-point operations of one equation."""
    if equation.op.cost is not None:
        return int(equation.op.cost(*[e.type for e in equation.inputs], equation.type, **equation.params))
    return equation.type.size if equation.op.elementwise else 0


def bytes_moved(equation: Equation) -> int:
    """Bytes that one equation reads and writes."""
    if is_view(equation):
        return 0
    return equation.type.nbytes + sum(e.type.nbytes for e in equation.inputs if e.op is not LITERAL)


def _rule_costs(backward: Iterable[Equation]) -> dict[tuple[Equation, int], int]:
    """(equation, operand) -> what its local rule costs."""
    found: dict[tuple[Equation, int], int] = {}
    for equation in backward:
        if equation.of is not None and equation.operand is not None:
            key = (equation.of, equation.operand)
            found[key] = found.get(key, 0) + flops(equation)
    return found


def _paths(
    flow: Flow, rules: dict[tuple[Equation, int], int], made: Arranged
) -> tuple[dict[Equation, int], dict[Equation, int]]:
    """For each equation, the number of paths to the loss, and the cost of the rules along all of them."""
    n: dict[Equation, int] = {}
    s: dict[Equation, int] = {}
    for equation in flow.gradients:  # last equations first: what reads one comes before it
        edges = flow.edges[equation]
        n[equation] = sum(n[e] for e, _ in edges) + (equation in made.seeds)
        s[equation] = sum(s[e] + n[e] * rules.get((e, i), 0) for e, i in edges)
    return n, s
