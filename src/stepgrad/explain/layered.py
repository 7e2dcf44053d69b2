"""Layered layout: rows of boxes, so that every edge leads down, with few crossings and short edges.

The method of Sugiyama, Tagawa and Toda (1981): rows by longest path, an invisible node wherever the edges
of a node pass a row (they share a lane), crossings reduced by barycenters, then places that pull each box
towards its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

Key = Hashable
_SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        places: node -> (x, y) of its centre.
        bends: edge -> the points that it passes between its ends.
        width, height: of all of it.
    """

    places: dict[Key, tuple[float, float]]
    bends: dict[tuple[Key, Key], list[tuple[float, float]]]
    width: float
    height: float


def layout(
    sizes: Mapping[Key, tuple[float, float]], edges: Sequence[tuple[Key, Key]], gap: tuple[float, float] = (18, 30)
) -> Layout:
    """Places boxes of the given sizes.

    Args:
        sizes: node -> (width, height).
        edges: (from, to); without cycles.
        gap: the least distance between boxes beside each other, and between rows.
    """
    rows, chains = _rows(list(sizes), edges)
    above: dict[Key, list[Key]] = {}
    below: dict[Key, list[Key]] = {}
    for chain in chains.values():
        for a, b in itertools.pairwise(chain):
            if b not in below.setdefault(a, []):
                below[a].append(b)
                above.setdefault(b, []).append(a)
    rows = _ordered(rows, above, below)
    xs = _across(rows, above, below, {n: sizes[n][0] if n in sizes else 6.0 for row in rows for n in row}, gap[0])
    y = 0.0
    ys: dict[Key, float] = {}
    for row in rows:
        height = max((sizes[n][1] for n in row if n in sizes), default=0.0)
        ys |= dict.fromkeys(row, y + height / 2)
        y += height + gap[1]
    left = min((xs[n] - w / 2 for n, (w, _) in sizes.items()), default=0.0)
    left = min([left, *(xs[n] for row in rows for n in row if n not in sizes)])
    right = max([xs[n] + (sizes[n][0] / 2 if n in sizes else 0.0) for row in rows for n in row], default=0.0)
    place = {n: (xs[n] - left, ys[n]) for n in xs}
    return Layout(
        {n: place[n] for n in sizes},
        {edge: [place[n] for n in chain[1:-1]] for edge, chain in chains.items()},
        right - left,
        max(y - gap[1], 0.0),
    )


def _rows(
    nodes: list[Key], edges: Sequence[tuple[Key, Key]]
) -> tuple[list[list[Key]], dict[tuple[Key, Key], list[Key]]]:
    """The rows, with an invisible node wherever an edge passes one; and the nodes that each edge visits."""
    after: dict[Key, list[Key]] = {n: [] for n in nodes}
    waiting = dict.fromkeys(nodes, 0)
    for a, b in edges:
        after[a].append(b)
        waiting[b] += 1
    entered = dict(waiting)
    level = dict.fromkeys(nodes, 0)
    ready = [n for n in nodes if not waiting[n]]
    for node in ready:  # grows while it is walked
        for b in after[node]:
            level[b] = max(level[b], level[node] + 1)
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    for node in nodes:  # what nothing leads to stands just above its first reader
        if not entered[node] and after[node]:
            level[node] = min(level[b] for b in after[node]) - 1
    rows: list[list[Key]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node in nodes:
        rows[level[node]].append(node)
    chains: dict[tuple[Key, Key], list[Key]] = {}
    bends: set[Key] = set()
    for a, b in edges:
        passing: list[Key] = [("bend", a, row) for row in range(level[a] + 1, level[b])]
        for node, row in zip(passing, range(level[a] + 1, level[b]), strict=True):
            if node not in bends:
                bends.add(node)
                rows[row].append(node)
        chains[a, b] = [a, *passing, b]
    return rows, chains


Neighbours = Mapping[Key, Sequence[Key]]


def _ordered(rows: list[list[Key]], above: Neighbours, below: Neighbours) -> list[list[Key]]:
    best, fewest = rows, _crossings(rows, below)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        rows = [list(row) for row in rows]
        for i in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            position = {n: p for p, n in enumerate(rows[i - 1 if down else i + 1])}
            own = {n: p for p, n in enumerate(rows[i])}
            near = {n: [position[m] for m in (above if down else below).get(n, ())] for n in rows[i]}
            rows[i].sort(key=lambda n: (sum(near[n]) / len(near[n]) if near[n] else own[n], own[n]))
        now = _crossings(rows, below)
        if now < fewest:
            best, fewest = rows, now
    return best


def _crossings(rows: Sequence[Sequence[Key]], below: Neighbours) -> int:
    total = 0
    for row, following in itertools.pairwise(rows):
        position = {n: p for p, n in enumerate(following)}
        ends = [p for n in row for p in sorted(position[m] for m in below.get(n, ()) if m in position)]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _across(
    rows: Sequence[Sequence[Key]], above: Neighbours, below: Neighbours, widths: Mapping[Key, float], gap: float
) -> dict[Key, float]:
    xs: dict[Key, float] = {}
    for row in rows:
        x = 0.0
        for node in row:
            xs[node] = x + widths[node] / 2
            x += widths[node] + gap
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = {n: [xs[m] for m in (above if down else below).get(n, ())] for n in row}
            wished = [sum(near[n]) / len(near[n]) if near[n] else xs[n] for n in row]
            xs |= dict(zip(row, _apart(wished, [widths[n] for n in row], gap), strict=True))
    return xs


def _apart(wished: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """The places nearest to those wished for (least squares) at which neighbours keep their distance."""
    offsets = [0.0]
    for a, b in itertools.pairwise(widths):
        offsets.append(offsets[-1] + (a + b) / 2 + gap)
    pools: list[tuple[float, int]] = []  # pool adjacent violators: (mean, how many)
    for wish, offset in zip(wished, offsets, strict=False):
        mean, size = wish - offset, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        pools.append((mean, size))
    return [m + o for m, o in zip((m for m, size in pools for _ in range(size)), offsets, strict=False)]
