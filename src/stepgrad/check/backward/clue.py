"""What is known about a wrong line of a backward pass: the clue that the matcher works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepgrad.tape.equation import Equation
from stepgrad.tensor import Array

if TYPE_CHECKING:
    from stepgrad.check.backward.truth import Truth

FACTS = {
    "accumulates-between-calls": "a second call returns the first call's gradient on top of its own",
    "cache-changed": "the backward pass changes arrays of the cache in place",
    "cache-disagrees": "an entry of the cache is not what the forward pass computed under that name",
    "differs-between-calls": "two calls with the same arguments give different gradients",
    "leaks": "the gradient of one example changes with another example, and should not",
    "parameters-changed": "the backward pass changes the parameters in place",
    "wrong-dtype": "the gradient has another dtype than what it is the gradient of",
    "missing": "the backward pass returns no gradient for this input",
    "extra": "the backward pass returns a gradient for something that is no input",
}
"""What the judge finds by comparing runs, and no single value can show."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """One random point at which the wrong line was seen.

    Attributes:
        truth: the forward pass at this point, and the true gradient of each of its values.
        right: the right value of the line, given what the user's earlier lines computed.
        wrong: what the line computed instead; None where it raised.
        target: the forward equation whose gradient the line is to compute; None where the line
            computes something in between (a value of the backward pass that has no forward value).
        known: the user's earlier values of the backward pass, by name: right, or taken as given.
            Under the name of the line's own variable, what it held before the line.
        others: the other arrays in scope, by the user's names: arguments and entries of the cache,
            as they are when the line runs.
        previous: forward values of an earlier call, by name, where the user's objects keep any.
        updated: parameters after the update step, by name, where the user's code makes one.
        factor: what the user's gradients up to here are multiplied with, by the user's own
            convention: the batch size, if the mean is taken only where parameters' gradients are.
        batch: the number of examples; None where no axis runs over examples.
        batch_axis: the axis of `right` that runs over examples, if any.
    """

    truth: Truth
    right: Array
    wrong: Array | None
    target: Equation | None = None
    known: Mapping[str, Array] = field(default_factory=dict)
    others: Mapping[str, Array] = field(default_factory=dict)
    previous: Mapping[str, Array] = field(default_factory=dict)
    updated: Mapping[str, Array] = field(default_factory=dict)
    factor: float = 1.0
    batch: int | None = None
    batch_axis: int | None = None


@dataclass(frozen=True, eq=False)
class Clue:
    """A wrong line of the user's, at several random points.

    Attributes:
        gradient: what the user calls the value, such as "dW2".
        sightings: three points or more, with distinct prime sizes wherever shapes are free; none
            where only facts are known.
        line: the line's number in the user's file.
        code: its text.
        loop: the values of the loop variables around it, by name.
        earlier: names of the values that earlier lines computed rightly.
        facts: which of `FACTS` were found.
        error: the text of what the line raised, where it raised.
        wrong: the names of the inputs whose gradients are wrong in the end.
    """

    gradient: str
    sightings: tuple[Sighting, ...] = ()
    line: int | None = None
    code: str = ""
    loop: Mapping[str, int] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    facts: frozenset[str] = frozenset()
    error: str | None = None
    wrong: tuple[str, ...] = ()
