"""Functions with a backward of their own in a framework: torch.autograd.Function, jax.custom_vjp, sg.custom_rule.

Forward and backward are called directly, not through the framework, so that what a backward returns
is seen as it is: frameworks refuse a wrong shape with an error, or broadcast it. PyTorch and JAX are
never imported here before the user has imported them.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from stepgrad.check.backward.signatures import arguments, gradients_in_order, parameters_of, returned_names
from stepgrad.check.backward.subject import Inputs, Remark, Subject, as_array, flat, is_floating
from stepgrad.errors import ArgumentError, GradientError, UnsupportedError
from stepgrad.rules import CustomRule
from stepgrad.tape.leaves import as_tensor
from stepgrad.tensor import Array, ArrayLike
from stepgrad.tree import map_leaves


def framework_subject(function: Any, inputs: Any) -> Subject | None:
    """The subject for a function with its own backward; None for anything else.

    Args:
        function: a subclass of `torch.autograd.Function`, a `jax.custom_vjp` function, or a rule made by
            `sg.custom_rule`.
        inputs: the arguments of its forward: a dict by name, or a list or tuple in order.

    Raises:
        ArgumentError: arguments that don't fit the forward.
        GradientError: it has no backward.
    """
    if isinstance(function, CustomRule):
        return _of_custom_rule(function, inputs)
    if _is_torch(function):
        return _of_torch(sys.modules["torch"], function, inputs)
    if _is_jax(function):
        return _of_jax(sys.modules["jax"], function, inputs)
    return None


def is_framework_function(function: Any) -> bool:
    """Whether `framework_subject` takes it."""
    return isinstance(function, CustomRule) or _is_torch(function) or _is_jax(function)


def _is_torch(function: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(function, type) and issubclass(function, torch.autograd.Function)


def _is_jax(function: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(function, getattr(jax, "custom_vjp", ()))


def _no_backward(name: str, instead: str) -> GradientError:
    return GradientError(f"{name} has no backward", "there is no gradient of the user's to check", instead)


# --- stepgrad


def _of_custom_rule(rule: CustomRule, inputs: Any) -> Subject:
    name = getattr(rule.forward, "__name__", "custom rule")
    backward = rule._backward
    if backward is None:
        raise _no_backward(name, f"add one: @{name}.backward above def backward(g, out, *inputs)")
    given = arguments(name, rule.forward, inputs)
    keywords = {p.name for p in parameters_of(rule.forward) if p.kind is p.KEYWORD_ONLY}
    operands = [n for n in given if n not in keywords]
    settings = {n: given[n] for n in given if n in keywords}
    parts = flat({n: given[n] for n in operands})
    called = returned_names(backward)

    def call(values: Inputs) -> list[Any]:
        return [as_tensor(x) for x in parts.rebuild(values).values()]

    def forward(values: Inputs) -> tuple[Any, Any]:
        out = as_tensor(rule.forward(*call(values), **settings))
        return (out if any(isinstance(v, ArrayLike) for v in values.values()) else out.numpy()), out

    def run(values: Inputs, context: Any, downstream: Any) -> tuple[dict[str, Any], dict[str, str]]:
        g = as_tensor(np.ones_like(context.numpy()) if downstream is None else downstream)
        upstream = backward(g, context, *call(values), **settings)
        return gradients_in_order(operands, upstream, parts.arrays, called)

    return _subject(name, backward, forward, run, parts.arrays)


# --- PyTorch


class _Context:
    """What `ctx` is in a `torch.autograd.Function`, outside of PyTorch's engine."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()
        self.materialize_grads = True

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """Only forward-mode differentiation reads them."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Nothing else holds the inputs, so what becomes of them is nobody's concern."""

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Outputs of integers have no downstream gradient anyway."""

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize_grads = value


def _of_torch(torch: Any, function: Any, inputs: Any) -> Subject:
    name = function.__name__
    if function.backward is torch.autograd.Function.backward:
        raise _no_backward(name, f"write in class {name}: @staticmethod above def backward(ctx, *downstream)")
    for method in ("forward", "backward"):
        if not isinstance(inspect.getattr_static(function, method), staticmethod):
            raise ArgumentError(
                f"{name}.{method} is no static method",
                "PyTorch calls it with a context in place of self",
                f"write @staticmethod above def {method}(ctx, …)",
            )
    apart = function.setup_context is not torch.autograd.Function.setup_context
    given = arguments(f"{name}.forward", function.forward, inputs, skip=0 if apart else 1)
    names = list(given)
    parts = flat({n: v.detach().cpu().numpy() if isinstance(v, torch.Tensor) else v for n, v in given.items()})
    called = returned_names(function.backward)

    def opened(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    def closed(value: Any) -> Any:
        return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value

    def call(values: Inputs) -> list[Any]:
        return [map_leaves(opened, v) for v in parts.rebuild(values).values()]

    def forward(values: Inputs) -> tuple[Any, Any]:
        passed = call(values)
        context = _Context(tuple(isinstance(v, torch.Tensor) and v.is_floating_point() for v in passed))
        with torch.no_grad():
            if apart:
                outputs = function.forward(*passed)
                function.setup_context(context, tuple(passed), outputs)
            else:
                outputs = function.forward(context, *passed)
        return map_leaves(closed, outputs), context

    def run(values: Inputs, context: Any, downstream: Any) -> tuple[dict[str, Any], dict[str, str]]:
        arrived = (np.ones(()),) if downstream is None else downstream
        arrived = arrived if isinstance(arrived, tuple) else (arrived,)
        with torch.no_grad():
            upstream = function.backward(context, *[opened(np.array(g)) for g in arrived])
        return gradients_in_order(names, upstream, parts.arrays, called)

    def as_given(array: Array, like: Any) -> Any:
        if isinstance(like, torch.Tensor):
            return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
        return array[()] if isinstance(like, (float, int, np.generic)) else array

    return _subject(name, function.backward, forward, run, parts.arrays, closed, as_given)


# --- JAX


def _of_jax(jax: Any, function: Any, inputs: Any) -> Subject:
    name = getattr(function, "__name__", "custom_vjp")
    if getattr(function, "bwd", None) is None:
        raise _no_backward(name, f"call {name}.defvjp(forward, backward)")
    if getattr(function, "symbolic_zeros", False):
        raise UnsupportedError(
            f"{name} was defined with symbolic_zeros=True",
            "its forward gets objects in place of arrays, which only JAX makes",
            "check it without: leave symbolic_zeros out while you look for the mistake",
        )
    given = arguments(name, function.fun, inputs)
    names = list(given)
    fixed = {n % len(names) for n in function.nondiff_argnums}
    free = [n for position, n in enumerate(names) if position not in fixed]
    held = {n: v for n, v in given.items() if n not in free}
    parts = flat({n: map_leaves(lambda v: _plain(jax, v), given[n]) for n in free})
    called = returned_names(function.bwd)
    numpy = jax.numpy

    def opened(value: Any) -> Any:
        return numpy.asarray(value) if isinstance(value, np.ndarray) else value

    def closed(value: Any) -> Any:
        return _plain(jax, value)

    def call(values: Inputs) -> list[Any]:
        new = {n: map_leaves(opened, v) for n, v in parts.rebuild(values).items()}
        return [held.get(n, new.get(n)) for n in names]

    def forward(values: Inputs) -> tuple[Any, Any]:
        with _in_float64(jax):
            passed = call(values)
            outputs = function.fun(*passed)
            _, residuals = function.fwd(*passed)
        return map_leaves(closed, outputs), (residuals, outputs)

    def run(values: Inputs, context: Any, downstream: Any) -> tuple[dict[str, Any], dict[str, str]]:
        residuals, outputs = context
        with _in_float64(jax):
            arrived = map_leaves(numpy.ones_like if downstream is None else opened, outputs)
            if downstream is not None:
                arrived = map_leaves(opened, downstream)
            upstream = function.bwd(*[held[n] for n in names if n in held], residuals, arrived)
        return gradients_in_order(free, upstream, parts.arrays, called)

    def as_given(array: Array, like: Any) -> Any:
        with _in_float64(jax):
            return numpy.asarray(array) if isinstance(like, jax.Array) else array

    def disagreement() -> tuple[Remark, ...]:
        """JAX calls fwd in place of the function when it differentiates: both must compute the same."""
        with _in_float64(jax):
            passed = call(parts.arrays)
            ours, theirs = map_leaves(closed, function.fun(*passed)), map_leaves(closed, function.fwd(*passed)[0])
        if _largest_difference(ours, theirs) <= 1e-9:
            return ()
        text = f"{_called(function.fwd)} returns another value than {name}, in whose place it is called"
        return (Remark("forward-disagrees-with-cache", None, text, {"difference": _largest_difference(ours, theirs)}),)

    return _subject(name, function.bwd, forward, run, parts.arrays, closed, as_given, disagreement())


def _plain(jax: Any, value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _in_float64(jax: Any) -> AbstractContextManager[Any]:
    """JAX computes in float32 unless it is told otherwise; older versions keep the switch elsewhere."""
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    return owner.enable_x64(True)


def _called(function: Any) -> str:
    return getattr(function, "__name__", "the forward")


def _largest_difference(ours: Any, theirs: Any) -> float:
    pairs = [_listed(ours), _listed(theirs)]
    if len(pairs[0]) != len(pairs[1]) or any(a.shape != b.shape for a, b in zip(*pairs, strict=True)):
        return float("inf")
    gaps = [float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(*pairs, strict=True)]
    return max((gap if np.isfinite(gap) else float("inf") for gap in gaps), default=0.0)


def _listed(values: Any) -> Sequence[Array]:
    return [np.asarray(v, np.float64) for v in (values if isinstance(values, (tuple, list)) else [values])]


# --- what they have in common


def _subject(
    name: str,
    backward: Any,
    forward: Any,
    run: Any,
    inputs: Mapping[str, Array],
    closed: Any = as_array,
    as_given: Any = None,
    remarks: tuple[Remark, ...] = (),
) -> Subject:
    """The subject of a backward that returns one gradient for each input, in order."""
    if not inputs:
        raise ArgumentError(
            f"{name} was given no floating-point input",
            "only floating-point numbers have a gradient",
            "pass arrays of floats: x.astype(np.float64), or 3.0 for 3",
        )

    def gradients(values: Inputs, context: Any, downstream: Any) -> dict[str, Any]:
        return {key: closed(g) for key, g in run(values, copied(context), downstream)[0].items()}

    plain = inspect.unwrap(backward)
    known: dict[str, Any] = {} if as_given is None else {"as_given": as_given, "recordable": False}
    return Subject(
        name=name,
        file=inspect.getsourcefile(plain) if inspect.isfunction(plain) else None,
        forward=forward,
        backward=gradients,
        inputs=dict(inputs),
        functions=(plain,),
        gradient_names=_own_names(inputs, forward, run),
        expected=frozenset(inputs),
        remarks=remarks,
        as_array=lambda value: as_array(closed(value)),
        **known,
    )


def _own_names(inputs: Mapping[str, Array], forward: Any, run: Any) -> dict[str, str]:
    """What the user calls each gradient; nothing where the backward stops, which is found again later."""
    try:
        outputs, context = forward(inputs)
        return run(inputs, copied(context), downstream_of(outputs))[1]
    except Exception:
        return {}


def copied(context: Any) -> Any:
    """A copy of what the backward is given, which it may write to; itself where it can't be copied."""
    try:
        return copy.deepcopy(context)
    except Exception:
        return context


def downstream_of(outputs: Any, rng: np.random.Generator | None = None) -> Any:
    """A downstream gradient in the structure of the outputs: random, or ones; None for a loss."""

    def like(value: Any) -> Any:
        shape = np.asarray(as_array(value)).shape
        return np.ones(shape) if rng is None else rng.standard_normal(shape)

    if isinstance(outputs, (tuple, list)):
        return tuple(like(v) for v in outputs)
    return None if is_floating(outputs) and np.asarray(as_array(outputs)).shape == () else like(outputs)
