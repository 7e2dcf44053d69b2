"""The network that `stepgrad train` builds: linear layers with ReLU between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from stepgrad import nn


def build(sizes: Sequence[int], seed: int = 0) -> nn.Sequential:
    """A network of these layer sizes: inputs, hidden layers, outputs.

    Example:
        >>> from stepgrad.train import network
        >>> len(network.build((2, 8, 1)))
        3
    """
    key = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, key=key), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
