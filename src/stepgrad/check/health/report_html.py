"""The diagnosis as one page that needs nothing else, and as a part of a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import Any

from stepgrad.check.health import plots
from stepgrad.check.health.report import sentence
from stepgrad.check.health.summary import ABOUT, HEADER
from stepgrad.explain.document import json_text
from stepgrad.explain.html import script_text

Document = dict[str, Any]


def page(document: Document) -> str:
    """The page.

    Args:
        document: the diagnosis as plain data; the page holds it, too.
    """
    style = resources.files("stepgrad.check.health").joinpath("page/report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>Health: {escape(document['headline'])}</title>",
            f"<style>{style}{plots.STYLE}</style></head><body><main>",
            *_body(document),
            f'<script type="application/json" id="diagnosis">{script_text(json_text(document))}</script>',
            "</main></body></html>",
            "",
        ]
    )


def fragment(document: Document) -> str:
    """The report for a notebook: headline, answers, verdicts and the course, with styles that touch nothing else."""
    answers = "".join(
        f"<li>{escape(a['text'])} <b>{_word(a)}</b>: {escape(a['says'])}</li>" for a in document["answers"]
    )
    verdicts = "".join(
        f"<li><b><code>{escape(v['name'])}</code></b> {escape(sentence(v['says']))}"
        + ("" if v["caused_by"] is not None else f"<br><i>Remedy:</i> {escape(sentence(v['remedy']))}")
        + "</li>"
        for v in document["verdicts"]
    )
    return (
        f"<div><style>{plots.STYLE}</style><p><b>Health: "
        f"{escape(document['headline'])}</b><br>{escape(document['subject'])}</p>"
        f"<ol>{answers}</ol>{f'<ul>{verdicts}</ul>' if verdicts else ''}{plots.course(document)}</div>"
    )


def _body(document: Document) -> Iterable[str]:
    yield f"<h1>Health: {escape(document['headline'])}<small>{escape(document['subject'])}</small></h1>"
    yield '<section id="answers">'
    for answer in document["answers"]:
        kind = {True: "yes", False: "no", None: "unknown"}[answer["ok"]]
        yield (
            f'<div class="answer {kind}"><h3>{escape(answer["text"])}</h3><b>{_word(answer)}</b>'
            f"<p>{escape(answer['says'])}</p></div>"
        )
    yield "</section>"
    if document["verdicts"]:
        yield "<h2>Verdicts<small>first causes; what they explain stands inside</small></h2>"
        yield from _verdicts(document, None)
    if document["losses"]:
        yield _plot("The course", "Each sampled step has the same width.", plots.course(document))
    yield _plot(
        "Gradient norm of each layer",
        "Of the loss with respect to the layer's output, in every sampled step. Healthy layers have about the same "
        "colour.",
        plots.heat_map(document),
    )
    if document["summaries"]:
        yield f'<h2>Layers</h2><p class="about">{escape(ABOUT)}</p><div class="plot">{_layers(document)}</div>'
    yield _plot(
        "Size of each layer's activation",
        "Root mean square over the batch. A signal that grows or fades from layer to layer shows here.",
        plots.heat_map(document, "activation_rms"),
    )
    yield _plot(
        "Along the update",
        "The loss of the batch an update was made from, at multiples of this update: 1 is the step taken.",
        plots.along(document),
    )


def _layers(document: Document) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADER)
    rows = "".join(
        "<tr>" + "".join(f'<td class="number">{escape(cell)}</td>' for cell in summary["cells"]) + "</tr>"
        for summary in document["summaries"]
    )
    return f'<table class="layers"><tr>{head}</tr>{rows}</table>'


def _word(answer: Document) -> str:
    return {True: "yes", False: "no", None: "not known"}[answer["ok"]]


def _plot(title: str, about: str, drawn: str) -> str:
    return f'<h2>{title}</h2><p class="about">{about}</p><div class="plot">{drawn}</div>' if drawn else ""


def _verdicts(document: Document, cause: int | None) -> Iterable[str]:
    for place, verdict in enumerate(document["verdicts"]):
        if verdict["caused_by"] != cause:
            continue
        span = f"step {verdict['since']:,}" + ("" if verdict["until"] is None else f" to {verdict['until']:,}")
        where = f", layer {escape(verdict['layer'])}" if verdict["layer"] else ""
        name = escape(verdict["name"])
        yield f'<div class="verdict {verdict["severity"]}"><h3>{name}<small>{span}{where}</small></h3>'
        yield f"<p>{escape(sentence(verdict['says']))}</p>"
        yield _evidence(verdict["evidence"])
        remedy = escape(sentence(verdict["remedy"]))
        if cause is None:
            yield f'<p class="remedy"><b>Remedy.</b> {remedy}</p>'
        more = "" if cause is None else f"<p>If it is still there once its cause is gone: {remedy}</p>"
        yield f"<details><summary>what it means</summary><p>{escape(verdict['meaning'])}</p>{more}</details>"
        if any(v["caused_by"] == place for v in document["verdicts"]):
            yield '<p class="follows">It explains:</p>'
            yield from _verdicts(document, place)
        yield "</div>"


def _evidence(evidence: list[Document]) -> str:
    rows = "".join(
        f'<tr><td>{escape(e["what"])}</td><td class="{"text" if isinstance(e["value"], str) else "number"}">'
        f"{escape(e['text'])}</td>{_threshold(e['threshold'])}</tr>"
        for e in evidence
    )
    return f"<table><tr><th>evidence</th><th>value</th><th>threshold</th></tr>{rows}</table>"


def _threshold(threshold: Document | None) -> str:
    if threshold is None:
        return "<td></td>"
    return f'<td class="number" title="{escape(threshold["reason"])}">{escape(threshold["text"])}</td>'
