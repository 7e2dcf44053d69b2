"""A slice of benchmarks/health: what it plants, how it checks, how it splits, and the rules of other tools."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.health import halves, tables
from benchmarks.health.checks import harmed, reaches
from benchmarks.health.faulty import FAULTS
from benchmarks.health.judging import OURS, Result, Said, all_trainings, judge
from benchmarks.health.references import TOOLS, sagemaker
from benchmarks.health.trainings import HEALTHY, run

from stepgrad.check.health.verdicts import CATALOGUE

TRAININGS = {training.name: training for training in all_trainings()}


def test_names_are_those_of_verdicts_and_none_stands_twice() -> None:
    assert len(TRAININGS) == len(all_trainings())
    assert set(FAULTS) == set(CATALOGUE) - {"wrong-gradient"}
    assert {t.fault for t in TRAININGS.values()} == {*FAULTS, HEALTHY}
    for training in TRAININGS.values():
        assert set(training.also) <= set(FAULTS)
    for tool in TOOLS:
        for rule in tool.rules:
            assert rule.names <= set(FAULTS), (tool.name, rule.name)
            assert rule.alarms.__doc__


def test_enough_trainings_are_healthy() -> None:
    healthy = sum(t.fault == HEALTHY for t in TRAININGS.values())
    assert len(TRAININGS) >= 120
    assert 0.4 < healthy / len(TRAININGS) < 0.6


def test_every_fault_is_in_both_halves_and_seeds_stay_together() -> None:
    assert halves.balanced(TRAININGS.values(), halves.SALT)
    assert halves.half("vanishing-gradients | sigmoid 7 × 32 | digits") == halves.TUNING  # once and for all
    for training in TRAININGS.values():
        assert replace(training, seed=1 - training.seed).cell == training.cell


@pytest.mark.parametrize(
    "name",
    [
        "healthy | no hidden layer | wine | 0",
        "always-clipped | relu 32-16, clipped to 0.01 | wine | 0",
        "unused-parameters | relu 32-16 and a spare layer | wine | 0",
        "learning-rate-too-low | relu 32-16, SGD | wine | 0",
    ],
)
def test_trainings_are_what_they_are_meant_to_be(name: str) -> None:
    result = judge(TRAININGS[name])
    assert result.sound, result.found
    assert set(result.said) == {OURS, *(tool.name for tool in TOOLS)}
    assert result.named(OURS) or result.healthy


def test_checks_tell_healthy_from_harmed() -> None:
    outcome = run(TRAININGS["healthy | no hidden layer | wine | 0"], health=False)
    assert reaches()(outcome).ok
    assert not harmed()(outcome).ok
    worse = replace(outcome, score=outcome.data.reference - 0.2)
    assert not reaches()(worse).ok
    assert harmed()(worse).ok
    rising = replace(outcome, held_losses=(1.0, 0.1, 0.2))
    assert not reaches()(rising).ok


def test_a_training_is_the_same_with_and_without_health() -> None:
    training = TRAININGS["healthy | no hidden layer | wine | 0"]
    assert run(training).step_losses == run(training, health=False).step_losses


def test_rules_of_other_tools_alarm_where_they_should() -> None:
    course = run(TRAININGS["healthy | no hidden layer | wine | 0"], health=False).course
    assert not sagemaker.vanishing_gradient(course)
    assert not sagemaker.exploding_tensor(course)
    last = course.snapshots[-1]
    tiny = replace(last, gradients={name: g * 1e-12 for name, g in last.gradients.items()})
    assert sagemaker.vanishing_gradient(replace(course, snapshots=(tiny,)))
    broken = replace(last, after={name: np.full_like(p, np.inf) for name, p in last.after.items()})
    assert sagemaker.exploding_tensor(replace(course, snapshots=(broken,)))


def test_tables_count_as_told() -> None:
    def result(fault: str, half: str, alarms: tuple[str, ...]) -> Result:
        said = {OURS: Said(alarms, alarms, frozenset(alarms))} | {
            tool.name: Said((), (), frozenset()) for tool in TOOLS
        }
        right = frozenset() if fault == HEALTHY else frozenset({fault})
        return Result(fault + half, fault + half, fault, half, right, True, "", said, 0.0)

    results = [
        result("dead-units", halves.REPORTING, ("dead-units",)),
        result("dead-units", halves.REPORTING, ("overfitting",)),
        result("dead-units", halves.TUNING, ()),
        result(HEALTHY, halves.REPORTING, ("overfitting",)),
        result(HEALTHY, halves.REPORTING, ()),
    ]
    row = tables.summary(results).splitlines()[2]
    assert row == "| reporting | sg.health | 100 % (2 of 2) | 50 % (1 of 2) | 50 % | 50 % (1 of 2) |"
    assert "dead-unitsreporting: overfitting" in tables.failures(results, halves.REPORTING)
