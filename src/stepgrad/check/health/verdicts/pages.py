"""The pages of docs/verdicts, made from the catalogue: `python -m stepgrad.check.health.verdicts.pages "
"docs/verdicts`."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import runpy
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from stepgrad.check.health.verdicts import CATALOGUE, Entry, Question

_HARM = {1: "costs something", 2: "harms training", 3: "blocks training"}
_SHOWN = re.compile(r"^It prints:\n\n```text\n(.*?)^```\n", re.M | re.S)


def index() -> str:
    """The page that lists all verdicts."""
    lines = [
        "# Verdicts",
        "",
        "What `sg.health` can say of a training run. Each verdict has evidence, thresholds with their reason, a "
        "remedy with",
        "numbers from the run, and a small network that has it. The three questions are answered apart in every "
        "report:",
        "are the gradients right, are they healthy, and does the optimizer use them well?",
    ]
    for question in Question:
        lines += ["", f"## {question.value}", "", "| verdict | what it reads |", "| --- | --- |"]
        lines += [f"| [{e.name}]({e.name}.md) | {e.reads} |" for e in CATALOGUE.values() if e.question is question]
    lines += [
        "",
        "These pages are made from the catalogue in `stepgrad.check.health.verdicts`, where a verdict is one entry, by",
        "`python -m stepgrad.check.health.verdicts.pages docs/verdicts`. [The format of a "
        "diagnosis](../diagnosis-format.md)",
        "says how to read one in a program.",
    ]
    return "\n".join(lines) + "\n"


def page(entry: Entry, shown: str) -> str:
    """The page of a verdict.

    Args:
        entry: of the catalogue.
        shown: what its example prints.
    """
    lines = [
        f"# {entry.name}",
        "",
        f"*{entry.question.value} It {_HARM[entry.severity]}.* [All verdicts](README.md)",
        "",
        entry.meaning,
        "",
        f"**Evidence.** {entry.reads}",
        "",
        *_thresholds(entry),
        f"**Remedy.** {entry.remedy}",
        "",
        *_related(entry),
        "## An example",
        "",
        f"```python\n{entry.example}```",
        "",
        f"It prints:\n\n```text\n{shown}```",
        "",
        "With its remedy, nothing is found:",
        "",
        _diff(entry),
    ]
    return "\n".join(lines) + "\n"


def _diff(entry: Entry) -> str:
    """The lines of the example that the remedy changes."""
    before, after = entry.example.splitlines(), entry.cured.splitlines()
    changed = [
        line for line in difflib.unified_diff(before, after, lineterm="", n=0) if not line.startswith(("---", "+++"))
    ]
    return "\n".join(["```diff", *(line for line in changed if not line.startswith("@@")), "```"])


def _thresholds(entry: Entry) -> Iterable[str]:
    if not entry.thresholds:
        return
    yield "| quantity | threshold | why |"
    yield "| --- | --- | --- |"
    for t in entry.thresholds:
        yield f"| {t.what.replace('|', chr(92) + '|')} | {t.text} | {t.reason} |"
    yield ""


def _related(entry: Entry) -> Iterable[str]:
    later = [e.name for e in CATALOGUE.values() if entry.name in e.causes]
    if entry.causes:
        yield f"It may follow from {_links(entry.causes)}."
    if later:
        yield f"It may bring about {_links(later)}."
    if entry.causes or later:
        yield ""


def _links(names: Iterable[str]) -> str:
    return ", ".join(f"[{name}]({name}.md)" for name in names)


def run(script: str) -> str:
    """What a script prints, run from a file of its own, so that its lines can be told."""
    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
        path = Path(folder) / "example.py"
        path.write_text(script, encoding="utf-8")
        runpy.run_path(str(path))
    return out.getvalue()


def shown_in(text: str) -> str:
    """What a page says its example prints."""
    found = _SHOWN.search(text)
    return found[1] if found else ""


def write(folder: Path) -> None:
    """Makes all pages, running every example."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(index(), encoding="utf-8")
    for entry in CATALOGUE.values():
        (folder / f"{entry.name}.md").write_text(page(entry, run(entry.example)), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
