"""The diagnosis as text for a terminal, and as Markdown."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from stepgrad.check.health.diagnosis import Diagnosis, Verdict
from stepgrad.check.health.record import Run
from stepgrad.check.health.summary import ABOUT, HEADER, summaries
from stepgrad.check.health.verdicts import Severity
from stepgrad.tape.layout import WIDTH, plural

_COLOURS = {Severity.BLOCK: "bold red", Severity.HARM: "bold yellow", Severity.WASTE: "bold cyan"}
_ANSWERS = {True: "green", False: "red", None: "dim"}
_LABEL = 10


def text(diagnosis: Diagnosis) -> str:
    """The report, at most 100 columns wide, with colours if it goes to a terminal."""
    lines = list(_lines(diagnosis))
    if not sys.stdout.isatty():
        return "\n".join(line.plain.rstrip() for line in lines)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=WIDTH, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return out.getvalue().rstrip("\n")


def headline(diagnosis: Diagnosis) -> str:
    """`learning-rate-too-high, which explains 2 more`, or that nothing was found."""
    if diagnosis.ok:
        return "nothing was found"
    first, every = diagnosis.verdicts[0], len(diagnosis.names)
    explained = len(list(first.walk())) - 1
    shown = first.name + (f", which explains {explained} more" if explained else "")
    others = every - 1 - explained
    return shown + (f", and {plural(others, 'other verdict')}" if others else "")


def subject(run: Run) -> str:
    """What was trained, and how long."""
    settings = run.settings
    parts = [plural(len(run.losses), "step")]
    if run.epochs:
        parts.append(plural(len(run.epochs), "epoch"))
    parts.append(plural(sum(p.size for p in run.parameters), "parameter"))
    parts.append(f"{settings.optimizer}(lr={settings.learning_rate:g})")
    parts.append(settings.loss)
    return ", ".join(parts) + f"; {plural(len(run.samples), 'step')} sampled"


def _lines(diagnosis: Diagnosis) -> Iterator[Text]:
    yield Text(f"Health: {headline(diagnosis)}", style="bold")
    yield Text(subject(diagnosis.run), style="dim")
    yield Text("")
    for number, answer in enumerate(diagnosis.answers, 1):
        yield Text.assemble(f"{number}. {answer.question.value}  ", (answer.word, _ANSWERS[answer.ok]))
        yield from _wrapped(answer.says, "     ", "     ")
    for verdict in diagnosis.verdicts:
        yield Text("")
        for depth, each in verdict.walk():
            yield from _verdict(each, depth)
    rows = [list(summary.cells) for summary in summaries(diagnosis.run)]
    if rows:
        yield Text("")
        yield from map(Text, _layers(rows))


_MOST_LAYERS = 14
_LONGEST_NAME = 30


def _layers(rows: list[list[str]]) -> list[str]:
    """A table of the layers; of many, the first and last."""
    for row in rows:
        row[0] = row[0] if len(row[0]) <= _LONGEST_NAME else row[0][: _LONGEST_NAME - 1] + "…"
    if len(rows) > _MOST_LAYERS:
        half = _MOST_LAYERS // 2
        gap = [f"… {len(rows) - 2 * half} more"] + [""] * (len(HEADER) - 1)
        rows = [*rows[:half], gap, *rows[-half:]]
    # Two spaces apart: the table has nine columns.
    widths = [max(len(row[i]) for row in [list(HEADER), *rows]) for i in range(len(HEADER))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in [list(HEADER), *rows]
    ]


def _verdict(verdict: Verdict, depth: int) -> Iterator[Text]:
    indent = "  " * depth
    title = f"{indent}{'└ ' if depth else ''}{verdict.name}"
    yield Text.assemble((title, _COLOURS[verdict.severity]), f"   {when(verdict)}")
    inner = indent + "  "
    yield from _wrapped(sentence(verdict.says), inner, inner)
    # A consequence is told shortly.
    told = [e for e in verdict.evidence if e.threshold is not None or not depth]
    for number, evidence in enumerate(told):
        value = evidence.text + (f"  ({evidence.limit})" if evidence.limit else "")
        following = inner + " " * _LABEL
        label = _label(inner, "" if number else "seen")
        yield from _wrapped(f"{evidence.what}: {value}", label, following + "  ")
    if not depth:
        yield from _wrapped(sentence(verdict.remedy), _label(inner, "do"), inner + " " * _LABEL)


def _label(indent: str, label: str) -> str:
    return f"{indent}{label:<{_LABEL}}"


def _wrapped(content: str, first: str, following: str) -> Iterator[Text]:
    for line in textwrap.wrap(content, WIDTH, initial_indent=first, subsequent_indent=following):
        yield Text(line)


def sentence(words: str) -> str:
    """With a capital, unless it begins with code, and a full stop."""
    begin = words.split(" ", 1)[0]
    return (
        (words[:1].upper() if begin.isalpha() else words[:1]) + words[1:] + ("" if words.endswith((".", ")")) else ".")
    )


def when(verdict: Verdict) -> str:
    """`from step 1 to 240`, and the layer where it begins."""
    since, until = verdict.steps
    span = f"step {since}" if until == since else f"from step {since:,}" + ("" if until is None else f" to {until:,}")
    return span + (f", layer {verdict.layer}" if verdict.layer else "")


def markdown(diagnosis: Diagnosis) -> str:
    """The report as Markdown."""
    lines = [
        f"# Health: {headline(diagnosis)}",
        "",
        subject(diagnosis.run) + ".",
        "",
        "| question | answer | |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {a.question.value} | **{a.word}** | {_cell(a.says)} |" for a in diagnosis.answers]
    for verdict in diagnosis.verdicts:
        for depth, each in verdict.walk():
            lines += ["", f"{'#' * min(2 + depth, 5)} {each.name}", "", f"*{when(each)}*  ", sentence(each.says), ""]
            if depth:
                lines += [f"This follows from {verdict.name}.", ""]
            lines += ["| evidence | value | threshold |", "| --- | --- | --- |"]
            lines += [f"| {_cell(e.what)} | {_cell(e.text)} | {e.limit} |" for e in each.evidence]
            remedy = "If it is still there once its cause is gone" if depth else "Remedy"
            lines += ["", f"**{remedy}.** {sentence(each.remedy)}"]
    rows = [summary.cells for summary in summaries(diagnosis.run)]
    if rows:
        lines += ["", "## Layers", "", ABOUT, "", f"| {' | '.join(HEADER)} |", "|" + " --- |" * len(HEADER)]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")
