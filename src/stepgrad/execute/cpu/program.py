"""Programs: a recorded step as native code, with its memory, ready to be run again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad.buffers import changes
from stepgrad.errors import IndexingError
from stepgrad.execute.cpu import library, listing, platform
from stepgrad.execute.cpu.builtin import Port, fast_entry
from stepgrad.execute.cpu.described import Fallback, fallbacks
from stepgrad.execute.cpu.loaded import Loaded
from stepgrad.execute.cpu.memory import Memory, memory_of
from stepgrad.execute.cpu.naming import Names
from stepgrad.execute.cpu.plan import make_plan
from stepgrad.execute.cpu.profiling import Profile, profile
from stepgrad.execute.cpu.shadowing import Shadow
from stepgrad.execute.cpu.sources import source
from stepgrad.execute.cpu.target import host
from stepgrad.execute.cpu.words import OWNER_SHIFT, Flag
from stepgrad.execute.cpu.words import Program as Word
from stepgrad.passes.checks import FAULT
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, LITERAL, Equation
from stepgrad.tape.places import place_text
from stepgrad.tape.tape import Tape
from stepgrad.tensor import Array


class Program:
    """A recorded step, compiled.

    Args:
        tape: what was recorded; its outputs are those of the user, and then the last assignment to each cell.
        user_outputs: how many outputs are the user's.
        memory: bytes that the values between kernels may take; None: as many as it takes to be fast.
        threads: how many threads may run it; None: as many as this process may use.
    """

    def __init__(
        self,
        tape: Tape,
        user_outputs: int,
        *,
        memory: int | None,
        threads: int | None,
        shadow: bool,
        denormals: str = "keep",
    ) -> None:
        self._target = host()
        plan = self._plan = make_plan(tape, user_outputs, self._target, threads or platform.cpus(), memory=memory)
        self._budget = memory
        self._slots = {e: i for i, e in enumerate(plan.tensors, start=1)}
        self._arena = platform.aligned(max(1, plan.buffers.size), 64)
        self._constants = {
            e: np.ascontiguousarray(e.value) for e in plan.tensors if e.op is CONSTANT and e is not FAULT
        }
        arguments = [e for e in tape.inputs if e.op is INPUT]
        self._inputs = [(self._slots.get(e), e.type.dtype, e.type.nbytes) for e in arguments]
        self._shapes = [(e.type.shape, e.type.weak) for e in arguments]
        self._fresh = [(self._slots[e], e.type.shape, e.type.dtype) for e in plan.results]
        outputs = plan.tape.outputs[:user_outputs]
        self._outputs = [e.params["value"] if e.op is LITERAL else plan.results.index(e) for e in outputs]
        self._literal = [e.op is LITERAL for e in outputs]
        self._is_native = all(step.split is not None for step in plan.steps)
        self.small = plan.threads == 1 and self._is_native
        cells = [e.params["cell"] for e in plan.tensors if e.op is CELL]
        for cell in cells:
            cell.bind()
        self._guard = cells[0].guard if cells else None
        self._flush = denormals == "flush" and not shadow
        self._loaded = self._load()
        self._shadow = Shadow(self) if shadow else None
        self._scanned: tuple[bool, ...] = ()
        self._steps = 1  # of the run that is going on
        self._set_moving((False,) * len(self._inputs))

    def _load(self) -> Loaded:
        plan, slots = self._plan, self._slots
        kernels = library.addresses(
            [(s.kernel.body, s.split) for s in plan.steps if s.kernel.body is not None and s.split is not None],
            self._target,
            plan.threads,
        )
        table: list[tuple[int, int, int, int]] = []
        operands: list[int] = []
        for step in plan.steps:
            flags, address = int(Flag.BARRIER) * step.barrier, 0
            if step.kernel.body is None or step.split is None:
                flags |= Flag.FALLBACK
            else:
                address = kernels[step.kernel.body, step.split]
                if step.kernel.body.kind == "check":
                    flags |= Flag.CHECK
                if not step.split.length and not step.kernel.everyone:
                    flags |= Flag.SINGLE | step.owner << OWNER_SHIFT
            ids = [slots[e] for e in step.kernel.operands]
            table.append((address, flags, len(operands), len(ids)))
            operands.extend(ids)
        loaded = Loaded(
            np.array(table, np.int64).reshape(-1, 4),
            np.array(operands, np.int64),
            len(slots) + 2,
            scratch_bytes=plan.scratch,
            threads=plan.threads,
            small=self.small,
            fallback=None if self._is_native else self._fall_back,
            owner=None if self._guard is None else self._guard.root().owner,
            changes=changes if plan.fusion.assigned else None,
            found=self._outside,
            flush=self._flush,
            keep=self._arena,
        )
        for equation, slot in slots.items():
            if equation is FAULT:
                loaded.set_slot(slot, loaded.address + 8 * Word.ABORT)
            elif equation.op is CELL:
                loaded.set_slot(slot, equation.params["cell"].bind().ctypes.data)
            elif equation.op is CONSTANT:
                loaded.set_slot(slot, self._constants[equation].ctypes.data)
            elif equation in plan.buffers.offsets:
                loaded.set_slot(slot, self._arena.ctypes.data + plan.buffers.offsets[equation])
        return loaded

    def _set_moving(self, scanned: tuple[bool, ...]) -> None:
        """Says which inputs move on from step to step. Results always do."""
        if scanned != self._scanned or not scanned:
            inputs = [
                (slot, nbytes if each else 0)
                for (slot, _, nbytes), each in zip(self._inputs, scanned, strict=True)
                if slot is not None
            ]
            results = [
                (slot, dtype.itemsize * int(np.prod(shape, dtype=np.int64))) for slot, shape, dtype in self._fresh
            ]
            self._loaded.set_moving([*inputs, *results])
            self._scanned = scanned

    # --- running

    def run(self, inputs: Sequence[Any]) -> list[Array]:
        """One step.

        Args:
            inputs: an array (a Python number where the type is weak) for each input of the tape.

        Returns:
            The user's outputs, in arrays that nobody else writes to.
        """
        return self._run(inputs, (), 1)

    def scan(self, inputs: Sequence[Any], steps: int, scanned: Sequence[bool]) -> list[Array]:
        """Several steps, without returning to Python in between.

        Args:
            inputs: as for `run`; those that are scanned have a leading axis, an element of it for each step.
            steps: how many, from 1.
            scanned: for each input, whether it is.

        Returns:
            The user's outputs of all steps, stacked along a new leading axis.
        """
        self._set_moving(tuple(scanned))
        return self._run(inputs, (steps,), steps)

    def _run(self, inputs: Sequence[Any], lead: tuple[int, ...], steps: int) -> list[Array]:
        addresses, kept = self._loaded.addresses[0], []
        for x, (slot, dtype, _) in zip(inputs, self._inputs, strict=True):
            if slot is not None:
                x = np.require(x, dtype, ["C", "A"])
                kept.append(x)
                addresses[slot] = x.ctypes.data
        results = []
        for slot, shape, dtype in self._fresh:
            result = np.empty(lead + shape, dtype)
            results.append(result)
            addresses[slot] = result.ctypes.data
        self._share()
        self._steps = steps
        try:
            (self._shadow or self._loaded).run(steps)
        finally:
            self._steps = 1
        for result in results:
            result.setflags(write=False)
        return [
            np.broadcast_to(np.asarray(found), lead) if literal else results[found]
            for found, literal in zip(self._outputs, self._literal, strict=True)
        ]

    def _share(self) -> None:
        """Looks for the owner of its cells, which is another one when their guard was joined to a second."""
        if self._guard is not None:
            owner = self._guard.root().owner
            if owner is not self._loaded.owner:
                self._loaded.share(owner)

    def fast(
        self,
        *,
        slow: Callable[..., Any] | None,
        finish: Callable[..., Any],
        tensors: bool,
        context: tuple[Any, Any],
        watched: tuple[Array, Array] | None,
    ) -> Callable[..., Any] | None:
        """A builtin function that runs one step, and takes its inputs as positional arguments.

        If the program is not `small`, it is called with the guard of its cells held.

        Args:
            slow: takes calls whose arguments do not fit; without it, NotImplemented is returned.
            finish: makes the result of the user's outputs.
            tensors: tensors are taken, too.
            context: a context variable and the value that it has to have.
            watched: two arrays of int64 whose first elements have to be the same.

        Returns:
            None where there can be none: an output is a number that is known, or the interpreter is unknown.
        """
        if self._shadow or any(self._literal) or self._outputs != list(range(len(self._fresh))):
            return None
        spare = len(self._slots) + 1
        inputs = [
            Port(spare if slot is None else slot, shape, dtype, weak)
            for (slot, dtype, _), (shape, weak) in zip(self._inputs, self._shapes, strict=True)
        ]
        outputs = [Port(slot, shape, dtype) for slot, shape, dtype in self._fresh]
        self._share()
        return fast_entry(
            self._loaded, inputs, outputs, slow=slow, finish=finish, tensors=tensors, context=context, watched=watched
        )

    def _outside(self) -> IndexingError:
        """The error for an index, or label, that was out of range. Its step changed nothing."""
        kept = (
            "nothing was changed" if self._steps == 1 else "the steps before this one are done, and it changed nothing"
        )
        for flag, check in self._plan.checks:
            if flag.op in (CONSTANT, LITERAL) or not self._memory(flag):
                continue
            name, kind = check.index.name or "an index", check.index.type
            what = "label" if check.reader.op.name == "cross_entropy" else "index"
            return IndexingError(
                f"{name} {kind.shape} {kind.dtype} has an {what} that is out of range for {check.reader.op.name}\n"
                f"  at {place_text(check.reader.where)}".replace("an label", "a label"),
                f"they run from {check.low} to {check.high}; {kept}",
                "look at the values that are passed in: x.min() and x.max()",
            )
        raise AssertionError("a run was ended, but no flag is set")

    # --- seeing inside

    def __repr__(self) -> str:
        return listing.listing(self._plan)

    def log(self) -> listing.Story:
        """What every pass changed and why; what was fused, what is stored, why threads wait. Print it."""
        return listing.log(self._plan)

    def memory(self) -> Memory:
        """What the program takes: planned and measured, what is computed again for it, what takes most. Print it."""
        return memory_of(self._plan, self._budget, platform.resident(self._arena))

    def fallbacks(self) -> list[Fallback]:
        """The equations that NumPy computes inside of the program, and why; none, as a rule."""
        return fallbacks(self._plan, Names(self._plan))

    def source(self, kind: str = "numpy") -> str:
        """The program as text.

        Args:
            kind: "numpy": a module whose function `step(inputs…, cells)` computes the same, kernel by kernel;
                "llvm": the IR of each kernel; "asm": its machine code, as assembly.

        Raises:
            ArgumentError: another kind.
        """
        return source(self._plan, self._target, kind, len(self._outputs))

    def profile(self, *inputs: Any, steps: int = 50) -> Profile:
        """Measures each kernel where it runs. Cells keep their values. Print the result.

        Args:
            inputs: as for a call; if there are none: normal numbers, and zeros for integers.
            steps: how many runs are measured; fewer if they take more than two seconds.

        Raises:
            ArgumentError, ShapeError: inputs or steps that don't fit.
            UnsupportedError: the processor has no clock that native code can read.
        """
        return profile(self, inputs, steps)

    # --- what NumPy computes

    def _fall_back(self, row: int) -> None:
        """Computes the equation of a row with NumPy, in the program's memory."""
        (equation,) = self._plan.steps[row].kernel.group.members
        values = [self._value(e) for e in equation.inputs]
        with np.errstate(all="ignore"):
            result = equation.op.numpy(*values, **equation.params)
        self._memory(equation)[...] = result

    def _value(self, equation: Equation) -> Any:
        if equation.op is LITERAL:
            return equation.params["value"]
        place = self._plan.fusion.place(equation)
        assert place is not None
        base = self._memory(place.base)
        size = base.itemsize
        strides = tuple(size * step for step in place.strides)
        view = np.ndarray(equation.type.shape, base.dtype, base, place.offset * size, strides)
        view.setflags(write=False)
        return view

    def _memory(self, equation: Equation) -> Array:
        """A tensor's memory as an array."""
        kind = equation.type
        address = int(self._loaded.addresses[0, self._slots[equation]])
        block = (ctypes.c_char * max(1, kind.nbytes)).from_address(address)
        return np.frombuffer(memoryview(block), kind.dtype, kind.size).reshape(kind.shape)


def load(
    tape: Tape, user_outputs: int, *, memory: int | None, threads: int | None, shadow: bool, denormals: str = "keep"
) -> Program:
    """An engine for a recorded step."""
    return Program(tape, user_outputs, memory=memory, threads=threads, shadow=shadow, denormals=denormals)
