"""The stepper: walking through both passes in a terminal, one key at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.control import Control
from rich.text import Text

from stepgrad.errors import ArgumentError
from stepgrad.explain.document import Document
from stepgrad.explain.graph import shape_text, short, step_text
from stepgrad.explain.keys import keys
from stepgrad.tape.layout import plural, size_text

_FORWARD, _BACKWARD, _UPDATE, _SAVED = "bright_blue", "dark_orange", "magenta", "green"
_COLOURS = {"forward": _FORWARD, "backward": _BACKWARD, "update": _UPDATE}
_NEXT = {"right", "down", "j", "l", "space"}
_PREVIOUS = {"left", "up", "k", "h", "backspace"}
_LIST = 44
"""Columns of the list of steps, where there is room for it."""
HELP = "→ ← step   home end   n numbers   o open   page up/down scroll   q quit"


@dataclass(frozen=True)
class Stepper:
    """Where one is, and what is shown.

    Attributes:
        document: the trace's document.
        position: which moment of the walk; 0 is before the first.
        numbers: values are shown.
        opened: the step is opened to its single equations.
        scroll: how many lines of the details are above the window.
    """

    document: Document
    position: int = 0
    numbers: bool = False
    opened: bool = False
    scroll: int = 0

    def press(self, key: str) -> Stepper | None:
        """The state after a key; None to end."""
        last = len(self.document["walk"])
        if key in ("q", "escape"):
            return None
        if key in _NEXT:
            return replace(self, position=min(self.position + 1, last), scroll=0)
        if key in _PREVIOUS:
            return replace(self, position=max(self.position - 1, 0), scroll=0)
        if key in ("home", "g"):
            return replace(self, position=0, scroll=0)
        if key in ("end", "G"):
            return replace(self, position=last, scroll=0)
        if key == "n":
            return replace(self, numbers=not self.numbers)
        if key in ("o", "enter"):
            return replace(self, opened=not self.opened)
        if key == "page down":
            return replace(self, scroll=self.scroll + 10)
        if key == "page up":
            return replace(self, scroll=max(self.scroll - 10, 0))
        return self

    @property
    def moment(self) -> tuple[str, Document] | None:
        """The pass and the step that one is at."""
        if not self.position:
            return None
        moment = self.document["walk"][self.position - 1]
        return moment["pass"], self.document["steps"][moment["step"] - 1]


def run(document: Document) -> None:
    """Walks through a trace's document in the terminal, until q is pressed.

    Raises:
        ArgumentError: standard input or output is not a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ArgumentError(
            "stepping was asked for where there is no terminal",
            "it reads single keys from standard input and draws on standard output",
            "run it in a terminal; without one, --html FILE writes a page to step through in a browser",
        )
    console = Console(highlight=False)
    state: Stepper | None = Stepper(document)
    with console.screen(hide_cursor=True) as screen, keys() as read:
        drawn = None
        while state is not None:
            width, height = console.size
            state = fitted(state, width, height)
            if (state, width, height) != drawn:
                console.control(Control.home())
                screen.update(Group(*draw(state, width, height)))
                drawn = state, width, height
            key = read(0.2)  # and look again whether the window has another size
            if key is not None:
                state = state.press(key)


def fitted(state: Stepper, width: int, height: int) -> Stepper:
    """The same, scrolled no further than its last line."""
    if not state.scroll:
        return state
    most = max(0, len(_details(state, _room(width))) - _body(height))
    return replace(state, scroll=min(state.scroll, most))


def _room(width: int) -> int:
    return width - _LIST - 3 if width >= 2 * _LIST else width


def _body(height: int) -> int:
    return max(height - 6, 1)


def draw(state: Stepper, width: int, height: int) -> list[Text]:
    """The screen, line by line: no more than `height` of them, none longer than `width`."""
    rows = _body(height)
    details = _details(state, _room(width))
    left = len(details) - rows - state.scroll
    details = details[state.scroll : state.scroll + rows]
    if left > 0 and len(details) > 1:
        details[-1] = Text(f"… {plural(left + 1, 'more line')} (page down)", "dim")
    details += [Text()] * (rows - len(details))
    if width >= 2 * _LIST:
        steps = _steps(state, rows)
        details = [Text.assemble(_filled(a, _LIST), (" │ ", "dim"), b) for a, b in zip(steps, details, strict=True)]
    lines = [*_head(state, width), *details, *_foot(state, width)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _filled(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _head(state: Stepper, width: int) -> list[Text]:
    document = state.document
    count = len(document["walk"])
    place, colour = f"before the first of {plural(count, 'step')}", "bold"
    if state.moment is not None:
        name, step = state.moment
        place = f"{name} pass, step {step['number']}  ({state.position} of {count})"
        colour = f"bold {_COLOURS[name]}"
    title = Text.assemble(
        (document["function"], "bold"), (f"  {document['file']}:{document['line']}" if document["file"] else "", "dim")
    )
    gap = max(width - title.cell_len - len(place), 2)
    line = Text.assemble(title, " " * gap, (place, colour))
    bar = Text()
    for i in range(width):  # one moment is at least one column, or one column is many moments
        moment = document["walk"][min(i * count // width, count - 1)] if count else {"pass": "forward"}
        reached = i * count < state.position * width
        bar.append("━" if reached else "─", _COLOURS[moment["pass"]] if reached else f"dim {_COLOURS[moment['pass']]}")
    return [line, bar, Text()]


def _steps(state: Stepper, rows: int) -> list[Text]:
    """The list of steps, as much of it as there is room for, around the current one."""
    steps = state.document["steps"]
    here = state.moment[1]["number"] if state.moment else 1
    first = max(0, min(here - 1 - rows // 2, len(steps) - rows))
    out = []
    for step in steps[first : first + rows]:
        current = state.moment is not None and step["number"] == here
        arrow = "  " if not current or state.moment is None else "▲ " if state.moment[0] == "backward" else "▼ "
        colour = f"bold {_COLOURS[state.moment[0]]}" if current and state.moment else ""
        out.append(
            Text.assemble((arrow, colour), (f"{step['number']:>3}  ", colour or "dim"), (step_text(step), colour))
        )
    return out + [Text() for _ in range(rows - len(out))]


def _foot(state: Stepper, width: int) -> list[Text]:
    cache = state.document["cache"]
    now = cache["kept"][state.position - 1] if state.position else 0
    saved = [row for row in cache["rows"] if row["kind"] == "saved"]
    line = Text.assemble(("cache ", "bold"), (f"{size_text(now)} of {size_text(cache['saved_bytes'])}  ", _SAVED))
    at = {(m["pass"], m["step"]): i for i, m in enumerate(state.document["walk"], 1)}
    kept = [row for row in saved if _keeps(state, row, at)]
    reading = (
        {v for name, step in [state.moment] if name == "backward" for v in step["backward"]["reads"]}
        if state.moment
        else set()
    )
    kept.sort(key=lambda row: row["value"] not in reading)
    for row in kept:
        if line.cell_len + len(row["name"]) + 8 > width:
            line.append("…", "dim")
            break
        line.append(f" {row['name']} ", f"bold reverse {_BACKWARD}" if row["value"] in reading else f"reverse {_SAVED}")
        line.append(" ")
    return [Text("─" * width, "dim"), line, Text(short(HELP, width), "dim")]


def _keeps(state: Stepper, row: Document, at: dict[tuple[str, int], int]) -> bool:
    """The forward pass has saved it, and the backward pass still needs it, or is just reading it."""
    begins = at.get(("forward", row["saved_by"]), 0)
    ends = at.get(("backward", row["freed_after"]), len(at))
    return begins <= state.position <= ends


# --- details


def _details(state: Stepper, width: int) -> list[Text]:
    """What happens at this moment."""
    if state.moment is None:
        return _beginning(state, width)
    name, step = state.moment
    part = step["backward"] if name == "backward" else step
    lines = _backward(state, step, width) if name == "backward" else _forward(state, step, width)
    if state.opened:
        lines += _section(f"{plural(len(part['equations']), 'single equation')}")
        lines += _equations(state, part["equations"])
    return lines


def _section(title: str) -> list[Text]:
    return [Text(), Text(title, "bold")]


def _beginning(state: Stepper, width: int) -> list[Text]:
    document = state.document
    lines = [Text("Everything begins with these:", "bold")]
    for value in [*document["inputs"], *document["parameters"]]:
        lines += _value(state, value, _name(state, value), "")
    return [*lines, Text(), Text("Press → to compute the first line.", "dim")]


def _forward(state: Stepper, step: Document, width: int) -> list[Text]:
    rows = {row["value"]: row for row in state.document["cache"]["rows"] if row["kind"] == "saved"}
    lines = [Text(step_text(step), "bold")]
    if step["inputs"]:
        lines += _section("reads")
        for value in step["inputs"]:
            lines += _value(state, value, _name(state, value), "")
    lines += _section("computes")
    for formula in step["formulas"]:
        row = rows.get(formula["value"])
        read_by = "" if row is None else ", ".join(map(str, row["read_by"][:4]))
        note = f"saved, for the backward of step {read_by}" if row is not None else ""
        lines += _formula(state, f"{formula['name']} = {formula['text']}", formula["value"], note, width, _SAVED)
    return lines


def _backward(state: Stepper, step: Document, width: int) -> list[Text]:
    part = step["backward"]
    rows = {row["value"]: row for row in state.document["cache"]["rows"]}
    lines = [Text(step_text(step), "bold"), *_section("arrives")]
    for g in part["arrives"]:
        senders = ", ".join(map(str, g["from"]))
        lines += _value(
            state, g["value"], g["name"], f"from step {senders}" if senders else "here the pass begins", _BACKWARD
        )
    if part["reads"]:
        lines += _section("reads from the forward pass")
        for value in part["reads"]:
            row = rows.get(value, {"kind": "held", "saved_by": None})
            note = f"saved by step {row['saved_by']}" if row["kind"] == "saved" else "held anyway"
            lines += _value(state, value, _name(state, value), note, _SAVED)
    lines += _section("gives")
    written: set[str] = set()
    for formula in part["formulas"]:
        own = [g for g in part["gives"] if g["value"] == formula["value"] and g["text"] == g["name"]]
        written.update(g["name"] for g in own)
        note = "; ".join(_note(state, g) for g in own)
        lines += _formula(state, f"{formula['name']} = {formula['text']}", formula["value"], note, width, _BACKWARD)
    for g in part["gives"]:
        if g["name"] not in written:
            text = g["name"] if g["name"] == g["text"] else f"{g['name']} = {g['text']}"
            lines += _formula(state, text, g["value"], _note(state, g), width, _BACKWARD)
    freed = [r["name"] for r in rows.values() if r["kind"] == "saved" and r["freed_after"] == step["number"]]
    return [*lines, Text(), Text(f"can be freed now: {', '.join(freed)}", _SAVED)] if freed else lines


def _note(state: Stepper, g: Document) -> str:
    of = _name(state, g["of"])
    if g["kind"] == "part":
        return f"part {g['part'][0]} of {g['part'][1]} of d{of}"
    note = "gradient" if g["kind"] == "gradient" else f"to step {g['to']}"
    return note + (f", sum of {g['part'][1]} parts" if g["part"] else "")


def _formula(state: Stepper, text: str, value: int, note: str, width: int, colour: str) -> list[Text]:
    line = Text.assemble("  ", text, (f"  {_shape(state, value)}", "dim"))
    if note and line.cell_len + len(note) + 2 <= width:
        line.append(f"  {note}", colour)
        note = ""
    return [line, *([Text(f"      {note}", colour)] if note else []), *_numbers(state, value)]


def _value(state: Stepper, value: int, name: str, note: str, colour: str = "") -> list[Text]:
    line = Text.assemble(
        "  ", (name, colour), (f" {_shape(state, value)}", "dim"), (f"  {note}" if note else "", "dim")
    )
    return [line, *_numbers(state, value)]


def _numbers(state: Stepper, value: int) -> list[Text]:
    if not state.numbers:
        return []
    entry = state.document["values"][value]
    if entry["numbers"] is None:
        found = entry["statistics"] or {}
        shown = "   ".join(
            f"{k} {_plain(found[k]):.4g}" for k in ("min", "max", "mean", "norm") if found.get(k) is not None
        )
    else:
        shown = np.array2string(_array(entry["numbers"]), precision=4, suppress_small=True, max_line_width=70)
    return [Text(f"      {row}", "cyan") for row in shown.splitlines()]


def _array(numbers: Any) -> Any:
    return np.array([_array(row) for row in numbers]) if isinstance(numbers, list) else np.asarray(_plain(numbers))


def _plain(number: Any) -> Any:
    return float(number) if isinstance(number, str) else number


def _equations(state: Stepper, values: Sequence[int]) -> list[Text]:
    by_value = {e["value"]: e for e in state.document["equations"]}
    lines = []
    for value in values:
        e = by_value[value]
        of = by_value.get(e["of"])
        why = (
            e["op"]
            if of is None
            else "parts added up"
            if e["operand"] is None
            else f"{of['op']}'s rule {e['operand'] + 1}"
        )
        lines.append(Text.assemble(f"  {e['label']} = {e['text']}", (f"  {_shape(state, value)}  {why}", "dim")))
        lines += _numbers(state, value)
    return lines


def _name(state: Stepper, value: int) -> str:
    entry = state.document["values"][value]
    return str(entry["name"] or entry["text"])


def _shape(state: Stepper, value: int) -> str:
    return shape_text(state.document["values"][value]["shape"])
