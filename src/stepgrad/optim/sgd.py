"""Stochastic gradient descent."""

from __future__ import annotations

import math
from typing import Any

from stepgrad.errors import ArgumentError
from stepgrad.optim.optimizer import Optimizer, check_settings


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum or Nesterov's momentum.

    buffer <- momentum * buffer + (1 - dampening) * gradient   (the gradient itself in the first step)
    parameter <- parameter - lr * buffer

    Nesterov's variant uses gradient + momentum * buffer in the second line (Sutskever et al. 2013,
    in PyTorch's form).

    Args:
        parameters: the parameters, as in `model.parameters()`.
        lr: the learning rate.
        momentum: how much of the last update is kept, in [0, 1).
        dampening: how much of the gradient is left out of the buffer.
        weight_decay: the factor of an L2 penalty, added to the gradient.
        nesterov: look ahead along the momentum.

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.SGD({"W": W}, lr=0.5)
        >>> opt.step(sg.backward(sg.sum(W * W), {"W": W}))
        >>> W
        parameter([0., 0.], dtype=float32)
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        check_settings(
            "SGD",
            momentum=(momentum, 0, math.inf),
            dampening=(dampening, 0, math.inf),
            weight_decay=(weight_decay, 0, math.inf),
        )
        if nesterov and (not momentum or dampening):
            raise ArgumentError(
                f"SGD was given nesterov=True with momentum={momentum!r} and dampening={dampening!r}",
                "it looks ahead along the momentum, so there has to be some, without dampening",
                "use for example momentum=0.9, dampening=0",
            )
        self.momentum, self.dampening, self.weight_decay, self.nesterov = momentum, dampening, weight_decay, nesterov
        super().__init__(parameters, lr, {"momentum": 0.0} if momentum else {})

    def scales(self, lr: Any, step: Any) -> tuple[Any, ...]:
        return lr, 1.0 - self.dampening * (step > 1)

    def update(self, parameter: Any, gradient: Any, *rest: Any) -> tuple[Any, ...]:
        *moments, lr, kept = rest
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        if not moments:
            return (parameter - lr * gradient,)
        buffer = self.momentum * moments[0] + (kept * gradient if self.dampening else gradient)
        direction = gradient + self.momentum * buffer if self.nesterov else buffer
        return parameter - lr * direction, buffer
