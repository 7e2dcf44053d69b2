"""A whole run of `stepgrad bench`: what was asked for, the measurements, and the files."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from stepgrad import files
from stepgrad.bench import measure, networks, report, show, timing
from stepgrad.bench.networks import Network
from stepgrad.bench.report import Results
from stepgrad.errors import ArgumentError


@dataclass(frozen=True)
class Settings:
    """What was asked for; see `stepgrad bench --help`."""

    networks: tuple[Network, ...]
    peers: tuple[str, ...]
    threads: int
    seconds: float
    json: Path | None = None
    markdown: Path | None = None
    readme: Path | None = None
    date: str = ""


def bench(settings: Settings, console: Console | None = None) -> Results:
    """Measures, prints, and writes the files.

    Raises:
        FileError: a file can't be written, or the README has no markers; nothing was measured.
    """
    console = console or Console(highlight=False)
    for path in (settings.json, settings.markdown, settings.readme):
        if path is not None:
            files.check_writable(path)
    if settings.readme is not None:
        report.check_markers(settings.readme)
    missing = tuple(peer for peer in settings.peers if not measure.installed(peer))
    peers = [peer for peer in settings.peers if peer not in missing]
    if missing:
        console.print(f"Not installed, and left out: {', '.join(missing)}.\n")
    results = Results(timing.machine(), settings.threads, settings.seconds, missing, settings.date, ())
    for network in settings.networks:
        found = show.compare(network, peers, threads=settings.threads, seconds=settings.seconds, console=console)
        results = replace(results, comparisons=(*results.comparisons, found))
        # After each network: a run takes long, and whoever ends it early keeps what was measured.
        if settings.json is not None:
            files.write(settings.json, report.to_json(results).encode())
        if settings.markdown is not None:
            files.write(settings.markdown, report.to_markdown(results).encode())
    if settings.readme is not None:
        report.rewrite(settings.readme, results)
    return results


def parse_networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Networks by their names; all where there are none.

    Raises:
        ArgumentError: there is no network of that name.
    """
    if not names:
        return (*networks.NETWORKS, networks.DIGITS)
    known = [network.name for network in (*networks.NETWORKS, networks.DIGITS)]
    found = []
    for name in dict.fromkeys(names):
        network = networks.find(name)
        if network is None:
            near = difflib.get_close_matches(name, known, n=1)
            raise ArgumentError(
                f"there is no network {name!r}" + (f"; perhaps {near[0]!r}?" if near else ""),
                "a network is named, or given by its sizes",
                f'choose from {", ".join(known)}; or write sizes such as "20-50-3", with a batch as in "20-50-3b16"',
            )
        found.append(network)
    return tuple(found)


def parse_peers(text: str) -> tuple[str, ...]:
    """The peers of --peers: "all", "none", or names with commas between them.

    Raises:
        ArgumentError: there is no such peer.
    """
    if text == "all":
        return tuple(measure.PEERS)
    names = () if text == "none" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in measure.PEERS:
            raise ArgumentError(
                f"--peers was given {name!r}",
                "stepgrad bench does not know how to time that",
                f"write all, none, or some of {','.join(measure.PEERS)}",
            )
    return names


def parse_threads(threads: int | None) -> int:
    """The number of threads for every library; by default one for each core.

    Raises:
        ArgumentError: less than one, or more than there are cores.
    """
    cores = timing.cores()
    if threads is None:
        return cores
    if not 1 <= threads <= cores:
        raise ArgumentError(
            f"--threads was given {threads}",
            f"this process may use {cores} core{'s' * (cores > 1)}, and threads beyond that only wait for each other",
            f"choose from 1 to {cores}",
        )
    return threads


def parse_seconds(seconds: float) -> float:
    """How long each candidate is timed.

    Raises:
        ArgumentError: it is not a positive number.
    """
    if not 0 < seconds < math.inf:
        raise ArgumentError(
            f"--seconds was given {seconds:g}", "it is how long each library is timed", "choose for example 2"
        )
    return seconds
