"""RMSprop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.optim.optimizer import Optimizer, check_settings


class RMSprop(Optimizer):
    """Divides the gradient by a running root mean square of it (Tieleman and Hinton 2012, lecture 6e).

    square <- alpha * square + (1 - alpha) * gradient²
    parameter <- parameter - lr * gradient / (√square + eps)

    Args:
        parameters: the parameters, as in `model.parameters()`.
        lr: the learning rate.
        alpha: how slowly the mean square forgets, in [0, 1).
        eps: added to the denominator.
        weight_decay: the factor of an L2 penalty, added to the gradient.
        momentum: how much of the last update is kept.
        centered: subtract the square of the mean gradient, so that it is the variance that is divided by
            (Graves 2013, eq. 38).

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.RMSprop({"W": W}, lr=0.1)
        >>> opt.step(sg.backward(sg.sum(W * W), {"W": W}))
        >>> print(W.numpy().round(3))
        [0. 1.]
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        check_settings(
            "RMSprop",
            alpha=(alpha, 0, 1),
            eps=(eps, 0, math.inf),
            weight_decay=(weight_decay, 0, math.inf),
            momentum=(momentum, 0, math.inf),
        )
        self.alpha, self.eps, self.weight_decay = alpha, eps, weight_decay
        self.momentum, self.centered = momentum, centered
        names = ["square", *["mean"][:centered], *["momentum"][: bool(momentum)]]
        super().__init__(parameters, lr, dict.fromkeys(names, 0.0))

    def update(self, parameter: Any, gradient: Any, *rest: Any) -> tuple[Any, ...]:
        square, *others, lr = rest
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        square = self.alpha * square + (1 - self.alpha) * (gradient * gradient)
        new, spread = [square], square
        if self.centered:
            mean = others[0] + (1 - self.alpha) * (gradient - others[0])
            spread = square - mean * mean
            new.append(mean)
        direction = gradient / (np.sqrt(spread) + self.eps)
        if self.momentum:
            direction = self.momentum * others[-1] + direction
            new.append(direction)
        return parameter - lr * direction, *new
