"""Measuring a network: all candidates in turn, after their losses were compared."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stepgrad.bench import timing
from stepgrad.bench.networks import Network
from stepgrad.bench.processes import Candidate, NotTimedError, Process
from stepgrad.bench.timing import Timing

COMPILED, SCAN, EAGER = "stepgrad", "stepgrad scan", "stepgrad eager"
ONE_THREAD, FORWARD, PRODUCTS = "stepgrad, one thread", "stepgrad, forward pass alone", "NumPy, bare matrix products"
FIT, SKLEARN = "sg.fit", "scikit-learn MLPClassifier"
TORCH, TORCH_FUSED, TORCH_COMPILE = "PyTorch eager", "PyTorch eager, fused Adam", "torch.compile"
JAX, JAX_SCAN, JAX_FORI, TINYGRAD = "JAX jit", "JAX scan", "JAX fori_loop", "tinygrad"

STEPS = (
    Candidate(COMPILED, "", "ours.py", "compiled"),
    Candidate(SCAN, "", "ours.py", "scan"),
    Candidate(EAGER, "", "ours.py", "eager"),
    Candidate(TORCH, "torch", "with_torch.py", "eager"),
    Candidate(TORCH_FUSED, "torch", "with_torch.py", "eager_fused"),
    Candidate(TORCH_COMPILE, "torch.compile", "with_torch.py", "compiled"),
    Candidate(JAX, "jax", "with_jax.py", "jit"),
    Candidate(JAX_SCAN, "jax", "with_jax.py", "scan"),
    Candidate(JAX_FORI, "jax", "with_jax.py", "fori"),
    Candidate(TINYGRAD, "tinygrad", "with_tinygrad.py", "jit"),
)
LIMITS = (
    Candidate(ONE_THREAD, "", "ours.py", "compiled", threads=1),
    Candidate(FORWARD, "", "ours.py", "forward", compared=False),
    Candidate(PRODUCTS, "", "with_numpy.py", "products", compared=False),
)
FITS = (
    Candidate(FIT, "", "ours.py", "fit", compared=False),
    Candidate(SKLEARN, "sklearn", "with_sklearn.py", "fit", compared=False),
)

PEERS = {
    "torch": "torch",
    "torch.compile": "torch",
    "jax": "jax",
    "tinygrad": "tinygrad",
    "sklearn": "sklearn",
}
"""What --peers takes -> the package that has to be installed."""

AGAINST_LIMITS = ("784-512-256-10", "1024-2048-2048-1024")
FIRST_CALLS = "64-128-64-10"
"""The network whose first call is measured in several fresh processes."""

FRESH_PROCESSES = 2
"""In how many, besides the one that is timed."""

CHECKS = 20
"""How many steps are run to compare losses."""


TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""How far losses may differ, in relation to their size: orders of summation differ, and Adam enlarges that."""


@dataclass(frozen=True)
class Measured:
    """What was found out about a candidate.

    Attributes:
        library: what the tables call it.
        peer: whose it is, as in PEERS; "" for stepgrad's own.
        version: of the library.
        step: seconds for one step (for a fit: for the whole); None where it was not timed.
        ratios: how many times as long as another candidate it took, by the other's name: the median over rounds.
        import_seconds: to import the library in a fresh process.
        first_seconds: to build the step and call it for the first time, compiling included.
        again_seconds: the same in another process, with what the first left in caches on disk.
        peak_bytes: the most memory over what was in use after the import, until the first call was done.
        losses: of the first steps.
        note: why it was not timed; otherwise "".
    """

    library: str
    peer: str
    version: str = ""
    step: Timing | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    import_seconds: float | None = None
    first_seconds: float | None = None
    again_seconds: float | None = None
    peak_bytes: int | None = None
    losses: tuple[float, ...] = ()
    note: str = ""

    @property
    def first_call(self) -> float | None:
        """Seconds from an empty process to the end of the first step, without the interpreter's own start."""
        if self.import_seconds is None or self.first_seconds is None:
            return None
        return self.import_seconds + self.first_seconds


@dataclass(frozen=True)
class Comparison:
    """One network, and what was measured on it."""

    network: str
    title: str
    whole: bool
    rounds: int
    candidates: tuple[Measured, ...]

    def of(self, library: str) -> Measured | None:
        """What was measured of this candidate; None where it was not timed."""
        return next((m for m in self.candidates if m.library == library and m.step is not None), None)


def installed(peer: str) -> bool:
    """Whether a peer's package is there; it is not imported."""
    return importlib.util.find_spec(PEERS[peer]) is not None


def candidates_for(network: Network, peers: Sequence[str]) -> list[Candidate]:
    """What is timed on a network: stepgrad's own, and the peers that are asked for."""
    all_of_them: tuple[Candidate, ...]
    if network.epochs:
        all_of_them = FITS
    elif network.name in AGAINST_LIMITS:
        all_of_them = STEPS + LIMITS
    else:
        all_of_them = STEPS
    return [c for c in all_of_them if not c.peer or c.peer in peers]


def compare(
    network: Network,
    candidates: Sequence[Candidate],
    *,
    threads: int,
    seconds: float,
    told: Callable[[str, str], None] = lambda library, state: None,
) -> Comparison:
    """Starts every candidate in a process of its own, compares their losses, and times them in turn.

    Whoever fails, or does other work than most, is not timed, and has a note.

    Args:
        seconds: about how long each candidate is timed, over all rounds.
        told: called with a library and what it is doing.
    """
    rounds = max(3, min(40, round(seconds / 0.1)))
    found: dict[str, Measured] = {}
    with _started(network, candidates, threads, told, found) as running:
        losses = {p.candidate.library: p.ready["losses"] for p in running if p.candidate.compared}
        for library, note in other_work(losses, TOLERANCE[network.dtype]).items():
            found[library] = replace(found[library], note=note)
        running = [p for p in running if not found[p.candidate.library].note]
        times: dict[str, list[float]] = {p.candidate.library: [] for p in running}
        for number in range(1, rounds + 1):
            for process in list(running):
                library = process.candidate.library
                told(library, f"round {number} of {rounds}")
                try:
                    times[library].append(process.measure(seconds / rounds))
                except NotTimedError as error:
                    running.remove(process)
                    del times[library]
                    found[library] = replace(found[library], note=str(error))
    for library, values in times.items():
        ratios = {other: timing.ratio(values, others) for other, others in times.items() if other != library}
        found[library] = replace(found[library], step=timing.summary(values), ratios=ratios)
    return Comparison(network.name, network.title, bool(network.epochs), rounds, tuple(found.values()))


def other_work(losses: Mapping[str, Sequence[float]], tolerance: float) -> dict[str, str]:
    """Who has other losses than most, and where they part: name -> note.

    Args:
        losses: name -> losses of the first steps.
        tolerance: the largest relative difference that counts as the same.
    """

    def part(a: Sequence[float], b: Sequence[float]) -> int | None:
        steps = enumerate(zip(a, b, strict=True))
        return next((i for i, (x, y) in steps if not abs(x - y) <= tolerance * max(abs(x), abs(y))), None)

    if not losses:
        return {}
    agreeing = {name: sum(part(a, b) is None for b in losses.values()) for name, a in losses.items()}
    model = max(agreeing, key=lambda name: agreeing[name])
    notes = {}
    for name, values in losses.items():
        at = part(values, losses[model])
        if at is not None:
            notes[name] = (
                f"does other work: loss {values[at]:.6g} in step {at + 1}, where {model} has {losses[model][at]:.6g}"
            )
    return notes


@contextmanager
def _started(
    network: Network,
    candidates: Sequence[Candidate],
    threads: int,
    told: Callable[[str, str], None],
    found: dict[str, Measured],
) -> Iterator[list[Process]]:
    """The processes of the candidates, started one after the other, each with empty caches; ended afterwards."""
    running: list[Process] = []
    try:
        for candidate in candidates:
            told(candidate.library, "first call")
            try:
                process, found[candidate.library] = _start(network, candidate, threads)
                running.append(process)
            except NotTimedError as error:
                found[candidate.library] = Measured(candidate.library, candidate.peer, note=str(error))
                told(candidate.library, str(error))
        yield running
    finally:
        for process in running:
            process.stop()


def _start(network: Network, candidate: Candidate, threads: int) -> tuple[Process, Measured]:
    """A running process, and what was found out about first calls: in it, and where asked in others before it."""
    others = FRESH_PROCESSES if network.name == FIRST_CALLS and candidate.compared else 0
    checks = CHECKS if candidate.compared else 1
    readies, again = [], None
    for number in range(others + 1):
        with tempfile.TemporaryDirectory(prefix="stepgrad-bench-") as caches:

            def start(caches: str = caches) -> Process:
                return Process(candidate, network.name, threads=threads, checks=checks, caches=Path(caches))

            process = start()
            readies.append(process.ready)
            if number < others:
                process.stop()
                if number == 0:
                    process = start()
                    again = process.ready["first_seconds"]
                    process.stop()
    last = process.ready
    return process, Measured(
        candidate.library,
        candidate.peer,
        last["version"],
        import_seconds=statistics.median(ready["import_seconds"] for ready in readies),
        first_seconds=statistics.median(ready["first_seconds"] for ready in readies),
        again_seconds=again,
        peak_bytes=last["peak_bytes"],
        losses=tuple(last["losses"]),
    )
