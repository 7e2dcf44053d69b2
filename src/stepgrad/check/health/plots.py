"""The plots of a diagnosis, as SVG that needs nothing else: its course with the verdicts, the layers over time, and
the loss along updates.

They share a horizontal axis on which each sampled step has the same width, so that early steps, which are
sampled closely, can be told apart; ticks say which step is where.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from stepgrad.check.health.verdicts.entry import number

Document = dict[str, Any]

WIDTH, LEFT, RIGHT = 960, 150, 24
_ROW = 22

STYLE = """
.health-plot { display: block; width: 100%; max-width: 960px; height: auto; }
.health-plot text { font: 12px system-ui, "Segoe UI", "Liberation Sans", sans-serif; fill: #1c2430; }
.health-plot .code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.health-plot .muted { fill: #5b6675; }
.health-plot .axis { stroke: #c3cad3; stroke-width: 1; fill: none; }
.health-plot .loss { stroke: #2b6cb0; stroke-width: 1.8; fill: none; stroke-linejoin: round; }
.health-plot .validation { stroke: #00796b; stroke-width: 1.8; fill: none; stroke-dasharray: 5 3; }
.health-plot .dot { fill: #00796b; }
.health-plot .block { fill: #c53030; } .health-plot .harm { fill: #c67a10; } .health-plot .waste { fill: #2b6cb0; }
.health-plot .broken { stroke: #c53030; stroke-width: 1.5; stroke-dasharray: 3 3; }
.health-plot .taken { fill: #1c2430; } .health-plot .best { fill: none; stroke: #c53030; stroke-width: 2; }
.health-plot .slope { stroke: #8a94a3; stroke-width: 1.2; stroke-dasharray: 4 3; fill: none; }
.health-plot .none { fill: #d5dae1; } .health-plot .bad { fill: #c53030; }
@media (prefers-color-scheme: dark) {
.health-plot text { fill: #e4e8ee; }
.health-plot .muted { fill: #9aa5b3; }
.health-plot .axis { stroke: #46505c; }
.health-plot .loss { stroke: #6fb1f2; }
.health-plot .validation { stroke: #4dc3b2; } .health-plot .dot { fill: #4dc3b2; }
.health-plot .block { fill: #f27878; } .health-plot .harm { fill: #eab04f; }
.health-plot .waste { fill: #6fb1f2; }
.health-plot .broken { stroke: #f27878; }
.health-plot .taken { fill: #e4e8ee; } .health-plot .best { stroke: #f27878; } .health-plot .slope { stroke: #77828f; }
.health-plot .none { fill: #2d3640; } .health-plot .bad { fill: #f27878; }
}
"""


class Axis:
    """Steps to horizontal positions: the same width from one sampled step to the next."""

    def __init__(self, document: Document) -> None:
        last = max(document["steps"], 1)
        steps = [s["step"] for s in document["samples"]]
        self.edges = [float(s) for s in dict.fromkeys(steps)] or [1.0]
        self.edges.append(max(last + 1.0, self.edges[-1] + 1.0))
        self.last = last

    def x(self, step: float) -> float:
        i = min(max(bisect_right(self.edges, step) - 1, 0), len(self.edges) - 2)
        low, high = self.edges[i], self.edges[i + 1]
        place = i + min(max((step - low) / (high - low), 0.0), 1.0)
        return LEFT + (WIDTH - LEFT - RIGHT) * place / (len(self.edges) - 1)

    def ticks(self) -> list[int]:
        """Steps to write below the axis: sampled ones, not too close together."""
        chosen: list[int] = []
        for step in [*map(int, self.edges[:-1]), self.last]:
            if not chosen or self.x(step) - self.x(chosen[-1]) > 70:
                chosen.append(step)
        return chosen

    def drawn(self, y: float, top: float) -> str:
        marks = "".join(
            f'<path class="axis" d="M{self.x(t):.1f} {y:.1f} v4"/>'
            f'<text class="muted" x="{self.x(t):.1f}" y="{y + 17:.1f}" text-anchor="middle">{t:,}</text>'
            for t in self.ticks()
        )
        frame = f'<path class="axis" d="M{LEFT} {top:.1f} V{y:.1f} H{WIDTH - RIGHT}"/>'
        return f'{frame}{marks}<text class="muted" x="{LEFT - 12}" y="{y + 17:.1f}" text-anchor="end">step</text>'


def course(document: Document) -> str:
    """The loss of every step and the validation loss of every epoch, and below them when each verdict held."""
    axis, height = Axis(document), 190.0
    trained = [(p["step"], p["loss"]) for p in document["losses"]]
    validated = [(e["step"], e["validation_loss"]) for e in document["epochs"] if e["validation_loss"] is not None]
    scale = _Scale([v for _, v in trained + validated], 14.0, height)
    parts = [_line(trained, axis, scale, "loss"), _line(validated, axis, scale, "validation")]
    parts += [_broken(trained, axis, height), *scale.labels(), axis.drawn(height, 6.0)]
    y = height + 36
    for verdict in document["verdicts"]:
        since, until = verdict["since"], verdict["until"] or document["steps"]
        begin, end = axis.x(since), max(axis.x(until + 1), axis.x(since) + 5)
        follows = verdict["caused_by"] is not None
        muted, faint = (' class="muted"', ' opacity=".55"') if follows else ("", "")
        parts.append(
            f"<g><title>{escape(verdict['says'])}</title>"
            f'<text x="{LEFT - 12}" y="{y + 12:.1f}" text-anchor="end"{muted}>'
            f"{escape(verdict['name'])}</text>"
            f'<rect class="{verdict["severity"]}" x="{begin:.1f}" y="{y + 2:.1f}" width="{end - begin:.1f}"'
            f' height="12" '
            f'rx="3"{faint}/></g>'
        )
        y += _ROW
    names = [("loss", "loss, by step")] + [("validation", "validation loss, by epoch")] * bool(validated)
    return _svg("The loss over time, and the verdicts", y + 4, parts + _key(names))


def _key(names: Sequence[tuple[str, str]]) -> list[str]:
    x, parts = WIDTH - RIGHT - 20.0, []
    for kind, label in reversed(names):
        x -= 8 * len(label)
        parts.append(f'<path class="{kind}" d="M{x - 32:.0f} 12 h24"/><text x="{x:.0f}" y="16">{label}</text>')
        x -= 60
    return parts


class _Scale:
    """Values to vertical positions: logarithmic where they are positive and differ by more than 30 times."""

    def __init__(self, values: Iterable[Any], top: float, bottom: float) -> None:
        kept = [v for v in values if isinstance(v, (int, float))]
        self.top, self.bottom = top, bottom
        self.low, self.high = (min(kept), max(kept)) if kept else (0.0, 1.0)
        self.log = self.low > 0 and self.high > 30 * self.low
        if not self.log:
            self.low = min(self.low, 0.0) if self.low < 0.5 * self.high else self.low - 0.05 * abs(self.low)
        if self.high <= self.low:
            self.high = self.low + (abs(self.low) or 1.0)

    def y(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top - 14) * share

    def labels(self) -> list[str]:
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [
            f'<text class="muted" x="{LEFT - 8}" y="{self.y(v) + 2:.1f}" text-anchor="end">{number(v)}</text>'
            for v in (self.low, middle, self.high)
        ]


def _line(points: Sequence[tuple[int, Any]], axis: Axis, scale: _Scale, kind: str) -> str:
    """A line through the points that are numbers, interrupted where they are not."""
    path, pen = "", "M"
    for step, value in points:
        if not isinstance(value, (int, float)):
            pen = "M"
            continue
        path += f"{pen}{axis.x(step):.1f} {scale.y(value):.1f}"
        pen = "L"
    dots = ""
    if kind == "validation":
        dots = "".join(
            f'<circle class="dot" cx="{axis.x(s):.1f}" cy="{scale.y(v):.1f}" r="2.2"/>'
            for s, v in points
            if isinstance(v, (int, float))
        )
    return f'<path class="{kind}" d="{path}"/>{dots}' if path else ""


def _broken(points: Sequence[tuple[int, Any]], axis: Axis, bottom: float) -> str:
    """A mark where the loss stopped being finite."""
    bad = next(((s, v) for s, v in points if isinstance(v, str)), None)
    if bad is None:
        return ""
    x = axis.x(bad[0])
    return (
        f'<path class="broken" d="M{x:.1f} 6 V{bottom:.1f}"/>'
        f'<text class="muted" x="{x - 5:.1f}" y="{bottom - 8:.1f}" text-anchor="end">{bad[1]}</text>'
    )


# Dark to light blue-green to yellow, told apart in grey as well (after matplotlib's viridis).
_COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


_LEAST, _MOST = 1e3, 1e12


_CELLS = 6000
"""Of a heat map with more, only every so many-th column is drawn."""


def _colour(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_COLOURS) - 1)
    i = min(int(place), len(_COLOURS) - 2)
    low, high = _COLOURS[i], _COLOURS[i + 1]
    return "#" + "".join(f"{round(a + (b - a) * (place - i)):02x}" for a, b in zip(low, high, strict=True))


def heat_map(document: Document, what: str = "gradient_norms") -> str:
    """A quantity of every layer in every sampled step, on a logarithmic scale of colours.

    Args:
        what: "gradient_norms" or "activation_rms".
    """
    axis, layers = Axis(document), document["layers"]
    samples = list({s["step"]: s for s in document["samples"]}.values())  # one column for each step
    samples = samples[:: -(-len(samples) * len(layers) // _CELLS) or 1]
    ends = [*(s["step"] for s in samples[1:]), axis.edges[-1]]
    if not samples or not layers:
        return ""
    values = [v for s in samples for v in s[what] if isinstance(v, (int, float)) and v > 0]
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    low = max(min(low, high / _LEAST), high / _MOST)  # small differences are no reason for other colours
    span = math.log(high / low)
    parts, top = [], 6.0
    row = _ROW if len(layers) <= 30 else max(6.0, 660 / len(layers))
    for place, layer in enumerate(layers):
        y = top + row * place
        if row >= 12 or place % 4 == 0:
            label = _short(f"{layer['name']}  {layer['kind']}")
            parts.append(
                f'<text class="code" x="{LEFT - 12}" y="{y + row / 2 + 4:.1f}" text-anchor="end">{escape(label)}</text>'
            )
        for sample, end in zip(samples, ends, strict=True):
            value = sample[what][place]
            x = axis.x(sample["step"])
            width = axis.x(end) - x
            kind = (
                f'fill="{_colour(math.log(value / low) / span)}"'
                if isinstance(value, (int, float)) and value > 0
                else f'class="{"bad" if isinstance(value, str) else "none"}"'
            )
            shown = value if isinstance(value, str) else number(value or 0)
            parts.append(
                f'<rect {kind} x="{x:.1f}" y="{y:.1f}" width="{width + 0.4:.1f}" height="{row - 1:.1f}">'
                f"<title>{escape(layer['name'])}, step {sample['step']}: {shown}</title></rect>"
            )
    bottom = top + row * len(layers) + 2
    parts.append(axis.drawn(bottom, top))
    parts.append(_legend(low, high, bottom + 34))
    return _svg(f"{what.replace('_', ' ')} of each layer over time", bottom + 62, parts)


def _short(label: str, most: int = 19) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _legend(low: float, high: float, y: float) -> str:
    steps = 40
    cells = "".join(
        f'<rect fill="{_colour(i / (steps - 1))}" x="{LEFT + 5 * i}" y="{y:.0f}" width="5.3" height="10"/>'
        for i in range(steps)
    )
    end = LEFT + 5 * steps
    return (
        f"{cells}"
        f'<text class="muted" x="{LEFT - 12}" y="{y + 9:.0f}" text-anchor="end">{number(low)}</text>'
        f'<text class="muted" x="{end + 8}" y="{y + 9:.0f}">{number(high)}</text>'
        f'<rect class="none" x="{end + 90}" y="{y:.0f}" width="12" height="10"/>'
        f'<text class="muted" x="{end + 108}" y="{y + 9:.0f}">exactly 0</text>'
        f'<rect class="bad" x="{end + 190}" y="{y:.0f}" width="12" height="10"/>'
        f'<text class="muted" x="{end + 208}" y="{y + 9:.0f}">NaN or infinite</text>'
    )


def along(document: Document, most: int = 4) -> str:
    """The loss along the updates of a few steps: what the gradient predicts, the step taken, and the best one."""
    found = [d for d in document["descents"] if all(isinstance(v, (int, float)) for v in d["losses"])]
    if len(found) > most:
        found = [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
    if not found:
        return ""
    each, height = (WIDTH - RIGHT - 40) / most, 150.0
    parts = [_descent(d, 40 + each * i, each - 26, height) for i, d in enumerate(found)]
    y = height + 44
    parts.append(
        f'<path class="loss" d="M40 {y} h24"/><text x="70" y="{y + 4}">loss of the step\'s own batch</text>'
        f'<path class="slope" d="M270 {y} h24"/><text x="300" y="{y + 4}">what the gradient predicts</text>'
        f'<circle class="taken" cx="500" cy="{y}" r="4"/><text x="512" y="{y + 4}">the step taken</text>'
        f'<circle class="best" cx="630" cy="{y}" r="5"/><text x="644" y="{y + 4}">the best step along the update</text>'
    )
    return _svg("The loss along the updates of examined steps", height + 60, parts)


def _descent(descent: Document, left: float, width: float, height: float) -> str:
    # Far beyond the best step and the one taken the loss may be huge: only the part that matters is drawn.
    reach = max(2.0, min(2 * descent["best_factor"], descent["factors"][-1]))
    shown = [(f, v) for f, v in zip(descent["factors"], descent["losses"], strict=True) if f <= reach]
    start = next((v for f, v in shown if f == 0), shown[0][1])
    low, high = min(v for _, v in shown), max(v for _, v in shown)
    high = min(high, start + 3 * max(start - low, abs(descent["predicted"]), 1e-12))
    span, top = (high - low) or 1.0, 26.0

    def x(factor: float) -> float:
        return left + width * factor / reach

    def y(loss: float) -> float:
        return top + (height - top - 8) * (1 - (min(max(loss, low), high) - low) / span)

    path = "".join(f"{'L' if i else 'M'}{x(f):.1f} {y(v):.1f}" for i, (f, v) in enumerate(shown))
    end = min(reach, (start - low) / -descent["predicted"]) if descent["predicted"] < 0 else reach
    predicted = descent["predicted"]
    one = "1" if x(1) - left > 12 else ""
    best = next((v for f, v in shown if f == descent["best_factor"]), start)
    return (
        f'<text x="{left:.1f}" y="14">step {descent["step"]:,}</text>'
        f'<path class="axis" d="M{left:.1f} {top} V{height} H{left + width:.1f}"/>'
        f'<path class="slope" d="M{x(0):.1f} {y(start):.1f} L{x(end):.1f} {y(start + end * predicted):.1f}"/>'
        f'<path class="loss" d="{path}"/>'
        f'<circle class="taken" cx="{x(1):.1f}" cy="{y(start + descent["actual"]):.1f}" r="4"/>'
        f'<circle class="best" cx="{x(descent["best_factor"]):.1f}" cy="{y(best):.1f}" r="5.5"/>'
        f'<text class="muted" x="{x(1):.1f}" y="{height + 16}" text-anchor="middle">{one}</text>'
        f'<text class="muted" x="{left:.1f}" y="{height + 16}" text-anchor="middle">0</text>'
        f'<text class="muted" x="{left + width:.1f}" y="{height + 16}" text-anchor="end">× {number(reach)}</text>'
    )


def _svg(title: str, height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="health-plot" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
