"""From what the user passes to subjects: which adapter takes it, and at which points it is checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from stepgrad.check.backward import points
from stepgrad.check.backward.frameworks import framework_subject, is_framework_function
from stepgrad.check.backward.naming import BACKWARDS, FORWARDS
from stepgrad.check.backward.objects import method, object_subject
from stepgrad.check.backward.subject import Subject
from stepgrad.errors import ArgumentError


def adapted(thing: Any, inputs: Any) -> Subject | None:
    """The subject for something that has both a forward and a backward; None for anything else.

    Args:
        thing: an object with methods, a `torch.autograd.Function`, a `jax.custom_vjp` function, a rule of
            `sg.custom_rule`.
        inputs: what its forward is called with.

    Raises:
        ArgumentError: the inputs don't fit.
        GradientError: it has no backward.
    """
    if functions_of_class(thing) is not None:
        return None
    return framework_subject(thing, inputs) or object_subject(thing, inputs)


def functions_of_class(thing: Any) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """The forward and backward of a class whose methods are static: two plain functions."""
    forward, backward = method(thing, FORWARDS), method(thing, BACKWARDS)
    if not isinstance(thing, type) or is_framework_function(thing) or forward is None or backward is None:
        return None
    static = all(isinstance(inspect.getattr_static(thing, n), staticmethod) for n in (forward, backward))
    return (getattr(thing, forward), getattr(thing, backward)) if static else None


def nothing_to_check(thing: Any) -> ArgumentError:
    """The error for something that no adapter takes."""
    name = getattr(thing, "__name__", type(thing).__name__)
    return ArgumentError(
        f"{name} was given to be checked without a backward",
        "a backward is compared with the true gradient of its forward, so both are needed",
        "pass sg.check_backward(forward, backward, inputs), or one object with both methods",
    )


def at_other_points(subject: Subject, rng: np.random.Generator) -> list[Subject]:
    """The subject; twice at other numbers of the same kind; and where its lengths can be told apart, at others."""
    sizes = points.free_sizes(subject.inputs, rng)
    moved = [points.moved(subject.inputs, rng), points.moved(subject.inputs, rng)]
    if sizes:
        moved.append(points.moved(subject.inputs, rng, sizes))
    return [subject, *(replace(subject, inputs={n: np.asarray(v, np.float64) for n, v in m.items()}) for m in moved)]
