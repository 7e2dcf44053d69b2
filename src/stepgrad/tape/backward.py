"""The backward walk: from downstream gradients to upstream ones, by each equation's local rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stepgrad.errors import GradientError
from stepgrad.tape.cache import reads_of
from stepgrad.tape.equation import Equation, Role, leaves
from stepgrad.tape.op import OUTPUT
from stepgrad.tape.recording import RECORDING, record, recording
from stepgrad.tensor import Tensor, describe, functions


def reachable(outputs: Iterable[Equation]) -> list[Equation]:
    """Every equation that the outputs depend on, leaves included, in the order of recording."""
    seen = set(outputs)
    todo = list(seen)
    while todo:
        for source in todo.pop().inputs:
            if source not in seen:
                seen.add(source)
                todo.append(source)
    return sorted(seen, key=_serial)


def _serial(equation: Equation) -> int:
    return equation.serial


def walk(
    seeds: Mapping[Equation, Tensor],
    wrt: Sequence[Equation],
    forward: Sequence[Equation] | None = None,
    region: int | None = None,
) -> dict[Equation, Tensor]:
    """Gradients with respect to `wrt`, given the downstream gradients of the outputs.

    Recorded as equations of role BACKWARD, each marked with the equation and operand whose local
    rule emitted it (no operand: contributions to a shared value added up).

    Args:
        seeds: downstream gradients of the outputs.
        wrt: the equations whose gradients are wanted.
        forward: `reachable(seeds)`, if the caller has it.
        region: the region that the equations are recorded in (see `Equation.region`).

    Returns:
        Equation -> gradient, for those of `wrt` that the outputs depend on; while a tape is being
        recorded, also for the equations in between.
    """
    forward = reachable(seeds) if forward is None else forward
    wanted = set(wrt)
    active = set(wrt)
    for equation in forward:
        if equation.active and not active.isdisjoint(equation.inputs):
            active.add(equation)

    downstream = dict(seeds)
    given = {seed.equation for seed in seeds.values()}
    gradients: dict[Equation, Tensor] = {}
    replay: _Replay | None = None
    masks: dict[Equation, Tensor] = {}
    with recording(role=Role.BACKWARD, region=region, gradients=gradients, masks=masks) as state:
        for equation in reversed(forward):
            g = downstream.pop(equation, None)
            if g is None:  # nothing later depends on it
                continue
            if equation.name and g.equation.name is None and g.equation not in given:
                g.equation.name = "d" + equation.name
            if equation in wanted or state.equations is not None:
                gradients[equation] = g
            if not equation.inputs or equation not in active:
                continue
            state.of = equation
            if equation.region is None:
                output = Tensor(equation.value, equation)
                inputs = [Tensor(e.value, e) for e in equation.inputs]
            else:
                if replay is None or replay.region != equation.region:
                    replay = _Replay(equation.region)
                state.operand = None
                output, inputs = replay.operands(equation, active)
            for operand, source in enumerate(equation.inputs):
                rule = equation.op.rule(operand) if source in active else None
                if rule is None:
                    continue
                state.operand = operand
                upstream = rule(g, output, *inputs, **equation.params)
                if upstream.equation.type.dtype is not source.type.dtype:  # SciPy computes float16 in float32
                    upstream = functions["astype"](upstream, source.type.dtype)
                if upstream is not g and g.equation in masks:
                    upstream = _masked_further(g, upstream, equation, operand, masks)
                if source in downstream:
                    state.operand = None
                    upstream = _added(downstream[source], upstream, masks)
                downstream[source] = upstream
    return gradients


# A masked gradient (see ops.choosing) is zero outside of a condition, and has to stay so further up,
# also where a local derivative is infinite.


def _masked_further(
    g: Tensor, upstream: Tensor, equation: Equation, operand: int, masks: dict[Equation, Tensor]
) -> Tensor:
    condition = masks[g.equation]
    if equation.op.elementwise:
        own = masks.get(upstream.equation)  # a rule of where or clip has masked it already
        masked = functions["mask"](upstream, condition)
        if own is not None and own is not condition:
            masks[masked.equation] = functions["logical_and"](own, condition)
        return masked
    if equation.inputs[operand].inputs and not _reads(equation)[operand]:
        # The rule reads no values: it only moves and adds up gradients. So it moves the mask too.
        rule = equation.op.rule(operand)
        assert rule is not None
        stand_ins = [Tensor(None, e) for e in (equation, *equation.inputs)]
        moved = rule(functions["astype"](condition, g.dtype), *stand_ins, **equation.params)
        masks[upstream.equation] = functions["not_equal"](moved, 0)
    return upstream


def _added(first: Tensor, second: Tensor, masks: dict[Equation, Tensor]) -> Tensor:
    total: Tensor = functions["add"](first, second)
    if first.equation in masks and second.equation in masks:
        one, other = masks[first.equation], masks[second.equation]
        masks[total.equation] = one if one is other else functions["logical_or"](one, other)
    return total


def _reads(equation: Equation) -> tuple[tuple[int, ...], ...]:
    types = tuple(e.type for e in equation.inputs)
    signature = equation.op.signature(types, equation.params)
    return signature.reads or reads_of(equation.op, types, equation.params, signature)


class _Replay:
    """Records the equations of a region that keeps no values again, where the walk reads them.

    The inside of `sg.checkpoint` is such a region, and so is a top-level backward pass: its values
    are only wanted again for a derivative of the gradients.
    """

    def __init__(self, region: int) -> None:
        self.region = region
        self.copies: dict[Equation, Tensor] = {}

    def operands(self, equation: Equation, active: set[Equation]) -> tuple[Tensor, list[Tensor]]:
        """Output and inputs of an equation, those with values that its local rules will read."""
        read = {
            j
            for source, reads in zip(equation.inputs, _reads(equation), strict=True)
            if source in active
            for j in reads
        }
        inputs = [self.copy(e) if i in read else Tensor(e.value, e) for i, e in enumerate(equation.inputs)]
        return self.copy(equation) if OUTPUT in read else Tensor(equation.value, equation), inputs

    def copy(self, wanted: Equation) -> Tensor:
        """The tensor of an equation, recorded again if it lies inside the region."""
        missing, todo = [], [wanted]
        while todo:
            equation = todo.pop()
            if equation in self.copies:
                continue
            if equation.serial < self.region or equation.op in leaves or equation.region != self.region:
                self.copies[equation] = self._outside(equation)
                continue
            missing.append(equation)
            todo.extend(equation.inputs)
        for equation in sorted(missing, key=_serial):
            if equation not in self.copies:
                inputs = tuple([self.copies[e] for e in equation.inputs])
                self.copies[equation] = record(equation.op, inputs, equation.params)
        return self.copies[wanted]

    def _outside(self, equation: Equation) -> Tensor:
        if equation.region is not None and equation.value is None and RECORDING.get().equations is None:
            return _Replay(equation.region).copy(equation)
        return Tensor(equation.value, equation)


def check_scalar(loss: Tensor) -> None:
    """Raises GradientError unless the loss is one floating-point number."""
    if loss.shape != ():
        raise GradientError(
            f"the gradient of {describe(loss)} was asked for",
            "a gradient says how one number changes, and this is not one number",
            "sum or average it first, as in loss.mean(); for the derivative of every element use sg.jacobian",
        )
    if not loss.equation.type.is_float:
        raise GradientError(
            f"the gradient of {describe(loss)} was asked for",
            f"{loss.dtype} numbers change in steps, so they have no derivative",
            "compute the loss from floating-point values",
        )
