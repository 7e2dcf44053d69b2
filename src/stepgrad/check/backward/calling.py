"""Two plain functions as a subject: how they are called, and which gradient belongs to which input."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

import numpy as np

from stepgrad.check.backward.collecting import collected
from stepgrad.check.backward.interface import gradients_of_integers
from stepgrad.check.backward.naming import HOLDER
from stepgrad.check.backward.naming import forward_name as forward_name  # others of this package look for it here
from stepgrad.check.backward.passing import Passed, call, passed
from stepgrad.check.backward.sampling import smaller
from stepgrad.check.backward.seeds import BACKWARD_SEED
from stepgrad.check.backward.signatures import arguments, parameters_of, returned_names
from stepgrad.check.backward.subject import Flat, Inputs, Subject, as_array, flat, fresh, is_floating, short_name
from stepgrad.check.backward.watching import functions_of
from stepgrad.errors import ArgumentError
from stepgrad.tree import flatten

Function = Callable[..., Any]


def subject_of(forward: Function, backward: Function, inputs: Any) -> Subject:
    """Two functions that know nothing of stepgrad.

    Args:
        forward: returns the loss, or a tuple with the loss (the first number without axes) and what the
            backward needs. If it returns no such number, the first array is its output, which gets a
            random downstream gradient.
        backward: its arguments are found by name: an input, what `forward` returned under that name, an
            entry of the cache, a downstream gradient (`dout`, `grad_output`, …). What `forward` returns
            without a name goes to the parameters that are left, in order.
        inputs: dict by parameter of `forward` or `backward`, or a tuple or list in the order of
            `forward`, or one array; nested dicts and lists of arrays are allowed. Integers become
            floating-point numbers where a gradient of them is asked for, and large arrays are cut down,
            where the functions run with that.

    Raises:
        ArgumentError: something can't be called, or an argument can't be found.
    """
    for function, name in ((forward, "forward"), (backward, "backward")):
        if not callable(function):
            raise ArgumentError(
                f"check_backward was given {function!r:.60} as {name}",
                "it calls both functions",
                "pass check_backward(forward, backward, inputs)",
            )
    pair = _with_floats(_Pair.of(forward, backward, _given(forward, backward, inputs)))
    if not pair.parts.arrays:
        raise ArgumentError(
            "the inputs hold no floating-point array: "
            + (", ".join(f"{n} is {_kind(v)}" for n, v in pair.given.items()) or "there are none"),
            "integers change in steps, so they have no gradient",
            "convert what is differentiated: x.astype(np.float64)",
        )
    pair, notes = _cut_down(pair)
    code = getattr(backward, "__code__", None)
    return Subject(
        name=_named(backward),
        file=getattr(code, "co_filename", None),
        forward=pair.run_forward,
        backward=pair.run_backward,
        inputs=pair.parts.arrays,
        functions=tuple(functions_of(backward)) if isinstance(backward, FunctionType) else (),
        forward_functions=tuple(functions_of(forward)) if isinstance(forward, FunctionType) else (),
        gradient_names=pair.names,
        notes=notes,
    )


def _named(function: Function) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _kind(value: Any) -> str:
    array = as_array(value)
    return type(value).__name__ if array is None else f"{array.dtype} {array.shape}"


def _given(forward: Function, backward: Function, inputs: Any) -> dict[str, Any]:
    """The inputs by the name of the parameter: what forward doesn't take, only backward gets."""
    if not isinstance(inputs, Mapping):
        return arguments(_named(forward), forward, inputs)
    own = {p.name for p in parameters_of(forward)}
    later = {n: v for n, v in inputs.items() if n not in own and n in {p.name for p in parameters_of(backward)}}
    return {**arguments(_named(forward), forward, {n: v for n, v in inputs.items() if n not in later}), **later}


@dataclass(frozen=True)
class Context:
    """What a forward returned.

    Attributes:
        returned: all of it, in order.
        names: what the return statement calls it; `return[1]` where that is no name.
        loss: the position of the loss or output.
    """

    returned: tuple[Any, ...]
    names: tuple[str, ...]
    loss: int

    @property
    def is_loss(self) -> bool:
        """Whether forward's output is a single number, so that its downstream gradient is 1."""
        return np.asarray(as_array(self.returned[self.loss])).size == 1


@dataclass(frozen=True)
class _Pair:
    """A forward and a backward with their inputs.

    Attributes:
        given: the inputs by name.
        parts: the same, flattened.
        of_forward: the names of those that forward takes.
        called: what the return statements of forward and backward call their values.
        generators: what either draws random numbers from, and where that stood.
        parameters: of the backward.
        plans: what each parameter gets, by what there is to get.
        names: input -> the user's name of its gradient, known once the backward has run.
    """

    forward: Function
    backward: Function
    given: Mapping[str, Any]
    parts: Flat
    of_forward: tuple[str, ...]
    called: tuple[Sequence[str | None], Sequence[str | None]]
    generators: Sequence[tuple[Any, Any]]
    parameters: Sequence[inspect.Parameter]
    plans: dict[tuple[Any, ...], Passed] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(forward: Function, backward: Function, given: Mapping[str, Any]) -> _Pair:
        own = {p.name for p in parameters_of(forward)}
        later = {p.name for p in parameters_of(backward)} - own
        found = {
            id(generator): (generator, state) for f in (forward, backward) for generator, state in generators_of(f)
        }
        return _Pair(
            forward,
            backward,
            given,
            flat(given),
            tuple(n for n in given if n in own or n not in later),
            (returned_names(forward), returned_names(backward)),
            tuple(found.values()),
            parameters_of(backward),
        )

    def run_forward(self, values: Inputs) -> tuple[Any, Context]:
        given = self.parts.rebuild(values)
        with same_random_numbers(self.generators):
            result = call(self.forward, {n: given[n] for n in self.of_forward})
        returned = result if isinstance(result, tuple) else (result,)
        called = self.called[0] if len(self.called[0]) == len(returned) else [None] * len(returned)
        names = tuple(name or f"return[{i}]" for i, name in enumerate(called))
        at = position_of_output(returned, _named(self.forward))
        return returned[at], Context(returned, names, at)

    def run_backward(self, values: Inputs, context: Context, downstream: Any) -> dict[str, Any]:
        known = self._known(values, context)
        back, rest = self._passed(known, context)
        with same_random_numbers(self.generators, BACKWARD_SEED.get()):  # what backward draws is not what forward drew
            result = back.call(
                self.backward,
                known,
                downstream=1.0 if downstream is None else downstream,
                context=rest,
                output=context.returned[context.loss],
                rate=1.0,
            )
        found = collected(result, self.called[1], self.parts.arrays)
        self.names.clear()
        self.names.update(found.names)
        return found.gradients

    def _known(self, values: Inputs, context: Context) -> dict[str, Any]:
        """What a parameter of the backward may be called after: an input, what forward returned, an entry of a cache
        or of a nested input."""
        given = self.parts.rebuild(values)
        known = {short_name(path): fresh(value) for path, value in values.items()}
        nested = [v for v in given.values() if isinstance(v, (dict, list, tuple))]
        if len(nested) == 1:
            known |= {p.name: nested[0] for p in self.parameters if HOLDER.match(p.name)}
        for held in [*given.values(), *context.returned]:
            if isinstance(held, dict):
                known |= {n: v for n, v in held.items() if isinstance(n, str)}
        known |= zip(context.names, context.returned, strict=True)
        return {**given, **{n: v for n, v in known.items() if n not in given}}

    def _passed(self, known: Mapping[str, Any], context: Context) -> tuple[Passed, Any]:
        """What each parameter of the backward gets; and what is the cache among what forward returned."""
        taken = {p.name for p in self.parameters if p.name in known}
        left = {
            name: value
            for i, (name, value) in enumerate(zip(context.names, context.returned, strict=True))
            if i != context.loss and name not in taken
        }
        spare = tuple(n for n, v in left.items() if not (isinstance(v, dict) and taken & set(v)))
        case = (tuple(known), spare, bool(left), context.is_loss)
        if case not in self.plans:
            back = passed(
                _named(self.backward),
                self.backward,
                case[0],
                downstream=True,
                context=case[2],
                spare=spare,
                loss=case[3],
            )
            defaults = {p.name for p in self.parameters if p.default is not p.empty}
            sources = {n: s for n, s in back.sources.items() if s != "rate" or n not in defaults}
            self.plans[case] = replace(back, sources=sources)
        return self.plans[case], _cache(list(left.values()))


def _cache(left: list[Any]) -> Any:
    """The value that a parameter called `cache` gets: the one that is no array, or all."""
    held = [v for v in left if not is_floating(v)]
    one = held if len(held) == 1 else left
    return one[0] if len(one) == 1 else tuple(left)


def position_of_output(returned: Sequence[Any], name: str) -> int:
    """Which of the values that a function returned is its loss: the first single number; else the first array.

    Raises:
        ArgumentError: there is no floating-point number among them.
    """
    floating = [i for i, value in enumerate(returned) if is_floating(value)]
    scalars = [i for i in floating if np.asarray(as_array(returned[i])).size == 1]
    if not floating:
        value = returned[0] if len(returned) == 1 else returned
        array = as_array(value)
        kind = f"a {type(value).__name__}" if array is None else f"an array of {array.dtype}"
        raise ArgumentError(
            f"{name} returned {'nothing' if value is None else kind}",
            "a gradient says how a number changes with the inputs, so there must be one that depends on them",
            "return the output or the loss as an array of floats, first in a tuple with what backward needs",
        )
    return (scalars or floating)[0]


# --- inputs that are changed first


def _with_floats(pair: _Pair) -> _Pair:
    """Integers made floating-point numbers where backward has a gradient of them, and forward runs with these.

    If there is nothing else, all of them may have one.
    """
    names = list(pair.given)
    if pair.parts.arrays:
        try:
            words = set(re.findall(r"\w+", inspect.getsource(pair.backward)))
        except (OSError, TypeError):
            return pair
        names = gradients_of_integers(pair.given, words)
    found = pair
    for name in names:
        changed = _Pair.of(pair.forward, pair.backward, {**found.given, name: _floating(found.given[name])})
        found = changed if _runs(changed) else found
    return found


def _floating(value: Any) -> Any:
    leaves, _, rebuild = flatten(value)
    whole = [isinstance(v, np.ndarray) and v.dtype.kind in "iu" and v.ndim > 0 for v in leaves]
    return rebuild([v.astype(np.float64) if is_whole else v for v, is_whole in zip(leaves, whole, strict=True)])


def _runs(pair: _Pair, *, both: bool = False) -> bool:
    try:
        output, context = pair.run_forward(pair.parts.arrays)
        if both:
            downstream = None if context.is_loss else np.ones(np.asarray(as_array(output)).shape)
            pair.run_backward(pair.parts.arrays, copied(context), downstream)
    except Exception:
        return False
    return True


def _cut_down(pair: _Pair) -> tuple[_Pair, tuple[str, ...]]:
    """The same with the first few elements of large arrays, where both functions run with these."""
    given, told = smaller(dict(pair.given))
    small = _Pair.of(pair.forward, pair.backward, given) if told else pair
    if not told or not _runs(small, both=True):
        return pair, ()
    return small, (f"large inputs were cut down: {told} along an axis",)


# --- random numbers


class same_random_numbers:  # noqa: N801 - a context manager
    """Inside, NumPy's and Python's global generators start from a fixed seed, and the given ones from where they
    were when this was first seen; afterwards all are as before."""

    def __init__(self, generators: Sequence[tuple[Any, Any]], seed: int = 1) -> None:
        self.generators, self.seed = generators, seed

    def __enter__(self) -> None:
        self.before = np.random.get_state(), random.getstate(), [g.bit_generator.state for g, _ in self.generators]
        np.random.seed(self.seed)
        random.seed(self.seed)
        for generator, state in self.generators:
            generator.bit_generator.state = state
            generator.random(self.seed - 1)  # another seed, other numbers

    def __exit__(self, *error: object) -> None:
        of_numpy, of_python, states = self.before
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        for (generator, _), state in zip(self.generators, states, strict=True):
            generator.bit_generator.state = state


def generators_of(fn: Callable[..., Any]) -> list[tuple[Any, Any]]:
    """The random generators that a function can reach as globals or closed-over variables, and their states."""
    space = dict(getattr(fn, "__globals__", {}))
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            space[str(id(cell))] = cell.cell_contents
        except ValueError:
            continue
    return [(v, v.bit_generator.state) for v in space.values() if isinstance(v, np.random.Generator)]


# --- copies


def copied(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A copy of nested containers and arrays; what is the same object in two places stays the same object."""
    memo = {} if memo is None else memo
    known = memo.get(id(value))
    if known is not None:
        return known[1]
    made: Any
    if isinstance(value, np.ndarray):
        made = value.copy()
    elif isinstance(value, dict):
        made = {key: copied(part, memo) for key, part in value.items()}
    elif isinstance(value, list):
        made = [copied(part, memo) for part in value]
    elif isinstance(value, tuple):
        parts = [copied(part, memo) for part in value]
        made = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    elif isinstance(value, Context):
        made = Context(copied(value.returned, memo), value.names, value.loss)
    else:
        return value
    memo[id(value)] = value, made
    return made
