"""The page: one file, whole, that needs nothing else; and the table for notebooks."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from examples import ALL, hostile, loop, training, two_layers

VOID = {"meta", "col", "input", "br"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and self.open and self.open[-1] == "script":
            key = attributes.get("id") or "script"
            self.texts[key] = self.texts.get(key, "") + data

    def ids(self) -> list[str]:
        return [a["id"] or "" for _, a in self.elements if "id" in a]


@pytest.mark.parametrize("made", ALL)
def test_the_page_holds_the_document(made: Any) -> None:
    trace = made()
    page = Page(trace.to_html())
    assert json.loads(page.texts["document"]) == json.loads(trace.to_json())
    assert len(page.ids()) == len(set(page.ids()))


def test_it_needs_nothing_else() -> None:
    page = Page(two_layers().to_html())
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert not {"src", "srcset", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    text = re.sub(r'xmlns="[^"]*"', "", two_layers().to_html())
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_id_that_the_script_asks_for_exists() -> None:
    page = Page(two_layers().to_html())
    asked = set(re.findall(r"\$\(\"(\w+)\"\)", page.texts["script"]))
    assert {"rows", "now", "slider"} <= asked
    assert asked <= set(page.ids())


def test_every_field_that_the_script_reads_exists() -> None:
    page = Page(training().to_html())
    found = json.loads(page.texts["document"])
    assert set(re.findall(r"\bdoc\.(\w+)", page.texts["script"])) <= set(found)
    assert set(re.findall(r"\bdoc\.cache\.(\w+)", page.texts["script"])) <= set(found["cache"])
    assert set(re.findall(r"\bc\.(\w+)", page.texts["script"])) - {"forEach", "filter"} <= set(found["cost"])


def test_it_works_in_both_modes_on_paper_and_by_keyboard() -> None:
    text = two_layers().to_html()
    page = Page(text)
    for words in (
        "prefers-color-scheme: dark",
        "@media print",
        "prefers-reduced-motion",
        "focus-visible",
        "ArrowRight",
    ):
        assert words in text
    buttons = [a for t, a in page.elements if t == "button"]
    assert all(a.get("aria-label") for a in buttons)
    assert ("html", {"lang": "en"}) in page.elements


def test_nothing_in_it_can_end_the_script_or_the_page() -> None:
    text = hostile().to_html()
    assert text.count("</script>") == 2
    assert "<b>" not in text.replace("<p><b><code>page</code></b>", "")


def test_without_scripts_it_shows_a_table() -> None:
    text = two_layers().to_html()
    shown = text[text.index("<noscript>") : text.index("</noscript>")]
    assert "dW2 = dZ2 @ A1.T" in shown


def test_a_notebook_shows_a_table_with_styles_of_its_own() -> None:
    text = two_layers()._repr_html_()
    page = Page(text)
    assert page.elements[0][0] == "div"
    assert not any(tag == "script" for tag, _ in page.elements)
    assert "dZ1 = dA1 * (Z1 &gt; 0)" in text
    assert "5 values, 440 B" in text
    for style in re.findall(r"<style>(.*?)</style>", text, re.S):
        for selector in re.findall(r"(?:^|[{}\n])\s*([^{}@\n][^{}]*)\{", style):
            assert all(s.strip().startswith(".stepgrad-") for s in selector.split(",")), selector


def test_a_long_table_is_cut() -> None:
    text = loop(500)._repr_html_()
    assert text.count("<tr>") < 40
    assert "… 477 steps …" in text


def test_written_to_a_file(tmp_path: Path) -> None:
    trace = two_layers()
    trace.to_html(tmp_path / "page.html")
    trace.to_svg(tmp_path / "graph.svg")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == trace.to_html()
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == trace.to_svg()
