"""The axes of a kernel: as few as can be, each with its role.

Neighbouring axes become one wherever everything that steps along them steps evenly. Then a kernel has the axes
that its kind wants: outer ones, perhaps one that is reduced, and an inner one, along which vectors lie.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stepgrad.passes.bodies import Body, Matrices, Node, Store
from stepgrad.passes.fusion import Group
from stepgrad.tape.equation import Equation


class Uneven(Exception):  # noqa: N818 - it is no error, but asks for another tape
    """Reductions over several axes that can't be walked as one; products of a batch whose rows can't be."""

    def __init__(self, equations: set[Equation]) -> None:
        super().__init__()
        self.equations = equations


def arranged(
    group: Group, nodes: list[Node], stores: list[Store], dtypes: tuple[str, ...], matrices: Matrices | None
) -> Body:
    """The body with neighbouring axes merged wherever every operand steps through them as through one."""
    ndim = len(group.domain)
    if group.kind == "columns":
        first, last = group.reduced[0], group.reduced[-1]
        roles = ["outer"] * first + ["reduced"] * (last - first + 1) + ["inner"] * (ndim - last - 1)
    elif group.kind == "product":
        roles = ["outer"] * (ndim - 2) + ["reduced", "inner"]
    elif group.inner is None:
        roles = ["inner"] * ndim
    else:
        roles = ["outer"] * (ndim - group.inner) + ["inner"] * group.inner
    axes = _Axes(list(group.domain), roles, nodes, stores, matrices)
    for d in range(ndim - 2, -1, -1):
        if axes.roles[d] == axes.roles[d + 1] or (
            axes.roles[d] == "outer" and axes.roles[d + 1] == "reduced" and matrices
        ):
            axes.merge(d)
    if axes.roles.count("reduced") > 1 or (group.inner is not None and axes.roles.count("inner") > 1):
        raise Uneven({m for m in group.members if "axis" in m.params and len(m.params["axis"]) > 1})
    if axes.matrices is not None and "outer" in axes.roles and not any(axes.matrices.b[2]):
        raise Uneven({m for m in group.members if m.op.name == "matmul"})
    if group.kind == "rows" and group.inner is None:  # no reduction: only the last axis has to be one
        axes.roles[:-1] = ["outer"] * (len(axes.roles) - 1)
    axes.settle("inner", len(axes.roles))
    if group.kind != "rows":
        axes.settle("reduced", axes.roles.index("inner"))
    lengths = dict.fromkeys(("reduced", "inner"), 1)
    outer = []
    for n, role in zip(axes.lengths, axes.roles, strict=True):
        if role == "outer":
            outer.append(n)
        else:
            lengths[role] = n
    return Body(
        group.kind,
        tuple(outer),
        lengths["reduced"],
        lengths["inner"],
        tuple(axes.nodes),
        tuple(axes.stores),
        dtypes,
        axes.matrices,
    )


class _Axes:
    """The axes of a domain, and everything that steps along them."""

    def __init__(
        self, lengths: list[int], roles: list[str], nodes: list[Node], stores: list[Store], matrices: Matrices | None
    ) -> None:
        self.lengths, self.roles, self.nodes, self.stores, self.matrices = lengths, roles, nodes, stores, matrices

    def _steps(self) -> list[tuple[int, ...]]:
        found = [node[3][2] for node in self.nodes if node[0] in ("load", "pick")] + [store[3] for store in self.stores]
        numbered = [node[3][1] for node in self.nodes if node[0] == "index" and node[3][1] >= 0]
        return found + [tuple([int(i == axis) for i in range(len(self.lengths))]) for axis in numbered]

    def merge(self, d: int) -> None:
        """Makes axes d and d + 1 one, if everything steps through them evenly."""
        n = self.lengths[d + 1]
        numbered = any(node[0] == "index" and node[3][1] in (d, d + 1) for node in self.nodes)
        free = self.lengths[d] == 1 or n == 1
        if not free and (numbered or any(s[d] != s[d + 1] * n for s in self._steps())):
            return
        matrices = self.matrices
        if matrices is not None:
            if self.roles[d + 1] == "outer":
                if not free and any(m[2][d] != m[2][d + 1] * n for m in (matrices.a, matrices.b)):
                    return
            elif self.lengths[d] != 1 and (matrices.b[2][d] or (n != 1 and matrices.a[2][d] != matrices.a[3] * n)):
                return
            self.matrices = _without_batch(matrices, d, self.roles[d + 1], n)
        keep = d if n == 1 else d + 1  # whose steps go on

        def drop(steps: tuple[int, ...]) -> tuple[int, ...]:
            return (*steps[:d], steps[keep], *steps[d + 2 :])

        def renumber(axis: int) -> int:
            return axis - 1 if axis > d else axis

        for i, (op, dtype, arguments, params) in enumerate(self.nodes):
            if op in ("load", "pick"):
                self.nodes[i] = (op, dtype, arguments, (*params[:2], drop(params[2]), *params[3:]))
            elif op == "index":
                self.nodes[i] = (op, dtype, arguments, (params[0], renumber(params[1]), params[2]))
        self.stores = [(node, operand, offset, drop(steps)) for node, operand, offset, steps in self.stores]
        self.lengths[d : d + 2] = [self.lengths[d] * n]
        self.roles[d : d + 2] = [self.roles[d + 1]]

    def settle(self, role: str, position: int) -> None:
        """Makes sure that there is exactly one axis of a role, where it belongs."""
        if role not in self.roles:
            self._insert(position, role)
        while self.roles.count(role) > 1:  # axes that could not be merged: only the last is walked by vectors
            self.roles[self.roles.index(role)] = "outer"

    def _insert(self, position: int, role: str) -> None:
        def widen(steps: tuple[int, ...]) -> tuple[int, ...]:
            return (*steps[:position], 0, *steps[position:])

        for i, (op, dtype, arguments, params) in enumerate(self.nodes):
            if op in ("load", "pick"):
                self.nodes[i] = (op, dtype, arguments, (*params[:2], widen(params[2]), *params[3:]))
            elif op == "index" and params[1] >= position:
                self.nodes[i] = (op, dtype, arguments, (params[0], params[1] + 1, params[2]))
        self.stores = [(node, operand, offset, widen(steps)) for node, operand, offset, steps in self.stores]
        self.lengths.insert(position, 1)
        self.roles.insert(position, role)


def _without_batch(matrices: Matrices, d: int, role: str, n: int) -> Matrices:
    def shorter(m: Any) -> Any:
        operand, offset, batch, row, column = m
        if role == "outer":
            merged = batch[d] if n == 1 else batch[d + 1]
            return operand, offset, (*batch[:d], merged, *batch[d + 2 :]), row, column
        row = batch[d] if n == 1 and m is matrices.a else row
        return operand, offset, batch[:d], row, column

    return replace(matrices, a=shorter(matrices.a), b=shorter(matrices.b))
