"""The form of an entry of the catalogue of verdicts, and of what it finds in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

from stepgrad.check.health.record import Run


class Question(Enum):
    """What a verdict is about. The first three are answered apart in every report."""

    RIGHT = "Are the gradients right?"
    HEALTHY = "Are the gradients healthy?"
    USED = "Does the optimizer use them well?"
    DATA = "Do data and model fit each other?"


class Severity(IntEnum):
    """How bad it is."""

    WASTE = 1  # training works, but some of it is for nothing
    HARM = 2  # training works worse than it could
    BLOCK = 3  # training can't work


@dataclass(frozen=True)
class Threshold:
    """A number that a verdict depends on.

    Attributes:
        what: the quantity that is compared with it.
        value: the number.
        above: the verdict is given where the quantity is above the number; else where it is not.
        reason: why this number: a source, or what was seen.
    """

    what: str
    value: float
    above: bool
    reason: str

    def holds(self, quantity: float) -> bool:
        """The quantity is beyond the threshold; NaN never is."""
        return quantity > self.value if self.above else quantity <= self.value

    @property
    def text(self) -> str:
        if self.above:
            return f"above {number(self.value)}"
        return f"below {number(self.value)}" if self.value else "exactly 0"


@dataclass(frozen=True)
class Evidence:
    """A measured quantity.

    Attributes:
        what: which.
        value: a number, or a few words.
        threshold: what it was compared with; None where it only helps to understand.
        unit: "%" for a share that reads better as percentage.
    """

    what: str
    value: float | str
    threshold: Threshold | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        if isinstance(self.value, str):
            return self.value
        return percent(self.value) if self.unit else number(self.value)

    @property
    def limit(self) -> str:
        """`above 2`, or `not above 2` where this is not what decided."""
        if self.threshold is None:
            return ""
        decided = isinstance(self.value, str) or self.threshold.holds(self.value)
        return self.threshold.text if decided else f"not {self.threshold.text}"


@dataclass(frozen=True)
class Finding:
    """What a judge found in a run.

    Attributes:
        says: one sentence, with numbers.
        evidence: the quantities that decided, and some that help to understand.
        remedy: what to change, and to which value, computed from this run.
        layer: the layer or parameter where it begins; None where it is everywhere.
        since, until: the first and last recorded step at which it was seen.
    """

    says: str
    evidence: tuple[Evidence, ...]
    remedy: str
    layer: str | None = None
    since: int = 1
    until: int | None = None


@dataclass(frozen=True)
class Entry:
    """An entry of the catalogue: everything about one verdict.

    Attributes:
        name: of the verdict.
        family: the entries that it stands with.
        question: what it is about.
        severity: how bad it is.
        meaning: what it means, and why it harms.
        reads: the evidence, in words.
        thresholds: the numbers it depends on.
        remedy: what helps in general; a finding says what helps this run.
        causes: verdicts that may bring this one about. Where one of them was found too, and not later,
            this one is reported as its consequence.
        judge: looks at a run, and returns what it found, or None.
        example: a script that trains a network with this problem, and calls `sg.health`.
        cure: replacements in this script, (old, new), after which the verdict is no longer given.
    """

    name: str
    family: str
    question: Question
    severity: Severity
    meaning: str
    reads: str
    thresholds: tuple[Threshold, ...]
    remedy: str
    causes: tuple[str, ...]
    judge: Callable[[Run], Finding | None]
    example: str
    cure: tuple[tuple[str, str], ...]

    @property
    def cured(self) -> str:
        """The example with its remedy."""
        text = self.example
        for old, new in self.cure:
            text = text.replace(old, new)
        return text


def number(x: float) -> str:
    """A number with three digits.

    Example:
        >>> number(0.123456), number(12), number(54321.0), number(1234567.0), number(0.0000123)
        ('0.123', '12', '54,300', '1.23e+06', '1.23e-05')
    """
    shown = f"{x:.3g}"
    return f"{float(shown):,.0f}" if 1000 <= abs(x) < 999_500 else shown


def percent(share: float) -> str:
    """A share: `37 %`, or with more digits where it is close to 0 or 1.

    Example:
        >>> percent(0.37), percent(0.004), percent(0.9996)
        ('37 %', '0.4 %', '99.96 %')
    """
    shown = 100 * share
    if shown == 0.0 or 1 <= shown <= 99 or shown >= 100:
        return f"{number(shown) if shown >= 1000 else f'{shown:.0f}'} %"
    return f"{shown:.1g} %" if shown < 1 else f"{shown:.4g} %"
