"""`stepgrad check` inside its process: the file is imported, and what it defines is checked."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from stepgrad.check.backward.adapters import at_other_points, nothing_to_check
from stepgrad.check.backward.arguments import object_of, values_for
from stepgrad.check.backward.calling import subject_of
from stepgrad.check.backward.checking import check_backward, check_subjects
from stepgrad.check.backward.composed import both_in_one, with_loss
from stepgrad.check.backward.frameworks import downstream_of, framework_subject
from stepgrad.check.backward.limits import Answer
from stepgrad.check.backward.objects import object_subject
from stepgrad.check.backward.pairs import Pair, called_backwards, find_pairs, pair_named
from stepgrad.check.backward.report import BackwardReport
from stepgrad.check.backward.signatures import parameters_of
from stepgrad.check.backward.subject import Subject
from stepgrad.check.gradients import check_gradients
from stepgrad.check.scripts import function_in, imported, prepared, raised
from stepgrad.errors import ArgumentError, StepgradError


def check_file(
    path: str,
    name: str,
    shapes: Mapping[str, Sequence[int]],
    wrt: Sequence[str],
    directions: int,
    tolerance: float,
    seed: int,
) -> Answer:
    """Checks the backward passes in a file, or the gradient of one function.

    Args:
        path: the file, absolute.
        name: a function, class or object in it; empty: every backward pass that is found.
        shapes: parameter -> shape of an array of standard normal numbers.
        wrt, directions: for a gradient: which arguments, and in how many directions.
        tolerance: the largest relative error that counts as agreement.
        seed: where the random numbers start.

    Raises:
        StepgradError: it could not be told whether anything is right.
    """
    lengths = {n: tuple(shape) for n, shape in shapes.items()}
    with imported(path) as module:
        named = pair_named(module, name) if name else None
        pairs = [named] if named is not None else [] if name else find_pairs(module)
        if not pairs:
            return _gradient(module, name, lengths, wrt, directions, tolerance, seed)
        known = {p for pair in pairs for p in _parameter_names(pair)}
        for asked in lengths:
            if asked not in known:
                raise ArgumentError(
                    f"--shape {asked}=… gives a value for {asked}",
                    f"the parameters are {', '.join(sorted(known))}",
                    "leave it out, or rename it",
                )
        return _pairs(pairs, module, lengths, tolerance, seed)


def _heading(path: str, what: str) -> str:
    return f"{what}, imported with {os.path.dirname(path)} on sys.path; it is only read"


def _gradient(
    module: ModuleType,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    wrt: Sequence[str],
    directions: int,
    tolerance: float,
    seed: int,
) -> Answer:
    loaded = function_in(module, name)
    function, arguments = prepared(loaded, shapes, seed)
    try:
        report = check_gradients(
            function, *arguments, wrt=list(wrt) or None, directions=directions, tolerance=tolerance, seed=seed
        )
    except StepgradError:
        raise
    except Exception as error:
        raise raised(f"{loaded.name}()", loaded.path, error) from error
    heading = _heading(loaded.path, f"{loaded.name} in {os.path.basename(loaded.path)}")
    return Answer(str(report), 0 if report else 1, heading)


def _pairs(
    pairs: Sequence[Pair], module: ModuleType, shapes: Mapping[str, tuple[int, ...]], tolerance: float, seed: int
) -> Answer:
    path = str(module.__file__)
    inner = {pair.name: called_backwards(pair, pairs) for pair in pairs}
    texts: dict[str, str] = {}
    statuses: dict[str, int] = {}
    covered: set[str] = set()
    for pair in sorted(pairs, key=lambda pair: -len(inner[pair.name])):  # what calls others before those
        if pair.name in covered:
            continue
        try:
            report, told = _checked(pair, module, shapes, tolerance, seed)
        except StepgradError as error:
            if len(pairs) == 1:
                raise
            texts[pair.name], statuses[pair.name] = f"{_title(pair)}\nnot checked: {error}", 2
        else:
            with_others = f"\n(with {', '.join(inner[pair.name])}, which it calls)" if inner[pair.name] else ""
            texts[pair.name] = f"{_title(pair)}{told and f': {told}'}{with_others}\n{report}"
            if told.endswith("guessed") and not report.ok:
                texts[pair.name] += "\nIf these shapes are not meant, write in the file: INPUTS = {…}, or pass --shape."
            statuses[pair.name] = 0 if report.ok else 1
            covered |= set(inner[pair.name])
    shown = [texts[pair.name] for pair in pairs if pair.name in texts]
    found = list(statuses.values())
    if len(shown) > 1:
        left = found.count(2)
        shown.append(
            f"{len(found)} backward passes: {found.count(0)} right, {found.count(1)} wrong"
            + (f", {left} not checked" if left else "")
        )
    return Answer("\n\n".join(shown), 1 if 1 in found else max(found), _heading(path, os.path.basename(path)))


def _title(pair: Pair) -> str:
    names = [getattr(f, "__name__", None) for f in pair.functions]
    if pair.kind == "functions":
        return f"{pair.name}, of {names[0]}"
    if pair.kind == "loss apart":
        return f"{pair.name}, of {names[0]} and {names[1]}"
    if pair.kind == "both in one":
        return f"{pair.name}, which returns the loss and its gradients"
    if pair.kind == "object":
        return f"{pair.name}, of the class {type(pair.forward).__name__}"
    return pair.name


def _parameter_names(pair: Pair) -> set[str]:
    functions: list[Callable[..., Any]] = []
    for function in pair.functions:
        if inspect.isfunction(function):
            functions.append(function)
        else:
            kind = function if isinstance(function, type) else type(function)
            functions += [f for f in vars(kind).values() if inspect.isfunction(getattr(f, "__func__", f))]
    found: set[str] = set()
    for function in functions:
        found |= {p.name for p in parameters_of(getattr(function, "__func__", function))}
    return found


def _checked(
    pair: Pair, module: ModuleType, shapes: Mapping[str, tuple[int, ...]], tolerance: float, seed: int
) -> tuple[BackwardReport, str]:
    path = str(module.__file__)
    rng = np.random.default_rng(seed)
    try:
        thing, built = object_of(pair)

        def fit(values: dict[str, Any]) -> float:
            return _fit(_subject(pair, thing, values))

        found = values_for(pair, thing, module, shapes, seed, fit)
        if pair.kind == "functions":
            report = check_backward(pair.forward, pair.backward, found.values, seed=seed, tolerance=tolerance)
        else:
            subjects = at_other_points(_subject(pair, thing, found.values), rng)
            report = check_subjects(subjects, tolerance, rng)
    except StepgradError:
        raise
    except Exception as error:
        raise raised(_stopped_in(error, path) or pair.name, path, error) from error
    return report, "; ".join(part for part in (built, found.told) if part)


def _fit(subject: Subject) -> float:
    """How well the two passes go together at a subject's inputs: infinite if every gradient has its input's shape.

    A wrong backward may not do so anywhere; then the more of them do, the better.
    """
    outputs, context = subject.forward(subject.inputs)
    try:
        gradients = subject.backward(subject.inputs, context, downstream_of(outputs))
    except Exception:
        return -np.inf
    right = [n for n in gradients if n in subject.inputs and np.shape(gradients[n]) == subject.inputs[n].shape]
    return np.inf if right and len(right) == len(gradients) else 2.0 * len(right) - len(gradients)


def _stopped_in(error: BaseException, path: str) -> str | None:
    """The function of the file that was called when an error came out of it."""
    names = [f.name for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) == path]
    return next((f"{name}()" for name in names if not name.startswith("<")), None)


def _subject(pair: Pair, thing: Any, values: dict[str, Any]) -> Subject:
    if pair.kind == "functions":
        assert pair.backward is not None
        return subject_of(pair.forward, pair.backward, values)
    if pair.kind == "loss apart":
        assert pair.backward is not None
        assert pair.loss is not None
        return with_loss(pair.forward, pair.loss, pair.backward, values)
    if pair.kind == "both in one":
        return both_in_one(pair.forward, values)
    made = framework_subject(thing, values) or object_subject(thing, values)
    if made is None:
        raise nothing_to_check(thing)
    return made
