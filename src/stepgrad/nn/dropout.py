"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.cells import State
from stepgrad.errors import ArgumentError
from stepgrad.nn import initialise
from stepgrad.nn.inputs import floating
from stepgrad.nn.module import Module
from stepgrad.ops import random
from stepgrad.tensor import Tensor


class Dropout(Module):
    """Sets each value to 0 with probability p while training, and divides the others by 1 - p.

    The mean stays the same that way, and in use (after `eval`) it changes nothing
    (Srivastava et al. 2014, inverted). Its random key is a state, replaced at each call.

    Args:
        p: the probability that a value is dropped, in [0, 1].
        key: integer seed or key; by default the process's sequence (see `sg.nn.seed`).

    Example:
        >>> dropout = sg.nn.Dropout(0.5, key=0)
        >>> sorted(set(dropout(np.ones(100, np.float32)).tolist()))
        [0.0, 2.0]
        >>> bool(np.all(dropout.eval()(np.ones(100, np.float32)) == 1))
        True
    """

    def __init__(self, p: float = 0.5, *, key: Any = None) -> None:
        if isinstance(p, bool) or not isinstance(p, (int, float, np.floating)) or not 0 <= p <= 1:
            raise ArgumentError(
                f"Dropout was given p={p!r}",
                "it is the probability that a value is dropped",
                "choose p from 0 to 1, for example 0.5",
            )
        self.p = float(p)
        self.key = State(random.key(int(initialise.generator(key).integers(2**63))))

    def forward(self, x: Any) -> Tensor:
        x = floating(self, x)
        if not self.training or self.p == 0:
            return x
        following, key = random.split(self.key)
        self.key.assign(following)
        if self.p == 1:
            return x * 0.0
        return x * (random.bernoulli(key, 1 - self.p, x.shape).astype(x.dtype) / (1 - self.p))
