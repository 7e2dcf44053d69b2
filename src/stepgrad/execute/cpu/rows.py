"""Loops over rows: pointwise work, and reductions along each row, in as few walks along it as they need.

A short row is held in registers. A long one is walked once for each stage: the values that a reduction
needs are computed in a walk before those that need the reduction's result. What is dear and needed
again in a later walk is kept in the thread's scratch memory; what is cheap is computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from stepgrad.execute.cpu import points
from stepgrad.execute.cpu.frame import (
    FULL,
    KERNEL,
    ROW,
    Frame,
    address,
    begin,
    emit_node,
    levels_of,
    load,
    memory_bytes,
    store,
)
from stepgrad.execute.cpu.packing import Index, add, index, loop, mask_of
from stepgrad.execute.cpu.reducing import combine, filled, neutral, reduced
from stepgrad.execute.cpu.target import Target
from stepgrad.passes.bodies import Body, Store
from stepgrad.passes.kinds import CHEAP
from stepgrad.passes.sharing import Split

IN_REGISTERS = 4
"""A row of at most so many vectors is held in registers."""
CHAINS = 4
"""How many sums are taken side by side along a long row, to hide the time that an addition takes."""
BLOCK = 8192
"""Sums longer than this are taken in blocks, whose sums are added up: fewer roundings."""


def lanes_for(body: Body, target: Target) -> int:
    """How many numbers a kernel works on at once: a register full of its main dtype, or fewer in a short row."""
    dtypes = {node[1] for node in body.nodes} - {"bool", "int64", "int32"}
    widest = 4 if "float32" in dtypes or not dtypes else 8
    lanes = target.vector_bytes // widest
    while lanes > 1 and lanes // 2 >= body.inner:
        lanes //= 2
    return lanes


def split_rows(body: Body, unit: int) -> Split:
    """How a loop over rows is shared out: by rows; a single row without reductions, by elements."""
    if body.rows > 1 and body.inner:
        return Split(body.rows, unit)
    if not body.rows or body.inner <= 1 or any(node[0] == "reduce" for node in body.nodes):
        return Split(0)
    return Split(body.inner, max(unit, 64))


def emit_rows(module: ir.Module, name: str, body: Body, split: Split, target: Target) -> None:
    """Emits a kernel of kind "rows"."""
    if not body.rows * body.inner:  # nothing to compute, nor anything to read
        ir.IRBuilder(ir.Function(module, KERNEL, name).append_basic_block()).ret_void()
        return
    frame = begin(module, name, body, split)
    walk = _Walk(frame, lanes_for(body, target))
    flat = body.rows == 1 and split.length > 0
    if flat:
        walk.part(frame.low, frame.high)
    elif not split.length:
        _each_row(frame, 0, body.rows, walk.row)
    else:
        _each_row(frame, frame.low, frame.high, walk.row)
    frame.b.ret_void()


def _each_row(frame: Frame, low: Index, high: Index, emit: Callable[[list[Index]], None]) -> None:
    """A loop over rows; `emit` gets the number along each outer axis."""
    b, outer = frame.b, frame.body.outer

    def one(row: Index, _: Any) -> None:
        numbers: list[Index] = []
        for i in range(len(outer) - 1, 0, -1):
            if isinstance(row, int):
                row, rest = divmod(row, outer[i])
                numbers.append(rest)
            else:
                numbers.append(b.urem(row, index(outer[i])))
                row = b.udiv(row, index(outer[i]))
        emit([*([row] if outer else []), *reversed(numbers)])

    loop(b, low, high, 1, one)


def scratch_rows(body: Body, target: Target) -> int:
    """Bytes of scratch memory that a thread needs."""
    plan = _Stages(body)
    return (
        sum(-(-body.inner * memory_bytes(body.nodes[i][1]) // 64) * 64 for i in plan.saved)
        if plan.looped(lanes_for(body, target))
        else 0
    )


class _Stages:
    """In which walk along the row each node is computed.

    Attributes:
        stage: for nodes along the row, the walk that first can compute it; for a row's own nodes, the
            walk before which it is known.
        made: the walk that computes a node along the row first.
        saved: nodes that a later walk reads from scratch memory, and where they are there.
        count: how many walks there are.
    """

    def __init__(self, body: Body) -> None:
        self.body, self.levels = body, levels_of(body)
        self.stage: list[int] = []
        for op, _, arguments, _ in body.nodes:
            before = max((self.stage[i] for i in arguments), default=0)
            self.stage.append(before + 1 if op == "reduce" else before)
        stores = [self.stage[s[0]] for s in body.stores if self.levels[s[0]] == FULL or _along(s)]
        reductions = [self.stage[i] - 1 for i, node in enumerate(body.nodes) if node[0] == "reduce"]
        self.count = max([*stores, *reductions, *(0 for s in body.stores if _along(s))], default=-1) + 1
        self.saved: dict[int, int] = {}
        self.made: dict[int, int] = {}
        self._loaded = {node[3][0] for node in body.nodes if node[0] == "load"}
        self._find_saved()

    def looped(self, lanes: int) -> bool:
        return math.ceil(self.body.inner / lanes) > IN_REGISTERS

    def wanted(self, stage: int) -> list[int]:
        """What a walk has to compute, apart from what those need: arguments of reductions, and what is stored."""
        body = self.body
        found = [node[2][0] for i, node in enumerate(body.nodes) if node[0] == "reduce" and self.stage[i] == stage + 1]
        return found + [s[0] for s in body.stores if _along(s) and self.stored(s) == stage]

    def stored(self, s: Store) -> int:
        """The walk that stores; for what is read as well, the last one, so that no walk reads what one before wrote."""
        return self.count - 1 if s[1] in self._loaded else self.stage[s[0]]

    def needed(self, stage: int) -> list[int]:
        """The nodes along the row that a walk computes, in order."""
        todo, found = self.wanted(stage), set()
        while todo:
            i = todo.pop()
            if i in found or self.levels[i] != FULL:
                continue
            found.add(i)
            if not self.is_saved(i, stage):
                todo.extend(self.body.nodes[i][2])
        return sorted(found)

    def is_saved(self, node: int, stage: int) -> bool:
        """Whether a walk finds a node in scratch memory: it is dear, and a walk before computed it."""
        return self.made.get(node, stage) < stage and self.body.nodes[node][0] not in _COMPUTED_AGAIN

    def _find_saved(self) -> None:
        for stage in range(self.count):
            for i in self.needed(stage):
                if self.is_saved(i, stage):
                    self.saved[i] = -1
                else:
                    self.made.setdefault(i, stage)
        offset = 0
        for i in sorted(self.saved):
            self.saved[i] = offset
            offset += -(-self.body.inner * memory_bytes(self.body.nodes[i][1]) // 64) * 64


_COMPUTED_AGAIN = CHEAP | {"load", "index", "cast"}


def _along(s: Any) -> bool:
    """A store has an element for each of the row's."""
    return bool(s[3][-1])


class _Walk:
    """Emits what happens along one row."""

    def __init__(self, frame: Frame, lanes: int) -> None:
        self.frame, self.b, self.body, self.lanes = frame, frame.b, frame.body, lanes
        self.plan = _Stages(frame.body)
        self.whole, self.rest = divmod(self.body.inner, lanes)
        self.mask = mask_of(lanes, self.rest) if self.rest else None

    def part(self, low: Index, high: Index) -> None:
        """Elements [low, high) of a single row without reductions."""
        lanes = self.lanes
        end = self.b.and_(index(high), index(-lanes)) if not isinstance(high, int) else high - high % lanes
        numbers: list[Index] = [0] * len(self.body.outer)
        loop(self.b, low, end, lanes, lambda i, _: self._several(numbers, i, None))
        if self.mask is not None:
            last = self.b.icmp_signed("==", index(high), index(self.body.inner))
            with self.b.if_then(self.b.and_(last, self.b.icmp_signed("<", index(low), index(high)))):
                self._several(numbers, self.whole * lanes, self.mask)

    def _several(self, numbers: list[Index], start: Index, mask: Any) -> None:
        for stage in range(self.plan.count):
            self._vector(stage, numbers, start, mask, {})

    def row(self, numbers: list[Index]) -> None:
        """One row: every walk along it, and between them what belongs to the row as a whole."""
        values: dict[int, ir.Value] = dict(self.frame.fixed)
        if not self.plan.looped(self.lanes):
            self._in_registers(numbers, values)
            return
        for stage in range(self.plan.count):
            self._row_nodes(stage, numbers, values)
            self._long(stage, numbers, values)
        self._row_nodes(self.plan.count, numbers, values)
        self._row_stores(numbers, values)

    # --- what belongs to the row

    def _row_nodes(self, stage: int, numbers: list[Index], values: dict[int, ir.Value]) -> None:
        for i, level in enumerate(self.plan.levels):
            if level == ROW and i not in values and self.plan.stage[i] <= stage and self.body.nodes[i][0] != "reduce":
                values[i] = emit_node(self.frame, i, values, [*numbers, 0], 0)

    def _row_stores(self, numbers: list[Index], values: dict[int, ir.Value]) -> None:
        for node, operand, offset, steps in self.body.stores:
            if not steps[-1]:
                where = address(self.b, offset, steps, [*numbers, 0])
                store(self.b, values[node], self.frame.operands[operand], self.body.dtypes[operand], where, 0, None)

    # --- a row in registers

    def _in_registers(self, numbers: list[Index], values: dict[int, ir.Value]) -> None:
        chunks = [(i * self.lanes, None) for i in range(self.whole)]
        if self.rest:
            chunks.append((self.whole * self.lanes, self.mask))
        vectors: list[dict[int, ir.Value]] = [{} for _ in chunks]
        for i, level in enumerate(self.plan.levels):
            op, _, arguments, params = self.body.nodes[i]
            if op == "reduce":
                found = []
                for (_, mask), mine in zip(chunks, vectors, strict=True):
                    x = points.splat(
                        self.b, mine[arguments[0]] if arguments[0] in mine else values[arguments[0]], self.lanes
                    )
                    found.append(filled(self.b, x, params[0], mask))
                values[i] = reduced(self.b, found, params[0])
            elif level == ROW:
                values[i] = emit_node(self.frame, i, values, [*numbers, 0], 0)
            elif level == FULL:
                for (start, mask), mine in zip(chunks, vectors, strict=True):
                    mine[i] = emit_node(self.frame, i, {**values, **mine}, [*numbers, start], self.lanes, mask)
        for (start, mask), mine in zip(chunks, vectors, strict=True):
            self._stores(None, numbers, start, mask, {**values, **mine})
        self._row_stores(numbers, values)

    def _stores(
        self, stage: int | None, numbers: list[Index], start: Index, mask: Any, values: dict[int, ir.Value]
    ) -> None:
        for s in self.body.stores:
            node, operand, offset, steps = s
            if _along(s) and (stage is None or self.plan.stored(s) == stage):
                where = address(self.b, offset, steps, [*numbers, start])
                x = points.splat(self.b, values[node], self.lanes)
                store(self.b, x, self.frame.operands[operand], self.body.dtypes[operand], where, steps[-1], mask)

    # --- a long row

    def _vector(
        self, stage: int, numbers: list[Index], start: Index, mask: Any, outside: dict[int, ir.Value]
    ) -> dict[int, ir.Value]:
        """Computes one vector's worth of a walk, and stores what it has to."""
        values = {**self.frame.fixed, **outside}
        for i in self.plan.needed(stage):
            if self.plan.is_saved(i, stage):
                kept = self._kept(i)
                values[i] = load(self.b, kept, self.body.nodes[i][1], start, 1, self.lanes, mask)
                continue
            values[i] = emit_node(self.frame, i, values, [*numbers, start], self.lanes, mask)
            if i in self.plan.saved:
                x = points.splat(self.b, values[i], self.lanes)
                store(self.b, x, self._kept(i), self.body.nodes[i][1], start, 1, mask)
        self._stores(stage, numbers, start, mask, values)
        return values

    def _kept(self, node: int) -> ir.Value:
        return self.b.gep(self.frame.scratch, [index(self.plan.saved[node])], source_etype=ir.IntType(8))

    def _long(self, stage: int, numbers: list[Index], values: dict[int, ir.Value]) -> None:
        """One walk along the row. Reductions go in several chains; long ones in blocks."""
        b, lanes, nodes = self.b, self.lanes, self.body.nodes
        reductions = [i for i, node in enumerate(nodes) if node[0] == "reduce" and self.plan.stage[i] == stage + 1]

        count = CHAINS if reductions else 1

        def start_values() -> list[ir.Value]:
            return [neutral(nodes[i], lanes) for _ in range(count) for i in reductions]

        def one(start: Index, mask: Any, sums: list[ir.Value]) -> list[ir.Value]:
            found = self._vector(stage, numbers, start, mask, values)
            new = []
            for i, total in zip(reductions, sums, strict=True):
                x = points.splat(b, found[nodes[i][2][0]], lanes)
                how = nodes[i][3][0]
                new.append(combine(b, total, filled(b, x, how, mask), how))
            return new

        def chains(start: Index, sums: list[ir.Value]) -> list[ir.Value]:
            width = len(reductions)
            found: list[ir.Value] = []
            for c in range(count):
                found += one(add(b, start, c * lanes), None, sums[c * width : (c + 1) * width])
            return found

        step = count * lanes
        whole = self.body.inner - self.body.inner % step
        if reductions and whole > BLOCK:
            block = BLOCK - BLOCK % step

            def many(start: Index, totals: list[ir.Value]) -> list[ir.Value]:
                end = b.add(index(start), index(block))
                end = b.select(b.icmp_signed("<", end, index(whole)), end, index(whole))
                sums = loop(b, start, end, step, chains, start_values())
                return [
                    combine(b, t, s, nodes[i][3][0]) for t, s, i in zip(totals, sums, reductions * count, strict=True)
                ]

            sums = loop(b, 0, whole, block, many, start_values())
        else:
            sums = loop(b, 0, whole, step, chains, start_values())
        first = sums[: len(reductions)]
        for start in range(whole, self.body.inner, lanes):
            left = self.body.inner - start
            first = one(start, None if left >= lanes else self.mask, first)
        for position, i in enumerate(reductions):
            parts = [first[position], *sums[len(reductions) + position :: len(reductions)]]
            values[i] = reduced(b, parts, nodes[i][3][0])
