"""What is checked: a forward and a backward, whatever they were written as, behind one pair of calls.

An adapter makes a `Subject` of an object with two methods, a `torch.autograd.Function`, a
`jax.custom_vjp` function, a rule of `sg.custom_rule`, or two functions in a script. What follows only
calls `forward` and `backward` of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.tape.leaves import tensor
from stepgrad.tensor import Array, ArrayLike

Inputs = Mapping[str, Any]
Forward = Callable[[Inputs], tuple[Any, Any]]
Backward = Callable[[Inputs, Any, Any], dict[str, Any]]


@dataclass(frozen=True)
class Remark:
    """Something found before any line is judged: the two functions don't fit together.

    Attributes:
        mistake: the catalogue's name, as in `gradient-missing`.
        gradient: the user's name of the gradient, None where it is about the backward as a whole.
        text: what happened, as a sentence without its full stop.
        evidence: numbers and names that show it.
    """

    mistake: str
    gradient: str | None
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def as_array(value: Any) -> Array | None:
    """The array that a value of the user's code holds; None for what is no array and no number."""
    if isinstance(value, np.ndarray):
        return value if value.dtype != object else None
    if isinstance(value, (bool, int, float, np.generic)):
        return np.asarray(value)
    return value.numpy() if isinstance(value, ArrayLike) else None


def as_given(array: Array, like: Any) -> Any:
    """An array as the kind of value that the user's code had: the opposite of `as_array`."""
    if isinstance(like, ArrayLike):
        return tensor(array)
    return array[()] if isinstance(like, (float, int, np.generic)) else array


@dataclass(frozen=True)
class Subject:
    """A forward and a backward, called in one way.

    Attributes:
        name: how the user would call it: a function, a class, a file.
        file: where the backward stands; None where there is no file.
        forward: (inputs) -> (outputs, context). Inputs are NumPy arrays or, if `recordable`, tensors;
            every name in `inputs` is there. Outputs are a loss (no axes), an array, or a tuple of arrays.
            Each call starts afresh: no state is left over from the last.
        backward: (inputs, context, downstream) -> gradients by the name of the input. The context is
            that of a forward with arrays. Downstream is None where the output is a loss; otherwise it
            has the structure of the outputs. What belongs to no input stands under the user's own name.
            Gradients are what the user's code gave, with its own shape and dtype. The context is not
            changed, so the same one may be passed again.
        inputs: floating-point arrays in float64, nested structures flattened: `params['W1']`. Integers
            (labels, indices), texts and settings stay inside `forward`.
        functions: the user's functions whose lines are watched: the backward, and what it may call.
        forward_functions: the user's functions that `forward` runs: their variables name its values.
        recordable: whether `forward` works on tensors. Otherwise only differences tell the truth.
        gradient_names: input -> the user's own name of its gradient, as in {"self.W": "self.dW"}.
        expected: the inputs whose gradient should be returned; None: decide by what is returned.
        remarks: what is wrong with how the two fit together.
        notes: what a reader should know, as whole sentences.
        as_array, as_given: to NumPy and back, for the values inside the user's functions.
    """

    name: str
    file: str | None
    forward: Forward
    backward: Backward
    inputs: dict[str, Array]
    functions: tuple[Callable[..., Any], ...]
    forward_functions: tuple[Callable[..., Any], ...] = ()
    recordable: bool = True
    gradient_names: Mapping[str, str] = field(default_factory=dict)
    expected: frozenset[str] | None = None
    remarks: tuple[Remark, ...] = ()
    notes: tuple[str, ...] = ()
    as_array: Callable[[Any], Array | None] = as_array
    as_given: Callable[[Array, Any], Any] = as_given

    def __post_init__(self) -> None:
        for name, value in self.inputs.items():
            if value.dtype != np.float64:
                raise ArgumentError(
                    f"{name} has dtype {value.dtype}", "gradients are checked in float64", "pass float64 arrays"
                )


# --- nested inputs


@dataclass(frozen=True)
class Flat:
    """Nested inputs, flattened.

    Attributes:
        arrays: path -> floating-point array in float64, as in `params['W1']`.
        rebuild: values by path -> the nested inputs, with fresh containers; what is no
            floating-point array is as it was.
    """

    arrays: dict[str, Array]
    rebuild: Callable[[Inputs], dict[str, Any]]


def flat(inputs: Mapping[str, Any]) -> Flat:
    """Takes nested inputs apart: dicts, lists and tuples of arrays.

    Floating-point arrays, and floating-point numbers at the top level, become float64; everything
    else (integers, booleans, texts, None, objects) is passed on as it is, arrays copied.

    Example:
        >>> parts = flat({"X": np.ones((2, 3)), "params": {"W1": np.ones(2), "layers": 3}})
        >>> list(parts.arrays), parts.rebuild(parts.arrays)["params"]["layers"]
        (['X', "params['W1']"], 3)
    """
    arrays: dict[str, Array] = {}

    def take(node: Any, path: str) -> Callable[[Inputs], Any]:
        if isinstance(node, dict):
            parts = {key: take(value, f"{path}[{key!r}]") for key, value in node.items()}
            return lambda new: {key: part(new) for key, part in parts.items()}
        if isinstance(node, (list, tuple)):
            items = [take(value, f"{path}[{i}]") for i, value in enumerate(node)]
            if hasattr(type(node), "_fields"):  # a named tuple
                return lambda new: type(node)(*[item(new) for item in items])
            kind = list if isinstance(node, list) else tuple
            return lambda new: kind(item(new) for item in items)
        if is_floating(node):
            arrays[path] = np.array(as_array(node), np.float64)
            return lambda new: fresh(new[path])
        if isinstance(node, np.ndarray):
            return lambda new: node.copy()
        return lambda new: node

    parts = {name: take(value, str(name)) for name, value in inputs.items()}
    return Flat(arrays, lambda new: {name: part(new) for name, part in parts.items()})


def is_floating(value: Any) -> bool:
    """Whether a value has a gradient: an array or tensor of floating-point numbers, or one such number."""
    array = as_array(value) if not isinstance(value, bool) else None
    return array is not None and array.dtype.kind == "f"


def fresh(value: Any) -> Any:
    """A copy that may be written to; tensors are as they are."""
    return value.copy() if isinstance(value, np.ndarray) else value


def short_name(path: str) -> str:
    """The last part of a path, as people write it: W1 for `params['W1']`, W for `self.W`.

    Example:
        >>> short_name("params['W1']"), short_name("self.layers[0].W"), short_name("Ws[2]")
        ('W1', 'W', 'Ws[2]')
    """
    keyed = re.search(r"\[['\"]([^'\"]+)['\"]\]$", path)
    if keyed:
        return keyed[1]
    return path.rsplit(".", 1)[-1]
