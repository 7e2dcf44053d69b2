"""`stepgrad bench`: what it writes, and that peers which do other work, or fail, are only noted."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from stepgrad import cli
from stepgrad.bench import measure, networks, processes, report, run, targets, timing, worker
from stepgrad.bench.measure import Comparison, Measured
from stepgrad.bench.processes import Candidate
from stepgrad.bench.report import Results
from stepgrad.bench.timing import Timing
from stepgrad.errors import ArgumentError, FileError
from stepgrad.train import digits


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PAUSE", 0.0)


def settings(*names: str, **more: Any) -> run.Settings:
    return run.Settings(run.parse_networks(names), (), 1, 0.001, **more)


# --- a short run, from the command to the files


def test_a_run_without_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    words = ["2-8-2", "--peers", "none", "--threads", "1", "--seconds", "0.001", "--date", "1 May"]
    files = ["--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md", "--readme", readme]
    monkeypatch.setattr(sys, "argv", ["stepgrad", "bench", *words, *map(str, files)])
    monkeypatch.setattr(cli, "COMMANDS", ("train", "bench"))
    monkeypatch.setattr(cli.app, "registered_commands", [])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "2-8-2, batch 4" in capsys.readouterr().out

    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert found["about"]["threads"] == 1
    assert found["about"]["date"] == "1 May"
    assert set(found["about"]["versions"]) == {"stepgrad"}
    (network,) = found["networks"]
    assert network["rounds"] == 3
    by_library = {c["library"]: c for c in network["candidates"]}
    assert list(by_library) == ["stepgrad", "stepgrad scan", "stepgrad eager"]
    for library, c in by_library.items():
        assert c["note"] == "", c
        assert 0 < c["step"]["low"] <= c["step"]["median"] <= c["step"]["high"] < 1
        assert set(c["ratios"]) == set(by_library) - {library}
        assert c["import_seconds"] > 0
        assert c["first_seconds"] > 0
        np.testing.assert_allclose(c["losses"], by_library["stepgrad eager"]["losses"], rtol=1e-4)
        assert len(set(c["losses"])) == measure.CHECKS
    assert [t["reached"] for t in found["targets"]] == [None] * 4  # there are no peers to compare with

    page = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "| 2-8-2, batch 4 |" in page
    assert "### 2-8-2, batch 4" in page
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"# Mine\n\n{report.BEGIN}\n| network | stepgrad | in `scan` |\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text


# --- who does other work, or fails


PEER = """
    def load(threads):
        return "1.0"

    def losses(network):
        return {losses}

    def step(network, weights, batches, threads):
        found = iter(losses(network) * 1000)
        return lambda: next(found), lambda loss: [loss]

    def breaks_down(network, weights, batches, threads):
        raise ValueError("no such\\nkernel")

    def dies(network, weights, batches, threads):
        import os, sys
        print("printed by a library")
        print("fatal: out of luck", file=sys.stderr, flush=True)
        os._exit(3)

    def dies_later(network, weights, batches, threads):
        import os
        calls = iter(losses(network) + [None])
        def run():
            loss = next(calls)
            if loss is None:
                os._exit(4)
            return loss
        return run, lambda loss: [loss]
"""


@pytest.fixture
def peer(tmp_path: Path) -> Any:
    """A file of functions, whose steps have these losses."""

    def write(name: str, losses: list[float]) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(PEER).format(losses=losses), encoding="utf-8")
        return str(path)

    return write


def compared(*candidates: Candidate) -> dict[str, Measured]:
    tiny = networks.find("2-3-2b2")
    assert tiny is not None
    return {m.library: m for m in measure.compare(tiny, candidates, threads=1, seconds=0.001).candidates}


def test_whoever_does_other_work_is_named_and_not_timed(peer: Any) -> None:
    right = [1.0 + i for i in range(20)]
    wrong = [loss if i < 7 else loss * 1.01 for i, loss in enumerate(right)]
    found = compared(
        Candidate("wrong", "", peer("wrong", wrong), "step"),
        Candidate("one", "", peer("one", right), "step"),
        Candidate("other", "", peer("other", [loss * (1 + 1e-5) for loss in right]), "step"),
    )
    assert found["wrong"].note == "does other work: loss 8.08 in step 8, where one has 8"
    assert found["wrong"].step is None
    for name in ("one", "other"):
        assert found[name].step is not None
        assert list(found[name].ratios) == [{"one": "other", "other": "one"}[name]]


def test_a_loss_that_is_not_a_number_is_other_work() -> None:
    nan = float("nan")
    assert list(measure.other_work({"a": [1.0], "b": [1.0], "c": [nan]}, 1e-3)) == ["c"]
    assert measure.other_work({}, 1e-3) == {}


def test_a_step_with_another_learning_rate_is_found_out(tmp_path: Path) -> None:
    ours = Path(str(processes.HERE)) / "ours.py"
    text = ours.read_text(encoding="utf-8")
    assert "lr=network.learning_rate" in text
    (tmp_path / "slower.py").write_text(text.replace("lr=network.learning_rate", "lr=0.9e-3"), encoding="utf-8")
    found = compared(
        Candidate("ours", "", "ours.py", "eager"),
        Candidate("again", "", "ours.py", "eager"),
        Candidate("slower", "", str(tmp_path / "slower.py"), "eager"),
    )
    assert not found["ours"].note
    assert found["slower"].note.startswith("does other work")


def test_whoever_fails_is_noted(peer: Any) -> None:
    file = peer("peer", [1.0] * 20)
    found = compared(
        Candidate("right", "", file, "step"),
        Candidate("breaks down", "", file, "breaks_down"),
        Candidate("dies", "", file, "dies"),
        Candidate("dies later", "", file, "dies_later"),
        Candidate("not there", "", file, "no_such_function"),
    )
    assert found["right"].step is not None
    assert found["breaks down"].note == "ValueError: no such kernel"
    assert found["dies"].note == "its process ended with status 3: fatal: out of luck"
    assert found["dies later"].note == "its process ended with status 4"
    assert "no_such_function" in found["not there"].note
    assert not found["dies later"].ratios
    assert "dies later" not in found["right"].ratios


def test_peers_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "installed", lambda peer: False)
    monkeypatch.setattr(measure, "STEPS", tuple(c for c in measure.STEPS if c.library != measure.SCAN))
    asked = run.Settings(run.parse_networks(["2-3-2b2"]), ("jax", "torch"), 1, 0.001)
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        results = run.bench(asked, Console(file=out))
    assert results.missing == ("jax", "torch")
    assert [m.peer for m in results.comparisons[0].candidates] == ["", ""]
    assert "Not installed: jax, torch." in report.to_markdown(results)


# --- networks


@pytest.mark.parametrize("network", [*networks.NETWORKS, networks.DIGITS], ids=lambda n: n.name)
def test_weights_and_batches_fit(network: networks.Network) -> None:
    for layer, arrays in zip(network.layers, networks.weights(network), strict=True):
        assert [a.shape for a in arrays][:1] == ([tuple(layer[1:])] if layer[0] in ("linear", "embedding") else
                                                 [(layer[1],)] if layer[0] == "layer norm" else [])  # fmt: skip
        assert all(a.dtype == network.dtype for a in arrays)
    X, Y = networks.batches(network)
    assert len(X) == len(Y)
    if not network.epochs:
        assert X.shape[1:] == (network.batch, network.words or network.inputs)
        assert X.nbytes <= 16_000_000
    assert (Y.dtype.kind == "f") == (network.loss == "mse")


def test_the_same_network_every_time() -> None:
    network = networks.find("2-8-2")
    assert network is not None
    for a, b in zip(networks.batches(network), networks.batches(network), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_digits_are_those_of_stepgrad() -> None:
    for a, b in zip(networks.digits(), digits.load(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_is_taken_out() -> None:
    network = networks.find("norm-dropout")
    assert network is not None
    kinds = [layer[0] for layer in network.without_dropout().layers]
    assert "layer norm" in kinds
    assert "dropout" not in kinds


def test_networks_by_their_sizes() -> None:
    found = networks.find("20-50-3b16")
    assert found is not None
    assert (found.sizes, found.batch) == ([(20, 50), (50, 3)], 16)
    for name in ("20", "20-", "0-3", "20-3b0", "x"):
        assert networks.find(name) is None


# --- bad input


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: run.parse_networks(["2-8-2", "deeep"]), "no network 'deeep'"),
        (lambda: run.parse_networks(["embeding"]), "perhaps 'embedding'"),
        (lambda: run.parse_peers("jax,tensorflow"), "'tensorflow'"),
        (lambda: run.parse_threads(0), "--threads was given 0"),
        (lambda: run.parse_threads(10**6), "--threads was given 1000000"),
        (lambda: run.parse_seconds(0.0), "--seconds was given 0"),
        (lambda: run.parse_seconds(float("nan")), "--seconds was given nan"),
    ],
)
def test_bad_settings(call: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        call()


def test_files_are_checked_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "compare", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(FileError, match="no folder"):
        run.bench(settings("2-8-2", json=tmp_path / "none" / "r.json"))
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.END}\n{report.BEGIN}\n", encoding="utf-8")
    with pytest.raises(FileError, match="no place for the table"):
        run.bench(settings("2-8-2", readme=readme))


# --- numbers


def test_durations() -> None:
    shown = [timing.duration(s) for s in (2.5e-10, 4.4e-7, 9.996e-7, 2.1e-6, 1.954e-3, 0.0755, 12.34)]
    assert shown == ["0.25 ns", "440 ns", "1.00 µs", "2.10 µs", "1.95 ms", "75.5 ms", "12.3 s"]


def test_ratios_are_shown_with_the_digits_that_mean_something() -> None:
    assert [report.times(r) for r in (0.00421, 0.0994, 0.5, 1.449, 12.34, 123.4)] == [
        "0.0042×",
        "0.099×",
        "0.50×",
        "1.45×",
        "12.3×",
        "123×",
    ]


def test_ratios_are_taken_within_a_round() -> None:
    assert timing.ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == 2.0


def test_steps_in_one_call_are_counted() -> None:
    """A call of 10 steps takes ten times as long as a step."""
    import time

    seconds = worker.measure(lambda: time.sleep(0.01), lambda _: [0.0] * 10, 0.03)
    assert 0.001 <= seconds < 0.01


def timed(library: str, ratios: dict[str, float], imported: float = 0.1, first: float = 0.1) -> Measured:
    return Measured(library, "", "1", Timing(1e-3, 1e-3, 1e-3), ratios, imported, first)


def test_targets() -> None:
    first_calls = Comparison(
        measure.FIRST_CALLS,
        "",
        False,
        3,
        (
            timed(measure.COMPILED, {}, 0.3, 0.2),
            timed(measure.JAX, {measure.COMPILED: 3.5}, 0.4, 0.7),
            timed(measure.TORCH, {measure.COMPILED: 9.0}, 1.2, 0.5),
        ),
    )
    limits = Comparison(
        "784-512-256-10",
        "",
        False,
        3,
        (timed(measure.COMPILED, {measure.FORWARD: 3.4, measure.PRODUCTS: 1.2}), timed(measure.FORWARD, {}),
         timed(measure.PRODUCTS, {}), timed(measure.ONE_THREAD, {measure.COMPILED: 1.9})),
    )  # fmt: skip
    found = {t.text: t for t in targets.reached([first_calls, limits])}

    def judged(text: str) -> tuple[float | None, bool | None]:
        ratio = found[text].ratio
        return None if ratio is None else round(ratio, 6), found[text].reached

    assert judged("first call, import included") == (2.2, True)
    assert judged("first call, import included, against `import torch`") == (2.4, True)
    assert judged("the step against its bare matrix products") == (1.2, False)
    assert judged("gradient and update against the forward pass") == (2.4, True)
    assert judged("one thread against all") == (1.9, True)
    by_peer = {(t.network, t.text): t.reached for t in targets.reached([first_calls, limits])}
    assert by_peer[measure.FIRST_CALLS, "JAX jit against stepgrad"] is True
    assert by_peer[measure.FIRST_CALLS, "PyTorch eager against stepgrad"] is False
    assert by_peer["784-512-256-10", "JAX jit against stepgrad"] is None


def test_a_readme_block_compares_scan_with_scan() -> None:
    candidates = (
        timed(measure.COMPILED, {}),
        timed(measure.SCAN, {}),
        Measured(measure.JAX_SCAN, "jax", "2", Timing(5e-3, 5e-3, 5e-3), {measure.COMPILED: 5.0, measure.SCAN: 7.0}),
        Measured(measure.JAX, "jax", "2", note="ValueError: a | b"),
    )
    results = Results("a machine", 2, 1.0, (), "", (Comparison("x", "x, batch 1", False, 3, candidates),))
    assert "| x, batch 1 | 1.00 ms | 1.00 ms | 5.00 ms (7.00×) |" in report.block(results)
    assert "ValueError: a \\| b" in report.to_markdown(results)


# --- every library, where it is installed


@pytest.mark.peers
@pytest.mark.parametrize("name", ["2-8-2", "regression", "norm-dropout", "embedding", "float64"])
@pytest.mark.parametrize("peer_name", ["torch", "jax"])
def test_peers_do_the_same_work(name: str, peer_name: str) -> None:
    if not measure.installed(peer_name):
        pytest.skip(f"{peer_name} is not installed")
    network = networks.find(name)
    assert network is not None
    candidates = measure.candidates_for(network, (peer_name,))
    found = measure.compare(network, candidates, threads=1, seconds=0.001)
    assert {m.library: m.note for m in found.candidates if m.note} == {}
