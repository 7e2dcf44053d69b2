"""Names: identifiers for what stands on a tape, made from the user's variables and never the same twice."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterable, Mapping

from stepgrad.tape.equation import Equation
from stepgrad.tensor import Tensor

RESERVED = frozenset(
    [
        *keyword.kwlist,
        *"np special math forward backward update cache gradients".split(),
        *"slice int float bool complex tuple list range len abs round Ellipsis".split(),
    ]
)
"""Names that generated source uses for something else."""


class Names:
    """Hands out identifiers, each once, and remembers which equation got which.

    Attributes:
        of: equation -> its name.
    """

    def __init__(self) -> None:
        self.of: dict[Equation, str] = {}
        self._taken = set(RESERVED)
        self._counts: dict[str, int] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Keeps these names from being handed out."""
        self._taken.update(names)

    def unique(self, *wanted: str) -> str:
        """The first of the wanted names that is free; else the first of them with a number."""
        candidates = [identifier(w) for w in wanted]
        for name in candidates:
            if name not in self._taken:
                self._taken.add(name)
                return name
        number = 2
        while f"{candidates[0]}_{number}" in self._taken:
            number += 1
        self._taken.add(f"{candidates[0]}_{number}")
        return f"{candidates[0]}_{number}"

    def give(self, equation: Equation, *wanted: str) -> str:
        """Names an equation, unless it already has a name."""
        if equation not in self.of:
            self.of[equation] = self.unique(*wanted)
        return self.of[equation]

    def numbered(self, base: str) -> str:
        """The next free of base1, base2, …"""
        number = self._counts.get(base, 0) + 1
        while f"{base}{number}" in self._taken:
            number += 1
        self._counts[base] = number
        self._taken.add(f"{base}{number}")
        return f"{base}{number}"

    def give_variables(self, bases: Mapping[Equation, str]) -> None:
        """Names equations after variables; what was bound to the same variable in turn is numbered."""
        groups: dict[str, list[Equation]] = {}
        for equation in sorted(bases, key=lambda e: e.serial):
            if equation not in self.of:
                groups.setdefault(identifier(bases[equation]), []).append(equation)
        for base, equations in groups.items():
            if len(equations) == 1 and base not in self._taken:
                self.give(equations[0], base)
            elif len(equations) == 1 and base in RESERVED:
                self.give(equations[0], base + "_")
            else:
                for equation in equations:
                    self.of[equation] = self.numbered(base + "_")

    def give_gradients(self, gradients: Mapping[Equation, Tensor]) -> dict[Equation, str]:
        """Names gradients after what they are the gradients of: `dZ1` for `Z1`.

        One tensor may be the gradient of several values (those of a sum); it gets the name that
        belongs to the last of them.

        Args:
            gradients: equation -> gradient, in the order of the backward walk.

        Returns:
            The name for the gradient of each named value, whether it is that tensor's own name or
            one more name for it.
        """
        names: dict[Equation, str] = {}
        for equation, gradient in gradients.items():
            name = self.of.get(equation)
            if name is None:
                continue
            if self.of.get(gradient.equation) == "d" + name:  # what the walk began with
                names[equation] = "d" + name
            elif gradient.equation not in self.of and gradient.equation.inputs:  # no line computes a constant
                names[equation] = self.give(gradient.equation, "d" + name)
            else:
                names[equation] = self.unique("d" + name)
        return names


def identifier(text: str) -> str:
    """A Python identifier out of a name or path.

    Example:
        >>> [identifier(t) for t in ("Ws[0]", "0.weight", "params['W']", "lambda")]
        ['Ws_0', 'weight_0', 'params_W', 'lambda_']
    """
    parts = [p for p in re.split(r"\W+", text) if p]
    leading = list(itertools.takewhile(lambda p: p[0].isdigit(), parts))  # an identifier can't begin with them
    name = "_".join([*(parts[len(leading) :] or ["x"]), *leading])
    return name + "_" if keyword.iskeyword(name) else name
