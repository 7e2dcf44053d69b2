"""The tape behind a loss, of a tensor or in a trace, with the user's names: where `sg.why` looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.check.observed import observed
from stepgrad.check.wording import NameOf
from stepgrad.errors import ArgumentError
from stepgrad.explain.trace import Trace
from stepgrad.explain.watch import Statement
from stepgrad.tape.backward import check_scalar, reachable
from stepgrad.tape.equation import CELL, CONSTANT, Equation
from stepgrad.tape.places import in_engine, place, source_line
from stepgrad.tensor import Array, ArrayLike, Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """A loss, and a tensor that its gradient is asked for.

    Attributes:
        loss, target: the ends of the path.
        forward: every equation that the loss depends on, in order.
        everything: all that was recorded, for a trace; what leads to the loss, for a tensor.
        name_of: the user's names.
        statement_of: the user's statement that recorded an equation.
    """

    loss: Equation
    target: Equation
    forward: Sequence[Equation]
    everything: Sequence[Equation]
    name_of: NameOf
    statement_of: Callable[[Equation], Statement]


def scene_of_trace(trace: Trace, parameter: Any) -> Scene:
    """The scene of a loss in a trace.

    Args:
        trace: of a function that returns a loss, or of a training step.
        parameter: a name, or a tensor or cell that the function used.
    """
    call = observed(trace)
    recorded, made = call.recorded, call.made
    outputs = [e for e in recorded.outputs if e.type.is_float]
    losses = list(recorded.seeds) if recorded.own else outputs
    check_scalar((losses or recorded.outputs)[0].output)
    named = {**made.inputs, **made.parameters}
    if isinstance(parameter, str):
        by_cell = {e.params["cell"].name: e for e in made.parameters.values() if e.op is CELL}
        target = named.get(parameter) or by_cell.get(parameter)
        if target is None:
            raise ArgumentError(
                f"sg.why was asked for {parameter!r}",
                "no input or parameter that the traced function used is called that",
                "name one of: " + ", ".join(named),
            )
    else:
        own = _equation_of(parameter)
        read = [e for e in named.values() if e.op is CELL and e.params["cell"] is parameter]
        target = read[0] if read else own
    return Scene(losses[0], target, reachable(losses[:1]), recorded.inside, call.name, call.statement)


def scene_of_tensor(loss: Any, parameter: Any, frame: FrameType | None) -> Scene:
    """The scene of a loss that was computed eagerly.

    Args:
        loss, parameter: tensors or cells.
        frame: whose variables give tensors their names.
    """
    if isinstance(parameter, str):
        raise ArgumentError(
            f"sg.why was asked for {parameter!r}, with a loss that is a tensor",
            "the tape of a tensor knows parameters by what they are, and not all of them by name",
            "pass the parameter itself, model.parameters()['0.weight'], or a trace: sg.why(sg.trace(fn, x), 'W1')",
        )
    if not isinstance(loss, ArrayLike):
        raise ArgumentError(
            f"sg.why was given a loss that is a {type(loss).__name__}",
            "only a tensor knows what it was computed from, and numbers that left the tape do not",
            "pass the tensor: without float(), .item() or .numpy(); or a trace, sg.trace(fn, x)",
        )
    end = loss._tensor
    check_scalar(end)
    target = _equation_of(parameter)
    forward = reachable([end.equation])
    if isinstance(parameter, Cell):  # it may have been assigned since
        target = next((e for e in forward if e.op is CELL and e.params["cell"] is parameter), target)
    if target.value is None:
        target.value = parameter._tensor.value
    if end.equation.value is None:
        end.equation.value = end.value
    names, arrays = _variables(frame)

    def name_of(equation: Equation) -> str | None:
        value = equation.value
        if equation.op is CONSTANT and equation not in names and value is not None and equation.type.shape:
            same = (n for n, a in arrays.items() if a.shape == value.shape and np.array_equal(a, value))
            names[equation] = next(same, "")
        return equation.name or names.get(equation) or None

    def statement_of(equation: Equation) -> Statement:
        return Statement(*place(equation.where), 0, source_line(equation.where))

    return Scene(end.equation, target, forward, forward, name_of, statement_of)


def _equation_of(parameter: Any) -> Equation:
    if isinstance(parameter, ArrayLike):
        return parameter._tensor.equation
    names = [repr(n) for n in parameter.parameters()] if callable(getattr(parameter, "parameters", None)) else []
    raise ArgumentError(
        f"sg.why was asked for the gradient of a {type(parameter).__name__}",
        "gradients belong to tensors and parameters" if not names else "a module has several parameters",
        f"pass one of them: model.parameters()[{names[0]}]"
        if names
        else "pass a tensor that the loss was computed from",
    )


def _variables(frame: FrameType | None) -> tuple[dict[Equation, str], dict[str, Array]]:
    """The variables of the caller, and of what called it: tensors by their equations, and arrays by name."""
    names: dict[Equation, str] = {}
    arrays: dict[str, Array] = {}
    while frame is not None:
        if not in_engine(frame):
            for name, value in frame.f_locals.items():
                if isinstance(value, Tensor):
                    names.setdefault(value.equation, name)
                elif isinstance(value, np.ndarray):
                    arrays.setdefault(name, value)
        frame = frame.f_back if frame.f_code.co_name != "<module>" else None
    return names, arrays
