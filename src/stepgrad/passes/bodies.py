"""Kernel bodies: what a kernel computes at each point of its domain, as data.

A body names no equation and no address, so equal layers have equal bodies, and one machine function.
Its nodes are tuples (op, dtype, arguments, params); arguments are positions of earlier nodes:

- ("load", dtype, (), (operand, offset, steps)): an element of an operand in memory, at
  offset + steps[0] * i + steps[1] * j + …, where i, j, … is the point;
- ("pick", dtype, (number, …), (operand, offset, steps, ((stride, length), …))): as "load", further on by
  each number times its stride; negative numbers count from the end of the length;
- ("const", dtype, (), (value,)): a number;
- ("index", "int64", (), (start, axis, step)): start + step * the point's number along an axis;
- ("reduce", dtype, (argument,), (how,)): "sum", "max", … over the axes that the kernel reduces;
- ("product", dtype, (), ()): the matrix product's element;
- ("cast", dtype, (argument,), ()), with the param "unsigned" if the argument is; and the pointwise ops by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Node = tuple[str, str, tuple[int, ...], tuple[Any, ...]]
Store = tuple[int, int, int, tuple[int, ...]]
"""(node, operand, offset, steps)."""


@dataclass(frozen=True)
class Matrices:
    """The operands of a matrix product: where element (batch…, i, k) of a and (batch…, k, j) of b are.

    Attributes:
        inner: the length of the axis that is summed over.
        a, b: (operand, offset, steps for each axis of the batch, step of the row, step of the column).
    """

    inner: int
    a: tuple[int, int, tuple[int, ...], int, int]
    b: tuple[int, int, tuple[int, ...], int, int]


@dataclass(frozen=True)
class Body:
    """What a kernel computes.

    Attributes:
        kind: "rows", "columns", "product"; or one of `specials`, which have no nodes and are told by `settings`.
        outer: lengths of the axes that come first; each of their points is a row (of a product: a matrix).
        reduced: for "columns", the length of what is reduced; for "product", the number of rows.
        inner: the length of the last axis, along which vectors lie.
        nodes, stores: see above. Steps are given for (*outer, reduced, inner), without `reduced` for "rows".
        dtypes: of the operands.
        matrices: of a product.
        settings: of a special kernel.
    """

    kind: str
    outer: tuple[int, ...]
    reduced: int
    inner: int
    nodes: tuple[Node, ...]
    stores: tuple[Store, ...]
    dtypes: tuple[str, ...]
    matrices: Matrices | None = None
    settings: tuple[Any, ...] = ()

    @property
    def rows(self) -> int:
        """How many points the outer axes have."""
        count = 1
        for n in self.outer:
            count *= n
        return count
