"""What signatures and return statements say: which input is which argument, and what a gradient is called."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepgrad.check.backward.subject import as_array
from stepgrad.errors import ArgumentError
from stepgrad.tree import flatten

Parameters = Sequence[inspect.Parameter]


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature; `(*args)` for what is built in and doesn't tell, as NumPy's functions."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])


def parameters_of(function: Callable[..., Any], skip: int = 0) -> list[inspect.Parameter]:
    """The parameters of a function that can be passed one by one, the first `skip` left out."""
    found = list(signature_of(function).parameters.values())[skip:]
    return [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def arguments(name: str, function: Callable[..., Any], inputs: Any, skip: int = 0) -> dict[str, Any]:
    """The arguments of a function by name: from a dict by name, a list or tuple in order, or one array.

    Args:
        name: what the function is called in messages.
        function: the function; with *args, the names in `inputs` stand for themselves.
        inputs: what the user passed.
        skip: how many parameters are somebody else's (a context).

    Raises:
        ArgumentError: a parameter has no value, or a value has no parameter.
    """
    parameters = parameters_of(function, skip)
    names = [p.name for p in parameters]
    kinds = {p.kind for p in signature_of(function).parameters.values()}
    if not isinstance(inputs, Mapping):
        values = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(values) > len(names):
            if inspect.Parameter.VAR_POSITIONAL not in kinds:
                raise ArgumentError(
                    f"{name} was given {len(values)} inputs, and has the parameters {', '.join(names) or 'none'}",
                    "each parameter takes one input",
                    f"pass a dict by name: inputs={{{', '.join(f'{n!r}: …' for n in names)}}}",
                )
            names = [f"input{i}" for i in range(len(values))]
        inputs = dict(zip(names, values, strict=False))
    open_ended = bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})
    for given in inputs:
        if given not in names and not open_ended:
            close = difflib.get_close_matches(str(given), names, 1)
            raise ArgumentError(
                f"inputs has {given!r}, and {name} has the parameters {', '.join(names) or 'none'}",
                "inputs are passed by the name of the parameter",
                f"did you mean {close[0]!r}?" if close else f"rename it, or leave {given!r} out",
            )
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in inputs]
    if missing:
        raise ArgumentError(
            f"{name} needs {', '.join(missing)}, and inputs has {', '.join(map(repr, inputs)) or 'nothing'}",
            "forward is called with them to find out what its true gradient is",
            f"pass inputs={{{', '.join(f'{n!r}: …' for n in names)}}}",
        )
    ordered = [n for n in names if n in inputs]
    return {n: inputs[n] for n in [*ordered, *[given for given in inputs if given not in ordered]]}


def returned_names(function: Callable[..., Any]) -> list[str | None]:
    """What the last return statement calls its values: `return dx, dW` gives ["dx", "dW"].

    None for a value that is no name; nothing where the source can't be read.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return []
    inner = {
        id(deeper)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and node is not tree.body[0]
        for deeper in ast.walk(node)
    }
    returns = [n for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value is not None and id(n) not in inner]
    if not returns:
        return []
    value = max(returns, key=lambda node: node.lineno).value
    values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else [value]
    return [
        v.id if isinstance(v, ast.Name) else ast.unparse(v) if isinstance(v, ast.Attribute) else None for v in values
    ]


def gradients_in_order(
    names: Sequence[str], result: Any, wanted: Mapping[str, Any], called: Sequence[str | None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a backward returned in the order of its arguments, by the path of the input.

    Args:
        names: the arguments, in order.
        result: a gradient, or a tuple or list of them; an argument that is a nested structure has a
            gradient of the same structure. None: no gradient.
        wanted: the inputs by path.
        called: what the return statement calls them.

    Returns:
        Gradients by path; and what the user calls each.
    """
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    gradients: dict[str, Any] = {}
    own: dict[str, str] = {}
    for position, part in enumerate(parts):
        if part is None:
            continue
        label = called[position] if position < len(called) and len(called) == len(parts) else None
        argument = names[position] if position < len(names) else None
        leaves, paths, _ = flatten(part)
        for leaf, path in zip(leaves, paths, strict=True):
            if leaf is None:
                continue
            key = f"{argument}{path}" if argument is not None else (label or f"result[{position}]") + path
            if argument is not None and key not in wanted and as_array(leaf) is None and not hasattr(leaf, "shape"):
                continue
            gradients[key] = leaf
            own[key] = f"{label or f'd{argument}'}{path}" if argument is not None else key
    return gradients, own
