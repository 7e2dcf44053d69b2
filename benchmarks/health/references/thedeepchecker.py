"""TheDeepChecker's checks, as far as a recording allows (Ben Braiek and Khomh, "Testing Feedforward Neural
Networks Training Programs", TOSEM 2022, arXiv:2204.00694; thresholds are the defaults of public ports of its code).

It runs them while it overfits a single batch; here they see the training itself. Left out are checks that need runs of
their own: gradients by differences, fitting a batch with zeroed inputs, augmentation. The thresholds of gradients
were not found in its documents; for "vanishing" that of SageMaker's rule stands in, which it was compared with.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from benchmarks.health.datasets import Array
from benchmarks.health.references.rule import FLOW, GROWTH, STUCK, UNITS, Rule, Tool, label_counts, mean_size
from benchmarks.health.watched import Course

_START = 100
"""The step from which activations and weights are checked."""

_F = {0.1: 2.70554, 0.025: 5.0239}
"""Critical values of its F test."""


def unnormalised_inputs(course: Course) -> bool:
    """Features are neither within 0 or -1 to 1, nor of mean 0 and deviation 1 (all together, as for pixels)."""
    return _unnormalised(course.data.X)


def unnormalised_targets(course: Course) -> bool:
    """The same of targets that are numbers."""
    return course.task == "numbers" and _unnormalised(course.data.y)


def _unnormalised(values: Array) -> bool:
    low, high = float(values.min()), float(values.max())
    if math.isclose(high, 1, rel_tol=1e-2) and (abs(low) < 1e-2 or math.isclose(low, -1, rel_tol=1e-2)):
        return False
    return not (abs(float(values.mean())) < 0.05 and abs(float(values.std()) - 1) < 0.05)


def unbalanced_labels(course: Course) -> bool:
    """(Perplexity of the labels - 1) / (classes - 1) is below 0.5."""
    counts = label_counts(course)
    if len(counts) < 2:
        return False
    shares = counts / counts.sum()
    return (math.exp(-float(np.sum(shares * np.log(shares)))) - 1) / (len(counts) - 1) < 0.5


def poor_initial_weights(course: Course) -> bool:
    """A weight has no variance, or one that an F test (α = 0.1) tells from He's, Glorot's and LeCun's."""
    for name in course.kernels():
        weight = course.initial[name]
        fan_in, fan_out = weight.shape
        variance = float(np.var(weight))
        if variance < 1e-16:
            return True
        wanted = (2 / fan_in, 2 / (fan_in + fan_out), 1 / fan_in)
        if all(max(variance / w, w / variance) > _F[0.1] for w in wanted):
            return True
    return False


def initial_loss(course: Course) -> bool:
    """The first loss of a classifier is off log(classes) by more than 100 % of it."""
    if course.task != "classes" or course.loss != "cross_entropy" or not course.data.classes:
        return False
    expected = math.log(course.data.classes)
    return not abs(course.losses[0] - expected) <= expected


def dead_activations(course: Course) -> bool:
    """The 95th percentile of the magnitude is below 1e-5 for more than half of a layer's units."""
    return any(
        np.mean(np.percentile(np.abs(layer.outputs), 95, axis=0) < 1e-5) > 0.5
        for s in course.snapshots
        if s.step >= _START
        for layer in s.layers
        if layer.kind not in ("tanh", "sigmoid")
    )


def saturated_activations(course: Course) -> bool:
    """ρ_B (Rakitianskaia and Engelbrecht 2015, 50 bins) is above 0.85 for more than half of a layer's units."""
    ends = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
    return any(
        np.mean([_rho(unit, *ends[layer.kind]) > 0.85 for unit in layer.outputs.T]) > 0.5
        for s in course.snapshots
        if s.step >= _START
        for layer in s.layers
        if layer.kind in ends
    )


def _rho(values: Array, low: float, high: float) -> float:
    """Mean over 50 bins, by their counts, of how far the bin's mean is from the middle, from 0 to 1."""
    scaled = 2 * (values - low) / (high - low) - 1
    counts, edges = np.histogram(scaled, 50, (-1, 1))
    sums, _ = np.histogram(scaled, edges, weights=scaled)
    return float(np.abs(sums).sum() / max(counts.sum(), 1))


def unstable_activations(course: Course) -> bool:
    """The deviation of a layer's activation is outside 0.5 to 2, by an F test (α = 0.025)."""
    for snapshot in course.snapshots:
        if snapshot.step < _START:
            continue
        for layer in snapshot.layers:
            variance = float(np.var(layer.outputs))
            if variance < 0.25 / _F[0.025] or variance > 4 * _F[0.025]:
                return True
    return False


def constant_outputs(course: Course) -> bool:
    """An output has no variance over the rows, 5 times in a row."""
    flags = [bool((np.var(s.outputs, axis=0) == 0).any()) for s in course.snapshots]
    return any(all(flags[i : i + 5]) for i in range(len(flags) - 4))


def diverging_weights(course: Course) -> bool:
    """The mean magnitude of a weight is above 1e8, or doubles at 5 looks in a row; or a value is NaN or Inf."""
    if not np.isfinite(course.losses).all():
        return True
    for name in course.kernels():
        sizes = [mean_size(s.after[name]) for s in course.snapshots]
        if any(not x <= 1e8 for x in sizes) or _grows(sizes, 2.0):
            return True
    return False


def _grows(values: list[float], factor: float, times: int = 4) -> bool:
    rises = [b >= factor * a > 0 for a, b in itertools.pairwise(values)]
    return any(all(rises[i : i + times]) for i in range(len(rises) - times + 1))


def vanishing_gradient(course: Course) -> bool:
    """The mean magnitude of a weight's gradient is below 1e-7, or halves at 5 looks in a row."""
    for name in course.kernels():
        sizes = [mean_size(s.gradients[name]) for s in course.snapshots]
        if min(sizes, default=1.0) < 1e-7 or _grows([1 / s for s in sizes if s], 2.0):
            return True
    return False


def exploding_gradient(course: Course) -> bool:
    """The mean magnitude of a weight's gradient is above 1e8, or doubles at 5 looks in a row."""
    found = [[mean_size(s.gradients[name]) for s in course.snapshots] for name in course.kernels()]
    return any(not max(sizes, default=0.0) <= 1e8 or _grows(sizes, 2.0) for sizes in found)


def _update_sizes(course: Course) -> list[float]:
    """log10 of update over weight for each weight, averaged over 10 looks."""
    found = []
    for name in course.kernels():
        logs = []
        for s in course.snapshots:
            change, size = mean_size(s.after[name] - s.before[name]), mean_size(s.before[name])
            logs.append(math.log10(change / size) if change > 0 and size > 0 else 0.0)
        found += [float(np.mean(logs[i : i + 10])) for i in range(0, len(logs), 10)]
    return found


def updates_too_large(course: Course) -> bool:
    """log10 of update over weight is above -1."""
    return any(-1 < x < 0 or x > 0 for x in _update_sizes(course))


def updates_too_small(course: Course) -> bool:
    """log10 of update over weight is below -4."""
    return any(x < -4 for x in _update_sizes(course))


def untrained(course: Course) -> bool:
    """A weight does not change."""
    return any(x == 0 for x in _update_sizes(course))


def _periods(course: Course) -> list[float]:
    return [float(np.mean(course.losses[i : i + 10])) for i in range(0, len(course.losses) - 9, 10)]


def stagnating_loss(course: Course) -> bool:
    """Over 5 periods of 10 steps the loss falls by less than 5 % from each to the next."""
    losses = _periods(course)
    slow = [(a - b) / a < 0.05 for a, b in itertools.pairwise(losses)]
    return any(all(slow[i : i + 4]) for i in range(len(slow) - 3))


def diverging_loss(course: Course) -> bool:
    """Over 5 periods the loss doubles from each to the next; or it is NaN or Inf."""
    return not np.isfinite(course.losses).all() or _grows(_periods(course), 2.0)


def fluctuating_loss(course: Course) -> bool:
    """Of the last 50 periods, less than half go on in the direction of the one before."""
    losses = _periods(course)
    for end in range(10, len(losses) + 1):
        part = np.array(losses[max(0, end - 50) : end])
        turns = np.count_nonzero(np.diff((part[1:] > part[:-1]).astype(int)))
        if 1 - turns / len(part) < 0.5:
            return True
    return False


def overwhelming_regularisation(course: Course) -> bool:
    """The gradient of the penalty is larger than that of the loss at 5 looks in a row (of the optimizer's L2 here)."""
    if not course.weight_decay:
        return False
    for name in course.kernels():
        larger = [
            course.weight_decay * np.linalg.norm(s.before[name]) >= np.linalg.norm(s.gradients[name])
            for s in course.snapshots
        ]
        if any(all(larger[i : i + 5]) for i in range(len(larger) - 4)):
            return True
    return False


TOOL = Tool(
    "TheDeepChecker",
    "Ben Braiek and Khomh, TOSEM 2022, arXiv:2204.00694",
    (
        Rule("unnormalized inputs", unnormalised_inputs, frozenset({"unnormalised-inputs"})),
        Rule("unnormalized targets", unnormalised_targets, frozenset({"labels-out-of-range"})),
        Rule("unbalanced labels", unbalanced_labels, frozenset({"class-imbalance"})),
        Rule("poor initial weights", poor_initial_weights, frozenset({"poor-initialisation"})),
        Rule("initial loss", initial_loss, frozenset({"poor-initialisation", "unnormalised-inputs"})),
        Rule("dead activations", dead_activations, UNITS),
        Rule("saturated activations", saturated_activations, frozenset({"saturated-units"})),
        Rule(
            "unstable activations",
            unstable_activations,
            frozenset({"poor-initialisation", "exploding-gradients", "vanishing-gradients", "unnormalised-inputs"}),
        ),
        Rule("constant outputs", constant_outputs, frozenset({"constant-predictions"})),
        Rule("diverging weights", diverging_weights, GROWTH | {"learning-rate-too-high"}),
        Rule("vanishing gradient", vanishing_gradient, FLOW | {"disconnected-parameters"}),
        Rule("exploding gradient", exploding_gradient, GROWTH),
        Rule("updates too large", updates_too_large, frozenset({"learning-rate-too-high"})),
        Rule(
            "updates too small",
            updates_too_small,
            frozenset({"learning-rate-too-low", "adam-epsilon", "always-clipped"}),
        ),
        Rule("untrained weights", untrained, STUCK),
        Rule("stagnating loss", stagnating_loss, frozenset({"learning-rate-too-low", "underfitting"})),
        Rule("diverging loss", diverging_loss, GROWTH | {"learning-rate-too-high"}),
        Rule("fluctuating loss", fluctuating_loss, frozenset({"learning-rate-too-high", "data-order"})),
        Rule("overwhelming regularization", overwhelming_regularisation, frozenset({"regulariser-dominates"})),
    ),
)
