"""The statistics of a step: recorded onto the tape of the step, so that they are computed in its program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.check.health.layers import Found
from stepgrad.check.health.loss_parts import parts_of
from stepgrad.check.health.record import Clipping, LayerSample, LossPart, ParameterSample
from stepgrad.check.health.subject import Pass, Subject, record_update
from stepgrad.check.health.theory import Activation
from stepgrad.optim import Adam, AdamW, Optimizer, RMSprop
from stepgrad.tape.backward import walk
from stepgrad.tape.leaves import constant
from stepgrad.tape.recording import recording
from stepgrad.tensor import Array, Tensor, functions

FLAT = 1 / 20
"""An activation is saturated where its derivative is below this share of its largest value."""
DEAD = 1 / 1000
"""A unit takes no part where the derivative is below this share."""
_SAME = 1e-6

Numbers = dict[str, float]


class Columns:
    """Single numbers, gathered while a step is recorded, and found by name when it was run."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: list[Tensor] = []

    def add(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.names.append(name)
            self.tensors.append(_wide(tensor))

    def group(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        self.add(**{f"{prefix} {name}": tensor for name, tensor in tensors.items()})


def read_columns(names: Sequence[str], values: Sequence[Array]) -> dict[str, Numbers]:
    """The numbers of each group, by its prefix; those without one are under ""."""
    found: dict[str, Numbers] = {}
    for name, value in zip(names, values, strict=True):
        prefix, _, column = name.rpartition(" ")
        found.setdefault(prefix, {})[column] = float(value)
    return found


def record_statistics(
    subject: Subject, passed: Pass, activations: Sequence[Activation]
) -> tuple[list[str], dict[str, Any]]:
    """Records the statistics of a step, and its update, after its passes.

    Returns:
        The names of the columns, and what the program is to return.
    """
    columns = Columns()
    units: list[dict[str, Tensor]] = []
    with recording(differentiable=False):
        columns.add(loss=passed.loss)
        for i, (layer, activation) in enumerate(zip(passed.layers, activations, strict=True)):
            single, each = _of_layer(layer, activation, passed)
            columns.group(f"layer{i}", single)
            units.append(each)
        for i, part in enumerate(parts_of(passed)):
            columns.group(f"part{i}", {"value": part.value()})
        known = isinstance(subject.optimizer, Optimizer)
        given = record_update(subject, passed) if known else {}
        parameters = subject.parameters()
        below = _below_epsilon(subject.optimizer)
        for i, (path, leaf) in enumerate(passed.leaves.items()):
            new = parameters[path]._tensor if known else None
            columns.group(f"parameter{i}", _of_parameter(leaf, passed.gradient(path), new))
            if path in given and subject.prepare is not None:
                columns.group(f"parameter{i}", {"given": _squares(given[path])})
            columns.group(f"parameter{i}", below.get(parameters[path], {}))
        outputs = passed.outputs if isinstance(passed.outputs, Tensor) else None
    return columns.names, {"numbers": columns.tensors, "units": units, "outputs": outputs}


# --- on the tape


def _wide(tensor: Any) -> Tensor:
    """In float64: the square of a gradient of 1e-30 is no number in float32."""
    return functions["astype"](tensor, np.float64)


def _sum(tensor: Tensor, axis: Any = None) -> Tensor:
    return functions["sum"](tensor, axis=axis)


def _squares(tensor: Any) -> Tensor:
    wide = _wide(tensor)
    return _sum(wide * wide)


def _count(condition: Tensor, axis: Any = None) -> Tensor:
    return _sum(functions["astype"](condition, np.float32), axis=axis)


def _not_finite(tensor: Tensor) -> Tensor:
    return _count(functions["logical_not"](functions["isfinite"](tensor)))


def _of_layer(layer: Found, activation: Activation, passed: Pass) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    output, after = layer.output.output, layer.activation.output
    gradient = passed.gradients.get(layer.output)
    axes = tuple(i for i in range(output.ndim) if i != output.ndim + layer.unit_axis)
    single = {
        "sum": _sum(_wide(output)),
        "squares": _squares(output),
        "zeros": _count(functions["equal"](after, 0)),
        "nonfinite": _not_finite(output),
    }
    if layer.applied:
        single["after_sum"], single["after_squares"] = _sum(_wide(after)), _squares(after)
        single["after_nonfinite"] = _not_finite(after)
    if gradient is not None:
        single["gradient_squares"] = _squares(gradient)
        single["gradient_zeros"] = _count(functions["equal"](gradient, 0))
        single["gradient_nonfinite"] = _not_finite(gradient)
    each = {"high": functions["max"](after, axis=axes), "low": functions["min"](after, axis=axes)}
    if layer.applied and after.equation.active:
        one = constant(np.ones(after.shape, after.dtype))
        with recording(differentiable=True):
            slopes = walk({layer.activation: one}, [layer.output], [layer.output, *layer.applied])
        steep = functions["absolute"](slopes[layer.output])
        each["active"] = _count(functions["greater_equal"](steep, DEAD * activation.steepest), axes)
        if activation.saturates:
            each["saturated"] = _count(functions["less"](steep, FLAT * activation.steepest), axes)
    else:
        each["active"] = _count(functions["not_equal"](output, 0), axes)
    return single, each


def _of_parameter(old: Tensor, gradient: Tensor | None, new: Tensor | None) -> dict[str, Tensor]:
    found = {
        "squares": _squares(old),
        "largest": functions["max"](functions["absolute"](old)),
        "nonfinite": _not_finite(old),
    }
    if gradient is not None:
        found["gradient_squares"] = _squares(gradient)
        found["gradient_sum"] = _sum(_wide(gradient))
        found["gradient_max"] = functions["max"](functions["absolute"](gradient))
        found["gradient_zeros"] = _count(functions["equal"](gradient, 0))
        found["gradient_nonfinite"] = _not_finite(gradient)
    if new is not None:
        found["update_squares"] = _squares(_wide(new) - _wide(old))
    return found


def _below_epsilon(optimizer: Any) -> dict[Cell, dict[str, Tensor]]:
    """For each parameter, in how many places the root of the second moment is below the epsilon that is added to it."""
    if not isinstance(optimizer, (Adam, AdamW, RMSprop)):
        return {}
    position = 0 if isinstance(optimizer, RMSprop) else 1
    correction: Any = 1.0
    if not isinstance(optimizer, RMSprop):
        correction = functions["sqrt"](1.0 - optimizer.betas[1] ** optimizer._step._tensor)
    found: dict[Cell, dict[str, Tensor]] = {}
    for parameter, moments in zip(optimizer._parameters, optimizer._moments, strict=True):
        root = functions["sqrt"](_wide(moments[position]._tensor))
        below = functions["logical_and"](
            functions["greater"](root, 0), functions["less"](root, optimizer.eps * correction)
        )
        found[parameter] = {"below": _count(below), "moving": _count(functions["greater"](root, 0))}
    return found


# --- from the numbers


def layer_samples(
    layers: Sequence[Found], groups: Mapping[str, Numbers], units: Sequence[Mapping[str, Array]]
) -> tuple[LayerSample, ...]:
    """What the program of a step returned, layer by layer."""
    found: list[LayerSample] = []
    for i, (layer, each) in enumerate(zip(layers, units, strict=True)):
        n, size = groups[f"layer{i}"], max(layer.output.type.size, 1)
        mean, std, _ = _moments(n["sum"], n["squares"], size)
        after = _moments(n.get("after_sum", n["sum"]), n.get("after_squares", n["squares"]), size)
        squares = n.get("gradient_squares", 0.0)
        rms = math.sqrt(squares / size)
        positions = size // max(layer.units, 1)
        active = tuple(int(c) for c in each["active"].reshape(-1).tolist())
        saturated = each.get("saturated")
        before = None if layer.before is None else found[layer.before].gradient_rms
        found.append(
            LayerSample(
                mean=mean,
                std=std,
                activation_mean=after[0],
                activation_std=after[1],
                activation_rms=after[2],
                zeros=n["zeros"] / size,
                saturated=None if saturated is None else float(saturated.sum(dtype=np.float64)) / size,
                active=active,
                saturated_units=None if saturated is None else int(np.count_nonzero(saturated == positions)),
                positions=positions,
                spread_units=_alike(each["low"], each["high"]) if positions > 1 else 0,
                gradient_norm=math.sqrt(squares),
                gradient_rms=rms,
                gradient_zeros=n.get("gradient_zeros", size) / size,
                gain=_ratio(before, rms),
                nonfinite=int(n["nonfinite"] + n.get("after_nonfinite", 0)),
                gradient_nonfinite=int(n.get("gradient_nonfinite", 0)),
            )
        )
    return tuple(found)


def _moments(total: float, squares: float, size: int) -> tuple[float, float, float]:
    """Mean, standard deviation and root mean square."""
    mean, square = total / size, squares / size
    return mean, math.sqrt(max(square - mean * mean, 0.0)) if math.isfinite(square) else math.nan, math.sqrt(square)


def _ratio(above: float | None, below: float) -> float | None:
    if above is None:
        return None
    return above / below if below else (math.inf if above else math.nan)


def _alike(low: Array, high: Array) -> int:
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(low), np.abs(high))
        return int(np.count_nonzero(high - low <= _SAME * size))


def parameter_samples(sizes: Sequence[int], groups: Mapping[str, Numbers]) -> tuple[ParameterSample, ...]:
    """What the program of a step returned, parameter by parameter."""
    found = []
    for i, size in enumerate(sizes):
        n = groups[f"parameter{i}"]
        norm, update = math.sqrt(n["squares"]), math.sqrt(n.get("update_squares", 0.0))
        moving = n.get("moving")
        found.append(
            ParameterSample(
                norm=norm,
                largest=n["largest"],
                gradient_norm=math.sqrt(n.get("gradient_squares", 0.0)),
                gradient_mean=n.get("gradient_sum", 0.0) / size,
                gradient_max=n.get("gradient_max", 0.0),
                gradient_zeros=n.get("gradient_zeros", size) / size,
                update_norm=update,
                ratio=update / norm if norm else None,
                nonfinite=int(n["nonfinite"]),
                gradient_nonfinite=int(n.get("gradient_nonfinite", 0)),
                below_epsilon=None if moving is None else n["below"] / moving if moving else 0.0,
            )
        )
    return tuple(found)


def clipping(groups: Mapping[str, Numbers], count: int) -> Clipping | None:
    """By what the gradients were multiplied before the optimizer got them; None where that is not known."""
    rows = [groups[f"parameter{i}"] for i in range(count)]
    rows = [n for n in rows if "given" in n]
    if not rows:
        return None
    norm = math.sqrt(sum(n["gradient_squares"] for n in rows))
    given = math.sqrt(sum(n["given"] for n in rows))
    return Clipping(norm, given / norm if norm else 1.0)


def loss_parts(passed: Pass, groups: Mapping[str, Numbers]) -> tuple[LossPart, ...]:
    """The terms of the loss and their values."""
    return tuple(
        LossPart(part.text, groups[f"part{i}"]["value"], part.penalty) for i, part in enumerate(parts_of(passed))
    )
