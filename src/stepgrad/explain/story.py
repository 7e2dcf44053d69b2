"""The story: one pass over a network, printed for reading."""

from __future__ import annotations

import ast
import io
import sys
import textwrap
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from stepgrad.errors import ArgumentError
from stepgrad.explain.steps import Gradient, Step
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.expressions import call_text, literal_text, tidy
from stepgrad.tape.layout import WIDTH, plural, ratio_text, size_text

if TYPE_CHECKING:
    from stepgrad.explain.trace import Trace

_FORMULA, _SHAPE = 58, 16
_FEWEST, _LONGEST_PERIOD = 4, 24


def story(trace: Trace, numbers: bool = False, open: Any = ()) -> str:
    """The story as text, with colours if it goes to a terminal.

    Args:
        trace: what to tell.
        numbers: print the values as well.
        open: numbers of steps to open to their single equations; True opens all.
    """
    lines = _Story(trace, numbers, open).lines()
    if not sys.stdout.isatty():
        return "\n".join(line.plain.rstrip() for line in lines)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=WIDTH, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return out.getvalue().rstrip("\n")


def show(trace: Trace, numbers: bool = False, open: Any = ()) -> None:
    """Prints the story; see `Trace.show`."""
    print(story(trace, numbers, open))


class _Story:
    def __init__(self, trace: Trace, numbers: bool, open: Any) -> None:
        self.trace, self.made, self.numbers = trace, trace.arranged, numbers
        asked = [open] if isinstance(open, int) and not isinstance(open, bool) else open
        numbered = {s.number for s in trace.steps}
        self.open = numbered if open is True else set(asked or ())
        if not self.open <= numbered:
            raise ArgumentError(
                f"step {', '.join(sorted(map(repr, self.open - numbered)))} was to be opened",
                f"steps are numbered from 1 to {len(numbered)}",
                "name steps by their number, open=3 or open=(1, 2); True opens all",
            )
        self.ledger = trace.cache()
        self.kept = {row.name for row in self.ledger.rows if row.kind == "saved"}
        self.step_of = {e: s.number for s in trace.steps for e in s.equations}
        floats = Counter(e.type.dtype for e in trace.names if e.type.is_float)
        self.dtype = floats.most_common(1)[0][0] if floats else None

    def lines(self) -> list[Text]:
        forward = [s for s in self.trace.steps if s.kind == "forward"]
        backward = [s for s in reversed(forward) if s.arrives and (s.gives or s.backward_lines)]
        update = [s for s in self.trace.steps if s.kind == "update"]
        out = self._header()
        out += [Text(), _row("Forward pass", "shape", "", style="bold")]
        out += self._collapsed(forward, self._forward, _shape_of_forward)
        if backward:
            begins = ", ".join(dict.fromkeys(self._seed(g) for g in self.made.seeds.values()))
            out += [Text(), _row(f"Backward pass, from {begins}", "shape", "", style="bold")]
            out += self._collapsed(backward, self._backward, _shape_of_backward)
        if update:
            out += [Text(), _row("Update", "shape", "", style="bold")]
            out += self._collapsed(update, self._forward, _shape_of_forward)
        return out + self._footer()

    # --- head and foot

    def _header(self) -> list[Text]:
        trace, made = self.trace, self.made
        called = f"{trace.function}({', '.join(made.inputs)})"
        where = "{}:{}".format(*trace.place) if trace.place else ""
        room = WIDTH - len(where) - 2
        called = called if len(called) <= room else called[: room - 3] + "…)"
        out = [Text.assemble((called.ljust(WIDTH - len(where)), "bold"), (where, "dim"))]
        for title, leaves in (("inputs", made.inputs), ("parameters", made.parameters), ("constants", made.constants)):
            if leaves:
                shown = [f"{name} {self._shape(e)}" for name, e in leaves.items()]
                if len(shown) > 12:
                    shown = [*shown[:8], f"… {len(shown) - 10} more …", *shown[-2:]]
                out += _listed(title, shown)
        wanted = sum(e.type.size for e in made.targets)
        if made.targets:
            arrays = plural(len(made.targets), "array")
            note = f"{plural(wanted, 'number')} in {arrays} differentiated; {self.dtype} unless noted"
        else:
            note = "nothing here has a gradient: no floating-point input or parameter leads to the value"
        return [*out, Text(f"  {note}", "dim")]

    def _footer(self) -> list[Text]:
        made, ledger = self.made, self.ledger
        out: list[Text] = []
        if self.trace.gradients:
            rows = [
                _row(f"  {made.targets[self._leaf(name)]}", str(g.shape), f"norm {np.linalg.norm(g):.3g}")
                for name, g in self.trace.gradients.items()
            ]
            if len(rows) > 14:
                rows = [*rows[:6], Text(f"  … {len(rows) - 12} more …", "dim"), *rows[-6:]]
            out += [Text(), _row("Gradients", "shape", "", style="bold"), *rows]
            cost = self.trace.cost()
            saved = plural(sum(row.kind == "saved" for row in ledger.rows), "value")
            ratio = ratio_text(cost.backward_flops, cost.forward_flops)
            reuse = ratio_text(cost.without_reuse, cost.backward_flops)
            size = size_text(ledger.saved_bytes)
            out += [
                Text(),
                Text(f"The forward pass saved {saved} ({size}) for the backward pass, which takes {ratio} times its"),
                Text(f"operations. Deriving each gradient on its own, path by path, would take {reuse} times as many."),
                Text("More: trace.cache(), trace.cost(), trace.source(), trace.show(numbers=True, open=1)", "dim"),
            ]
        return out

    def _leaf(self, name: str) -> Equation:
        return self.made.inputs.get(name) or self.made.parameters[name]

    def _seed(self, seed: Equation) -> str:
        value = np.asarray(seed.value)
        name = self.made.text(seed)
        if not value.shape:
            return f"{name} = {value[()]}"
        return f"{name} = ones {value.shape}" if (value == 1).all() else f"{name} {value.shape}"

    # --- steps

    def _forward(self, step: Step) -> list[Text]:
        heading = self._heading(step)
        out = [_numbered(step, heading)] if heading else []
        for i, line in enumerate(step.lines):
            note = "cached" if line.name in self.kept else ""
            number = f"{step.number:>3}  " if not heading and not i else " " * (5 if not heading else 7)
            out += self._formula(number, str(line), line.equation, note)
        if step.number in self.open:
            out += self._single(step.equations, backward=False)
        return out

    def _backward(self, step: Step) -> list[Text]:
        out = [_numbered(step, self._heading(step, always=True))]
        arriving = [f"{_aliased(g)} {self._shape(g.of)}" for g in step.arrives if g.text.isidentifier()]
        out += _listed("arrives", arriving, 7) if arriving else []
        if step.reads:
            out += _listed("reads", [self.trace.names[e] for e in step.reads], 7)
        given: dict[Equation, list[Gradient]] = {}
        for g in step.gives:
            given.setdefault(g.equation, []).append(g)
        written = set()
        for line in step.backward_lines:
            own = [g for g in given.get(line.equation, ()) if g.text == g.name]
            written.update(own)
            out += self._formula(" " * 7, str(line), line.equation, "; ".join(map(self._note, own)))
        for g in step.gives:
            if g not in written:
                so_far = g.part is not None and g.part[0] < g.part[1]
                name = f"d{self.trace.names.get(g.of, '')} so far" if so_far else g.name
                text = f"{name} = {g.text}" if name != g.text else name
                out += self._formula(" " * 7, text, g.of, self._note(g))
        if step.number in self.open:
            out += self._single(step.backward, backward=True)
        return out

    def _note(self, g: Gradient) -> str:
        """Where a gradient goes."""
        name = self.trace.names.get(g.of, "")
        if g.part is not None and g.part[0] < g.part[1]:
            of = f"d{name}"
            return f"part {g.part[0]} of {g.part[1]}" + ("" if g.text.startswith(of) else f" of {of}")
        target = f"to step {self.step_of.get(g.of, '?')}" if g.kind == "upstream" else "gradient"
        return target + (f", sum of {g.part[1]} parts" if g.part is not None else "")

    def _heading(self, step: Step, always: bool = False) -> str:
        """The user's line, where the formulas do not already say the same."""
        text = step.statement.text
        said = [str(line) for line in step.lines]
        scope = f"module {step.scope[-1]}: " if len(step.scope) > 1 else ""
        if not text:
            return scope + "; ".join(said) if always else ""
        try:
            plain = ast.unparse(ast.parse(text))
        except SyntaxError:
            plain = text
        if plain in said and (len(said) == 1 or always):
            return scope + plain if always else ""
        return scope + text

    def _formula(self, indent: str, text: str, equation: Equation, note: str) -> list[Text]:
        room = _FORMULA - len(indent) - 1
        rows = textwrap.wrap(text, room, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        out = [Text(indent + row) for row in rows[:-1]]
        last = indent + rows[-1]
        if len(last) >= _FORMULA:  # a name too long for the column
            out.append(Text(last[:WIDTH]))
            last = ""
        out.append(_row(last, self._shape(equation), note))
        if self.numbers and equation.value is not None:
            shown = np.array2string(
                np.asarray(equation.value), precision=4, suppress_small=True, threshold=40, edgeitems=2,
                max_line_width=WIDTH - len(indent) - 6,
            )  # fmt: skip
            out += [Text(" " * (len(indent) + 4) + row, "cyan") for row in shown.splitlines()]
        return out

    def _single(self, equations: Sequence[Equation], backward: bool) -> list[Text]:
        """The single equations of an opened step."""
        labels: dict[Equation, str] = {}

        def label(e: Equation) -> str:
            if e.op is LITERAL:
                return literal_text(e)
            if e not in self.trace.names and e in labels:
                return labels[e]
            return self.made.text(e)

        out = []
        for number, equation in enumerate(equations, 1):
            labels[equation] = f"e{number}"
            text = tidy(call_text(equation, [f"({label(e)})" for e in equation.inputs]))
            name = self.trace.names.get(equation, labels[equation])
            if not backward or equation.of is None:
                note = equation.op.name
            elif equation.operand is None:
                note = "parts added up"
            else:
                note = f"{equation.of.op.name}'s rule {equation.operand + 1}"
            out += [_row("          " + row, self._shape(equation), note, "dim")
                    if i == 0 else Text("          " + row, "dim")
                    for i, row in enumerate(textwrap.wrap(f"{name} = {text}", _FORMULA - 10, break_long_words=False))
                    ]  # fmt: skip
        return out

    def _shape(self, equation: Equation) -> str:
        dtype = equation.type.dtype
        return str(equation.type.shape) + ("" if dtype == self.dtype else f" {dtype.name}")

    # --- collapsing

    def _collapsed(self, steps: Sequence[Step], tell: Any, shape: Any) -> list[Text]:
        """The steps, of which repetitions are told once."""
        kinds = [shape(s) if s.number not in self.open else s.number for s in steps]
        out: list[Text] = []
        for first, count, period in repetitions(kinds):
            for step in steps[first : first + period]:
                out += tell(step)
            if count > 1:
                left = (count - 2) * period
                hidden = steps[first + period : first + period + left]
                numbers = sorted((hidden[0].number, hidden[-1].number))
                out.append(
                    Text(f"  …  {left} more like {'this' if period == 1 else f'these {period}'}: "
                         f"steps {numbers[0]} to {numbers[1]}", "dim")
                )  # fmt: skip
                for step in steps[first + period + left : first + period * count]:
                    out += tell(step)
        return out


def repetitions(kinds: Sequence[Hashable]) -> Iterable[tuple[int, int, int]]:
    """Cuts a sequence into (start, count, period): `count` times the same `period` items in a row.

    Example:
        >>> list(repetitions("xababababy"))
        [(0, 1, 1), (1, 4, 2), (9, 1, 1)]
    """
    start = 0
    while start < len(kinds):
        best = 1, 1
        for period in range(1, _LONGEST_PERIOD + 1):
            end = start
            while end + period < len(kinds) and kinds[end] == kinds[end + period]:
                end += 1
            count = (end - start) // period + 1
            if count >= _FEWEST and count * period > best[0] * best[1]:
                best = count, period
        yield start, *best
        start += best[0] * best[1]


def _shape_of_forward(step: Step) -> Hashable:
    return tuple((e.op.name, e.type) for e in step.equations)


def _shape_of_backward(step: Step) -> Hashable:
    gives = tuple((g.kind, g.part is None) for g in step.gives)
    return tuple((e.op.name, e.type) for e in step.backward), gives, len(step.backward_lines)


# --- rows


def _row(formula: str, shape: str, note: str, style: str = "") -> Text:
    gap = " " if len(formula) >= _FORMULA else ""
    room = WIDTH - max(_FORMULA, len(formula)) - len(gap) - max(_SHAPE, len(shape))
    note = note if len(note) <= room else note[: max(room - 1, 0)] + "…"
    return Text.assemble(
        (formula.ljust(_FORMULA) + gap, style), (shape.ljust(_SHAPE), style or "dim"), (note, style or "green")
    )


def _numbered(step: Step, heading: str) -> Text:
    room = WIDTH - 5
    heading = heading if len(heading) <= room else heading[: room - 1] + "…"
    return Text.assemble((f"{step.number:>3}  ", "bold"), (heading, "bold"))


def _listed(title: str, items: Sequence[str], indent: int = 2) -> list[Text]:
    """`reads  A1, W2`, over as many lines as it takes."""
    start = " " * indent + title.ljust(12 if indent == 2 else 9)
    glued = ", ".join(item.replace(" ", "\0") for item in items) if indent != 2 else "   ".join(
        item.replace(" ", "\0") for item in items
    )  # fmt: skip
    rows = textwrap.wrap(glued, WIDTH - len(start), break_long_words=False, break_on_hyphens=False) or [""]
    return [Text((start if i == 0 else " " * len(start)) + row.replace("\0", " "), "dim") for i, row in enumerate(rows)]


def _aliased(g: Gradient) -> str:
    return g.name if g.name == g.text else f"{g.name} = {g.text}"
