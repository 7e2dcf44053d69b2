"""Chains: a program's forward pass as a row of blocks, and its backward pass as what follows each of them.

Between two blocks few values are handed on: the state. It is looked for among the kernels, so that blocks are
made of what is really stored, and no layer or module has to be declared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from stepgrad.passes.buffers import padded
from stepgrad.passes.checkpoints import Action, Block
from stepgrad.passes.reruns import Flow, Run
from stepgrad.tape.equation import Equation, Role

FEWEST = 3
"""Fewer blocks than this are no chain."""
WIDEST = 4
"""How many values a state may have at most."""


_LONGEST_PERIOD = 32


class Chain:
    """Blocks of kernels.

    Args:
        flow: the program.
        turn: the number of kernels of the forward pass.
        cuts: where a block ends and the next begins, in order.
        shared: values of the forward pass that many blocks read; they are always kept.

    Attributes:
        blocks: what each costs.
        pinned: values that are always kept: shared ones, and those that the backward pass does not read in the
            reverse order of the blocks.
    """

    def __init__(self, flow: Flow, turn: int, cuts: Sequence[int], shared: frozenset[Equation]) -> None:
        self.flow, self.turn, self.cuts = flow, turn, tuple(cuts)
        self._begins = [0, *cuts]
        self._ends = [*cuts, turn]
        self.pinned = set(shared)
        self._handed: list[list[Equation]] = [[] for _ in self._ends]  # the state after each block
        self._inside: list[list[Equation]] = [[] for _ in self._ends]  # what else its backward pass reads
        self._span: dict[Equation, tuple[int, int]] = {}
        for tensor, writer in flow.writer.items():
            readers = flow.readers.get(tensor, [])
            if writer < turn and readers and not flow.slice(Run(writer, (tensor,))).repeatable:
                self.pinned.add(tensor)
            if writer < turn and readers and tensor not in self.pinned:
                own, last = self._block(writer), self._block(max([writer, *(r for r in readers if r < turn)]))
                self._span[tensor] = own, last
        self._stages = self._staged()
        for tensor, (own, last) in self._span.items():
            if tensor not in self.pinned:
                for i in range(own, last):
                    self._handed[i].append(tensor)
                if own == last and flow.readers[tensor][-1] >= turn:
                    self._inside[own].append(tensor)
        self._reruns: dict[Action, list[Run]] = {}
        self.blocks = [
            Block(
                self.flow.cost(self._rerun(("go", i))),
                self.flow.cost(self._rerun(("read", i))),
                sum(map(padded, self._handed[i])),
                sum(map(padded, self._inside[i])),
            )
            for i in range(len(self._ends))
        ]

    def _block(self, group: int) -> int:
        return bisect_right(self.cuts, group)

    def _staged(self) -> list[list[Run]]:
        """The rest of the program, in order, by the block whose backward pass it is.

        A kernel of it reads the state before that block, the values inside, and the state after it. Most of
        them go through the blocks in reverse; what the others read is pinned.
        """
        spans = self._span
        found: list[list[Run]] = [[] for _ in self._ends]
        rest = self.flow.firsts[self.turn :]
        reads = [(run, [e for e in self.flow.slice(run).reads if e in spans]) for run in rest]
        regular = _longest_descent([max((spans[e][0] for e in read), default=None) for _, read in reads])
        stage = len(self._ends) - 1
        for i, (run, read) in enumerate(reads):
            if i in regular:
                stage = min(stage, *(spans[e][1] for e in read))
            self.pinned.update(e for e in read if not spans[e][0] <= stage <= spans[e][1])
            found[stage].append(run)
        return found

    def _rerun(self, action: Action) -> list[Run]:
        """The runs of a block that is run again."""
        found = self._reruns.get(action)
        if found is not None:
            return found
        how, i = action
        held = self.pinned if how != "read" else self.pinned.union(self._handed[i])
        need = set(self._handed[i] if how != "read" else ())
        need.update(self._inside[i] if how != "go" else ())
        found = []
        for group in range(self._ends[i] - 1, self._begins[i] - 1, -1):
            whole = self.flow.slice(self.flow.firsts[group])
            wanted = tuple([e for e in whole.writes if e in need and e not in held])
            if wanted:
                run = Run(group, wanted)
                found.append(run)
                need.update(self.flow.slice(run).reads)
        found.reverse()
        self._reruns[action] = found
        return found

    def runs(self, actions: Iterable[Action]) -> list[Run]:
        """The program with these actions."""
        found: list[Run] = []
        ran = -1
        for how, i in actions:
            if how == "back":
                found += self._stages[i]
            elif i > ran:
                ran = i
                found += self.flow.firsts[self._begins[i] : self._ends[i]]
            else:
                found += self._rerun((how, i))
        return found

    def joined(self, step: int) -> Chain:
        """The same chain with so many neighbouring blocks made one."""
        return Chain(self.flow, self.turn, self.cuts[step - 1 :: step], frozenset(self.pinned))

    def coarser(self, count: int) -> Chain:
        """The same chain with at most so many blocks."""
        return self.joined(-(-len(self.blocks) // count))

    def period(self) -> int:
        """After how many blocks their costs repeat; 0 if they don't."""
        count = len(self.blocks)
        for step in range(1, min(_LONGEST_PERIOD, count // 4) + 1):
            different = sum(one != other for one, other in zip(self.blocks, self.blocks[step:], strict=False))
            if different <= max(4, 4 * step, count // 50):
                return step
        return 0

    @property
    def is_even(self) -> bool:
        """All blocks but a few at the ends cost the same."""
        usual = self.usual
        return sum(block != usual for block in self.blocks) <= max(2, len(self.blocks) // 50)

    @property
    def usual(self) -> Block:
        """The most frequent block."""
        counts: dict[Block, int] = {}
        for block in self.blocks:
            counts[block] = counts.get(block, 0) + 1
        return max(counts, key=counts.__getitem__)


def find_chain(flow: Flow) -> Chain | None:
    """The chain that a program's forward pass is, if it is one.

    States are the narrowest places: those where one value is handed on, else two, and so on.
    """
    turn = _turn(flow)
    last = {t: max([r for r in flow.readers[t] if r < turn], default=w) for t, w in flow.writer.items()
            if w < turn and t in flow.readers}  # fmt: skip
    far = max(16, turn // 4)
    shared = frozenset(
        t for t, reader in last.items() if reader - flow.writer[t] > far or _is_everywhere(flow, t, turn)
    )
    change = [0] * (turn + 1)
    small = max(map(padded, last), default=0) // 64
    for tensor, reader in last.items():
        if tensor not in shared and reader > flow.writer[tensor] and padded(tensor) > small:
            change[flow.writer[tensor] + 1] += 1
            change[reader + 1] -= 1
    width, widths = 0, []
    for step in change:
        width += step
        widths.append(width)
    best: list[int] = []
    longest = turn
    for widest in range(1, WIDEST + 1):
        cuts = [c for c in range(1, turn) if 1 <= widths[c] <= widest]
        gap = max(end - start for start, end in pairwise([0, *cuts, turn])) if turn else 0
        if len(cuts) + 1 >= FEWEST and gap < longest:
            best, longest = cuts, gap
        if longest <= max(8, turn // 8):
            break
    if not best:
        return None
    chain = Chain(flow, turn, best, shared)
    if len(best) >= FEWEST and not chain.blocks[-1].again:  # the loss: nothing of it is read later
        chain = Chain(flow, turn, best[:-1], shared)
    return chain


def _is_everywhere(flow: Flow, tensor: Equation, turn: int) -> bool:
    """Read all along the backward pass, as step sizes are."""
    later = [reader for reader in flow.readers[tensor] if reader >= turn]
    if len(later) < 2:
        return False
    return tensor.type.size == 1 or later[-1] - later[0] > max(16, (len(flow.groups) - turn) // 4)


def _turn(flow: Flow) -> int:
    """Where the forward pass ends: before the part of another role at whose beginning most bytes are kept."""
    forward = [group.members[0].role is Role.FORWARD for group in flow.groups]
    places = [i for i in range(1, len(forward)) if forward[i - 1] and not forward[i]]

    def kept(place: int) -> int:
        return sum(padded(t) for t, w in flow.writer.items() if w < place and flow.readers.get(t, [0])[-1] >= place)

    return max(places, key=kept, default=0)


def _longest_descent(numbers: Sequence[int | None]) -> set[int]:
    """The positions of a longest part of the numbers that never rises; None is left out."""
    ends: list[int] = []  # the negative of the last number of the best part of each length
    at: list[int] = []
    before: list[int] = [-1] * len(numbers)
    for i, n in enumerate(numbers):
        if n is None:
            continue
        length = bisect_right(ends, -n)
        if length == len(ends):
            ends.append(-n)
            at.append(i)
        else:
            ends[length], at[length] = -n, i
        before[i] = at[length - 1] if length else -1
    found = set()
    i = at[-1] if at else -1
    while i >= 0:
        found.add(i)
        i = before[i]
    return found
