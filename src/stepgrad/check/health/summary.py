"""Every layer in one row: how its signal, its gradient and its weights fared over the sampled steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepgrad.check.health.record import Layer, Run, Sample, silent_units
from stepgrad.check.health.verdicts.entry import number, percent
from stepgrad.check.health.verdicts.reading import late, middle

HEADER = ("layer", "gradient", "gain", "theory", "activation", "zeros", "flat", "silent", "update")
ABOUT = (
    "Medians of the sampled steps. gradient: norm of the loss's gradient with respect to the layer's output. gain: of "
    "its root mean square on the way to the layer before; theory: what initialisation predicts. activation: root mean "
    "square. zeros, flat: shares of activations. silent: units without a gradient in the last third. update: over "
    "weights."
)


@dataclass(frozen=True)
class LayerSummary:
    """A layer over the sampled steps: medians; None for what was not measured or does not apply.

    Attributes:
        layer: which.
        gradient_norm: of the loss with respect to its output.
        gain: of the gradient's root mean square, on its way to the output of the layer before.
        expected_gain: what theory predicts for it from the initial weights.
        activation_rms: of its activation.
        zeros, saturated: shares of its activations that are exactly 0, or where their function is flat.
        silent: units whose activation had a derivative of 0 on every row in the last third of the run.
        update_ratio: norm of its updates over that of its parameters.
    """

    layer: Layer
    gradient_norm: float | None
    gain: float | None
    expected_gain: float | None
    activation_rms: float | None
    zeros: float | None
    saturated: float | None
    silent: int
    update_ratio: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `HEADER`."""
        return (
            f"{self.layer.name} ({self.layer.kind}{f' + {self.layer.activation}' if self.layer.activation else ''})",
            _shown(self.gradient_norm),
            _shown(self.gain),
            _shown(self.expected_gain),
            _shown(self.activation_rms),
            _shown(self.zeros, "%"),
            _shown(self.saturated, "%"),
            f"{self.silent} of {self.layer.units}" if self.layer.activation else "–",
            _shown(self.update_ratio, "%"),
        )


def summaries(run: Run) -> list[LayerSummary]:
    """One for each layer, in the order of the forward pass; none without samples."""
    if not run.samples:
        return []
    ending = late(run)
    found = []
    for i, layer in enumerate(run.layers):
        samples = [s.layers[i] for s in run.samples]
        found.append(
            LayerSummary(
                layer,
                _median(s.gradient_norm for s in samples),
                _median(s.gain for s in samples),
                layer.expected.gain if layer.expected else None,
                _median(s.activation_rms for s in samples),
                _median(s.zeros for s in samples),
                _median(s.saturated for s in samples),
                len(silent_units([s.layers[i] for s in ending])),
                _median(_update_ratio(run, s, layer) for s in run.samples),
            )
        )
    return found


def _update_ratio(run: Run, sample: Sample, layer: Layer) -> float:
    own = [p for info, p in zip(run.parameters, sample.parameters, strict=True) if info.name in layer.parameters]
    weight = math.hypot(*(p.norm for p in own))
    return math.hypot(*(p.update_norm for p in own)) / weight if weight else math.nan


def _median(values: Iterable[float | None]) -> float | None:
    found = middle(values)
    return None if math.isnan(found) else found


def _shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return percent(value) if unit else number(value)
