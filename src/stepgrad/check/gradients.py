"""check_gradients: is backpropagation right for this function, at these values?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.local import check_rules, kinks_at
from stepgrad.check.replay import (
    Recorded,
    called,
    check_deterministic,
    custom_rule_of,
    in_float64,
    left_the_tape,
    record_call,
)
from stepgrad.check.report import ArgumentCheck, Kink, Report
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
from stepgrad.errors import ArgumentError, StepgradError
from stepgrad.execute.numpy import Program
from stepgrad.tape.backward import walk
from stepgrad.tape.equation import Equation
from stepgrad.tape.recording import constant, place_text, recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array

_SMALL = 200
"""The most elements of an argument of which every one is checked."""
_MOST_ELEMENTS = 4_000
"""The most elements that are checked one by one in all; further arguments are checked along directions."""


def check_gradients(
    fn: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    directions: int = 8,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Report:
    """Compares the gradients of a function with numerical ones, and every local rule with its op.

    Everything is computed in float64, whatever dtype the arguments have: the function is called to
    record it, and its equations are then run again at neighbouring points. Parameters and random
    keys keep their values.

    First the gradient of each argument is compared with the derivative by the complex step, where
    every op on the way is analytic, and by central differences elsewhere: for each element, or along
    random directions if there are more than 200. Then the local rule of every equation is compared
    with the derivative of what it computes, so that a wrong one is named with its line.

    The relative error of a gradient a against a numerical derivative n is
    |a - n| / max(|a|, |n|, noise / tolerance), where noise is what float64 can't resolve: about
    1e-10 of the function's value for differences, and 1e-13 for the complex step, for a change of
    the argument by its own size.

    Where the function has a kink (relu at 0, a tie in max) there is no derivative to compare with.
    Kinks are found by comparing slopes to the left and to the right, reported, and not counted as
    mistakes.

    Args:
        fn: a function of arrays, tensors, modules, or nested lists, tuples and dicts of them; it
            returns a floating-point tensor, or a nested structure of them. What it returns is
            weighted with a random downstream gradient if it is not a single number.
        args: its arguments.
        wrt: what to differentiate with respect to: positions or names of arguments, tensors,
            parameters or modules, one or several. By default every floating-point argument, and
            every parameter and tensor that the function uses.
        directions: how many random directions to use for large arguments.
        tolerance: the largest relative error that counts as agreement.
        seed: where the random numbers start.

    Returns:
        A `Report`: true if everything agrees, and readable when printed.

    Raises:
        ArgumentError: an argument or the result is NaN or infinite; the message says where.
        DtypeError: the gradient of integers was asked for.
        GradientError: the function returns no tensor, or computes something else each time.

    Example:
        >>> report = sg.check_gradients(lambda x: np.sum(x * x), np.array([1.0, 2.0]))
        >>> report.ok, report.arguments[0].method
        (True, 'complex step')
    """
    if directions < 1 or not 0 < tolerance < 1:
        raise ArgumentError(
            f"check_gradients was called with directions={directions} and tolerance={tolerance}",
            "at least one direction is needed, and a relative error between 0 and 1",
            "leave them out, or pass for example directions=8, tolerance=1e-6",
        )
    first = record_call(fn, args, wrt)
    check_deterministic(first, record_call(fn, args, wrt), fn)
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        recorded = in_float64(first)
        _check_finite(recorded, fn)
        left = left_the_tape(first, fn, args, wrt, rng)
        return _report(first, recorded, [*_notes(recorded), *left], directions, tolerance, rng)


def _report(
    first: Recorded,
    recorded: Recorded,
    notes: list[str],
    directions: int,
    tolerance: float,
    rng: np.random.Generator,
) -> Report:
    equations, found = check_rules(recorded, tolerance, rng)
    arguments: list[ArgumentCheck] = []
    try:
        arguments, more = _Comparison(recorded, directions, tolerance, rng).arguments()
        found += more
    except Exception as error:
        if all(e.ok for e in equations):
            raise
        notes.append(f"the backward pass stopped, so no gradient was compared: {_what(error)}")
    if any(a.kinks and not a.count for a in arguments):
        arguments = _beside_kinks(first, arguments, directions, tolerance, rng)
        notes.append("* compared at a random point nearby, because there are kinks in every direction here")
    ok = all(e.ok for e in equations) and all(a.ok for a in arguments)
    return Report(
        ok=ok,
        max_error=max((a.error for a in arguments), default=0.0 if ok else float("inf")),
        tolerance=tolerance,
        arguments=tuple(arguments),
        equations=tuple(equations),
        kinks=tuple(dict.fromkeys(found)),
        notes=tuple(notes),
    )


def _notes(recorded: Recorded) -> list[str]:
    """Inputs to which no gradient can flow, and why."""
    if not recorded.tape.inputs:
        return ["the function has no floating-point argument, and uses no parameter or tensor"]
    notes = []
    reached = {e for e in recorded.tape.equations if e.active} | set(recorded.tape.outputs)
    for leaf, name in recorded.names.items():
        readers = [e for e in recorded.tape.equations if leaf in e.inputs]
        if not readers and leaf not in reached:
            notes.append(f"the function does not use {name}")
        elif readers and reached.isdisjoint(readers):
            cut = readers[0]
            notes.append(f"no gradient flows to {name}: it stops at {cut.op.name}, {place_text(cut.where)}")
    return notes


def _what(error: Exception) -> str:
    return (error.what if isinstance(error, StepgradError) else str(error)).splitlines()[0]


def _beside_kinks(
    first: Recorded, arguments: list[ArgumentCheck], directions: int, tolerance: float, rng: np.random.Generator
) -> list[ArgumentCheck]:
    """Compares arguments of which nothing could be compared once more, a little way off the kinks."""
    moved = {}
    for leaf in first.tape.inputs:
        x = np.asarray(leaf.value, np.float64)
        moved[leaf] = x + 1e-3 * scale_of(x, least=1e-2) * rng.standard_normal(x.shape)
    recorded = in_float64(first, moved)
    if not all(np.isfinite(e.value).all() for e in recorded.tape.outputs):
        return arguments
    again, _ = _Comparison(recorded, directions, tolerance, rng).arguments()
    return [
        replace(b, name=b.name + " *", kinks=a.kinks) if a.kinks and not a.count else a
        for a, b in zip(arguments, again, strict=True)
    ]


def _check_finite(recorded: Recorded, fn: Callable[..., Any]) -> None:
    for leaf in recorded.tape.inputs:
        if not np.isfinite(leaf.value).all():
            element = tuple(int(i) for i in np.argwhere(~np.isfinite(leaf.value))[0])
            raise ArgumentError(
                f"{recorded.names[leaf]} {leaf.type.shape} has the value {leaf.value[element]} at element "
                f"{list(element)}",
                "there is no derivative at a point that is not finite",
                "check the gradients at values such as those the function is meant for",
            )
    if all(np.isfinite(e.value).all() for e in recorded.tape.outputs):
        return
    for equation in recorded.tape.equations:
        bad = ~np.isfinite(equation.value)
        if bad.any() and all(np.isfinite(e.value).all() for e in equation.inputs):
            element = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ArgumentError(
                f"{called(fn)} returned NaN or infinity, which {equation.op.name} made first: "
                f"{equation.value[element]} at element {list(element)}\n  at {place_text(equation.where)}",
                "there is no derivative where the function has no finite value",
                "pass arguments inside the function's domain, or compute this line in a safer way",
            )
    raise ArgumentError(
        f"{called(fn)} returned NaN or infinity",
        "constants that it uses are not finite",
        "look at the arrays that the function reads",
    )


class _Comparison:
    """The gradients of one recorded call, and the same derivatives computed numerically."""

    def __init__(self, recorded: Recorded, directions: int, tolerance: float, rng: np.random.Generator) -> None:
        self.recorded, self.directions, self.tolerance, self.rng = recorded, directions, tolerance, rng
        outputs = recorded.tape.outputs
        self.downstream = [np.ones(()) if e.type.shape == () else rng.standard_normal(e.type.shape) for e in outputs]
        self.magnitude = float(sum(np.sum(np.abs(g * e.value)) for g, e in zip(self.downstream, outputs, strict=True)))
        self.found: list[Kink] = []

    def arguments(self) -> tuple[list[ArgumentCheck], list[Kink]]:
        """A check for each of the tape's inputs, and the kinks that were met."""
        gradients = self._gradients()
        left, checks = _MOST_ELEMENTS, []
        for leaf in self.recorded.tape.inputs:
            each = leaf.type.size <= min(_SMALL, left)
            left -= leaf.type.size if each else 0
            checks.append(self._argument(leaf, gradients[leaf], each))
        return checks, self.found

    def _gradients(self) -> dict[Equation, Array]:
        """The gradients under test: the backward walk over the float64 tape."""
        tape = self.recorded.tape
        seeds: dict[Equation, Any] = {}
        with recording(equations=[], closed=True, region=None, of=None):
            for output, given in zip(tape.outputs, self.downstream, strict=True):
                g = constant(given)
                seeds[output] = seeds[output] + g if output in seeds else g
            found = walk({e: g for e, g in seeds.items() if e.active}, tape.inputs)
        return {e: found[e].numpy() if e in found else np.zeros(e.type.shape) for e in tape.inputs}

    def _argument(self, leaf: Equation, gradient: Array, each: bool) -> ArgumentCheck:
        x = leaf.value
        moving = _depends_on(leaf, self.recorded)
        lines = _Lines(self, leaf, moving)
        scale = scale_of(x, least=1e-3)
        errors: list[tuple[float, Any, float, float]] = []
        for index in np.ndindex(x.shape) if each else range(self.directions):
            if each:
                v = np.zeros(x.shape)
                v[index] = scale[index]
                ours, unit = float(gradient[index] * scale[index]), float(scale[index])
            else:
                v = self.rng.standard_normal(x.shape) * scale
                ours, unit = float(np.sum(gradient * v)), 1.0
            compared = lines.compare(v, ours)
            if compared is not None:
                error, theirs = compared
                errors.append((error, index if each else None, ours / unit, theirs / unit))
        total = x.size if each else self.directions * bool(x.size)
        error, worst, ours, theirs = max(errors, key=lambda e: e[0], default=(0.0, None, 0.0, 0.0))
        return ArgumentCheck(
            name=self.recorded.names[leaf],
            shape=leaf.type.shape,
            ok=error <= self.tolerance,
            error=error,
            count=len(errors),
            kinks=total - len(errors),
            method=lines.method,
            directions=not each,
            worst=worst,
            ours=ours,
            theirs=theirs,
        )


class _Lines:
    """The function along lines through one argument, the others keeping their values."""

    def __init__(self, comparison: _Comparison, leaf: Equation, moving: Sequence[Equation]) -> None:
        self.comparison, self.x, self.moving = comparison, leaf.value, moving
        outputs = comparison.recorded.tape.outputs
        tape = Tape(moving, (leaf,), outputs)
        self.program = Program(tape)
        self.everything = Program(Tape(moving, (leaf,), moving))
        self.base = [e.value for e in outputs]
        self.analytic = all(_is_analytic(e) for e in moving)
        self.complex = Program(tape, np.complex128) if self.analytic else None
        self.methods: set[str] = set()

    @property
    def method(self) -> str:
        return " and ".join(sorted(self.methods, reverse=True)) or "central differences"

    def compare(self, v: Array, ours: float) -> tuple[float, float] | None:
        """Relative error and numerical derivative along v; None at a kink.

        The cheapest derivative is tried first; more care is taken only where it disagrees.
        """
        magnitude, tolerance = self.comparison.magnitude, self.comparison.tolerance
        if self.complex is not None:
            theirs = self._complex_step(v)
            error = disagreement(ours, theirs, 500 * EPS * magnitude, tolerance)
            if error <= tolerance:
                self.methods.add("complex step")
                return error, theirs
        self.methods.add("central differences")

        def path(t: float) -> Array:
            return np.asarray(self._change(t * v))

        theirs = float(central(path))
        error = disagreement(ours, theirs, rounding(magnitude), tolerance)
        if error <= tolerance:
            return error, theirs
        value, uncertainty = careful(path, magnitude)
        error = disagreement(ours, float(value), 4 * float(uncertainty), tolerance)
        if error <= tolerance:
            return error, float(value)
        if self._kinks(v):
            return None
        return error, float(value)

    def _change(self, step: Array) -> float:
        """How the weighted outputs change when the argument moves; NaN outside the domain."""
        try:
            moved = self.program.run([self.x + step])
        except ArgumentError:
            return float("nan")
        return self._weighted([m - b for m, b in zip(moved, self.base, strict=True)])

    def _weighted(self, changes: Sequence[Array]) -> float:
        return float(sum(np.sum(g * c) for g, c in zip(self.comparison.downstream, changes, strict=True)))

    def _complex_step(self, v: Array) -> float:
        assert self.complex is not None
        try:
            moved = self.complex.run([self.x + 1j * COMPLEX_STEP * v])
        except ArgumentError:
            return float("nan")
        return self._weighted([np.imag(m) / COMPLEX_STEP for m in moved])

    def _kinks(self, v: Array) -> bool:
        """Whether there is a kink along v, or one that shows only between v and other lines."""

        def around(u: Array, steps: Sequence[float]) -> list[list[Array]]:
            return [self.everything.run([self.x + t * u]) for t in steps]

        try:
            ends = around(v, KINK_STEPS)
            if self._enter_kinks(
                [kinks(e.value, at, e.op.elementwise) for e, *at in zip(self.moving, *ends, strict=True)]
            ):
                return True
            for _ in range(OTHER_LINES):
                w = self.comparison.rng.standard_normal(v.shape) * scale_of(self.x, least=1e-3)
                lines = [around(u, NEAR_STEPS) for u in (v, w, v + w)]
                bent = [bends(e.value, *([at[i] for at in line] for line in lines)) for i, e in enumerate(self.moving)]
                if self._enter_kinks(bent):
                    return True
        except ArgumentError:  # outside the domain
            pass
        return False

    def _enter_kinks(self, bent: list[Array]) -> bool:
        """Notes the equations that have a kink although what they read has none."""
        before = len(self.comparison.found)
        behind: set[Equation] = set()
        for equation, where in zip(self.moving, bent, strict=True):
            inherited = not behind.isdisjoint(equation.inputs)
            if inherited or where.any():
                behind.add(equation)
            if where.any() and not inherited:
                self.comparison.found += kinks_at(equation, where)
        return len(self.comparison.found) > before


def _depends_on(leaf: Equation, recorded: Recorded) -> list[Equation]:
    """The equations whose values change with a leaf; what the user detached does not."""
    moving = {leaf}
    for equation in recorded.tape.equations:
        if equation not in recorded.held and not moving.isdisjoint(equation.inputs):
            moving.add(equation)
    return [e for e in recorded.tape.equations if e in moving]


def _is_analytic(equation: Equation) -> bool:
    """Whether the complex step goes through it."""
    if equation.op.name == "astype":
        return equation.type.is_float and equation.inputs[0].type.is_float
    return equation.op.analytic or custom_rule_of(equation) is not None
