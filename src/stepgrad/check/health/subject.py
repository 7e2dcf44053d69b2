"""What is looked at: a network, its loss and its optimizer; and one of its training steps, on a tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.cells import AbstractCells, Cell, Parameter
from stepgrad.check.health.layers import Found, find_layers
from stepgrad.nn import Module
from stepgrad.optim import Optimizer
from stepgrad.tape.backward import check_scalar, reachable, walk
from stepgrad.tape.equation import Equation
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import Array, Tensor
from stepgrad.tree import flatten


@dataclass(frozen=True)
class Subject:
    """A network in training.

    Attributes:
        model: a module, or any function of a batch of inputs.
        loss: (outputs, targets) -> tensor of shape ().
        optimizer: its `step` is called with gradients; one of `sg.optim`'s is looked into.
        prepare: what the training loop makes of the gradients before the optimizer gets them, or None.
    """

    model: Callable[..., Any]
    loss: Callable[..., Any]
    optimizer: Any
    prepare: Callable[[dict[str, Tensor]], Any] | None = None

    def parameters(self) -> dict[str, Parameter]:
        """The network's parameters by path; for a plain function, those of the optimizer."""
        if callable(getattr(self.model, "parameters", None)):
            return self.model.parameters()  # type: ignore[attr-defined]
        return dict(self._optimized()) if isinstance(self.optimizer, Optimizer) else {}

    def kinds(self) -> dict[str, str]:
        """The class of each module, by path; empty for a plain function."""
        if not isinstance(self.model, Module):
            return {}
        return {path: type(module).__name__ for path, module in self.model.named_modules().items()}

    def cells(self) -> dict[str, Cell]:
        """Everything that a step may change, by a name for each."""
        found: dict[str, Cell] = dict(self.parameters())
        if isinstance(self.model, Module):
            found |= {f"state {name}": cell for name, cell in self.model.states().items()}
        if isinstance(self.optimizer, Optimizer):
            found |= {f"parameter {name}": cell for name, cell in self._optimized()}
            found |= {f"optimizer {name}": cell for name, cell in self.optimizer.states().items()}
        return {name: cell for cell, name in {cell: name for name, cell in reversed(found.items())}.items()}

    def _optimized(self) -> Iterator[tuple[str, Parameter]]:
        return zip(self.optimizer._names, self.optimizer._parameters, strict=True)

    def built_in(self) -> list[dict[str, Any]]:
        """Attributes that a recorded step has built in: to be compared by identity with those of later."""
        modules = self.model.named_modules().values() if isinstance(self.model, Module) else ()
        return [dict(getattr(part, "__dict__", {})) for part in (*modules, self.optimizer)]


def same_parts(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether nothing was set to something else between two calls of `Subject.built_in`."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(x is y for x, y in zip(a.values(), b.values(), strict=True))
        for a, b in zip(one, other, strict=True)
    )


@dataclass
class Pass:
    """A forward and a backward pass on a tape.

    Attributes:
        outputs: what the model returned, whatever that is.
        loss: the loss.
        forward: the equations up to the loss.
        model_end: how many of them the model recorded.
        leaves: path -> the parameter as it was read.
        layers: found on the way.
        gradients: equation -> gradient, of parameters and of the outputs of layers.
    """

    x: Tensor
    outputs: Any
    loss: Tensor
    forward: list[Equation]
    model_end: int
    leaves: dict[str, Tensor]
    layers: list[Found]
    gradients: dict[Equation, Tensor] = field(default_factory=dict)

    def gradient(self, path: str) -> Tensor | None:
        """Of a parameter; None where none flows."""
        return self.gradients.get(self.leaves[path].equation)


def record_pass(subject: Subject, x: Any, y: Any) -> Pass:
    """Records both passes onto the tape that is being recorded."""
    equations = RECORDING.get().equations
    assert equations is not None
    start = len(equations)
    x = as_tensor(x)
    parameters = subject.parameters()
    leaves = {path: parameter._tensor for path, parameter in parameters.items()}
    outputs = subject.model(x)
    end = len(equations)
    loss = as_tensor(subject.loss(outputs, y))
    check_scalar(loss)
    forward = equations[start:]
    ends = [leaf.equation for leaf in flatten(outputs)[0] if isinstance(leaf, Tensor)]
    paths = {leaf.equation: path for path, leaf in leaves.items()}
    layers = find_layers(forward[: end - start], [x.equation], paths, subject.kinds(), ends)
    wanted = [e for e in (*paths, *(layer.output for layer in layers)) if e.active]
    one = constant(np.ones((), loss.dtype))
    gradients = walk({loss.equation: one}, wanted, reachable([loss.equation]))
    return Pass(x, outputs, loss, forward, end - start, leaves, layers, gradients)


@contextmanager
def nothing_assigned() -> Iterator[None]:
    """Records assignments to cells inside as if they were done, and yet the recorded step does none of them."""
    outer: AbstractCells = RECORDING.get().cells
    inner = AbstractCells()
    inner.leaves |= outer.leaves
    inner.assigned |= outer.assigned
    with recording(cells=inner):
        yield
    outer.assigned |= inner.assigned


def record_update(subject: Subject, passed: Pass) -> dict[str, Tensor]:
    """Records the optimizer's step, and returns the gradients that it was given, by path.

    Afterwards reading a cell gives what the step makes of it.
    """
    optimizer = subject.optimizer
    gradients = {path: passed.gradient(path) for path in passed.leaves}
    given: Any = {path: g for path, g in gradients.items() if g is not None}
    if subject.prepare is not None:
        given = subject.prepare(given)
        if isinstance(given, tuple):  # what clip_by_norm returns
            given = given[0]
    paths = {id(parameter): path for path, parameter in subject.parameters().items()}
    in_order = [
        given.get(paths.get(id(p), ""), None) if isinstance(given, Mapping) else None for p in optimizer._parameters
    ]
    filled = [
        constant(np.zeros(p.shape, p.dtype)) if g is None else g
        for p, g in zip(optimizer._parameters, in_order, strict=True)
    ]
    if type(optimizer).step is Optimizer.step:
        optimizer._step_on_tape(filled)
    else:
        keys = optimizer._keys
        optimizer.step(filled if keys is None else dict(zip(keys, filled, strict=True)))
    return given


@contextmanager
def cells_kept(cells: Mapping[str, Cell]) -> Iterator[None]:
    """Puts the values back that cells had."""
    values = copies_of(cells)
    try:
        yield
    finally:
        put_back(cells, values)


def copies_of(cells: Mapping[str, Cell]) -> dict[str, Array]:
    """The values of cells, in arrays that nobody writes to."""
    return {name: cell.numpy() for name, cell in cells.items()}


def put_back(cells: Mapping[str, Cell], values: Mapping[str, Array]) -> None:
    """Assigns values to the cells from which they were copied."""
    with recording(equations=None, cells=None):
        for name, cell in cells.items():
            cell.assign(values[name])
