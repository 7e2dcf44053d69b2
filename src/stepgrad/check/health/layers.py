"""The layers of a network, found on its tape: so it may be written as any modules, or as a plain function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepgrad.nn.initialise import fans
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation
from stepgrad.tensor import Array

MOST_LAYERS = 64
"""Of more, as in a recurrent network unrolled over many steps, evenly spaced ones are looked at."""

_MOVES = frozenset(("reshape", "transpose", "astype", "alias", "positive", "expand", "stop_gradient"))
"""Ops that hand on the numbers they read."""
_TABLES = frozenset(("getitem", "gather", "take_along_axis"))
"""Ops that look rows up in a weight, as an embedding does."""
_SHIFTS = frozenset(("add", "subtract"))
_SCALES = frozenset(("multiply", "divide"))


@dataclass(frozen=True)
class Found:
    """A layer on a tape.

    Attributes:
        name, kind: see `record.Layer`.
        parameters: the paths of those that it reads.
        weight: the path of the one with two axes or more that it multiplies by, or None.
        fan_in, fan_out: of the weight as it is multiplied.
        first: the equation that reads the weight (or the first parameter).
        source: the operand of `first` that depends on the batch; None if there are several.
        output: before the activation.
        unit_axis: the axis of the output that counts units, from the end.
        activation: the equation of the activation; the output itself if there is none.
        applied: the equations from the output to the activation, in order.
        before: the position of the layer whose output leads here, or None.
        direct: the equations that hand the activation of that layer on to this one; None if there is more between.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    weight: str | None
    fan_in: int | None
    fan_out: int | None
    first: Equation
    source: Equation | None
    output: Equation
    unit_axis: int
    activation: Equation
    applied: tuple[Equation, ...] = ()
    before: int | None = None
    direct: tuple[Equation, ...] | None = None

    @property
    def units(self) -> int:
        shape = self.output.type.shape
        return shape[self.unit_axis] if shape else 1


def find_layers(
    forward: Sequence[Equation],
    inputs: Sequence[Equation],
    parameters: Mapping[Equation, str],
    kinds: Mapping[str, str],
    outputs: Sequence[Equation],
) -> list[Found]:
    """The layers of a forward pass, in its order.

    A layer begins where something that depends on the batch meets a parameter: `x @ W`. A bias that is
    added to that belongs to it, and what is computed elementwise from the sum is its activation. A weight
    that is used several times, as in a recurrent network, gives as many layers.

    Args:
        forward: the equations, in the order of recording.
        inputs: the leaves that hold the batch.
        parameters: leaf -> path.
        kinds: path of a module -> the name of its class, "" for the whole network; empty for a plain function.
        outputs: what the network returns.
    """
    needed = _needed(forward, outputs)
    moving, read = _dependencies(needed, inputs, parameters)
    begun: list[Found] = []
    ends: dict[Equation, int] = {}  # an equation -> the layer whose output so far it hands on
    for equation in needed:
        if equation not in moving:
            continue
        paths = dict.fromkeys(p for e in equation.inputs if e not in moving for p in read.get(e, ()))
        data = [e for e in equation.inputs if e in moving]
        at = ends.get(data[0]) if len(data) == 1 else None
        if not paths:
            if equation.op.name in _MOVES and at is not None:
                ends[equation] = at
            continue
        if at is not None and _belongs(equation, begun[at]):
            known = begun[at]
            begun[at] = replace(known, parameters=tuple(dict.fromkeys((*known.parameters, *paths))), output=equation)
        else:
            at = len(begun)
            begun.append(_begin(equation, data, tuple(paths), read, moving, parameters, kinds))
        ends[equation] = at
    return _ordered(_numbered(_thinned(begun)), needed, moving, outputs)


def _needed(forward: Sequence[Equation], outputs: Sequence[Equation]) -> list[Equation]:
    """The equations that the outputs depend on."""
    found = set(outputs)
    for equation in reversed(forward):
        if equation in found:
            found.update(equation.inputs)
    return [e for e in forward if e in found]


def _dependencies(
    equations: Sequence[Equation], inputs: Sequence[Equation], parameters: Mapping[Equation, str]
) -> tuple[set[Equation], dict[Equation, tuple[str, ...]]]:
    """What depends on the batch; and for all else, the parameters that it depends on."""
    moving = set(inputs)
    read: dict[Equation, tuple[str, ...]] = {leaf: (path,) for leaf, path in parameters.items()}
    for equation in equations:
        if not moving.isdisjoint(equation.inputs):
            moving.add(equation)
        else:
            read[equation] = tuple(dict.fromkeys(p for e in equation.inputs for p in read.get(e, ())))
    return moving, read


def _belongs(equation: Equation, layer: Found) -> bool:
    """Whether an equation adds a bias to a layer's output; or scales it, in a layer that does nothing else."""
    return equation.op.name in _SHIFTS or (layer.weight is None and equation.op.name in _SCALES)


def _begin(
    equation: Equation,
    data: Sequence[Equation],
    paths: tuple[str, ...],
    read: Mapping[Equation, tuple[str, ...]],
    moving: set[Equation],
    parameters: Mapping[Equation, str],
    kinds: Mapping[str, str],
) -> Found:
    position = next(i for i, e in enumerate(equation.inputs) if e not in moving and read.get(e))
    given = equation.inputs[position].type.shape
    matrices = {path for leaf, path in parameters.items() if len(leaf.type.shape) > 1}
    weight = next((p for p in paths if p in matrices), None)
    fan_in = fan_out = None
    axis = -1
    if weight is not None and not equation.op.elementwise and equation.op.name not in _TABLES:
        if equation.op.name == "matmul" and position == 0:  # W @ x: examples are columns
            fan_out, fan_in = given[-2:]
            axis = -2
        elif len(given) > 1:
            fan_in, fan_out = fans(given)
    elif equation.op.elementwise:
        weight = None
    name, kind = _called(weight or paths[0], matrices, kinds, equation)
    if len(equation.type.shape) < -axis:
        axis = -1
    return Found(
        name=name,
        kind=kind,
        parameters=paths,
        weight=weight,
        fan_in=fan_in,
        fan_out=fan_out,
        first=equation,
        source=data[0] if len(data) == 1 else None,
        output=equation,
        unit_axis=axis,
        activation=equation,
    )


def _called(path: str, matrices: set[str], kinds: Mapping[str, str], equation: Equation) -> tuple[str, str]:
    """Name and kind: the module's, if the parameter is the one weight in it."""
    owner = path.rpartition(".")[0]
    kind = kinds.get(owner)
    if kind is None:
        return path, equation.op.name
    alone = sum(other.rpartition(".")[0] == owner for other in matrices) <= 1
    if not alone or (not owner and len(kinds) > 1):
        return path, kind
    return owner or kind, kind


def _thinned(layers: list[Found]) -> list[Found]:
    if len(layers) <= MOST_LAYERS:
        return layers
    return [layers[round(i)] for i in np.linspace(0, len(layers) - 1, MOST_LAYERS)]


def _numbered(layers: list[Found]) -> list[Found]:
    """With names that tell them apart: "cell.weight #2" for its second use."""
    count: dict[str, int] = {}
    named = []
    for layer in layers:
        count[layer.name] = use = count.get(layer.name, 0) + 1
        named.append(layer if use == 1 else replace(layer, name=f"{layer.name} #{use}"))
    return named


def _ordered(
    layers: list[Found], needed: Sequence[Equation], moving: set[Equation], outputs: Sequence[Equation]
) -> list[Found]:
    """With their activations, and each with the layer before it."""
    readers: dict[Equation, list[Equation]] = {}
    for equation in needed:
        for source in dict.fromkeys(equation.inputs):
            readers.setdefault(source, []).append(equation)
    ended: dict[Equation, int] = {}
    finished: list[Found] = []
    for position, layer in enumerate(layers):
        applied = _activation(layer.output, readers, set(outputs))
        before, direct = _before(layer, ended, finished, moving)
        activation = applied[-1] if applied else layer.output
        finished.append(replace(layer, applied=applied, activation=activation, before=before, direct=direct))
        ended[layer.output] = position
    return finished


def _activation(
    output: Equation, readers: Mapping[Equation, list[Equation]], ends: set[Equation]
) -> tuple[Equation, ...]:
    """The equations that apply a function of one number to each element of a layer's output."""
    region = {output}
    todo = list(readers.get(output, ()))
    while todo:
        equation = min(todo, key=lambda e: e.serial)
        todo.remove(equation)
        fits = equation.op.elementwise and equation.type.shape == output.type.shape
        if equation in region or not fits:
            continue
        if all(e in region or number_of(e) is not None for e in equation.inputs):
            region.add(equation)
            todo += readers.get(equation, ())
    exits = [e for e in region if e is not output and (e in ends or any(r not in region for r in readers.get(e, ())))]
    if len(exits) != 1:
        return ()
    applied = {exits[0]}
    for equation in sorted(region, key=lambda e: e.serial, reverse=True):
        if equation in applied:
            applied.update(e for e in equation.inputs if e in region and e is not output)
    return tuple(sorted(applied, key=lambda e: e.serial))


def number_of(equation: Equation) -> Any:
    """The number that a constant holds in all its elements; None if it isn't one."""
    if equation.op is LITERAL:
        return equation.params["value"]
    if equation.op is CONSTANT:
        value = equation.value
        same = value is not None and value.size and np.all(value == value.flat[0])
        return value.flat[0] if same else None
    if equation.op.name in ("expand", "astype", "reshape"):
        return number_of(equation.inputs[0])
    return None


def applied_to(applied: Sequence[Equation], output: Equation, values: Array) -> Array:
    """The activation of any values, elementwise.

    Args:
        applied: its equations, in order.
        output: what they were recorded on.
        values: float64.
    """
    known: dict[Equation, Any] = {output: values}
    with np.errstate(all="ignore"):
        for equation in applied:
            operands = [known[e] if e in known else number_of(e) for e in equation.inputs]
            params = {
                k: np.dtype(np.float64) if isinstance(v, np.dtype) and v.kind == "f" else v
                for k, v in equation.params.items()
            }
            known[equation] = equation.op.numpy(*operands, **params)
    return np.asarray(known[applied[-1]] if applied else values, np.float64)


def _before(
    layer: Found, ended: Mapping[Equation, int], layers: Sequence[Found], moving: set[Equation]
) -> tuple[int | None, tuple[Equation, ...] | None]:
    """The layer whose output leads to this one, and what hands it on if that is all there is."""
    handed: list[Equation] = []
    current = layer.source
    activations = {found.activation: i for i, found in enumerate(layers)}
    while current is not None and current not in activations and (_hands_on(current, moving)):
        handed.append(current)
        current = next(e for e in current.inputs if e in moving)
    if current in activations:
        return activations[current], tuple(handed)
    found = -1
    seen: set[Equation] = set()
    todo = [e for e in layer.first.inputs if e in moving]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in ended:
            found = max(found, ended[current])
        else:
            todo += [e for e in current.inputs if e in moving]
    return (found, None) if found >= 0 else (None, None)


def _hands_on(equation: Equation, moving: set[Equation]) -> bool:
    """Whether it only moves numbers, or multiplies them by something from outside, such as a dropout mask."""
    data = [e for e in equation.inputs if e in moving]
    return len(data) == 1 and (equation.op.name in _MOVES or equation.op.name == "multiply")
