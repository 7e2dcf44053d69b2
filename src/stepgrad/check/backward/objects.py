"""Objects with `forward` and `backward` methods, as courses write layers and networks.

The object is never changed: each call works on a copy. Its arrays count as inputs (`self.W`), as the
arguments of its forward do. Gradients are looked for in what backward returns, and in the attributes
that it sets.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stepgrad.check.backward.calling import generators_of, position_of_output, same_random_numbers
from stepgrad.check.backward.collecting import (
    Collected,
    attributes,
    collected,
    find_attribute_inputs,
    moved_by,
    number_inputs,
)
from stepgrad.check.backward.interface import gradients_of_integers
from stepgrad.check.backward.naming import BACKWARDS, DATA, FORWARDS, LOSSES, RATE, RESETS
from stepgrad.check.backward.passing import Passed, call, passed
from stepgrad.check.backward.seeds import BACKWARD_SEED
from stepgrad.check.backward.signatures import parameters_of, returned_names
from stepgrad.check.backward.state import duplicate, held, is_users, place, users_objects
from stepgrad.check.backward.subject import Flat, Inputs, Remark, Subject, as_array, flat, fresh, is_floating
from stepgrad.errors import ArgumentError


def method(thing: Any, names: list[str]) -> str | None:
    """The first of these methods that an object, or class, has."""
    kind = thing if isinstance(thing, type) else type(thing)
    return next((n for n in names if callable(getattr(kind, n, None)) and n != "__call__"), None) or (
        "__call__" if "__call__" in names and "__call__" in vars(kind) else None
    )


def object_subject(thing: Any, inputs: Any) -> Subject | None:
    """The subject for an object with forward and backward methods; None for anything else.

    Args:
        thing: an instance of a class of the user's.
        inputs: the arguments of its forward: a dict by name, or a list or tuple in order, or one array. A
            dict may also hold what only its backward or its loss needs, such as the labels.

    Raises:
        ArgumentError: a class in place of an object; arguments that don't fit; an object that can't be
            copied; an output that is no loss with a backward that takes no downstream gradient.
    """
    if not isinstance(thing, type) and not is_users(thing):
        return None
    forward, backward = method(thing, FORWARDS), method(thing, BACKWARDS)
    if forward is None or backward is None:
        return None
    kind = thing if isinstance(thing, type) else type(thing)
    if isinstance(thing, type):
        raise ArgumentError(
            f"{kind.__name__} is a class",
            "its forward needs an object with its arrays",
            f"pass an object: sg.check_backward({kind.__name__}(…), inputs=…)",
        )
    return _Layer.of(thing, forward, backward, inputs).subject()


@dataclass(frozen=True)
class _After:
    """What a forward leaves behind."""

    work: Any
    arguments: dict[str, Any]
    output: Any
    rest: Any


@dataclass(frozen=True)
class _Told:
    """What one run of an object tells.

    Attributes:
        names: input -> the user's name of its gradient.
        extra: gradients of no input.
        remarks, notes: as a subject has them.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layer:
    """An object, and how its methods are called."""

    owner: Any
    names: tuple[str, str, str | None]  # forward, backward, loss
    arguments: Mapping[str, Any]
    parts: Flat
    places: Mapping[str, tuple[str, ...]]  # attribute input -> every path at which it is held
    of_forward: tuple[str, ...]
    back: Passed
    to_loss: Passed | None
    generators: tuple[Any, ...]
    rate: float = 1.0

    @staticmethod
    def of(thing: Any, forward: str, backward: str, inputs: Any) -> _Layer:
        owner = duplicate(thing)
        kind = type(thing)
        arguments = _arguments(kind, forward, backward, method(thing, LOSSES), inputs)
        if not any(is_floating(v) for _, v in held(owner)) and not flat(arguments).arrays:
            arguments = {n: _floating(v) for n, v in arguments.items()}  # nothing else could have a gradient
        parts = flat(arguments)
        own = [p.name for p in parameters_of(getattr(owner, forward))]
        generators = tuple(generators_of(getattr(kind, forward)))
        of_forward = tuple(n for n in arguments if n in own) or tuple(arguments)
        with same_random_numbers(generators):
            result = call(getattr(copy.deepcopy(owner), forward), {n: arguments[n] for n in of_forward})
        output, rest = split(result, f"{kind.__name__}.{forward}")
        back, to_loss, loss = _calls(thing, backward, list(arguments), output, rest)
        return _Layer(owner, (forward, backward, loss), arguments, parts, {}, of_forward, back, to_loss, generators)

    # --- the two calls

    def forward(self, values: Inputs) -> tuple[Any, _After]:
        work = copy.deepcopy(self.owner)
        place(work, {path: fresh(values[path]) for path in self.places})
        arguments = self.parts.rebuild(values)
        with same_random_numbers(self.generators):
            result = call(getattr(work, self.names[0]), {n: arguments[n] for n in self.of_forward})
            output, rest = split(result, self.names[0])
            after = _After(work, arguments, output, rest)
            if self.names[2] is None or self.to_loss is None:
                return output, after
            loss = self.to_loss.call(getattr(work, self.names[2]), arguments, context=rest, output=output, rate=1.0)
        return split(loss, self.names[2])[0], after

    def run(self, after: _After, downstream: Any) -> tuple[Collected, Any]:
        """One run of the backward on a copy; and the copy."""
        after = copy.deepcopy(after)
        _reset(after.work)
        before = attributes(after.work)
        with same_random_numbers(self.generators, BACKWARD_SEED.get()):  # what backward draws is not what forward drew
            result = self.back.call(
                getattr(after.work, self.names[1]),
                after.arguments,
                downstream=np.ones(_shape(after.output)) if downstream is None else np.array(downstream),
                context=after.rest,
                output=after.output,
                rate=self.rate,
            )
        called = returned_names(getattr(type(after.work), self.names[1]))
        forwards = {
            n: v for n, v in self.parts.arrays.items() if n.partition("[")[0].partition(".")[0] in self.of_forward
        }
        found = collected(result, called, forwards, self.places, before, attributes(after.work))
        return found, after.work

    def trial(self, at: Mapping[str, Any]) -> tuple[Collected, Any, _After]:
        """Forward and backward once, with the attributes as they are."""
        output, after = self.forward({**self.parts.arrays, **{p: at[p].value for p in self.places}})
        downstream = None if _shape(output) == () else np.ones(_shape(output))
        found, work = self.run(after, downstream)
        return found, work, after

    def backward(self, values: Inputs, after: _After, downstream: Any) -> dict[str, Any]:
        found, work = self.run(after, downstream)
        gradients = dict(found.gradients)
        rate = self._rate(work)
        if rate:
            for path, change in moved_by(attributes(after.work), attributes(work), self.places).items():
                gradients.setdefault(path, -change / rate)
        return gradients

    def _rate(self, work: Any) -> float | None:
        """The learning rate of a backward that updates its arrays itself."""
        if self.back.takes_rate:
            return self.rate
        rates = [v for n, v in vars(work).items() if RATE.fullmatch(n) and isinstance(v, float) and v]
        return float(rates[0]) if len(rates) == 1 else None

    # --- the subject

    def subject(self) -> Subject:
        kind, backward = type(self.owner), self.names[1]
        layer, told = self._with_attributes()
        integers = [n for n in gradients_of_integers(self.arguments, told.extra) if n in self.of_forward]
        if integers:
            floats = {n: v.astype(np.float64) if n in integers else v for n, v in self.arguments.items()}
            return _Layer.of(self.owner, self.names[0], backward, floats).subject()
        if not layer.parts.arrays and not layer.places:
            raise ArgumentError(
                f"{kind.__name__} has no floating-point array, and was given none",
                "only floating-point numbers have a gradient",
                "pass arrays of floats: inputs={'x': x.astype(np.float64)}",
            )
        now = attributes(layer.owner)
        inputs = {**layer.parts.arrays, **{p: np.array(now[p].value, np.float64) for p in layer.places}}
        own = inspect.unwrap(getattr(kind, backward))
        methods = _methods(self.owner)
        return Subject(
            name=kind.__name__,
            file=inspect.getsourcefile(own) if inspect.isfunction(own) else None,
            forward=layer.forward,
            backward=layer.backward,
            inputs=inputs,
            functions=tuple(dict.fromkeys([own, *(f for n, f in methods if n not in FORWARDS and n not in LOSSES)])),
            forward_functions=tuple(dict.fromkeys(f for n, f in methods if n not in BACKWARDS)),
            gradient_names=told.names,
            remarks=told.remarks,
            notes=told.notes,
        )

    def _with_attributes(self) -> tuple[_Layer, _Told]:
        """The same with the arrays that count as inputs, and what one run of it tells."""
        work = copy.deepcopy(self.owner)
        before = attributes(work)
        arguments = self.parts.rebuild(self.parts.arrays)
        with same_random_numbers(self.generators):
            call(getattr(work, self.names[0]), {n: arguments[n] for n in self.of_forward})
        layer = replace(self, places=find_attribute_inputs(before, attributes(work), list(self.of_forward)))
        try:
            found, work, after = layer.trial(before)
            numbers = number_inputs(before, attributes(work), found)
            if numbers:
                layer = replace(layer, places={**layer.places, **numbers})
                found, work, after = layer.trial(before)
            again, _, _ = replace(layer, owner=work).trial(before)
        except Exception:  # found again, and told, when the backward is judged
            return layer, _Told()
        changed = moved_by(attributes(after.work), attributes(work), layer.places)
        updated = [p for p in changed if p not in found.gradients]
        extra = tuple(n for n in found.gradients if n not in found.names)
        if updated and layer._rate(work) is None:  # attributes that backward sets, not inputs
            kept = {p: where for p, where in layer.places.items() if p not in updated}
            return replace(layer, places=kept), _Told(found.names, extra)
        if updated:
            note = (
                f"{self.names[1]} updates {' and '.join(updated)} itself, so the change divided by the learning rate "
                "is taken for the gradient."
            )
            return layer, _Told({**found.names, **{p: f"the gradient of {p}" for p in updated}}, extra, notes=(note,))
        return layer, _Told(found.names, extra, tuple(_added_up(found, again, layer.places, self.names[1])))


def _added_up(
    found: Collected, again: Collected, places: Mapping[str, tuple[str, ...]], backward: str
) -> Iterator[Remark]:
    """Gradients to which a second backward adds, rather than computing them afresh."""
    for name in places:
        one, other = found.gradients.get(name), again.gradients.get(name)
        if one is None or other is None or np.shape(one) != np.shape(other) or not np.any(one):
            continue
        if np.allclose(other, 2 * np.asarray(one), rtol=1e-9, atol=0):
            called = found.names[name]
            text = f"{backward} adds to {called}, and nothing sets it to zero: after a second call it is twice as large"
            yield Remark("not-reset-between-calls", called, text, {"ratio": 2.0})


def _arguments(kind: type, forward: str, backward: str, loss: str | None, inputs: Any) -> dict[str, Any]:
    """The inputs by name: all that forward, backward and loss take."""
    own = [p for p in parameters_of(getattr(kind, forward)) if p.name != "self"]
    names = [p.name for p in own]
    if not isinstance(inputs, Mapping):
        values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if inputs is None:
            values = []
        inputs = dict(zip(names if len(values) <= len(names) else map(str, range(len(values))), values, strict=False))
    methods = [m for m in (forward, backward, loss) if m is not None]
    known = {p.name.lower() for m in methods for p in parameters_of(getattr(kind, m))}
    star = any(
        p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in inspect.signature(getattr(kind, forward)).parameters.values()
    )
    for name in inputs:
        if str(name).lower() not in known and not star:
            raise ArgumentError(
                f"inputs has {name!r}, and {kind.__name__}.{forward} has the parameters {', '.join(names) or 'none'}",
                "inputs are passed by the name of the parameter; the object's own arrays are found by themselves",
                f"rename it, or leave {name!r} out",
            )
    missing = [p.name for p in own if p.default is p.empty and p.name not in inputs]
    others = [n for n in inputs if n not in names and DATA.fullmatch(str(n))]
    if len(missing) == 1 and others:  # forward(a) and backward(x, y): both mean the data
        return {missing[0]: inputs[others[0]], **{n: v for n, v in inputs.items() if n != others[0]}}
    if missing:
        raise ArgumentError(
            f"{kind.__name__}.{forward} needs {', '.join(missing)}, and inputs has "
            f"{', '.join(map(repr, inputs)) or 'nothing'}",
            "it is called to find out what its true gradient is",
            f"pass inputs={{{', '.join(f'{n!r}: …' for n in names)}}}",
        )
    return dict(inputs)


def _calls(
    thing: Any, backward: str, inputs: list[str], output: Any, rest: Any
) -> tuple[Passed, Passed | None, str | None]:
    """How backward is called, and the loss, if the output is none and backward begins with one."""
    kind = type(thing)
    function = getattr(thing, backward)
    scalar = is_floating(output) and _shape(output) == ()
    more = rest is not None
    loss = method(thing, LOSSES)
    back = passed(f"{kind.__name__}.{backward}", function, inputs, downstream=True, context=more)
    if scalar or back.takes_downstream:
        return back, None, None
    if loss is None:
        raise ArgumentError(
            f"{kind.__name__}.forward returns an array of shape {_shape(output)}, and {backward} takes no "
            "downstream gradient",
            "so there is a loss that backward begins with, and it is not known",
            f"give {kind.__name__} a method `loss(self, output, …)`, or let forward return the loss",
        )
    to_loss = passed(f"{kind.__name__}.{loss}", getattr(thing, loss), inputs, downstream=False, context=more)
    calls_forward = {*FORWARDS, "predict"} & set(inspect.unwrap(getattr(kind, loss)).__code__.co_names)
    if to_loss.sources and "output" not in to_loss.sources.values() and not calls_forward:
        to_loss = replace(to_loss, sources={**to_loss.sources, next(iter(to_loss.sources)): "output"})
    return back, to_loss, loss


def _floating(value: Any) -> Any:
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind in "iu" else value


def _reset(work: Any) -> None:
    """Sets gradients to zero where the user's code has a method for that."""
    for part in users_objects(work):
        name = method(part, RESETS)
        if name is not None and not [p for p in parameters_of(getattr(part, name)) if p.default is p.empty]:
            getattr(part, name)()


def split(result: Any, name: str) -> tuple[Any, Any]:
    """The loss or output that a forward returned, and what else it returned: None, one value or a tuple."""
    parts = list(result) if isinstance(result, tuple) else [result]
    chosen = position_of_output(parts, name)
    rest = [v for i, v in enumerate(parts) if i != chosen]
    return parts[chosen], None if not rest else rest[0] if len(rest) == 1 else tuple(rest)


def _shape(value: Any) -> tuple[int, ...]:
    array = as_array(value)
    return () if array is None else array.shape


def _methods(owner: Any) -> list[tuple[str, Callable[..., Any]]]:
    """The methods of the classes of an object and of those it holds, defined by the user."""
    found: dict[int, tuple[str, Callable[..., Any]]] = {}
    for part in users_objects(owner):
        for kind in type(part).__mro__[:-1]:
            for name, member in vars(kind).items():
                function = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) or hasattr(
                    member, "__func__"
                ) else None  # fmt: skip
                if inspect.isfunction(function) and (not name.startswith("__") or name == "__call__"):
                    found.setdefault(id(function), (name, function))
    return list(found.values())
