"""Values for the forward and backward passes of a file: from the file itself, from options, or guessed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from stepgrad.check.backward.guessing import guesses, shapes_told
from stepgrad.check.backward.naming import BACKWARDS, CONTEXT, DATA, DOWNSTREAM, FORWARDS, LOSSES, OUTPUT, RATE
from stepgrad.check.backward.objects import method
from stepgrad.check.backward.pairs import Pair
from stepgrad.check.backward.sampling import smaller
from stepgrad.check.backward.signatures import parameters_of
from stepgrad.check.backward.state import held
from stepgrad.check.scripts import Script, given_by
from stepgrad.errors import ArgumentError


@dataclass(frozen=True)
class Values:
    """What a forward and a backward are called with.

    Attributes:
        values: by name.
        told: where they come from, in words.
    """

    values: dict[str, Any]
    told: str


def values_for(
    pair: Pair,
    thing: Any,
    module: ModuleType,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    fit: Callable[[dict[str, Any]], float],
) -> Values:
    """Finds a value for each parameter.

    The first of these that there is: random numbers of the shape asked for; what the file's
    `<name>_inputs()` returns, or its `inputs()`, or its dict INPUTS; a variable of the file with that name;
    the default; a guess from the names, tried in every arrangement until the functions run.

    Args:
        pair: what is called.
        thing: its object, if it has one: the lengths of its arrays are tried.
        module: the imported file.
        shapes: parameter -> shape of an array of standard normal numbers.
        seed: where the random numbers start.
        fit: tries values; how well they fit, infinite for perfectly. Raises where the forward does not run.

    Raises:
        ArgumentError: a parameter has no value; the message says how to give it one.
    """
    names, defaults = _parameters(pair)
    given = _given(pair, module, names)
    rng = np.random.default_rng(seed)
    asked = {n: rng.standard_normal(shape) for n, shape in shapes.items() if n in names}
    variables = {n: v for n in names if n not in given and n not in asked and (v := _variable(module, n)) is not None}
    values = {**variables, **given, **asked}
    values, cut = _cut_down(values, fit)
    missing = [n for n in names if n not in values and n not in defaults]
    told = [f"{', '.join(found)} {where}" for found, where in [
        (list(asked), "of the shape asked for"), (list(given), "as the file gives them"),
        (list(variables), "as in the file")] if found]  # fmt: skip
    told += [f"cut down ({cut})"] if cut else []
    for rest in (missing, [n for n in missing if not _is_made_elsewhere(n)]):
        if not rest:
            return Values(_ordered(_floating(values, fit), names), "; ".join(told))
        guess = _guess(rest, pair, thing, values, seed, fit, names)
        if guess is not None:
            return Values(_ordered({**values, **guess}, names), "; ".join([*told, f"{shapes_told(guess)}, guessed"]))
    raise _no_value(pair, module, [n for n in missing if not _is_made_elsewhere(n)] or missing)


def _ordered(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {n: values[n] for n in names if n in values}


def _parameters(pair: Pair) -> tuple[list[str], set[str]]:
    """The parameters that inputs may be needed for, and those with a default."""
    if pair.kind in ("object", "class"):
        kind = pair.forward if isinstance(pair.forward, type) else type(pair.forward)
        methods = [m for m in (method(kind, FORWARDS), method(kind, LOSSES), method(kind, BACKWARDS)) if m]
        functions = [getattr(kind, m) for m in methods]
    elif pair.kind == "framework" and isinstance(pair.forward, type):
        functions = [inspect.getattr_static(pair.forward, "forward").__func__]
    else:
        functions = list(pair.functions if pair.kind != "functions" else (pair.forward,))
    names: dict[str, None] = {}
    defaults: set[str] = set()
    for number, function in enumerate(functions):
        for parameter in parameters_of(function):
            n = parameter.name
            lower = {known.lower() for known in names}
            if n in ("self", "ctx", "cls") or (
                number and (_is_made_elsewhere(n) or n.lower() in lower) and n not in names
            ):
                continue
            if number and n not in names and DATA.fullmatch(n) and any(DATA.fullmatch(known) for known in names):
                continue  # forward(a) and backward(x, y): both mean the data
            names[n] = None
            if parameter.default is not parameter.empty:
                defaults.add(n)
    return list(names), defaults


def _is_made_elsewhere(name: str) -> bool:
    """Whether a parameter of a backward or loss is usually no input: a cache, an output, a gradient."""
    return any(p.fullmatch(name) for p in (DOWNSTREAM, CONTEXT, OUTPUT, RATE))


def _given(pair: Pair, module: ModuleType, names: Sequence[str]) -> dict[str, Any]:
    owners = [pair.name, *(getattr(f, "__name__", "") for f in pair.functions)]
    if not isinstance(pair.forward, type) and not inspect.isroutine(pair.forward):
        owners.append(type(pair.forward).__name__)
    own = [n for n in owners if hasattr(module, f"{n}_inputs")]
    return given_by(Script(str(module.__file__), (own or owners)[0], pair.forward, module), names)


def _variable(module: ModuleType, name: str) -> Any:
    """A variable of the file that holds numbers: an array, a number, or a dict, list or tuple of them."""
    known = {n.lower(): n for n in reversed(list(vars(module)))}
    for candidate in (name, known.get(name.lower(), ""), known.get(f"{name.lower()}_train", "")):
        value = getattr(module, candidate, None) if candidate and not candidate.startswith("__") else None
        if _holds_numbers(value):
            return value
    return None


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and any(_holds_numbers(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_holds_numbers(v) for v in value)
    return isinstance(value, (np.ndarray, np.generic, int, float)) and not isinstance(value, bool)


def _cut_down(values: dict[str, Any], fit: Callable[[dict[str, Any]], float]) -> tuple[dict[str, Any], str]:
    """Large arrays cut down, where the forward runs with that."""
    small, told = smaller(values)
    if told:
        try:
            fit(small)
        except Exception:
            return values, ""
    return small, told


def _floating(values: dict[str, Any], fit: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """Integers made floating-point numbers where the functions run with these as well: so not labels and indices.

    People write np.array([[1, 2], [3, 4]]) for numbers that have a gradient.
    """
    for name, value in values.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim:
            other = {**values, name: value.astype(np.float64)}
            try:
                fit(other)
            except Exception:
                continue
            values = other
    return values


def _guess(
    names: Sequence[str],
    pair: Pair,
    thing: Any,
    values: Mapping[str, Any],
    seed: int,
    fit: Callable[[dict[str, Any]], float],
    order: Sequence[str],
) -> dict[str, Any] | None:
    """The guess with which the two passes go together best; None if forward runs with none."""
    functions = [f for f in pair.functions if inspect.isfunction(f)]
    lengths = {n for _, v in held([thing, values], "") if isinstance(v, np.ndarray) and v.ndim == 2 for n in v.shape}
    best: tuple[float, dict[str, Any] | None] = -np.inf, None
    for guess in guesses(names, functions, sorted(lengths), seed):
        try:
            found = fit(_ordered({**values, **guess}, order))
        except Exception:
            continue
        if best[1] is None or found > best[0]:
            best = found, guess
        if found == np.inf:
            break
    return best[1]


# --- objects of classes

_SIZES: list[tuple[str, Any]] = [
    (r"n_?in\w*|in_?\w*|input\w*|D_in|fan_in|nin|D|d_in|n_x|num_inputs|n_inputs|n_features|num_features|features|dim|size"
     r"|channels|n", 5),
    (r"n_?h\w*|hid\w*|H|d_hidden|units|num_hidden|n_units", 3),
    (r"n_?out\w*|out\w*|D_out|fan_out|nout|d_out|n_y|num_outputs|num_classes|n_classes|classes|C|K|M", 2),
    (r"layers?|sizes|\w*_(sizes|dims)|dims|architecture|shape", [5, 3, 2]),
    (r"lr|learning_rate|eta|alpha|\w*reg\w*|lambda_?|lambd", 0.1),
    (r"p|prob|rate|dropout\w*|keep_prob|\w*ratio", 0.5),
    (r"seed|random_state|rng_seed", 0),
    (r"W|w|weights?", np.linspace(-1, 1, 10).reshape(5, 2)),
    (r"b|bias", np.array([0.3, -0.2])),
    (r"gamma", np.linspace(0.5, 1.5, 5)),
    (r"beta", np.linspace(-1, 1, 5)),
]  # fmt: skip


def object_of(pair: Pair) -> tuple[Any, str]:
    """The object of a pair, made with small sizes where the file only has its class; and how, in words.

    Raises:
        ArgumentError: its `__init__` needs something that its name does not tell.
    """
    if pair.kind != "class":
        return pair.forward, ""
    kind = pair.forward
    arguments: dict[str, Any] = {}
    for parameter in parameters_of(kind):
        if parameter.default is not parameter.empty:
            continue
        name = parameter.name
        value = next((v for pattern, v in _SIZES if re.fullmatch(pattern, name, re.IGNORECASE)), None)
        if value is None:
            raise ArgumentError(
                f"{kind.__name__} has no object in the file, and needs {name} to be made",
                "a forward is called on an object, and what to make it with does not follow from the name",
                f"make one in the file: {kind.__name__.lower()} = {kind.__name__}(…)",
            )
        arguments[name] = value.copy() if isinstance(value, np.ndarray) else value
    shown = ", ".join(f"{n}={v!r}" if not isinstance(v, np.ndarray) else f"{n} {v.shape}" for n, v in arguments.items())
    state = np.random.get_state()
    np.random.seed(1)
    try:
        return kind(**arguments), f"{kind.__name__}({shown})"
    finally:
        np.random.set_state(state)


def _no_value(pair: Pair, module: ModuleType, missing: Sequence[str]) -> ArgumentError:
    file = str(module.__file__).replace("\\", "/").rpartition("/")[2]
    shown = ", ".join(missing)
    return ArgumentError(
        f"{pair.name} has no value for {shown}",
        "it is checked at values; INPUTS, inputs() and the variables of the file were looked at, and no shapes that "
        "follow from the names made it run",
        f"write in the file: INPUTS = {{{', '.join(f'{n!r}: …' for n in missing)}}}\n"
        f"           or give shapes: stepgrad check {file} {' '.join(f'--shape {n}=3,5' for n in missing)}",
    )
