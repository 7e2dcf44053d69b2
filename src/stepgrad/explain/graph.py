"""The graph of a trace: which nodes and edges a picture shows. `layout` of it is in layered.py, drawing in svg.py.

A node is a step (a line of the user's code) or a value that steps pass on. Where there are too many
of them, steps that repeat, and then neighbours, share a node.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from stepgrad.explain.document import Document
from stepgrad.explain.story import repetitions
from stepgrad.tape.layout import plural

LIMIT = 60
"""The most nodes that a picture shows."""

_LONGEST = 38


@dataclass(frozen=True)
class Node:
    """A box of the picture.

    Attributes:
        key: what it stands for: ("step", first number) or ("value", id).
        kind: "step", "steps" for a collapsed one, "leaf" for an input, parameter or constant, else "value".
        lines: what is written in it.
        title: the whole text, shown when it is pointed at.
        steps: the numbers of its steps.
        gradient: the name of the value's gradient, or "".
        cached: the value is kept for the backward pass.
    """

    key: tuple[str, int]
    kind: str
    lines: tuple[str, ...]
    title: str
    steps: tuple[int, ...] = ()
    gradient: str = ""
    cached: bool = False


@dataclass(frozen=True)
class Edge:
    """A value on its way between two nodes: forward, and its gradient backward if there is one."""

    source: tuple[str, int]
    target: tuple[str, int]
    gradient: bool


@dataclass(frozen=True)
class Graph:
    """Nodes by key, and edges in the direction of the forward pass."""

    nodes: dict[tuple[str, int], Node]
    edges: tuple[Edge, ...]


def graph(document: Document, limit: int = LIMIT) -> Graph:
    """The graph of a trace's document, with at most about `limit` nodes."""
    steps = {s["number"]: s for s in document["steps"] if s["pass"] == "forward"}
    groups = [[n] for n in steps]
    made = _Graph(document, steps, groups).made()
    if len(made.nodes) <= limit:
        return made
    groups = _repeated(document, steps)
    size = 1
    while True:
        merged = [[n for g in groups[i : i + size] for n in g] for i in range(0, len(groups), size)]
        made = _Graph(document, steps, merged).made(fold=True)
        if len(made.nodes) <= limit or len(merged) <= 1:
            return made
        size *= 2


def _repeated(document: Document, steps: dict[int, Document]) -> list[list[int]]:
    """Steps in groups: of those that repeat, the first and the last stay, all between are one group."""
    ops = {e["value"]: e["op"] for e in document["equations"]}
    kinds: list[Hashable] = [
        tuple((ops[e], *document["values"][e]["shape"]) for e in step["equations"]) for step in steps.values()
    ]
    numbers = list(steps)
    groups: list[list[int]] = []
    for first, times, period in repetitions(kinds):
        run = numbers[first : first + times * period]
        groups += [[n] for n in run[:period]]
        if times > 1:
            groups.append(run[period:-period])
            groups += [[n] for n in run[-period:]]
    return [g for g in groups if g]


class _Graph:
    def __init__(self, document: Document, steps: dict[int, Document], groups: Sequence[list[int]]) -> None:
        self.document, self.steps, self.groups = document, steps, groups
        self.values = document["values"]
        self.group_of = {n: ("step", group[0]) for group in groups for n in group}
        self.leaves = {*document["inputs"], *document["parameters"], *document["constants"]}
        self.cached = {row["value"] for row in document["cache"]["rows"] if row["kind"] == "saved"}
        self.gradients = {
            g["of"]: g["name"]
            for s in steps.values()
            if s["backward"]
            for g in (*s["backward"]["gives"], *s["backward"]["arrives"])
            if g.get("kind") != "part"
        }

    def made(self, fold: bool = False) -> Graph:
        readers: dict[int, dict[tuple[str, int], None]] = {}
        makers: dict[int, tuple[str, int]] = {}
        back: set[tuple[tuple[str, int], int]] = set()
        for number, step in self.steps.items():
            key = self.group_of[number]
            for value in step["inputs"]:
                readers.setdefault(value, {})[key] = None
            for value in step["outputs"]:
                makers[value] = key
            for g in (*step["backward"]["gives"], *step["backward"]["arrives"]) if step["backward"] else ():
                back.add((key, g["of"]))
        shown = self._shown(readers, makers, fold)
        nodes = {key: self._step(group) for group in self.groups for key in [("step", group[0])]}
        nodes |= {("value", v): self._value(v) for v in shown}
        edges = []
        for value in shown:
            here = ("value", value)
            if value in makers:
                edges.append(Edge(makers[value], here, (makers[value], value) in back))
            edges += [
                Edge(here, reader, (reader, value) in back)
                for reader in readers.get(value, ())
                if reader != makers.get(value)
            ]
        return Graph(nodes, tuple(edges))

    def _shown(
        self, readers: dict[int, dict[tuple[str, int], None]], makers: dict[int, tuple[str, int]], fold: bool
    ) -> list[int]:
        """Values that nodes pass on; what stays inside of a collapsed one is left out."""
        large = {("step", group[0]) for group in self.groups if len(group) > 1}
        shown = []
        for value in dict.fromkeys([*readers, *makers]):
            outside = [r for r in readers.get(value, ()) if r != makers.get(value)]
            if value in makers:
                wanted = bool(outside) or value in self.document["outputs"]
            else:
                wanted = len(outside) > 1 or outside[0] not in large
            if wanted and (value in self.leaves or value in makers):
                shown.append(value)
        if fold and len(shown) > LIMIT:  # many parameters of one step
            shown = [v for v in shown if v in makers or len(readers[v]) > 1]
        return shown

    def _step(self, group: list[int]) -> Node:
        first = self.steps[group[0]]
        if len(group) > 1:
            texts = list(dict.fromkeys(step_text(self.steps[n]) for n in group))
            about = (
                short(texts[0], _LONGEST - 4) if len(texts) == 1 else f"{short(texts[0], 14)} … {short(texts[-1], 14)}"
            )
            lines = (f"… {plural(len(group), 'step')}: {group[0]} to {group[-1]}", about)
            return Node(("step", group[0]), "steps", lines, "\n".join(texts[:30]), tuple(group))
        text = step_text(first)
        scope = f"module {first['scope'][-1]}" if len(first["scope"]) > 1 else ""
        shown = tuple(filter(None, (f"{group[0]}  {short(text, _LONGEST)}", scope)))
        title = "\n".join(dict.fromkeys([text, *(f"{f['name']} = {f['text']}" for f in first["formulas"])]))
        return Node(("step", group[0]), "step", shown, title, (group[0],))

    def _value(self, value: int) -> Node:
        entry = self.values[value]
        shape = shape_text(entry["shape"])
        name = short(entry["name"] or entry["text"], 24)
        leaf = value in self.leaves
        return Node(
            ("value", value),
            "leaf" if leaf else "value",
            (f"{name} {shape}",),
            f"{entry['role'] if leaf else 'value'} {entry['name'] or entry['text']} {shape} {entry['dtype']}"
            + (", saved for the backward pass" if value in self.cached else ""),
            gradient=short(self.gradients.get(value, ""), 24),
            cached=value in self.cached,
        )


def step_text(step: Document) -> str:
    """A step in one line: the user's, or its formulas where that is not known, or is only the call of a module."""
    formulas = "; ".join(f"{f['name']} = {f['text']}" for f in step["formulas"])
    return (formulas if len(step["scope"]) > 1 else "") or step["text"] or formulas or "(nothing)"


def shape_text(shape: Sequence[int]) -> str:
    """`(3, 5)`, as NumPy writes it."""
    return str(tuple(shape))


def columns(text: str) -> int:
    """How many columns a text takes in a fixed-width font; wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def short(text: str, longest: int) -> str:
    """The text, cut to a number of columns."""
    if columns(text) <= longest:
        return text
    while columns(text) > longest - 1:
        text = text[:-1]
    return text.rstrip() + "…"
