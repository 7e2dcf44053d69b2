"""Amazon SageMaker Debugger's built-in rules for deep learning.

Source: "List of Debugger built-in rules", docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html, and the
page of each rule there. Rules for trees, text and images are left out, and so are SimilarAcrossRuns (it compares
two runs), StalledTraining (it watches the clock) and Confusion (it wants a diagonal of 0.9, whatever can be reached).
A rule needs tensors that are named: they are those that its page gives as an example, or all.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from benchmarks.health.references.rule import (
    FLOW,
    GROWTH,
    STEPS,
    STUCK,
    UNITS,
    Rule,
    Tool,
    by_epoch,
    label_counts,
    layers,
    mean_size,
    tensors,
)
from benchmarks.health.watched import Course


def vanishing_gradient(course: Course) -> bool:
    """VanishingGradient: the mean magnitude of a gradient is below 1e-7."""
    return any(mean_size(g) < 1e-7 for s in course.snapshots for g in s.gradients.values())


def exploding_tensor(course: Course) -> bool:
    """ExplodingTensor: a tensor has a NaN or Inf."""
    losses = np.isfinite(course.losses).all()
    return not (losses and all(np.isfinite(t).all() for s in course.snapshots for t in tensors(s)))


def dead_relu(course: Course) -> bool:
    """DeadRelu: more than 50 % of a layer's units are active less than 1 % of the time."""
    return any(np.mean(100 * np.mean(layer.outputs > 0, axis=0) < 1.0) > 0.5 for layer in layers(course, "relu"))


def saturated_activation(course: Course) -> bool:
    """SaturatedActivation: more than 50 % of a layer's units have less than 1 % of their inputs within the limits.

    The limits are ±9.4999 for tanh, and -23 and 16.99999 for sigmoid.
    """
    limits = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}
    return any(
        np.mean(100 * np.mean((layer.inputs > low) & (layer.inputs < high), axis=0) < 1.0) > 0.5
        for kind, (low, high) in limits.items()
        for layer in layers(course, kind)
    )


def loss_not_decreasing(course: Course) -> bool:
    """LossNotDecreasing: after 10 steps the loss has not fallen by 0.1 %.

    Generously of the mean loss of 10 steps against that of the 10 before: of single batches it alarms almost always.
    """
    means = [np.mean(course.losses[i : i + 10]) for i in range(0, len(course.losses) - 9, 10)]
    return any(later > earlier * (1 - 0.001) for earlier, later in itertools.pairwise(means))


def poor_weight_initialization(course: Course) -> bool:
    """PoorWeightInitialization: within the first 10 steps, the variances of two layers' activation inputs differ by a
    factor of more than 10, or the 5th and 95th percentile of a gradient by less than 0.001, or the loss does not
    fall for 5 steps.
    """
    for snapshot in course.snapshots[:10]:
        variances = [float(np.var(layer.inputs)) for layer in snapshot.layers]
        if variances and max(variances) > 10 * min(variances):
            return True
        spans = [np.ptp(np.percentile(snapshot.gradients[name], (5, 95))) for name in course.kernels()]
        if min(spans) < 0.001:
            return True
    best, waited = math.inf, 0
    for loss in course.losses[:10]:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited >= 5:
            return True
    return False


def weight_update_ratio(course: Course) -> bool:
    """WeightUpdateRatio: an update over its weights is above 10 or below 1e-8 (mean magnitudes)."""
    ratios = [
        mean_size(s.after[name] - s.before[name]) / (mean_size(s.before[name]) + 1e-9)
        for s in course.snapshots
        for name in course.kernels()
    ]
    return any(r > 10 or r < 1e-8 for r in ratios)


def all_zero(course: Course) -> bool:
    """AllZero: all values of a gradient, weight or output are 0 (100 %)."""
    kernels = course.kernels()
    return any(
        not np.any(t)
        for s in course.snapshots
        for t in (
            *(s.gradients[n] for n in kernels),
            *(s.after[n] for n in kernels),
            *(layer.outputs for layer in s.layers),
            s.outputs,
        )
    )


def unchanged_tensor(course: Course) -> bool:
    """UnchangedTensor: a weight is the same over 3 steps, to rtol 1e-5 and atol 1e-8."""
    return any(
        all(np.allclose(a.after[name], b.after[name], rtol=1e-5, atol=1e-8) for a, b in itertools.pairwise(three))
        for name in course.kernels()
        for three in zip(course.snapshots, course.snapshots[1:], course.snapshots[2:], strict=False)
    )


def tensor_variance(course: Course) -> bool:
    """TensorVariance: the variance of a weight is above 10 or below 1e-5."""
    found = [float(np.var(s.after[n])) for s in course.snapshots for n in course.kernels()]
    return any(v > 10 or v < 1e-5 for v in found)


def class_imbalance(course: Course) -> bool:
    """ClassImbalance: the largest class is more than 10 times the smallest, or more than 0.7 of a class is
    mispredicted, once 500 labels were seen.
    """
    counts = label_counts(course)
    if not counts.size:
        return False
    recall = by_epoch(course, "recall")
    return counts.max() > 10 * counts.min() or bool(recall and 1 - recall[-1] > 0.7)


def overfit(course: Course) -> bool:
    """Overfit: validation loss is above training loss by more than 0.1 of it, for more than 1 check (epochs here)."""
    pairs = zip(by_epoch(course, "loss"), by_epoch(course, "held loss"), strict=True)
    beyond = [held - loss > 0.1 * loss for loss, held in pairs]
    return any(all(two) for two in itertools.pairwise(beyond))


def overtraining(course: Course) -> bool:
    """Overtraining: the training loss has not improved by 0.01 for 5 checks, or that of validation for 10 (epochs)."""
    return _stands_still(by_epoch(course, "loss"), 5) or _stands_still(by_epoch(course, "held loss"), 10)


def _stands_still(losses: list[float], patience: int) -> bool:
    best, waited = math.inf, 0
    for loss in losses:
        improved = loss < best - 0.01
        best, waited = (loss, 0) if improved else (best, waited + 1)
        if waited >= patience:
            return True
    return False


TOOL = Tool(
    "SageMaker Debugger",
    "docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html",
    (
        Rule(
            "VanishingGradient", vanishing_gradient, FLOW | UNITS | STUCK | {"saturated-units", "constant-predictions"}
        ),
        Rule("ExplodingTensor", exploding_tensor, GROWTH | {"learning-rate-too-high"}),
        Rule("DeadRelu", dead_relu, UNITS),
        Rule("SaturatedActivation", saturated_activation, frozenset({"saturated-units"})),
        Rule("LossNotDecreasing", loss_not_decreasing, STEPS | {"underfitting"}),
        Rule("PoorWeightInitialization", poor_weight_initialization, frozenset({"poor-initialisation"})),
        Rule("WeightUpdateRatio", weight_update_ratio, STEPS | STUCK),
        Rule("AllZero", all_zero, UNITS | STUCK | {"poor-initialisation", "constant-predictions"}),
        Rule("UnchangedTensor", unchanged_tensor, STUCK | {"learning-rate-too-low"}),
        Rule("TensorVariance", tensor_variance, frozenset({"poor-initialisation"})),
        Rule("ClassImbalance", class_imbalance, frozenset({"class-imbalance"})),
        Rule("Overfit", overfit, frozenset({"overfitting"})),
        Rule("Overtraining", overtraining, frozenset({"overfitting"})),
    ),
)
