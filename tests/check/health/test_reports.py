"""Reports of a diagnosis: readable in a terminal, valid as JSON, complete and safe as a page."""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from stepgrad.check.health import plots
from stepgrad.check.health.diagnosis import Diagnosis, diagnose
from stepgrad.check.health.document import MOST_LOSSES, document
from stepgrad.check.health.record import EpochRecord
from stepgrad.check.health.verdicts import CATALOGUE
from stepgrad.errors import FileError

SCHEMA = json.loads((resources.files("stepgrad.check.health") / "diagnosis.schema.json").read_text(encoding="utf-8"))
DOCS = (Path(__file__).parents[3] / "docs" / "diagnosis-format.md").read_text(encoding="utf-8")


@functools.cache
def diagnosed(name: str, *, cured: bool = False) -> Diagnosis:
    entry = CATALOGUE[name]
    names: dict[str, Any] = {"__name__": "example"}
    script = (entry.cured if cured else entry.example).replace("print(health.report())", "")
    exec(compile(script, "example.py", "exec"), names)
    return diagnose(names["health"].run)


def sick() -> Diagnosis:
    return diagnosed("dying-units")


def broken() -> Diagnosis:
    return diagnosed("exploding-gradients")


def fine() -> Diagnosis:
    return diagnosed("dying-units", cured=True)


def empty() -> Diagnosis:
    run = replace(fine().run, losses=(), samples=(), epochs=(), descents=(), gradient_checks=(), layers=(), data=None)
    return diagnose(run)


def hostile() -> Diagnosis:
    """Names that would end an element, a script or a table."""
    run, name = sick().run, '</script><b x="1">|&'
    layers = tuple(replace(layer, name=name + layer.name, place=name) for layer in run.layers)
    return diagnose(replace(run, layers=layers, settings=replace(run.settings, model=name, loss=name)))


ALL = [sick, broken, fine, empty, hostile]


# --- the terminal


@pytest.mark.parametrize("made", ALL)
def test_lines_fit_the_terminal(made: Any) -> None:
    lines = repr(made()).splitlines()
    assert lines[0].startswith("Health: ")
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)


def test_the_questions_are_answered_apart() -> None:
    text = repr(sick())
    assert "1. Are the gradients right?  yes" in text
    assert "2. Are the gradients healthy?  no" in text
    assert "3. Does the optimizer use them well?  yes" in text


def test_a_verdict_is_told_with_evidence_threshold_and_remedy() -> None:
    text = repr(sick())
    assert re.search(r"^dying-units   from step \d+ to 79, layer 0$", text, re.M)
    assert "(above 0.4)" in text
    assert re.search(r"^  do        Divide the learning rate \(0\.04\) by 10", text, re.M)
    assert re.search(r"^  └ dead-units ", text, re.M)
    assert text.count("  do  ") == 1, "the cause has a remedy, the consequence does not need one"


def test_every_layer_has_a_row() -> None:
    rows = [
        line for line in repr(sick()).splitlines() if line.startswith(("layer ", "0 (Linear + relu)", "2 (Linear)"))
    ]
    assert len(rows) == 3
    assert "9 of 16" in rows[1]
    assert rows[2].split()[-3] == "–"


def test_of_many_layers_the_first_and_last_are_shown() -> None:
    run = sick().run
    layers = tuple(replace(layer, name=f"{layer.name}.{i}") for i in range(20) for layer in run.layers)
    samples = tuple(replace(s, layers=s.layers * 20) for s in run.samples)
    lines = repr(Diagnosis(replace(run, layers=layers, samples=samples), (), ())).splitlines()
    assert "… 26 more" in lines
    assert lines[-1].startswith("2.19 (Linear)")


def test_nothing_found() -> None:
    assert repr(fine()).startswith("Health: nothing was found\n")
    assert "not known" in repr(empty())


def test_colours_only_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = repr(sick())
    assert "\x1b" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    coloured = repr(sick())
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


# --- Markdown


@pytest.mark.parametrize("made", ALL)
def test_markdown_tables_are_whole(made: Any) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", made().to_markdown(), re.M):
        rows = table.splitlines()
        assert all(row.endswith("|") for row in rows)
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_markdown_says_what_follows_from_what() -> None:
    text = sick().to_markdown()
    assert "## dying-units" in text
    assert "### dead-units" in text
    assert "This follows from dying-units." in text


# --- JSON


def strict(text: str) -> Any:
    def refuse(token: str) -> Any:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("made", ALL)
def test_documents_fit_the_schema(made: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(SCHEMA).validate(strict(made().to_json()))


def test_the_schema_refuses_what_does_not_fit() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    found = json.loads(sick().to_json())
    found["verdicts"][0]["severity"] = "awful"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(found)


def test_the_document_says_what_the_report_says() -> None:
    found = strict(sick().to_json())
    assert [v["name"] for v in found["verdicts"]] == list(sick().names)
    assert [v["caused_by"] for v in found["verdicts"]] == [None, 0]
    assert found["steps"] == len(sick().run.losses) == len(found["losses"])
    for sample in found["samples"]:
        assert len(sample["gradient_norms"]) == len(found["layers"])


def test_nan_is_written_as_a_string() -> None:
    assert strict(broken().to_json())["losses"][-1]["loss"] in ("NaN", "Infinity")


def test_long_runs_are_thinned() -> None:
    run = fine().run
    long = diagnose(replace(run, losses=(*run.losses * 50, math.nan)))
    losses = long.document["losses"]
    assert len(losses) <= MOST_LOSSES
    assert losses[-1]["loss"] == "NaN"
    assert losses[-1]["step"] <= len(run.losses) * 50 + 1


@pytest.mark.parametrize("table", ["", "verdict", "summarie", "sample", "descent"])
def test_the_docs_describe_every_field(table: str) -> None:
    fields = SCHEMA["$defs"][table.replace("ie", "y")]["required"] if table else SCHEMA["required"]
    part = DOCS.split(f"## {table}s")[1].split("\n## ")[0] if table else DOCS.split("## The whole")[1].split("\n## ")[0]
    assert {f for f in fields if f"`{f}`" not in part} == set()


# --- HTML


class Page(HTMLParser):
    """Elements, whether they are closed in order, and what they would load."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("made", ALL)
def test_pages_are_whole_and_need_nothing_else(made: Any) -> None:
    text = made().to_html()
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert page.seen.count("script") == 1


def test_names_can_not_break_the_page() -> None:
    text = hostile().to_html()
    assert "<b x=" not in text
    assert json.loads(text.split('id="diagnosis">')[1].split("</script>")[0]) == json.loads(hostile().to_json())


def test_the_page_shows_verdicts_and_plots() -> None:
    text = sick().to_html()
    for part in ("dying-units", "dead-units", "Remedy.", "It explains:", "step 1", "prefers-color-scheme: dark"):
        assert part in text
    assert text.count("<svg") == 4
    assert 'class="bad"' in broken().to_html()


def test_a_notebook_shows_the_report() -> None:
    text = sick()._repr_html_()
    assert Page(text).open == []
    assert "dying-units" in text
    assert "Remedy" in text


# --- plots


def test_steps_are_in_order_on_the_axis() -> None:
    axis = plots.Axis(sick().document)
    places = [axis.x(step) for step in range(1, 82)]
    assert places == sorted(places)
    assert plots.LEFT <= places[0] < places[-1] <= plots.WIDTH - plots.RIGHT


def test_validation_losses_are_drawn() -> None:
    run = fine().run
    epochs = tuple(EpochRecord(i, 8 * i, 1 / i, 2 / i) for i in range(1, 11))
    drawn = plots.course(diagnose(replace(run, epochs=epochs)).document)
    assert drawn.count("<circle") == 10
    assert "validation loss" in drawn


def test_dead_layers_are_told_from_small_ones() -> None:
    run = sick().run
    samples = tuple(
        replace(s, layers=(replace(s.layers[0], gradient_norm=0.0), replace(s.layers[1], gradient_norm=1e-30)))
        for s in run.samples
    )
    drawn = plots.heat_map(diagnose(replace(run, samples=samples)).document)
    assert drawn.count('class="none"') == len(samples) + 1  # and the key


def test_a_step_that_was_seen_twice_is_one_column() -> None:
    run = sick().run
    twice = diagnose(replace(run, samples=tuple(s for s in run.samples for _ in range(2))))
    assert plots.heat_map(twice.document) == plots.heat_map(sick().document)


def test_many_layers_are_drawn() -> None:
    run = sick().run
    many = replace(
        run, layers=run.layers * 60, samples=tuple(replace(s, layers=s.layers * 60) for s in run.samples[:4])
    )
    drawn = plots.heat_map(document(Diagnosis(many, (), ())))
    assert float(re.search(r'viewBox="0 0 960 (\d+)"', drawn)[1]) < 1200  # type: ignore[index]


# --- files


def test_files_are_written_whole(tmp_path: Path) -> None:
    diagnosis = sick()
    for name, write in (("a.md", diagnosis.to_markdown), ("a.json", diagnosis.to_json), ("a.html", diagnosis.to_html)):
        text = write(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    with pytest.raises(FileError):
        diagnosis.to_html(tmp_path / "nowhere" / "a.html")
