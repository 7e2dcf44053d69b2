"""The pipeline: which passes a tape goes through, in which order, and the log of what they changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stepgrad.errors import VerificationError
from stepgrad.passes.algebra import algebra
from stepgrad.passes.aliases import aliases
from stepgrad.passes.common import common
from stepgrad.passes.constants import constants
from stepgrad.passes.dead import dead
from stepgrad.passes.decompose import decompose, normalise
from stepgrad.passes.rewriting import Change, Changes, Rewrite
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation, leaves
from stepgrad.tape.places import place
from stepgrad.tape.printing import label
from stepgrad.tape.tape import Tape
from stepgrad.tape.verify import verify


@dataclass(frozen=True)
class Pass:
    """A step of the pipeline.

    Attributes:
        name: what the log calls it.
        run: tape -> tape; notes what it changes.
    """

    name: str
    run: Callable[[Tape, Changes], Tape]


PIPELINE = (
    Pass("dead code", dead),
    Pass("decomposition", decompose),
    Pass("plain loops", normalise),
    Pass("aliases", aliases),
    Pass("constants", constants),
    Pass("algebra", algebra),
    Pass("common subexpressions", common),
    Pass("dead code", dead),
)
"""Each pass leaves the tape as the later ones like it: dead code goes first, so that nobody works on it;
compositions are written out before the passes that find what is simple or twice in them."""


def optimise(tape: Tape, log: Log | None = None, passes: tuple[Pass, ...] = PIPELINE) -> tuple[Tape, Log]:
    """A tape that computes the same outputs with less work.

    The same: every rewrite is exact, except that sums may be added up in another order.

    Args:
        tape: what was recorded. Its constants have values; it is not changed.
        log: of what was done to it before; by default, nothing.
        passes: the passes, in order.

    Returns:
        The new tape, with the inputs of the old one and its outputs in the same order; and what was
        changed. An output may be an input now, or the same equation as another output.

    Raises:
        VerificationError: a pass broke the tape.
    """
    log = log or Log(tape)
    for step in passes:
        tape = log.run(step, tape)
    return tape, log


@dataclass(frozen=True)
class Entry:
    """What one pass did.

    Attributes:
        name: the pass.
        before, after: how many equations the tape had, and has.
        changes: what it changed.
    """

    name: str
    before: int
    after: int
    changes: Changes


@dataclass
class Log:
    """What the passes changed, and why the values stay the same. Print it.

    Attributes:
        tape: what the passes began with; equations are called what they are called when it is printed.
        entries: one for each pass.
    """

    tape: Tape
    entries: list[Entry] = field(default_factory=list)
    _sound: set[Equation] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._sound.update(self.tape.equations)  # recording an equation infers its type

    def run(self, step: Pass, tape: Tape) -> Tape:
        """The tape after a pass, with an entry for what it changed.

        Raises:
            VerificationError: the pass broke the tape (see `tape.verify`).
        """
        changes = Changes()
        return self.add(step.name, tape, step.run(tape, changes), changes)

    def add(self, name: str, before: Tape, after: Tape, changes: Changes) -> Tape:
        """As `run`, for something that was done already."""
        self.entries.append(Entry(name, len(before), len(after), changes))
        if (after.equations, after.inputs, after.outputs) == (before.equations, before.inputs, before.outputs):
            return before
        try:
            verify(after, self._sound)
        except VerificationError as error:
            raise VerificationError(f"after the pass '{name}', {error.what}", error.why, error.instead) from None
        return after

    def __str__(self) -> str:
        names = _Names(self.tape)
        lines = []
        for entry in self.entries:
            names.follow(entry.changes)
            counted = f"{entry.before} equations" + ("" if entry.before == entry.after else f" -> {entry.after}")
            lines.append(f"{entry.name}: {counted}" + ("" if entry.changes.made else ", nothing to do"))
            groups: dict[Rewrite, list[Change]] = {}
            for change in entry.changes.made:
                groups.setdefault(change.kind, []).append(change)
            for kind, changes in groups.items():
                times = f" ({len(changes)} times)" if len(changes) > 1 else ""
                lines.append(f"  {kind.name}{times}: {kind.why}")
                for change in changes[:_MOST_SHOWN]:
                    lines.append("    " + names.change(change))
                    if change is changes[0]:
                        parts = entry.changes.parts.get(change.old, [])[:-1]
                        lines += [f"      {names.of[e]} = {names.call(e)}" for e in parts]
                if len(changes) > _MOST_SHOWN:
                    lines.append("    and " + _listed([names.of[c.old] for c in changes[_MOST_SHOWN:]]))
        return "\n".join(lines)

    __repr__ = __str__


_MOST_SHOWN = 3
_MOST_LISTED = 8


def _listed(names: list[str]) -> str:
    rest = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")


class _Names:
    """What equations are called, from pass to pass.

    One that stands for a recorded equation is called as that one was at first; what else was recorded in
    the place of `%24` is called `%24.1`, `%24.2` and so on.
    """

    def __init__(self, tape: Tape) -> None:
        self.of = label(tape)

    def follow(self, changes: Changes) -> None:
        for old, new in changes.moved.items():
            self.of.setdefault(new, self.of.setdefault(old, old.op.name))
            for number, part in enumerate(changes.parts.get(old, ()), start=1):
                self.of.setdefault(part, f"{self.of[old]}.{number}")

    def change(self, change: Change) -> str:
        old, new = change.old, change.new
        text = f"{self.of[old]} = {self.call(old)}"
        if new is not None:
            same = self.shown(new)
            text += f"  ->  {same if same != self.of[old] else self.call(new)}"
        file, number = place(old.where)
        return text + (f"  # line {number} of {os.path.basename(file)}" if number else "")

    def call(self, e: Equation) -> str:
        """An equation as a call, or what a leaf holds."""
        if e.op in leaves:
            return self.shown(e)
        settings = [f"{k}={str(v)!r}" if isinstance(v, np.dtype) else f"{k}={v!r}" for k, v in e.params.items()]
        return f"{e.op.name}({', '.join([*map(self.shown, e.inputs), *settings])})"

    def shown(self, e: Equation) -> str:
        if e.op is LITERAL or (e.op is CONSTANT and e.type.size == 1 and e.value is not None):
            return repr(e.value if e.op is LITERAL else e.value.item())
        return self.of.get(e, e.op.name)
