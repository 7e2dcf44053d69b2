"""Seeing inside compiled programs: what they print, their sources, profiles, and shadow mode."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import stepgrad as sg
from stepgrad.errors import ArgumentError, IndexingError, ShapeError, StepgradError
from stepgrad.execute.cpu import library, points

GOLDEN = Path(__file__).parent / "golden"


def training(model: sg.nn.Module, optimizer: Callable[[Any], Any], **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A compiled training step, and everything that it changes."""
    opt = optimizer(model.parameters())

    @sg.compile(**settings)
    def step(x: Any, y: Any) -> Any:
        loss = sg.losses.cross_entropy(model(x), y)
        opt.step(sg.backward(loss, model.parameters()))
        return loss

    return step, {"model": model, "opt": opt}


def layered(depth: int = 1, width: int = 48) -> sg.nn.Module:
    layers: list[sg.nn.Module] = [sg.nn.Linear(20, width, key=7)]
    for i in range(depth):
        layers += [sg.nn.ReLU(), sg.nn.Linear(width, width, key=i)]
    return sg.nn.Sequential(*layers, sg.nn.ReLU(), sg.nn.Linear(width, 5, key=8))


def normalised() -> sg.nn.Module:
    return sg.nn.Sequential(
        sg.nn.Linear(20, 24, key=1),
        sg.nn.LayerNorm(24),
        sg.nn.GELU(),
        sg.nn.Dropout(0.3, key=5),
        sg.nn.Linear(24, 5, key=2),
    )


NETWORKS: dict[str, Callable[[], sg.nn.Module]] = {"layered": layered, "normalised": normalised}
SGD = lambda p: sg.optim.SGD(p, lr=0.1, momentum=0.9)


def data(rows: int = 32) -> tuple[Any, Any]:
    return np.random.default_rng(0).standard_normal((rows, 20)).astype(np.float32), np.arange(rows) % 5


def state(held: dict[str, Any]) -> dict[str, Any]:
    return {f"{k}.{name}": v.copy() for k, owner in held.items() for name, v in owner.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all((one[name] == other[name]).all() for name in one)


# --- the listing


def test_a_program_prints_kernels_fusion_buffers_and_totals() -> None:
    step, _ = training(layered(), sg.optim.Adam, threads=1)
    step(*data())
    text = re.sub(r"; [\d.]+ k?B of scratch for each thread", "", repr(step.program))
    text = re.sub(r"(\w+\.py):\d+", r"\1", text)
    assert text == (GOLDEN / "listing.txt").read_text().rstrip("\n")


def test_barriers_stand_between_the_kernels_that_they_part() -> None:
    step, _ = training(layered(width=128), sg.optim.Adam, threads=2)
    step(*data(64))
    text = repr(step.program)
    barriers = int(re.search(r"(\d+) barrier", text)[1])  # type: ignore[index]
    assert "2 threads" in text
    assert barriers == text.count("──── barrier: ") > 0
    for kernel, reason in re.findall(r"──── barrier: (k\d+) (.*)", text):
        assert re.match(r"(reads|overwrites) .* which k\d+ (wrote|reads)", reason)
        after = text[text.index(f"──── barrier: {kernel} ") :].split("\n\n")[1]
        assert after.startswith(kernel)


def test_equal_layers_are_listed_once() -> None:
    shallow, _ = training(layered(10), sg.optim.Adam)
    deep, _ = training(layered(40), sg.optim.Adam)
    shallow(*data())
    deep(*data())
    one, other = repr(shallow.program), repr(deep.program)
    assert "39 times more" in other or "38 times more" in other
    assert other.count("\n") <= one.count("\n") + 2
    functions = [re.search(r"(\d+) machine functions", text)[1] for text in (one, other)]  # type: ignore[index]
    assert functions[0] == functions[1]


def test_the_log_says_why_values_are_stored_and_threads_wait() -> None:
    step, _ = training(layered(width=128), sg.optim.Adam, threads=2)
    step(*data(64))
    log = str(step.program.log())
    assert "common subexpressions: " in log
    assert re.search(r"k\d+ product \(64,20\) @ \(20,128\): matmul, add, relu \(3 equations\)", log)
    assert re.search(r"1\.relu float32\[64,128\].*made by k\d+, read by .*as a factor of a product", log)
    assert re.search(r"loss float32\[\] result: made by k\d+, returned to the caller", log)
    assert re.search(r"before k\d+: k\d+ (reads|overwrites) ", log)


def test_fallbacks_are_listed_with_their_lines_and_reasons() -> None:
    @sg.compile
    def ordered(x: Any) -> Any:
        low = np.sort(x * 2, axis=0)
        return (low[:2] + 1).sum()

    x = np.arange(12, dtype=np.float32).reshape(3, 4)[::-1]
    assert ordered(x).item() == np.sort(x * 2, axis=0)[:2].sum() + 8
    found = ordered.program.fallbacks()
    (fallback,) = found
    assert fallback.line.startswith("test_inside.py:")
    assert "there is no kernel for" in fallback.why
    assert fallback.op in repr(fallback)
    assert repr(fallback).split(":")[0] in repr(ordered.program)


def test_a_network_has_no_fallbacks() -> None:
    step, _ = training(layered(), sg.optim.Adam)
    step(*data())
    assert step.program.fallbacks() == []


# --- sources


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", [sg.optim.Adam, SGD])
def test_the_numpy_source_runs_and_computes_the_same(network: str, optimizer: Any) -> None:
    step, held = training(NETWORKS[network](), optimizer)
    x, y = data()
    step(x, y)
    scope: dict[str, Any] = {}
    text = step.program.source()
    exec(text, scope)
    cells = {name: cell for owner in held.values() for name, cell in _cells(owner)}
    (loss,), new = scope["step"](x, y, {name: cell.numpy() for name, cell in cells.items()})
    assert step(x, y).item() == pytest.approx(float(loss), rel=1e-6)
    assert new
    for name, value in new.items():
        np.testing.assert_allclose(cells[name].numpy(), value, rtol=2e-5, atol=2e-6, err_msg=name)
    assert text.count("    # k") == len(step.program.profile(steps=1).rows)


def _cells(owner: Any) -> list[tuple[str, Any]]:
    named = {**owner.__dict__} if not isinstance(owner, sg.nn.Module) else {}
    found = [(c.name, c) for c in _leaves(named)]
    if isinstance(owner, sg.nn.Module):
        found += [*owner.parameters().items(), *owner.states().items()]
    return found


def _leaves(node: Any) -> list[Any]:
    if isinstance(node, (sg.Parameter, sg.State)):
        return [node]
    if isinstance(node, dict):
        return [c for value in node.values() for c in _leaves(value)]
    if isinstance(node, (list, tuple)):
        return [c for value in node for c in _leaves(value)]
    return []


def test_the_numpy_source_has_constants_and_refuses_what_the_program_refuses() -> None:
    table = np.arange(6.0).reshape(3, 2)

    @sg.compile
    def look(i: Any) -> Any:
        return (sg.tensor(table)[i] * np.array([1.0, np.inf])).sum(axis=1)

    index = np.array([2, 0, -1])
    found = look(index)
    scope: dict[str, Any] = {}
    exec(look.program.source(), scope)
    (value,), new = scope["step"](index, {})
    np.testing.assert_array_equal(found.numpy(), value)
    assert new == {}
    with pytest.raises(IndexError):
        scope["step"](np.array([0, 1, 3]), {})


def test_llvm_and_assembly_hold_each_machine_function_once() -> None:
    step, _ = training(layered(4), sg.optim.Adam)
    step(*data())
    functions = int(re.search(r"(\d+) machine functions", repr(step.program))[1])  # type: ignore[index]
    ir, assembly = step.program.source("llvm"), step.program.source("asm")
    names = re.findall(r'^define void @"?(kernel_\w+)"?\(', ir, re.MULTILINE)
    assert len(names) == len(set(names)) == functions
    assert all(re.search(rf"^_?{name}:", assembly, re.MULTILINE) for name in names)
    assert "; k1 " in ir
    for module in re.split(r"\n\n(?=; k\d)", ir):
        llvm.parse_assembly(module).verify()
    with pytest.raises(ArgumentError, match=r'program\.source\("asm"\)'):
        step.program.source("fortran")


# --- profiles


def test_a_profile_measures_every_kernel_and_changes_nothing(tmp_path: Path) -> None:
    step, held = training(normalised(), sg.optim.Adam)
    step(*data())
    before = state(held)
    profile = step.program.profile(steps=7)
    assert same(before, state(held))
    assert profile.steps == 7
    assert [row.name for row in profile.rows] == [f"k{i + 1}" for i in range(len(profile.rows))]
    assert all(row.seconds >= 0 and row.waiting >= 0 for row in profile.rows)
    assert 0 < profile.peak.flops < 1e14
    assert 0 < profile.peak.bandwidth < 1e13
    product = next(row for row in profile.rows if row.title.startswith("product (32,20) @ (20,24)"))
    assert product.flops == 2 * 32 * 20 * 24 + 32 * 24
    assert product.gflops == pytest.approx(product.flops / product.seconds / 1e9)
    text = repr(profile)
    assert all(row.title[:20] in text for row in profile.rows)
    assert "waiting at barriers" in text
    assert "GB/s from and to memory" in text


def test_a_profile_takes_the_users_inputs() -> None:
    step, held = training(layered(), sg.optim.Adam)
    x, y = data()
    step(x, y)
    assert step.program.profile(x, y, steps=2).steps == 2
    with pytest.raises(ShapeError, match=r"float32\[32,20\]"):
        step.program.profile(x[:5], y, steps=1)
    with pytest.raises(ArgumentError, match="the program takes"):
        step.program.profile(x, steps=1)
    with pytest.raises(ArgumentError, match="at least one step"):
        step.program.profile(steps=0)
    after = state(held)
    with pytest.raises(IndexingError, match="y "):
        step.program.profile(x, y + 100, steps=1)
    assert same(after, state(held))


def test_a_program_without_kernels_is_seen_through_too() -> None:
    @sg.compile
    def known(x: Any) -> Any:
        return sg.tensor([1.0, 2.0])

    known(np.ones(3))
    assert "0 kernels" in repr(known.program)
    assert known.program.source("asm") == ""
    with pytest.raises(ArgumentError, match="without kernels"):
        known.program.profile()


def test_a_trace_has_a_track_for_each_thread(tmp_path: Path) -> None:
    step, _ = training(layered(width=128), sg.optim.Adam, threads=2)
    step(*data(64))
    profile = step.program.profile(steps=3)
    profile.to_perfetto(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    tracks = {e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert tracks == {0, 1}
    slices = [e for e in events if e["ph"] == "X"]
    kernels = {e["name"].split()[0] for e in slices if e["cat"] != "barrier"}
    assert kernels == {row.name for row in profile.rows}
    assert any(e["name"] == "waiting" for e in slices)
    for track in tracks:
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["tid"] == track)
        assert all(end <= begin + 2e-3 for (_, end), (begin, _) in itertools.pairwise(spans))


# --- shadow mode


@pytest.mark.parametrize("network", NETWORKS)
def test_a_shadowed_step_computes_the_same(network: str) -> None:
    plain, held = training(NETWORKS[network](), sg.optim.Adam)
    shadowed, shadowed_held = training(NETWORKS[network](), sg.optim.Adam, shadow=True)
    x, y = data()
    for _ in range(3):
        assert plain(x, y).item() == shadowed(x, y).item()
    assert same(state(held), state(shadowed_held))
    xs, ys = np.stack([x, x + 1]), np.stack([y, y])
    np.testing.assert_array_equal(plain.scan(xs, ys).numpy(), shadowed.scan(xs, ys).numpy())
    assert same(state(held), state(shadowed_held))


def test_a_shadowed_step_refuses_what_a_plain_one_refuses() -> None:
    step, held = training(layered(), sg.optim.Adam, shadow=True)
    x, y = data()
    step(x, y)
    before = state(held)
    with pytest.raises(IndexingError, match="out of range for cross_entropy"):
        step(x, y + 100)
    assert same(before, state(held))


def test_comparisons_on_an_edge_are_excused() -> None:
    @sg.compile(shadow=True)
    def on_the_edge(x: Any) -> Any:
        total = (x * x).sum(axis=1)  # differs in its last bits, and where it is compared with what NumPy has
        return sg.where(total > reference, total * 100, -total), sg.sign(total - reference)

    x = np.random.default_rng(0).standard_normal((64, 501)).astype(np.float32)
    reference = (x * x).sum(axis=1)
    on_the_edge(x)


WRONG = {
    "tanh": ("h: float32[11,9] = tanh(h.add)", "h = sg.tanh(x @ W + c)"),
    "exp": ("m.exp: float32[11,9] = exp(m.minimum)", "m = sg.exp("),
    "square": ("m.square: float32[11,9] = square(h)", "m = sg.exp("),
    "sigmoid": ("loss.sigmoid: float32[11,9] = sigmoid(m)", "loss = sg.sum(m * sg.sigmoid(m))"),
}


@pytest.mark.parametrize("op", WRONG)
@pytest.mark.parametrize("factor", [1.5, 1.00002])
def test_a_wrong_kernel_is_found_and_its_first_wrong_equation_named(
    op: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPGRAD_CACHE", "")
    monkeypatch.setattr(library, "_known", {})
    right = points.emit

    def wrong(b: Any, name: str, arguments: Any, params: Any) -> Any:
        value = right(b, name, arguments, params)
        return b.fmul(value, points.like(value, factor)) if name == op else value

    monkeypatch.setattr(points, "emit", wrong)
    draw = np.random.default_rng(0)
    W = sg.Parameter(draw.standard_normal((7, 9)).astype(np.float32) / 3, name="W")
    c = sg.Parameter(np.zeros(9, np.float32), name="c")
    opt = sg.optim.SGD({"W": W, "c": c}, lr=0.1)

    @sg.compile(shadow=True)
    def step(x: Any) -> Any:
        h = sg.tanh(x @ W + c)
        m = sg.exp(sg.minimum(h, 0.5)) * sg.square(h)
        loss = sg.sum(m * sg.sigmoid(m))
        opt.step(sg.backward(loss, {"W": W, "c": c}))
        return loss

    before = W.numpy().copy()
    equation, line = WRONG[op]
    with pytest.raises(StepgradError) as found:
        step(draw.standard_normal((11, 7)).astype(np.float32))
    text = str(found.value)
    assert text.startswith(equation)
    assert line in text
    assert re.search(r"is \S+ at \(\d+, \d+\) in the program, and \S+ in NumPy, where ", text)
    assert re.search(r"in k\d+ product \(11,7\) @ \(7,9\)", text)
    assert re.search(r"\d+ of 99 elements differ, by \S+ at most", text)
    assert (W.numpy() == before).all()
