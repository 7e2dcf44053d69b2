"""`sg.why`: why is this gradient None, zero or tiny?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.check.paths import Passed, Walked, norm, walked
from stepgrad.check.reasons import (
    COMPARISON,
    FINE,
    GRADUALLY,
    MOVING,
    NOT_FINITE,
    NOT_FLOATING,
    NOT_TRAINED,
    NOT_USED,
    Reason,
    cut_of,
    reason_at,
    steepest,
)
from stepgrad.check.scenes import Scene, scene_of_tensor, scene_of_trace
from stepgrad.check.wording import expression, place_of, text_of
from stepgrad.explain.trace import Trace
from stepgrad.explain.watch import Statement
from stepgrad.missing import cuts_of
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import CELL, Equation
from stepgrad.tape.places import place, source_line
from stepgrad.tensor import Array

TINY = 1e-5
"""Below it a gradient is called tiny: if moving the parameter by its own size would change the loss, to first order,
by less than this part of it."""

TINIEST = 1e-8
"""So is one with elements below this on average: Adam's epsilon, under which the optimizer no longer sees them."""

_STEEP = 0.05
"""A single equation is blamed for a small gradient if it lets through less than this."""


@dataclass(frozen=True)
class PathStep:
    """An equation on the way of the gradient, from the loss back to the parameter.

    Attributes:
        text: what it computes: `h = sg.tanh(z)`.
        op: its op.
        arrives: the norm of the downstream gradient.
        gain: the norm of what its local rule passes on, divided by that.
        zeros: the share of exact zeros in what it passes on.
        file, line, code: the user's line.
        scope: the modules it was computed in, outermost first.
    """

    text: str
    op: str
    arrives: float
    gain: float
    zeros: float
    file: str
    line: int
    code: str
    scope: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """Why a gradient is what it is. Made by `sg.why`; print it.

    Attributes:
        parameter: its name.
        verdict: "none", "zero", "tiny", "partly zero", "not finite" or "fine".
        reason: by the names in `stepgrad.check.reasons`, such as "stop-gradient", "dead-units" or "saturated".
        explanation: what there is to see at the place.
        place: `net.py:12: h = sg.relu(z)`; empty if there is no place that is to blame.
        file, line, code: the same in parts.
        certain: False if the path to the parameter is no longer known, and the place is the likeliest cut.
        gradient: the gradient, or None.
        norm: its norm; 0.0 for None.
        path: the equations along which most of the gradient came, the loss first.
        others: further places where all of it is cut off, on other ways.
        remedy: what to write instead.
    """

    parameter: str
    verdict: str
    reason: str
    explanation: str
    place: str
    file: str
    line: int
    code: str
    certain: bool
    gradient: Array | None
    norm: float
    path: tuple[PathStep, ...]
    others: tuple[str, ...]
    remedy: str

    @property
    def gains(self) -> tuple[float, ...]:
        """The gain of each step of the path."""
        return tuple(step.gain for step in self.path)

    def __str__(self) -> str:
        from stepgrad.check.why_told import told

        return told(self)

    __repr__ = __str__


def why(loss: Any, parameter: Any) -> Why:
    """Says why a gradient is None, zero or tiny: where its path is cut or shrinks, and how much each step lets through.

    Args:
        loss: a floating-point tensor of shape (), computed eagerly; or a trace of the function that computes it,
            which knows every value, name and line.
        parameter: a tensor, parameter or state; for a trace also the name of an input or parameter.

    Returns:
        A `Why`: print it. Gains are quotients of Euclidean norms; where a value is read several times, the path is
        the one along which most of the gradient came.

    Raises:
        ArgumentError: something that is no tensor, or a name that the trace does not have.
        GradientError: the loss is not one floating-point number.

    Example:
        >>> W = sg.Parameter([1.0, 2.0], name="W")
        >>> h = sg.stop_gradient(W * 3)
        >>> answer = sg.why(sg.sum(h * h) + sg.sum(sg.relu(W - 5)), W)
        >>> answer.verdict, answer.reason
        ('zero', 'dead-units')
    """
    if isinstance(loss, Trace):
        scene = scene_of_trace(loss, parameter)
    else:
        scene = scene_of_tensor(loss, parameter, sys._getframe(1))
    judge, target = _Judge(scene), scene.target
    if not target.type.is_float:
        return judge.without_gradient(NOT_FLOATING, f"{target.type.dtype} numbers change in steps")
    if target.op is CELL and not target.params["cell"].is_trained:
        return judge.without_gradient(NOT_TRAINED, "it is a sg.State")
    if any(e.op.name == "compiled" for e in scene.forward):
        compiled = cut_of("a compiled function")
        return judge.without_gradient(compiled, "the inside of a compiled function is not on the tape")
    found = walked(scene.loss, target, scene.forward)
    if found.gradient is None:
        return judge.cut()
    return judge.judged(found)


class _Judge:
    """Finds the verdict and the place for a gradient in a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.loss, self.target, self.forward = scene.loss, scene.target, scene.forward
        self.name_of, self.statement_of = scene.name_of, scene.statement_of
        self.name = text_of(self.target, self.name_of)

    # --- no path

    def without_gradient(self, reason: Reason, explanation: str) -> Why:
        return self._why("none", reason, explanation, None, None)

    def cut(self) -> Why:
        """Where the path was cut, if there ever was one."""
        for equation, operand in self._ways_on():
            source = equation.inputs[operand]
            detached = equation.op.name == "stop_gradient" or not source.type.is_float
            without_rule = equation.op.rule(operand) is None or not equation.type.is_float
            name = equation.op.name if without_rule or detached else "no_grad"
            reason = cut_of(name)
            if name == "where" and operand == 0:
                reason = COMPARISON
            text = expression(equation, self.name_of)
            return self._why("none", reason, f"{text} passes no gradient on", self.statement_of(equation), None)
        cuts = cuts_of(self.forward)
        leading = [c for c in cuts if self._comes_from_target(c)]
        if not cuts:
            return self.without_gradient(NOT_USED, self._not_read())
        cut = (leading or cuts)[0]
        reason, statement = cut_of(cut.reason), Statement(*place(cut.where), 0, source_line(cut.where))
        explanation = f"{cut.reason.replace('_', ' ')} cut the path there"
        if not leading:
            explanation = "no path is known, but a path was cut there that may have come from it"
        others = [place_of(Statement(*place(c.where), 0, source_line(c.where))) for c in (leading or cuts)[1:]]
        return self._why("none", reason, explanation, statement, None, others=others, certain=bool(leading))

    def _ways_on(self) -> list[tuple[Equation, int]]:
        """The first equations after the target, on ways to the loss, that pass no gradient on."""
        wanted = set(self.forward)
        seen, found = {self.target}, []
        for equation in self.scene.everything:
            for operand, source in enumerate(equation.inputs):
                if source in seen and equation in wanted:
                    if equation.active and equation.op.rule(operand) is not None and equation.type.is_float:
                        seen.add(equation)
                    else:
                        found.append((equation, operand))
        return found

    def _comes_from_target(self, cut: Any) -> bool:
        sources = [source for source in (ref() for ref in cut.sources) if source is not None]
        return self.target in reachable(sources)

    def _not_read(self) -> str:
        name = self.target.name
        same = [e for e in self.forward if name and e.name == name and e.op is CELL and e is not self.target]
        if same:
            return f"the loss reads another parameter that is called {name}: perhaps of an older model"
        return "none of the equations that computed the loss reads it"

    # --- a gradient, large or small

    def judged(self, found: Walked) -> Why:
        gradient = found.gradient
        assert gradient is not None
        if not np.isfinite(gradient).all():
            return self._why("not finite", NOT_FINITE, "it has NaN or Inf in it", None, found)
        if not gradient.any():
            if not found.cuts:
                return self._why("zero", FINE, "it has no elements", None, found)
            nearest = found.cuts[0]
            if nearest.equation.op.name in MOVING:  # it only moves what something before it has set to zero
                nearest = _sparsest(found.way[: found.way.index(nearest)]) or nearest
            reason, text = reason_at(nearest, self.name_of, zero=nearest in found.cuts)
            others = [place_of(self.statement_of(p.equation)) for p in found.cuts[1:]]
            statement = self.statement_of(nearest.equation)
            return self._why("zero", reason, text, statement, found, others=others)
        if self._effect(gradient) < TINY or norm(gradient) < TINIEST * np.sqrt(gradient.size):
            steep = steepest(found.way)
            if steep is None or steep.gain > _STEEP:
                return self._why("tiny", GRADUALLY, _by_op(found.way), None, found)
            reason, text = reason_at(steep, self.name_of)
            return self._why("tiny", reason, text, self.statement_of(steep.equation), found)
        if not gradient.all() and (sparse := _sparsest(found.way)) is not None:
            reason, text = reason_at(sparse, self.name_of)
            return self._why("partly zero", reason, text, self.statement_of(sparse.equation), found)
        return self._why("fine", FINE, "nothing on the way holds it back", None, found)

    def _effect(self, gradient: Array) -> float:
        """How much of the loss a change of the parameter by its own size would change, to first order."""
        value = self.target.value
        size = norm(value) if value is not None else 0.0
        own = max(size, 1e-2 * float(np.sqrt(gradient.size)))  # biases start at 0
        loss = abs(float(self.loss.value)) if self.loss.value is not None else 1.0
        return norm(gradient) * own / max(loss, 1e-30)

    def _why(
        self,
        verdict: str,
        reason: Reason,
        explanation: str,
        statement: Statement | None,
        found: Walked | None,
        others: Sequence[str] = (),
        certain: bool = True,
    ) -> Why:
        gradient = None if found is None else found.gradient
        here = "" if statement is None else place_of(statement)
        return Why(
            parameter=self.name,
            verdict=verdict,
            reason=reason.name,
            explanation=explanation,
            place=here,
            file="" if statement is None else statement.file,
            line=0 if statement is None else statement.line,
            code="" if statement is None else statement.text,
            certain=certain,
            gradient=gradient,
            norm=0.0 if gradient is None else norm(gradient),
            path=tuple(self._step(p) for p in (() if found is None else found.way)),
            others=tuple(dict.fromkeys(o for o in others if o != here)),
            remedy=reason.remedy,
        )

    def _step(self, p: Passed) -> PathStep:
        e, name = p.equation, self.name_of(p.equation)
        text = expression(e, self.name_of, depth=1)
        statement = self.statement_of(e)
        return PathStep(
            text=f"{name} = {text}" if name and name != text else text,
            op=e.op.name,
            arrives=norm(p.arrives),
            gain=p.gain,
            zeros=1 - np.count_nonzero(p.passes) / max(p.passes.size, 1),
            file=statement.file,
            line=statement.line,
            code=statement.text,
            scope=e.scope,
        )


def _by_op(way: Sequence[Passed]) -> str:
    """The gains of ops that shrink it, multiplied up; the worst first."""
    gains: dict[str, list[float]] = {}
    for p in way:
        gains.setdefault(p.equation.op.name, []).append(p.gain)
    products = {op: float(np.prod(each)) for op, each in gains.items()}
    worst = sorted((op for op in products if products[op] < 0.5), key=lambda op: products[op])
    return "no single place is to blame; together " + ", ".join(
        f"{len(gains[op])} × {op} let {products[op]:.2g} of it through" for op in worst[:4]
    )


def _sparsest(way: Sequence[Passed]) -> Passed | None:
    """The equation that adds most to the share of zeros."""

    def added(p: Passed) -> float:
        return np.count_nonzero(p.arrives) / p.arrives.size - np.count_nonzero(p.passes) / p.passes.size

    worst = max(way, key=added, default=None)
    return worst if worst is not None and added(worst) > 0 else None
