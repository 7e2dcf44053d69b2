"""When to look: often enough to see what happens, and so seldom that it costs next to nothing."""

from __future__ import annotations

import math
import time

SHARE = 0.04
"""Of the time that training takes, what looking may take; 5 % are promised, and some goes into cutting slices."""

FREE = 0.2
"""Seconds that looking may take at any rate: a run that is over in a second has something to show, too."""

MOST = 100
"""Steps that are looked at, if their number is known; of more than four times as many every second one is let go."""


class Pace:
    """Chooses the steps to look at.

    The first steps are looked at closely, later ones evenly; and a look waits until all looks together have
    taken no more than their share of the time.

    Args:
        every: look at step 1 and at every so many-th from there; None: as above.
        total: how many steps there will be, if that is known.
    """

    def __init__(self, every: int | None, total: int | None = None) -> None:
        self.every, self.total = every, total
        self.spent = 0.0
        self.excused = 0.0
        self._next = 1
        self._begun = time.perf_counter()
        self._last: tuple[float, int] = (self._begun, 1)  # training seconds and step when last asked

    @property
    def training(self) -> float:
        """Seconds that went into training itself."""
        return time.perf_counter() - self._begun - self.spent

    def wait(self, step: int) -> int:
        """How many steps to do before the next look; 0: look at this step.

        Args:
            step: the one that comes next, from 1.
        """
        if step < self._next:
            return self._next - step
        if self.every is not None:
            return 0
        training = self.training
        debt = self.spent - self.excused - self._free(step) - SHARE * training
        if debt > 0 and step > self._last[1]:
            per_step = (training - self._last[0]) / (step - self._last[1])
            gap = max(1, math.ceil(debt / (SHARE * per_step))) if per_step > 0 else 1
            self._next = step + gap
        elif debt > 0 and step > 1:
            self._next = step + 1
        self._last = (training, step)
        return max(self._next - step, 0)

    def _free(self, step: int) -> float:
        """What may be spent by now of the time that is free: half of it at once."""
        return FREE * (0.5 + 0.5 * step / self.total) if self.total else FREE

    def looked(self, step: int, seconds: float, excused: float = 0.0) -> None:
        """Counts a look.

        Args:
            step: that was looked at.
            seconds: that it took.
            excused: part of these that no later look has to wait for.
        """
        self.spent += seconds
        self.excused += excused
        if self.every is not None:
            self._next = step + self.every
            return
        evenly = self.total // MOST if self.total else step // 50
        self._next = step + max(1, min(evenly, step // 4))

    def will_train(self) -> float:
        """Seconds of training in all, as far as can be told."""
        done = self._last[1] - 1
        if self.total is None or done < 1:
            return self.training
        return max(self._last[0] * self.total / done, self.training)
