"""Does the loss stay finite, and does it stay small?"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from stepgrad.check.health.record import LayerSample, ParameterSample, Run, Sample
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, number
from stepgrad.check.health.verdicts.reading import baseline, finite, smooth_ends

GREW = Threshold(
    "loss at the end, over the loss at the beginning (means over a tenth of the run)",
    2.0,
    True,
    "training is meant to lower it; a healthy loss that moves up and down at its level stays below this",
)
PEAK = Threshold(
    "largest loss of a step, over the loss at the beginning",
    100.0,
    True,
    "a single hard batch may have several times the usual loss, never so many",
)


def not_finite(run: Run) -> Finding | None:
    failure = run.failure
    bad = next((i for i, loss in enumerate(run.losses, 1) if not math.isfinite(loss)), None)
    in_samples = next((s for s in run.samples if _broken(s.layers) or _broken(s.parameters)), None)
    of_failure = failure is not None and (
        failure.first_cause or (failure.loss is not None and not math.isfinite(failure.loss))
    )
    if bad is None and in_samples is None and not of_failure:
        return None
    steps = [
        n for n in (bad, in_samples.step if in_samples else None, failure.step if of_failure and failure else None) if n
    ]
    since = min(steps)
    cause = _born(failure.cause) or failure.first_cause if failure else ""
    what = (
        f"numbers are not finite in step {since}" if bad is None else f"the loss is {run.losses[bad - 1]} in step {bad}"
    )
    if in_samples is not None and (bad is None or in_samples.step < bad):
        where = _where(run, in_samples)
        what = f"the gradient{f' of layer {where}' if where else ''} is not finite in step {in_samples.step}"
        what += "" if bad is None else f", and so the loss is {run.losses[bad - 1]} in step {bad}"
    evidence = [Evidence("first step with a number that is not finite", str(since))]
    evidence += [
        Evidence(
            "losses of the steps before", ", ".join(map(number, run.losses[max(0, since - 4) : since - 1])) or "none"
        )
    ]
    if cause:
        evidence.append(Evidence("where it was born", cause.strip().splitlines()[0]))
    return Finding(
        what + (f": {cause.strip().splitlines()[0]}" if cause else ""),
        tuple(evidence),
        _remedy(run, since),
        layer=_where(run, in_samples) if in_samples else None,
        since=since,
        until=len(run.losses) or since,
    )


def _broken(parts: Sequence[LayerSample | ParameterSample]) -> bool:
    return any(part.nonfinite or part.gradient_nonfinite for part in parts)


def _where(run: Run, sample: Sample) -> str | None:
    pairs = zip(run.layers, sample.layers, strict=True)
    return next((layer.name for layer, s in pairs if s.nonfinite or s.gradient_nonfinite), None)


def _born(cause: dict[str, str]) -> str:
    """Where a NaN or Inf was born, in one line."""
    place = f"{os.path.basename(cause['file'])}:{cause['line']}: {cause['code']}" if cause.get("code") else ""
    return ", at ".join(filter(None, [cause.get("happened", ""), place]))


def _remedy(run: Run, since: int) -> str:
    rate, before = run.settings.learning_rate, finite(run.losses[: since - 1])
    smaller = f"divide the learning rate ({rate:g}) by 10, and clip: sg.optim.clip_by_norm(grads, max_norm=1.0)"
    told = run.failure.cause.get("remedy", "") if run.failure else ""
    if not told or (len(before) > 1 and before[-1] > 10 * before[0]):
        return smaller
    return told


def exploding_loss(run: Run) -> Finding | None:
    begin, end, _ = smooth_ends(run.losses)
    losses = finite(run.losses)
    usual = begin if begin > 0 else baseline(run) or 0.0
    if not losses or not usual > 0 or len(run.losses) < 3:
        return None
    peak = max(losses)
    grew, peaked = end / usual, peak / usual
    if not (GREW.holds(grew) or PEAK.holds(peaked)) or peak < (baseline(run) or 0.0):
        return None  # a network that begins with a loss near 0 may lose some of it
    since = next((i for i, loss in enumerate(run.losses, 1) if loss > GREW.value * usual), 1)
    rate = run.settings.learning_rate
    return Finding(
        f"the loss rose from {number(usual)} to {number(end if GREW.holds(grew) else peak)}"
        + ("" if GREW.holds(grew) else f" in step {run.losses.index(peak) + 1}"),
        (Evidence(GREW.what, grew, GREW), Evidence(PEAK.what, peaked, PEAK)),
        f"divide the learning rate ({rate:g}) by 10"
        + ("" if run.data is None or not run.data.mean else "; see that inputs are standardised"),
        since=since,
        until=len(run.losses),
    )


_START = """\
import contextlib

import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = X @ np.arange(8.0).reshape(8, 1)
"""
_END = """\
health = sg.health(model, loss, optimizer, every=2)
with contextlib.suppress(sg.errors.TrainingError), np.errstate(all="ignore"):  # the loss becomes NaN
    sg.fit(model, loss, optimizer, (X, y), epochs=5, callbacks=[health], progress=False)
print(health.report())
"""

NOT_FINITE = Entry(
    name="not-finite",
    family="breakdown",
    question=Question.HEALTHY,
    severity=Severity.BLOCK,
    meaning="A NaN or infinity has come up in the forward or backward pass. It spreads to everything that is computed "
    "from "
    "it, and after one update to all parameters.",
    reads="The loss of every step, non-finite counts of the sampled steps, and the equation where the first such "
    "number "
    "was born, found by running the step again.",
    thresholds=(),
    remedy="Mend the line where it is born (a logarithm or division by 0, an overflow of exp); or, if everything grew "
    "before, divide the learning rate by 10.",
    causes=(
        "learning-rate-too-high",
        "unnormalised-inputs",
        "poor-initialisation",
        "exploding-gradients",
        "exploding-loss",
    ),
    judge=not_finite,
    example=_START.replace("y = X @ np.arange(8.0).reshape(8, 1)", "y = (X[:, :1] > X[:, 1:2]).astype(np.float32)")
    + """
model = sg.nn.Sequential(
    sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 1, key=1, bias_init=sg.nn.initialise.ones)
)


def loss(outputs, y):
    p = sg.relu(outputs)
    return -sg.mean(y * sg.log(p) + (1 - y) * sg.log(2 - p))  # log(0)


optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
"""
    + _END,
    cure=(
        (
            "    p = sg.relu(outputs)\n    return -sg.mean(y * sg.log(p) + (1 - y) * sg.log(2 - p))  # log(0)",
            "    return sg.losses.binary_cross_entropy(outputs, y)",
        ),
    ),
)

EXPLODING_LOSS = Entry(
    name="exploding-loss",
    family="breakdown",
    question=Question.USED,
    severity=Severity.BLOCK,
    meaning="The loss grows instead of falling. The steps are so long that each lands higher up on the other side.",
    reads="The loss of every step.",
    thresholds=(GREW, PEAK),
    remedy="A learning rate 10 times smaller; standardised inputs and targets; clipping by norm against single steps.",
    causes=(
        "wrong-gradient",
        "learning-rate-too-high",
        "unnormalised-inputs",
        "poor-initialisation",
        "exploding-gradients",
    ),
    judge=exploding_loss,
    example=_START
    + """
model, loss = sg.nn.Linear(8, 1, key=0), sg.losses.mse
optimizer = sg.optim.SGD(model.parameters(), lr=1.0)
"""
    + _END,
    cure=(("lr=1.0", "lr=0.1"),),
)
