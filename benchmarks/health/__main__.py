"""`python -m benchmarks.health`: runs all trainings, prints tables, and writes `results.md` and `results.json`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import sklearn

from benchmarks.health import tables
from benchmarks.health.halves import REPORTING, SALT, TUNING, half
from benchmarks.health.judging import OURS, Result, all_trainings, judge_all

HERE = Path(__file__).parent


def report(results: Sequence[Result], seconds: float) -> str:
    """Everything, as Markdown."""
    faulty, healthy = ([r for r in results if r.healthy is wanted] for wanted in (False, True))
    about = (
        f"Written by `python -m benchmarks.health` in {seconds:.0f} s. {len(results)} trainings, {len(healthy)} "
        f"of them healthy; {len({r.cell for r in faulty})} faulty and {len({r.cell for r in healthy})} healthy cells. "
        f"NumPy {numpy.__version__}, scikit-learn {sklearn.__version__}. The halves are those of salt {SALT}."
    )
    unsound = tables.unsound(results)
    sound = "All are." if not unsound else "\n".join(f"- {line}" for line in unsound)
    parts = [
        "# Health: trainings with planted faults, and healthy ones",
        about,
        "Thresholds of `sg.health` may be tuned on the tuning half only; **what counts is the reporting half**. What "
        "the words mean stands in [README.md](README.md).",
        "## Tools compared",
        tables.summary(results),
        "Of the other tools, a rule is quiet if it accuses at most "
        f"{tables.QUIET:.0%} of the healthy trainings of the tuning half: what a practitioner would keep switched on.",
        "## `sg.health` by fault: reporting half",
        tables.by_fault(results, REPORTING),
        "## `sg.health` by fault: tuning half",
        tables.by_fault(results, TUNING),
        "## Trainings named rightly by each tool: reporting half",
        tables.by_tool(results, REPORTING),
        "## The rules of other tools, both halves",
        tables.by_rule(results),
        "## What fails: reporting half",
        tables.failures(results, REPORTING),
        "## What fails: tuning half",
        tables.failures(results, TUNING),
        "## Trainings that are what they are meant to be",
        sound,
    ]
    return "\n\n".join(parts) + "\n"


def tuning_report(results: Sequence[Result]) -> str:
    """The tuning half alone."""
    parts = ["# Tuning half", tables.by_fault(results, TUNING), "## What fails", tables.failures(results, TUNING)]
    _, healthy = tables.of_half(results, TUNING)
    parts.insert(2, "Healthy trainings accused: " + tables.count(healthy, lambda r: r.detected(OURS)))
    return "\n\n".join(parts) + "\n"


def plain(result: Result) -> dict[str, Any]:
    """A result for the JSON file."""
    said: dict[str, Any] = {tool: s.alarms for tool, s in result.said.items()}
    ours = result.said[OURS]
    said[OURS] = {"verdicts": ours.alarms, "first": ours.first, "problem": ours.problem}
    return {
        "name": result.name,
        "fault": result.fault,
        "half": result.half,
        "right": sorted(result.right),
        "sound": result.sound,
        "found": result.found,
        "said": said,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.health", description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="how many trainings at a time")
    parser.add_argument("--tuning", action="store_true", help="run and show the tuning half only; write nothing")
    chosen = parser.parse_args(arguments)
    begin = time.perf_counter()
    trainings = [t for t in all_trainings() if not chosen.tuning or half(t.cell) == TUNING]
    results = []
    for result in judge_all(trainings, chosen.processes):
        results.append(result)
        print(f"\r{len(results)} of {len(trainings)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    unsound = tables.unsound(results)
    if chosen.tuning:
        print(tuning_report(results))
    else:
        text = report(results, time.perf_counter() - begin)
        (HERE / "results.md").write_text(text, encoding="utf-8")
        (HERE / "results.json").write_text(
            "[\n" + ",\n".join(json.dumps(plain(r)) for r in results) + "\n]\n", encoding="utf-8"
        )
        print(text)
    if unsound:
        print("not what they are meant to be:", *unsound, sep="\n", file=sys.stderr)
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
