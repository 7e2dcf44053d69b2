"""The table in the terminal, while the benchmarks run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from stepgrad.bench import measure, report
from stepgrad.bench.measure import Comparison
from stepgrad.bench.networks import Network
from stepgrad.bench.timing import duration


def table(network: Network, candidates: Sequence[str], states: dict[str, str]) -> Table:
    """What each candidate of a network is doing."""
    found = Table(title=network.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    found.add_column("")
    found.add_column("")
    for library in candidates:
        found.add_row(library, states.get(library, ""), style=None if library in states else "dim")
    return found


def finished(comparison: Comparison) -> Table:
    """What was measured on a network."""
    base = report.base(comparison)
    found = Table(title=comparison.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for head in ("", "fit" if comparison.whole else "step", f"to {base}", "first call", ""):
        found.add_column(head, justify="left" if head == "" else "right")
    for m in comparison.candidates:
        first = "" if m.first_call is None else duration(m.first_call)
        ratio = report.times(m.ratios[base]) if base in m.ratios else ""
        step = duration(m.step.median) if m.step else ""
        found.add_row(m.library, step, ratio, first, m.note, style="dim" if m.note else None)
    return found


def compare(network: Network, peers: Sequence[str], *, threads: int, seconds: float, console: Console) -> Comparison:
    """`measure.compare`, shown while it runs: a table that changes in a terminal, and at the end everywhere."""
    candidates = measure.candidates_for(network, peers)
    names, states = [c.library for c in candidates], dict[str, str]()
    live = Live(table(network, names, states), console=console, transient=True, auto_refresh=False)

    def told(library: str, state: str) -> None:
        states[library] = state
        live.update(table(network, names, states), refresh=True)

    if console.is_terminal:
        with live:
            found = measure.compare(network, candidates, threads=threads, seconds=seconds, told=told)
    else:
        found = measure.compare(network, candidates, threads=threads, seconds=seconds)
    console.print(finished(found))
    console.print()
    return found
