"""What is known of a network before its first step: its layers and parameters, and how it is trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepgrad import missing
from stepgrad.check.health.data import classes_of
from stepgrad.check.health.layers import Found
from stepgrad.check.health.record import Layer, ParameterInfo, Settings
from stepgrad.check.health.subject import Pass, Subject, cells_kept, record_pass
from stepgrad.check.health.theory import Activation, expected
from stepgrad.explain.watch import Statement, Watcher
from stepgrad.optim import Optimizer
from stepgrad.tape.backward import reachable
from stepgrad.tape.equation import LITERAL, Equation
from stepgrad.tape.places import place_text
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, Tensor

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


@dataclass(frozen=True)
class Description:
    """A network, seen in its first step.

    Attributes:
        layers, parameters, settings: for the record.
        activations: one for each layer.
        classes: how many the outputs stand for, if targets are labels.
    """

    layers: tuple[Layer, ...]
    parameters: tuple[ParameterInfo, ...]
    settings: Settings
    activations: tuple[Activation, ...]
    classes: int | None


def describe(subject: Subject, x: Array, y: Array, compiled: bool) -> Description:
    """Does a forward and a backward pass in Python, and looks at what was recorded. No cell changes."""
    recorded: list[Equation] = []
    watcher = Watcher(sys._getframe())
    inside: dict[str, Any] = {"region": None, "differentiable": True, "scope": (), "closed": True}
    with (
        cells_kept(subject.cells()),
        np.errstate(all="ignore"),
        recording(equations=recorded, observe=watcher, **inside),
    ):
        values = {path: parameter.numpy() for path, parameter in subject.parameters().items()}
        passed = record_pass(subject, x, y)
    watcher.finish()
    statements = {e: run.statement for run in watcher.runs for e in run.equations}
    activations = tuple(Activation(layer) for layer in passed.layers)
    theory = expected(passed.layers, activations, values, _value)
    layers = tuple(
        Layer(
            name=layer.name,
            kind=layer.kind,
            place=_place(layer.first, statements),
            activation=activation.name,
            before=None if layer.before is None else passed.layers[layer.before].name,
            fan_in=layer.fan_in,
            fan_out=layer.fan_out,
            units=layer.units,
            parameters=layer.parameters,
            weight_std=None if layer.weight is None else float(np.std(values[layer.weight], dtype=np.float64)),
            expected=predicted,
        )
        for layer, activation, predicted in zip(passed.layers, activations, theory, strict=True)
    )
    return Description(
        layers=layers,
        parameters=_parameters(subject, passed, values),
        settings=_settings(subject, passed, compiled),
        activations=activations,
        classes=classes_of(passed.outputs, np.asarray(y)),
    )


def _value(equation: Equation) -> Array:
    return np.asarray(equation.params["value"] if equation.op is LITERAL else equation.value)


def _place(equation: Equation, statements: Mapping[Equation, Statement]) -> str:
    """The user's line; empty where all that is theirs is a call of the whole network."""
    statement = statements.get(equation)
    if statement is None or statement.file.startswith(_PACKAGE):
        return ""
    return f"{os.path.basename(statement.file)}:{statement.line}" + (f": {statement.text}" if statement.text else "")


# --- parameters


def _parameters(subject: Subject, passed: Pass, values: Mapping[str, Array]) -> tuple[ParameterInfo, ...]:
    reached = reachable([passed.loss.equation])
    read = {source for e in reached for source in e.inputs}
    known = isinstance(subject.optimizer, Optimizer)
    trained = {id(p) for p in subject.optimizer._parameters} if known else set()
    owners = _owners(passed.layers)
    found = []
    for path, cell in subject.parameters().items():
        leaf, value = passed.leaves[path].equation, values[path]
        status, cut = "trained", ""
        if leaf not in read:
            status = "unused"
        elif passed.gradient(path) is None:
            status, cut = "disconnected", _cut(leaf, reached)
        elif known and id(cell) not in trained:
            status = "frozen"
        with np.errstate(all="ignore"):
            found.append(
                ParameterInfo(
                    name=path,
                    layer=owners.get(path),
                    shape=value.shape,
                    dtype=str(value.dtype),
                    status=status,
                    cut=cut,
                    initial_mean=float(np.mean(value, dtype=np.float64)) if value.size else 0.0,
                    initial_std=float(np.std(value, dtype=np.float64)) if value.size else 0.0,
                )
            )
    return tuple(found)


def _owners(layers: list[Found]) -> dict[str, str]:
    """The layer of each parameter: the first whose weight it is, or else the first that reads it."""
    owners: dict[str, str] = {}
    for layer in layers:
        if layer.weight is not None:
            owners.setdefault(layer.weight, layer.name)
    for layer in layers:
        for path in layer.parameters:
            owners.setdefault(path, layer.name)
    return owners


def _cut(leaf: Equation, reached: list[Equation]) -> str:
    """What cuts the path to a parameter."""
    for cut in missing.cuts_of(reached):
        sources = [source for source in (ref() for ref in cut.sources) if source is not None]
        if leaf in reachable(sources):
            return f"{cut.reason}, at {place_text(cut.where)}"
    for equation in reached:
        if leaf in equation.inputs and not equation.active:
            return f"{equation.op.name} under no_grad, at {place_text(equation.where)}"
    return ""


# --- settings


def _settings(subject: Subject, passed: Pass, compiled: bool) -> Settings:
    optimizer = subject.optimizer
    outputs = passed.outputs
    needed = set(reachable([passed.loss.equation]))
    loss_ops = [e.op.name for e in passed.forward[passed.model_end :] if e in needed]
    return Settings(
        model=repr(subject.model),
        loss=getattr(subject.loss, "__name__", type(subject.loss).__name__),
        loss_ops=tuple(dict.fromkeys(loss_ops)),
        optimizer=type(optimizer).__name__,
        options=_options(optimizer),
        learning_rate=learning_rate(optimizer),
        batch_size=None,
        epochs=None,
        steps_per_epoch=None,
        rows=None,
        compiled=compiled,
        last_op=outputs.equation.op.name if isinstance(outputs, Tensor) else "",
    )


def _options(optimizer: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in getattr(optimizer, "__dict__", {}).items():
        if name.startswith("_"):
            continue
        if name == "betas" and isinstance(value, tuple):
            found |= {"beta1": float(value[0]), "beta2": float(value[1])}
        elif isinstance(value, (int, float)):
            found[name] = float(value)
    return found


def learning_rate(optimizer: Any) -> float:
    """The learning rate at the moment; NaN where the optimizer does not say."""
    try:
        return float(getattr(optimizer, "lr", float("nan")))
    except (TypeError, ValueError):
        return float("nan")


def with_course(settings: Settings, **known: Any) -> Settings:
    """Settings with what `fit` knows of the run."""
    return replace(settings, **known)
