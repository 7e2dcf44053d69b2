"""Adagrad."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.optim.optimizer import Optimizer, check_settings


class Adagrad(Optimizer):
    """Divides the gradient by the root of the sum of all its squares so far (Duchi et al. 2011).

    sum <- sum + gradient²
    parameter <- parameter - lr / (1 + (t - 1) * lr_decay) * gradient / (√sum + eps)

    Args:
        parameters: the parameters, as in `model.parameters()`.
        lr: the learning rate.
        lr_decay: how fast the learning rate falls with the number of steps.
        weight_decay: the factor of an L2 penalty, added to the gradient.
        initial_accumulator_value: where the sum starts.
        eps: added to the denominator.

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.Adagrad({"W": W}, lr=0.5)
        >>> opt.step(sg.backward(sg.sum(W * W), {"W": W}))
        >>> W
        parameter([0.5, 1.5], dtype=float32)
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        check_settings(
            "Adagrad",
            lr_decay=(lr_decay, 0, math.inf),
            weight_decay=(weight_decay, 0, math.inf),
            initial_accumulator_value=(initial_accumulator_value, 0, math.inf),
            eps=(eps, 0, math.inf),
        )
        self.lr_decay, self.weight_decay, self.eps = lr_decay, weight_decay, eps
        super().__init__(parameters, lr, {"sum": initial_accumulator_value})

    def scales(self, lr: Any, step: Any) -> tuple[Any, ...]:
        return (lr / (1.0 + (step - 1) * self.lr_decay),)

    def update(self, parameter: Any, gradient: Any, *rest: Any) -> tuple[Any, ...]:
        total, lr = rest
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        total = total + gradient * gradient
        return parameter - lr * (gradient / (np.sqrt(total) + self.eps)), total
