"""Schedules of checkpoints, against counts that were published, and against brute force."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from stepgrad.passes.checkpoints import Action, Block, Table, advances, binomial


@functools.cache
def fewest_advances(steps: int, slots: int) -> float:
    """By trying every first checkpoint: the definition, not the formula."""
    if steps == 1:
        return 0
    if not slots:
        return math.inf
    return min(k + fewest_advances(steps - k, slots - 1) + fewest_advances(k, slots) for k in range(1, steps))


def test_advances_are_those_of_griewank_and_walther() -> None:
    assert advances(100, 5) == 316
    assert advances(1000, 20) == 2747
    assert advances(10, 1) == 45
    assert advances(1000, 1000) == 999


def test_advances_are_as_few_as_brute_force_finds() -> None:
    for steps in range(1, 26):
        for slots in range(1, 12):
            assert advances(steps, slots) == fewest_advances(steps, slots)


def play(actions: Sequence[Action], steps: int) -> tuple[int, int]:
    """Follows a schedule of "go", "read" and "back", and checks that each step goes back once, the last first.

    Returns:
        The number of runs of a step, and the most states that are kept at once, the first one among them. A
        state that is only used by the action right after it was computed is not kept.
    """
    assert [i for how, i in actions if how == "back"] == list(range(steps - 1, -1, -1))
    made, used = {0: -1}, {0: -1}
    spans = []
    for time, (how, i) in enumerate(actions):
        if how == "back":
            assert actions[time - 1] == ("read", i)
            continue
        assert i in made, "a state is used that was never computed"
        used[i] = time
        if how == "go":
            spans.append((made.get(i + 1, 0), used.get(i + 1, 0)))
            made[i + 1] = used[i + 1] = time
    spans += [(made[i], used[i]) for i in made]
    kept = [(first, last) for first, last in spans if last > first + 1]
    return sum(how == "go" for how, _ in actions), max(
        (sum(first < time <= last for first, last in kept) for time in range(len(actions))), default=0
    )


@pytest.mark.parametrize(("steps", "slots"), [(1, 1), (2, 1), (7, 2), (10, 3), (40, 4), (100, 5), (100, 100), (30, 29)])
def test_the_binomial_schedule_reaches_the_count_within_its_slots(steps: int, slots: int) -> None:
    runs, most = play(binomial(steps, slots), steps)
    assert runs == advances(steps, slots)
    assert most <= slots


def test_the_schedule_of_a_thousand_steps() -> None:
    actions = binomial(1000, 20)
    assert sum(how == "go" for how, _ in actions) == 2747
    assert [i for how, i in actions if how == "back"] == list(range(999, -1, -1))


@pytest.mark.parametrize("equal", [True, False])
def test_tables_find_the_binomial_schedule_for_equal_steps(equal: bool) -> None:
    table = Table([Block(1.0, 0.0, 64, 0)] * 30, 64, 31, equal)
    assert list(table.costs()[:30]) == [advances(30, slots) for slots in range(1, 31)]
    for memory in (0, 1, 4, 29):
        assert sum(how in ("go", "keep") for how, _ in table.actions(memory)) == advances(30, memory + 1)


def cheapest(blocks: tuple[Block, ...], first: int, last: int, memory: int) -> float:
    """The recursion of `Table`, without tables."""
    if first == last:
        return blocks[first].again if memory >= blocks[first].values else math.inf
    if memory < 0:
        return math.inf
    left = memory - blocks[first].state - blocks[first].values
    found = blocks[first].forward + cheapest(blocks, first + 1, last, left) if left >= 0 else math.inf
    run = 0.0
    for k in range(first + 1, last + 1):
        run += blocks[k - 1].forward
        rest = memory - (blocks[k - 1].state if k < last else 0)
        if rest >= 0:
            found = min(found, run + cheapest(blocks, k, last, rest) + cheapest(blocks, first, k - 1, memory))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_tables_of_steps_that_differ_are_as_cheap_as_brute_force_finds(seed: int) -> None:
    rng = random.Random(seed)
    blocks = tuple(
        Block(float(rng.randint(1, 9)), float(rng.randint(0, 9)), rng.randint(1, 4), rng.randint(0, 4))
        for _ in range(6)
    )
    table = Table(blocks, 1, 24, equal=False)
    costs = table.costs()
    for memory in range(24):
        assert costs[memory] == cheapest(blocks, 0, 5, memory)
        if np.isfinite(costs[memory]):
            assert cost_of(blocks, table.actions(memory)) == costs[memory]
    assert all(later <= earlier for earlier, later in itertools.pairwise(costs))


def cost_of(blocks: Sequence[Block], actions: Sequence[Action]) -> float:
    costs = {"go": [b.forward for b in blocks], "keep": [b.forward for b in blocks], "read": [b.again for b in blocks]}
    return sum(costs[how][i] for how, i in actions if how != "back")
