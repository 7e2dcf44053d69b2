"""Is each local rule right? Every rule is compared, at the recorded values, with its op's own derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stepgrad.check.replay import Recorded, custom_rule_of
from stepgrad.check.report import EquationCheck, Kink
from stepgrad.check.slopes import (
    COMPLEX_STEP,
    EPS,
    KINK_STEPS,
    NEAR_STEPS,
    OTHER_LINES,
    bends,
    careful,
    central,
    disagreement,
    kinks,
    rounding,
    scale_of,
)
from stepgrad.errors import StepgradError
from stepgrad.execute.numpy import Program
from stepgrad.tape.equation import LITERAL, Equation, Role
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array, Tensor

_TRIALS = 2


@dataclass
class _Trial:
    """A rule tried on a random downstream gradient g and a random direction v of its operand.

    Attributes:
        ours: rule(g)·v.
        theirs: g·(J v), by the complex step or differences.
        error: their relative error.
        transposed: ours, with the result of the rule transposed if it is square.
    """

    ours: float
    theirs: float
    error: float
    transposed: float


def check_rules(
    recorded: Recorded, tolerance: float, rng: np.random.Generator
) -> tuple[list[EquationCheck], list[Kink]]:
    """Compares the local rules of all equations on the way from the inputs to the outputs.

    For a random downstream gradient g and a random direction v, rule(g)·v has to be g·(J v), where J
    is the Jacobian of the op's NumPy meaning (for a custom rule: of its forward function).
    Where the op has a kink at the recorded values, g is 0.

    Returns:
        A check for every equation that has a local rule in use, in the order of recording; kinks.
    """
    checks: list[EquationCheck] = []
    found: list[Kink] = []
    inside = {e for part in recorded.inner.values() for e in part}
    for equation in recorded.tape.equations:
        if equation in inside:  # the custom rule stands for them
            continue
        flows = equation.op.signature(tuple(e.type for e in equation.inputs), equation.params).flows
        reached = [i for i in flows if equation.inputs[i].active] if equation.active else []
        operands = [_Operand(recorded, equation, equation.inputs[i], i) for i in reached]
        operands += [_Operand(recorded, equation, e, None) for e in _closed_over(recorded, equation)]
        if operands:
            worst = max((_check(o, tolerance, rng, found) for o in operands), key=lambda verdict: verdict.error)
            checks.append(_describe(equation, worst, worst.error <= tolerance))
    return checks, found


@dataclass(frozen=True)
class _Operand:
    """One operand of an equation; or (position None) what a custom rule's forward uses besides them."""

    recorded: Recorded
    equation: Equation
    source: Equation
    position: int | None

    def meaning(self) -> Callable[[Array], Array]:
        """The op's NumPy meaning as a function of this operand; NaN outside its domain."""
        equation, part = self.equation, self.recorded.inner.get(self.equation)
        compute: Callable[[Array], Array]
        if part is not None:
            program = Program(Tape(part, (self.source,), (equation.inputs[0],)))
            compute = lambda x: program.run([x])[0]
        else:
            values = [e.params["value"] if e.op is LITERAL else e.value for e in equation.inputs]
            before, after = values[: self.position], values[(self.position or 0) + 1 :]
            compute = lambda x: np.asarray(equation.op.numpy(*before, x, *after, **equation.params))

        def guarded(x: Array) -> Array:
            try:
                return compute(x)
            except Exception:  # NumPy refuses: a singular matrix, a function without complex numbers
                return np.full(equation.type.shape, np.nan)

        return guarded

    def upstream(self, g: Array) -> Array:
        """What the local rule makes of a downstream gradient."""
        equation = self.equation
        if self.position is None:
            return np.zeros(self.source.type.shape)
        rule = equation.op.rule(self.position)
        assert rule is not None
        inputs = [Tensor(e.value, e) for e in equation.inputs]
        with recording(equations=[], closed=True, region=None, masks=None, role=Role.BACKWARD, of=equation):
            return as_tensor(rule(constant(g), Tensor(equation.value, equation), *inputs, **equation.params)).numpy()


def _closed_over(recorded: Recorded, equation: Equation) -> list[Equation]:
    """What a custom rule's forward function uses although it is not one of its operands."""
    part = recorded.inner.get(equation, ())
    known = {*part, *equation.inputs[1:]}
    return [e for e in dict.fromkeys(source for p in part for source in p.inputs) if e.active and e not in known]


@dataclass(frozen=True)
class _Verdict:
    """The relative error of one rule, and what is wrong with it."""

    operand: _Operand
    error: float
    problem: str = ""


def _check(operand: _Operand, tolerance: float, rng: np.random.Generator, found: list[Kink]) -> _Verdict:
    equation, meaning = operand.equation, operand.meaning()
    x, out = operand.source.value, equation.value
    scale = scale_of(x)
    trials: list[_Trial] = []
    for _ in range(_TRIALS):
        v = rng.standard_normal(x.shape) * scale
        g = rng.standard_normal(out.shape)
        bent = kinks(out, [meaning(x + t * v) for t in KINK_STEPS], equation.op.elementwise)
        outcome = _try(operand, meaning, v, g, bent, tolerance)
        if isinstance(outcome, _Trial) and outcome.error > tolerance:
            more = np.zeros(out.shape, np.bool_)
            for w in rng.standard_normal((OTHER_LINES, *x.shape)) * scale:
                more |= bends(out, *([meaning(x + t * u) for t in NEAR_STEPS] for u in (v, w, v + w)))
            if more.any():
                bent = bent | more
                outcome = _try(operand, meaning, v, g, bent, tolerance)
        if bent.any():
            found.extend(kinks_at(operand.recorded, equation, bent))
        if isinstance(outcome, str):
            return _Verdict(operand, float("inf"), outcome)
        trials.append(outcome)
    error = max(trial.error for trial in trials)
    return _Verdict(operand, error, "" if error <= tolerance else _diagnosis(trials, operand))


def _try(
    operand: _Operand, meaning: Callable[[Array], Array], v: Array, g: Array, bent: Array, tolerance: float
) -> _Trial | str:
    """Tries a rule on one g, set to 0 at kinks, and one v; or says what keeps the rule from being tried."""
    x = operand.source.value
    g = np.where(bent | ~np.isfinite(operand.equation.value), 0.0, g)
    try:
        upstream = operand.upstream(g)
    except Exception as error:  # a rule of the user's own may raise anything
        return _first_line(error)
    if upstream.shape != x.shape:
        hint = ": it is transposed" if upstream.shape == x.shape[::-1] else ""
        return f"the rule returns shape {upstream.shape} for an operand of shape {x.shape}{hint}"
    finite = np.isfinite(upstream)
    if not finite.all():
        if not bent.any():
            element = tuple(int(i) for i in np.argwhere(~finite)[0])
            return f"the rule returns {upstream[element]} at element {list(element)}"
        upstream, v = np.where(finite, upstream, 0.0), np.where(finite, v, 0.0)
    return _compare(operand, upstream, meaning, v, g, tolerance)


def _compare(
    operand: _Operand, upstream: Array, meaning: Callable[[Array], Array], v: Array, g: Array, tolerance: float
) -> _Trial:
    """Compares with the cheapest derivative first, and takes more care only where it disagrees."""
    x, out = operand.source.value, operand.equation.value

    def path(t: float) -> Array:
        return meaning(x + t * v)

    def along(slope: Array) -> float:
        return float(np.sum(g * slope, where=g != 0))

    ours = float(np.sum(upstream * v, where=upstream != 0))
    transposed = float(np.sum(upstream.T * v)) if upstream.shape == upstream.shape[::-1] else ours
    size = np.abs(np.where(np.isfinite(out), out, 0.0))
    weight = float(np.sum(np.abs(g) * size))
    if operand.equation.op.analytic:
        theirs = along(np.imag(meaning(x + 1j * COMPLEX_STEP * v)) / COMPLEX_STEP)
        error = disagreement(ours, theirs, 500 * EPS * weight, tolerance)
        if error <= tolerance:
            return _Trial(ours, theirs, error, transposed)
    theirs = along(central(path))
    error = disagreement(ours, theirs, rounding(weight), tolerance)
    if error <= tolerance:
        return _Trial(ours, theirs, error, transposed)
    slope, uncertainty = careful(path, size)
    theirs = along(slope)
    noise = 4 * float(np.sum(np.abs(g) * uncertainty, where=g != 0))
    return _Trial(ours, theirs, disagreement(ours, theirs, noise, tolerance), transposed)


def _first_line(error: Exception) -> str:
    text = error.what if isinstance(error, StepgradError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0]


# --- naming what is wrong


def _diagnosis(trials: Sequence[_Trial], operand: _Operand) -> str:
    """What a wrong rule might have got wrong, judged by the ratio of what it returns to the truth."""
    equation = operand.equation
    if operand.position is None:
        return (
            f"its forward uses {operand.source.name or 'a tensor'}, which is not one of its operands, so no gradient "
            "flows there: pass it as an argument, and return its gradient from the backward"
        )
    if all(np.isclose(t.transposed, t.theirs, rtol=1e-6) for t in trials):
        return "it is transposed"
    ratios = [t.ours / t.theirs if t.theirs else float("inf") for t in trials]
    if all(t.ours == 0 for t in trials):
        return "the rule returns zeros"
    ratio = float(np.mean(ratios))
    if not np.allclose(ratios, ratio, rtol=1e-6, atol=0):
        return "its gradient is not a multiple of the derivative: look at the formula itself"
    if abs(ratio + 1) < 1e-6:
        return "the sign is wrong"
    for size in sorted({n for e in (equation, *equation.inputs) for n in (*e.type.shape, e.type.size)} - {0, 1}):
        if abs(ratio / size - 1) < 1e-6:
            return f"it is {size} times too large: is a mean over {size} elements missing?"
        if abs(ratio * size - 1) < 1e-6:
            return f"it is {size} times too small: is a mean over {size} elements too many?"
    return f"it is {ratio:.6g} times the derivative: look for a factor"


def _describe(equation: Equation, verdict: _Verdict, ok: bool) -> EquationCheck:
    file, number, code = verdict.operand.recorded.place(equation)
    rule = custom_rule_of(equation)
    position = verdict.operand.position
    backward = getattr(getattr(rule, "_backward", None), "__code__", None)
    return EquationCheck(
        op=equation.op.name,
        name=equation.name,
        operand=position if position is None or rule is None else position - 1,
        operand_name=verdict.operand.source.name,
        error=verdict.error,
        ok=ok,
        problem=verdict.problem,
        file=file,
        line=number,
        code=code,
        rule=None if backward is None else (backward.co_filename, backward.co_firstlineno),
    )


def kinks_at(recorded: Recorded, equation: Equation, bent: Array) -> list[Kink]:
    """The kinks of one equation, one for each element."""
    file, number, code = recorded.place(equation)
    return [
        Kink(equation.op.name, equation.name, tuple(int(i) for i in index), file, number, code)
        for index in np.argwhere(bent)
    ]
