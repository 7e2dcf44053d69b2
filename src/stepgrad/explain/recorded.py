"""What a call recorded: its own backward passes, or a walk back from what it returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad import missing
from stepgrad.cells import Parameter
from stepgrad.errors import ArgumentError, GradientError
from stepgrad.explain.arguments import Arguments
from stepgrad.explain.arrange import Recorded
from stepgrad.explain.watch import Watcher
from stepgrad.tape.backward import walk
from stepgrad.tape.equation import CELL, CONSTANT, INPUT, Equation
from stepgrad.tape.equation import leaves as leaf_ops
from stepgrad.tape.leaves import as_tensor, constant
from stepgrad.tape.recording import recording
from stepgrad.tensor import ArrayLike, Tensor, describe
from stepgrad.tree import flatten, leaves_in_order


def outputs_of(result: Any) -> list[Equation]:
    """The equations of the tensors that the function returned, each once."""
    return list(dict.fromkeys(x._tensor.equation for x in flatten(result)[0] if isinstance(x, ArrayLike)))


def own_passes(
    arguments: Arguments,
    watcher: Watcher,
    equations: list[Equation],
    outputs: list[Equation],
    wrt: Any,
    downstream: Any,
) -> Recorded:
    """The function took gradients itself: those are what is explained."""
    if wrt is not None or downstream is not None:
        raise ArgumentError(
            "sg.trace was given wrt or downstream for a function that calls sg.backward itself",
            "its own backward pass is what is explained",
            "leave them out, or trace the function that computes the loss",
        )
    seeds = {}
    for gradients in watcher.walks:
        root = next(iter(gradients))
        seeds[root] = gradients[root].equation
    return Recorded(arguments, watcher, equations, [], watcher.walks, seeds, outputs, own=True)


def walked_passes(
    fn: Callable[..., Any],
    arguments: Arguments,
    watcher: Watcher,
    equations: list[Equation],
    result: Any,
    outputs: list[Equation],
    wrt: Any,
    downstream: Any,
) -> Recorded:
    """The backward walk from what the function returned."""
    if not outputs:
        raise missing.not_on_tape(result, fn)
    seeds = _seeds(result, downstream)
    _cut(equations, watcher)
    leaves = _leaves(arguments, equations)
    targets = _targets(arguments, leaves, wrt)
    walked: list[Equation] = []
    with recording(equations=walked, closed=True, region=None, scope=()), np.errstate(all="ignore"):
        gradients = walk(seeds, targets)
    absent = [e for e in targets if e not in gradients]
    if wrt is not None and absent:
        missing.check(list(seeds), absent)
    ordered = dict(sorted(gradients.items(), key=lambda item: -item[0].serial))
    return Recorded(
        arguments,
        watcher,
        equations,
        walked,
        [ordered] if ordered else [],
        {e: g.equation for e, g in seeds.items()} if ordered else {},
        outputs,
        own=False,
    )


def _cut(equations: list[Equation], watcher: Watcher) -> None:
    """Makes inputs of what was computed before the function was called."""
    inside = set(equations)
    made: dict[Equation, Equation] = {}
    for equation in equations:
        if all(e in inside or e.op in leaf_ops for e in equation.inputs):
            continue
        for source in equation.inputs:
            if source not in inside and source.op not in leaf_ops and source not in made:
                leaf = Equation(INPUT if source.active else CONSTANT, (), {}, source.type, source.active)
                leaf.value, leaf.name, leaf.serial = source.value, source.name, source.serial
                made[source] = leaf
                if source in watcher.bound:
                    watcher.bound[leaf] = watcher.bound[source]
        equation.inputs = tuple(made.get(e, e) for e in equation.inputs)


def _seeds(result: Any, downstream: Any) -> dict[Equation, Tensor]:
    """The downstream gradients that the walk begins with."""
    values = [x._tensor for x in flatten(result)[0] if isinstance(x, ArrayLike)]
    if downstream is None:
        values = values[:1]
        given = [constant(np.ones(v.shape, v.dtype)) for v in values]
    else:
        in_order = leaves_in_order(downstream, result)
        given = [d._tensor if isinstance(d, ArrayLike) else as_tensor(np.asarray(d)) for d in in_order]
        values = values[:1] if len(given) == 1 else values
    if len(given) != len(values) or any(g.shape != v.shape for g, v in zip(given, values, strict=True)):
        raise ArgumentError(
            f"downstream gradients of shapes {[g.shape for g in given]} were given for values of shapes "
            f"{[v.shape for v in values]}",
            "a gradient has the shape of what it is the gradient of",
            "pass one array for each value that the function returns, of its shape",
        )
    if not values[0].equation.type.is_float:
        raise GradientError(
            f"the gradient of {describe(values[0])} was asked for",
            f"{values[0].dtype} numbers change in steps, so they have no derivative",
            "return a floating-point value first",
        )
    seeds: dict[Equation, Tensor] = {}
    for value, seed in zip(values, given, strict=True):
        if value.equation.type.is_float and value.equation not in seeds:
            seed = seeds[value.equation] = constant(np.array(seed.numpy(), value.dtype))
            seed.equation.value = seed.value
    return seeds


def _leaves(arguments: Arguments, equations: list[Equation]) -> list[Equation]:
    """The inputs, and the tensors and parameters from outside that the function used."""
    found = dict.fromkeys(arguments.inputs)
    for equation in equations:
        found.update(dict.fromkeys(e for e in equation.inputs if e.op in (INPUT, CELL)))
    return list(found)


def _targets(arguments: Arguments, leaves: list[Equation], wrt: Any) -> list[Equation]:
    floating = [e for e in leaves if e.type.is_float and (e.op is INPUT or isinstance(e.params["cell"], Parameter))]
    if wrt is None:
        return floating
    asked = [wrt] if isinstance(wrt, str) else list(wrt)
    chosen: list[Equation] = []
    for name in asked:
        matching = [e for e in floating if name in _called(arguments, e)]
        if not matching:
            raise ArgumentError(
                f"wrt={name!r} was given to sg.trace",
                "no floating-point input or parameter that the function used is called that",
                "name one of: " + ", ".join(dict.fromkeys(_called(arguments, e)[0] for e in floating)),
            )
        chosen += matching
    return list(dict.fromkeys(chosen))


def _called(arguments: Arguments, leaf: Equation) -> list[str]:
    """The names by which a leaf can be asked for."""
    cell = leaf.params.get("cell")
    names = [*arguments.inputs.get(leaf, ()), leaf.name, arguments.origins.get(leaf if cell is None else cell)]
    if cell is not None:
        names = [*arguments.cells.get(cell, ()), cell.name, *names]
    return [n for n in names if n] or ["(unnamed)"]
