"""The tables of the benchmark, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from benchmarks.health.faulty import FAULTS
from benchmarks.health.halves import REPORTING, TUNING
from benchmarks.health.judging import OURS, Result
from benchmarks.health.references import TOOLS

NAMES = (OURS, *(tool.name for tool in TOOLS))

QUIET = 0.1
"""A rule is quiet if it accuses at most this share of the healthy trainings of the tuning half."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def share(part: int, whole: int) -> str:
    """`37 % (12 of 32)`."""
    return f"{100 * part / whole:.0f} % ({part} of {whole})" if whole else "none"


def count(results: Sequence[Result], is_so: Callable[[Result], bool]) -> str:
    return share(sum(is_so(r) for r in results), len(results))


def of_half(results: Iterable[Result], half: str) -> tuple[list[Result], list[Result]]:
    """Faulty and healthy ones of a half."""
    here = [r for r in results if r.half == half]
    return [r for r in here if not r.healthy], [r for r in here if r.healthy]


def summary(results: Sequence[Result]) -> str:
    """A row for each tool and half, and for each other tool one with its quiet rules only."""
    rows = []
    for half in (REPORTING, TUNING):
        faulty, healthy = of_half(results, half)
        for tool in NAMES:
            rows.append(_row(half, tool, faulty, healthy, lambda r, tool=tool: _means(r, tool, None)))
            if tool != OURS:
                quiet = quiet_rules(results, tool)
                label = f"{tool}, its quiet rules"
                rows.append(
                    _row(half, label, faulty, healthy, lambda r, tool=tool, quiet=quiet: _means(r, tool, quiet))
                )
    return table(
        ("half", "tool", "faults detected", "named rightly", "mean over faults", "healthy trainings accused"), rows
    )


def _row(
    half: str, label: str, faulty: list[Result], healthy: list[Result], means: Callable[[Result], list[frozenset[str]]]
) -> tuple[str, ...]:
    return (
        half,
        label,
        count(faulty, lambda r: bool(means(r))),
        count(faulty, lambda r: any(m & r.right for m in means(r))),
        f"{100 * _mean_over_faults(faulty, lambda r: any(m & r.right for m in means(r))):.0f} %",
        count(healthy, lambda r: bool(means(r))),
    )


def _mean_over_faults(faulty: list[Result], is_so: Callable[[Result], bool]) -> float:
    """The share of each fault's trainings, averaged over faults, so that each counts the same."""
    by_name: dict[str, list[bool]] = {}
    for result in faulty:
        by_name.setdefault(result.fault, []).append(is_so(result))
    return sum(sum(found) / len(found) for found in by_name.values()) / max(len(by_name), 1)


_RULES = {tool.name: {rule.name: rule.names for rule in tool.rules} for tool in TOOLS}


def _means(result: Result, tool: str, only: frozenset[str] | None) -> list[frozenset[str]]:
    """What each alarm of a tool may stand for; of some rules only, if they are given."""
    said = result.said[tool]
    rules = _RULES.get(tool, {})
    return [rules.get(alarm, frozenset({alarm})) for alarm in said.alarms if only is None or alarm in only]


def quiet_rules(results: Sequence[Result], tool: str) -> frozenset[str]:
    """Those that hardly accuse healthy trainings of the tuning half."""
    _, healthy = of_half(results, TUNING)
    loud = Counter(alarm for r in healthy for alarm in r.said[tool].alarms)
    return frozenset(rule for rule in _RULES[tool] if loud[rule] <= QUIET * len(healthy))


def by_fault(results: Sequence[Result], half: str) -> str:
    """What `sg.health` says, fault by fault."""
    faulty, _ = of_half(results, half)
    rows = []
    for fault in FAULTS:
        own = [r for r in faulty if r.fault == fault]
        missed = Counter(", ".join(r.said[OURS].first) or "nothing" for r in own if not r.named(OURS))
        rows.append(
            (
                fault,
                str(len({r.cell for r in own})),
                str(len(own)),
                count(own, lambda r: r.detected(OURS)),
                count(own, lambda r: r.named(OURS)),
                count(own, lambda r: r.named_first(OURS)),
                "; ".join(f"{said} ({n})" for said, n in missed.most_common()),
            )
        )
    return table(("fault", "cells", "trainings", "detected", "named", "named first", "where not named, it says"), rows)


def by_tool(results: Sequence[Result], half: str) -> str:
    """How many of each fault's trainings each tool names rightly."""
    faulty, _ = of_half(results, half)
    rows = []
    for fault in FAULTS:
        own = [r for r in faulty if r.fault == fault]
        rows.append((fault, str(len(own)), *(str(sum(r.named(tool) for r in own)) for tool in NAMES)))
    return table(("fault", "trainings", *NAMES), rows)


def by_rule(results: Sequence[Result]) -> str:
    """Each rule of the other tools: how often it alarms, and how often that is right; both halves together."""
    faulty, healthy = [r for r in results if not r.healthy], [r for r in results if r.healthy]
    rows = []
    for tool in TOOLS:
        for rule in tool.rules:
            alarmed = [r for r in faulty if rule.name in r.said[tool.name].alarms]
            rows.append(
                (
                    tool.name,
                    rule.name,
                    count(faulty, lambda r, one=rule, tool=tool: one.name in r.said[tool.name].alarms),
                    count(alarmed, lambda r, one=rule: bool(one.names & r.right)),
                    count(healthy, lambda r, one=rule, tool=tool: one.name in r.said[tool.name].alarms),
                )
            )
    return table(("tool", "rule", "alarms for faults", "of these rightly", "alarms for healthy trainings"), rows)


def failures(results: Sequence[Result], half: str) -> str:
    """Every training of a half of which `sg.health` says something wrong, or could not say all."""
    lines = []
    for r in results:
        said = r.said[OURS]
        wrong = bool(said.alarms) if r.healthy else not r.named(OURS)
        if r.half == half and (wrong or said.problem):
            problem = f"; {said.problem}" if said.problem else ""
            lines.append(f"- {r.name}: {', '.join(said.alarms) or 'nothing'}{problem}")
    return "\n".join(lines) or "None."


def unsound(results: Sequence[Result]) -> list[str]:
    """Trainings that are not what they are meant to be."""
    return [f"{r.name}: {r.found}" for r in results if not r.sound]
