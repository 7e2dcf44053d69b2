"""Does the model say as much as the data allow, and no more?"""

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
from stepgrad.check.health.verdicts.reading import baseline, descents, finite, middle, smooth_ends

TURNED = Threshold(
    "validation loss at the end, over the least of all epochs",
    1.3,
    True,
    "validation losses move by some hundredths from epoch to epoch; a third more is a turn",
)
GAP = Threshold(
    "validation loss over training loss, at the end",
    2.0,
    True,
    "some gap is usual; twice the loss on rows not seen is more than that",
)
FELL = Threshold(
    "training loss at the end, over that at the best epoch",
    0.8,
    False,
    "what is learnt by heart makes the training loss fall; where it does not, validation rows are of another kind",
)
RISE = Threshold(
    "rise of the validation loss, over the loss of the best constant answer",
    0.1,
    True,
    "a loss near 0 may double because of a single row, and classes are still told apart as before",
)
HIGH = Threshold(
    "validation loss at the end, over the loss of the best constant answer",
    0.4,
    True,
    "as long as it is well below that, the network answers unseen rows well, if somewhat too surely",
)
LITTLE = Threshold(
    "loss at the end, over that of the best constant answer",
    0.8,
    True,
    "a model that takes less than a fifth off has hardly used its inputs; noisy data may not allow more",
)
LEVEL = Threshold(
    "decrease of the loss in the second half of the run, over its value",
    0.02,
    False,
    "what still falls is not at its end",
)
WORSE = Threshold(
    LITTLE.what,
    1.2,
    True,
    "a loss that is well above that of a constant answer is not a matter of the model's size; other verdicts say why",
)
FEWEST_EPOCHS = 4


def overfitting(run: Run) -> Finding | None:
    known = [
        (e, e.validation_loss) for e in run.epochs if e.validation_loss is not None and math.isfinite(e.validation_loss)
    ]
    if len(known) < FEWEST_EPOCHS:
        return None
    best, least = min(known, key=lambda pair: pair[1])
    tail = [v for _, v in known[-max(1, len(known) // 10) :]]
    end = sum(tail) / len(tail)
    last = known[-1][0]
    at_best, at_end = best.loss, last.loss
    if not (least > 0 and at_end >= 0 and at_end < at_best):
        return None
    turned, gap = end / least, end / at_end if at_end > 0 else math.inf
    reference = baseline(run) or end
    rise, high, fell = (end - least) / reference, end / reference, at_end / at_best
    turns = TURNED.holds(turned) and RISE.holds(rise) and HIGH.holds(high) and last.epoch - best.epoch >= 2
    if not (turns and GAP.holds(gap) and FELL.holds(fell)):
        return None
    return Finding(
        f"since epoch {best.epoch} of {last.epoch} the validation loss rises, from {number(least)} to {number(end)}, "
        f"while the "
        f"training loss falls, from {number(at_best)} to {number(at_end)}",
        (
            Evidence(TURNED.what, turned, TURNED),
            Evidence(GAP.what, gap, GAP),
            Evidence(RISE.what, rise, RISE),
            Evidence(HIGH.what, high, HIGH),
            Evidence(FELL.what, fell, FELL),
            *_metrics(best.validation_metrics, last.validation_metrics),
        ),
        f"stop at epoch {best.epoch} (sg.fit leaves the model with the weights of its best epoch); for more, add rows, "
        "sg.nn.Dropout(0.5), or weight decay: sg.optim.AdamW(…, weight_decay=0.1)",
        since=best.step,
        until=last.step,
    )


def _metrics(best: dict[str, float], last: dict[str, float]) -> list[Evidence]:
    return [
        Evidence(f"validation {name} at the best epoch, and at the end", f"{number(best[name])}, {number(last[name])}")
        for name in best
        if name in last
    ]


def underfitting(run: Run) -> Finding | None:
    reference = baseline(run)
    if reference is None or not reference > 0:
        return None
    losses = finite(run.losses)
    half = len(losses) // 2
    if half < 10:
        return None
    _, end, _ = smooth_ends(losses)
    _, before, _ = smooth_ends(losses[: half + max(1, half // 10)])
    level, share = (before - end) / end if end > 0 else math.inf, end / reference
    if not (LITTLE.holds(share) and LEVEL.holds(level)) or WORSE.holds(share):
        return None
    size = sum(p.size for p in run.parameters)
    best = middle(d.best_factor for d in descents(run))
    return Finding(
        f"the loss ends level at {number(end)}, {percent(share)} of the {number(reference)} of an answer that ignores "
        f"the inputs",
        (
            Evidence(LITTLE.what, share, LITTLE),
            Evidence(LEVEL.what, level, LEVEL),
            Evidence("numbers in the model", f"{size:,}"),
            Evidence("best step along the update, over the step taken (median)", best),
        ),
        "make the model larger, for example a hidden layer of "
        f"{max(32, 2 * max((layer.units for layer in run.layers[:-1]), default=16))} units with relu; if it does not "
        f"help, see "
        "whether inputs and targets belong together (train on 20 rows: a sound network gets to a loss near 0)",
        since=half,
        until=len(run.losses),
    )


_START = """\
import numpy as np
import stepgrad as sg

rng = np.random.default_rng(0)
"""
_END = """\
health = sg.health(model, loss, optimizer, every=2)
sg.fit(model, loss, optimizer, (X, y), epochs=40, validation=0.5, callbacks=[health], progress=False)
print(health.report())
"""

OVERFITTING = Entry(
    name="overfitting",
    family="fit",
    question=Question.DATA,
    severity=Severity.WASTE,
    meaning="The model learns its training rows by heart: their loss falls, and that of rows it has not seen rises.",
    reads="Training and validation loss of every epoch.",
    thresholds=(TURNED, GAP, RISE, HIGH, FELL),
    remedy="Stop at the best epoch; more rows, a smaller model, dropout or weight decay for a better one.",
    causes=("learning-rate-too-high",),
    judge=overfitting,
    example=_START
    + """X = rng.standard_normal((80, 20), dtype=np.float32)
y = (X[:, 0] + rng.standard_normal(80) > 0).astype(int)

model = sg.nn.Sequential(sg.nn.Linear(20, 128, key=0), sg.nn.ReLU(), sg.nn.Linear(128, 2, key=1))
loss = sg.losses.cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
"""
    + _END,
    cure=(
        (
            "sg.nn.Sequential(sg.nn.Linear(20, 128, key=0), sg.nn.ReLU(), sg.nn.Linear(128, 2, key=1))",
            "sg.nn.Linear(20, 2, key=0)",
        ),
        ("sg.optim.Adam(model.parameters(), lr=0.01)", "sg.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1.0)"),
    ),
)

UNDERFITTING = Entry(
    name="underfitting",
    family="fit",
    question=Question.DATA,
    severity=Severity.HARM,
    meaning="The loss has come to rest hardly below that of an answer that ignores the inputs. The model can't "
    "express what "
    "there is to learn, or there is nothing.",
    reads="The loss of every step, and that of the best constant answer: the labels' entropy, or the targets' "
    "variance.",
    thresholds=(LITTLE, LEVEL),
    remedy="A larger model, or one with a hidden layer at all; less regularisation; inputs that say something about "
    "targets.",
    causes=(
        "labels-out-of-range",
        "regulariser-dominates",
        "disconnected-parameters",
        "frozen-parameters",
        "poor-initialisation",
        "unnormalised-inputs",
        "learning-rate-too-high",
        "dying-units",
        "dead-units",
        "saturated-units",
        "vanishing-gradients",
        "exploding-gradients",
        "adam-epsilon",
        "always-clipped",
        "learning-rate-too-low",
        "data-order",
        "constant-predictions",
    ),
    judge=underfitting,
    example=_START
    + """X = rng.standard_normal((400, 2), dtype=np.float32)
y = (X[:, 0] * X[:, 1] > 0).astype(int)

model = sg.nn.Linear(2, 2, key=0)
loss = sg.losses.cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.02)
"""
    + _END,
    cure=(
        (
            "sg.nn.Linear(2, 2, key=0)",
            "sg.nn.Sequential(sg.nn.Linear(2, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 2, key=1))",
        ),
    ),
)
