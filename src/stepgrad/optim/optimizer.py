"""The optimizer: what turns gradients into an update of the parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgrad import attributes
from stepgrad.cells import Parameter, State
from stepgrad.errors import ArgumentError, DtypeError, ShapeError
from stepgrad.optim.slabs import slabs_of
from stepgrad.saving import load_values, values_of
from stepgrad.tape.equation import Role
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import Array, ArrayLike, Tensor
from stepgrad.tree import flatten


class Optimizer:
    """Holds parameters, and for each of them moments; `step` updates them by gradients. Abstract.

    A final class says in `update` how: plain arithmetic, written once, that runs on arrays in eager
    execution and on tensors while a tape is being recorded, where each value put into a parameter
    or moment is an equation of role UPDATE.

    Args:
        parameters: parameters in a dict (such as `model.parameters()`), a module, a list, or
            nested lists, tuples and dicts; gradients come in the same structure.
        lr: the learning rate.
        moments: the initial value of each moment, by name.
    """

    __new__, __setattr__, __delattr__ = attributes.new, attributes.assign, attributes.delete

    def __init__(self, parameters: Any, lr: float, moments: Mapping[str, float]) -> None:
        leaves, paths, _ = flatten(parameters)
        self._keys: list[Any] | None = None
        if isinstance(parameters, dict) and len(leaves) == len(parameters):
            self._keys = list(parameters)
        self._parameters: list[Parameter] = leaves
        self._paths = paths
        self._names = [_dotted(path) or "parameter" for path in paths]
        _check_parameters(leaves, self._names)

        self._lr = State(np.float64(_checked_rate(lr)), name="lr")
        self._step = State(np.int64(0), name="step")
        self._moments = [
            [State(np.full(p.shape, start, p.dtype), name=f"{name}.{moment}") for moment, start in moments.items()]
            for name, p in zip(self._names, leaves, strict=True)
        ]
        self._slabs: Any = None

    def scales(self, lr: Any, step: Any) -> tuple[Any, ...]:
        """The numbers that change from step to step, given the learning rate and the number of the step, from 1."""
        return (lr,)

    def update(self, parameter: Any, gradient: Any, *moments_and_scales: Any) -> tuple[Any, ...]:
        """The new parameter and moments, given the old ones and what `scales` returned."""
        raise NotImplementedError

    def step(self, gradients: Any) -> None:
        """Updates the parameters by one step.

        Args:
            gradients: what `sg.backward(loss, parameters)` returns: the gradients, in the structure
                of the parameters. NaN and Inf are not looked for.

        Raises:
            ArgumentError, ShapeError, DtypeError: a gradient is missing, unexpected or does not fit
                its parameter; then nothing is changed.
        """
        matched = self._match(gradients)
        if RECORDING.get().equations is None:
            self._step_on_arrays([g if isinstance(g, np.ndarray) else g.numpy() for g in matched])
        else:
            self._step_on_tape(matched)

    def _step_on_arrays(self, gradients: list[Array]) -> None:
        step = self._step.item() + 1
        scales = [float(scale) for scale in self.scales(self._lr.item(), step)]

        def update(parameter: Array, gradient: Array, *moments: Array) -> tuple[Any, ...]:
            return self.update(parameter, gradient, *moments, *scales)

        if self._slabs is None:
            rows = [[p, *m] for p, m in zip(self._parameters, self._moments, strict=True)]
            self._slabs = slabs_of(rows)
        with np.errstate(all="ignore"):
            for positions, slab in self._slabs:
                slab.update(update, [gradients[i] for i in positions])
        self._step._hold(np.asarray(step))

    def _step_on_tape(self, gradients: list[Any]) -> None:
        with recording(role=Role.UPDATE, of=None, operand=None, differentiable=False):
            step = self._step + 1
            scales = self.scales(self._lr._tensor, step)
            self._step.assign(step)
            fitting = {
                dtype: [s.astype(dtype) if isinstance(s, Tensor) else s for s in scales]
                for dtype in dict.fromkeys(p.dtype for p in self._parameters)
            }
            for p, moments, g in zip(self._parameters, self._moments, gradients, strict=True):
                new = self.update(p, g, *moments, *fitting[p.dtype])
                for cell, value in zip([p, *moments], new, strict=True):
                    cell.assign(value)

    def _match(self, gradients: Any) -> list[Any]:
        """The gradients in the order of the parameters, each checked against its own."""
        found: list[Any]
        if self._keys is not None and type(gradients) is dict and len(gradients) == len(self._keys):
            found = [gradients.get(key) for key in self._keys]
        else:
            found = self._by_path(gradients)
        for i, (p, g) in enumerate(zip(self._parameters, found, strict=True)):
            if not isinstance(g, (ArrayLike, np.ndarray)) or g.shape != p.shape or g.dtype != p.dtype:
                raise self._misfit(self._names[i], p, g, gradients)
        return found

    def _by_path(self, gradients: Any) -> list[Any]:
        leaves, paths, _ = flatten(gradients)
        if paths == self._paths:
            return leaves
        by_path = dict(zip(paths, leaves, strict=True))
        missing = [name for name, path in zip(self._names, self._paths, strict=True) if path not in by_path]
        known = set(self._paths)
        unexpected = [_dotted(path) or "a single gradient" for path in paths if path not in known]
        if missing or unexpected:
            problems = [f"missing: {', '.join(missing)}"] if missing else []
            problems += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
            raise ArgumentError(
                f"{type(self).__name__}.step was given other gradients than it has parameters: {'; '.join(problems)}",
                "each parameter is updated by its own gradient; nothing was changed",
                "compute them with grads = sg.backward(loss, parameters), of the same parameters as the optimizer's",
            )
        return [by_path[path] for path in self._paths]

    def _misfit(self, name: str, parameter: Parameter, gradient: Any, gradients: Any) -> Exception:
        if gradient is None and isinstance(gradients, dict) and name not in gradients:
            self._by_path(gradients)  # raises: it is missing
        step = f"{type(self).__name__}.step"
        if not isinstance(gradient, (ArrayLike, np.ndarray)):
            return ArgumentError(
                f"{step} was given {type(gradient).__name__} {gradient!r:.40} as the gradient of {name}",
                "a gradient is a tensor or array of the parameter's shape; nothing was changed",
                "compute gradients with sg.backward(loss, parameters), or leave the parameter out of the optimizer",
            )
        if gradient.shape != parameter.shape:
            return ShapeError(
                f"{step} was given a gradient of shape {gradient.shape} for {name} {parameter.shape}",
                "a gradient has the shape of its parameter; nothing was changed",
                "check which parameter it belongs to; sg.backward returns gradients of the right shape",
            )
        return DtypeError(
            f"{step} was given a {gradient.dtype} gradient for {name}, which is {parameter.dtype}",
            "the parameter would turn into another dtype; nothing was changed",
            f"convert it: gradient.astype(np.{parameter.dtype})",
        )

    # --- learning rate and state

    @property
    def lr(self) -> float:
        """The learning rate; assign to change it between steps. In a compiled step it may be an argument."""
        return self._lr.item()

    @lr.setter
    def lr(self, lr: Any) -> None:
        abstract = isinstance(lr, Tensor) and lr.value is None and lr.shape == () and lr.dtype.kind == "f"
        self._lr.assign(lr.astype(np.float64) if abstract else np.float64(_checked_rate(lr)))

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return self._step.item()

    def states(self) -> dict[str, State]:
        """The learning rate, the number of steps, and the moments, by names such as "0.weight.m"."""
        found = {"lr": self._lr, "step": self._step}
        return found | {cell.name or "": cell for moments in self._moments for cell in moments}

    def state_dict(self) -> dict[str, Array]:
        """Copies of the values of all states, by name."""
        return values_of(self.states())

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Puts saved values back.

        Raises:
            ArgumentError, ShapeError, DtypeError: something is missing, unexpected, or does not
                fit; then nothing is changed.
        """
        load_values(self.states(), values, type(self).__name__)

    def __repr__(self) -> str:
        settings = [f"{k}={v!r}" for k, v in vars(self).items() if k[0] != "_" and v]
        size = sum(p.size for p in self._parameters)
        return f"{type(self).__name__}({size:,} parameters, {', '.join([f'lr={self.lr:g}', *settings])})"


def check_settings(optimizer: str, **settings: tuple[float, float, float]) -> None:
    """Raises ArgumentError unless each (value, low, high) has low <= value < high."""
    for name, (value, low, high) in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
            span = f"from {low:g}" + (f" to below {high:g}" if high < math.inf else " on")
            raise ArgumentError(
                f"{optimizer} was given {name}={value!r}",
                f"{name} is a number {span}",
                f"choose {name} in this range, or leave it out for the default",
            )


def _checked_rate(lr: Any) -> float:
    if isinstance(lr, bool) or not isinstance(lr, (int, float, np.number)) or not 0 <= lr < math.inf:
        raise ArgumentError(
            f"the learning rate was set to {lr!r}",
            "a learning rate is a finite number from 0 on; gradients are subtracted, so it is not negative",
            "use for example lr=1e-3; for a schedule, assign opt.lr = schedule(opt.steps) before each step",
        )
    return float(lr)


def _check_parameters(leaves: list[Any], names: list[str]) -> None:
    if not leaves:
        raise ArgumentError(
            "an optimizer was made without parameters",
            "there is nothing to update",
            "pass model.parameters(), of a model that has layers with parameters",
        )
    first: dict[int, str] = {}
    for leaf, name in zip(leaves, names, strict=True):
        if not isinstance(leaf, Parameter):
            raise ArgumentError(
                f"an optimizer was given {type(leaf).__name__} {leaf!r:.60} as parameter {name}",
                "only an sg.Parameter can be given another value",
                "make one: W = sg.Parameter(values), and compute the loss from that",
            )
        if id(leaf) in first:
            raise ArgumentError(
                f"an optimizer was given the same parameter as {first[id(leaf)]} and as {name}",
                "it would be updated twice in each step",
                "pass it once; model.parameters() lists shared parameters once",
            )
        first[id(leaf)] = name


def _dotted(path: str) -> str:
    """The name for a path in a structure: "0.weight" for ['0.weight'], "1.W" for [1]['W']."""
    return ".".join(key.strip("'\"") for key in re.findall(r"\[('[^']*'|\"[^\"]*\"|[^\]]*)\]", path))
