"""The terms that a loss adds up, found on its tape."""

from __future__ import annotations

from dataclasses import dataclass

from stepgrad.check.health.layers import number_of
from stepgrad.check.health.subject import Pass
from stepgrad.tape.equation import Equation
from stepgrad.tape.places import source_line
from stepgrad.tensor import Tensor, functions

MOST_PARTS = 8


@dataclass(frozen=True)
class Part:
    """One term.

    Attributes:
        text: the user's line that computes it, or its op.
        equation: what computes it.
        factor: the sign it is added with.
        penalty: it does not depend on the batch.
    """

    text: str
    equation: Equation
    factor: float
    penalty: bool

    def value(self) -> Tensor:
        """The term with its sign; to be called while the step is recorded."""
        value: Tensor = functions["multiply"](self.equation.output, self.factor)
        return value


def parts_of(passed: Pass) -> list[Part]:
    """The terms of a loss; none where it is not a sum of single numbers, or of more than eight."""
    terms = [(e, s) for e, s in _terms(passed.loss.equation, 1.0) if number_of(e) is None]
    if not 2 <= len(terms) <= MOST_PARTS:
        return []
    moving = {passed.x.equation}
    for equation in passed.forward:
        if not moving.isdisjoint(equation.inputs):
            moving.add(equation)
    return [Part(_text(equation), equation, sign, equation not in moving) for equation, sign in terms]


def _terms(loss: Equation, sign: float) -> list[tuple[Equation, float]]:
    found: list[tuple[Equation, float]] = []
    todo = [(loss, sign)]
    while todo:
        equation, sign = todo.pop()
        if equation.op.name in ("add", "subtract") and equation.type.shape == ():
            first, second = equation.inputs
            todo += [(second, -sign if equation.op.name == "subtract" else sign), (first, sign)]
        elif equation.op.name in ("astype", "alias"):
            todo.append((equation.inputs[0], sign))
        else:
            found.append((equation, sign))
    return found


def _text(equation: Equation) -> str:
    return source_line(equation.where) or equation.op.name
