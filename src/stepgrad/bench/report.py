"""What was measured, as JSON, as Markdown, and as a block of a README."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrad import files
from stepgrad.bench import measure
from stepgrad.bench.measure import Comparison
from stepgrad.bench.targets import Reached, reached
from stepgrad.bench.timing import duration
from stepgrad.errors import FileError

BEGIN, END = "<!-- stepgrad bench -->", "<!-- end of stepgrad bench -->"
"""Between these two lines of a README stands what `rewrite` puts there."""

COLUMNS = (
    (measure.COMPILED, "stepgrad"),
    (measure.SCAN, "in `scan`"),
    (measure.TORCH, "PyTorch"),
    (measure.TORCH_FUSED, "fused Adam"),
    (measure.TORCH_COMPILE, "torch.compile"),
    (measure.JAX, "JAX jit"),
    (measure.JAX_SCAN, "JAX scan"),
    (measure.TINYGRAD, "tinygrad"),
)
"""The candidates of the short table, and what its head calls them."""

IN_ONE_CALL = (measure.SCAN, measure.JAX_SCAN, measure.JAX_FORI)
"""Candidates that run many steps in one call."""


@dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes:
        machine: the processor, its cores, and Python.
        threads: how many every library had.
        seconds: for which each candidate was timed on each network.
        missing: peers that were asked for and are not installed.
        date: as it was passed in; "" otherwise.
    """

    machine: str
    threads: int
    seconds: float
    missing: tuple[str, ...]
    date: str
    comparisons: tuple[Comparison, ...]

    @property
    def versions(self) -> dict[str, str]:
        """The version of every library that ran, by the name of its first candidate."""
        found: dict[str, str] = {}
        for comparison in self.comparisons:
            for m in comparison.candidates:
                if m.version:
                    found.setdefault(_maker(m.library), m.version)
        return found


def to_json(results: Results) -> str:
    """Everything, with a line for every number."""
    about = {
        "machine": results.machine,
        "versions": results.versions,
        "threads": results.threads,
        "seconds": results.seconds,
        "not_installed": list(results.missing),
    } | ({"date": results.date} if results.date else {})
    found: dict[str, Any] = {
        "about": about,
        "networks": [dataclasses.asdict(c) for c in results.comparisons],
        "targets": [dataclasses.asdict(t) for t in reached(results.comparisons)],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def to_markdown(results: Results) -> str:
    """A page: the short table, the targets, and for each network everything that was measured."""
    parts = ["# Results", "Written by `stepgrad bench`. " + _about(results)]
    if any(not c.whole for c in results.comparisons):
        parts += ["## A training step", short(results.comparisons)]
    if targets := reached(results.comparisons):
        parts += ["## Targets", "Times divided by each other, median over rounds.", _targets(targets)]
    parts.append(
        "In the tables that follow, the first columns are the median and the middle half of the rounds, and how many "
        "times as long it took as stepgrad did, one step a call and in `scan`. First call: from an empty process, with "
        "empty caches on disk, import and compiling included; with several steps in one call, of them all. Memory: the "
        "most that was in use until the first call was done, over what the import left."
    )
    for comparison in results.comparisons:
        parts += [f"### {comparison.title}", _details(comparison)]
    return "\n\n".join(parts) + "\n"


def short(comparisons: Sequence[Comparison]) -> str:
    """A row for each network, a column for each library that was timed."""
    comparisons = [c for c in comparisons if not c.whole]
    columns = [(library, head) for library, head in COLUMNS if any(c.of(library) for c in comparisons)]
    rows = [[c.title, *(_cell(c, library) for library, _ in columns)] for c in comparisons]
    table = _table(["network", *(head for _, head in columns)], rows)
    return (
        f"{table}\n\nTime of one step (forward pass, backward pass, update by Adam), and in brackets how many times as "
        "long as stepgrad's: JAX's scan is compared with ours, the others with one step a call."
    )


def block(results: Results) -> str:
    """What a README shows: the short table, the fit, and what it was measured on."""
    parts = [short(results.comparisons)]
    for comparison in results.comparisons:
        fit, theirs = comparison.of(measure.FIT), comparison.of(measure.SKLEARN)
        if fit and fit.step and theirs and theirs.step:
            parts.append(
                f"`sg.fit`, {comparison.title}: {duration(fit.step.median)}; scikit-learn's MLPClassifier "
                f"{duration(theirs.step.median)} ({times(theirs.ratios[fit.library])})."
            )
    return "\n\n".join([*parts, _about(results)])


def check_markers(path: Path) -> tuple[str, str]:
    """What stands before and after the block of a README, markers included.

    Raises:
        FileError: it can't be read, or does not have the two markers.
    """
    text = files.read(path).decode("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FileError(
            f"{path} has no place for the table",
            "it is put between two lines, and they are not both there, in this order",
            f"write them where the table belongs:\n{BEGIN}\n{END}",
        )
    return before + begin, end + after


def rewrite(path: Path, results: Results) -> None:
    """Puts the block between the markers of a README; the rest stays as it is."""
    before, after = check_markers(path)
    files.write(path, f"{before}\n{block(results)}\n{after}".encode())


def _about(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    missing = f" Not installed: {', '.join(results.missing)}." if results.missing else ""
    date = f" {results.date}." if results.date else ""
    threads = f"{results.threads} thread{'s' * (results.threads > 1)}"
    return (
        f"{results.machine}; {threads} for every library.{date} {versions}.{missing} Each library runs in a process of "
        f"its own, in turn, about {results.seconds:g} s for each network. They do the same work: the losses of the "
        f"first {measure.CHECKS} steps are compared, with dropout off. Fits begin with weights of their own, and are "
        "not compared. Compiled steps of stepgrad flush denormal numbers to 0, as JAX does."
    )


def _targets(targets: Sequence[Reached]) -> str:
    verdicts = {True: "reached", False: "missed", None: "not measured"}
    rows = [
        [t.network, t.text, t.wanted, "" if t.ratio is None else times(t.ratio), verdicts[t.reached]] for t in targets
    ]
    return _table(["network", "target", "wanted", "measured", ""], rows)


def _details(comparison: Comparison) -> str:
    rows = []
    for m in comparison.candidates:
        if m.step is None:
            rows.append([m.library, *[""] * 7, m.note])
            continue
        ratios = [times(m.ratios[o]) if o in m.ratios else "" for o in (base(comparison), measure.SCAN)]
        first = "" if m.first_call is None else duration(m.first_call)
        if m.again_seconds is not None and m.import_seconds is not None:
            first += f"; again {duration(m.import_seconds + m.again_seconds)}"
        memory = "" if m.peak_bytes is None else f"{m.peak_bytes / 1e6:.1f} MB"
        imported = "" if m.import_seconds is None else duration(m.import_seconds)
        spread = f"{duration(m.step.low)} to {duration(m.step.high)}"
        rows.append([m.library, duration(m.step.median), spread, *ratios, first, imported, memory, m.note])
    unit = "fit" if comparison.whole else "step"
    head = ["", unit, "middle half", f"to {base(comparison)}", "to scan", "first call", "of it import", "memory", ""]
    kept = [i for i in range(len(head)) if i < 2 or any(row[i] for row in rows)]
    return _table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def base(comparison: Comparison) -> str:
    """Whom ratios are taken against: stepgrad compiled, or what there is of stepgrad."""
    bases = (measure.COMPILED, measure.FIT, measure.EAGER)
    return next((library for library in bases if comparison.of(library)), measure.COMPILED)


def _cell(comparison: Comparison, library: str) -> str:
    m = comparison.of(library)
    if m is None or m.step is None:
        return ""
    other = measure.SCAN if library in IN_ONE_CALL else base(comparison)
    return duration(m.step.median) + (f" ({times(m.ratios[other])})" if m.peer and other in m.ratios else "")


def times(ratio: float) -> str:
    """A ratio with three digits, "1.45×", or two below a tenth."""
    if ratio < 0.0995:
        return f"{float(f'{ratio:.1e}'):g}×"
    return f"{ratio:.{0 if ratio >= 99.5 else 1 if ratio >= 9.95 else 2}f}×"


def _maker(library: str) -> str:
    for name in ("stepgrad", "PyTorch", "JAX", "scikit-learn", "NumPy"):
        if library.startswith(name):
            return name
    return {measure.TORCH_COMPILE: "PyTorch", measure.FIT: "stepgrad"}.get(library, library)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
