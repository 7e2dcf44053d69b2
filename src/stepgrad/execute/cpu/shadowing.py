"""Shadow mode: after each kernel, NumPy computes its equations from the very same operands, and they are compared.

Equal bits pass. Otherwise a difference may come from two things only: sums in another order, and functions
such as exp, whose last bits differ. How far these can move a result is measured rather than guessed:
NumPy computes the equations again with such roundings, at random. So an element that stands on the edge of a
comparison is excused, and one that is off by a little for no reason is not.
"""

from __future__ import annotations

import copy
import ctypes
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgrad.buffers import changes
from stepgrad.errors import ShadowError
from stepgrad.execute.cpu import library, platform
from stepgrad.execute.cpu.described import Described, describe
from stepgrad.execute.cpu.naming import Names
from stepgrad.execute.cpu.plan import scratch_of, split_of
from stepgrad.execute.cpu.words import Program as Word
from stepgrad.execute.cpu.words import Row
from stepgrad.passes.axes import Uneven
from stepgrad.passes.fusion import Group
from stepgrad.passes.indexing import identity
from stepgrad.passes.kinds import CHEAP, VIEWS
from stepgrad.passes.lowering import Lowering
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, leaves
from stepgrad.tape.places import place_text
from stepgrad.tape.printing import line
from stepgrad.tensor import Array

if TYPE_CHECKING:
    from stepgrad.execute.cpu.program import Program

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
SAMPLES = 16
"""How often NumPy computes with other roundings, where bits differ."""
ULPS = 4
"""How far NumPy's and a kernel's exp, say, may be apart: 2 ulp of each."""
EXACT = (CHEAP - {"clip"}) | VIEWS | frozenset("divide sqrt reciprocal floor ceil trunc rint max min any all".split())
"""Ops with one right result, which both compute."""
SUMS = frozenset("sum matmul scatter_add add_along_axis".split())

Values = dict[Equation, Any]


class Shadow:
    """Runs a program kernel by kernel, on the calling thread, and compares each with NumPy.

    Every thread's share is computed, one after the other.
    """

    def __init__(self, program: Program) -> None:
        self._program, self._plan = program, program._plan
        self._names = Names(self._plan)
        self._kernels = describe(self._plan, self._names)

    def run(self, steps: int = 1) -> None:
        """Runs the program, whose inputs and results have been set.

        Raises:
            ShadowError: a kernel differs from NumPy. All cells are as they were before.
            Exception: what a row that Python does raised, or what a check found; likewise.
        """
        program, loaded = self._program, self._program._loaded
        cells = [program._memory(cell) for cell in self._plan.fusion.assigned.values()]
        with loaded.entered():
            before = [(cell, cell.copy()) for cell in cells]
            try:
                for _ in range(steps):
                    loaded.block[Word.ABORT] = 0
                    if not self._step():
                        loaded.fail()
                    for slot, stride in loaded.moving:
                        loaded.addresses[0, slot] += stride
            except BaseException:
                for cell, value in before:
                    np.copyto(cell, value)
                raise
            finally:
                changes[0] += 1

    def _step(self) -> bool:
        """One step; False where a check ended it."""
        loaded = self._program._loaded
        for row, kernel in enumerate(self._kernels):
            body = kernel.step.kernel.body
            if body is None:
                self._program._fall_back(row)
            elif not kernel.members:
                self._call(row)
                if loaded.block[Word.ABORT]:
                    return False
            else:
                self._compared(row, kernel)
        return True

    def _call(self, row: int) -> None:
        loaded, split = self._program._loaded, self._kernels[row].step.split
        function, first = (int(loaded._table[row, word]) for word in (Row.FUNCTION, Row.FIRST))
        threads = loaded.threads if split is not None and split.length else 1
        for thread in range(threads):
            KERNEL(function)(loaded.addresses.ctypes.data, loaded._operands.ctypes.data + 8 * first, thread, threads)

    # --- one kernel

    def _compared(self, row: int, kernel: Described) -> None:
        fusion, program = self._plan.fusion, self._program
        both = kernel.step.kernel.reads & kernel.step.kernel.writes
        kept = {e: program._memory(e).copy() for e in (kernel.step.kernel.operands[i] for i in both)}
        reference = _Reference(self, kernel.members, kept)
        values = reference.values()
        self._call(row)
        for member in kernel.members:
            target = fusion.assigned.get(member, member if member in fusion.stored else None)
            if target is not None:
                found = program._memory(target)
                wrong = _differences(found, values[member], reference.tolerances(member, values))
                if wrong is not None:
                    raise self._error(kernel, reference, values, _Wrong(member, found.copy(), *wrong))

    def _error(self, kernel: Described, reference: _Reference, values: Values, wrong: _Wrong) -> ShadowError:
        wrong = _Search(self, kernel, reference, values).first() or wrong
        e, found, at = wrong.equation, wrong.found, wrong.at
        expected = np.asarray(reference.value(e, values))
        labels: Mapping[Equation, str] = self._names.of
        operands = []
        for source in dict.fromkeys(e.inputs):
            if source.op is not LITERAL:
                value = np.asarray(reference.value(source, values))
                here = value[at] if value.shape == found.shape else None if value.shape else value[()]
                operands += [] if here is None else [f"{labels[source]} = {here}"]
        there = f" at {at}" if at else ""
        return ShadowError(
            f"{line(e, {**labels, **_missing(e, labels)}).partition('  # ')[0]}\n"
            f"  is {found[at]}{there} in the program, and {expected[at]} in NumPy"
            + (f", where {', '.join(operands)}" if operands else "")
            + f"\n  at {place_text(e.where)}"
            f"\n  in {kernel.name} {textwrap.shorten(kernel.title, 100, placeholder=' …')}",
            f"{wrong.count} of {found.size} elements differ, by {_largest(found, expected):.3g} at most; sums in "
            f"another order and the last bits of functions explain {wrong.tolerance:.3g} here",
            'report this as a bug, with the printed program; until then, compile with executor="numpy"',
        )


def _missing(e: Equation, labels: Mapping[Equation, str]) -> dict[Equation, str]:
    return {x: x.op.name for x in (e, e.of) if x is not None and x not in labels}


def _largest(found: Array, expected: Array) -> float:
    with np.errstate(all="ignore"):
        return float(np.nanmax(np.abs(np.subtract(found, expected, dtype=np.float64)), initial=0.0))


@dataclass(frozen=True)
class _Wrong:
    """An equation that differs: what the program has, where it is furthest off, how often, and the tolerance there."""

    equation: Equation
    found: Array
    at: tuple[int, ...]
    count: int
    tolerance: float


def _differences(found: Array, expected: Any, tolerances: Iterator[Any]) -> tuple[tuple[int, ...], int, float] | None:
    """Where two arrays differ most, how many elements do, and the tolerance there; None if all is well.

    Args:
        tolerances: ever wider; asked for only as long as there is a difference.
    """
    expected = np.broadcast_to(np.asarray(expected).astype(found.dtype, copy=False), found.shape)
    with np.errstate(all="ignore"):
        same = (found == expected) | ((found != found) & (expected != expected))
        if same.all():
            return None
        off = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        for tolerance in tolerances:
            allowed = np.broadcast_to(tolerance, found.shape)
            wrong = ~same & ~(off <= allowed) & (allowed != np.inf)
            if not wrong.any():
                return None
        excess = np.where(wrong, np.where(np.isfinite(off), off - allowed, np.inf), -1.0)
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), found.shape))
    return at, int(wrong.sum()), float(allowed[at])


# --- what NumPy has


class _Reference:
    """A kernel's equations, computed by NumPy from the operands that the kernel reads.

    Args:
        kept: the operands that the kernel overwrites, as they were before.
    """

    def __init__(self, shadow: Shadow, members: Sequence[Equation], kept: Mapping[Equation, Array]) -> None:
        self.program, self.fusion = shadow._program, shadow._plan.fusion
        self.members, self.kept = members, kept
        self.inside = set(members)

    def values(self, noise: np.random.Generator | None = None) -> Values:
        """The value of each equation; with noise, as other roundings would give it."""
        found: Values = {}
        for member in self.members:
            self.value(member, found, noise)
        return found

    def value(self, wanted: Equation, found: Values, noise: np.random.Generator | None = None) -> Any:
        """The value of one equation. What it needs is added to `found`."""
        todo = [wanted]
        while todo:
            e = todo[-1]
            if e in found:
                todo.pop()
            elif (known := self._known(e)) is not None:
                found[e] = known
            elif missing := [x for x in e.inputs if x not in found]:
                todo.extend(missing)
            else:
                found[e] = self._computed(e, [found[x] for x in e.inputs], noise)
        return found[wanted]

    def _known(self, e: Equation) -> Any:
        """The value of something that the kernel finds in memory; None for what it computes."""
        if e.op is LITERAL:
            return e.params["value"]
        if e in self.kept:
            return self.kept[e]
        if e.op is CONSTANT:
            return e.value
        stored = e in self.program._slots and e not in self.inside
        return self.program._memory(e) if stored or e.op in leaves else None

    def _computed(self, e: Equation, operands: list[Any], noise: np.random.Generator | None) -> Any:
        with np.errstate(all="ignore"):
            value = e.op.numpy(*operands, **e.params)
            if noise is not None and e.type.is_float:
                value = np.asarray(value, e.type.dtype)
                how_far = noise.choice([-1.0, -0.5, 0.5, 1.0], value.shape) * rounding(e, operands, value)
                value = (value + how_far).astype(value.dtype)
        if e.type.weak:
            return np.asarray(value).item()
        return np.asarray(value, e.type.dtype)

    def tolerances(self, e: Equation, values: Values) -> Iterator[Any]:
        """How far an equation's value may be off: float64, of its shape; wider with each further sample."""
        value = np.asarray(values[e])
        widest = np.zeros(value.shape)
        with np.errstate(all="ignore"):
            if e.type.is_float:
                widest = widest + rounding(e, [values[x] for x in e.inputs], value)
            yield widest
            noise = np.random.default_rng(0)
            for _ in range(SAMPLES):
                other = np.asarray(self.value(e, {}, noise))
                off = 2 * np.abs(other.astype(np.float64) - value.astype(np.float64))
                off = np.where((other == value) | ((other != other) & (value != value)), 0.0, off)
                widest = np.fmax(widest, np.where(np.isnan(off), np.inf, off))
                yield widest


def rounding(e: Equation, operands: Sequence[Any], value: Array) -> Any:
    """How far two good ways to compute an equation from the same operands may be apart.

    Sums: a multiple of eps · sum |x|, which grows with the square root of the number of terms, as rounding
    errors do that have nothing to do with each other.
    """
    if e.op.name in EXACT or not e.type.is_float:
        return 0.0
    unit = float(np.finfo(e.type.dtype).eps)
    if e.op.name in SUMS:
        terms = (
            max(np.size(x) for x in operands) / max(1, value.size) if e.op.name == "sum" else np.shape(operands[0])[-1]
        )
        magnitude = e.op.numpy(*[np.abs(x) if np.asarray(x).dtype.kind == "f" else x for x in operands], **e.params)
        return unit * (8 + 2 * np.sqrt(terms)) * np.asarray(magnitude, np.float64)
    return ULPS * unit * np.abs(value.astype(np.float64)) + ULPS * float(np.finfo(e.type.dtype).smallest_subnormal)


# --- which equation it was


class _Search:
    """Finds the first equation of a kernel that differs, by compiling ever longer beginnings of it."""

    def __init__(self, shadow: Shadow, kernel: Described, reference: _Reference, values: Values) -> None:
        self.shadow, self.kernel, self.reference, self.values = shadow, kernel, reference, values
        self.plan, self.program = shadow._plan, shadow._program

    def first(self) -> _Wrong | None:
        """The first equation that differs, or None if only the whole kernel does."""
        members = list(self.kernel.members)
        for count, member in enumerate(members, start=1):
            for cheap in self._computed_again(member):
                alone = Group("rows", cheap.type.shape, 0)
                alone.members, alone.at = [cheap], {cheap: identity(cheap.type.shape)}
                if wrong := self._compare(alone, cheap):
                    return wrong
            whole = self.kernel.step.kernel.group
            group = Group(whole.kind, whole.domain, 0)
            group.members, group.at = members[:count], {e: whole.at[e] for e in members[:count]}
            group.inner, group.reduced = whole.inner, whole.reduced
            if wrong := self._compare(group, member):
                return wrong
        return None

    def _computed_again(self, member: Equation) -> Iterable[Equation]:
        """What a member reads that is no member, but computed again in each kernel, in order."""
        found: dict[Equation, None] = {}
        todo = list(member.inputs)
        while todo:
            e = todo.pop()
            if e in self.plan.fusion.sunk or (e.op.name in VIEWS and e not in self.program._slots):
                found.setdefault(e)
                todo.extend(e.inputs)
        return sorted((e for e in found if e in self.plan.fusion.sunk), key=lambda e: e.serial)

    def _compare(self, group: Group, target: Equation) -> _Wrong | None:
        found = self._run(group, target)
        if found is None:
            return None
        expected = self.reference.value(target, self.values)
        wrong = _differences(found, expected, self.reference.tolerances(target, self.values))
        return None if wrong is None else _Wrong(target, found, *wrong)

    def _run(self, group: Group, target: Equation) -> Array | None:
        """What the target is in a kernel of this group that stores nothing else; None if there is no such kernel."""
        fusion = copy.copy(self.plan.fusion)
        fusion.groups, fusion.assigned = [group], {}
        fusion.stored = (fusion.stored - set(self.kernel.members)) | {target}
        try:
            (kernel,) = Lowering(fusion).kernels
        except Uneven:
            return None
        body, machine = kernel.body, self.program._target
        split = split_of(body, machine, 1)
        if body is None or split is None:
            return None
        address = library.addresses([(body, split)], machine, 1)[body, split]
        out = np.zeros(target.type.shape, target.type.dtype)
        scratch = platform.aligned(scratch_of(body, machine, 1) + 64, 64)
        memory = [scratch, *(self._memory(e, target, out) for e in kernel.operands)]
        slots = np.array([each.ctypes.data for each in memory], np.int64)
        ids = np.arange(1, len(memory), dtype=np.int64)
        KERNEL(address)(slots.ctypes.data, ids.ctypes.data, 0, 1)
        return out

    def _memory(self, e: Equation, target: Equation, out: Array) -> Array:
        if e is target:
            return out
        found = self.reference.kept.get(e)
        if found is not None:
            return found
        return np.ascontiguousarray(e.value) if e.op is CONSTANT else self.program._memory(e)
