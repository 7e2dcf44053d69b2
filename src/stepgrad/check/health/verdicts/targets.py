"""Can the model give what it is asked for?"""

from __future__ import annotations

import math

from stepgrad.check.health.record import Run
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, number
from stepgrad.check.health.verdicts.reading import loss_ops

OUTSIDE = Threshold(
    "how far targets lie outside of what the last op can give, over its range",
    0.01,
    True,
    "a rounding may lie outside; a hundredth of the range is no rounding",
)

_RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "softsign": (-1.0, 1.0),
    "exp": (0.0, math.inf),
    "hardtanh": (-1.0, 1.0),
    "log_softmax": (-math.inf, 0.0),
}


def labels_out_of_range(run: Run) -> Finding | None:
    return _label_error(run) or _unreachable(run) or _activated_twice(run)


def _label_error(run: Run) -> Finding | None:
    """Labels beyond the classes: in the data, or in a step that raised."""
    data, failure = run.data, run.failure
    if data is not None and data.classes and data.target_kind == "labels" and math.isfinite(data.target_high):
        classes = max(data.classes, 2)  # a single output tells two classes apart
        if data.target_low < 0 or data.target_high > classes - 1:
            span = f"from {number(data.target_low)} to {number(data.target_high)}"
            return Finding(
                f"labels go {span}, and the model has {data.classes} outputs, for labels from 0 to {classes - 1}",
                (Evidence("labels", span), Evidence("outputs of the model", float(data.classes))),
                f"make the last layer {number(data.target_high + 1)} outputs wide"
                if data.target_low >= 0
                else f"number the classes from 0: labels - ({number(data.target_low)})",
            )
    if failure is not None and failure.loss is None and ("label" in failure.error or "target" in failure.error):
        says = failure.error.strip().splitlines()[0]
        return Finding(
            f"step {failure.step} stopped: {says}",
            (Evidence("error", says),),
            failure.error.strip().splitlines()[-1].removeprefix("  instead: "),
            since=failure.step,
            until=failure.step,
        )
    return None


def _unreachable(run: Run) -> Finding | None:
    data, op = run.data, run.settings.last_op
    if data is None or data.target_kind != "numbers" or op not in _RANGES or "cross_entropy" in loss_ops(run):
        return None
    low, high = _RANGES[op]
    span = (high - low) if math.isfinite(high - low) else max(data.target_std, 1e-30)
    outside = max(low - data.target_low, data.target_high - high, 0.0) / span
    if not OUTSIDE.holds(outside):
        return None
    shown = f"from {low:g} to {high:g}" if math.isfinite(high) and math.isfinite(low) else f"from {low:g} on"
    return Finding(
        f"targets go from {number(data.target_low)} to {number(data.target_high)}, but the model ends in {op}, which "
        f"gives "
        f"numbers {shown}",
        (
            Evidence(OUTSIDE.what, outside, OUTSIDE),
            Evidence("targets", f"from {number(data.target_low)} to {number(data.target_high)}"),
        ),
        f"leave {op} out at the end of the model, or scale the targets into this range: "
        f"y = (y {'-' if data.target_low >= 0 else '+'} {abs(data.target_low):.3g}) / "
        f"{data.target_high - data.target_low:.3g}",
    )


def _activated_twice(run: Run) -> Finding | None:
    """A loss that computes sigmoid or softmax itself, behind a model that ends in one."""
    op, ops = run.settings.last_op, loss_ops(run)
    if op not in ("softmax", "sigmoid", "relu", "log_softmax") or "cross_entropy" not in ops or op == "log_softmax":
        return None
    loss = "binary_cross_entropy" if "binary_cross_entropy" in ops else "cross_entropy"
    return Finding(
        f"the model ends in {op}, and {loss} is computed from logits, of any size and sign: "
        + ("relu leaves none that is negative" if op == "relu" else f"{op} leaves it no way to come near 0 and 1"),
        (Evidence("last op of the model", op), Evidence("loss", loss)),
        f"leave {op} out at the end of the model: {loss} contains "
        + ("the sigmoid" if loss.startswith("binary") else "the softmax"),
    )


_START = """\
import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
"""
_END = """\
health = sg.health(model, loss, optimizer, every=2)
sg.fit(model, loss, optimizer, (X, y), epochs=10, callbacks=[health], progress=False)
print(health.report())
"""
LABELS = Entry(
    name="labels-out-of-range",
    family="data",
    question=Question.DATA,
    severity=Severity.BLOCK,
    meaning="The model can't give what it is asked for: labels beyond its number of outputs, targets outside the "
    "range of its "
    "last activation, or a loss of logits behind a softmax or sigmoid, which leaves it no way to be sure.",
    reads="The range of the targets, the op that the model ends in, and the ops of the loss.",
    thresholds=(OUTSIDE,),
    remedy="A last layer as wide as there are classes and without an activation; targets that are scaled into the "
    "range.",
    causes=(),
    judge=labels_out_of_range,
    example=_START
    + """y = 5 + 3 * X[:, :1]

model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 1, key=1), sg.nn.Sigmoid())
loss = sg.losses.mse
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
"""
    + _END,
    cure=((", sg.nn.Sigmoid())", ")"),),
)
