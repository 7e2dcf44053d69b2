"""Do the order of rows, the share of classes and the answers make sense?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import pvariance

from stepgrad.check.health.record import Outputs, Run
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
from stepgrad.check.health.verdicts.reading import finite, late, loss_ops, middle

ONE_CLASS = Threshold(
    "share of the rows for which the most predicted class is predicted (in the last third of the steps)",
    0.98,
    True,
    "judged only where no class has more than 9 of 10 labels: then a network that tells classes apart predicts "
    "others, too",
)
FLAT = Threshold(
    "standard deviation of the outputs over the rows, over that of the targets (in the last third of the steps)",
    0.02,
    False,
    "a network that explains a twentieth of a hundredth of the variance explains nothing",
)
SORTED = Threshold(
    "how much more alike the labels of a batch are than those of shuffled rows (0: as alike, 1: all the same)",
    0.35,
    True,
    "batches of 16 and more shuffled rows have 0 ± 0.1",
)
DRIFT = Threshold(
    "variance of the batches' mean targets, over that of shuffled rows",
    8.0,
    True,
    "it is about 1 for shuffled rows, and with 10 batches above 2.5 once in 100 runs",
)
RARE = Threshold(
    "labels of the most frequent class, over those of the least frequent",
    9.0,
    True,
    "SageMaker Debugger's ClassImbalance begins at 10",
)
MISSED = Threshold(
    "predictions of a rare class, over its labels (in the last third of the steps)",
    0.3,
    False,
    "an imbalance that the network copes with is no fault: this is the symptom",
)
FEWEST_BATCHES, FEWEST_ROWS, FEWEST_LABELS, FEWEST_ANSWERS = 5, 8, 10, 30


def constant_predictions(run: Run) -> Finding | None:
    samples = [s for s in late(run) if s.outputs is not None]
    if sum(s.batch_size for s in samples) < FEWEST_ANSWERS or run.data is None:
        return None
    outputs = [s.outputs for s in samples if s.outputs is not None]
    if _answers_with_classes(run) and any(o.predicted for o in outputs):
        return _one_class(run, outputs, samples[0].step)
    spread = middle(o.row_std / o.target_std for o in outputs if o.target_std > 0)
    if not FLAT.holds(spread):
        return None
    return Finding(
        f"the outputs differ between rows by {percent(spread)} of what the targets differ: the model answers about "
        f"{number(middle(o.mean for o in outputs))} to everything",
        (
            Evidence(FLAT.what, spread, FLAT),
            Evidence("mean output", middle(o.mean for o in outputs)),
            Evidence("mean target", run.data.target_mean),
        ),
        _CONSTANT_REMEDY,
        since=samples[0].step,
        until=samples[-1].step,
    )


_CONSTANT_REMEDY = (
    "look at the other verdicts: something keeps the inputs' information from the outputs; if there are none, "
    "train longer, or see whether inputs and targets belong together"
)


def _one_class(run: Run, outputs: Sequence[Outputs], since: int) -> Finding | None:
    predicted, labels = _sums([o.predicted for o in outputs]), _sums([o.labels for o in outputs])
    if not sum(predicted) or not sum(labels) or max(labels) / sum(labels) > 0.9:
        return None
    share = max(predicted) / sum(predicted)
    if not ONE_CLASS.holds(share):
        return None
    favourite = predicted.index(max(predicted))
    true = labels[favourite] / sum(labels) if favourite < len(labels) else 0.0
    return Finding(
        f"class {favourite} is predicted for {percent(share)} of the rows, and {percent(true)} of the rows have it",
        (Evidence(ONE_CLASS.what, share, ONE_CLASS, "%"), Evidence(f"labels that are {favourite}", percent(true))),
        _CONSTANT_REMEDY,
        since=since,
        until=run.samples[-1].step,
    )


def _answers_with_classes(run: Run) -> bool:
    """Outputs stand for classes; what a single output against targets 0 and 1 means is known for cross entropy only."""
    return run.data is not None and (run.data.classes is not None or "cross_entropy" in loss_ops(run))


def data_order(run: Run) -> Finding | None:
    batches = [s.outputs for s in run.samples if s.outputs is not None]
    sizes = [s.batch_size for s in run.samples if s.outputs is not None]
    if len(batches) < FEWEST_BATCHES or run.data is None:
        return None
    if any(b.labels for b in batches):
        return _sorted_labels(run, batches)
    if not run.data.target_std > 0 or run.data.target_kind == "labels":
        return None
    means = finite(b.target_mean for b in batches)
    size = middle(float(s) for s in sizes)
    if len(means) < FEWEST_LABELS or size < FEWEST_ROWS:
        return None
    drift = pvariance(means) / (run.data.target_std**2 / size)
    if not DRIFT.holds(drift):
        return None
    return _order(
        run, f"the mean target of a batch varies {number(drift)} times as much as in shuffled rows", DRIFT, drift
    )


def _sorted_labels(run: Run, batches: Sequence[Outputs]) -> Finding | None:
    whole = _sums([b.labels for b in batches])
    if run.data is not None and any(run.data.counts):
        whole = list(run.data.counts)
    alike = sum((c / sum(whole)) ** 2 for c in whole) if sum(whole) else 1.0
    found = []
    for batch in batches:
        rows = sum(batch.labels)
        if rows >= FEWEST_ROWS and alike < 0.95:
            own = sum(c * (c - 1) for c in batch.labels) / (rows * (rows - 1))  # pairs of rows with the same label
            found.append((own - alike) / (1 - alike))
    if len(found) < FEWEST_BATCHES:
        return None
    excess = sum(found) / len(found)
    if not SORTED.holds(excess):
        return None
    times = (excess * (1 - alike) + alike) / alike
    says = f"two rows of a batch have the same label {number(times)} times as often as two rows of the data"
    return _order(run, says, SORTED, excess)


def _order(run: Run, says: str, threshold: Threshold, value: float) -> Finding:
    return Finding(
        says,
        (Evidence(threshold.what, value, threshold),),
        "shuffle the rows, anew for each epoch: order = rng.permutation(len(X)); sg.fit does so",
        since=run.samples[0].step,
        until=run.samples[-1].step,
    )


def class_imbalance(run: Run) -> Finding | None:
    found = [(s.step, s.outputs) for s in late(run) if s.outputs is not None and s.outputs.labels]
    if run.data is None or len([c for c in run.data.counts if c]) < 2 or not found or not _answers_with_classes(run):
        return None
    counts = run.data.counts
    least, most = min(c for c in counts if c), max(counts)
    if not RARE.holds(most / least):
        return None
    predicted, labels = _sums([o.predicted for _, o in found]), _sums([o.labels for _, o in found])
    rare = [i for i, c in enumerate(counts) if c and RARE.holds(most / c) and i < len(labels) and labels[i]]
    shown = sum(labels[i] for i in rare)
    if shown < FEWEST_LABELS // 2:
        return None
    share = sum(predicted[i] for i in rare if i < len(predicted)) / shown
    if not MISSED.holds(share):
        return None
    names = ", ".join(map(str, rare[:5]))
    weights = [sum(counts) / (len(counts) * c) if c else 0.0 for c in counts]
    return Finding(
        f"class {names} has {percent(sum(counts[i] for i in rare) / sum(counts))} of the labels, and is predicted "
        f"{percent(share)} as often as it occurs",
        (
            Evidence(RARE.what, most / least, RARE),
            Evidence(MISSED.what, share, MISSED, "%"),
            Evidence("labels of each class", ", ".join(map(str, counts[:12]))),
        ),
        "weigh the classes: sg.losses.cross_entropy(logits, labels, weight=["
        + ", ".join(f"{w:.2g}" for w in weights[:8])
        + ("…" if len(weights) > 8 else "")
        + "]); judge by the share of each class that is found, not by accuracy",
        since=found[0][0],
        until=run.samples[-1].step,
    )


def _sums(rows: Sequence[Sequence[int]]) -> list[int]:
    width = max(map(len, rows), default=0)
    return [sum(row[i] for row in rows if i < len(row)) for i in range(width)]


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
_CLASSES = """\
model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 2, key=1))
loss = sg.losses.cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
"""

CONSTANT = Entry(
    name="constant-predictions",
    family="data",
    question=Question.DATA,
    severity=Severity.BLOCK,
    meaning="The model gives the same answer to every row: the mean of the targets, or the most frequent class. The "
    "loss may "
    "fall a little until it gets there, and then stays.",
    reads="How much outputs differ between the rows of a batch, or how often each class is predicted, in the last "
    "third of "
    "the sampled steps.",
    thresholds=(ONE_CLASS, FLAT),
    remedy="It is nearly always the consequence of something else: dead units, a penalty that is too strong, vanishing "
    "gradients, a learning rate that is too high, or targets that do not belong to their inputs.",
    causes=(
        "labels-out-of-range",
        "regulariser-dominates",
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
        "disconnected-parameters",
        "data-order",
        "exploding-loss",
    ),
    judge=constant_predictions,
    example=_START
    + """y = X[:, :1] * X[:, 1:2]

model, loss = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 1, key=1)), sg.losses.mse
optimizer = sg.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)
"""
    + _END,
    cure=((", weight_decay=1.0", ""),),
)

ORDER = Entry(
    name="data-order",
    family="data",
    question=Question.DATA,
    severity=Severity.HARM,
    meaning="Rows come sorted: each batch holds one class, or one end of the range. Each step then unlearns what the "
    "one "
    "before has taught.",
    reads="The labels or targets of the sampled batches against those of all rows.",
    thresholds=(SORTED, DRIFT),
    remedy="Shuffle the rows, anew for each epoch.",
    causes=(),
    judge=data_order,
    example=_START
    + """y = np.sort((X[:, 0] > 0).astype(int))
X[:, 0] = np.sort(X[:, 0])

"""
    + _CLASSES
    + """health = sg.health(model, loss, optimizer, every=2)
for step in range(80):
    rows = np.arange(32) + 32 * (step % 8)
    health.before(X[rows], y[rows])
    value = loss(model(X[rows]), y[rows])
    optimizer.step(sg.backward(value, model.parameters()))
    health.after(value)
print(health.report())
""",
    cure=(("rows = np.arange(32) + 32 * (step % 8)", "rows = np.random.default_rng(step).permutation(256)[:32]"),),
)

IMBALANCE = Entry(
    name="class-imbalance",
    family="data",
    question=Question.DATA,
    severity=Severity.HARM,
    meaning="A class is so rare that the network does well by never predicting it. The accuracy is high, and the "
    "class that "
    "often matters most is missed.",
    reads="How often each label occurs, and how often rare classes are predicted in the last third of the sampled "
    "steps.",
    thresholds=(RARE, MISSED),
    remedy="Weights for the classes in the loss, or rows of the rare class more often.",
    causes=("unnormalised-inputs", "learning-rate-too-high", "dead-units"),
    judge=class_imbalance,
    example=_START
    + """y = (X[:, 0] + np.random.default_rng(1).standard_normal(256) > 2.6).astype(int)

"""
    + _CLASSES
    + _END,
    cure=(
        (
            "loss = sg.losses.cross_entropy",
            "\n\ndef loss(outputs, y):\n    return sg.losses.cross_entropy(outputs, y, weight=[0.5, 10.0])\n\n",
        ),
    ),
)
