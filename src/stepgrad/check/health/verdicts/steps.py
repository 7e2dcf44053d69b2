"""Are the steps of the right length?"""

from __future__ import annotations

import math

from stepgrad.check.health.record import Run
from stepgrad.check.health.verdicts.entry import (
    Entry,
    Evidence,
    Finding,
    Question,
    Severity,
    Threshold,
    number,
    percent,
)
from stepgrad.check.health.verdicts.reading import (
    descents,
    finite,
    first_part,
    middle,
    remaining,
    rise_in_errors,
    smooth_ends,
)

OVERSHOT = Threshold(
    "share of examined steps after which the loss of their own batch is higher than before",
    0.5,
    True,
    "a step along the gradient lowers the loss of its own batch unless it is too long; Cockpit's alpha (Schneider et "
    "al. "
    "2021) is above 1 there",
)
FAR = Threshold(
    "length of the update over the norm of the weights (median of the sampled steps)",
    0.1,
    True,
    "about a thousandth is usual, and a hundredth lively; at a tenth the weights are others after ten steps",
)
LEAP = Threshold(
    "largest length of an update over the norm of the weights, in the first tenth of the samples",
    1.0,
    True,
    "such a step puts the weights anywhere: nothing is left of the initial values",
)
NO_PROGRESS = Threshold(
    "loss at the end, over the loss at the beginning, or over that of the best constant answer",
    0.8,
    True,
    "steps that overshoot and still lower the loss this much are no fault",
)
RESTLESS = Threshold(
    "loss at the end, over the least in between (means over a tenth of the run)",
    1.3,
    True,
    "a healthy run ends near its least loss",
)
HIGH = Threshold(
    "loss at the end, over that of the best constant answer (or over the loss at the beginning)",
    0.4,
    True,
    "a loss that got far below that moves up and down by its own size",
)
HARMFUL = Threshold(
    "share of examined steps that raised the loss of their own batch or of another one",
    0.25,
    True,
    "near a minimum half of the steps raise the loss of another batch a little: a condition beside a loss that rose",
)
ROOM = Threshold(
    "how many times longer the best step along the update is (median of the examined steps)",
    8.0,
    True,
    "the best step is often several times longer than one that is safe for every batch",
)
STRAIGHT = Threshold(
    "change of the loss over what the gradient predicts (median of the examined steps)",
    0.9,
    True,
    "where the loss falls exactly as its gradient says, the step is too short to feel any curvature",
)
SLOW = Threshold(
    "loss at the end, over the loss at the beginning (means over a tenth of the run)",
    0.9,
    True,
    "a learning rate that lowered the loss by a tenth was perhaps not the best, but training was under way",
)


SURELY = Threshold(
    "rise of the loss from its least to the end, in standard errors",
    4.0,
    True,
    "batches differ; the least of ten means lies 2 standard errors below a level, by chance alone",
)
TWICE = Threshold(
    RESTLESS.what,
    2.0,
    True,
    "where single batches have many times the usual loss, standard errors are large, and the loss still doubled",
)
FEWEST_DESCENTS = 3
COHERENT = Threshold(
    "cosine between the gradients of the two halves of a batch (mean of the sampled steps)",
    0.2,
    True,
    "where the halves do not agree, gradients are noise about a level that longer steps would not lower",
)
FEWEST_COSINES = 3


def too_high(run: Run) -> Finding | None:
    seen = descents(run)
    begin, end, least = smooth_ends(run.losses)
    far = middle(s.update_norm / s.weight_norm for s in run.samples if s.weight_norm > 0)
    leap = max((s.update_norm / s.weight_norm for s in first_part(run, 0.1) if s.weight_norm > 0), default=math.nan)
    overshot = [d for d in seen if d.actual > 0]
    share = len(overshot) / len(seen) if seen else math.nan
    harmful = sum(max(d.actual, d.next_batch_change or 0.0) > 0 for d in seen) / len(seen) if seen else math.nan
    begin = min([begin, *finite(run.losses[:1])])
    progress = end / begin if begin > 0 else math.nan
    restless = end / least if least > 0 else math.nan
    broke = bool(run.losses) and not math.isfinite(run.losses[-1])
    enough = len(seen) >= FEWEST_DESCENTS or broke
    left = remaining(run)
    stuck = broke or NO_PROGRESS.holds(progress) or NO_PROGRESS.holds(left)
    astray = stuck and ((OVERSHOT.holds(share) and enough) or FAR.holds(far) or LEAP.holds(leap))
    rose = RESTLESS.holds(restless) and HIGH.holds(left) and HARMFUL.holds(harmful) and enough
    errors = rise_in_errors(run.losses)
    if not (astray or (rose and (SURELY.holds(errors) or TWICE.holds(restless)))):
        return None
    best = middle(d.best_factor for d in seen)
    rate = run.settings.learning_rate
    factor, why = _factor(best, leap)
    evidence = [Evidence(FAR.what, far, FAR), Evidence(LEAP.what, leap, LEAP)]
    if seen:
        evidence.insert(0, Evidence(OVERSHOT.what, share, OVERSHOT, "%"))
        evidence.insert(1, Evidence(HARMFUL.what, harmful, HARMFUL, "%"))
        evidence.append(Evidence("best step along the update, over the step taken (median)", best))
        evidence.append(Evidence("change of the loss over what the gradient predicts (median)", _ratio(run)))
    evidence.append(Evidence(NO_PROGRESS.what, max(finite([progress, left]), default=math.nan), NO_PROGRESS))
    evidence.append(Evidence(RESTLESS.what, restless, RESTLESS))
    evidence.append(Evidence(SURELY.what, errors, SURELY))
    evidence.append(Evidence(HIGH.what, left, HIGH))
    measured = (
        f"{len(overshot)} of {len(seen)} examined steps raised the loss of their own batch"
        if OVERSHOT.holds(share)
        else f"each step changes the weights by {percent(far)} of their size"
        if FAR.holds(far)
        else f"one of the first steps changed the weights by {number(leap)} times their size"
        if LEAP.holds(leap)
        else f"{percent(harmful)} of the examined steps raised the loss of their own batch or of another one"
    )
    return Finding(
        f"{measured}, and the loss went from {number(begin)} to {number(end)} (least {number(least)})",
        tuple(evidence),
        f"set lr={_rounded(rate * factor)} (now {rate:g}){why}",
        since=1,  # the setting acts from the first update on
        until=len(run.losses),
    )


def _factor(best: float, leap: float) -> tuple[float, str]:
    """What to multiply the learning rate with, a half at most, and why."""
    options = [(0.5, ", and halve it again until the loss falls steadily")]
    if best > 0:
        options.append((best, f": the best step along the update is {number(best)} of the one taken"))
    elif best == 0:
        options.append((0.1, ": no step along the update, however short, lowered the loss"))
    if leap > 1:
        options.append((0.5 / leap, ", so that no first step changes the weights by more than half of their size"))
    return min(options)


def too_low(run: Run) -> Finding | None:
    seen = descents(run)
    begin, end, _ = smooth_ends(run.losses)
    if not seen or not begin > 0:
        return None
    room, straight, progress = middle(d.best_factor for d in seen), _ratio(run), end / begin
    cosines = finite(s.noise.cosine for s in run.samples if s.noise is not None)
    coherent = sum(cosines) / len(cosines) if len(cosines) >= FEWEST_COSINES else math.nan
    if not (ROOM.holds(room) and STRAIGHT.holds(straight) and SLOW.holds(progress) and COHERENT.holds(coherent)):
        return None
    rate = run.settings.learning_rate
    largest = max(max(d.factors) for d in seen)
    more = " or more" if room >= largest else ""
    far = middle(s.update_norm / s.weight_norm for s in run.samples if s.weight_norm > 0)
    return Finding(
        f"the best step along the update is {number(room)} times longer{more}, and the loss went only from "
        f"{number(begin)} "
        f"to {number(end)} in {len(run.losses):,} steps",
        (
            Evidence(ROOM.what, room, ROOM),
            Evidence(STRAIGHT.what, straight, STRAIGHT),
            Evidence(SLOW.what, progress, SLOW),
            Evidence(COHERENT.what, coherent, COHERENT),
            Evidence(FAR.what, far),
        ),
        f"set lr={_rounded(rate * min(room, 10.0))} (now {rate:g}), and judge again",
        since=seen[0].step,
        until=seen[-1].step,
    )


def _ratio(run: Run) -> float:
    return middle(d.actual / d.predicted for d in descents(run) if d.predicted < 0)


def _rounded(rate: float) -> str:
    return f"{rate:.1g}"


_START = """\
import contextlib

import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)

model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 2, key=1))
loss = sg.losses.cross_entropy
"""
_END = """\
health = sg.health(model, loss, optimizer, every=2)
with contextlib.suppress(sg.errors.TrainingError):
    sg.fit(model, loss, optimizer, (X, y), epochs=10, callbacks=[health], progress=False)
print(health.report())
"""

TOO_HIGH = Entry(
    name="learning-rate-too-high",
    family="steps",
    question=Question.USED,
    severity=Severity.BLOCK,
    meaning="Steps overshoot: each lands higher on the other side of the valley, so the loss oscillates, stays where "
    "it is, "
    "or grows.",
    reads="The loss along the update of a few steps, on the batch the update was made from: whether it falls as the "
    "gradient predicts, and where it is least. The length of updates against the size of the weights. The loss of "
    "every step.",
    thresholds=(OVERSHOT, HARMFUL, FAR, LEAP, NO_PROGRESS, RESTLESS, SURELY, TWICE, HIGH),
    remedy="Multiply the learning rate by the best factor that the line search found, a half at most.",
    causes=(
        "wrong-gradient",
        "unnormalised-inputs",
        "poor-initialisation",
        "regulariser-dominates",
        "exploding-gradients",
    ),
    judge=too_high,
    example=_START + "optimizer = sg.optim.SGD(model.parameters(), lr=300.0)\n" + _END,
    cure=(("lr=300.0", "lr=0.3"),),
)

TOO_LOW = Entry(
    name="learning-rate-too-low",
    family="steps",
    question=Question.USED,
    severity=Severity.HARM,
    meaning="Steps are so short that the loss falls along a straight line, and hardly at all: the plateau is not a "
    "property "
    "of the network, but of the pace.",
    reads="The loss along the update of a few steps: how much longer the best step would be, and whether the loss "
    "falls as "
    "the gradient predicts. The loss of every step.",
    thresholds=(ROOM, STRAIGHT, SLOW, COHERENT),
    remedy="Multiply the learning rate by the best factor that the line search found, at most 10 at a time.",
    causes=("vanishing-gradients", "always-clipped", "adam-epsilon", "disconnected-parameters"),
    judge=too_low,
    example=_START + "optimizer = sg.optim.SGD(model.parameters(), lr=0.0003)\n" + _END,
    cure=(("lr=0.0003", "lr=0.3"),),
)
