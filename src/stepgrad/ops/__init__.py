"""The operations. One paragraph per op, grouped by kind; `registry` lists them all.

To add one, see CONTRIBUTING: write an `Op(...)` in the file of its kind.
"""

from stepgrad.ops import (
    activations,
    arithmetic,
    choosing,
    comparisons,
    expanding,
    exponentials,
    indexing,
    joining,
    matrices,
    reductions,
    shapes,
)
from stepgrad.ops.registry import registry

__all__ = ["registry"]
