"""Gradients against numerical derivatives: of the whole function, one argument at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.check.local import kinks_at
from stepgrad.check.replay import Recorded, custom_rule_of
from stepgrad.check.report import ArgumentCheck, Kink
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
from stepgrad.errors import ArgumentError
from stepgrad.execute.numpy import Program
from stepgrad.tape.backward import walk
from stepgrad.tape.equation import Equation
from stepgrad.tape.leaves import constant
from stepgrad.tape.recording import recording
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array

_SMALL = 200
"""The most elements of an argument of which every one is checked."""
_MOST_ELEMENTS = 4_000
"""The most elements that are checked one by one in all; further arguments are checked along directions."""


class Comparison:
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
        lines = Lines(self, leaf, moving)
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


class Lines:
    """The function along lines through one argument, the others keeping their values."""

    def __init__(self, comparison: Comparison, leaf: Equation, moving: Sequence[Equation]) -> None:
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
                self.comparison.found += kinks_at(self.comparison.recorded, equation, where)
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
