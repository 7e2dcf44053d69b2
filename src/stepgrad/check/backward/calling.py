"""Two plain functions as a subject: how they are called, and which gradient belongs to which input."""

from __future__ import annotations

import ast
import difflib
import inspect
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from stepgrad.check.backward.subject import Flat, Subject, as_array, flat, short_name
from stepgrad.check.backward.watching import functions_of, source_of
from stepgrad.errors import ArgumentError
from stepgrad.tensor import ArrayLike
from stepgrad.tree import flatten

DOWNSTREAM = ("dout", "downstream", "upstream", "grad_output", "grad_out", "dL", "dloss", "dl", "dJ", "g", "grad", "dy",
              "dY", "dZ", "dA", "delta", "output_gradient", "dnext", "dA_next")  # fmt: skip
CACHES = ("cache", "caches", "ctx", "context", "saved", "memory", "activations", "values", "intermediates", "state")


def subject_of(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any) -> Subject:
    """Two functions that know nothing of stepgrad.

    Args:
        forward: returns the loss, or a tuple with the loss (the first number without axes) and what the
            backward needs. If it returns no such number, the first array is its output, which gets a
            random downstream gradient.
        backward: its arguments are found by name: an input, what `forward` returned under that name,
            an entry of the cache, a downstream gradient (`dout`, `grad_output`, …).
        inputs: dict by parameter of `forward`, or a tuple or list in its order; nested dicts and lists
            of arrays are allowed.

    Raises:
        ArgumentError: something can't be called, or an argument can't be found.
    """
    for fn, name in ((forward, "forward"), (backward, "backward")):
        if not callable(fn):
            raise ArgumentError(
                f"check_backward was given {fn!r:.60} as {name}",
                "it calls both functions",
                "pass check_backward(forward, backward, inputs)",
            )
    given = _by_name(forward, inputs)
    parts = flat(given)
    if not parts.arrays:
        raise ArgumentError(
            "the inputs hold no floating-point array: "
            + (", ".join(f"{k} is {_kind(v)}" for k, v in given.items()) or "there are none"),
            "integers change in steps, so they have no gradient",
            "convert what is differentiated: x.astype(np.float64)",
        )
    call = _Forward(forward, parts, _returned_names(forward))
    answer = _Backward(backward, tuple(given), tuple(parts.arrays))
    functions = functions_of(backward) if isinstance(backward, FunctionType) else []
    name = getattr(backward, "__name__", type(backward).__name__)
    code = getattr(backward, "__code__", None)
    return Subject(
        name=name,
        file=getattr(code, "co_filename", None),
        forward=call,
        backward=lambda inputs, context, downstream: answer(parts.rebuild(inputs), context, downstream),
        inputs=parts.arrays,
        functions=tuple(functions),
        forward_functions=tuple(functions_of(forward)) if isinstance(forward, FunctionType) else (),
        gradient_names=answer.names,
    )


def _kind(value: Any) -> str:
    array = as_array(value)
    return type(value).__name__ if array is None else f"{array.dtype} {array.shape}"


def _by_name(forward: Callable[..., Any], inputs: Any) -> dict[str, Any]:
    """The inputs by the name of the parameter of forward."""
    if isinstance(inputs, np.ndarray):
        inputs = (inputs,)
    if isinstance(inputs, (tuple, list)):
        names = [p.name for p in _parameters(forward)]
        if len(inputs) > len(names):
            raise ArgumentError(
                f"{len(inputs)} inputs were given, and forward has the parameters {', '.join(names) or '()'}",
                "each parameter takes one value",
                "pass as many inputs, or a dict by name",
            )
        return dict(zip(names, inputs, strict=False))
    if not isinstance(inputs, Mapping):
        raise ArgumentError(
            f"inputs is a {type(inputs).__name__}",
            "forward is called with arrays by name, or in order",
            'pass a dict: {"X": X, "W1": W1}',
        )
    return {str(name): value for name, value in inputs.items()}


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return [p for p in inspect.signature(fn).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    except (TypeError, ValueError):
        return []


@dataclass(frozen=True)
class Context:
    """What a forward returned.

    Attributes:
        returned: all of it, in order.
        names: what the return statement calls it, as far as it tells.
        loss: the position of the loss or output.
    """

    returned: tuple[Any, ...]
    names: tuple[str, ...]
    loss: int


class _Forward:
    """Calls the user's forward with a fixed seed."""

    def __init__(self, fn: Callable[..., Any], parts: Flat, names: tuple[str, ...]) -> None:
        self.fn, self.parts, self.names = fn, parts, names
        self.generators = generators_of(fn)

    def __call__(self, inputs: Mapping[str, Any]) -> tuple[Any, Context]:
        arguments = self.parts.rebuild(inputs)
        with same_random_numbers(self.generators):
            result = _call(self.fn, arguments, "forward")
        returned = result if isinstance(result, tuple) else (result,)
        loss = _position_of_loss(returned)
        if loss is None:
            raise ArgumentError(
                f"forward returned {_described(result)}",
                "a gradient says how a number changes with the inputs, so there must be one that depends on them",
                "return the loss, or a tuple that begins with it: return loss, cache",
            )
        names = self.names if len(self.names) == len(returned) else ("",) * len(returned)
        return returned[loss], Context(returned, names, loss)


def _described(result: Any) -> str:
    return "nothing" if result is None else f"a {type(result).__name__}"


def _position_of_loss(returned: Sequence[Any]) -> int | None:
    floating = [i for i, v in enumerate(returned) if _is_floating(v)]
    scalars = [i for i in floating if np.size(_value(returned[i])) == 1]
    return next(iter(scalars + floating), None)


def _is_floating(value: Any) -> bool:
    if isinstance(value, ArrayLike):
        return value._tensor.equation.type.is_float
    array = as_array(value)
    return array is not None and array.dtype.kind == "f"


def _value(value: Any) -> Any:
    return value.numpy() if isinstance(value, ArrayLike) else value


def _call(fn: Callable[..., Any], arguments: dict[str, Any], what: str) -> Any:
    names = {p.name for p in _parameters(fn)}
    if set(arguments) <= names or not names:
        return fn(**arguments) if names else fn(*arguments.values())
    unknown = [n for n in arguments if n not in names]
    try:
        signature = inspect.signature(fn)
        if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            return fn(**arguments)
        signature.bind(*arguments.values())
    except TypeError:
        close = difflib.get_close_matches(unknown[0], names, 1)
        raise ArgumentError(
            f"{what} was to be called with {', '.join(arguments)}",
            f"{getattr(fn, '__name__', what)}{inspect.signature(fn)} has no parameter {unknown[0]}",
            f"rename it to {close[0]}"
            if close
            else f"name the inputs after its parameters: {', '.join(sorted(names))}",
        ) from None
    return fn(*arguments.values())


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


# --- the backward


class _Backward:
    """Calls the user's backward, and says which of its gradients belongs to which input."""

    def __init__(self, fn: Callable[..., Any], given: tuple[str, ...], paths: tuple[str, ...]) -> None:
        self.fn, self.given, self.paths = fn, given, paths
        self.parameters = _parameters(fn)
        self.generators = generators_of(fn)
        self.returned = _returned_names(fn)
        self.names: dict[str, str] = {}  # filled by the first call: input -> the user's name of its gradient

    def __call__(self, arguments: Mapping[str, Any], context: Context, downstream: Any) -> dict[str, Any]:
        values = [self._argument(p, arguments, context, downstream) for p in self.parameters]
        positional = [v for p, v in zip(self.parameters, values, strict=True) if p.kind is not p.KEYWORD_ONLY]
        keywords = {p.name: v for p, v in zip(self.parameters, values, strict=True) if p.kind is p.KEYWORD_ONLY}
        with same_random_numbers(self.generators, 2):
            result = self.fn(*[v for v in positional if v is not _DEFAULT], **keywords)
        return self._gradients(result, arguments)

    def _argument(
        self, parameter: inspect.Parameter, given: Mapping[str, Any], context: Context, downstream: Any
    ) -> Any:
        name = parameter.name
        if name in given:
            return given[name]
        rest = [v for i, v in enumerate(context.returned) if i != context.loss]
        returned = dict(zip(context.names, context.returned, strict=True))
        if name in returned and name not in ("", "return"):
            return _array_of(returned[name])
        if downstream is not None and name in DOWNSTREAM:
            return downstream
        caches = [v for v in rest if isinstance(v, (dict, list, tuple)) or not _is_floating(v)]
        for cache in [*caches, *given.values()]:
            if isinstance(cache, dict) and name in cache:
                return cache[name]
        if name in CACHES or name.rstrip("_").lower().endswith(("cache", "caches")):
            if len(caches or rest) == 1:
                return (caches or rest)[0]
            if rest:
                return tuple(rest)
        if name in DOWNSTREAM:
            return 1.0
        nested = [v for v in given.values() if isinstance(v, (dict, list, tuple))]
        if len(nested) == 1 and name.lower().startswith(("param", "weight", "net", "model", "theta")):
            return nested[0]
        short = {short_name(p): p for p in self.paths}
        if name in short:
            return _dig(given, short[name])
        if parameter.default is not parameter.empty:
            return _DEFAULT if parameter.kind is not parameter.KEYWORD_ONLY else parameter.default
        if len(rest) == 1 and len(self.parameters) == 1:
            return rest[0]
        if downstream is not None and _may_be_downstream(name):
            return downstream
        close = difflib.get_close_matches(name, [*given, *returned], 1)
        raise ArgumentError(
            f"backward has the parameter {name}, and there is no value of that name",
            f"known are the inputs {', '.join(given)}"
            + (f", and what forward returned: {', '.join(n for n in returned if n)}" if any(returned) else "")
            + ", a cache, and a downstream gradient",
            f"rename it, for example to {close[0]}" if close else "rename it, or return it from forward",
        )

    def _gradients(self, result: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        named = _named(result, self.returned)
        self.names.clear()
        found: dict[str, Any] = {}
        left = dict(named)
        for path in self.paths:
            name = _gradient_name(path, left)
            if name is not None:
                found[path], self.names[path] = left.pop(name), name
        if not isinstance(result, dict):  # by order, where names do not tell
            unnamed = [n for n in left if re.fullmatch(r"return(\[\d+\])*|\W*", n) or len(named) == len(self.paths)]
            for path in [p for p in self.paths if p not in found]:
                if not unnamed:
                    break
                shape = np.shape(_dig(arguments, path))
                fits = [n for n in unnamed if np.shape(left[n]) == shape]
                if len(unnamed) < sum(p not in found for p in self.paths) and not fits:
                    continue
                name = (fits or unnamed)[0]
                unnamed.remove(name)
                found[path], self.names[path] = left.pop(name), name
        return {**found, **left}


def _may_be_downstream(name: str) -> bool:
    return name.startswith(("d", "grad", "g_", "delta", "up")) or name in DOWNSTREAM


class _Default:
    """Stands for an argument that is left to its default."""


_DEFAULT = _Default()


def _array_of(value: Any) -> Any:
    return value


def _dig(arguments: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `params['W1']`."""
    leaves, paths, _ = flatten(dict(arguments))
    for leaf, at in zip(leaves, paths, strict=True):
        first, _, rest = at.removeprefix("[").partition("]")
        if first.strip("'\"") + rest == path:
            return leaf
    return None


def _named(result: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """What a backward returned, by name, nested structures flattened."""
    if isinstance(result, dict):
        found: dict[str, Any] = {}
        for key, value in result.items():
            if isinstance(value, (dict, list, tuple)):
                found.update({f"{key}{rest}": v for rest, v in _nested(value)})
            else:
                found[str(key)] = value
        return found
    if isinstance(result, (list, tuple)):
        known = names if len(names) == len(result) else tuple(f"return[{i}]" for i in range(len(result)))
        found = {}
        for name, value in zip(known, result, strict=True):
            if isinstance(value, dict):
                found.update(_named(value, ()))
            elif isinstance(value, (list, tuple)):
                found.update({f"{name}{rest}": v for rest, v in _nested(value)})
            else:
                found[name] = value
        return found
    return {} if result is None else {names[0] if len(names) == 1 else "return": result}


def _nested(value: Any) -> list[tuple[str, Any]]:
    leaves, paths, _ = flatten(value)
    return list(zip(paths, leaves, strict=True))


_BEFORE = r"(?:d_?L_?d_?|dloss_?d?|grad(?:ient)?s?_?(?:of_)?|delta_?|del_?|nabla_?|partial_?|d_?|g_?|D_?)"
_AFTER = r"(?:_?grad(?:ient)?s?|_g|_d|_bar)"


def forward_name(gradient: str) -> tuple[str, ...]:
    """The names of what a gradient may be the gradient of, by the way it is called.

    Example:
        >>> forward_name("dW2"), forward_name("grad_x"), forward_name("b1_grad")
        (('W2', 'dW2'), ('x', 'grad_x'), ('b1', 'b1_grad'))
    """
    text = gradient.removeprefix("self.").removesuffix(".append").removesuffix(".insert")
    found = []
    for pattern in (rf"{_BEFORE}(\w.*)", rf"(.*\w?){_AFTER}"):
        match = re.fullmatch(pattern, text)
        if match and match[1]:
            found.append(match[1])
    keyed = re.fullmatch(r"\w+\[(.+)\]", text)
    if keyed:
        found += forward_name(keyed[1].strip("'\""))
    return (*found, text)


def _gradient_name(path: str, gradients: Mapping[str, Any]) -> str | None:
    """Which of the returned names is that of the gradient of an input."""
    wanted = {short_name(path), path}
    for exact in (True, False):
        for name in gradients:
            for candidate in forward_name(name):
                same = candidate in wanted if exact else _loose(candidate) in {_loose(w) for w in wanted}
                if same:
                    return name
    return None


def _loose(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _returned_names(fn: Callable[..., Any]) -> tuple[str, ...]:
    """What the last return statement calls what it returns."""
    source = source_of(fn) if isinstance(fn, FunctionType) else source_of(getattr(fn, "__func__", fn)) if hasattr(
        fn, "__func__"
    ) else None  # fmt: skip
    if source is None:
        return ()
    try:
        tree = ast.parse(source.edited(()))
    except SyntaxError:
        return ()
    returns = [n for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value is not None]
    if not returns:
        return ()
    value = max(returns, key=lambda n: n.lineno).value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    return tuple(
        p.id if isinstance(p, ast.Name) else ast.unparse(p) if isinstance(p, ast.Attribute) else f"return[{i}]"
        for i, p in enumerate(parts)
    )


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
