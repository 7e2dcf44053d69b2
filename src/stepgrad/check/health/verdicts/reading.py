"""Quantities that several verdicts read from a recorded run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median, variance

from stepgrad.check.health.record import Descent, Layer, LayerSample, Run, Sample

NORMS = ("LayerNorm", "RMSNorm", "BatchNorm", "GroupNorm", "InstanceNorm")
"""Beginnings of the classes of layers that set the size of the signal anew."""


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are numbers."""
    return [v for v in values if v is not None and math.isfinite(v)]


def middle(values: Iterable[float | None]) -> float:
    """The median of those that are numbers; NaN if there are none."""
    found = finite(values)
    return median(found) if found else math.nan


def late(run: Run) -> list[Sample]:
    """The samples of the last third of the steps; there may be none, if nothing was looked at then."""
    return [s for s in run.samples if s.step > 2 / 3 * len(run.losses)]


def first_part(run: Run, share: float) -> Sequence[Sample]:
    """The samples of the first part of the run, at least one."""
    return run.samples[: max(1, round(len(run.samples) * share))]


def smooth_ends(losses: Sequence[float]) -> tuple[float, float, float]:
    """The loss at the beginning and end, each a mean over some steps, and the least such mean in between.

    Windows are a tenth of the run: batches differ, and a single step says little. But where the loss rises at once,
    the first step alone says what it began with.
    """
    kept = finite(losses)
    if not kept:
        return math.nan, math.nan, math.nan
    window = max(1, len(kept) // 10)
    means = [sum(kept[i : i + window]) / window for i in range(0, len(kept) - window + 1, window)]
    begin = means[0] if means[0] < 1.5 * kept[0] else kept[0]
    return begin, means[-1], min(begin, *means)


def loss_ops(run: Run) -> str:
    """The name of the loss, and the ops that it is made of."""
    return " ".join((run.settings.loss, *run.settings.loss_ops))


def rise_in_errors(losses: Sequence[float]) -> float:
    """How far the loss at the end lies above the least mean over a tenth of the run, in standard errors of the two.

    0 where it ends at its least; NaN where windows are single steps, which have no spread.
    """
    kept = finite(losses)
    window = len(kept) // 10
    if window < 2:
        return math.nan
    parts = [kept[i : i + window] for i in range(0, len(kept) - window + 1, window)]
    least, last = min(parts, key=lambda part: sum(part)), parts[-1]
    error = math.sqrt((variance(least) + variance(last)) / window)
    rise = (sum(last) - sum(least)) / window
    return rise / error if error > 0 else (math.inf if rise > 0 else 0.0)


def baseline(run: Run) -> float | None:
    """The loss of the best constant answer: entropy of the labels for cross entropies, variance for squared errors.

    None where it is not known, as for a loss that is one of these times a number: then the loss begins far from it.
    """
    data = run.data
    if data is None:
        return None
    constant = None
    if "cross_entropy" in loss_ops(run) and any(data.counts):
        shares = [c / sum(data.counts) for c in data.counts if c]
        constant = -sum(p * math.log(p) for p in shares)
    elif run.settings.loss == "mse" and data.target_kind == "numbers" and math.isfinite(data.target_std):
        constant = data.target_std**2
    first = next(iter(finite(run.losses)), math.nan)
    return constant if constant and not first < 0.1 * constant else None


def remaining(run: Run) -> float:
    """The loss at the end, without terms that depend on parameters only, over that of the best constant answer.

    Where that is not known, over the loss at the beginning. NaN if there are no losses.
    """
    begin, end, _ = smooth_ends(run.losses)
    penalty = middle(sum(part.value for part in s.loss_parts if part.penalty) for s in late(run))
    first = sum(part.value for part in run.samples[0].loss_parts if part.penalty) if run.samples else 0.0
    reference = baseline(run) or begin - first
    rest = end - (penalty if math.isfinite(penalty) else 0.0)
    return rest / reference if reference > 0 else math.nan


def is_norm(layer: Layer) -> bool:
    """It sets the size of the signal anew, or scales it: it has no matrix of weights."""
    return layer.kind.startswith(NORMS) or layer.fan_in is None


def signal_layers(run: Run) -> list[tuple[int, Layer]]:
    """The layers that carry the signal, with their positions: without those that only set its size anew."""
    return [(i, layer) for i, layer in enumerate(run.layers) if not is_norm(layer)]


def hidden_layers(run: Run) -> list[tuple[int, Layer]]:
    """The layers before the last one that carries the signal."""
    return signal_layers(run)[:-1]


def course(run: Run, position: int) -> list[tuple[int, LayerSample]]:
    """(step, sample) of one layer."""
    return [(s.step, s.layers[position]) for s in run.samples]


def descents(run: Run) -> list[Descent]:
    """Those whose numbers are all finite."""
    return [d for d in run.descents if all(map(math.isfinite, (d.loss, d.predicted, d.actual, d.best_factor)))]


def named(layers: Sequence[str], most: int = 3) -> str:
    """`layers 0, 2 and 3 more`, or `layer 0`."""
    shown = ", ".join(layers[:most]) + (f" and {len(layers) - most} more" if len(layers) > most else "")
    return f"layer{'s' if len(layers) > 1 else ''} {shown}"


def place(layer: Layer) -> str:
    """The name of a layer, with what it is."""
    follows = f" + {layer.activation}" if layer.activation else ""
    return f"{layer.name} ({layer.kind}{follows})"
