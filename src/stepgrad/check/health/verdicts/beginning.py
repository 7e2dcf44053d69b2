"""What training begins with: inputs and initial values."""

from __future__ import annotations

import math
from statistics import median

from stepgrad.check.health.record import Layer, Run
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, number
from stepgrad.check.health.verdicts.reading import finite, hidden_layers, is_norm, place, signal_layers

LARGE_INPUT = Threshold(
    "largest root mean square of an input feature",
    20.0,
    True,
    "initialisations are made for inputs of mean 0 and variance 1 (LeCun et al. 1998, section 4.3); pixels from 0 to "
    "16 and lengths in centimetres still train well",
)
SMALL_INPUTS = Threshold(
    "median root mean square of the input features",
    0.01,
    False,
    "at a hundredth of the size that initialisations are made for, the first layer's gradients are a hundredth, too",
)
OFFSET = Threshold(
    "median of |mean| / standard deviation over the input features",
    10.0,
    True,
    "the loss then curves about 100 times more along the mean than along what tells rows apart, and the largest "
    "curvature decides which learning rate is possible (LeCun et al. 1998, section 4.3)",
)
NOTHING = Threshold(
    "largest standard deviation of an input feature",
    0.0,
    False,
    "inputs that are the same for every row say nothing about the targets",
)
WEIGHTS_LARGE = Threshold(
    "initial standard deviation of a layer's weights, over that which keeps the signal's size",
    4.0,
    True,
    "each layer then makes the signal 4 times larger, and so the gradient on its way back (Glorot and Bengio 2010, "
    "He et al. 2015)",
)
WEIGHTS_SMALL = Threshold(
    "initial standard deviation of a layer's weights, over that which keeps the signal's size",
    0.125,
    False,
    "each layer then makes the signal 8 times smaller, and so the gradient on its way back; the usual default "
    "initialisation, uniform within ±1/√in, has 0.41 of He's",
)
COMPOUND = Threshold(
    "product over the layers of how much larger than that their initial weights are",
    50.0,
    True,
    "factors that are harmless in one layer multiply; judged where each is at least 1.4",
)
SAME = Threshold(
    "initial standard deviation of a hidden layer's weights",
    0.0,
    False,
    "units with equal weights get equal gradients, and stay equal for ever",
)


def unnormalised(run: Run) -> Finding | None:
    data = run.data
    if data is None or not data.mean or not run.layers or is_norm(run.layers[0]):
        return None
    sizes = [math.hypot(m, s) for m, s in zip(data.mean, data.std, strict=True)]
    varying = [i for i, s in enumerate(data.std) if s > 0]
    if not varying:
        return _all_the_same(run)
    largest = max(varying, key=lambda i: sizes[i])
    typical = median(sizes[i] for i in varying)
    offset = median(abs(data.mean[i]) / data.std[i] for i in varying)
    large, small, off = LARGE_INPUT.holds(sizes[largest]), SMALL_INPUTS.holds(typical), OFFSET.holds(offset)
    if not (large or small or off):
        return None
    if large:
        size = number(sizes[largest])
        says = f"input feature {largest} has a root mean square of {size}, the median feature of {number(typical)}"
    elif small:
        says = f"inputs are tiny: the median feature has a root mean square of {number(typical)}"
    else:
        says = f"inputs lie far from 0: the median feature's mean is {number(offset)} times its standard deviation"
    return Finding(
        says,
        (
            Evidence(LARGE_INPUT.what + f" (feature {largest})", sizes[largest], LARGE_INPUT),
            Evidence(SMALL_INPUTS.what, typical, SMALL_INPUTS),
            Evidence(OFFSET.what, offset, OFFSET),
        ),
        "standardise each feature with the training rows' numbers: X = (X - X.mean(axis=0)) / X.std(axis=0)"
        f"; for feature {largest}: (X[:, {largest}] - {data.mean[largest]:.3g}) / {data.std[largest]:.3g}",
        layer=run.layers[0].name,
    )


def _all_the_same(run: Run) -> Finding | None:
    if run.data is None or run.data.rows < 2:
        return None
    return Finding(
        f"none of the {len(run.data.std)} input features differs between the {run.data.rows:,} rows",
        (Evidence(NOTHING.what, max(run.data.std), NOTHING),),
        "look at how X is made: it is constant, so that the network can only learn the mean of the targets",
        layer=run.layers[0].name,
    )


def poor_initialisation(run: Run) -> Finding | None:
    hidden = hidden_layers(run)
    same = [layer for _, layer in hidden if layer.activation is not None and _is_same(run, layer)]
    if same:
        return _symmetric(run, same)
    off = _off(run)
    if not off:
        return None
    worst, ratio = max(off, key=lambda pair: abs(math.log(max(pair[1], 1e-30))))
    ideal = worst.expected.ideal_weight_std if worst.expected else None
    initialise = "kaiming_normal" if any(name in (worst.activation or "") for name in _RECTIFIERS) else "xavier_normal"
    evidence = [Evidence(f"{WEIGHTS_LARGE.what}: {place(layer)}", r, _limit(r)) for layer, r in off[:4]]
    return Finding(
        f"the weights of layer {place(worst)} begin with a standard deviation of {number(worst.weight_std or 0)}, "
        f"{number(ratio if ratio > 1 else 1 / max(ratio, 1e-30))} times {'more' if ratio > 1 else 'less'} than the "
        f"{number(ideal or 0)} that would keep the signal's size"
        + (f"; {len(off) - 1} more like it" if len(off) > 1 else ""),
        (*evidence, Evidence(COMPOUND.what, math.prod(r for _, r in off), COMPOUND), *_first_loss(run)),
        f"use weight_init=sg.nn.initialise.{initialise} for {worst.name}: a standard deviation of {number(ideal or 0)} "
        f"for {worst.fan_in} inputs",
        layer=worst.name,
    )


_RECTIFIERS = ("relu", "elu", "silu", "mish", "hardswish", "softplus")
"""Parts of the names of activations for which He's initialisation is made, or nearly."""


def _off(run: Run) -> list[tuple[Layer, float]]:
    """The layers whose initial weights are too large or small, with their ratio to those that keep the signal's "
    "size."""
    off, large = [], []
    normed = {layer.before for layer in run.layers if is_norm(layer)}  # their own size does not matter
    for _, layer in signal_layers(run):
        ratio = _ratio(layer)
        if ratio is None or layer.name in normed:
            continue
        if ratio >= 1.4:
            large.append((layer, ratio))
        # The end of the network or of a residual branch, where no activation follows, may well begin near 0.
        if WEIGHTS_LARGE.holds(ratio) or (WEIGHTS_SMALL.holds(ratio) and layer.activation is not None):
            off.append((layer, ratio))
    return large if COMPOUND.holds(math.prod(r for _, r in large)) and len(large) >= len(off) else off


def _limit(ratio: float) -> Threshold | None:
    """The threshold that a single layer's ratio is beyond; None if only all layers together are."""
    return next((t for t in (WEIGHTS_LARGE, WEIGHTS_SMALL) if t.holds(ratio)), None)


def _ratio(layer: Layer) -> float | None:
    ideal = layer.expected.ideal_weight_std if layer.expected else None
    if layer.weight_std is None or not ideal or not math.isfinite(layer.weight_std):
        return None
    return layer.weight_std / ideal


def _is_same(run: Run, layer: Layer) -> bool:
    """All weights of a hidden layer with several units are equal."""
    weights = [p for p in run.parameters if p.layer == layer.name and len(p.shape) >= 2 and p.size > 1]
    return layer.units > 1 and bool(weights) and all(p.initial_std <= SAME.value for p in weights)


def _symmetric(run: Run, same: list[Layer]) -> Finding:
    layer = same[0]
    value = next(p.initial_mean for p in run.parameters if p.layer == layer.name and len(p.shape) >= 2)
    return Finding(
        f"all weights of layer {place(layer)} begin with the same value, {number(value)}: its {layer.units} units "
        f"compute "
        "the same, get the same gradient, and will never differ",
        tuple(Evidence(f"{SAME.what}: {place(each)}", 0.0, SAME) for each in same[:4]),
        f"draw the initial weights of {layer.name} at random: leave weight_init out, or use "
        f"sg.nn.initialise.kaiming_normal",
        layer=layer.name,
    )


def _first_loss(run: Run) -> list[Evidence]:
    losses = finite(run.losses[:1])
    if run.initial_loss_expected is None or not losses:
        return []
    return [
        Evidence(
            f"loss before the first step (an untrained network should have {number(run.initial_loss_expected)})",
            losses[0],
        )
    ]


_NET = """\
import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)
"""

_END = """\
loss = sg.losses.cross_entropy
health = sg.health(model, loss, optimizer, every=2)
sg.fit(model, loss, optimizer, (X, y), epochs=5, callbacks=[health], progress=False)
print(health.report())
"""

UNNORMALISED = Entry(
    name="unnormalised-inputs",
    family="beginning",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="Input features are much larger, much smaller or much further from 0 than initialisations are made for. "
    "The "
    "gradient of a first-layer weight is proportional to its feature, so no learning rate suits all of them; large "
    "ones saturate or kill units in the first step.",
    reads="Mean and standard deviation of every input feature of the training rows.",
    thresholds=(LARGE_INPUT, SMALL_INPUTS, OFFSET, NOTHING),
    remedy="Standardise: subtract each feature's mean and divide by its standard deviation, both of the training rows.",
    causes=(),
    judge=unnormalised,
    example=_NET
    + """X[:, 3] = 1000 + 300 * X[:, 3]

model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 2, key=1))
optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
"""
    + _END,
    cure=(
        ("X[:, 3] = 1000 + 300 * X[:, 3]", "X[:, 3] = 1000 + 300 * X[:, 3]\nX = (X - X.mean(axis=0)) / X.std(axis=0)"),
    ),
)

POOR = Entry(
    name="poor-initialisation",
    family="beginning",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="Initial weights are so large or small that each layer changes the size of the signal, and of the "
    "gradient on "
    "its way back, by a large factor; or they are all equal, so that the units of a layer can never differ.",
    reads="The standard deviation of each layer's initial weights against that of Glorot's or He's initialisation for "
    "its fan-in, fan-out and activation. Layers whose size a norm layer sets anew are left out, and so is a small last "
    "layer.",
    thresholds=(WEIGHTS_LARGE, WEIGHTS_SMALL, COMPOUND, SAME),
    remedy="`sg.nn.initialise.kaiming_normal` before relu and its like, `xavier_normal` before tanh and sigmoid.",
    causes=(),
    judge=poor_initialisation,
    example=_NET
    + """
def init(key, shape, dtype):
    return sg.nn.initialise.normal(key, shape, dtype, std=3.0)


model = sg.nn.Sequential(
    sg.nn.Linear(8, 32, key=0, weight_init=init), sg.nn.Tanh(),
    sg.nn.Linear(32, 32, key=1, weight_init=init), sg.nn.Tanh(),
    sg.nn.Linear(32, 2, key=2, weight_init=init),
)
optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
"""
    + _END,
    cure=(
        (
            "def init(key, shape, dtype):\n    return sg.nn.initialise.normal(key, shape, dtype, std=3.0)",
            "init = sg.nn.initialise.xavier_normal",
        ),
    ),
)
