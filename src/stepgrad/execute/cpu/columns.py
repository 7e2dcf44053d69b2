"""Reductions down columns: vectors lie along a row, and walk down together.

Each thread has columns of its own, so every sum is taken by one thread, in an order that depends on
the shape only.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points
from stepgrad.execute.cpu.frame import DEEP, FIXED, ROW, Frame, address, begin, emit_node, store
from stepgrad.execute.cpu.packing import Index, add, index, loop, mask_of
from stepgrad.execute.cpu.reducing import combine, neutral
from stepgrad.execute.cpu.rows import lanes_for
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body
from stepgrad.passes.sharing import Split

BLOCK = 512
"""Columns longer than this are summed in blocks, whose sums are added up: fewer roundings."""


def _width(body: Body, lanes: int) -> int:
    """How many vectors walk down side by side."""
    vectors = math.ceil(body.inner / lanes)
    return 4 if vectors >= 8 else 2 if vectors >= 4 else 1


def split_columns(body: Body, target: Target) -> Split:
    """How the work is shared out: by matrices if there are several, else by columns."""
    if body.rows > 1:
        return Split(body.rows, 1)
    lanes = lanes_for(body, target)
    unit = lanes * _width(body, lanes)
    return Split(body.inner, unit, axis="columns") if body.inner > unit else Split(0)


def emit_columns(module: ir.Module, name: str, body: Body, split: Split, target: Target) -> None:
    """Emits a kernel of kind "columns"."""
    frame = begin(module, name, body, split)
    lanes = lanes_for(body, target)
    walk = _Columns(frame, lanes, _width(body, lanes))
    if body.rows > 1:

        def matrix(row: Index, _: Any) -> None:
            walk.matrix(_numbers(frame, row), 0, body.inner)

        loop(frame.b, frame.low if split.length else 0, frame.high if split.length else body.rows, 1, matrix)
    elif split.length:
        walk.matrix([0] * len(body.outer), frame.low, frame.high)
    else:
        walk.matrix([0] * len(body.outer), 0, body.inner)
    frame.b.ret_void()


def _numbers(frame: Frame, row: Index) -> list[Index]:
    """The number along each outer axis, from that of the row."""
    b, outer, numbers = frame.b, frame.body.outer, []
    for n in reversed(outer[1:]):
        numbers.append(b.urem(index(row), index(n)))
        row = b.udiv(index(row), index(n))
    return [row, *reversed(numbers)]


class _Columns:
    """Emits what happens down some columns of one matrix."""

    def __init__(self, frame: Frame, lanes: int, width: int) -> None:
        self.frame, self.b, self.body, self.lanes, self.width = frame, frame.b, frame.body, lanes, width
        self.reductions = [i for i, node in enumerate(self.body.nodes) if node[0] == "reduce"]
        self.before = self._ancestors()

    def _ancestors(self) -> list[int]:
        """The nodes that are computed for each row of a column."""
        todo = [self.body.nodes[i][2][0] for i in self.reductions]
        found: set[int] = set()
        while todo:
            i = todo.pop()
            if i not in found and self.body.nodes[i][0] != "reduce":
                found.add(i)
                todo.extend(self.body.nodes[i][2])
        return sorted(i for i in found if self.frame.levels[i] != FIXED)

    def matrix(self, numbers: list[Index], low: Index, high: Index) -> None:
        """Columns [low, high); their number is a multiple of the width, except at the matrix's end."""
        b, unit, inner = self.b, self.lanes * self.width, self.body.inner
        whole = inner - inner % unit
        end: Index
        if isinstance(high, int):
            end = min(high, whole)
        else:
            end = b.select(b.icmp_signed("<", index(high), index(whole)), index(high), index(whole))
        if whole:
            loop(
                b,
                low,
                end,
                unit,
                lambda c, _: self._down(numbers, [(add(b, c, v * self.lanes), None) for v in range(self.width)]),
            )
        if whole == inner:
            return
        rest = [(start, self._mask(start)) for start in range(whole, inner, self.lanes)]
        if isinstance(high, int):
            self._down(numbers, rest)
        else:
            last = b.icmp_signed("==", index(high), index(inner))
            with b.if_then(b.and_(last, b.icmp_signed("<", index(low), index(high)))):
                self._down(numbers, rest)

    def _mask(self, start: int) -> ir.Constant | None:
        left = self.body.inner - start
        return None if left >= self.lanes else mask_of(self.lanes, left)

    def _down(self, numbers: list[Index], vectors: list[tuple[Index, Any]]) -> None:
        """Walks down some vectors' columns, and then computes what follows from the results."""
        b, nodes = self.b, self.body.nodes
        outside = dict(self.frame.fixed)
        for i, level in enumerate(self.frame.levels):
            if level == ROW and nodes[i][0] != "reduce" and all(a in outside for a in nodes[i][2]):
                outside[i] = emit_node(self.frame, i, outside, [*numbers, 0, 0], 0)

        def start_values() -> list[ir.Value]:
            return [neutral(nodes[i], self.lanes) for _ in vectors for i in self.reductions]

        def one(row: Index, sums: list[ir.Value]) -> list[ir.Value]:
            new = []
            for v, (start, mask) in enumerate(vectors):
                values = dict(outside)
                for i in self.before:
                    if i not in values:
                        values[i] = emit_node(self.frame, i, values, [*numbers, row, start], self.lanes, mask)
                for k, i in enumerate(self.reductions):
                    x = points.splat(b, values[nodes[i][2][0]], self.lanes)
                    new.append(combine(b, sums[v * len(self.reductions) + k], x, nodes[i][3][0]))
            return new

        length = self.body.reduced
        if length > BLOCK:

            def many(row: Index, totals: list[ir.Value]) -> list[ir.Value]:
                end = b.add(index(row), index(BLOCK))
                end = b.select(b.icmp_signed("<", end, index(length)), end, index(length))
                sums = loop(b, row, end, 1, one, start_values())
                hows = [nodes[i][3][0] for _ in vectors for i in self.reductions]
                return [combine(b, t, s, how) for t, s, how in zip(totals, sums, hows, strict=True)]

            sums = loop(b, 0, length, BLOCK, many, start_values())
        else:
            sums = loop(b, 0, length, 1, one, start_values())
        for v, (start, mask) in enumerate(vectors):
            mine = sums[v * len(self.reductions) : (v + 1) * len(self.reductions)]
            self._after(numbers, start, mask, {**outside, **dict(zip(self.reductions, mine, strict=True))})

    def _after(self, numbers: list[Index], start: Index, mask: Any, values: dict[int, ir.Value]) -> None:
        point = [*numbers, 0, start]
        for i, level in enumerate(self.frame.levels):
            if i not in values and level != DEEP and all(a in values for a in self.body.nodes[i][2]):
                values[i] = emit_node(self.frame, i, values, point, self.lanes, mask)
        for node, operand, offset, steps in self.body.stores:
            where = address(self.b, offset, steps, point)
            x = points.splat(self.b, values[node], self.lanes)
            store(self.b, x, self.frame.operands[operand], self.body.dtypes[operand], where, steps[-1], mask)
