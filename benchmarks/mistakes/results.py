"""The tables of the benchmark: per mistake, per network, and what fails."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.mistakes.score import PairRow, Row

HERE = Path(__file__).parent
MOST_FAILURES = 200
TARGETS = {"detected": 1.0, "line": 0.99, "first": 0.95, "three": 0.99}


@dataclass(frozen=True)
class FalseAlarm:
    """A correct network in which something was found."""

    network: str
    mistakes: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Results:
    """Everything that one run of the benchmark found."""

    about: str
    rows: list[Row]
    dropped: int
    pairs: list[PairRow] = field(default_factory=list)
    healthy: int = 0
    alarms: list[FalseAlarm] = field(default_factory=list)
    healthy_seconds: list[float] = field(default_factory=list)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def scores(rows: Sequence[Row]) -> list[str]:
    """How many, and the shares detected, with the right line, and with the right name."""
    return [str(len(rows)), *(share(sum(getattr(row, what) for row in rows), len(rows)) for what in TARGETS)]


def seconds(values: Sequence[float]) -> str:
    """Median, 95 % quantile and largest of times."""
    ordered = sorted(values)
    if not ordered:
        return "–"
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{middle:.2f} s, 95 % below {high:.2f} s, at most {ordered[-1]:.2f} s"


def grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(getattr(row, key), []).append(row)
    return dict(sorted(groups.items()))


def confusions(rows: Sequence[Row]) -> str:
    """What was named instead, most frequent first."""
    named = Counter(said(row) for row in rows if not row.first)
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in named.most_common(3))


def said(row: Row) -> str:
    """What the checker answered, in a word."""
    if row.error:
        return row.error.partition(":")[0]
    if row.found:
        return row.found[0][1]
    return "wrong, without a finding" if row.detected else "right"


def markdown(results: Results) -> str:
    """The whole page."""
    head = ["mutants", "detected", "line right", "named first", "among three"]
    rows = results.rows
    kinds = {"gradients are wrong": "wrong", "backward raises": "raises"}
    parts = [
        "# Mistakes planted in backward passes",
        f"Written by `python -m benchmarks.mistakes {' '.join(sys.argv[1:])}`. {results.about}",
        f"{len(rows)} mutants; {results.dropped} more change no gradient, and were dropped. "
        f"Time for one check: {seconds([row.seconds for row in rows])}.",
        table(
            ["", *head],
            [
                ["all", *scores(rows)],
                *([text, *scores([r for r in rows if r.kind == kind])] for text, kind in kinds.items()),
                ["target", "", *(f"{100 * target:.0f} %" for target in TARGETS.values())],
            ],
        ),
    ]
    if results.pairs:
        both, one = sum(p.both for p in results.pairs), sum(any(p.named) for p in results.pairs)
        total = len(results.pairs)
        parts.append(
            f"Two mistakes at once, {total} pairs: both lines named in {share(both, total)} (target 80 %), "
            f"at least one in {share(one, total)}."
        )
    if results.healthy:
        parts.append(
            f"Random correct networks: {results.healthy}, and {len(results.alarms)} false alarms. "
            f"Time: {seconds(results.healthy_seconds)}."
        )
    parts += ["## By mistake", table(["mistake", *head, "named instead"], _lines(grouped(rows, "mistake"), True))]
    parts += ["## By network", table(["network", *head, "slowest"], _lines(grouped(rows, "network"), False))]
    parts += ["## What fails", _failures(results)]
    return "\n\n".join(parts) + "\n"


def _lines(groups: dict[str, list[Row]], names: bool) -> list[list[str]]:
    return [
        [key, *scores(group), confusions(group) if names else f"{max(row.seconds for row in group):.2f} s"]
        for key, group in groups.items()
    ]


def _failures(results: Results) -> str:
    lines = []
    for row in results.rows:
        if row.detected and row.line and row.first:
            continue
        place = f"line {row.found[0][0]}" if row.found else "no line"
        right = "/".join(map(str, row.lines))
        lines.append([row.network, row.mistake, f"`{_short(row.change)}`", right, f"{said(row)}, {place}", _flags(row)])
    head = ["network", "planted", "change", "lines", "answer", "what is wrong"]
    parts = [table(head, lines[:MOST_FAILURES]) if lines else "Nothing."]
    if len(lines) > MOST_FAILURES:
        parts.append(f"{len(lines) - MOST_FAILURES} more are in `results.json`.")
    missed = [pair for pair in results.pairs if not pair.both]
    if missed:
        cells = [
            [p.network, *(f"{n}: `{_short(c)}`" for n, c in zip(p.mistakes, p.changes, strict=True)), _answers(p)]
            for p in missed
        ]
        parts.append("Pairs:\n\n" + table(["network", "one", "other", "answers"], cells))
    if results.alarms:
        cells = [[alarm.network, ", ".join(alarm.mistakes), alarm.error] for alarm in results.alarms]
        parts.append("False alarms:\n\n" + table(["network", "named", "raised"], cells))
    return "\n\n".join(parts)


def _answers(pair: PairRow) -> str:
    return ", ".join(f"{name} (line {line})" for line, name, _ in pair.found) or pair.error or "none"


def _flags(row: Row) -> str:
    wrong = [name for name in ("detected", "line", "first", "three") if not getattr(row, name)]
    return ", ".join(
        {"detected": "not detected", "first": "not first", "three": "not among three"}.get(w, w) for w in wrong
    )


def _short(text: str, width: int = 110) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _one_a_line(value: Any) -> str:
    """JSON, with one entry of a list on each line: differences between two runs can be read."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
    return json.dumps(value)


def _brief(row: Row) -> dict[str, Any]:
    """A row for the JSON file: with the whole change and answer only where something is not right."""
    brief = {
        "network": row.network,
        "names": row.names,
        "kind": row.kind,
        "lines": row.lines,
        "seconds": round(row.seconds, 3),
    }
    if row.detected and row.line and row.first:
        return brief
    flags = {what: getattr(row, what) for what in TARGETS}
    return brief | flags | {"change": row.change, "found": row.found, "error": row.error}


def write(results: Results) -> str:
    """Writes `results.md` and `results.json`; returns the page."""
    page = markdown(results)
    (HERE / "results.md").write_text(page, encoding="utf-8")
    found = {
        "about": results.about,
        "dropped": results.dropped,
        "mutants": [_brief(row) for row in results.rows],
        "pairs": [asdict(pair) for pair in results.pairs],
        "healthy": results.healthy,
        "false_alarms": [asdict(alarm) for alarm in results.alarms],
    }
    lines = [f"{json.dumps(key)}: {_one_a_line(value)}" for key, value in found.items()]
    (HERE / "results.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return page
