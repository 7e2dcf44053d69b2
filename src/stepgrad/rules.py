"""Taking differentiation into one's own hands: custom rules, checkpoints, names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from stepgrad.errors import ArgumentError, GradientError, ShapeError
from stepgrad.tape.equation import next_serial
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op
from stepgrad.tape.recording import record, recording
from stepgrad.tensor import ArrayLike, Tensor, describe


def name(x: ArrayLike, name: str) -> Any:
    """Gives a tensor or parameter a name, for printing and messages, and returns it.

    Example:
        >>> sg.name(sg.tensor([1.0]), "Z1").name
        'Z1'
    """
    if not isinstance(x, ArrayLike):
        raise ArgumentError(
            f"a {type(x).__name__} was to be named {name!r}", "only tensors have names", "use sg.tensor(x)"
        )
    if isinstance(x, Tensor):
        x.equation.name = name
    else:
        x.name = name  # type: ignore[attr-defined]
    return x


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose inner values are computed again in the backward pass, instead of cached.

    Only what enters it is kept. It costs one more evaluation of `fn`, and the gradients are the same.

    Example:
        >>> block = sg.checkpoint(lambda x: np.tanh(np.sin(x)))
        >>> sg.grad(lambda x: np.sum(block(x)))(np.array([0.0]))
        array([1.])
    """

    check_callable(fn, "checkpoint")

    @functools.wraps(fn)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        with recording(region=next_serial()):
            return fn(*args, **kwargs)

    return checkpointed


class CustomRule:
    """A function with its own backward. Made by `sg.custom_rule`.

    The forward function's equations are on the tape as usual, without rules of their own; an
    equation that passes its value on carries the custom rule.
    """

    def __init__(self, forward: Callable[..., Any], backward: Callable[..., Any] | None = None) -> None:
        functools.update_wrapper(self, forward)
        self.forward, self._backward = forward, backward
        self._last: tuple[Tensor, Any] | None = None
        self._op = Op(
            getattr(forward, "__name__", "custom"),
            shape=lambda value, *inputs, **params: value.shape,
            dtype=lambda value, *inputs, **params: value.dtype,
            numpy=lambda value, *inputs, **params: value,
            rules=self._rule,
            text="{0}",
            samples=(),
            cost=lambda *types, **params: 0.0,
            doc=forward.__doc__ or "",
        )

    def backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: sets the backward, (downstream gradient, output, *inputs, **settings) -> upstream gradients."""
        self._backward = backward
        return backward

    def __call__(self, *inputs: Any, **settings: Any) -> Tensor:
        tensors = tuple(as_tensor(x) for x in inputs)
        with recording(differentiable=False):
            value = as_tensor(self.forward(*tensors, **settings))
        return record(self._op, (value, *tensors), settings)

    def _rule(self, operand: int) -> Any:
        if operand == 0:
            return None

        def rule(g: Tensor, out: Tensor, value: Tensor, *inputs: Tensor, **settings: Any) -> Tensor:
            last = self._last
            upstream = last[1] if last is not None and last[0] is g else self._upstream(g, out, inputs, settings)
            self._last = (g, upstream) if operand < len(inputs) else None
            wanted = upstream[operand - 1]
            x = inputs[operand - 1]
            if wanted is None:
                return as_tensor(0.0).astype(x.dtype) * x.astype(x.dtype) if x.shape else as_tensor(0.0).astype(x.dtype)
            wanted = as_tensor(wanted)
            if wanted.shape != x.shape:
                raise ShapeError(
                    f"the backward of {self._op.name} returned shape {wanted.shape} for {describe(x)}",
                    "a gradient has the shape of what it is the gradient of",
                    f"return shape {x.shape}: transpose it, or sum over the axes that were broadcast",
                )
            return wanted if wanted.dtype == x.dtype else wanted.astype(x.dtype)

        return rule

    def _upstream(self, g: Tensor, out: Tensor, inputs: tuple[Tensor, ...], settings: dict[str, Any]) -> Any:
        if self._backward is None:
            raise GradientError(
                f"{self._op.name} has no backward",
                "sg.custom_rule was given a forward function only",
                f"add one: @{self._op.name}.backward above def backward(g, out, *inputs)",
            )
        upstream = self._backward(g, out, *inputs, **settings)
        upstream = tuple(upstream) if isinstance(upstream, (tuple, list)) else (upstream,)
        if len(upstream) != len(inputs):
            raise GradientError(
                f"the backward of {self._op.name} returned {len(upstream)} gradients for {len(inputs)} operands",
                "each operand has one upstream gradient",
                "return one for each operand, in order; None where no gradient flows",
            )
        return upstream


def custom_rule(forward: Callable[..., Any], backward: Callable[..., Any] | None = None) -> CustomRule:
    """Gives a function its own backward.

    Args:
        forward: operands are positional (tensors), settings are keywords; returns one tensor.
        backward: (downstream gradient, output, *operands, **settings) -> one upstream gradient for
            each operand, None where none flows. May be set later, with the decorator `.backward`.

    Example:
        >>> @sg.custom_rule
        ... def clipped(x):
        ...     return x
        >>> @clipped.backward
        ... def _(g, out, x):
        ...     return np.clip(g, -1, 1)
        >>> sg.grad(lambda x: np.sum(5 * clipped(x)))(np.array([1.0, 2.0]))
        array([1., 1.])
    """
    check_callable(forward, "custom_rule")
    if backward is not None:
        check_callable(backward, "custom_rule")
    return CustomRule(forward, backward)


def check_callable(fn: Any, function: str) -> None:
    """Raises ArgumentError for what is not a function."""
    if not callable(fn):
        raise ArgumentError(
            f"{function} was given {fn!r:.60}",
            "it makes a function from a function",
            f"pass the function itself: sg.{function}(f), not sg.{function}(f(x))",
        )
