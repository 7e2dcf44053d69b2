"""`python -m benchmarks`: times eager execution, prints the tables and writes `benchmarks/eager.md` and `.json`."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from benchmarks import eager
from stepgrad.bench.timing import machine

HERE = Path(__file__).parent


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = [f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    found = {}
    for name in ("stepgrad", "numpy", "scipy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    overhead, chain = eager.overhead(), eager.chain()
    about = {"machine": machine(), "versions": versions()}
    text = "\n\n".join(
        [
            "# Eager execution",
            "Written by `make bench`. "
            + about["machine"]
            + ". "
            + ", ".join(f"{k} {v}" for k, v in about["versions"].items())
            + ". Candidates alternate in one run; medians over rounds.",
            "## What recording an op on a 4 × 4 float32 tensor costs, over NumPy's own call",
            table(overhead),
            "## A chain of equations, each once, in seconds",
            table(chain),
        ]
    )
    (HERE / "eager.md").write_text(text + "\n", encoding="utf-8")
    found = {"about": about, "overhead": overhead, "chain": chain}
    (HERE / "eager.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
