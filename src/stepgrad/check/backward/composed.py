"""Functions that are split otherwise than in two: a loss of its own, or loss and gradients from one function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from stepgrad.check.backward.calling import generators_of, same_random_numbers
from stepgrad.check.backward.collecting import collected
from stepgrad.check.backward.frameworks import copied
from stepgrad.check.backward.objects import split
from stepgrad.check.backward.passing import Passed, call, passed
from stepgrad.check.backward.seeds import BACKWARD_SEED
from stepgrad.check.backward.signatures import parameters_of, returned_names
from stepgrad.check.backward.subject import Inputs, Subject, as_array, flat
from stepgrad.check.backward.watching import functions_of
from stepgrad.errors import ArgumentError

Function = Callable[..., Any]


def with_loss(forward: Function, loss: Function, backward: Function, inputs: Mapping[str, Any]) -> Subject:
    """Three functions: forward gives an output, loss makes a number of it, backward begins with the loss.

    Args:
        forward: returns the output, alone or in a tuple with a cache.
        loss: takes the output and inputs such as the labels.
        backward: takes inputs, the cache and the output, found by their names.
        inputs: what the three take, by name.

    Raises:
        ArgumentError: a parameter has no value.
    """
    names = _named(forward)
    parts = flat(inputs)
    generators = generators_of(forward)
    own = [p.name for p in parameters_of(forward) if p.name in inputs]
    of_forward = {n: inputs[n] for n in own}
    with same_random_numbers(generators):
        more = split(call(forward, of_forward), names)[1] is not None
    given = list(inputs)
    to_loss = passed(_named(loss), loss, given, downstream=False, context=more)
    if "output" not in to_loss.sources.values() and to_loss.sources:
        first = next(iter(to_loss.sources))
        to_loss = Passed({**to_loss.sources, first: "output"}, to_loss.inputs)
    back = passed(_named(backward), backward, given, downstream=False, context=more)
    called = returned_names(backward)

    def run(values: Inputs) -> tuple[Any, Any]:
        arguments = parts.rebuild(values)
        with same_random_numbers(generators):
            output, rest = split(call(forward, {n: arguments[n] for n in own}), names)
            value = to_loss.call(loss, arguments, context=rest, output=output, rate=1.0)
        return _number(split(value, _named(loss))[0], _named(loss)), (output, rest)

    def gradients(values: Inputs, context: Any, downstream: Any) -> dict[str, Any]:
        output, rest = copied(context)
        with same_random_numbers(generators, BACKWARD_SEED.get()):
            result = back.call(backward, parts.rebuild(values), context=rest, output=output, rate=1.0)
        return collected(result, called, parts.arrays).gradients

    return Subject(
        name=_named(backward),
        file=_file(backward),
        forward=run,
        backward=gradients,
        inputs=parts.arrays,
        functions=_watched(backward),
        forward_functions=(*_watched(forward), *_watched(loss)),
        gradient_names=_own_names(run, back, backward, parts, called),
    )


def _own_names(run: Any, back: Passed, backward: Function, parts: Any, called: Any) -> dict[str, str]:
    """What the user calls each gradient; nothing where the backward stops, which is found again later."""
    try:
        _, (output, rest) = run(parts.arrays)
        result = back.call(backward, parts.rebuild(parts.arrays), context=rest, output=output, rate=1.0)
        return collected(result, called, parts.arrays).names
    except Exception:
        return {}


def both_in_one(function: Function, inputs: Mapping[str, Any]) -> Subject:
    """One function that returns the loss and its gradients: `loss, grads = f(X, W)`.

    The loss is the number among what it returns, wherever it stands; everything else are gradients.

    Raises:
        ArgumentError: it returns no number, or nothing else.
    """
    name, parts, called = _named(function), flat(inputs), returned_names(function)
    generators = generators_of(function)

    def results(values: Inputs) -> tuple[Any, Any, list[str | None]]:
        with same_random_numbers(generators):
            result = call(function, parts.rebuild(values))
        if not isinstance(result, tuple) or len(result) < 2:
            raise ArgumentError(
                f"{name} returned a {type(result).__name__}",
                "the loss and its gradients were looked for in a tuple",
                "return loss, gradients",
            )
        loss, _ = split(result, name)
        labels = list(called) if len(called) == len(result) else [None] * len(result)
        kept = [(part, label) for part, label in zip(result, labels, strict=True) if part is not loss]
        return loss, tuple(part for part, _ in kept), [label for _, label in kept]

    def gradients(values: Inputs, context: Any, downstream: Any) -> dict[str, Any]:
        _, others, labels = results(values)
        return _matched(others, labels, parts.arrays)[0]

    loss, others, labels = results(parts.arrays)
    _number(loss, name)
    return Subject(
        name=name,
        file=_file(function),
        forward=lambda values: (results(values)[0], None),
        backward=gradients,
        inputs=parts.arrays,
        functions=_watched(function),
        forward_functions=_watched(function),
        gradient_names=_matched(others, labels, parts.arrays)[1],
    )


def _matched(
    others: tuple[Any, ...], labels: list[str | None], inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    result = others[0] if len(others) == 1 else others
    found = collected(result, labels, inputs)
    return found.gradients, found.names


def _number(loss: Any, name: str) -> Any:
    """A loss, if it is a single number."""
    array = as_array(loss)
    if array is None or array.size != 1:
        raise ArgumentError(
            f"{name} returned an array of shape {None if array is None else array.shape}",
            "a loss is one number, whose gradient backward begins with",
            "add up: return np.sum(…), or the mean",
        )
    return loss


def _named(function: Function) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _file(function: Function) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return getattr(code, "co_filename", None)


def _watched(function: Function) -> tuple[Function, ...]:
    plain = inspect.unwrap(function)
    return tuple(functions_of(plain)) if isinstance(plain, FunctionType) else ()
