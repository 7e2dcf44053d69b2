"""Special kernels: what is neither pointwise, nor a reduction, nor a product, and yet computed natively.

- "scatter": zeros, to which rows are added in places that indices say. Threads share out the columns, so
  the rows that fall into one place are added in order.
- "random": words of the random number generator, or numbers made of them (see `ops.random`).
"""

from __future__ import annotations

import math

import numpy as np

from stepgrad.passes.bodies import Body
from stepgrad.tape.equation import LITERAL, Equation

Special = tuple[Body, list[Equation]]
"""The body, and the operands that it reads; the result is the last operand."""


def special_body(equation: Equation) -> Special | None:
    """The kernel of an equation that needs one of its own; None if NumPy has to compute it."""
    maker = _SPECIALS.get(equation.op.name)
    return None if maker is None or any(e.op is LITERAL for e in equation.inputs) else maker(equation)


def _scatter(equation: Equation) -> Special | None:
    values, *indices = equation.inputs
    shape, dtype = equation.type.shape, equation.type.dtype
    if equation.params["axes"] != (0,) or dtype not in _ADDED or indices[0].type.dtype not in _INDICES:
        return None
    if not values.type.size or not equation.type.size:
        return None
    row = math.prod(shape[1:])
    body = Body(
        "scatter", (indices[0].type.size,), shape[0], row, (), (),
        (dtype.name, indices[0].type.dtype.name, dtype.name),
    )  # fmt: skip
    return body, [values, indices[0]]


def _random(equation: Equation) -> Special | None:
    key, name, size = equation.inputs[0], equation.op.name, equation.type.size
    if not size:
        return None
    how = {"random_uniform": "uniform", "random_integers": "integers"}.get(name, "words")
    purpose = {"random_split": 1, "random_fold_in": 2}.get(name, 0)
    settings = (how, purpose, equation.params.get("count", 0) if how == "integers" else 0)
    dtypes = ["uint64", *(e.type.dtype.name for e in equation.inputs[1:]), equation.type.dtype.name]
    if name == "random_fold_in" and dtypes[1] not in ("int64", "uint64"):
        return None
    return Body("random", (), 1, size, (), (), tuple(dtypes), settings=settings), [key, *equation.inputs[1:]]


_ADDED = (np.dtype(np.float32), np.dtype(np.float64))
_INDICES = (np.dtype(np.int64), np.dtype(np.int32))
_SPECIALS = {
    "scatter_add": _scatter,
    "random_uniform": _random,
    "random_integers": _random,
    "random_split": _random,
    "random_fold_in": _random,
}
