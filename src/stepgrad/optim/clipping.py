"""Gradient clipping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError
from stepgrad.ops.expanding import to_dtype
from stepgrad.tape.equation import Role
from stepgrad.tape.recording import recording
from stepgrad.tensor import ArrayLike, Tensor, functions
from stepgrad.tree import flatten


def clip_by_norm(gradients: Any, max_norm: float) -> tuple[Any, Tensor]:
    """Scales gradients down together if their common norm is larger than `max_norm` (Pascanu et al. 2013).

    Args:
        gradients: tensors, in nested lists, tuples and dicts.
        max_norm: the largest norm that is left as it is.

    Returns:
        The gradients, in the same structure, and their norm before clipping: the root of the sum of
        the squares of all their elements, as a float64 number of shape (). It is computed in
        float64, so that gradients that have grown very large don't overflow it.

    Example:
        >>> clipped, norm = sg.optim.clip_by_norm({"W": sg.tensor([3.0, 4.0])}, max_norm=1.0)
        >>> print(float(norm), clipped["W"].numpy().round(3))
        5.0 [0.6 0.8]
    """
    if isinstance(max_norm, bool) or not isinstance(max_norm, (int, float)) or not 0 < max_norm < math.inf:
        raise ArgumentError(
            f"clip_by_norm was given max_norm={max_norm!r}",
            "a norm is a positive number",
            "use for example max_norm=1.0",
        )
    leaves, _, rebuild = flatten(gradients)
    if not leaves:
        raise ArgumentError(
            "clip_by_norm was given no gradients",
            "there is nothing to measure",
            "pass what sg.backward(loss, parameters) returns",
        )
    for leaf in leaves:
        if not isinstance(leaf, (ArrayLike, np.ndarray)):
            raise ArgumentError(
                f"clip_by_norm was given a {type(leaf).__name__} among the gradients",
                "gradients are tensors or arrays",
                "pass what sg.backward(loss, parameters) returns",
            )
    with recording(role=Role.UPDATE, of=None, operand=None, differentiable=False):
        wide = [to_dtype(g, np.float64) for g in leaves]
        total = functions["sum"](wide[0] * wide[0])
        for w in wide[1:]:
            total = total + functions["sum"](w * w)
        norm = np.sqrt(total)
        factor = np.minimum(max_norm / (norm + _SMALL), 1.0)
        clipped = [g * to_dtype(factor, g.dtype) for g in leaves]
    return rebuild(clipped), norm


_SMALL = 1e-6
"""Keeps the division from 0/0; PyTorch's value."""
