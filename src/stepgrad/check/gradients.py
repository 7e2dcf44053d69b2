"""check_gradients: is backpropagation right for this function, at these values?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.comparison import Comparison
from stepgrad.check.local import check_rules
from stepgrad.check.repeat import check_deterministic, left_the_tape
from stepgrad.check.replay import Recorded, called, in_float64, record_call
from stepgrad.check.report import ArgumentCheck, Report
from stepgrad.check.slopes import scale_of
from stepgrad.errors import ArgumentError, StepgradError
from stepgrad.ops.arguments import number, whole


def check_gradients(
    fn: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    directions: int = 8,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Report:
    """Compares the gradients of a function with numerical ones, and every local rule with its op.

    Everything is computed in float64, whatever dtype the arguments have: the function is called to
    record it, and its equations are then run again at neighbouring points. Parameters and random
    keys keep their values.

    First the gradient of each argument is compared with the derivative by the complex step, where
    every op on the way is analytic, and by central differences elsewhere: for each element, or along
    random directions if there are more than 200. Then the local rule of every equation is compared
    with the derivative of what it computes, so that a wrong one is named with its line.

    The relative error of a gradient a against a numerical derivative n is
    |a - n| / max(|a|, |n|, noise / tolerance), where noise is what float64 can't resolve: about
    1e-10 of the function's value for differences, and 1e-13 for the complex step, for a change of
    the argument by its own size.

    Where the function has a kink (relu at 0, a tie in max) there is no derivative to compare with.
    Kinks are found by comparing slopes to the left and to the right, reported, and not counted as
    mistakes.

    Args:
        fn: a function of arrays, tensors, modules, or nested lists, tuples and dicts of them; it
            returns a floating-point tensor, or a nested structure of them. What it returns is
            weighted with a random downstream gradient if it is not a single number.
        args: its arguments.
        wrt: what to differentiate with respect to: positions or names of arguments, tensors,
            parameters or modules, one or several. By default every floating-point argument, and
            every parameter and tensor that the function uses.
        directions: how many random directions to use for large arguments.
        tolerance: the largest relative error that counts as agreement.
        seed: where the random numbers start.

    Returns:
        A `Report`: true if everything agrees, and readable when printed.

    Raises:
        ArgumentError: an argument or the result is NaN or infinite; the message says where.
        DtypeError: the gradient of integers was asked for.
        GradientError: the function returns no tensor, or computes something else each time.

    Example:
        >>> report = sg.check_gradients(lambda x: np.sum(x * x), np.array([1.0, 2.0]))
        >>> report.ok, report.arguments[0].method
        (True, 'complex step')
    """
    directions, seed, tolerance = whole(directions, "directions"), whole(seed, "seed"), number(tolerance, "tolerance")
    if directions < 1 or seed < 0 or not 0 < tolerance < 1:
        raise ArgumentError(
            f"check_gradients was called with directions={directions}, tolerance={tolerance} and seed={seed}",
            "at least one direction is needed, a relative error between 0 and 1, and a seed from 0 on",
            "leave them out, or pass for example directions=8, tolerance=1e-6, seed=0",
        )
    first = record_call(fn, args, wrt)
    check_deterministic(first, record_call(fn, args, wrt), fn)
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        recorded = in_float64(first)
        _check_finite(recorded, fn)
        left = left_the_tape(first, fn, args, wrt, rng)
        return _report(first, recorded, [*_notes(recorded), *left], directions, tolerance, rng)


def _report(
    first: Recorded,
    recorded: Recorded,
    notes: list[str],
    directions: int,
    tolerance: float,
    rng: np.random.Generator,
) -> Report:
    equations, found = check_rules(recorded, tolerance, rng)
    arguments: list[ArgumentCheck] = []
    try:
        arguments, more = Comparison(recorded, directions, tolerance, rng).arguments()
        found += more
    except Exception as error:
        if all(e.ok for e in equations):
            raise
        notes.append(f"the backward pass stopped, so no gradient was compared: {_what(error)}")
    if any(a.kinks and not a.count for a in arguments):
        arguments = _beside_kinks(first, arguments, directions, tolerance, rng)
        notes.append("* compared at a random point nearby, because there are kinks in every direction here")
    ok = all(e.ok for e in equations) and all(a.ok for a in arguments)
    return Report(
        ok=ok,
        max_error=max((a.error for a in arguments), default=0.0 if ok else float("inf")),
        tolerance=tolerance,
        arguments=tuple(arguments),
        equations=tuple(equations),
        kinks=tuple(dict.fromkeys(found)),
        notes=tuple(notes),
    )


def _notes(recorded: Recorded) -> list[str]:
    """Inputs to which no gradient can flow, and why."""
    if not recorded.tape.inputs:
        return ["the function has no floating-point argument, and uses no parameter or tensor"]
    notes = []
    reached = {e for e in recorded.tape.equations if e.active} | set(recorded.tape.outputs)
    for leaf, name in recorded.names.items():
        readers = [e for e in recorded.tape.equations if leaf in e.inputs]
        if not readers and leaf not in reached:
            notes.append(f"the function does not use {name}")
        elif readers and reached.isdisjoint(readers):
            cut = readers[0]
            notes.append(f"no gradient flows to {name}: it stops at {cut.op.name}, {recorded.place_text(cut)}")
    return notes


def _what(error: Exception) -> str:
    return (error.what if isinstance(error, StepgradError) else str(error)).splitlines()[0]


def _beside_kinks(
    first: Recorded, arguments: list[ArgumentCheck], directions: int, tolerance: float, rng: np.random.Generator
) -> list[ArgumentCheck]:
    """Compares arguments of which nothing could be compared once more, a little way off the kinks."""
    moved = {}
    for leaf in first.tape.inputs:
        x = np.asarray(leaf.value, np.float64)
        moved[leaf] = x + 1e-3 * scale_of(x, least=1e-2) * rng.standard_normal(x.shape)
    recorded = in_float64(first, moved)
    if not all(np.isfinite(e.value).all() for e in recorded.tape.outputs):
        return arguments
    again, _ = Comparison(recorded, directions, tolerance, rng).arguments()
    return [
        replace(b, name=b.name + " *", kinks=a.kinks) if a.kinks and not a.count else a
        for a, b in zip(arguments, again, strict=True)
    ]


def _check_finite(recorded: Recorded, fn: Callable[..., Any]) -> None:
    for leaf in recorded.tape.inputs:
        if not np.isfinite(leaf.value).all():
            element = tuple(int(i) for i in np.argwhere(~np.isfinite(leaf.value))[0])
            raise ArgumentError(
                f"{recorded.names[leaf]} {leaf.type.shape} has the value {leaf.value[element]} at element "
                f"{list(element)}",
                "there is no derivative at a point that is not finite",
                "check the gradients at values such as those the function is meant for",
            )
    if all(np.isfinite(e.value).all() for e in recorded.tape.outputs):
        return
    for equation in recorded.tape.equations:
        bad = ~np.isfinite(equation.value)
        if bad.any() and all(np.isfinite(e.value).all() for e in equation.inputs):
            element = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ArgumentError(
                f"{called(fn)} returned NaN or infinity, which {equation.op.name} made first: "
                f"{equation.value[element]} at element {list(element)}\n  at {recorded.place_text(equation)}",
                "there is no derivative where the function has no finite value",
                "pass arguments inside the function's domain, or compute this line in a safer way",
            )
    raise ArgumentError(
        f"{called(fn)} returned NaN or infinity",
        "constants that it uses are not finite",
        "look at the arrays that the function reads",
    )
