"""Adam and AdamW."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.optim.optimizer import Optimizer, check_settings


class Adam(Optimizer):
    """Adaptive moment estimation (Kingma and Ba 2015, algorithm 1).

    m <- beta1 * m + (1 - beta1) * gradient
    v <- beta2 * v + (1 - beta2) * gradient²
    parameter <- parameter - lr * m̂ / (√v̂ + eps)   with m̂ = m / (1 - beta1^t), v̂ = v / (1 - beta2^t)

    Args:
        parameters: the parameters, as in `model.parameters()`.
        lr: the learning rate.
        betas: (beta1, beta2), how slowly the two moments forget, each in [0, 1).
        eps: added to the denominator.
        weight_decay: the factor of an L2 penalty, added to the gradient; see `AdamW` for the other kind.
        amsgrad: divide by the largest v so far (Reddi et al. 2018).

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.Adam({"W": W}, lr=0.5)
        >>> opt.step(sg.backward(sg.sum(W * W), {"W": W}))
        >>> print(W.numpy().round(3))
        [0.5 1.5]
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        self.betas, self.eps, self.weight_decay, self.amsgrad = _checked("Adam", betas, eps, weight_decay, amsgrad)
        super().__init__(parameters, lr, _moments(amsgrad))

    def scales(self, lr: Any, step: Any) -> tuple[Any, ...]:
        return corrected(lr, step, self.betas)

    def update(self, parameter: Any, gradient: Any, *rest: Any) -> tuple[Any, ...]:
        *moments, step_size, correction = rest
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameter
        change, moments = adapt(gradient, moments, step_size, correction, self.betas, self.eps)
        return parameter - change, *moments


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    The decay takes lr * weight_decay of each parameter directly, and does not pass through the moments.

    Args:
        parameters, lr, betas, eps, amsgrad: as for `Adam`.
        weight_decay: what is taken of each parameter in a step, before it is multiplied by lr.

    Example:
        >>> W = sg.Parameter([1.0, 2.0])
        >>> opt = sg.optim.AdamW({"W": W}, lr=0.5, weight_decay=0.0)
        >>> opt.step(sg.backward(sg.sum(W * W), {"W": W}))
        >>> print(W.numpy().round(3))
        [0.5 1.5]
    """

    def __init__(
        self,
        parameters: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        self.betas, self.eps, self.weight_decay, self.amsgrad = _checked("AdamW", betas, eps, weight_decay, amsgrad)
        super().__init__(parameters, lr, _moments(amsgrad))

    def scales(self, lr: Any, step: Any) -> tuple[Any, ...]:
        return (*corrected(lr, step, self.betas), 1.0 - lr * self.weight_decay)

    def update(self, parameter: Any, gradient: Any, *rest: Any) -> tuple[Any, ...]:
        *moments, step_size, correction, kept = rest
        change, moments = adapt(gradient, moments, step_size, correction, self.betas, self.eps)
        return (kept * parameter if self.weight_decay else parameter) - change, *moments


def corrected(lr: Any, step: Any, betas: tuple[float, float]) -> tuple[Any, Any]:
    """lr / (1 - beta1^t) and √(1 - beta2^t): what corrects that both moments start from zero."""
    return lr / (1.0 - betas[0] ** step), (1.0 - betas[1] ** step) ** 0.5


def adapt(
    gradient: Any, moments: list[Any], step_size: Any, correction: Any, betas: tuple[float, float], eps: float
) -> tuple[Any, list[Any]]:
    """The change of a parameter, and the new moments: m, v and, for amsgrad, the largest v."""
    old_m, old_v, *largest = moments
    # Augmented assignments work in place on arrays made here, and make new tensors on a tape.
    m = gradient - old_m
    m *= 1 - betas[0]
    m += old_m
    v = gradient * gradient
    v *= 1 - betas[1]
    v += betas[1] * old_v
    if largest:
        largest = [np.maximum(largest[0], v)]
    root = np.sqrt(largest[0] if largest else v)
    root += eps * correction
    change = m / root
    change *= step_size * correction
    return change, [m, v, *largest]


def _moments(amsgrad: bool) -> dict[str, float]:
    return {"m": 0.0, "v": 0.0} | ({"largest_v": 0.0} if amsgrad else {})


def _checked(name: str, betas: Any, eps: float, weight_decay: float, amsgrad: bool) -> Any:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ArgumentError(
            f"{name} was given betas={betas!r}",
            "there are two: how much is kept of the mean gradient, and of the mean squared gradient",
            "use for example betas=(0.9, 0.999)",
        )
    beta1, beta2 = betas
    check_settings(
        name,
        beta1=(beta1, 0, 1),
        beta2=(beta2, 0, 1),
        eps=(eps, 0, math.inf),
        weight_decay=(weight_decay, 0, math.inf),
    )
    return (beta1, beta2), eps, weight_decay, amsgrad
