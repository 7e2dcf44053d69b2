"""Equations: what was recorded. `output = op(inputs, params)`, and where it came from."""

from __future__ import annotations

import enum
import itertools
from typing import Any

from stepgrad.tape.op import Op, TensorType
from stepgrad.tape.places import Where
from stepgrad.tensor import Tensor


class Role(enum.Enum):
    """Which part of a training step an equation belongs to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


class Equation:
    """One recorded operation. To the tape, an equation and its output are one thing.

    Every operation has one output, so an equation's `inputs` are simply the equations that computed
    them. Leaves (inputs, constants, parameters) are equations without inputs.

    Attributes:
        op: the operation; one of `leaves` for a leaf.
        inputs: the equations that computed the operands.
        params: the settings, by name.
        type: shape and dtype of the output.
        value: the output's value if the tape keeps it (see `cache`), else None.
        role: forward, backward or update.
        of: the forward equation whose local rule emitted this one, if any.
        operand: the operand whose local rule it was; None where contributions are added up.
        where: the user's code that recorded it.
        scope: the modules it was recorded in, outermost first.
        region: the serial number at which the region that keeps no values began, or None.
        active: a gradient can flow to it.
        cut: for an inactive result of active inputs, where the path was cut.
        name: the user's name for the output.
        serial: order of recording.
    """

    __slots__ = (
        "__weakref__",
        "active",
        "cut",
        "inputs",
        "name",
        "of",
        "op",
        "operand",
        "params",
        "region",
        "role",
        "scope",
        "serial",
        "type",
        "value",
        "where",
    )

    def __init__(
        self,
        op: Op,
        inputs: tuple[Equation, ...],
        params: dict[str, Any],
        type: TensorType,
        active: bool,
        role: Role = Role.FORWARD,
        of: Equation | None = None,
        operand: int | None = None,
        where: Where | None = None,
        scope: tuple[str, ...] = (),
        region: int | None = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.params = params
        self.type = type
        self.active = active
        self.role = role
        self.of = of
        self.operand = operand
        self.where = where
        self.scope = scope
        self.region = region
        self.value: Any = None
        self.name: str | None = None
        self.cut: tuple[Cut, ...] = ()
        self.serial = next(_serial)

    @property
    def output(self) -> Tensor:
        """The output as a tensor, with its value if the tape keeps it."""
        return Tensor(self.value, self)

    def __repr__(self) -> str:
        from stepgrad.tape.printing import line

        return line(self)


_serial = itertools.count()


def next_serial() -> int:
    """A serial number for the start of a region: later equations have higher ones."""
    return next(_serial)


class Cut:
    """A place where gradients stop: an equation without a local rule, or one under `no_grad`.

    It does not keep the equations before it alive.
    """

    __slots__ = ("reason", "sources", "where")

    def __init__(self, reason: str, where: Where | None, sources: tuple[Any, ...]) -> None:
        self.reason, self.where, self.sources = reason, where, sources


def _no_shape(*types: TensorType, **params: Any) -> tuple[int, ...]:
    raise TypeError("a leaf is not recorded by calling its op")


def _leaf(name: str, doc: str) -> Op:
    return Op(name, shape=_no_shape, numpy=_no_shape, rules=(), text=name, samples=(), doc=doc)


INPUT = _leaf("input", "A tensor made by `sg.tensor`, or an argument of a recorded function.")
CONSTANT = _leaf("constant", "An array that no gradient flows to; or a value whose making was not recorded.")
LITERAL = _leaf("literal", "A Python number. It has no dtype of its own.")
CELL = _leaf("cell", "The value of a cell (params: cell), as it was when it was read.")
leaves = frozenset((INPUT, CONSTANT, LITERAL, CELL))
"""The ops of equations that were not computed."""
