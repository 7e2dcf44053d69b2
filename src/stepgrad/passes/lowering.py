"""Lowering: from a group of equations to a kernel body, and the tensors that it reads and writes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgrad.cells import ASSIGN
from stepgrad.passes.axes import Uneven, arranged
from stepgrad.passes.bodies import Body, Matrices, Node, Store
from stepgrad.passes.fusion import Fusion, Group
from stepgrad.passes.indexing import NOWHERE, Map, row_major, through
from stepgrad.passes.kinds import Kind
from stepgrad.passes.specials import special_body
from stepgrad.tape.equation import CONSTANT, LITERAL, Equation
from stepgrad.tape.op import TensorType


@dataclass(frozen=True, eq=False)
class Kernel:
    """One step of a program.

    Attributes:
        body: what it computes; None where NumPy does.
        operands: the tensors in memory that it reads and writes, by the number that the body gives them.
        reads, writes: positions of operands.
        group: the equations it was made of.
        everyone: whether all threads compute all of it, each for itself.
    """

    body: Body | None
    operands: tuple[Equation, ...]
    reads: frozenset[int]
    writes: frozenset[int]
    group: Group
    everyone: bool = False


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which NumPy puts together anew each time it is asked."""
    return dtype.name


class Lowering:
    """Turns the groups of a fusion into kernels.

    Raises:
        Uneven: some reductions have to be taken axis by axis, or some products by themselves.
    """

    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion
        self.kernels: list[Kernel] = []
        uneven: set[Equation] = set()
        for group in fusion.groups:
            try:
                self.kernels.append(self._kernel(group))
            except Uneven as found:
                uneven |= found.equations
        if uneven:
            raise Uneven(uneven)

    def _kernel(self, group: Group) -> Kernel:
        if group.kind == "other":
            (member,) = group.members
            special = special_body(member, self.fusion.place)
            if special is not None:
                body, read = special
                operands = (*map(self.fusion.base, read), member)
                return Kernel(
                    body, operands, frozenset(range(len(operands) - 1)), frozenset([len(operands) - 1]), group
                )
            sources = dict.fromkeys(self.fusion.base(e) for e in member.inputs if e.op is not LITERAL)
            operands = (*sources, member)
            return Kernel(None, operands, frozenset(range(len(sources))), frozenset([len(sources)]), group)
        return _Lowered(self, group).kernel()


class _Lowered:
    """A body in the making."""

    def __init__(self, lowering: Lowering, group: Group) -> None:
        self.lowering, self.fusion, self.group = lowering, lowering.fusion, group
        self.nodes: list[Node] = []
        self.stores: list[Store] = []
        self.operands: dict[Equation, int] = {}
        self.reads: set[int] = set()
        self._numbers: dict[Node, int] = {}
        self._known: dict[tuple[Equation, Map], int] = {}
        self.matrices: Matrices | None = None

    def kernel(self) -> Kernel:
        group = self.group
        writes = []
        for member in group.members:
            at = group.at[member]
            node = self.pull(member, at)
            target = self.fusion.assigned.get(member)
            if target is None and member in self.fusion.stored:
                target = member
            if target is not None:
                operand = self._operand(target)
                writes.append(operand)
                offset, steps = self._address(row_major(target.type.shape), at)
                node = self._cast(node, dtype_name(target.type.dtype))
                self.stores.append((node, operand, offset, steps))
        dtypes = tuple([dtype_name(e.type.dtype) for e in self.operands])
        body = arranged(group, self.nodes, self.stores, dtypes, self.matrices)
        return Kernel(body, tuple(self.operands), frozenset(self.reads), frozenset(writes), group)

    # --- nodes

    def _operand(self, equation: Equation) -> int:
        return self.operands.setdefault(equation, len(self.operands))

    def _node(self, op: str, dtype: str, arguments: tuple[int, ...] = (), params: tuple[Any, ...] = ()) -> int:
        node = (op, dtype, arguments, params)
        key = (*node, repr(params)) if op == "const" else node  # 0.0 == -0.0
        number = self._numbers.get(key)  # type: ignore[arg-type]
        if number is None:
            number = self._numbers[key] = len(self.nodes)  # type: ignore[index]
            self.nodes.append(node)
        return number

    def _cast(self, node: int, dtype: str) -> int:
        op, own, _, params = self.nodes[node]
        if own == dtype:
            return node
        if op == "const":
            with np.errstate(all="ignore"):
                return self._node("const", dtype, (), (np.asarray(params[0]).astype(dtype).item(),))
        return self._node("cast", dtype, (node,), ("unsigned",) if own.startswith("uint") else ())

    def pull(self, equation: Equation, at: Map) -> int:
        """The node that has the value of an equation, at the elements that the map says."""
        known = self._known.get((equation, at))
        if known is None:
            known = self._known[equation, at] = self._pulled(equation, at)
        return known

    def _pulled(self, equation: Equation, at: Map) -> int:
        if equation.op is LITERAL:
            return self._node("const", dtype_name(equation.type.dtype), (), (equation.params["value"],))
        if equation.op is CONSTANT and equation.type.size == 1 and equation.value is not None:
            return self._node("const", dtype_name(equation.type.dtype), (), (equation.value.item(),))
        kind = self.fusion.of(equation)
        own = self.group.at.get(equation) == at
        if kind is Kind.LEAF or (equation in self.fusion.stored and not own):
            return self._load(equation, row_major(equation.type.shape), 0, at)
        if kind is Kind.VIEW:
            base = self.fusion.base(equation)
            if base not in self.group.at:
                found = self.fusion.place(equation)
                if found is not None and (base in self.fusion.stored or self.fusion.of(base) is Kind.LEAF):
                    if base.op is CONSTANT and base.type.size == 1 and base.value is not None:
                        return self.pull(base, (NOWHERE,) * len(base.type.shape))
                    return self._load(base, found.strides, found.offset, at)
            inner = through(equation, at)
            assert inner is not None, equation
            return self.pull(equation.inputs[0], inner)
        if kind is Kind.REDUCE:
            return self._reduction(equation)
        if kind is Kind.PRODUCT:
            self._multiply(equation)
            return self._node("product", dtype_name(equation.type.dtype))
        return self._point(equation, at)

    def _load(self, base: Equation, strides: Sequence[int], offset: int, at: Map) -> int:
        operand = self._operand(base)
        self.reads.add(operand)
        start, steps = self._address(strides, at)
        return self._node("load", dtype_name(base.type.dtype), (), (operand, offset + start, steps))

    def _address(self, strides: Sequence[int], at: Map) -> tuple[int, tuple[int, ...]]:
        offset, steps = 0, [0] * len(self.group.domain)
        for stride, entry in zip(strides, at, strict=True):
            start, d, step = entry if isinstance(entry, tuple) else (0, entry, 1)
            offset += start * stride
            if d >= 0:
                steps[d] += step * stride
        return offset, tuple(steps)

    def _point(self, equation: Equation, at: Map) -> int:
        name, out = equation.op.name, dtype_name(equation.type.dtype)
        if equation.op is ASSIGN:
            return self._cast(self.pull(equation.inputs[1], at), out)
        if name == "one_hot":
            label = self._cast(self.pull(equation.inputs[0], at[:-1]), "int64")
            entry = at[-1]
            start, d, step = entry if isinstance(entry, tuple) else (0, entry, 1)
            place = self._node("index", "int64", (), (start, d, step))
            return self._cast(self._node("equal", "bool", (place, label)), out)
        if name in ("gather", "take_along_axis"):
            return self._pick(equation, at)
        if name == "astype":
            return self._cast(self.pull(equation.inputs[0], at), out)
        arguments = [self.pull(e, at if e.type.shape else ()) for e in equation.inputs]
        wanted = _operand_dtypes(equation)
        arguments = [self._cast(a, dtype) for a, dtype in zip(arguments, wanted, strict=True)]
        params = tuple([(k, v) for k, v in sorted(equation.params.items()) if k != "dtype"])
        return self._node(name, out, tuple(arguments), params)

    def _pick(self, equation: Equation, at: Map) -> int:
        """An element of an operand, some of whose indices are computed."""
        source, *indices = equation.inputs
        where = self.fusion.place(source)
        assert where is not None
        shape = source.type.shape
        if equation.op.name == "take_along_axis":
            axes: tuple[int, ...] = (equation.params["axis"],)
            own = {axis: at[axis] for axis in range(len(shape)) if axis not in axes}
            maps = [at]
        else:
            axes = equation.params["axes"]
            picked = max(len(i.type.shape) for i in indices)
            start = axes[0] if axes == tuple(range(axes[0], axes[0] + len(axes))) else 0
            others = [axis for axis in range(len(shape)) if axis not in axes]
            left = [*at[:start], *at[start + picked :]]
            own = dict(zip(others, left, strict=True))
            middle = at[start : start + picked]
            maps = [
                tuple(
                    [
                        NOWHERE if n == 1 else m
                        for n, m in zip(i.type.shape, middle[picked - len(i.type.shape) :], strict=True)
                    ]
                )
                for i in indices
            ]
        operand = self._operand(where.base)
        self.reads.add(operand)
        entries: list[Any] = [own.get(axis, NOWHERE) for axis in range(len(shape))]
        offset, steps = self._address(where.strides, tuple(entries))
        numbers = tuple([self._cast(self.pull(i, m), "int64") for i, m in zip(indices, maps, strict=True)])
        strides = tuple([(where.strides[axis], shape[axis]) for axis in axes])
        dtype = dtype_name(equation.type.dtype)
        return self._node("pick", dtype, numbers, (operand, where.offset + offset, steps, strides))

    def _reduction(self, equation: Equation) -> int:
        source = equation.inputs[0]
        at = tuple([i if n != 1 else NOWHERE for i, n in enumerate(source.type.shape)])
        out = dtype_name(equation.type.dtype)
        argument = self._cast(self.pull(source, at), "bool" if equation.op.name in ("any", "all") else out)
        return self._node("reduce", out, (argument,), (equation.op.name,))

    def _multiply(self, equation: Equation) -> None:
        lead = len(equation.type.shape) - 2
        found = []
        for source in equation.inputs:
            where = self.fusion.place(source)
            assert where is not None
            operand = self._operand(where.base)
            self.reads.add(operand)
            shape, strides = source.type.shape, where.strides
            batch = [0] * (lead - len(shape) + 2) + [
                s if n != 1 else 0 for n, s in zip(shape[:-2], strides[:-2], strict=True)
            ]
            found.append((operand, where.offset, tuple(batch), strides[-2], strides[-1]))
        self.matrices = Matrices(equation.inputs[0].type.shape[-1], found[0], found[1])


_COMPARISONS = frozenset("equal greater greater_equal isclose less less_equal not_equal".split())
_LOGICAL = frozenset("logical_and logical_not logical_or logical_xor".split())
_TESTS = frozenset("isfinite isinf isnan signbit".split())


def _operand_dtypes(equation: Equation) -> list[str]:
    """The dtype that each operand of a pointwise op is converted to before it is computed."""
    name, out = equation.op.name, dtype_name(equation.type.dtype)
    types = [e.type for e in equation.inputs]
    if name in _COMPARISONS:
        return [_promoted(types)] * len(types)
    if name in _LOGICAL:
        return ["bool"] * len(types)
    if name in _TESTS:
        return [dtype_name(t.dtype) for t in types]
    if name == "where":
        return ["bool", out, out]
    return [out] * len(types)


def _promoted(types: list[TensorType]) -> str:
    values: list[Any] = [
        (0.0 if t.is_float else 0 if t.dtype.kind == "i" else False) if t.weak else t.dtype for t in types
    ]
    return str(np.result_type(*values))
