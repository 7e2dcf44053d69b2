"""The operations. One paragraph per op, grouped by kind; `registry` lists them all.

To add one, see CONTRIBUTING: write an `Op(...)` in the file of its kind.
"""

from stepgrad.ops import (
    activations,
    arithmetic,
    choosing,
    comparisons,
    cumulative,
    determinants,
    diagonals,
    einsum,
    expanding,
    exponentials,
    factorisations,
    facts,
    finding,
    gathering,
    identities,
    indexing,
    joining,
    least_squares,
    linalg,
    losses,
    matrices,
    nans,
    norms,
    powers,
    products,
    random,
    rearranging,
    reductions,
    shapes,
    signals,
    softmax,
    solving,
    sorting,
    special,
    statistics,
    taking,
    trigonometric,
)
from stepgrad.ops.registry import registry

__all__ = ["registry"]
