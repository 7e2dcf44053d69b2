"""Rewriting: one walk over a tape that puts other equations in the place of some, and keeps the rest as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from stepgrad.errors import VerificationError
from stepgrad.tape.equation import LITERAL, Equation, Role
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Tensor

Replacement = Equation | Tensor
Pattern = Callable[[Equation, tuple[Equation, ...]], Replacement | None]
"""(an equation, its inputs on the new tape) -> what stands in its place, or None."""


@dataclass(frozen=True)
class Rewrite:
    """One kind of change.

    Attributes:
        name: what is changed into what.
        why: why the values stay the same.
        ops: the names of the ops that it looks at.
        pattern: finds the replacement. It looks at inputs through its second argument only, and may
            record equations through ops, but only if it then returns a replacement.
    """

    name: str
    why: str
    ops: tuple[str, ...] = ()
    pattern: Pattern = lambda equation, inputs: None


@dataclass(frozen=True)
class Change:
    """A change that a pass made.

    Attributes:
        kind: which.
        old: the equation on the tape before.
        new: what stands in its place; None where it is left out.
    """

    kind: Rewrite
    old: Equation
    new: Equation | None


@dataclass
class Changes:
    """What one pass did to a tape.

    Attributes:
        made: its changes, in the order of the tape.
        moved: equation of the tape before -> what stands for it now, where that is another one (also
            an equation that only has other inputs now).
        parts: equation of the tape before -> what was recorded in its place, in order.
    """

    made: list[Change] = field(default_factory=list)
    moved: dict[Equation, Equation] = field(default_factory=dict)
    parts: dict[Equation, list[Equation]] = field(default_factory=dict)


Replace = Callable[[Equation, tuple[Equation, ...]], tuple[Rewrite, Replacement] | None]
"""(an equation, its inputs on the new tape) -> a kind of change and what stands in its place, or None."""


def rewrite(tape: Tape, replace: Replace, changes: Changes) -> Tape:
    """The tape with some equations replaced.

    Args:
        tape: what to rewrite; it is not changed.
        replace: called with each equation, in order. Its result may be an equation that comes earlier
            on the old or the new tape, a leaf, or one that it recorded through ops.
        changes: where the changes are noted.

    Returns:
        The new tape. What nothing changed is on it as it was; an equation with other inputs is a
        copy. What was recorded in the place of an equation has its role, origin, line and scope, and
        the last of it its name.

    Raises:
        VerificationError: a replacement has another type than what it replaces.
    """
    made: list[Equation] = []
    moved, noted = changes.moved, changes.made
    find = moved.get
    with recording(
        equations=made,
        role=Role.FORWARD,
        of=None,
        operand=None,
        scope=(),
        region=None,
        differentiable=True,
        observe=None,
        gradients=None,
        masks=None,
    ):
        for old in tape.equations:
            inputs = tuple([find(e, e) for e in old.inputs])
            before = len(made)
            found = replace(old, inputs)
            if found is None:
                if inputs == old.inputs and old.of not in moved:
                    made.append(old)
                else:
                    copy = moved[old] = copied(old, inputs, find(old.of, old.of) if old.of is not None else None)
                    made.append(copy)
                continue
            kind, result = found
            new = result.equation if type(result) is Tensor else find(result, result)  # type: ignore[arg-type]
            if new.type is not old.type:
                _check_type(kind, old, new)
            if len(made) > before:
                parts = changes.parts[old] = made[before:]
                for e in parts:
                    _mark(e, old, moved)
                if new is parts[-1]:
                    new.name = old.name
            moved[old] = new
            noted.append(Change(kind, old, new))
    return Tape(made, tape.inputs, [find(e, e) for e in tape.outputs])


def by_op(rewrites: Iterable[Rewrite]) -> dict[str, tuple[Rewrite, ...]]:
    """Rewrites by the names of the ops that they look at."""
    table: dict[str, tuple[Rewrite, ...]] = {}
    for kind in rewrites:
        for name in kind.ops:
            table[name] = (*table.get(name, ()), kind)
    return table


def first_of(table: Mapping[str, tuple[Rewrite, ...]]) -> Replace:
    """Replaces by the first rewrite that fits."""

    def replace(equation: Equation, inputs: tuple[Equation, ...]) -> tuple[Rewrite, Replacement] | None:
        for kind in table.get(equation.op.name, ()):
            found = kind.pattern(equation, inputs)
            if found is not None:
                return kind, found
        return None

    return replace


def tensors(equations: Iterable[Equation]) -> list[Tensor]:
    """Equations as operands for recording; only Python numbers have a value."""
    return [Tensor(e.value if e.op is LITERAL else None, e) for e in equations]


def copied(old: Equation, inputs: tuple[Equation, ...], of: Equation | None) -> Equation:
    """An equation like another one, with other inputs and another origin."""
    copy = Equation(
        old.op,
        inputs,
        old.params,
        old.type,
        old.active,
        old.role,
        of,
        old.operand,
        old.where,
        old.scope,
        old.region,
    )
    copy.value, copy.name, copy.cut = old.value, old.name, old.cut
    return copy


def _mark(new: Equation, old: Equation, moved: Mapping[Equation, Equation]) -> None:
    new.role, new.operand, new.where, new.scope, new.region = old.role, old.operand, old.where, old.scope, old.region
    new.of = None if old.of is None else moved.get(old.of, old.of)


def _check_type(kind: Rewrite, old: Equation, new: Equation) -> None:
    one, other = old.type, new.type
    if (one.shape, one.dtype, one.weak) != (other.shape, other.dtype, other.weak):
        raise VerificationError(
            f"the rewrite '{kind.name}' put {new!r} in the place of {old!r}",
            "a replacement has the same shape and dtype as what it replaces",
            "report this as a bug, with the printed tape (print(tape))",
        )
