"""The truth about a forward pass: its tape, the user's names for its values, and the gradient of each of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.check.backward.subject import Subject, short_name
from stepgrad.check.backward.watching import Watched, watching
from stepgrad.errors import GradientError
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.indexing import index_set
from stepgrad.ops.joining import stack
from stepgrad.tape.backward import walk
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.leaves import constant, tensor
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, ArrayLike, Tensor
from stepgrad.tree import flatten


@dataclass(frozen=True, eq=False)
class Truth:
    """A forward pass at one point, and its right gradients; everything in float64.

    Attributes:
        forward: the equations in order, with values; the inputs are leaves and not among them.
        inputs: name -> the leaf of each input.
        names: leaf or equation -> the user's name for it. What was bound to one variable several times is
            numbered: Z_1, Z_2.
        bases: the same without numbers.
        output: the loss, or what the backward pass begins with.
        gradients: forward leaf or equation -> its gradient, a tensor on the backward tape.
        backward: the backward equations in order, with values.
        places: equation -> (line, code) of the user's statement, where it is known.
        aliases: name -> every equation that was ever bound to it.
    """

    forward: list[Equation]
    inputs: dict[str, Equation]
    names: dict[Equation, str]
    bases: dict[Equation, str]
    output: Equation
    gradients: dict[Equation, Tensor]
    backward: list[Equation]
    places: dict[Equation, tuple[int, str]] = field(default_factory=dict)
    aliases: dict[str, list[Equation]] = field(default_factory=dict)

    def gradient(self, name: str) -> Array:
        """The right gradient of an input, shape as the input; zeros where the loss does not depend on it."""
        leaf = self.inputs[name]
        found = self.gradients.get(leaf)
        return np.zeros(leaf.type.shape) if found is None else found.value

    def like(self, other: Truth) -> bool:
        """Whether the other has the same equations, so that one's can be found in the other by position."""
        return len(self.forward) == len(other.forward) and all(
            a.op is b.op for a, b in zip(self.forward, other.forward, strict=True)
        )


def truth_of(
    subject: Subject, inputs: Mapping[str, Array], watched: Sequence[Watched], downstream: Sequence[Array] | None
) -> Truth:
    """Records the forward pass and walks back from what it returns.

    Args:
        subject: what is checked.
        inputs: float64 arrays by name.
        watched: the functions that the forward pass runs, with hooks, so that values get the user's names.
        downstream: what to begin with, an array for each output; None for a loss.

    Raises:
        GradientError: the forward returns nothing that depends on the inputs in a differentiable way.
        Exception: whatever the user's code raises when it meets tensors.
    """
    leaves = {name: tensor(value, name=None) for name, value in inputs.items()}
    for leaf in leaves.values():
        leaf.equation.value = leaf.value
    recorded: list[Equation] = []
    namer = _Namer()
    by_number = {id(w.function): w for w in watched}
    inside = recording(equations=recorded, closed=True, region=None, differentiable=True, scope=(), observe=None)
    with inside, watching(list(by_number.values()), namer), np.errstate(all="ignore"):
        outputs, _ = subject.forward(leaves)
    roots = [x._tensor for x in flatten(outputs)[0] if isinstance(x, ArrayLike)]
    roots = [r for r in roots if r.equation.type.is_float]
    if not roots or not any(r.equation.active for r in roots):
        raise GradientError(
            f"{subject.name} returned nothing that was computed from its floating-point inputs",
            "there is no gradient to compare with",
            "return the loss, without float(), .item() or integers on the way",
        )
    if downstream is None:
        seeds = {roots[0].equation: constant(np.ones(roots[0].shape))}
    else:
        seeds = {r.equation: constant(g) for r, g in zip(roots, downstream, strict=True) if r.equation.active}
    for seed in seeds.values():
        seed.equation.value = seed.value
    walked: list[Equation] = []
    with recording(equations=walked, closed=True, region=None, scope=()), np.errstate(all="ignore"):
        gradients = walk(seeds, [leaf.equation for leaf in leaves.values()])
    for gradient in gradients.values():
        if gradient.equation.value is None:
            gradient.equation.value = gradient.value
    bases = {leaf.equation: short_name(name) for name, leaf in leaves.items()}
    for equation, name in namer.names.items():
        bases.setdefault(equation, name)
    return Truth(
        forward=recorded,
        inputs={name: leaf.equation for name, leaf in leaves.items()},
        names=_numbered(bases),
        bases=bases,
        output=next(iter(seeds)),
        gradients={e: Tensor(g.equation.value, g.equation) for e, g in gradients.items()},
        backward=walked,
        places=namer.places(by_number.values()),
        aliases=namer.aliases,
    )


def _numbered(bases: Mapping[Equation, str]) -> dict[Equation, str]:
    groups: dict[str, list[Equation]] = {}
    for equation in sorted(bases, key=lambda e: e.serial):
        groups.setdefault(bases[equation], []).append(equation)
    return {
        equation: base if len(group) == 1 else f"{base}_{i}"
        for base, group in groups.items()
        for i, equation in enumerate(group, 1)
    }


class _Namer:
    """The hook for a forward pass on tensors: names them, and makes in-place code work on them.

    Attributes:
        names: equation -> the variable that it was bound to first.
        aliases: variable -> every equation that it was bound to.
    """

    def __init__(self) -> None:
        self.names: dict[Equation, str] = {}
        self.aliases: dict[str, list[Equation]] = {}
        self._made: dict[Equation, Any] = {}

    def places(self, watched: Any) -> dict[Equation, tuple[int, str]]:
        """Where each named equation was bound."""
        sites = {
            (w.function.__qualname__, w.function.__code__.co_firstlineno, i): site
            for w in watched
            for i, site in enumerate(w.sites)
        }
        return {e: (sites[k].line, sites[k].code) for e, k in self._made.items() if k in sites}

    def value(self, site: Any, name: str, value: Any) -> Any:
        self._name(site, name, value)
        return value

    def values(self, site: Any, names: tuple[str, ...], value: Any) -> Any:
        value = value if isinstance(value, (tuple, list)) else tuple(value)
        for name, part in zip(names, value, strict=False):
            self._name(site, name, part)
        return value

    def update(self, site: Any, name: str, sign: str, old: Any, value: Any) -> Any:
        if isinstance(old, np.ndarray) and isinstance(value, ArrayLike):
            old = constant(old)
        new = (PLAIN if isinstance(old, ArrayLike) else IN_PLACE)[sign](old, value)
        self._name(site, name, new)
        return new

    def store(self, site: Any, name: str, base: Any, key: Any, value: Any) -> Any:
        if isinstance(base, ArrayLike) or (isinstance(base, np.ndarray) and isinstance(value, ArrayLike)):
            base = index_set(base, _plain(key), value)
            self._name(site, name, base)
            return base
        base[key] = value
        self._name(site, str(key) if isinstance(key, str) else f"{name}[{key}]", value)
        return base

    def update_store(self, site: Any, name: str, sign: str, base: Any, key: Any, value: Any) -> Any:
        part = base[_plain(key) if isinstance(base, ArrayLike) else key]
        if isinstance(base, ArrayLike) or (isinstance(base, np.ndarray) and isinstance(value, ArrayLike)):
            return self.store(site, name, base, key, PLAIN[sign](part, value))
        return self.store(site, name, base, key, self.update(site, name, sign, part, value))

    def touched(self, site: Any, name: str, value: Any) -> Any:
        return value

    def slice(self, *parts: Any) -> slice:
        return slice(*parts)

    def leave(self, what: Any, value: Any, *more: Any, **options: Any) -> Any:
        """`float(x)`, `x.item()`, `np.array(x)`: of tensors, what stays on the tape."""
        if isinstance(value, ArrayLike):
            dtype = next((x for x in [*more[:1], options.get("dtype")] if x is not None), None)
            if what in (np.float32, np.float16, np.float64):
                dtype = what
            if dtype is not None and np.dtype(dtype) != value.dtype and what is not float and what != "item":
                return to_dtype(value, dtype)
            return value.reshape(()) if what in (float, "item") and value.shape else value
        if isinstance(value, (list, tuple)) and any(isinstance(x, ArrayLike) for x in flatten(value)[0]):
            return _stacked(value)
        return value.item() if what == "item" else what(value, *more, **options)

    def _name(self, site: Any, name: str, value: Any) -> None:
        if isinstance(value, ArrayLike):
            equation = value._tensor.equation
            if equation.op is not LITERAL and not name.startswith("return"):
                bare = name.removeprefix("self.")
                self.names.setdefault(equation, bare)
                self.aliases.setdefault(bare, []).append(equation)
                self._made.setdefault(equation, site)


def _plain(key: Any) -> Any:
    if isinstance(key, ArrayLike):
        return key.numpy()
    return tuple(map(_plain, key)) if isinstance(key, tuple) else key


def _stacked(values: Any) -> Any:
    return stack([_stacked(v) if isinstance(v, (list, tuple)) else v for v in values])


PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "@": operator.matmul,
    "**": operator.pow, "//": operator.floordiv, "%": operator.mod, "&": operator.and_, "|": operator.or_,
    "^": operator.xor, "<<": operator.lshift, ">>": operator.rshift,
}  # fmt: skip
IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.iadd, "-": operator.isub, "*": operator.imul, "/": operator.itruediv, "@": operator.imatmul,
    "**": operator.ipow, "//": operator.ifloordiv, "%": operator.imod, "&": operator.iand, "|": operator.ior,
    "^": operator.ixor, "<<": operator.ilshift, ">>": operator.irshift,
}  # fmt: skip
