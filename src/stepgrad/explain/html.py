"""HTML: a trace as one page that needs nothing else, and as a short table for notebooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from stepgrad.explain.document import Document, json_text
from stepgrad.explain.graph import shape_text, step_text
from stepgrad.explain.svg import svg
from stepgrad.tape.layout import plural, size_text

_ROWS = 40
_ENDS = 12


def page(document: Document) -> str:
    """The page: a walk through both passes, in one file without any other.

    Args:
        document: the trace's document; the page is built on the JSON of it, which it holds.
    """
    folder = resources.files("stepgrad.explain") / "page"
    read = {name: (folder / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    where = f"<small>{escape(document['file'])}:{document['line']}</small>" if document["file"] else ""
    parts = {
        "title": escape(f"{document['function']}: forward and backward"),
        "heading": escape(document["function"]) + where,
        "style": read["css"],
        "script": read["js"],
        "graph": svg(document),
        "static": static(document),
        "document": script_text(json_text(document)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], read["html"])


def script_text(text: str) -> str:
    """JSON that may stand in a script element: nothing in it ends the element or begins a comment."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_STYLE = """
.stepgrad-trace { font-size: 13px; max-width: 1100px; }
.stepgrad-trace table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.stepgrad-trace th, .stepgrad-trace td { text-align: left !important; vertical-align: top; padding: 3px 8px;
  white-space: normal; border-bottom: 1px solid rgb(128 128 128 / .3); overflow-wrap: anywhere; }
.stepgrad-trace .number { width: 2.5em; text-align: right !important; opacity: .7; }
.stepgrad-trace code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  background: none; color: inherit; padding: 0; }
.stepgrad-trace .about { opacity: .7; }
.stepgrad-trace span.about { margin-left: .6em; }
.stepgrad-trace .forward { color: #2b6cb0; } .stepgrad-trace .backward { color: #c2540f; }
.stepgrad-trace .saved { color: #00897b; }
.stepgrad-trace details { margin: 6px 0; } .stepgrad-trace svg { max-width: 100%; height: auto; }
"""


def static(document: Document) -> str:
    """A table of both passes, and the picture; no script, and styles that touch nothing else."""
    saved = {row["value"] for row in document["cache"]["rows"] if row["kind"] == "saved"}
    rows = [_row(document, step, saved) for step in document["steps"]]
    if len(rows) > _ROWS:
        left = f'<tr><td></td><td colspan="2">… {plural(len(rows) - 2 * _ENDS, "step")} …</td></tr>'
        rows = [*rows[:_ENDS], left, *rows[-_ENDS:]]
    leaves = [*document["inputs"], *document["parameters"]]
    called = ", ".join(f"{_name(document, i)} {shape_text(document['values'][i]['shape'])}" for i in leaves[:12])
    called += f", and {len(leaves) - 12} more" if len(leaves) > 12 else ""
    count, cache, cost = len(saved), document["cache"], document["cost"]
    reuse = f"{cost['reuse']:.3g}" if isinstance(cost["reuse"], float) else "–"
    return "\n".join(
        [
            f'<div class="stepgrad-trace"><style>{_STYLE}</style>',
            f"<p><b><code>{escape(document['function'])}</code></b> <span class='about'>{escape(called)}</span></p>",
            '<table><thead><tr><th class="number"></th><th class="forward">Forward pass ↓</th>'
            '<th class="backward">Backward pass ↑</th></tr></thead><tbody>',
            *rows,
            "</tbody></table>",
            f"<p>Saved for the backward pass: {plural(count, 'value')}, {size_text(cache['saved_bytes'])}. "
            f"Deriving each gradient on its own would take {reuse} times the operations of the backward pass.</p>",
            f"<details><summary>graph</summary>{svg(document)}</details></div>",
        ]
    )


def _row(document: Document, step: Document, saved: set[int]) -> str:
    forward = []
    formulas = [f"{f['name']} = {f['text']}" for f in step["formulas"]]
    text = step_text(step)
    if "".join(text.split()) not in {"".join(f.split()) for f in formulas}:
        forward.append(_line(text, "", "about"))
    for f, formula in zip(step["formulas"], formulas, strict=True):
        forward.append(_line(formula, _shape(document, f["value"]), "saved" if f["value"] in saved else ""))
    backward = [] if step["backward"] is None else _backward(document, step["backward"])
    return (
        f'<tr><td class="number">{step["number"]}</td><td>{"".join(forward)}</td>'
        f'<td class="backward">{"".join(backward)}</td></tr>'
    )


def _backward(document: Document, backward: Document) -> Sequence[str]:
    lines = [_line(f"{f['name']} = {f['text']}", _shape(document, f["value"])) for f in backward["formulas"]]
    written = {f["name"] for f in backward["formulas"]}
    others = [g for g in backward["gives"] if g["kind"] != "part" and g["name"] not in written]
    lines += [_line(g["name"] if g["name"] == g["text"] else f"{g['name']} = {g['text']}", "") for g in others]
    return lines


def _line(text: str, shape: str, kind: str = "") -> str:
    about = f'<span class="about">{escape(shape)}</span>' if shape else ""
    note = ' <small class="saved">saved</small>' if kind == "saved" else ""
    style = ' class="about"' if kind == "about" else ""
    return f"<div{style}><code>{escape(text)}</code>{about}{note}</div>"


def _shape(document: Document, value: int) -> str:
    return shape_text(document["values"][value]["shape"])


def _name(document: Document, value: int) -> str:
    entry = document["values"][value]
    return str(entry["name"] or entry["text"])
