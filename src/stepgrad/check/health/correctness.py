"""Question 1: are the gradients right? The network's own, on a real batch, in float64, along random directions."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.check.comparison import Comparison
from stepgrad.check.health.record import GradientCheck
from stepgrad.check.health.subject import Subject
from stepgrad.check.local import check_rules
from stepgrad.check.replay import Recorded, in_float64, record_call
from stepgrad.errors import StepgradError
from stepgrad.tensor import Array

MOST_ROWS = 64
LEAST_ROWS = 8
MOST_WORK = 10_000_000
"""Of a larger batch the first rows are taken; fewer if the network has so many parameters that rows times parameters
are more than this."""
DIRECTIONS = 2
TOLERANCE = 1e-6


def check_network(subject: Subject, x: Array, y: Array, step: int, seed: int = 0) -> GradientCheck:
    """Compares the gradient of each parameter with the derivative along random directions.

    The pass is recorded once and run again in float64 (`sg.check_gradients` says how); random keys keep
    their values, so that dropout drops the same.

    Args:
        subject: the network.
        x, y: a batch; its first rows are taken, 8 to 64 by the size of the network.
        step: before which this is.
        seed: of the directions.
    """
    size = sum(parameter.size for parameter in subject.parameters().values())
    rows = max(LEAST_ROWS, min(MOST_ROWS, MOST_WORK // max(size, 1)))
    x, y = (x[:rows], y[:rows]) if x.ndim and y.ndim and len(x) == len(y) else (x, y)
    rng = np.random.default_rng([seed, step])
    errors: dict[str, float] = {}
    kinks, wrong, problem = 0, "", ""

    def network_loss() -> Any:
        return subject.loss(subject.model(x), y)

    try:
        with np.errstate(all="ignore"):
            first = record_call(network_loss, (), None)
            recorded = in_float64(first)
            if not all(np.isfinite(e.value).all() for e in recorded.tape.outputs):
                raise _NotFinite
            comparison = Comparison(recorded, DIRECTIONS, TOLERANCE, rng)
            gradients = comparison._gradients()
            paths: dict[Any, str] = {cell: path for path, cell in subject.parameters().items()}
            for given, leaf in zip(first.tape.inputs, recorded.tape.inputs, strict=True):
                checked = comparison._argument(leaf, gradients[leaf], each=False)
                if checked.count:
                    errors[paths.get(given.params.get("cell"), checked.name)] = checked.error
                else:
                    kinks += 1
            if any(not error <= TOLERANCE for error in errors.values()):
                wrong = _first_wrong(recorded, rng)
    except _NotFinite:
        problem = "the loss is not finite on this batch, so there is no derivative"
    except StepgradError as error:
        problem = error.what.splitlines()[0]
    ok = not problem and all(error <= TOLERANCE for error in errors.values())
    return GradientCheck(step, ok, TOLERANCE, errors, kinks, wrong, problem)


class _NotFinite(Exception):  # noqa: N818 - it is told, not raised further
    pass


def _first_wrong(recorded: Recorded, rng: np.random.Generator) -> str:
    """The first equation whose local rule is wrong, with its line."""
    checks, _ = check_rules(recorded, TOLERANCE, rng)
    for check in checks:
        if not check.ok:
            name = check.file.rpartition("/")[2]
            return f"{check.op}, {name}:{check.line}: {check.code}" + (f" ({check.problem})" if check.problem else "")
    return ""
