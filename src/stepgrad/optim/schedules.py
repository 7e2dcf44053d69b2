"""Schedules: functions from the number of steps taken to a learning rate.

A schedule is a plain function; assign what it says before each step: `opt.lr = schedule(opt.steps)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stepgrad.errors import ArgumentError

Schedule = Callable[[int], float]


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """Falls along half a cosine from `lr` to `final` in that many steps (Loshchilov and Hutter 2017, eq. 5).

    Example:
        >>> schedule = sg.optim.schedules.cosine(1.0, steps=10)
        >>> [round(schedule(step), 3) for step in (0, 5, 10, 20)]
        [1.0, 0.5, 0.0, 0.0]
    """
    _check_steps("cosine", steps)
    return lambda step: final + (lr - final) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def staircase(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """Multiplies the learning rate by `factor` every so many steps.

    Example:
        >>> schedule = sg.optim.schedules.staircase(1.0, every=10, factor=0.5)
        >>> [schedule(step) for step in (0, 9, 10, 20)]
        [1.0, 1.0, 0.5, 0.25]
    """
    _check_steps("staircase", every)
    return lambda step: lr * factor ** (step // every)


def warmup(steps: int, then: Schedule | float) -> Schedule:
    """Rises evenly to what `then` says in that many steps, and follows it from there, counted from its start.

    Example:
        >>> schedule = sg.optim.schedules.warmup(4, then=1.0)
        >>> [schedule(step) for step in (0, 1, 3, 10)]
        [0.25, 0.5, 1.0, 1.0]
    """
    _check_steps("warmup", steps)
    after: Schedule = then if callable(then) else lambda step: then
    return lambda step: after(0) * (step + 1) / steps if step < steps else after(step - steps)


def _check_steps(schedule: str, steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError(
            f"{schedule} was given {steps!r} steps",
            "a schedule extends over a whole number of steps, from 1 on",
            "use for example the number of batches times the number of epochs",
        )
