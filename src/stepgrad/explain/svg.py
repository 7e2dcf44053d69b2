"""SVG: the picture of a trace's graph. Values flow down, gradients flow up."""

from __future__ import annotations

import itertools
import re
from html import escape

from stepgrad.explain.document import Document
from stepgrad.explain.graph import LIMIT, Edge, Graph, Node, columns, graph
from stepgrad.explain.layered import Key, Layout, layout
from stepgrad.tape.layout import plural

_FONT = 12
_COLUMN = 7.4  # a column of the fixed-width font, with a little to spare
_LINE = 16
_PADDING = 10
_MARGIN = 14
_APART = 5  # the forward edge runs on one side of the middle, the backward edge on the other

STYLE = """
.stepgrad-graph { background: #fff; }
.stepgrad-graph text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1c2430; }
.stepgrad-graph .box { fill: #f3f5f8; stroke: #8a94a3; stroke-width: 1; }
.stepgrad-graph .step .box { fill: #fff; stroke: #4a5462; }
.stepgrad-graph .steps .box { fill: #fff; stroke: #4a5462; stroke-dasharray: 4 3; }
.stepgrad-graph .cached .box { stroke: #00796b; stroke-width: 2; }
.stepgrad-graph .gradient { fill: #b3470b; }
.stepgrad-graph path { fill: none; stroke-width: 1.4; }
.stepgrad-graph .forward { stroke: #2b6cb0; }
.stepgrad-graph .backward { stroke: #cc5a14; stroke-dasharray: 5 3; }
.stepgrad-graph .head { stroke: none; }
.stepgrad-graph .forward.head { fill: #2b6cb0; }
.stepgrad-graph .backward.head { fill: #cc5a14; }
.stepgrad-graph .key text { font-size: 11px; }
@media (prefers-color-scheme: dark) {
.stepgrad-graph { background: #14181d; }
.stepgrad-graph text { fill: #e4e8ee; }
.stepgrad-graph .box { fill: #222a33; stroke: #77828f; }
.stepgrad-graph .step .box, .stepgrad-graph .steps .box { fill: #171c22; stroke: #a3adba; }
.stepgrad-graph .cached .box { stroke: #4dc3b2; }
.stepgrad-graph .gradient { fill: #f5a067; }
.stepgrad-graph .forward { stroke: #6fb1f2; }
.stepgrad-graph .backward { stroke: #f0935a; }
.stepgrad-graph .forward.head { fill: #6fb1f2; }
.stepgrad-graph .backward.head { fill: #f0935a; }
}
"""


def svg(document: Document, limit: int = LIMIT) -> str:
    """The picture as an SVG document that needs nothing else.

    Args:
        document: the trace's document.
        limit: about how many nodes to show; more share a node.
    """
    made = graph(document, limit)
    sizes: dict[Key, tuple[float, float]] = {key: _size(node) for key, node in made.nodes.items()}
    placed = layout(sizes, [(e.source, e.target) for e in made.edges])
    forks = _Ports(made, placed, sizes)
    width = max(placed.width, 380) + 2 * _MARGIN
    shift = _MARGIN + (width - 2 * _MARGIN - placed.width) / 2
    height = placed.height + 2 * _MARGIN + 34
    about = _text(f"The graph of {document['function']}")
    body = [
        *(_edge(e, forks) for e in made.edges),
        *(_node(made.nodes[k], placed.places[k], sizes[k]) for k in made.nodes),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="stepgrad-graph" role="img" aria-label="{about}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}">',
            f"<title>{about}</title>",
            f"<desc>{_text(_described(document, made))}</desc>",
            f"<style>{STYLE}</style>",
            f'<g transform="translate({shift:.1f} {_MARGIN})">',
            *body,
            "</g>",
            _key(_MARGIN, height - 18),
            "</svg>",
            "",
        ]
    )


def _described(document: Document, made: Graph) -> str:
    steps = sum(s["pass"] == "forward" for s in document["steps"])
    boxes = sum(n.kind.startswith("step") for n in made.nodes.values())
    shown = "" if boxes == steps else f", shown as {plural(boxes, 'box').replace('boxs', 'boxes')}"
    flows = "; ".join(f"{n.lines[0]}" for n in made.nodes.values() if n.kind.startswith("step"))
    return (
        f"{plural(steps, 'step')}{shown}: {flows}. Values flow down along solid lines, gradients up along dashed ones."
    )


def _size(node: Node) -> tuple[float, float]:
    texts = [*node.lines, node.gradient]
    wide = max(columns(t) for t in texts) * _COLUMN + 2 * _PADDING
    tall = (len(node.lines) + bool(node.gradient)) * _LINE + 10
    return max(wide, 44.0), float(tall)


def _node(node: Node, place: tuple[float, float], size: tuple[float, float]) -> str:
    (x, y), (w, h) = place, size
    left, top = x - w / 2, y - h / 2
    name, number = node.key
    marks = " ".join([node.kind, *["cached"] * node.cached])
    data = f'data-steps="{_steps(node)}"' if name == "step" else f'data-value="{number}"'
    radius = 4 if name == "step" else min(h / 2, 15)
    rows = [(line, "") for line in node.lines] + [(node.gradient, ' class="gradient"')] * bool(node.gradient)
    texts = "".join(
        f'<text{style} x="{x:.1f}" y="{top + 5 + _LINE * (i + 0.75):.1f}" text-anchor="middle">{_text(row)}</text>'
        for i, (row, style) in enumerate(rows)
    )
    return (
        f'<g class="node {marks}" {data}><title>{_text(node.title)}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:.0f}"/>'
        f"{texts}</g>"
    )


def _steps(node: Node) -> str:
    return f"{node.steps[0]}-{node.steps[-1]}" if len(node.steps) > 1 else f"{node.steps[0]}"


class _Ports:
    """Where edges meet boxes: side by side, in the order of where they come from or lead to."""

    def __init__(self, made: Graph, placed: Layout, sizes: dict[Key, tuple[float, float]]) -> None:
        self.points: dict[tuple[Key, Key], list[tuple[float, float]]] = {}
        leaving: dict[Key, list[Edge]] = {}
        entering: dict[Key, list[Edge]] = {}
        for edge in made.edges:
            leaving.setdefault(edge.source, []).append(edge)
            entering.setdefault(edge.target, []).append(edge)

        def near(edge: Edge, end: int) -> tuple[float, float]:
            """Where the edge goes to from its beginning (0), or comes from at its end (-1)."""
            bends = placed.bends[edge.source, edge.target]
            return bends[end] if bends else placed.places[edge.target if end == 0 else edge.source]

        starts: dict[tuple[Key, Key], float] = {}
        ends: dict[tuple[Key, Key], float] = {}
        for meeting, end, found in ((leaving, 0, starts), (entering, -1, ends)):
            for node, edges in meeting.items():
                lanes = sorted({near(e, end) for e in edges})
                xs = dict(zip(lanes, _spread(node, len(lanes), placed, sizes), strict=True))
                found |= {(e.source, e.target): xs[near(e, end)] for e in edges}
        for edge in made.edges:
            pair = edge.source, edge.target
            top = placed.places[edge.source][1] + sizes[edge.source][1] / 2
            bottom = placed.places[edge.target][1] - sizes[edge.target][1] / 2
            self.points[pair] = [(starts[pair], top), *placed.bends[pair], (ends[pair], bottom)]


def _spread(node: Key, many: int, placed: Layout, sizes: dict[Key, tuple[float, float]]) -> list[float]:
    x, room = placed.places[node][0], sizes[node][0] - 30
    step = min(26.0, room / max(many - 1, 1)) if many > 1 else 0.0
    return [x + step * (i - (many - 1) / 2) for i in range(many)]


def _edge(edge: Edge, ports: _Ports) -> str:
    points = ports.points[edge.source, edge.target]
    value = edge.source if edge.source[0] == "value" else edge.target
    step = edge.target if value is edge.source else edge.source
    data = f'data-value="{value[1]}" data-step="{step[1]}"'
    left = [(x - _APART * edge.gradient, y) for x, y in points]
    drawn = _arrow(left, "forward", data)
    if edge.gradient:
        drawn += _arrow([(x + _APART, y) for x, y in reversed(points)], "backward", data)
    return drawn


def _arrow(points: list[tuple[float, float]], kind: str, data: str) -> str:
    """A smooth line through points, upright at each of them, with a head at its end."""
    (x, y), (_, before) = points[-1], points[-2]
    down = 1 if y > before else -1
    line = [*points[:-1], (x, y - 6 * down)]
    path = f"M{line[0][0]:.1f} {line[0][1]:.1f}"
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        middle = (y0 + y1) / 2
        path += f" C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
    head = f"M{x:.1f} {y:.1f} l-4 {-8 * down} h8 z"
    return f'<path class="edge {kind}" {data} d="{path}"/><path class="{kind} head" {data} d="{head}"/>'


def _key(x: float, y: float) -> str:
    items = (("forward", "values"), ("backward", "gradients"))
    drawn = [
        f'<path class="{kind}" d="M{x + i * 110:.0f} {y:.0f} h26"/>'
        f'<text x="{x + i * 110 + 32:.0f}" y="{y + 4:.0f}">{label}</text>'
        for i, (kind, label) in enumerate(items)
    ]
    drawn.append(
        f'<g class="cached"><rect class="box" x="{x + 228:.0f}" y="{y - 7:.0f}" width="26" height="14" rx="7"/></g>'
        f'<text x="{x + 260:.0f}" y="{y + 4:.0f}">saved for backward</text>'
    )
    return f'<g class="key">{"".join(drawn)}</g>'


def _text(text: str) -> str:
    """Text for XML: escaped, without the characters that XML does not have."""
    return escape(re.sub("[^\\t\\n\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]", "�", text), quote=True)
