"""The picture: valid XML, everything in its box, few enough boxes, no box upon another."""

from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from examples import ALL, hostile, loop, many_parameters, shared, training, two_layers, various

import stepgrad as sg
from stepgrad.explain.document import document
from stepgrad.explain.graph import columns, graph, short
from stepgrad.explain.layered import layout
from stepgrad.explain.svg import svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def parsed(trace: sg.Trace) -> ET.Element:
    return ET.fromstring(trace.to_svg())


def nodes(picture: ET.Element) -> list[ET.Element]:
    return [g for g in picture.iter(f"{NAMESPACE}g") if "node" in g.get("class", "").split()]


def box(node: ET.Element) -> tuple[float, float, float, float]:
    rect = node.find(f"{NAMESPACE}rect")
    assert rect is not None
    x, y, w, h = (float(rect.get(k, "nan")) for k in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


@pytest.mark.parametrize("made", ALL)
def test_valid_with_a_title_and_a_description(made: Any) -> None:
    trace = made()
    picture = parsed(trace)
    title, about = picture.find(f"{NAMESPACE}title"), picture.find(f"{NAMESPACE}desc")
    assert title is not None
    assert title.text == f"The graph of {trace.function}"
    assert about is not None
    assert about.text
    assert picture.get("role") == "img"


@pytest.mark.parametrize("made", ALL)
def test_texts_fit_their_boxes_and_boxes_the_picture(made: Any) -> None:
    picture = parsed(made())
    width, height = (float(picture.get(k, "nan")) for k in ("width", "height"))
    for node in nodes(picture):
        left, top, right, bottom = box(node)
        assert left >= -15
        assert top >= 0
        assert right <= width
        assert bottom <= height
        for text in node.iter(f"{NAMESPACE}text"):
            assert columns(text.text or "") * 7.3 <= right - left
            assert top < float(text.get("y", "nan")) < bottom


@pytest.mark.parametrize("made", ALL)
def test_boxes_do_not_overlap(made: Any) -> None:
    for a, b in itertools.combinations([box(n) for n in nodes(parsed(made()))], 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("made", ALL)
def test_no_more_than_sixty_boxes(made: Any) -> None:
    assert 0 < len(nodes(parsed(made()))) <= 60


def test_the_lesson() -> None:
    picture = parsed(two_layers())
    said = ["".join(t.text or "" for t in n.iter(f"{NAMESPACE}text")) for n in nodes(picture)]
    assert "Z1 (4, 5)dZ1" in said
    assert "X (3, 5)" in said
    assert "3  Z2 = W2 @ A1 + b2" in said
    edges = [p.get("class", "") for p in picture.iter(f"{NAMESPACE}path")]
    assert edges.count("edge forward") == 6 + 4 + 4 + 1  # inputs; between steps; out of steps; the loss
    assert edges.count("edge backward") == 4 + 4 + 4 + 1
    assert all(p.get("d") for p in picture.iter(f"{NAMESPACE}path"))


def test_values_go_down() -> None:
    trace = shared()
    made = graph(document(trace))
    places = layout(dict.fromkeys(made.nodes, (10.0, 10.0)), [(e.source, e.target) for e in made.edges]).places
    assert all(places[e.source][1] < places[e.target][1] for e in made.edges)


def test_a_shared_value_has_an_edge_to_each_reader() -> None:
    made = graph(document(shared()))
    W = next(k for k, n in made.nodes.items() if n.lines[0].startswith("W "))
    assert [e.target for e in made.edges if e.source == W] == [("step", 1), ("step", 2), ("step", 3)]


def test_repetitions_share_a_box() -> None:
    made = graph(document(loop(100)))
    texts = [n.lines[0] for n in made.nodes.values() if n.kind.startswith("step")]
    assert texts == ["1  A = np.tanh(W @ A)", "… 98 steps: 2 to 99", "100  A = np.tanh(W @ A)", "101  return A.sum()"]


def test_neighbours_share_a_box_where_nothing_repeats() -> None:
    made = graph(document(various()), limit=20)
    covered = [n for node in made.nodes.values() for n in node.steps]
    assert covered == list(range(1, 72))
    assert len(made.nodes) <= 20


def test_many_parameters_of_one_step_are_left_out() -> None:
    assert len(graph(document(many_parameters())).nodes) < 10


def test_modules_are_named_and_updates_left_out() -> None:
    texts = [line for n in graph(document(training())).nodes.values() for line in n.lines]
    assert "module 0" in texts
    assert not any("opt" in t for t in texts)


def test_characters_that_xml_does_not_have() -> None:
    found = document(hostile())
    found["steps"][0]["text"] = "a\x00b\x0c\ud800\uffff"
    ET.fromstring(svg(found))


def test_wide_characters_take_two_columns() -> None:
    assert columns("重み") == 4
    assert short("重み重み", 5) == "重み…"
    assert short("abc", 3) == "abc"


def test_crossings_are_taken_out() -> None:
    sizes = dict.fromkeys("abcdxyzw", (10.0, 10.0))
    edges = list(zip("abcd", "wzyx", strict=True))
    places = layout(sizes, edges).places
    above, below = ([places[e[i]][0] for e in edges] for i in (0, 1))
    assert np.argsort(above).tolist() == np.argsort(below).tolist()


def test_long_edges_pass_beside_boxes() -> None:
    made = layout(dict.fromkeys("abc", (40.0, 20.0)), [("a", "b"), ("b", "c"), ("a", "c")])
    ((x, y),) = made.bends["a", "c"]
    assert y == made.places["b"][1]
    assert abs(x - made.places["b"][0]) >= 20


def test_random_graphs_have_a_layout() -> None:
    rng = random.Random(0)
    for _ in range(30):
        count = rng.randrange(0, 25)
        edges = [(a, b) for a in range(count) for b in range(a + 1, count) if rng.random() < 0.15]
        sizes = {n: (rng.uniform(10, 100), 20.0) for n in range(count)}
        made = layout(sizes, edges)
        assert set(made.places) == set(sizes)
        for a, b in itertools.combinations(sizes, 2):
            (xa, ya), (xb, yb) = made.places[a], made.places[b]
            assert ya != yb or abs(xa - xb) >= (sizes[a][0] + sizes[b][0]) / 2 - 1e-6
        assert all(0 <= x <= made.width + 1e-6 and 0 <= y <= made.height for x, y in made.places.values())
