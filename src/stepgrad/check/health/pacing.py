"""When to look: often enough to see what happens, and so seldom that it costs next to nothing."""

from __future__ import annotations

import math
import time

SHARE = 0.03
"""Of the time that training takes, what looking may take; 5 % are promised, and some goes into making programs and
cutting slices."""

FREE = 0.2
"""Seconds of computing that looking may take at any rate: a run that is over in a second has something to show, too."""

LEAST = 12
"""Steps that are looked at whatever it takes, if there are so many."""

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
        self._paid = 0.0  # of these seconds, those that no later look has to wait for
        self._computed = 0.0
        self._next = self._latest = 1
        self._begun = time.perf_counter()
        self._asked: tuple[float, int] = (0.0, 1)  # seconds of training when last asked, and the step

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
        if self.every is not None or step >= self._latest:
            return 0
        training = self.training
        debt = self.spent - self._paid - SHARE * training
        if debt > 0 and self._computed > self._free(step):
            before, asked = self._asked
            per_step = (training - before) / (step - asked) if step > asked else 0.0
            gap = math.ceil(debt / (SHARE * per_step)) if per_step > 0 else 1
            self._next = min(step + max(gap, 1), self._latest)
        self._asked = training, step
        return self._next - step if self._next > step else 0

    def _free(self, step: int) -> float:
        """What may have been computed by now at any rate: half of it at once."""
        return FREE * (0.5 + 0.5 * step / self.total) if self.total else FREE

    def looked(self, step: int, seconds: float, computed: float, paid: float = 0.0) -> None:
        """Counts a look.

        Args:
            step: that was looked at.
            seconds: that it took, by the clock.
            computed: seconds of computing.
            paid: of the seconds, those that no later look has to wait for.
        """
        self.spent += seconds
        self._paid += paid
        self._computed += computed
        if self.every is not None:
            self._next = step + self.every
            return
        evenly = self.total // MOST if self.total else step // 50
        self._next = step + max(1, min(evenly, step // 4))
        seldom = self.total // LEAST if self.total else step
        self._latest = step + max(1, min(seldom, 2 * step))

    def affords(self, seconds: float, step: int) -> bool:
        """Whether something that takes so long can be done now, and no look has to wait for it."""
        if self.every is not None:
            return True
        free = self._computed + seconds <= self._free(step)
        return free or self.spent - self._paid + seconds <= SHARE * self.training

    def will_train(self) -> float:
        """Seconds of training in all, as far as can be told."""
        training, done = self._asked[0], self._asked[1] - 1
        if self.total is None or done < 1:
            return self.training
        return max(training * self.total / done, self.training)
