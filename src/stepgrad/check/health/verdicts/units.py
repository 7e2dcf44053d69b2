"""Units that say nothing, or that no gradient passes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from stepgrad.check.health.record import Layer, LayerSample, Run, silent_units
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, percent
from stepgrad.check.health.verdicts.reading import course, hidden_layers, late, middle, named, place

DEAD = Threshold(
    "share of a layer's units that are 0 on every row of every sampled step in the last third of the run",
    0.5,
    True,
    "SageMaker Debugger's DeadRelu asks for half of a layer, AutoTrainer for 0.7; some dead units are usual",
)
DYING = Threshold(
    "share of a layer's units that were active in the first samples, and are silent in the last third of the run",
    0.4,
    True,
    "training healthy networks costs single units, and wide ones up to a third of a layer",
)
SATURATED = Threshold(
    "share of a layer's activations whose derivative is below 1/20 of its largest (median of the sampled steps)",
    0.5,
    True,
    "where half of the activations are flat, each unit passes less than half of the gradient; SageMaker Debugger's "
    "SaturatedActivation asks for half of a layer, too",
)

FEWEST_ROWS = 100
"""A unit is called silent only after as many rows: a rare feature may well be active once in 50."""


def _silence(run: Run, position: int, layer: Layer) -> tuple[set[int], set[int], int] | None:
    """Units silent in the first samples and in the last ones, and how many rows the latter are; None if unknown."""
    samples = [s.layers[position] for s in run.samples]
    if not samples or layer.activation is None or any(s.saturated is not None for s in samples):
        return None  # flat on both ends: that is saturation
    ending = [s.layers[position] for s in late(run)]
    rows = sum(s.positions for s in ending)
    if rows < FEWEST_ROWS:
        return None
    early: list[LayerSample] = []
    for sample in samples:
        early.append(sample)
        if sum(s.positions for s in early) >= FEWEST_ROWS:
            break
    if any(len(s.active) != len(samples[0].active) or not s.active for s in samples):
        return None
    return set(silent_units(early)), set(silent_units(ending)), rows


def dead(run: Run) -> Finding | None:
    return _units(run, DEAD, lambda early, ending: ending, "are dead: their derivative is 0 on every one of the last")


def dying(run: Run) -> Finding | None:
    return _units(
        run,
        DYING,
        lambda early, ending: ending - early,
        "died in training: active at first, and with a derivative of 0 on each of the last",
    )


def _units(
    run: Run, threshold: Threshold, choose: Callable[[set[int], set[int]], set[int]], says: str
) -> Finding | None:
    found: list[tuple[Layer, set[int], float, int]] = []
    for position, layer in enumerate(run.layers):
        silence = _silence(run, position, layer)
        if silence is None:
            continue
        early, ending, rows = silence
        chosen = choose(early, ending)
        units = len(run.samples[0].layers[position].active)
        if threshold.holds(len(chosen) / units):
            found.append((layer, chosen, len(chosen) / units, rows))
    if not found:
        return None
    layer, silent, _, rows = found[0]
    position = [each.name for each in run.layers].index(layer.name)
    since = _since(run, position, silent)
    more = f"; the same in {named([each.name for each, *_ in found[1:]])}" if found[1:] else ""
    return Finding(
        f"{len(silent)} of {len(run.samples[0].layers[position].active)} units of layer {place(layer)} {says} {rows} "
        f"rows{more}",
        tuple(Evidence(f"{threshold.what}: {place(each)}", s, threshold) for each, _, s, _ in found[:4]),
        _remedy(run, threshold, layer),
        layer=layer.name,
        since=since,
        until=run.samples[-1].step,
    )


def _since(run: Run, position: int, units: Collection[int]) -> int:
    """The first sampled step from which on none of these units was active."""
    since = run.samples[-1].step
    for step, sample in reversed(course(run, position)):
        if any(sample.active[unit] for unit in units):
            break
        since = step
    return since


def _remedy(run: Run, threshold: Threshold, layer: Layer) -> str:
    slope = f"put sg.nn.LeakyReLU() in place of {layer.activation} after layer {layer.name}"
    if threshold is DYING:
        return f"divide the learning rate ({run.settings.learning_rate:g}) by 10, or {slope}"
    return f"begin with biases of 0 and kaiming_normal weights, on standardised inputs; or {slope}"


def saturated(run: Run) -> Finding | None:
    found = []
    for position, layer in hidden_layers(run):
        shares = [s.saturated for _, s in course(run, position)]
        share = middle(shares)
        if SATURATED.holds(share):
            found.append((layer, share, position))
    if not found:
        return None
    layer, share, position = found[0]
    steps = [step for step, s in course(run, position) if s.saturated is not None and SATURATED.holds(s.saturated)]
    ideal = layer.expected.ideal_weight_std if layer.expected else None
    more = f"; the same in {named([each.name for each, *_ in found[1:]])}" if found[1:] else ""
    size = middle(s.std for _, s in course(run, position))
    smaller = (
        f"initial weights with a standard deviation of {ideal:.2g} (they have {layer.weight_std:.2g})"
        if (ideal and layer.weight_std and layer.weight_std > 1.5 * ideal)
        else "standardised inputs, an sg.nn.LayerNorm before the activation, or relu in its place"
    )
    return Finding(
        f"{percent(share)} of the activations of layer {place(layer)} are where {layer.activation} is flat, so that "
        f"they "
        f"pass less than 1/20 of the gradient{more}",
        (
            *(Evidence(f"{SATURATED.what}: {place(each)}", s, SATURATED) for each, s, _ in found[:4]),
            Evidence(f"standard deviation of what {layer.activation} is given in layer {layer.name}", size),
        ),
        f"use {smaller}",
        layer=layer.name,
        since=steps[0] if steps else 1,
        until=steps[-1] if steps else None,
    )


_START = """\
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

DEAD_UNITS = Entry(
    name="dead-units",
    family="units",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="A unit whose activation is 0 on every row gets a gradient of exactly 0, so it stays at 0 for ever: it is "
    "as if "
    "it were not there.",
    reads="For every unit of a layer followed by relu or its like, on how many rows it is not 0, over the sampled "
    "steps.",
    thresholds=(DEAD,),
    remedy="Biases of 0 and He's initialisation, standardised inputs, a smaller learning rate; LeakyReLU lets a "
    "gradient "
    "through where relu is 0.",
    causes=(
        "dying-units",
        "unnormalised-inputs",
        "poor-initialisation",
        "regulariser-dominates",
    ),
    judge=dead,
    example=_START
    + """
low = lambda key, shape, dtype: np.full(shape, -4.0, dtype)
model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0, bias_init=low), sg.nn.ReLU(), sg.nn.Linear(16, 2, key=1))
optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
"""
    + _END,
    cure=(("low = lambda key, shape, dtype: np.full(shape, -4.0, dtype)", "low = sg.nn.initialise.zeros"),),
)

DYING_UNITS = Entry(
    name="dying-units",
    family="units",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="Units that were active at the beginning are 0 on every row by now. A step that was too large has pushed "
    "their "
    "weights to where no row activates them, and with a gradient of 0 they can't come back.",
    reads="For every unit of a layer followed by relu or its like, on how many rows it is not 0, in the first and in "
    "the "
    "last sampled steps.",
    thresholds=(DYING,),
    remedy="A smaller learning rate; LeakyReLU; standardised inputs.",
    causes=("unnormalised-inputs", "learning-rate-too-high", "poor-initialisation", "regulariser-dominates"),
    judge=dying,
    example=_START.replace("y = (X[:, 0] > X[:, 1]).astype(int)", "y = 15 + X[:, :1]")
    + """
model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 1, key=1))
optimizer = sg.optim.SGD(model.parameters(), lr=0.04, momentum=0.9)
"""
    + _END.replace("cross_entropy", "mse").replace("epochs=5", "epochs=10"),
    cure=(("lr=0.04", "lr=0.002"),),
)

SATURATED_UNITS = Entry(
    name="saturated-units",
    family="units",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="Activations lie where their function is flat: tanh near ±1, sigmoid near 0 or 1. Its derivative there is "
    "almost "
    "0, and multiplies every gradient that comes through.",
    reads="The share of each hidden layer's activations whose derivative is below 1/20 of its largest value.",
    thresholds=(SATURATED,),
    remedy="Glorot's initialisation, standardised inputs, a norm layer before the activation, a smaller learning rate.",
    causes=("unnormalised-inputs", "poor-initialisation", "learning-rate-too-high"),
    judge=saturated,
    example=_START
    + """
wide = lambda key, shape, dtype: sg.nn.initialise.normal(key, shape, dtype, std=3.0)
model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0, weight_init=wide), sg.nn.Tanh(), sg.nn.Linear(16, 2, key=1))
optimizer = sg.optim.SGD(model.parameters(), lr=0.1)
"""
    + _END,
    cure=(
        (
            "wide = lambda key, shape, dtype: sg.nn.initialise.normal(key, shape, dtype, std=3.0)",
            "wide = sg.nn.initialise.xavier_normal",
        ),
    ),
)
