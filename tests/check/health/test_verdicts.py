"""The catalogue of verdicts: every entry finds what its example has, and nothing once it is cured."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepgrad.check.health.diagnosis import Diagnosis, _grouped, diagnose
from stepgrad.check.health.record import Failure, LossPart, Run
from stepgrad.check.health.verdicts import CATALOGUE, pages
from stepgrad.check.health.verdicts.entry import Threshold, number, percent

PAGES = Path(__file__).parents[3] / "docs" / "verdicts"


@functools.cache
def recorded(script: str) -> Run:
    """Runs an example, and returns what it recorded."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(script.replace("print(health.report())", ""), "example.py", "exec"), names)
    run = names["health"].run
    assert isinstance(run, Run)
    return run


def healthy() -> Run:
    return recorded(CATALOGUE["learning-rate-too-low"].cured)


# --- the catalogue


def test_causes_stand_before_what_they_bring_about() -> None:
    """So that no verdict explains itself. Of one pair each may explain the other; the time of the first decides."""
    before: set[str] = set()
    for entry in CATALOGUE.values():
        late = set(entry.causes) - before
        assert late <= ({"learning-rate-too-high"} if entry.name == "exploding-gradients" else set()), entry.name
        before.add(entry.name)


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda e: e.name)
def test_an_entry_says_everything(entry: Any) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", entry.name)
    for text in (entry.meaning, entry.reads, entry.remedy):
        assert len(text) > 20
        assert text.endswith(".")
    for threshold in entry.thresholds:
        assert len(threshold.reason) > 30
        assert math.isfinite(threshold.value)
    assert entry.cure
    for old, _ in entry.cure:
        assert old in entry.example


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda e: e.name)
def test_the_example_has_it(entry: Any) -> None:
    diagnosis = diagnose(recorded(entry.example))
    assert entry.name in diagnosis.names
    verdict = diagnosis[entry.name]
    assert re.search(r"\d", verdict.says) or verdict.layer
    assert verdict.evidence
    assert len(verdict.remedy) > 20
    used = {e.threshold for e in verdict.evidence if e.threshold is not None}
    allowed = {t.what for t in entry.thresholds}
    assert {t.what for t in used} <= allowed
    if entry.thresholds and entry.name != "frozen-parameters" and entry.name != "wrong-gradient":
        assert used, "a verdict shows what decided it"
    answers = {a.question: a.ok for a in diagnosis.answers}
    assert answers[entry.question] is False


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda e: e.name)
def test_its_remedy_leaves_nothing(entry: Any) -> None:
    assert diagnose(recorded(entry.cured)).names == ()


# --- thresholds and numbers


def test_thresholds() -> None:
    above, below = Threshold("x", 2.0, True, ""), Threshold("x", 0.5, False, "")
    assert above.holds(2.1)
    assert not above.holds(2.0)
    assert below.holds(0.5)
    assert not below.holds(0.6)
    assert not above.holds(math.nan)
    assert not below.holds(math.nan)
    assert (above.text, below.text, Threshold("x", 0.0, False, "").text) == ("above 2", "below 0.5", "exactly 0")


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.0, 1234.5, 1e-9, math.inf)] == ["0", "1,230", "1e-09", "inf"]
    assert [percent(x) for x in (0.0, 0.5, 1.0, 0.9996, 0.0003, 12.0)] == [
        "0 %", "50 %", "100 %", "99.96 %", "0.03 %", "1,200 %",
    ]  # fmt: skip


# --- causes


def test_consequences_stand_under_their_cause() -> None:
    diagnosis = diagnose(recorded(CATALOGUE["dying-units"].example))
    assert [v.name for v in diagnosis.verdicts] == ["dying-units"]
    assert [v.name for v in diagnosis.verdicts[0].consequences] == ["dead-units"]
    assert diagnosis.names == ("dying-units", "dead-units")


def test_units_that_were_never_alive_did_not_die_of_the_learning_rate() -> None:
    assert diagnose(recorded(CATALOGUE["dead-units"].example)).names[0] == "dead-units"


def test_an_initialisation_comes_before_what_it_brings_about() -> None:
    names = diagnose(recorded(CATALOGUE["exploding-gradients"].example)).verdicts[0]
    assert names.name == "poor-initialisation"
    assert "exploding-gradients" in [v.name for _, v in names.walk()]


def test_gradients_that_explode_from_the_start_are_no_matter_of_the_learning_rate() -> None:
    run = recorded(CATALOGUE["exploding-gradients"].example)
    above = [v for v in diagnose(run).verdicts[0].walk() if v[1].name == "learning-rate-too-high"]
    assert above
    later = {"exploding-gradients": replace(_finding(run, "exploding-gradients"), since=3)}
    later["learning-rate-too-high"] = _finding(run, "learning-rate-too-high")
    made = _grouped({name: (CATALOGUE[name], finding) for name, finding in later.items()})
    assert [v.name for v in made] == ["learning-rate-too-high"]
    assert [v.name for v in made[0].consequences] == ["exploding-gradients"]


def _finding(run: Run, name: str) -> Any:
    return CATALOGUE[name].judge(run)


# --- runs that are changed by hand


def changed(run: Run, **fields: Any) -> Diagnosis:
    return diagnose(replace(run, **fields))


def test_a_healthy_run_has_no_verdict() -> None:
    diagnosis = diagnose(healthy())
    assert diagnosis.ok
    assert diagnosis
    assert diagnosis.names == ()
    assert all(a.ok for a in diagnosis.answers)


def test_a_run_without_steps_is_not_judged() -> None:
    run = replace(healthy(), losses=(), samples=(), epochs=(), descents=(), gradient_checks=(), data=None)
    diagnosis = diagnose(run)
    assert diagnosis.ok
    assert [a.ok for a in diagnosis.answers[:3]] == [None, None, None]


def test_every_run_can_be_cut_anywhere() -> None:
    """A run that is interrupted is judged by what there is."""
    for entry in CATALOGUE.values():
        run = recorded(entry.example)
        for keep in (1, 2, 5):
            cut = replace(run, losses=run.losses[:keep], samples=run.samples[:keep], descents=run.descents[: keep - 1])
            str(diagnose(replace(cut, epochs=(), data=None)))
            str(diagnose(replace(cut, layers=(), samples=())))


def test_what_was_seen_early_says_nothing_about_the_end() -> None:
    run = recorded(CATALOGUE["dead-units"].example)
    assert "dead-units" not in changed(run, samples=run.samples[:3]).names


def test_nan_in_the_middle() -> None:
    run = healthy()
    losses = (*run.losses[:40], math.nan)
    diagnosis = changed(run, losses=losses, samples=tuple(s for s in run.samples if s.step <= 40))
    assert diagnosis.names == ("not-finite",)
    assert "step 41" in diagnosis["not-finite"].says


def test_the_first_cause_of_a_nan_is_told() -> None:
    run = healthy()
    failure = Failure(41, 2, math.nan, "the loss became nan", "log(0) at row 3 of Y_hat", {"remedy": "use logits"}, 1)
    diagnosis = changed(run, losses=(*run.losses[:40], math.nan), failure=failure)
    assert "log(0) at row 3 of Y_hat" in diagnosis["not-finite"].says
    assert "use logits" in diagnosis["not-finite"].remedy


def test_a_label_that_stops_the_run() -> None:
    failure = Failure(
        1, 1, None, "label 7 in row 2 is not the number of a class\n  why: x\n  instead: use 0 to 1", "", {}, 0
    )
    diagnosis = changed(healthy(), failure=failure)
    assert "label 7" in diagnosis["labels-out-of-range"].says
    assert "use 0 to 1" in diagnosis["labels-out-of-range"].remedy


def test_a_softmax_before_a_loss_of_logits() -> None:
    run = healthy()
    diagnosis = changed(run, settings=replace(run.settings, last_op="softmax"))
    assert "leave softmax out" in diagnosis["labels-out-of-range"].remedy


def test_inputs_that_are_all_the_same() -> None:
    run = healthy()
    assert run.data is not None
    still = replace(run.data, std=(0.0,) * len(run.data.std))
    diagnosis = changed(run, data=still)
    assert "none of the 8 input features differs" in diagnosis["unnormalised-inputs"].says


def test_a_large_feature_is_named() -> None:
    run = healthy()
    assert run.data is not None
    large = replace(run.data, mean=(*run.data.mean[:-1], 5000.0))
    assert "input feature 7 has a root mean square of 5,000" in changed(run, data=large)["unnormalised-inputs"].says


def test_a_loss_that_rises_again() -> None:
    """Not by chance: a level that is noisy is none."""
    run = healthy()
    noise = [0.1 * math.sin(40 * i) for i in range(400)]
    level = [1.0 - i / 400 if i < 200 else 0.5 for i in range(400)]
    rises = [1.0 - i / 400 if i < 200 else 0.5 + (i - 200) / 400 for i in range(400)]
    descents = tuple(replace(d, next_batch_change=0.01) for d in run.descents)
    for losses, names in ((level, ()), (rises, ("learning-rate-too-high",))):
        noisy = tuple(loss + n for loss, n in zip(losses, noise, strict=True))
        assert changed(run, losses=noisy, samples=(), descents=descents, epochs=()).names == names


def test_a_penalty_in_the_loss() -> None:
    run = healthy()

    def penalised(data: float, penalty: float) -> Diagnosis:
        parts = (LossPart("cross_entropy(outputs, y)", data, False), LossPart("0.1 * sg.sum(W * W)", penalty, True))
        samples = tuple(replace(s, loss_parts=parts) for s in run.samples)
        return changed(run, samples=samples, losses=(data + penalty,) * len(run.losses), descents=(), epochs=())

    found = penalised(0.69, 5.0)["regulariser-dominates"]
    assert "88 % of the loss is the penalty 0.1 * sg.sum(W * W)" in found.says
    assert "0.0138" in found.remedy
    assert "regulariser-dominates" not in penalised(0.01, 0.1).names, "the network has learnt all the same"
    assert "regulariser-dominates" not in penalised(0.69, 0.1).names


def test_a_decoupled_weight_decay() -> None:
    script = CATALOGUE["regulariser-dominates"].example
    assert "sg.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)" in script
    for decay, there in ((30.0, True), (0.1, False)):
        adamw = f"sg.optim.AdamW(model.parameters(), lr=0.01, weight_decay={decay})"
        run = recorded(script.replace("sg.optim.SGD(model.parameters(), lr=0.1, weight_decay=1.0)", adamw))
        assert ("regulariser-dominates" in diagnose(run).names) is there


def test_a_learning_rate_of_zero_freezes() -> None:
    run = healthy()
    still = tuple(
        replace(s, update_norm=0.0, parameters=tuple(replace(p, update_norm=0.0) for p in s.parameters))
        for s in run.samples
    )
    diagnosis = changed(run, samples=still, settings=replace(run.settings, learning_rate=0.0))
    assert "frozen-parameters" in diagnosis.names


# --- the pages


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda e: e.name)
def test_pages_are_what_the_catalogue_says(entry: Any) -> None:
    text = (PAGES / f"{entry.name}.md").read_text(encoding="utf-8")
    shown = pages.shown_in(text)
    assert text == pages.page(entry, shown), "run python -m stepgrad.check.health.verdicts.pages docs/verdicts"
    # What the example prints was printed by it, but for digits, which differ between machines.
    wanted = str(diagnose(recorded(entry.example)))
    assert [w for w in re.findall(r"[a-z-]{4,}", shown) if w in CATALOGUE] == [
        w for w in re.findall(r"[a-z-]{4,}", wanted) if w in CATALOGUE
    ]


def test_the_index_lists_every_verdict() -> None:
    assert (PAGES / "README.md").read_text(encoding="utf-8") == pages.index()
    assert {p.stem for p in PAGES.glob("*.md")} == {"README", *CATALOGUE}
