"""Calls of functions that are being differentiated: their arguments opened, their results collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgrad import missing
from stepgrad.cells import Cell
from stepgrad.errors import ArgumentError, DtypeError, UnsupportedError
from stepgrad.ops.identities import alias
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import Equation
from stepgrad.tape.leaves import tensor
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import ArrayLike, Tensor
from stepgrad.tree import flatten

Wrt = int | str | Sequence[int | str]


class Call:
    """One call of a function whose arguments `wrt` have been made differentiable."""

    def __init__(self, fn: Callable[..., Any], wrt: Wrt, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not callable(fn):
            raise ArgumentError(
                f"the derivative of {fn!r:.60} was asked for",
                "only functions have derivatives",
                "pass the function itself: sg.grad(f)(x), not sg.grad(f(x))",
            )
        self.single = isinstance(wrt, (int, str, np.integer))
        if not self.single and not isinstance(wrt, (tuple, list, set, frozenset)):
            raise ArgumentError(
                f"wrt={wrt!r:.60} was asked for",
                "wrt names positional arguments by number, from 0, and keyword arguments by name",
                "pass one of them, or several: wrt=0, wrt='x', wrt=(0, 1)",
            )
        self.positions: Sequence[Any] = (wrt,) if self.single else tuple(wrt)  # type: ignore[arg-type]
        everything = flatten([list(args), kwargs])[0]
        inside = RECORDING.get().closed
        arguments: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        self.targets: list[Equation] = []
        self.kinds: list[Any] = []
        self.rebuilds: list[Callable[[list[Any]], Any]] = []
        with recording(closed=True, region=None, differentiable=True):
            for asked in self.positions:
                from_end = isinstance(asked, (int, np.integer)) and asked < 0
                position = asked + len(args) if from_end else asked
                if position not in arguments:
                    raise ArgumentError(
                        f"wrt={asked!r} was asked for, and {getattr(fn, '__name__', fn)} was called with "
                        f"{len(args)} positional and the keyword arguments {list(kwargs)}",
                        "wrt names positional arguments by number, from 0, and keyword arguments by name",
                        "name an argument that is passed",
                    )
                arguments[position] = self._open(arguments[position])
            try:
                result = fn(*[arguments[i] for i in range(len(args))], **{k: arguments[k] for k in kwargs})
            except ValueError as error:  # NumPy's "setting an array element with a sequence" hides the reason
                if isinstance(error.__cause__, UnsupportedError):
                    raise error.__cause__ from None
                raise
        self.result = result
        self.numpy = not inside and not any(isinstance(leaf, ArrayLike) for leaf in everything) and self._is_alone()

    def _is_alone(self) -> bool:
        """Whether no tensor or parameter from outside was used: then nobody can ask for its gradient."""
        results = [x._tensor.equation for x in flatten(self.result)[0] if isinstance(x, ArrayLike)]
        own = set(self.targets)
        return all(e.inputs or not e.active or e in own for e in reachable(results))

    def _open(self, argument: Any) -> Any:
        leaves, _, rebuild = flatten(argument)
        opened = []
        for leaf in leaves:
            made = leaf if isinstance(leaf, Cell) else alias(leaf) if isinstance(leaf, Tensor) else tensor(leaf)
            if not isinstance(leaf, Cell) and isinstance(leaf, Tensor):
                made.equation.name = leaf.equation.name
            if not made._tensor.equation.type.is_float:
                raise not_floating(made._tensor)
            opened.append(made)
            self.targets.append(made._tensor.equation)
            self.kinds.append(leaf)
        start = len(self.targets) - len(leaves)

        def structured(new: list[Any]) -> Any:
            return rebuild(new[start:])

        self.rebuilds.append(structured)
        return argument if hasattr(argument, "parameters") else rebuild(opened)

    def structured(self, gradients: list[Tensor]) -> Any:
        """The gradients in the structure of the arguments: NumPy if the call was all NumPy."""
        out = [as_numpy(g) for g in gradients] if self.numpy else gradients
        parts = tuple(rebuild(out) for rebuild in self.rebuilds)
        return parts[0] if self.single else parts

    def plain(self, value: Any) -> Any:
        """A result of the function: NumPy if the call was all NumPy."""
        if not self.numpy:
            return value
        leaves, _, rebuild = flatten(value)
        return rebuild([as_numpy(leaf) if isinstance(leaf, ArrayLike) else leaf for leaf in leaves])


def as_numpy(x: ArrayLike) -> Any:
    """A copy of the value, that its owner may write to; a NumPy scalar if it has no axes."""
    return x.numpy().copy()[()]


def outputs_of(call: Call, fn: Callable[..., Any]) -> list[Tensor]:
    """The tensors that the function returned; raises GradientError for anything else."""
    leaves = flatten(call.result)[0]
    for leaf in leaves:
        if not isinstance(leaf, ArrayLike):
            raise missing.not_on_tape(leaf, fn)
    return [leaf._tensor for leaf in leaves]


def output_of(call: Call, fn: Callable[..., Any]) -> Tensor:
    """The one tensor that the function returned; raises ArgumentError if it returned several."""
    outputs = outputs_of(call, fn)
    if len(outputs) != 1:
        raise ArgumentError(
            f"{getattr(fn, '__name__', fn)} returned {len(outputs)} tensors",
            "this derivative is that of one output",
            "return one tensor, or differentiate one output at a time: sg.jacobian(lambda x: f(x)[0])",
        )
    return outputs[0]


def not_floating(asked: Tensor) -> DtypeError:
    """The error for asking for a gradient with respect to integers or booleans."""
    return DtypeError(
        f"the gradient with respect to {missing.describe(asked)} was asked for",
        f"{asked.dtype} numbers change in steps, so there is no derivative",
        "convert first: x.astype(np.float64), or write 3.0 for 3",
    )
