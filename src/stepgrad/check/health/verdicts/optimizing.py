"""What the optimizer does to gradients before they become an update."""

from __future__ import annotations

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
from stepgrad.check.health.verdicts.reading import first_part, late, middle, remaining

BELOW_EPSILON = Threshold(
    "share of elements whose root mean squared gradient is smaller than Adam's epsilon (median of the sampled steps)",
    0.5,
    True,
    "where epsilon is larger, it decides about the step, and Adam is plain gradient descent with a rate of lr/eps",
)
CLIPPED = Threshold(
    "share of sampled steps whose gradients were clipped",
    0.9,
    True,
    "clipping is meant for the exception (Pascanu et al. 2013, section 3.2)",
)
CLIPPED_TO = Threshold(
    "what clipped gradients were multiplied with (median)",
    0.5,
    False,
    "a bound that takes a little of every gradient does no harm; one that halves it sets the step's length alone",
)
PENALTY = Threshold(
    "norm of the penalty's gradient, over that of the loss (median over the first half of the samples)",
    1.0,
    True,
    "then weights are drawn to 0 more strongly than to a smaller loss; later both come to a balance, in noise",
)
SHRUNK = Threshold(
    "norm of the weights at the end, over that at the beginning",
    0.3,
    False,
    "training without a penalty makes weights larger; judged where the penalty is at least a third of what the other "
    "threshold asks for",
)
PART = Threshold(
    "penalty's part of the loss (median of the sampled steps; of the first, where the weights have shrunk)",
    0.7,
    True,
    "what is minimised is then mainly the size of the weights",
)
DECAYS = Threshold(
    "what the weight decay takes of the weights in a step, over the length of the update (median over the first half)",
    0.6,
    True,
    "then most of each step is decay, and the gradient has the smaller part of it",
)
LEARNT = Threshold(
    "loss at the end, over that of the best constant answer (or over the loss at the beginning)",
    0.25,
    True,
    "where the loss got far below that, what stands between gradients and update has done no harm",
)
DECOUPLED = ("AdamW",)
"""Optimizers whose decay takes a share of the weights directly, and does not compete with the gradient."""


def adam_epsilon(run: Run) -> Finding | None:
    shares = []
    for sample in run.samples:
        known = [
            (p.below_epsilon, info.size)
            for p, info in zip(sample.parameters, run.parameters, strict=True)
            if p.below_epsilon is not None
        ]
        if known:
            shares.append((sample.step, sum(s * n for s, n in known) / sum(n for _, n in known)))
    share = middle(s for _, s in shares)
    left = remaining(run)
    if not BELOW_EPSILON.holds(share) or left <= LEARNT.value:
        return None
    epsilon = run.settings.options.get("eps", 1e-8)
    usual = middle(s.gradient_norm for s in run.samples)
    size = sum(p.size for p in run.parameters) or 1
    rms = usual / size**0.5
    smaller = min(1e-8, rms / 1000) if rms > 0 else 1e-8
    return Finding(
        f"{percent(share)} of the elements have gradients smaller than eps={epsilon:g}: there the step is gradient "
        f"descent "
        f"with a learning rate of lr/eps = {number(run.settings.learning_rate / epsilon) if epsilon else 'inf'}",
        (
            Evidence(BELOW_EPSILON.what, share, BELOW_EPSILON, "%"),
            Evidence(LEARNT.what, left, LEARNT),
            Evidence("root mean square of the gradient's elements (median)", rms),
            Evidence("eps", epsilon),
        ),
        f"set eps={smaller:.0e}, a thousandth of the gradient's size"
        if epsilon > smaller
        else "multiply the loss by a constant, such as 1000: Adam's step does not depend on it, but epsilon does",
        since=next(step for step, s in shares if BELOW_EPSILON.holds(s)),
        until=shares[-1][0],
    )


def clipped(run: Run) -> Finding | None:
    seen = [(s.step, s.clipping) for s in run.samples if s.clipping is not None]
    if len(seen) < FEWEST_CLIPPED:
        return None
    share = sum(c.factor < 1 for _, c in seen) / len(seen)
    factor, norm = middle(c.factor for _, c in seen), middle(c.norm for _, c in seen)
    if not (CLIPPED.holds(share) and CLIPPED_TO.holds(factor)):
        return None
    return Finding(
        f"{percent(share)} of the sampled steps were clipped, to {percent(factor)} of their gradient: the bound, not "
        f"the "
        "gradient, decides how long steps are",
        (
            Evidence(CLIPPED.what, share, CLIPPED, "%"),
            Evidence(CLIPPED_TO.what, factor, CLIPPED_TO),
            Evidence("norm of the gradients before (median)", norm),
        ),
        f"set max_norm={number(2 * norm)}, twice the usual norm, so that only exceptions are clipped; the learning "
        f"rate "
        f"({run.settings.learning_rate:g}) was in effect {number(run.settings.learning_rate * factor)}: begin with "
        f"that",
        since=seen[0][0],
        until=seen[-1][0],
    )


FEWEST_CLIPPED = 5


def regulariser(run: Run) -> Finding | None:
    if not run.samples or remaining(run) <= LEARNT.value:
        return None
    return _decay(run) or _term(run)


def _decay(run: Run) -> Finding | None:
    decay = run.settings.options.get("weight_decay", 0.0)
    if not decay:
        return None
    if run.settings.optimizer in DECOUPLED:
        threshold, says = DECAYS, "of each step"
        shares = [s.learning_rate * s.decay_norm / s.update_norm for s in first_part(run, 0.5) if s.update_norm > 0]
        ratio = middle(shares)
    else:
        threshold, says = PENALTY, "times the gradient of the loss"
        ratio = middle(s.decay_norm / s.gradient_norm for s in first_part(run, 0.5) if s.gradient_norm > 0)
    shrunk = _shrunk(run)
    if not threshold.holds(ratio) and not (SHRUNK.holds(shrunk) and ratio > threshold.value / 3):
        return None
    penalty, loss = middle(s.penalty for s in run.samples), middle(s.loss for s in run.samples)
    return Finding(
        f"weight_decay={decay:g} pulls the weights to 0 with {number(ratio)} {says}",
        (
            Evidence(threshold.what, ratio, threshold),
            Evidence(SHRUNK.what, shrunk, SHRUNK),
            Evidence(LEARNT.what, remaining(run), LEARNT),
            Evidence("penalty weight_decay / 2 · |W|² (median)", penalty),
            Evidence("loss (median)", loss),
        ),
        f"set weight_decay={0.1 * decay / max(ratio, 0.1):.0e}, about a tenth of what would balance the gradient",
        since=run.samples[0].step,
        until=run.samples[-1].step,
    )


def _shrunk(run: Run) -> float:
    """The norm of the weights at the end, over that at the beginning; 1 where it was not seen."""
    ending, first = late(run), run.samples[0].weight_norm
    return ending[-1].weight_norm / first if ending and first else 1.0


def _term(run: Run) -> Finding | None:
    """Terms of the loss that depend on parameters only."""
    shares = []
    for sample in run.samples:
        whole = sum(abs(part.value) for part in sample.loss_parts)
        if whole > 0:
            shares.append(sum(abs(part.value) for part in sample.loss_parts if part.penalty) / whole)
    if not shares:
        return None
    # Where it has drawn the weights to 0, the penalty itself is small.
    first, shrunk = shares[0], _shrunk(run)
    share = max(middle(shares), first if SHRUNK.holds(shrunk) else 0.0)
    if not (PART.holds(share) or (SHRUNK.holds(shrunk) and first > PART.value / 3)):
        return None
    texts = dict.fromkeys(part.text for sample in run.samples for part in sample.loss_parts if part.penalty)
    return Finding(
        f"{percent(share)} of the loss is the penalty {' and '.join(texts)}",
        (
            Evidence(PART.what, share, PART, "%"),
            Evidence(SHRUNK.what, shrunk, SHRUNK),
            Evidence(LEARNT.what, remaining(run), LEARNT),
            Evidence("loss (median)", middle(s.loss for s in run.samples)),
        ),
        f"multiply its factor by {number(0.1 * (1 - share) / share)}, so that it is a tenth of the rest",
        since=run.samples[0].step,
        until=run.samples[-1].step,
    )


_START = """\
import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)

model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.Tanh(), sg.nn.Linear(16, 2, key=1))
loss = sg.losses.cross_entropy
"""
_END = """\
health = sg.health(model, loss, optimizer, every=2)
sg.fit(model, loss, optimizer, (X, y), epochs=10, callbacks=[health], progress=False)
print(health.report())
"""

ADAM_EPSILON = Entry(
    name="adam-epsilon",
    family="optimizer",
    question=Question.USED,
    severity=Severity.HARM,
    meaning="Adam divides by the root of its second moment plus epsilon, so that every element takes steps of about "
    "the "
    "learning rate. Where gradients are smaller than epsilon, they are divided by epsilon alone, and steps are as "
    "small "
    "as the gradients.",
    reads="The share of elements whose √v̂ is below epsilon, over the sampled steps.",
    thresholds=(BELOW_EPSILON, LEARNT),
    remedy="An epsilon well below the gradients' size, or a loss that is a mean and not divided once more.",
    causes=("vanishing-gradients", "dead-units"),
    judge=adam_epsilon,
    example=_START + "optimizer = sg.optim.Adam(model.parameters(), lr=0.01, eps=1.0)\n" + _END,
    cure=((", eps=1.0", ""),),
)

ALWAYS_CLIPPED = Entry(
    name="always-clipped",
    family="optimizer",
    question=Question.USED,
    severity=Severity.HARM,
    meaning="Clipping is there for single gradients that are far too large. Where every gradient is clipped, all "
    "steps have "
    "the same length, near the minimum as well, and the learning rate means something else than it says.",
    reads="Gradients before clipping against what the optimizer was given, in every sampled step.",
    thresholds=(CLIPPED, CLIPPED_TO),
    remedy="A bound about twice the usual norm, and the learning rate that was in effect.",
    causes=("exploding-gradients", "unnormalised-inputs", "poor-initialisation"),
    judge=clipped,
    example=_START
    + """optimizer = sg.optim.SGD(model.parameters(), lr=1.0)


def clipped(grads):
    return sg.optim.clip_by_norm(grads, max_norm=0.01)[0]


health = sg.health(model, loss, optimizer, prepare=clipped, every=2)
for step in range(80):
    rows = np.arange(32) + 32 * (step % 8)
    health.before(X[rows], y[rows])
    value = loss(model(X[rows]), y[rows])
    optimizer.step(clipped(sg.backward(value, model.parameters())))
    health.after(value)
print(health.report())
""",
    cure=(("max_norm=0.01", "max_norm=2.0"),),
)

REGULARISER = Entry(
    name="regulariser-dominates",
    family="optimizer",
    question=Question.USED,
    severity=Severity.HARM,
    meaning="A penalty on the weights is stronger than the loss: they are drawn to 0, and the network answers the "
    "same to "
    "everything.",
    reads="The gradient of the optimizer's weight decay against that of the loss; the terms of the loss, where it is "
    "a sum.",
    thresholds=(PENALTY, DECAYS, SHRUNK, PART, LEARNT),
    remedy="A weight decay at which its gradient is about a tenth of that of the loss.",
    causes=(),
    judge=regulariser,
    example=_START + "optimizer = sg.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)\n" + _END,
    cure=(("weight_decay=1.0", "weight_decay=1e-4"),),
)
