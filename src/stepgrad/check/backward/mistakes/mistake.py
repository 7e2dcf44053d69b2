"""What an entry of the catalogue is: a mistake that people make in backward passes, described once for all uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stepgrad.check.backward.mistakes.networks import Network
from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array


@dataclass(frozen=True)
class Guess:
    """One way in which the mistake may have been made on this line.

    Attributes:
        value: what the line would have computed then, called with a `Point`. Where NumPy refuses the shapes it
            raises, as the line would have.
        detail: the finding, in the user's names: "it is the transpose of the gradient: …".
        brings: the name that the line would read by mistake, if it is a matter of names.
        replaces: the name that it would read instead of, where it does not stand in the line any more.
        reads: whether a line's text looks like it; for lines that raise, and so have no value.
        loose: it is like the wrong value without giving it exactly, so what is exact comes first.
        fix: a line of code that computes the right value, where one can be written.
    """

    value: Callable[..., Array]
    detail: str
    brings: str | None = None
    replaces: str | None = None
    reads: Callable[[str], bool] | None = None
    loose: bool = False
    fix: str | None = None


def no_guesses(scene: Scene) -> Iterator[Guess]:
    """For mistakes that no single value shows."""
    return iter(())


@dataclass(frozen=True)
class Example:
    """A right line of a tiny backward pass, and the same with the mistake in it.

    Attributes:
        network: the passes it stands in.
        right, wrong: the line (or lines) of its backward, right and wrong. Without its indentation.
        facts: what a judge finds out by comparing runs, where a single value does not show the mistake.
    """

    network: Network
    right: str
    wrong: str
    facts: frozenset[str] = frozenset()

    @property
    def backward(self) -> str:
        """The source of the whole wrong backward pass."""
        return self.network.with_line(self.right, self.wrong)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a backward pass.

    Attributes:
        name: what reports call it.
        arises: how it comes about.
        produces: what the wrong value is.
        fix: what to do about it.
        example: a tiny backward pass with it.
        candidates: the ways in which it may have been made on a line.
        facts: the facts (see `clue.FACTS`) that show it without any value.
        sentence: what a report says where a fact shows it; the gradient's name goes in.
    """

    name: str
    arises: str
    produces: str
    fix: str
    example: Example
    candidates: Callable[[Scene], Iterable[Guess]] = no_guesses
    facts: frozenset[str] = frozenset()
    sentence: str = ""


@dataclass(frozen=True)
class Family:
    """Mistakes of one kind, which stand in one file."""

    name: str
    mistakes: tuple[Mistake, ...]
