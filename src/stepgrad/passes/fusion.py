"""Fusion: which equations are computed together, in one kernel.

The tape is walked once. An equation joins the latest of the groups that its inputs come from, if it
is computed at the same points as they are; else it begins a group of its own. Groups stay in an
order in which each reads only from itself and from earlier ones, so no cycle can arise.

What is cheap and read from stored values only is not given a place at all: every kernel that needs
it computes it again (`sunk`), as it does with views.
"""

from __future__ import annotations

from collections.abc import Iterable

from stepgrad.cells import ASSIGN
from stepgrad.passes.indexing import NOWHERE, Map, Place, composed, identity, place, through
from stepgrad.passes.kinds import CHEAP, PICKS, Kind, Kinds, is_suffix
from stepgrad.tape.equation import CELL, INPUT, LITERAL, Equation
from stepgrad.tape.tape import Tape

Shape = tuple[int, ...]
Uses = dict[Equation, Map | None]
"""What is read, at which of the reader's elements; None where no map can say."""


class Group:
    """Equations that become one kernel.

    Attributes:
        kind: "rows" (a loop over rows, with reductions along each), "columns" (reductions along the
            leading axes), "product" (a matrix product and what follows it), or "other".
        domain: the shape of the points at which it computes.
        members: its equations, in order; the first is what it began with.
        at: where in the domain each member is computed.
        inner: how many trailing axes a "rows" group reduces; None while it reduces none.
        reduced: the axes that a "columns" group reduces.
        reads: leaves that it reads, and whether only at the points where it computes.
    """

    __slots__ = ("at", "domain", "inner", "kind", "members", "position", "reads", "reduced")

    def __init__(self, kind: str, domain: Shape, position: int) -> None:
        self.kind, self.domain, self.position = kind, domain, position
        self.members: list[Equation] = []
        self.at: dict[Equation, Map] = {}
        self.inner: int | None = None
        self.reduced: tuple[int, ...] = ()
        self.reads: dict[Equation, bool] = {}

    def is_own(self, shape: Shape, at: Map) -> bool:
        """Each point of the domain (or of what is kept of it) has its own element of a tensor read by this map."""
        return (shape == self.domain and at == identity(shape)) or at == self.kept(shape)

    def kept(self, shape: Shape) -> Map | None:
        """The map of something that has one element for each reduced row or column."""
        if self.kind == "columns":
            left = [i for i in range(len(self.domain)) if i not in self.reduced]
        elif self.inner:
            left = list(range(len(self.domain) - self.inner))
        else:
            return None
        bare = [i if self.domain[i] != 1 else NOWHERE for i in left]
        if shape == tuple([self.domain[i] for i in left]):
            return tuple(bare)
        if shape == tuple([self.domain[i] if i in left else 1 for i in range(len(self.domain))]):
            return tuple([i if i in left and self.domain[i] != 1 else NOWHERE for i in range(len(self.domain))])
        return None


class Fusion:
    """The groups of a tape, and what they store.

    Attributes:
        groups: in an order in which they can run.
        home: the group of each equation that has one.
        stored: equations whose value is put into memory.
        assigned: equation of ASSIGN -> the cell's leaf.
        unsettled: assignments whose values have to be copied first, or they would be read from cells already written.
    """

    def __init__(self, tape: Tape, kinds: Kinds) -> None:
        self.tape = tape
        self.kind = {e: kinds.of(e) for e in tape.equations}
        self.groups: list[Group] = []
        self.home: dict[Equation, Group] = {}
        self.sunk: set[Equation] = set()
        self.assigned: dict[Equation, Equation] = {}
        self.unsettled: set[Equation] = set()
        self._uses: dict[Equation, Uses] = {}
        self._depth: dict[Equation, int] = {}
        self._scalars: Group | None = None
        self.places: dict[Equation, Place | None] = {}
        order = _scalars_first(tape)
        for equation in order:
            if self.kind[equation] is Kind.PRODUCT and not all(map(self._is_matrix, equation.inputs)):
                self.kind[equation] = Kind.OTHER
        self.stored: set[Equation] = self._must_be_stored(order)
        for equation in order:
            self._place(equation)
        self._check_assignments()
        self._store_what_crosses()

    def of(self, equation: Equation) -> Kind:
        return self.kind.get(equation, Kind.LEAF)

    def place(self, equation: Equation) -> Place | None:
        """Where a tensor is, if what it is a view of is stored."""
        return place(equation, self.places, lambda e: self.of(e) is Kind.VIEW)

    def _is_matrix(self, equation: Equation) -> bool:
        """Rows or columns of it lie side by side in memory."""
        found = self.place(equation)
        return found is not None and any(
            step == 1 or n == 1 for n, step in zip(equation.type.shape[-2:], found.strides[-2:], strict=True)
        )

    # --- what has to be in memory in any case

    def _must_be_stored(self, order: list[Equation]) -> set[Equation]:
        wanted = [e for e in self.tape.outputs if e.op is not ASSIGN]
        for equation in order:
            kind = self.kind[equation]
            if kind in (Kind.PRODUCT, Kind.OTHER):
                wanted.extend(equation.inputs)
            elif equation.op.name in PICKS:
                wanted.append(equation.inputs[0])
            elif equation.op is ASSIGN and equation.inputs[1].op.name == "alias":
                wanted.append(equation.inputs[1])  # copied on purpose
            elif kind is Kind.VIEW and through(equation, tuple(range(len(equation.type.shape)))) is None:
                wanted.append(equation.inputs[0])
        stored = set()
        for equation in wanted:
            while self.of(equation) is Kind.VIEW:
                equation = equation.inputs[0]
            stored.add(equation)
        return stored

    # --- what is read, through views and what is computed again

    def uses(self, equation: Equation) -> Uses:
        """What an equation reads that is stored or computed elsewhere, by where it reads it.

        Relative to its own axes; for a reduction, to those of its input.
        """
        found = self._uses.get(equation)
        if found is None:
            found = self._uses[equation] = {}
            picks = equation.op.name in PICKS and self.of(equation) is Kind.POINT
            for i, source in enumerate(equation.inputs):
                if equation.op is ASSIGN and not i:
                    continue
                if source.op is LITERAL:
                    continue
                at: Map | None
                if self.of(equation) is Kind.VIEW:
                    at = through(equation, tuple(range(len(equation.type.shape))))
                elif equation.op.name == "one_hot":
                    at = tuple(range(len(source.type.shape)))
                elif picks:
                    at = _picked_at(equation, source) if i else None
                else:
                    at = identity(source.type.shape)
                self._read(found, source, at)
        return found

    def _read(self, found: Uses, source: Equation, at: Map | None) -> None:
        if self.of(source) is Kind.VIEW or source in self.sunk:
            for x, inner in self.uses(source).items():
                _note(found, x, None if at is None or inner is None else composed(inner, at))
        else:
            _note(found, source, at)

    # --- where each equation goes

    def _place(self, equation: Equation) -> None:
        kind = self.kind[equation]
        if kind is Kind.VIEW:
            return
        if kind is Kind.POINT:
            if self._can_sink(equation):
                self.sunk.add(equation)
                return
            self._place_point(equation)
        elif kind is Kind.REDUCE:
            self._place_reduction(equation)
        else:
            group = self._begin("product" if kind is Kind.PRODUCT else "other", equation.type.shape)
            self._join(group, equation, identity(equation.type.shape))

    def _can_sink(self, equation: Equation) -> bool:
        if equation.op.name not in CHEAP or equation.op is ASSIGN or equation in self.stored:
            return False
        depth = 0
        for source in equation.inputs:
            while self.of(source) is Kind.VIEW:
                source = source.inputs[0]
            if source in self.sunk:
                depth = max(depth, self._depth[source])
            elif self.of(source) is not Kind.LEAF and source not in self.stored:
                return False
        self._depth[equation] = depth + 1
        return depth < _DEEPEST

    def _latest(self, equation: Equation) -> Group | None:
        latest = None
        for x in self.uses(equation):
            group = self.home.get(x)
            if group is not None and (latest is None or group.position > latest.position):
                latest = group
        return latest

    def _place_point(self, equation: Equation) -> None:
        shape = equation.type.shape
        group = self._latest(equation)
        if shape == () and (group is None or group is self._scalars):  # single numbers, all in one kernel
            group = self._scalars = self._scalars or self._begin("rows", ())
        if group is not None and group.kind != "other":
            candidates = [identity(shape)] if shape == group.domain and group.kind != "columns" else []
            kept = group.kept(shape)
            for at in [*candidates, *([] if kept is None else [kept])]:
                if self._fits(group, equation, at):
                    self._join(group, equation, at)
                    return
        self._join(self._begin("rows", shape), equation, identity(shape))

    def _place_reduction(self, equation: Equation) -> None:
        source, axes = equation.inputs[0], equation.params["axis"]
        shape = source.type.shape
        suffix = is_suffix(axes, len(shape))
        group = self._latest(equation)
        if (
            suffix
            and group is not None
            and group.kind == "rows"
            and group.domain == shape
            and group.inner in (None, len(axes))
            and self._fits(group, equation, identity(shape))
        ):
            group.inner = len(axes)
        else:
            group = self._begin("rows" if suffix else "columns", shape)
            group.inner, group.reduced = (len(axes), ()) if suffix else (None, tuple(sorted(axes)))
        kept = group.kept(equation.type.shape)
        assert kept is not None
        self._join(group, equation, kept)

    def _fits(self, group: Group, equation: Equation, at: Map) -> bool:
        """Whether everything the equation reads of the group is computed at the same points."""
        for x, inner in self.uses(equation).items():
            if x in group.at and (inner is None or composed(inner, at) != group.at[x]):
                return False
        if equation.op is not ASSIGN:
            return True
        cell = _cell_of(equation)
        own = group.reads.get(cell, True)
        return own and all(a.op is not ASSIGN or _cell_of(a) is not cell for a in group.members)

    def _begin(self, kind: str, domain: Shape) -> Group:
        group = Group(kind, domain, len(self.groups))
        self.groups.append(group)
        return group

    def _join(self, group: Group, equation: Equation, at: Map) -> None:
        group.members.append(equation)
        group.at[equation] = at
        self.home[equation] = group
        pointwise = self.kind[equation] is Kind.POINT
        for x, inner in self.uses(equation).items():
            if x.op is CELL:
                own = pointwise and inner is not None and group.is_own(x.type.shape, composed(inner, at))
                group.reads[x] = group.reads.get(x, True) and own
        if equation.op is ASSIGN:
            self.assigned[equation] = _cell_of(equation)

    # --- assignments in place, where nobody reads the old value later

    def _check_assignments(self) -> None:
        readers: dict[Equation, list[Group]] = {}
        for group in self.groups:
            for leaf in group.reads:
                readers.setdefault(leaf, []).append(group)
        late = []
        outputs = {self.base(e) for e in self.tape.outputs}
        for assign, cell in self.assigned.items():
            group = self.home[assign]
            others = [g for g in readers.get(cell, ()) if g is not group]
            if any(g.position > group.position for g in others) or not group.reads.get(cell, True) or cell in outputs:
                late.append(assign)
        written = set(self.assigned.values())
        for assign in late:
            group = self.home.pop(assign)
            group.members.remove(assign)
            del group.at[assign]
            if any(x in written for x in self.uses(assign)):
                self.unsettled.add(assign)
            copy = self._begin("rows", assign.type.shape)
            self._join(copy, assign, identity(assign.type.shape))
            copy.reads.clear()

    def base(self, equation: Equation) -> Equation:
        """What a view is of; else the equation itself."""
        while self.of(equation) is Kind.VIEW:
            equation = equation.inputs[0]
        return equation

    def _store_what_crosses(self) -> None:
        for group in self.groups:
            for member in group.members:
                for x, inner in self.uses(member).items():
                    home = self.home.get(x)
                    if home is not None and (home is not group or inner is None):
                        self.stored.add(x)
        self.groups = [g for g in self.groups if g.members]
        for i, group in enumerate(self.groups):
            group.position = i


_DEEPEST = 8
"""How many cheap equations in a row are computed again rather than stored."""


def _picked_at(equation: Equation, index: Equation) -> Map:
    """Where an index of a gather or take_along_axis is read, relative to the result."""
    shape = index.type.shape
    if equation.op.name == "take_along_axis":
        return identity(shape)
    axes = equation.params["axes"]
    start = axes[0] if axes == tuple(range(axes[0], axes[0] + len(axes))) else 0
    last = start + max(len(e.type.shape) for e in equation.inputs[1:])
    return tuple([NOWHERE if n == 1 else last - len(shape) + i for i, n in enumerate(shape)])


def _note(found: Uses, x: Equation, at: Map | None) -> None:
    found[x] = at if x not in found or found[x] == at else None


def _cell_of(assign: Equation) -> Equation:
    """The leaf of the cell that an ASSIGN writes: its first operand, or that of the assignment before."""
    cell = assign.inputs[0]
    while cell.op is ASSIGN:
        cell = cell.inputs[0]
    return cell


def _scalars_first(tape: Tape) -> list[Equation]:
    """The equations, with single numbers that depend on leaves only (step sizes, say) at the front.

    Then a kernel that updates a parameter by them can be the one that computes its gradient.
    """
    early: set[Equation] = set()
    for equation in tape.equations:
        if equation.type.size <= 1 and all(
            (not e.inputs and e.op is not INPUT) or (e.op is INPUT and e.type.size <= 1) or e in early
            for e in equation.inputs
        ):
            early.add(equation)
    return [*_in(tape.equations, early), *(e for e in tape.equations if e not in early)]


def _in(equations: Iterable[Equation], chosen: set[Equation]) -> list[Equation]:
    return [e for e in equations if e in chosen]
