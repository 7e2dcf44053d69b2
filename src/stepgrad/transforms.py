"""Transforms: from a function to its derivatives. All are built on the one backward walk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from stepgrad import missing
from stepgrad.calls import Call, Wrt, not_floating, output_of, outputs_of
from stepgrad.cells import Cell
from stepgrad.errors import ArgumentError, GradientError
from stepgrad.tape.backward import check_scalar, reachable, walk
from stepgrad.tape.equation import CELL, CONSTANT, Equation, Role, next_serial
from stepgrad.tape.leaves import as_tensor, constant, tensor
from stepgrad.tape.op import type_of
from stepgrad.tape.recording import RECORDING, recording
from stepgrad.tensor import ArrayLike, Tensor
from stepgrad.tree import flatten, leaves_in_order


def backward(loss: Any, wrt: Any) -> Any:
    """Gradients of a loss, by one walk back over its tape.

    Gradients are values like any other: nothing accumulates, calling it twice gives the same
    answer twice, and what it returns can be differentiated again.

    Args:
        loss: a floating-point tensor of shape ().
        wrt: the tensors or parameters whose gradients are wanted: one, or nested lists, tuples and
            dicts of them, or a module.

    Returns:
        The gradients, in the structure of `wrt`; each has the shape and dtype of its tensor.

    Raises:
        GradientError: the loss is not one number, or does not depend on one of `wrt`; the message
            says where the path was cut.

    Example:
        >>> W = sg.Parameter([1.0, 2.0], name="W")
        >>> sg.backward(sg.sum(W * W), {"W": W})
        {'W': tensor([2., 4.], dtype=float32, name='dW')}
    """
    end = as_tensor(loss)
    check_scalar(end)
    wanted, paths, rebuild = flatten(wrt)
    tape = reachable([end.equation])
    read = {e.params["cell"]: e for e in tape if e.op is CELL}
    targets = [_target(leaf, path, read) for leaf, path in zip(wanted, paths, strict=True)]
    return rebuild(_gradients({end.equation: _one(end.equation.type.dtype)}, targets, tape=tape))


def _target(leaf: Any, path: str, read: dict[Cell, Equation]) -> Equation:
    if not isinstance(leaf, ArrayLike):
        raise GradientError(
            f"the gradient with respect to wrt{path}, a {type(leaf).__name__}, was asked for",
            "only tensors and parameters are on the tape",
            "make a tensor of it first, x = sg.tensor(x), and compute the loss from that",
        )
    equation = leaf._tensor.equation
    if not equation.type.is_float:
        raise not_floating(leaf._tensor)
    return read.get(leaf, equation) if isinstance(leaf, Cell) else equation  # it may have been assigned since


def _gradients(
    seeds: dict[Equation, Tensor], targets: list[Equation], zeros: bool = False, tape: list[Equation] | None = None
) -> list[Tensor]:
    """Gradients of `targets`; where there is no path, zeros if so asked, else an error."""
    state = RECORDING.get()
    # A gradient's own derivative is seldom wanted, so at the top level the backward pass keeps no
    # values; should one be wanted, they are computed again.
    region = next_serial() if state.equations is None and not state.closed else state.region
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = walk(seeds, [e for e in targets if e.active], tape, region)
    absent = [e for e in targets if e not in found]
    if absent and not zeros:
        missing.check(list(seeds), absent)
    return [found[e] if e in found else _zeros(e) for e in targets]


def _zeros(equation: Equation) -> Tensor:
    return constant(np.broadcast_to(np.zeros((), equation.type.dtype), equation.type.shape))


@functools.cache
def _one(dtype: np.dtype[Any]) -> Tensor:
    equation = Equation(CONSTANT, (), {}, type_of((), dtype), False, Role.BACKWARD)
    equation.value = np.ones((), dtype)
    equation.value.setflags(write=False)
    return Tensor(equation.value, equation)


# --- functions of functions


def value_and_grad(fn: Callable[..., Any], wrt: Wrt = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns both the value of `fn` and its gradient.

    Args:
        fn: returns a floating-point number (shape ()).
        wrt: position or name of the argument to differentiate, or several of them. Arguments may be
            arrays, tensors, parameters, modules, or nested lists, tuples and dicts of them.
        has_aux: `fn` returns (loss, anything else), and the new function ((loss, else), gradient).

    Returns:
        A function with the arguments of `fn`. Where no tensor or parameter is involved it returns
        NumPy arrays, otherwise tensors.

    Example:
        >>> sg.value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 3.0]))
        (np.float64(10.0), array([2., 6.]))
    """

    @functools.wraps(fn)
    def with_gradient(*args: Any, **kwargs: Any) -> Any:
        call = Call(fn, wrt, args, kwargs)
        if has_aux and not (isinstance(call.result, (tuple, list)) and len(call.result) == 2):
            raise ArgumentError(
                f"{getattr(fn, '__name__', fn)} returned {call.result!r:.60}, and has_aux=True was given",
                "then the function returns two things: the loss and anything else",
                "return (loss, other), or leave has_aux out",
            )
        loss, aux = call.result if has_aux else (call.result, None)
        if not isinstance(loss, ArrayLike):
            raise missing.not_on_tape(loss, fn)
        loss = loss._tensor
        check_scalar(loss)
        gradients = _gradients({loss.equation: _one(loss.equation.type.dtype)}, call.targets)
        value = (call.plain(loss), call.plain(aux)) if has_aux else call.plain(loss)
        return value, call.structured(gradients)

    return with_gradient


def grad(fn: Callable[..., Any], wrt: Wrt = 0) -> Callable[..., Any]:
    """A function that returns the gradient of `fn`; see `value_and_grad`.

    Example:
        >>> float(sg.grad(sg.grad(lambda x: x**3))(2.0))
        12.0
    """

    @functools.wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return value_and_grad(fn, wrt)(*args, **kwargs)[1]

    return gradient


def vjp(fn: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The value of `fn` and the function that takes its downstream gradient upstream.

    Args:
        fn: returns a tensor, or a nested structure of them.
        args: its arguments, all of them differentiated.

    Returns:
        (value, pull): `pull(downstream)`, with the structure of the value, returns a tuple with the
        gradient of each argument; zeros where the value does not depend on it.

    Example:
        >>> value, pull = sg.vjp(lambda x: x * x, np.array([1.0, 2.0]))
        >>> pull(np.array([1.0, 10.0]))
        (array([ 2., 40.]),)
    """
    call = Call(fn, tuple(range(len(args))), args, {})
    outputs = outputs_of(call, fn)

    def pull(downstream: Any) -> Any:
        given = [as_tensor(d) for d in leaves_in_order(downstream, call.result)]
        return call.structured(_gradients(_seeds(outputs, given), call.targets, zeros=True))

    return call.plain(call.result), pull


def jvp(fn: Callable[..., Any], args: Any, tangents: Any) -> tuple[Any, Any]:
    """The value of `fn` and how it changes when its arguments move along the tangents.

    It pulls twice: a pulled gradient is linear in the downstream gradient, and the derivative of
    that linear map, applied to the tangents, is the answer. The cost is that of three forward
    passes or so, whatever the number of arguments.

    Args:
        fn: returns a tensor, or a nested structure of them.
        args, tangents: a tuple of arguments and one of the same shapes; or one argument and tangent.

    Example:
        >>> value, change = sg.jvp(np.sin, np.array([0.0]), np.array([2.0]))
        >>> change
        array([2.])
    """
    arguments, directions = (args, tangents) if isinstance(args, tuple) else ((args,), (tangents,))
    call = Call(fn, tuple(range(len(arguments))), tuple(arguments), {})
    outputs, rebuild = outputs_of(call, fn), flatten(call.result)[2]
    given = _matching(directions, tuple(arguments), call, "tangents")
    with recording(closed=True, region=None):
        stand_ins = [tensor(np.zeros(o.shape, o.dtype)) for o in outputs]
        pulled = _gradients(_seeds(outputs, stand_ins), call.targets, zeros=True)
        seeds = _seeds(pulled, given)
    changes = _gradients(seeds, [s.equation for s in stand_ins], zeros=True)
    return call.plain(call.result), call.plain(rebuild(changes))


def hvp(fn: Callable[..., Any], args: Any, vectors: Any) -> Any:
    """The product of the Hessian of `fn` with a vector, without forming the Hessian.

    Args:
        fn: returns a floating-point number (shape ()).
        args, vectors: a tuple of arguments and one of the same shapes; or one argument and vector.

    Returns:
        The product, in the structure of `args`.

    Example:
        >>> sg.hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 1.0]))
        array([ 6., 12.])
    """
    arguments, directions = (args, vectors) if isinstance(args, tuple) else ((args,), (vectors,))
    call = Call(fn, tuple(range(len(arguments))), tuple(arguments), {})
    loss = output_of(call, fn)
    check_scalar(loss)
    given = _matching(directions, tuple(arguments), call, "vectors")
    with recording(closed=True, region=None):
        gradients = _gradients({loss.equation: _one(loss.equation.type.dtype)}, call.targets, zeros=True)
    products = call.structured(_gradients(_seeds(gradients, given), call.targets, zeros=True))
    return products if isinstance(args, tuple) else products[0]


def jacobian(fn: Callable[..., Any], wrt: Wrt = 0) -> Callable[..., Any]:
    """A function that returns every derivative of every output of `fn`.

    One pull for each element of the output.

    Args:
        fn: returns a tensor.
        wrt: as for `value_and_grad`.

    Returns:
        A function with the arguments of `fn`; in the structure of the arguments, arrays of shape
        (*output shape, *argument shape).

    Example:
        >>> sg.jacobian(lambda x: x**2)(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])
    """

    @functools.wraps(fn)
    def derivatives(*args: Any, **kwargs: Any) -> Any:
        from stepgrad.ops.joining import stack

        call = Call(fn, wrt, args, kwargs)
        output = output_of(call, fn)
        rows: list[list[Tensor]] = []
        for i in range(output.size):
            basis = np.zeros(output.size, output.dtype)
            basis[i] = 1
            rows.append(_gradients(_seeds([output], [constant(basis.reshape(output.shape))]), call.targets, zeros=True))
        stacked = []
        for column, target in enumerate(call.targets):
            shape = (*output.shape, *target.type.shape)
            stacked.append(
                stack([row[column] for row in rows]).reshape(shape) if rows else constant(np.zeros(shape, output.dtype))
            )
        return call.structured(stacked)

    return derivatives


def hessian(fn: Callable[..., Any], wrt: Wrt = 0) -> Callable[..., Any]:
    """A function that returns all second derivatives of `fn`: the Jacobian of its gradient.

    Args:
        fn: returns a floating-point number (shape ()).
        wrt: position or name of the one array argument to differentiate.

    Example:
        >>> sg.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
        array([[6., 2.],
               [2., 0.]])
    """
    return jacobian(grad(fn, wrt), wrt)


def _seeds(outputs: list[Tensor], downstream: list[Tensor]) -> dict[Equation, Tensor]:
    """Downstream gradients by equation; those of an output that is returned twice add up."""
    if len(outputs) != len(downstream):
        raise ArgumentError(
            f"{len(downstream)} downstream gradients were given for {len(outputs)} outputs",
            "each output has one downstream gradient",
            "pass them in the structure of the function's value",
        )
    seeds: dict[Equation, Tensor] = {}
    for output, given in zip(outputs, downstream, strict=True):
        if given.shape != output.shape:
            raise ArgumentError(
                f"a downstream gradient of shape {given.shape} was given for an output of shape {output.shape}",
                "a gradient has the shape of what it is the gradient of",
                f"pass an array of shape {output.shape}",
            )
        if given.dtype != output.dtype or given.equation.type.weak:
            given = given.astype(output.dtype)
        known = seeds.get(output.equation)
        seeds[output.equation] = given if known is None else known + given
    return seeds


def _matching(directions: Any, arguments: Any, call: Call, what: str) -> list[Tensor]:
    given = [as_tensor(d) for d in leaves_in_order(tuple(directions), arguments)]
    shapes = [t.type.shape for t in call.targets]
    if [t.shape for t in given] != shapes:
        raise ArgumentError(
            f"{what} of shapes {[t.shape for t in given]} were given for arguments of shapes {shapes}",
            "each argument moves in its own space",
            "pass one array for each argument, of the argument's shape",
        )
    return given
