"""The tape: equations in the order in which they were recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import Equation, Role, leaves
from stepgrad.tape.leaves import as_tensor


class Tape:
    """A sequence of equations with named ends. Immutable; passes make new tapes.

    Attributes:
        equations: what is computed, in order; leaves are not among them.
        inputs: the leaves that a caller supplies, in order.
        outputs: the equations whose values are wanted.
    """

    __slots__ = ("equations", "inputs", "outputs")

    def __init__(self, equations: Iterable[Equation], inputs: Iterable[Equation], outputs: Iterable[Equation]) -> None:
        self.equations, self.inputs, self.outputs = tuple(equations), tuple(inputs), tuple(outputs)

    @classmethod
    def of(cls, *outputs: object) -> Tape:
        """The tape of these tensors: every equation they can reach, sorted by serial number.

        Example:
            >>> x = sg.tensor([1.0, 2.0], name="x")
            >>> len(Tape.of((x * 2).sum()).equations)
            2
        """
        ends = [as_tensor(t).equation for t in outputs]
        found = reachable(ends)
        return cls(
            (e for e in found if e.op not in leaves),
            (e for e in found if e.op.name in ("input", "cell")),
            ends,
        )

    def role(self, role: Role) -> tuple[Equation, ...]:
        """The equations of one role."""
        return tuple(e for e in self.equations if e.role is role)

    def leaves(self) -> list[Equation]:
        """Every leaf that is read: inputs, cells, constants and literals, in order of first use."""
        found = dict.fromkeys(self.inputs)
        for equation in self.equations:
            found.update(dict.fromkeys(e for e in equation.inputs if e.op in leaves))
        found.update(dict.fromkeys(e for e in self.outputs if e.op in leaves))
        return list(found)

    def __len__(self) -> int:
        return len(self.equations)

    def __iter__(self) -> Iterator[Equation]:
        return iter(self.equations)

    def __repr__(self) -> str:
        from stepgrad.tape.printing import print_tape

        return print_tape(self)
