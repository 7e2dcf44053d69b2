"""`python -m benchmarks.mistakes`: plants mistakes, asks `sg.check_backward`, writes `results.md` and `results.json`.

--network lesson,cnn    only these networks
--mistake sign          only this mistake
--sample 20             at most so many mutants of each network
--pairs 10              so many pairs of mistakes in each network
--healthy 1000          so many random correct networks
--random 5              mutants of so many random networks as well
--show                  prints each answer that is not right
--dry                   writes no files
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.mistakes.generator import random_network
from benchmarks.mistakes.network import Network, hand_written
from benchmarks.mistakes.planting import mutants
from benchmarks.mistakes.results import FalseAlarm, Results, markdown, scores, write
from benchmarks.mistakes.score import Row, ask, cases, pairs, score
from stepgrad.bench.timing import machine


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mistakes", description="Scores sg.check_backward.")
    parser.add_argument("--network", help="only these networks, separated by commas")
    parser.add_argument("--mistake", help="only this mistake")
    parser.add_argument("--sample", type=int, help="at most so many mutants of each network")
    parser.add_argument("--pairs", type=int, default=10, help="so many pairs of mistakes in each network")
    parser.add_argument("--healthy", type=int, default=1000, help="so many random correct networks")
    parser.add_argument("--random", type=int, default=0, help="mutants of so many random networks as well")
    parser.add_argument("--show", action="store_true", help="print each answer that is not right")
    parser.add_argument("--dry", action="store_true", help="write no files")
    return parser.parse_args(arguments)


def networks(chosen: argparse.Namespace) -> Iterator[Network]:
    """The networks that were asked for."""
    wanted = chosen.network.split(",") if chosen.network else None
    yield from (network for network in hand_written() if wanted is None or network.name in wanted)
    yield from (random_network(seed) for seed in range(chosen.random))


def main(arguments: list[str]) -> None:
    chosen = options(arguments)
    chooser = random.Random(0)
    rows: list[Row] = []
    paired, dropped = [], 0
    for network in networks(chosen):
        found = cases(network, chosen.mistake)
        if chosen.mistake is None:
            dropped += len(mutants(network)) - len(found)
            paired += pairs(found, chosen.pairs)
        if chosen.sample is not None and len(found) > chosen.sample:
            found = chooser.sample(found, chosen.sample)
        new = [score(case) for case in found]
        rows += new
        print(f"{network.name:20}", *scores(new), flush=True)
        if chosen.show:
            _show(new)
    alarms, times = [], []
    for seed in range(chosen.healthy):
        network = random_network(seed)
        answer = ask(network, network.source)
        times.append(answer.seconds)
        if not answer.ok:
            alarms.append(FalseAlarm(network.name, tuple(name for _, name, _ in answer.findings), answer.error))
    about = f"{machine()}, NumPy {np.__version__}."
    results = Results(about, rows, dropped, paired, chosen.healthy, alarms, times)
    page = markdown(results) if chosen.dry else write(results)
    print(page.partition("## By network")[0])


def _show(rows: list[Row]) -> None:
    for row in rows:
        if not (row.detected and row.line and row.first):
            print(
                f"\n--- {row.network}: {'/'.join(row.names)} at {row.lines}\n    {row.change}\n{row.error or row.text}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
