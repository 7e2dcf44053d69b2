"""Recording: how a call of an op becomes an equation with a value. This is the eager hot path."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np

from stepgrad.errors import AbstractValueError, ArgumentError, StepgradError, UnsupportedError
from stepgrad.tape.cache import reads_of
from stepgrad.tape.equation import CONSTANT, LITERAL, Cut, Equation, Role
from stepgrad.tape.leaves import literal
from stepgrad.tape.op import OUTPUT, Op, TensorType
from stepgrad.tape.places import in_engine, known_files, place_text, user_where
from stepgrad.tensor import Tensor, describe, functions

ndarray = np.ndarray


class Recording:
    """How equations are being recorded at the moment.

    Attributes:
        equations: where every equation is appended; None in plain eager execution, where only what
            a gradient can flow to is linked, and found again from the loss.
        role, of, operand, scope: what new equations are marked with.
        region: not None inside a region that keeps no values (see `Equation.region`).
        differentiable: False under `no_grad`.
        closed: inside a function that is being differentiated or recorded, where a value must not
            leave the tape unseen.
        observe: called with each new equation.
        gradients: during a backward walk, what it has found: equation -> gradient.
        masks: during a backward walk, gradient -> the condition outside of which it is zero.
        cells: while a function is recorded abstractly, what it has made of cells (`AbstractCells`).
    """

    __slots__ = (
        "cells",
        "closed",
        "differentiable",
        "equations",
        "gradients",
        "masks",
        "observe",
        "of",
        "operand",
        "region",
        "role",
        "scope",
    )

    def __init__(self) -> None:
        self.equations: list[Equation] | None = None
        self.role = Role.FORWARD
        self.of: Equation | None = None
        self.operand: int | None = None
        self.scope: tuple[str, ...] = ()
        self.region: int | None = None
        self.differentiable = True
        self.closed = False
        self.observe: Callable[[Equation], None] | None = None
        self.gradients: dict[Equation, Tensor] | None = None
        self.masks: dict[Equation, Tensor] | None = None
        self.cells: Any = None

    def __repr__(self) -> str:
        return f"<recording {self.role.value}{', eager' if self.equations is None else ''}>"


RECORDING: ContextVar[Recording] = ContextVar("recording", default=Recording())


class recording:  # noqa: N801 - used as a context manager, as contextlib's are
    """Records what happens inside with these attributes of `Recording` changed."""

    __slots__ = ("changes", "token")

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def __enter__(self) -> Recording:
        outer, inner = RECORDING.get(), Recording()
        for name in Recording.__slots__:
            setattr(inner, name, getattr(outer, name))
        for name, value in self.changes.items():
            setattr(inner, name, value)
        self.token = RECORDING.set(inner)
        return inner

    def __exit__(self, *error: object) -> None:
        RECORDING.reset(self.token)


@contextmanager
def no_grad() -> Iterator[None]:
    """Computes without linking to the tape: no gradient flows into what is made inside.

    Example:
        >>> x = sg.tensor([1.0, 2.0])
        >>> with sg.no_grad():
        ...     y = x * 2
        >>> y.equation.active
        False
    """
    with recording(differentiable=False):
        yield


def record(op: Op, inputs: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
    """Computes `op(inputs, params)` and puts the equation on the tape."""
    state = RECORDING.get()
    if len(inputs) == 2:  # unrolled: a comprehension costs as much as a small NumPy call
        a, b = inputs
        sources: tuple[Equation, ...] = (a.equation, b.equation)
        types: tuple[TensorType, ...] = (sources[0].type, sources[1].type)
        values: tuple[Any, ...] = (a.value, b.value)
    elif len(inputs) == 1:
        (a,) = inputs
        sources, values = (a.equation,), (a.value,)
        types = (sources[0].type,)
    else:
        sources = tuple([t.equation for t in inputs])
        types = tuple([e.type for e in sources])
        values = tuple([t.value for t in inputs])
    try:
        signature = op.signatures[(types, *params.items()) if params else types]
    except (KeyError, TypeError):
        try:
            signature = op.signature(types, params)
        except StepgradError as error:
            raise _located(error, op, inputs) from None

    # The value, unless an input has none: then shapes and dtypes are all there is.
    for value in values:
        if value is None:
            _check_abstract(state, inputs)
            value = None
            break
    else:
        try:
            value = op.numpy(*values, **params)
            if type(value) is not ndarray:
                value = np.asarray(value, signature.type.dtype)
        except (OverflowError, TypeError, AttributeError) as error:
            if isinstance(error, OverflowError) or any(type(v) is int and not -(2**63) <= v < 2**63 for v in values):
                raise _located(_out_of_range(error), op, inputs) from error
            raise

    active = False
    if state.differentiable:
        for i in signature.flows:
            if sources[i].active:
                active = True
                break
    equations = state.equations
    if signature.type.weak and value is not None:  # numbers computed from Python numbers alone
        return literal(np.asarray(value).item())
    if equations is None and not active:
        return Tensor(value, _constant_of(op, sources, signature.type, state))

    of = state.of
    if of is not None:
        where = of.where
    else:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and (known_files.get(frame.f_code.co_filename) or in_engine(frame)):
            frame = frame.f_back
        where = None if frame is None else (frame.f_code, frame.f_lasti)
    equation = Equation(
        op, sources, params, signature.type, active, state.role, of, state.operand, where, state.scope, state.region
    )
    if equations is not None:  # a tape is being recorded, and keeps everything
        equation.value = value
        for source, v in zip(sources, values, strict=True):
            if source.value is None:  # a leaf from outside
                source.value = v
        equations.append(equation)
        if state.observe is not None:
            state.observe(equation)
    elif state.region is not None:  # what enters the region is enough to record it again
        for source, v in zip(sources, values, strict=True):
            if source.serial < state.region or not source.inputs:
                source.value = v
    else:  # what the backward pass will read, and nothing else
        reads = signature.reads or reads_of(op, types, params, signature)
        for i in signature.flows:
            if sources[i].active:
                for j in reads[i]:
                    if j == OUTPUT:
                        equation.value = value
                    else:
                        sources[j].value = values[j]
    return Tensor(value, equation)


def _constant_of(op: Op, sources: tuple[Equation, ...], type: TensorType, state: Recording) -> Equation:
    """The leaf for a result that no gradient flows to; it remembers where the path was cut."""
    # That a gradient is constant is no mistake, and neither is that what is computed from it is.
    role = state.role
    if role is Role.FORWARD and any(s.role is Role.BACKWARD for s in sources):
        role = Role.BACKWARD
    leaf = Equation(CONSTANT, (), {}, type, False, role)
    if role is not Role.FORWARD:
        return leaf
    for source in sources:
        if source.active:
            reason = op.name if state.differentiable else "no_grad"
            leaf.cut = (Cut(reason, user_where(3), tuple(weakref.ref(s) for s in sources)), *leaf.cut)[:_MOST_CUTS]
            break
    for source in sources:
        if source.cut:
            leaf.cut = (leaf.cut + source.cut)[:_MOST_CUTS]
    return leaf


_MOST_CUTS = 4


# --- errors


def _located(error: StepgradError, op: Op, inputs: tuple[Tensor, ...]) -> StepgradError:
    operands = ", ".join(repr(t.value) if t.equation.op is LITERAL else describe(t) for t in inputs)
    what = f"{op.name}({operands}): {error.what}\n  at {place_text(user_where(3))}"
    return type(error)(what, error.why, error.instead)


def _out_of_range(error: Exception) -> StepgradError:
    return ArgumentError(
        f"a Python number does not fit: {error}",
        "it takes the dtype of the array that it meets, which can't hold it",
        "convert the array to a wider dtype first: x.astype(np.int64)",
    )


def _check_abstract(state: Recording, inputs: tuple[Tensor, ...]) -> None:
    if state.equations is None:
        lost = next(t for t in inputs if t.value is None)
        raise AbstractValueError(
            f"{describe(lost)} was used outside the function in which it was recorded",
            "it was recorded abstractly and has no value",
            "return it from the recorded function, and use what the call returns",
        )


def check_leaving(tensor: Tensor, how: str) -> None:
    """Refuses to turn an active tensor into plain numbers inside a function being differentiated."""
    if tensor.value is not None and tensor.equation.active and RECORDING.get().closed:
        raise UnsupportedError(
            f"{how} was called on {describe(tensor)} inside a function that is being differentiated\n"
            f"  at {place_text(user_where(3))}",
            "what is computed from the plain numbers would not be on the tape, and the gradient silently wrong",
            "keep computing with the tensor, and join values with sg.stack([…]) instead of filling an array; "
            "or say that no gradient is wanted with sg.stop_gradient(x).numpy()",
        )


functions["record"] = record
functions["check_leaving"] = check_leaving
