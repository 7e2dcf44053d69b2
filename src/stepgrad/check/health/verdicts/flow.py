"""Does the gradient keep its size on its way back through the layers?"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrad.check.health.record import Layer, Run, Sample
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, number
from stepgrad.check.health.verdicts.reading import middle, place, remaining, signal_layers

VANISHED = Threshold(
    "norm of the gradient at the first layer, over that at the last (median of the sampled steps)",
    5e-3,
    False,
    "the first layer then learns 200 times slower under SGD than the last; AutoTrainer (Zhang et al. 2021) waits for a "
    "thousandth, which small networks reach only after they have failed",
)
SHRINKS = Threshold(
    "factor per layer by which the gradient changes on its way back (geometric mean)",
    0.6,
    False,
    "the usual default initialisation has 0.41 with relu and 0.58 with tanh, so that a few layers of it are no fault: "
    "this is a condition beside the whole decrease",
)
EXPLODED = Threshold(
    "growth of the gradient's norm over the layers where it grows most (median of the sampled steps, or the first)",
    100.0,
    True,
    "the mirror image is a hundredth: then the learning rate that the first layers bear leaves the last ones standing",
)
GROWS = Threshold(
    "factor per layer by which it grows there (geometric mean)",
    1.6,
    True,
    "theory asks for 1; trained healthy networks stay below 1.5",
)
LEARNT = Threshold(
    "loss at the end, over that of the best constant answer (or over the loss at the beginning)",
    0.25,
    True,
    "a network that got far below that bears the way its gradient takes, as Adam makes possible",
)
FEWEST_GAPS = 2


@dataclass(frozen=True)
class Stretch:
    """The gradient from layer to layer, on its way back.

    Attributes:
        layers: those that carry the signal, from the last to the first.
        norms: the gradient's norm at the output of each (median of the sampled steps).
        predicted: the gain that theory predicts at each step from one to the next, by this network's own weights;
            None where it predicts nothing.
    """

    layers: tuple[Layer, ...]
    norms: tuple[float, ...]
    predicted: tuple[float | None, ...]

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(b / a if a else 1.0 for a, b in itertools.pairwise(self.norms))

    @property
    def whole(self) -> float:
        return self.norms[-1] / self.norms[0]

    @property
    def per_layer(self) -> float:
        return self.whole ** (1 / (len(self.norms) - 1))


def stretch(run: Run, samples: Sequence[Sample] | None = None) -> Stretch | None:
    """The gradient's way back, by default over all samples; None if there are too few layers, or nothing was recorded.

    Norms and not root mean squares: theory keeps the norm whatever the widths of the layers are.
    Steps whose gradient is zero or not finite at the last layer say nothing.
    """
    chain = _way_back(run)
    if len(chain) <= FEWEST_GAPS or not run.samples:
        return None
    last = chain[0][0]
    usable = [s for s in (run.samples if samples is None else samples) if 0 < s.layers[last].gradient_norm < math.inf]
    usable = [s for s in usable if all(math.isfinite(s.layers[i].gradient_norm) for i, _ in chain)]
    if not usable:
        return None
    relative = [middle(s.layers[i].gradient_norm / s.layers[last].gradient_norm for s in usable) for i, _ in chain]
    gains = [_norm_gain(layer, before) for (_, layer), (_, before) in itertools.pairwise(chain)]
    return Stretch(tuple(layer for _, layer in chain), tuple(relative), tuple(gains))


def _way_back(run: Run) -> list[tuple[int, Layer]]:
    """The layers that carry the signal, from the last to the first, each the one that leads to the one before it."""
    by_name = {layer.name: (i, layer) for i, layer in enumerate(run.layers)}
    carrying = {layer.name for _, layer in signal_layers(run)}
    chain, name = [], run.layers[-1].name if run.layers else None
    while name is not None and name in by_name:
        if name in carrying:
            chain.append(by_name[name])
        name = by_name.pop(name)[1].before
    return chain


def _norm_gain(layer: Layer, before: Layer) -> float | None:
    """Theory's gain of root mean squares, as one of norms."""
    gain = layer.expected.gain if layer.expected else None
    return None if gain is None or not layer.units else gain * math.sqrt(before.units / layer.units)


def vanishing(run: Run) -> Finding | None:
    found, left = stretch(run), remaining(run)
    if found is None or not (VANISHED.holds(found.whole) and SHRINKS.holds(found.per_layer)) or left <= LEARNT.value:
        return None
    begin, end = _shrinking(found.factors)
    evidence = (Evidence(VANISHED.what, found.whole, VANISHED), Evidence(SHRINKS.what, found.per_layer, SHRINKS))
    return _finding(run, found, begin, end, (*evidence, Evidence(LEARNT.what, left, LEARNT)), "shrinks")


def exploding(run: Run) -> Finding | None:
    """Over all samples, or in the first: what explodes at the beginning has often killed the network by the next."""
    left = remaining(run)
    for found in (stretch(run), stretch(run, run.samples[:1])):
        if found is None or left <= LEARNT.value:
            continue
        begin, end = _growing(found.norms)
        if end - begin < FEWEST_GAPS:
            continue
        part = found.norms[end] / found.norms[begin]
        per_layer = part ** (1 / (end - begin))
        if EXPLODED.holds(part) and GROWS.holds(per_layer):
            evidence = (Evidence(EXPLODED.what, part, EXPLODED), Evidence(GROWS.what, per_layer, GROWS))
            return _finding(run, found, begin, end, (*evidence, Evidence(LEARNT.what, left, LEARNT)), "grows")
    return None


def _shrinking(factors: Sequence[float]) -> tuple[int, int]:
    """The layers [begin, end) that shrink the gradient without a break, and most of all such stretches."""
    best, begin, largest = (0, len(factors)), 0, 0.0
    for i, factor in enumerate([*factors, math.inf]):
        if factor <= SHRINKS.value:
            continue
        change = sum(abs(math.log(max(f, 1e-300))) for f in factors[begin:i])
        if change > largest:
            best, largest = (begin, i), change
        begin = i + 1
    return best


def _growing(norms: Sequence[float]) -> tuple[int, int]:
    """The two places, the second not before the first, between which the norm grows most."""
    best, least, largest = (0, 0), 0, 1.0
    for i, norm in enumerate(norms):
        if norm < norms[least] or norms[least] == 0:
            least = i
        elif norms[least] > 0 and norm / norms[least] > largest:
            best, largest = (least, i), norm / norms[least]
    return best


def _finding(run: Run, found: Stretch, begin: int, end: int, evidence: tuple[Evidence, ...], verb: str) -> Finding:
    start, stop = found.layers[begin], found.layers[end]
    part = found.norms[end] / found.norms[begin] if found.norms[begin] else 0.0
    factor = part ** (1 / (end - begin))
    predicted = [g for g in found.predicted[begin:end] if g is not None and g > 0]
    theory = math.exp(sum(map(math.log, predicted)) / len(predicted)) if predicted else None
    gap = "" if theory is None else f"; theory predicts {number(theory)} for these initial weights, and 1 for good ones"
    if theory is not None:
        evidence = (*evidence, Evidence("factor per layer that theory predicts from the initial weights", theory))
    amount = f"{verb} by a factor of {number(factor)} per layer, {number(part)} in all{gap}"
    return Finding(
        f"from layer {place(start)} down to {place(stop)} the gradient {amount if part else 'shrinks to exactly 0'}",
        evidence,
        _remedy(found.layers[begin : end + 1], verb == "shrinks"),
        layer=start.name,
        since=_since(run, start, stop, part),
        until=run.samples[-1].step,
    )


def _since(run: Run, start: Layer, stop: Layer, part: float) -> int:
    """The first sampled step in which the gradient changed from one layer to the other by at least half as much."""
    names = [layer.name for layer in run.layers]
    first, last = names.index(start.name), names.index(stop.name)
    half = math.log(max(part, 1e-300)) / 2
    for sample in run.samples:
        before, after = sample.layers[first].gradient_norm, sample.layers[last].gradient_norm
        if 0 < before < math.inf and after < math.inf:
            change = math.log(max(after / before, 1e-300))
            if change / half >= 1:
                return sample.step
    return run.samples[0].step


def _worst(layers: Sequence[Layer]) -> Layer:
    """The layer whose initial weights are furthest from those that would keep the signal's size."""
    return max(layers, key=lambda layer: abs(math.log(_ratio(layer) or 1.0)))


def _ratio(layer: Layer) -> float | None:
    ideal = layer.expected.ideal_weight_std if layer.expected else None
    return layer.weight_std / ideal if ideal and layer.weight_std else None


def _remedy(layers: Sequence[Layer], shrinks: bool) -> str:
    activation = Counter(layer.activation for layer in layers).most_common(1)[0][0]
    layer = _worst(layers)
    ratio, saturating = _ratio(layer), activation in ("sigmoid", "tanh", "hardtanh", "softsign")
    if shrinks and activation == "sigmoid":
        return (
            "put relu in place of sigmoid, whose derivative is at most 1/4, with weight_init="
            "sg.nn.initialise.kaiming_normal; or add residual connections or an sg.nn.LayerNorm after each layer"
        )
    if ratio and (ratio < 0.7 if shrinks else ratio > 1.4):
        init = "xavier_normal" if saturating else "kaiming_normal"
        ideal = (layer.weight_std or 0.0) / ratio
        return (
            f"use weight_init=sg.nn.initialise.{init}: a standard deviation of {number(ideal)} for layer {layer.name}, "
            f"which has {number(layer.weight_std or 0.0)}, brings the factor to about 1"
        )
    if not shrinks:
        return (
            "add an sg.nn.LayerNorm after each layer, or residual connections; clip with sg.optim.clip_by_norm until "
            "then"
        )
    return "add residual connections, or an sg.nn.LayerNorm after each layer" + (
        f", or put relu in place of {activation}" if saturating else ""
    )


_START = """\
import contextlib

import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)

init = INIT
layers = [sg.nn.Linear(8, 32, key=0, weight_init=init), sg.nn.ACTIVATION()]
for i in range(1, 10):
    layers += [sg.nn.Linear(32, 32, key=i, weight_init=init), sg.nn.ACTIVATION()]
model = sg.nn.Sequential(*layers, sg.nn.Linear(32, 2, key=10))
loss = sg.losses.cross_entropy
optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
health = sg.health(model, loss, optimizer, every=2)
with contextlib.suppress(sg.errors.TrainingError), np.errstate(all="ignore"):  # the loss may become NaN
    sg.fit(model, loss, optimizer, (X, y), epochs=10, callbacks=[health], progress=False)
print(health.report())
"""

_TOO_LARGE = """sg.nn.initialise.normal(key, shape, dtype, std=0.6)"""

VANISHING = Entry(
    name="vanishing-gradients",
    family="flow",
    question=Question.HEALTHY,
    severity=Severity.BLOCK,
    meaning="On its way back, each layer multiplies the gradient by its weights and by the derivative of its "
    "activation. "
    "Where that is a factor well below 1, it is below 1 to the power of the depth, and the first layers hardly learn.",
    reads="The norm of the gradient at the output of every layer, over the sampled steps, and what initialisation "
    "theory "
    "predicts from this network's own weights and activations (He et al. 2015; Glorot and Bengio 2010).",
    thresholds=(VANISHED, SHRINKS, LEARNT),
    remedy="An activation and an initialisation that belong together (relu and He's, tanh and Glorot's); residual "
    "connections; a norm layer. A larger learning rate does not help: the last layers would diverge.",
    causes=("poor-initialisation", "unnormalised-inputs", "dead-units", "saturated-units"),
    judge=vanishing,
    example=_START.replace("INIT", "None").replace("ACTIVATION", "Sigmoid"),
    cure=(("init = None", "init = sg.nn.initialise.kaiming_normal"), ("sg.nn.Sigmoid()", "sg.nn.ReLU()")),
)

EXPLODING = Entry(
    name="exploding-gradients",
    family="flow",
    question=Question.HEALTHY,
    severity=Severity.BLOCK,
    meaning="Each layer makes the gradient larger on its way back, or it grows from step to step: one step then throws "
    "the weights far away.",
    reads="The norm of the gradient at the output of every layer and of all parameters, over the sampled steps, and "
    "what "
    "initialisation theory predicts from this network's own weights.",
    thresholds=(EXPLODED, GROWS, LEARNT),
    remedy="Smaller initial weights (He's or Glorot's), a norm layer, clipping by norm, a smaller learning rate.",
    causes=("poor-initialisation", "unnormalised-inputs", "learning-rate-too-high"),
    judge=exploding,
    example=_START.replace("INIT", "lambda key, shape, dtype: " + _TOO_LARGE).replace("ACTIVATION", "ReLU"),
    cure=(("lambda key, shape, dtype: " + _TOO_LARGE, "sg.nn.initialise.kaiming_normal"),),
)
