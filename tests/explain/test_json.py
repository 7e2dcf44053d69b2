"""The document of a trace: valid, complete, the same each time."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import ALL, loop, not_finite, shared, training, two_layers

import stepgrad as sg
from stepgrad.errors import FileError
from stepgrad.explain.document import document

SCHEMA = json.loads((resources.files("stepgrad.explain") / "trace.schema.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "trace-format.md").read_text(encoding="utf-8")


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
    found = json.loads(two_layers().to_json())
    found["steps"][0]["backward"]["gives"][0]["kind"] = "sideways"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(found)


@pytest.mark.parametrize("made", ALL)
def test_ids_lead_to_what_exists(made: Any) -> None:
    found = json.loads(made().to_json())
    values, steps = found["values"], {s["number"] for s in found["steps"]}
    assert [v["id"] for v in values] == list(range(len(values)))
    computed = {e["value"] for e in found["equations"]}
    for equation in found["equations"]:
        assert all(o["value"] < equation["value"] for o in equation["operands"] if "value" in o)
    for step in found["steps"]:
        assert set(step["equations"]) <= computed
        assert {f["value"] for f in step["formulas"]} <= computed
    for edge in found["edges"]:
        assert {edge["from"], edge["to"]} - {None} <= steps
        assert edge["of"] < len(values)
    assert len(found["cache"]["kept"]) == len(found["walk"])
    assert {m["step"] for m in found["walk"]} == steps


@pytest.mark.parametrize("made", ALL)
def test_the_same_call_gives_the_same_bytes(made: Any) -> None:
    if made is not training:  # whose parameters are drawn anew
        assert made().to_json() == made().to_json()


def test_numbers_are_those_of_the_trace() -> None:
    trace = two_layers()
    found = json.loads(trace.to_json())
    for entry in found["gradients"]:
        leaf, value = found["values"][entry["of"]], found["values"][entry["value"]]
        np.testing.assert_array_equal(np.array(value["numbers"]), trace.gradients[leaf["name"]])
        assert value["statistics"]["norm"] == pytest.approx(np.linalg.norm(trace.gradients[leaf["name"]]))
        assert entry["name"] == f"d{leaf['name']}"


def test_float32_is_written_as_short_as_it_is() -> None:
    found = document(sg.trace(lambda x: x * 1.0, np.float32(0.1)))
    assert found["values"][0]["numbers"] == 0.1
    assert found["values"][0]["dtype"] == "float32"


def test_what_is_not_finite() -> None:
    found = strict(not_finite().to_json())
    x, y = found["values"][0], next(v for v in found["values"] if v["name"] == "y")
    assert x["numbers"] == [0.0, 1.0, "Infinity"]
    assert y["numbers"] == ["-Infinity", "NaN", "Infinity"]
    assert (y["statistics"]["nan"], y["statistics"]["infinite"], y["statistics"]["min"]) == (1, 2, None)
    assert x["statistics"]["max"] == 1.0


def test_statistics_of_numbers_near_the_end_of_the_range() -> None:
    found = document(sg.trace(lambda x: x.sum(), np.array([1e308, 1e308])))["values"][0]["statistics"]
    assert found["mean"] == pytest.approx(1e308)
    assert found["norm"] == pytest.approx(2**0.5 * 1e308)


def test_large_arrays_have_statistics_only() -> None:
    value = document(sg.trace(lambda x: (x * x).sum(), np.arange(100.0)))["values"][0]
    assert value["truncated"]
    assert value["numbers"] is None
    assert value["statistics"]["max"] == 99.0
    full = document(sg.trace(lambda x: (x * x).sum(), np.arange(100.0)), numbers=100)["values"][0]
    assert full["numbers"] == list(range(100))
    assert not full["truncated"]


def test_counts_that_javascript_would_round_are_strings() -> None:
    cost = json.loads(loop(60).to_json())["cost"]
    assert isinstance(cost["without_reuse"], int)
    deep = sg.trace(_doubling, np.float64(0.5))
    cost = json.loads(deep.to_json())["cost"]
    assert cost["paths"] == str(2**60)


def _doubling(x: Any) -> Any:
    for _ in range(60):
        x = x * x
    return x


def test_the_walk_goes_forward_back_and_then_updates() -> None:
    walk = [(m["pass"], m["step"]) for m in json.loads(training().to_json())["walk"]]
    assert walk == [*(("forward", n) for n in (1, 2, 3, 4)), *(("backward", n) for n in (4, 3, 2, 1)), ("update", 5)]


def test_what_is_kept_rises_and_falls() -> None:
    trace = two_layers()
    kept = json.loads(trace.to_json())["cache"]["kept"]
    assert kept == [160, 320, 320, 360, 440, 360, 320, 160, 0, 0]
    assert max(kept) == trace.cache().saved_bytes


def test_shared_values_come_in_parts() -> None:
    found = json.loads(shared().to_json())
    kinds = [g["kind"] for s in found["steps"] if s["backward"] for g in s["backward"]["gives"]]
    assert {"gradient", "upstream", "part"} == set(kinds)


def test_gradients_know_where_they_come_from() -> None:
    steps = json.loads(two_layers().to_json())["steps"]
    assert steps[2]["backward"]["arrives"][0]["from"] == [4]
    assert [g["to"] for g in steps[2]["backward"]["gives"]].count(2) == 1


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    trace = two_layers()
    file = tmp_path / "trace.json"
    assert trace.to_json(file) == file.read_text(encoding="utf-8")
    with pytest.raises(FileError, match="there is no folder"):
        trace.to_json(tmp_path / "nowhere" / "trace.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="can't be written"):
        trace.to_json(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "trace.json"]


def test_the_example_of_the_documentation() -> None:
    def line(w: Any, x: Any) -> Any:
        y = w * x
        return y * y

    block = re.search(r"^```json\n(.*?)^```", PAGE, re.M | re.S)
    assert block is not None
    shown, made = json.loads(block[1]), json.loads(sg.trace(line, 1.5, 2.0).to_json())
    for found in (shown, made):  # the example is a function of the page, not of this file
        found["file"], found["line"] = None, None
        for step in found["steps"]:
            step["file"], step["line"] = None, None
    assert shown == made


def test_every_field_is_described() -> None:
    named: set[str] = set()

    def take(schema: Any) -> None:
        if isinstance(schema, dict):
            named.update(schema.get("properties", {}))
        for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            take(inner)

    take(SCHEMA)
    assert not {name for name in named if f"`{name}`" not in PAGE}
