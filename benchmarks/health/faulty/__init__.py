"""Trainings with a fault planted: each fault in several networks and data sets."""

from __future__ import annotations

from benchmarks.health.faulty import data, network, steps
from benchmarks.health.trainings import Training

FAULTS = {
    "vanishing-gradients": "gradients shrink on their way to the first layers",
    "exploding-gradients": "gradients grow on their way to the first layers",
    "dead-units": "most units of a layer are 0 for every row from the start",
    "dying-units": "most units of a layer become 0 for every row on the way",
    "saturated-units": "most of tanh or sigmoid is at its ends, where it has no slope",
    "exploding-loss": "the loss grows beyond all bounds",
    "not-finite": "the loss becomes NaN or infinite where nothing had grown",
    "poor-initialisation": "all weights equal, or far too small or large",
    "learning-rate-too-high": "steps overshoot",
    "learning-rate-too-low": "steps are so small that the loss barely falls",
    "unnormalised-inputs": "features of very different or very large size",
    "unused-parameters": "a layer that is never called",
    "frozen-parameters": "parameters that the optimizer does not have",
    "disconnected-parameters": "parameters that no gradient gets to",
    "labels-out-of-range": "targets that the outputs can't reach, or that the loss is not defined for",
    "constant-predictions": "the same answer for every row",
    "adam-epsilon": "Adam's epsilon is larger than the moments it is added to",
    "always-clipped": "every gradient is clipped",
    "regulariser-dominates": "the penalty is stronger than the loss",
    "data-order": "rows come in the order of their targets",
    "class-imbalance": "a rare class is never recognised",
    "overfitting": "the loss on rows held back rises while the training loss falls",
    "underfitting": "the network is too small, or too restricted, for the data",
}
"""What is planted, by the name of the verdict that should be given."""


def trainings() -> list[Training]:
    """All of them."""
    return [*network.trainings(), *steps.trainings(), *data.trainings()]
