"""Is a training what it is meant to be: as good as scikit-learn's model, or harmed, or faulty by construction?

Each function returns a check: a function of an outcome. All use the training itself, and never what `sg.health`
or the rules of other tools say of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.health.trainings import Checked, Outcome, run

Check = Callable[[Outcome], Checked]

MARGIN = 0.05
"""How much worse than the reference a healthy training may be: accuracy, or R²."""

RISE = 1.25
"""How far above its least the loss on rows held back may end in a healthy training, as a factor."""

HARM = 0.1
"""How much worse than the reference a harmed training is, at least."""


def reaches(margin: float = MARGIN, least: float | None = None) -> Check:
    """Healthy: its score on rows held back is that of scikit-learn's model, or worse by at most `margin`; and its
    loss on them ends near its least.

    Args:
        margin: what it may be worse by.
        least: what it has to reach, instead of the reference's score.
    """

    def check(outcome: Outcome) -> Checked:
        wanted = outcome.data.reference - margin if least is None else least
        rise = outcome.held_losses[-1] / min(outcome.held_losses) if outcome.held_losses else math.nan
        ok = not outcome.error and outcome.score >= wanted and rise <= RISE
        found = f"score {outcome.score:.3f}, wanted {wanted:.3f} or more; loss held back {rise:.2f} of its least"
        return Checked(ok, "ended early: " + outcome.error.splitlines()[0] if outcome.error else found)

    return check


def harmed(by: float = HARM, trained: bool = False) -> Check:
    """Its score is worse than the reference's by at least `by`, or it ended early with a loss that is not finite.

    Args:
        by: how much worse.
        trained: whether the score on the training rows has to be that bad, too.
    """

    def check(outcome: Outcome) -> Checked:
        if outcome.error:
            return Checked(True, "ended early: " + outcome.error.splitlines()[0])
        worse = outcome.score <= outcome.data.reference - by
        if trained:
            worse &= outcome.training_score <= outcome.data.reference - by
        return Checked(worse, f"score {outcome.score:.3f}, scikit-learn's model {outcome.data.reference:.3f}")

    return check


def harmed_by_order(by: float = HARM) -> Check:
    """Its score is worse by at least `by` than that of the same training with rows in random order."""

    def check(outcome: Outcome) -> Checked:
        shuffled = run(replace(outcome.training, sort=False), health=False)
        found = f"score {outcome.score:.3f}; with rows in random order {shuffled.score:.3f}"
        return Checked(outcome.score <= shuffled.score - by and shuffled.score >= outcome.data.reference - 0.15, found)

    return check


def both(*checks: Check) -> Check:
    """Every one of them."""

    def check(outcome: Outcome) -> Checked:
        found = [one(outcome) for one in checks]
        return Checked(all(f.ok for f in found), "; ".join(f.text for f in found))

    return check


def ends_not_finite() -> Check:
    """The loss becomes NaN or infinite."""
    return lambda outcome: Checked(bool(outcome.error), outcome.error.split("\n")[0] or "the loss stayed finite")


def shrinks(factor: float = 1e-3) -> Check:
    """At the first step the gradient of the first layer's biases is smaller than the last one's by this factor.

    The gradient of a bias is that of the layer's output, summed over the rows. Per element (root mean square).
    """

    def check(outcome: Outcome) -> Checked:
        gradients = outcome.course.snapshots[0].gradients
        sizes = [float(np.sqrt(np.mean(np.square(g, dtype=np.float64)))) for g in gradients.values() if g.ndim == 1]
        ratio = sizes[0] / sizes[-1]
        return Checked(ratio < factor, f"gradient of the first biases / of the last {ratio:.1e}")

    return check


def grows(norm: float = 20.0) -> Check:
    """At the first step the gradient of some parameter has a norm above this."""

    def check(outcome: Outcome) -> Checked:
        gradients = outcome.course.snapshots[0].gradients
        largest = max(float(np.linalg.norm(g)) for g in gradients.values())
        return Checked(not largest < norm, f"largest norm of a parameter's gradient at the first step {largest:.1e}")

    return check


def silent(share: float = 0.5) -> Check:
    """In some layer, at the end, at least this share of the units is 0 on every row that was looked at."""

    def check(outcome: Outcome) -> Checked:
        layers = outcome.course.snapshots[-1].layers
        most = max(float(np.mean((layer.outputs <= 0).all(axis=0))) for layer in layers)
        return Checked(most >= share, f"{most:.0%} of a layer's units silent at the end")

    return check


def saturated(share: float = 0.5) -> Check:
    """In some layer, at the first step, at least this share of tanh or sigmoid is within 2 % of its ends."""

    def check(outcome: Outcome) -> Checked:
        layers = [layer for layer in outcome.course.snapshots[0].layers if layer.kind in _ENDS]
        most = max(float(np.mean(_at_the_ends(layer.kind, layer.outputs))) for layer in layers)
        return Checked(most >= share, f"{most:.0%} of a layer saturated at the first step")

    return check


_ENDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "hardtanh": (-1.0, 1.0)}


def _at_the_ends(kind: str, outputs: np.ndarray) -> np.ndarray:
    low, high = _ENDS[kind]
    near = 0.02 * (high - low)
    return (outputs < low + near) | (outputs > high - near)


def unchanged(*names: str) -> Check:
    """These parameters have their initial values at the end, and others do not."""

    def check(outcome: Outcome) -> Checked:
        same = {
            name for name, p in outcome.model.parameters().items() if np.array_equal(p.numpy(), outcome.initial[name])
        }
        ok = same == set(names) and len(same) < len(outcome.initial)
        return Checked(ok, f"unchanged: {', '.join(sorted(same)) or 'none'}")

    return check


def constant() -> Check:
    """The outputs at the end are the same for every row."""

    def check(outcome: Outcome) -> Checked:
        outputs = outcome.course.snapshots[-1].outputs
        spread = float(np.max(np.ptp(outputs, axis=0)))
        return Checked(spread < 1e-3 * (1 + float(np.abs(outputs).max())), f"outputs differ by at most {spread:.1e}")

    return check


def always_clipped(norm: float) -> Check:
    """The norm of the gradient was above this at every step that was looked at."""

    def check(outcome: Outcome) -> Checked:
        norms = [
            math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in snapshot.gradients.values()))
            for snapshot in outcome.course.snapshots
        ]
        return Checked(min(norms) > norm, f"least norm of the gradient {min(norms):.1e}, clipped to {norm:g}")

    return check


def clipped_sometimes(norm: float) -> Check:
    """The norm of the gradient was above this at some of the steps looked at, and below it at most of them."""

    def check(outcome: Outcome) -> Checked:
        norms = [
            math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in snapshot.gradients.values()))
            for snapshot in outcome.course.snapshots
        ]
        share = float(np.mean(np.array(norms) > norm))
        return Checked(0 < share < 0.7, f"clipped in {share:.0%} of the steps")

    return check


def overfitted(rise: float = 1.3) -> Check:
    """The loss on rows held back ends at least this many times above its least, and far above the training loss."""

    def check(outcome: Outcome) -> Checked:
        end, least = outcome.held_losses[-1], min(outcome.held_losses)
        gap = end / max(outcome.losses[-1], 1e-12)
        ok = end > rise * least and gap > 2
        return Checked(ok, f"loss held back {least:.3g} and then {end:.3g}; in training {outcome.losses[-1]:.3g}")

    return check


def misses_a_class(below: float = 0.4, possible: float = 0.5) -> Check:
    """A class is recognised in less than `below` of its rows; a model that weights classes does in `possible`."""

    def check(outcome: Outcome) -> Checked:
        data = outcome.data
        model = LogisticRegression(class_weight="balanced", max_iter=3000).fit(data.X, data.y.ravel())
        found, right = model.predict(data.X_held), data.y_held.ravel()
        reference = float(min(np.mean(found[right == label] == label) for label in np.unique(right)))
        ok = outcome.recall < below and reference >= possible
        return Checked(ok, f"least recall {outcome.recall:.2f}; weighted model of scikit-learn {reference:.2f}")

    return check


def barely_falls(share: float = 0.35) -> Check:
    """The training loss fell by less than this share of where it began."""

    def check(outcome: Outcome) -> Checked:
        begin = float(np.mean(outcome.step_losses[:5]))
        fall = 1 - outcome.losses[-1] / begin
        return Checked(fall < share, f"training loss fell by {fall:.0%}")

    return check


def by_construction(text: str) -> Check:
    """The fault is in what the training is made of, and needs no measuring; it says so."""
    return lambda outcome: Checked(True, text)
