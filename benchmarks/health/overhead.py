"""What watching a compiled training run costs: `python -m benchmarks.health.overhead [--rounds N]`.

Runs with and without `sg.health` alternate; the figures are ratios of computing time, which other work on the
machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import numpy as np

import stepgrad as sg

CASES = {
    "64-128-64-10": (20_000, 32, 25),
    "784-512-256-10": (6_400, 64, 30),
}
"""Network -> rows, rows in a batch, epochs: about ten seconds each."""


def seconds(sizes: list[int], rows: int, batch: int, epochs: int, watched: bool) -> float:
    """The computing time of one training run."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, sizes[0])).astype(np.float32)
    y = (X @ rng.standard_normal((sizes[0], sizes[-1]))).argmax(1)
    sg.nn.seed(0)
    layers: list[sg.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [sg.nn.Linear(inputs, outputs), sg.nn.ReLU()]
    model = sg.nn.Sequential(*layers[:-1])
    optimizer = sg.optim.Adam(model.parameters())
    health = sg.health(model, sg.losses.cross_entropy, optimizer)
    callbacks = [health] if watched else []
    begin = time.process_time()
    sg.fit(
        model,
        sg.losses.cross_entropy,
        optimizer,
        (X, y),
        epochs=epochs,
        batch_size=batch,
        metrics={},
        callbacks=callbacks,
        progress=False,
    )
    return time.process_time() - begin


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs with and without, of which the median is taken")
    rounds = parser.parse_args().rounds
    for name, (rows, batch, epochs) in CASES.items():
        sizes = [int(n) for n in name.split("-")]
        seconds(sizes, rows, batch, 1, watched=False)
        pairs = [
            (seconds(sizes, rows, batch, epochs, watched=False), seconds(sizes, rows, batch, epochs, watched=True))
            for _ in range(rounds)
        ]
        ratio = statistics.median(after / before for before, after in pairs)
        print(f"{name}: {statistics.median(b for b, _ in pairs):.1f} s, watched {100 * (ratio - 1):+.1f} %")


if __name__ == "__main__":
    main()
