"""One candidate in a process of its own: `python -P worker.py REQUEST`, where REQUEST is JSON.

It is run by its path, and loads the file of its library by path, so that the first call that it
measures has only that library in it: stepgrad is not imported, nor is NumPy before the library is.

It writes one line of JSON when it is ready, and then one for every line that it reads: a number of
seconds to measure for.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    request = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get between the answers

    def answer(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        ready, run, losses = prepare(request)
        answer(ready)
        for line in sys.stdin:
            answer({"seconds": measure(run, losses, float(line))})
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        answer({"error": f"{type(error).__name__}: {text[:300]}"})


def prepare(request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Any], Callable[[Any], list[float]]]:
    """Imports the library, builds the step, and calls it for the first time.

    Returns:
        What the parent is told: `version`; `import_seconds`; `first_seconds`, to build the step and
        to call it once; `peak_bytes`, over what it had after the import, or None where it can't be
        told; `losses` of the first steps.
        And what is timed, with what turns its result into losses.
    """
    if hasattr(os, "sched_setaffinity"):
        # XLA has no setting for the number of its threads: it counts the cores that it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    start = time.perf_counter()
    library = load(Path(request["file"]))
    version = library.load(request["threads"])
    imported = time.perf_counter()

    networks = load(HERE / "networks.py")
    network = networks.find(request["network"])
    weights, batches = networks.weights(network), networks.batches(network)
    gc.collect()
    before = peak_reset()
    build = getattr(library, request["function"])
    begin = time.perf_counter()
    run, losses = build(network, weights, batches, request["threads"])
    first = losses(run())
    called = time.perf_counter()
    after = peak()
    found = {
        "version": version,
        "import_seconds": imported - start,
        "first_seconds": called - begin,
        "peak_bytes": None if before is None or after is None else after - before,
    }
    if network == (compared := network.without_dropout()):
        found["losses"] = more(first, run, losses, request["checks"])
    else:
        again = build(compared, networks.weights(compared), batches, request["threads"])
        found["losses"] = more([], again[0], again[1], request["checks"])
    return found, run, losses


def more(found: list[float], run: Callable[[], Any], losses: Callable[[Any], list[float]], count: int) -> list[float]:
    """The losses of the first `count` steps, of which some are there already; [] where there are none."""
    while len(found) < count:
        following = losses(run())
        if not following:
            return []
        found = found + following
    return found[:count]


def measure(run: Callable[[], Any], losses: Callable[[Any], list[float]], seconds: float) -> float:
    """Seconds for one step, averaged over calls that take about as long as asked, at least one.

    The losses are asked for once, at the end, so that a library that computes ahead may do so.
    """
    losses(run())  # wakes threads, and fills the caches that others used in the meantime
    start = time.perf_counter()
    steps = max(1, len(losses(run())))
    count = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    result = None
    start = time.perf_counter()
    for _ in range(count):
        result = run()
    losses(result)
    return (time.perf_counter() - start) / (count * steps)


def load(file: Path) -> ModuleType:
    """Imports a file by its path."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def peak_reset() -> int | None:
    """The memory in use, in bytes, from where `peak` is counted again."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def peak() -> int | None:
    """The most memory in use, in bytes, since `peak_reset`."""
    return _status("VmHWM")


def _status(name: str) -> int | None:
    # Not getrusage's ru_maxrss: a child begins with its parent's.
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


if __name__ == "__main__":
    main()
