"""The benchmark of planted mistakes: its networks are right, its mutants are wrong, and a small part of its score."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[3]))  # the benchmarks are no part of the installed package

from benchmarks.mistakes.generator import random_network
from benchmarks.mistakes.network import Calls, Network, entries, fresh, hand_written, imported, input_of
from benchmarks.mistakes.oracle import observed, quiet, verdict
from benchmarks.mistakes.planting import mutants
from benchmarks.mistakes.results import Results, markdown
from benchmarks.mistakes.score import Case, ask, cases, pairs, score

from stepgrad.check.backward.mistakes import CATALOGUE

NETWORKS = {network.name: network for network in hand_written()}
NAMES = set(CATALOGUE)


def agrees_with_differences(network: Network) -> None:
    """Compares each gradient, along a random direction, with a central difference of the loss."""
    rng = np.random.default_rng(3)
    with imported(network.source) as module, quiet():
        calls = Calls(network, module)
        inputs = network.inputs(rng)
        out, rest = calls.forward(fresh(inputs))
        downstream = None if np.ndim(out) == 0 else rng.normal(size=np.shape(out))

        def loss(changed):
            value = calls.forward(fresh(changed))[0]
            return float(value if downstream is None else np.sum(value * downstream))

        gradients = calls.backward(fresh(inputs), rest, downstream)
        known = network.declared["GRADIENTS"]
        checked = 0
        for name, gradient in gradients.items():
            if not isinstance(known, tuple) and name not in known:
                continue  # the gradient of something in between, returned as well
            path = input_of(network, name)
            if path.startswith("self."):
                array = getattr(calls.layer, path[5:])
            else:
                inputs |= {key: np.array(value) for key, value in inputs.items() if isinstance(value, float)}
                array = entries(inputs)[path]
            assert gradient.shape == array.shape, f"{network.name}: {name}"
            direction, start = rng.normal(size=array.shape), array.copy()
            sides = []
            for step in (1e-6, -1e-6):
                array[...] = start + step * direction
                sides.append(loss(inputs))
            array[...] = start
            slope, expected = (sides[0] - sides[1]) / 2e-6, float(np.sum(gradient * direction))
            size = abs(slope) + float(np.sum(np.abs(gradient * direction)))
            assert slope == pytest.approx(expected, abs=1e-6 * size + 1e-9), f"{network.name}: {name}"
            checked += 1
    assert checked == len(known), network.name


@pytest.mark.parametrize("name", NETWORKS)
def test_hand_written_networks_are_right(name):
    agrees_with_differences(NETWORKS[name])


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_random_networks_are_right(start):
    for seed in range(start, start + 10):
        agrees_with_differences(random_network(seed))


def test_random_networks_differ_and_repeat():
    texts = {random_network(seed).code for seed in range(20)}
    assert len(texts) == 20
    assert random_network(7).source == random_network(7).source


def test_every_mistake_of_the_catalogue_is_planted_somewhere():
    planted = set()
    for network in NETWORKS.values():
        for mutant in mutants(network):
            ast.parse(mutant.source)
            assert mutant.lines, mutant.change
            planted |= set(mutant.mistakes)
    assert planted == NAMES


def find(name: str, change: str) -> Case:
    """The mutant of a network in which a line became this one."""
    network = NETWORKS[name]
    correct = observed(network, network.source)
    (mutant,) = [m for m in mutants(network) if m.change.endswith("→  " + change)]
    return Case(mutant, verdict(mutant, correct), observed(network, mutant.source))


def test_a_mutant_knows_its_line():
    mutant = find("lesson", "dW2 = A1 @ dZ2.T").mutant
    (line,) = mutant.lines
    assert mutant.source.splitlines()[line - 1] == "    dW2 = A1 @ dZ2.T"
    assert mutant.mistake == "transposed"


def test_a_deleted_statement_is_seen_at_its_neighbours():
    network = NETWORKS["rnn"]
    (mutant,) = [m for m in mutants(network) if m.change == "dhnext = np.dot(Whh.T, dhraw)  →  (deleted)"]
    rows = mutant.source.splitlines()
    assert [rows[line - 1].strip() for line in sorted(mutant.lines)] == [
        "dhnext = np.zeros_like(hs[0])",
        "dh = np.dot(Why.T, dy) + dhnext",
    ]


def test_mutants_that_change_no_gradient_are_recognised():
    # one output unit: the product with its single row of weights is elementwise
    assert find("coursera", "dZ1 = np.multiply(W2.T * dZ2, 1 - np.power(A1, 2))").verdict.kind == "equivalent"
    # the sum of the deviations from a mean is 0
    assert find("batchnorm_steps", "dmu = -1 * np.sum(dxmu1, axis=0)").verdict.kind == "equivalent"


def test_mutants_that_raise_say_where():
    case = find("lesson", "dA1 = W2 @ dZ2")
    assert case.verdict.kind == "raises"
    assert case.verdict.line in case.mutant.lines


def test_what_only_a_second_call_shows_is_wrong():
    assert find("stanford", "dscores = probs").verdict.kind == "wrong"  # the cache is written over


def test_mistakes_that_do_the_same_share_their_names():
    names = {case.mutant.change: case.mutant.mistakes for case in cases(NETWORKS["residual"], "half-of-the-loss")}
    (halved,) = names.values()
    assert halved == ("half-of-the-loss",)  # alone, nothing else does the same
    names = {case.mutant.change: case.mutant.mistakes for case in cases(NETWORKS["residual"])}
    assert set(names["dh2 = 2 * (h2 - y) / y.size  →  dh2 = (h2 - y) / y.size"]) == {
        "half-of-the-loss",
        "constant-factor",  # the rule that multiplies lines with a number halves this one
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_found_in_correct_networks(name):
    answer = ask(NETWORKS[name], NETWORKS[name].source)
    assert answer.error == ""
    assert answer.ok, answer.text


@pytest.mark.parametrize("start", range(0, 30, 10))
def test_nothing_is_found_in_random_correct_networks(start):
    for seed in range(start, start + 10):
        network = random_network(seed)
        answer = ask(network, network.source)
        assert answer.ok, f"seed {seed}: {answer.error or answer.text}"


SURE = (
    ("lesson", "dW2 = A1 @ dZ2.T", "transposed"),
    ("lesson", "db2 = dZ2.sum(axis=0, keepdims=True)", "bias-wrong-axis"),
    ("lesson", "dZ2 = (A2 - Y)", "mean-missing"),
    ("lesson", "dW2 = dZ2 @ Z1.T", "preactivation-for-activation"),
    ("lesson", "dZ1 = dA1", "activation-derivative-missing"),
    ("lesson", "dZ1 = dA1 * (dA1 > 0)", "mask-from-gradient"),
    ("lesson", "dZ2 = (A2 - Y) * A2 * (1 - A2) / m", "derivative-kept-with-fused-loss"),
    ("softmax_regression", "d_logits = -((P - T) / n)", "sign"),
    ("lesson", "dZ1 = dA1 * (Z1 <= 0)", "mask-inverted"),
)


@pytest.mark.parametrize(("name", "change", "mistake"), SURE)
def test_plain_mistakes_are_found_at_their_line_by_their_name(name, change, mistake):
    row = score(find(name, change))
    assert row.error == ""
    assert row.mistake == mistake
    assert (row.detected, row.line, row.first) == (True, True, True), row.text


def test_results_are_told_as_tables():
    found = [find("lesson", change) for name, change, _ in SURE if name == "lesson"]
    rows = [score(case) for case in found]
    page = markdown(Results("On a test machine.", rows, 3, pairs(found, 2), 10, [], [0.1]))
    assert f"{len(rows)} mutants; 3 more change no gradient" in page
    assert "| transposed | 1 | 100.0 % | 100.0 % | 100.0 % | 100.0 % |  |" in page
    assert "Two mistakes at once, 2 pairs" in page
