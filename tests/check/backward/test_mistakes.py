"""The catalogue of mistakes, and the matcher: each mistake planted in a network is named first."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgrad.check.backward.calling import subject_of
from stepgrad.check.backward.clue import FACTS, Clue, Sighting
from stepgrad.check.backward.matching import Match, match
from stepgrad.check.backward.mentions import mentions
from stepgrad.check.backward.mistakes import CATALOGUE, FAMILIES, RANK, page
from stepgrad.check.backward.mistakes.mistake import Guess, no_guesses
from stepgrad.check.backward.mistakes.networks import (
    NETWORKS,
    Network,
    batch_norm,
    residual,
    square_layers,
    two_layers,
)
from stepgrad.check.backward.scene import Scene
from stepgrad.check.backward.truth import Truth, truth_of
from stepgrad.check.backward.watching import watched

BATCHES = (7, 11, 13)


class Planted:
    """A wrong backward pass, run up to the wrong line at several points; every earlier line is right."""

    def __init__(self, network: Network, right: str, wrong: str) -> None:
        self.network, self.right, self.wrong = network, _statements(right), _statements(wrong)
        self.body = ast.parse(network.source).body[-1].body  # type: ignore[attr-defined]
        text = [ast.unparse(s) for s in self.body]
        lines = [ast.unparse(s) for s in self.right]
        self.start = next((i for i in range(len(text)) if text[i : i + len(lines)] == lines), None)

    def clue(self, facts: frozenset[str] = frozenset()) -> Clue:
        if self.start is None:  # a line of the forward pass: only runs can be compared
            return Clue("dZ1", facts=facts)
        name = _assigned(self.right[-1])
        if name is None:  # what is returned: no line has a value of its own
            return Clue("dW2", facts=facts)
        rng = np.random.default_rng(1)
        seen = [self._sighting(name, self.network.inputs(rng, m), m) for m in BATCHES]
        error = next((e for _, e in seen if e), None)
        if any(s.others.get(k) is not None and _changed(s, k) for s, _ in seen for k in ("A1", "Z1")):
            facts |= {"cache-changed"}
        code = ast.unparse(self.wrong[-1]) if self.wrong else ""
        return Clue(name, tuple(s for s, _ in seen), 1, code, error=error, facts=facts)

    def _sighting(self, name: str, inputs: dict[str, Any], m: int) -> tuple[Sighting, str | None]:
        module = _module(self.network.source, self.network.name)
        earlier = self._before(module, self.network.inputs(np.random.default_rng(2), m))
        with contextlib.suppress(ValueError):
            _run(self.wrong, earlier)
        scope = self._before(module, inputs)
        before = {k: v for k, v in scope.items() if isinstance(v, np.ndarray)}
        right = _run(self.right, dict(scope))[name]
        copied = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in scope.items()}
        wrong, error = None, None
        try:
            after = _run(self.wrong, copied)
            wrong = after[name]
        except ValueError as raised:
            after, error = copied, str(raised)
        truth = _truth(module, inputs)
        target = next((e for e, n in truth.names.items() if "d" + n == name), None)
        others = {k: v for k, v in after.items() if isinstance(v, np.ndarray) and not k.startswith("d")}
        known = {k: v for k, v in before.items() if k.startswith("d")}
        previous = {k: v for k, v in earlier.items() if k in others}
        return Sighting(truth, np.asarray(right), wrong, target, known, others, previous, batch=m), error

    def _before(self, module: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
        """The variables before the line."""
        _, cache = module["forward"](**inputs)
        return _run(self.body[: self.start], {**module, "cache": cache})


def _changed(sighting: Sighting, name: str) -> bool:
    value = next(e.value for e, n in sighting.truth.names.items() if n == name)
    return not np.array_equal(sighting.others[name], value)


def _truth(module: dict[str, Any], inputs: dict[str, Any]) -> Truth:
    subject = subject_of(module["forward"], module["backward"], inputs)
    hooks = [w for w in map(watched, subject.forward_functions) if w]
    return truth_of(subject, subject.inputs, hooks, None)


def _module(source: str, name: str) -> dict[str, Any]:
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    module: dict[str, Any] = {"__name__": name}
    exec(compile(source, file, "exec"), module)
    return module


def _statements(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


def _assigned(statement: ast.stmt) -> str | None:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else None


def _run(statements: list[ast.stmt], scope: dict[str, Any]) -> dict[str, Any]:
    exec(compile(ast.Module(statements, []), "<lines>", "exec"), scope)
    return scope


def planted(network: Network, right: str, wrong: str, facts: frozenset[str] = frozenset()) -> list[Match]:
    return match(Planted(network, right, wrong).clue(facts), strict=True)


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_example_is_named_first(name: str) -> None:
    example = CATALOGUE[name].example
    found = planted(example.network, example.right, example.wrong, example.facts)
    assert found[0].mistake == name, [m.mistake for m in found]


# --- the catalogue

ISSUE = """
transposed weights-not-transposed bias-not-summed bias-wrong-axis bias-summed-to-scalar keepdims-lost
broadcast-not-undone elementwise-for-matmul preactivation-for-activation other-layers-cache stale-cache cache-mutated
weights-after-update other-layers-weights rounded-predictions activation-derivative-missing mask-inverted
mask-from-gradient activation-as-mask derivative-at-activation derivative-of-preactivation
derivative-kept-with-fused-loss derivative-dropped-without-fused-loss leaky-slope-lost softmax-diagonal-only sign
mean-missing mean-twice mean-on-weights-only wrong-divisor constant-factor half-of-the-loss clip-mismatch
overwritten-at-fan-out path-forgotten wrong-order not-reset-between-calls downstream-ignored regulariser-mismatch
dropout-mask-redrawn dropout-not-scaled batch-statistics-as-constants batch-leakage low-precision gradient-missing
gradient-extra wrong-dtype not-deterministic forward-disagrees-with-cache
""".split()


def test_the_catalogue_has_every_name_once_and_ranks_it() -> None:
    assert set(ISSUE) <= set(CATALOGUE)
    assert sum(len(family.mistakes) for family in FAMILIES) == len(CATALOGUE) == len(RANK)
    assert set(RANK) == set(CATALOGUE)


def test_every_mistake_can_be_found_in_some_way() -> None:
    for mistake in CATALOGUE.values():
        assert mistake.candidates is not no_guesses or mistake.facts, mistake.name
        assert bool(mistake.facts) == bool(mistake.sentence), mistake.name
        assert mistake.facts <= set(FACTS), mistake.name


def test_the_page_is_made_from_the_catalogue() -> None:
    text = (Path(__file__).parents[3] / "docs" / "mistakes.md").read_text(encoding="utf-8")
    assert text == page.page(), "run python -m stepgrad.check.backward.mistakes.page > docs/mistakes.md"


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_the_networks_have_right_gradients(network: Network) -> None:
    module = _module(network.source, network.name)
    inputs = network.inputs(np.random.default_rng(3), 7)
    _, cache = module["forward"](**inputs)
    truth = _truth(module, inputs)
    for name, gradient in module["backward"](cache).items():
        np.testing.assert_allclose(gradient, truth.gradient(name), rtol=1e-9, atol=1e-12)


# --- the matcher

DW2 = "dW2 = dZ2 @ A1.T"
DZ1 = "dZ1 = dA1 * (1 - A1**2)"


def first(network: Network, right: str, wrong: str) -> str:
    return planted(network, right, wrong)[0].mistake


def test_the_right_line_is_no_mistake_that_is_known() -> None:
    for network, line in ((two_layers, DW2), (two_layers, DZ1), (residual, "dH = dout @ V.T")):
        found = planted(network, line, line)
        assert [m.mistake for m in found] == ["unknown"]
        assert found[0].evidence["relative error"] == 0


def test_details_name_what_the_user_wrote() -> None:
    assert planted(two_layers, DW2, "dW2 = A1 @ dZ2.T")[0].detail == (
        "it is the transpose of the gradient: shape (3, 2), W2 has (2, 3)"
    )
    assert "Z1 is used where A1 belongs" in planted(two_layers, DW2, "dW2 = dZ2 @ Z1.T")[0].detail
    assert "7 times too large" in planted(two_layers, "dZ2 = (A2 - Y) / m", "dZ2 = A2 - Y")[0].detail
    assert "the path through" in planted(residual, "dX = dX + dS @ W.T", "dX = dX")[0].detail


def test_two_mistakes_in_one_line_are_both_named() -> None:
    found = planted(two_layers, DZ1, "dZ1 = 0.3 * dA1")
    assert {m.mistake for m in found} >= {"activation-derivative-missing", "constant-factor"}
    assert found[0].also is not None


def test_a_term_of_a_sum_with_a_wrong_factor() -> None:
    found = planted(residual, "dX = dX + dS @ W.T", "dX = dX - dS @ W.T")
    assert found[0].mistake == "sign"


def test_an_entry_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scene: Scene) -> Iterator[Guess]:
        raise AssertionError("not on this line")

    clue = Planted(two_layers, DW2, "dW2 = A1 @ dZ2.T").clue()
    monkeypatch.setitem(CATALOGUE, "sign", dataclasses.replace(CATALOGUE["sign"], candidates=fail))
    assert match(clue)[0].mistake == "transposed"
    with pytest.raises(AssertionError, match="not on this line"):
        match(clue, strict=True)


def test_plus_equals_overwrites_nothing() -> None:
    found = planted(residual, "dX = dX + dS @ W.T", "dX += 0 * dS @ W.T")
    assert "overwritten-at-fan-out" not in [m.mistake for m in found]
    assert first(residual, "dX = dX + dS @ W.T", "dX = dS @ W.T") == "overwritten-at-fan-out"


def test_what_nothing_explains_is_unknown_with_its_structure() -> None:
    (found,) = planted(two_layers, DW2, "dW2 = np.sinh(dZ2) @ np.cos(A1).T")
    assert found.mistake == "unknown"
    assert found.evidence["relative error"] > 0.01
    (found,) = planted(two_layers, DW2, "dW2 = dZ2 @ A1.T * np.array([[1.0], [7.7]])")
    assert "wrong / right is constant along axis 1" in found.detail or "it is right at 0 of axis 0" in found.detail


def test_a_line_that_raises_is_read_by_its_text() -> None:
    assert first(two_layers, "dA1 = W2.T @ dZ2", "dA1 = W2 @ dZ2") == "weights-not-transposed"
    assert first(two_layers, DW2, "dW2 = dZ2 * A1.T") == "elementwise-for-matmul"


def test_small_differences_are_told_apart() -> None:
    assert first(two_layers, DW2, "dW2 = (dZ2 @ A1.T).astype(np.float32).astype(float)") == "low-precision"
    assert first(two_layers, DW2, "dW2 = 1.000001 * dZ2 @ A1.T") == "constant-factor"
    assert first(two_layers, "dA1 = W2.T @ dZ2", "dA1 = (W2 - 1e-3 * dW2).T @ dZ2") == "weights-after-update"


def test_mistakes_in_sums_and_statistics() -> None:
    right = "dX = (dxhat - dxhat.mean(axis=0) - xhat * np.mean(dxhat * xhat, axis=0)) / np.sqrt(var + 1e-5)"
    assert first(batch_norm, right, right.replace(" - dxhat.mean(axis=0)", "")) in (
        "batch-statistics-as-constants",
        "path-forgotten",
    )
    assert (
        first(square_layers, "dW1 = X.T @ dZ1 + lam * W1", "dW1 = X.T @ dZ1 + 2 * lam * W1") == "regulariser-mismatch"
    )


def test_keys_made_in_loops_are_known() -> None:
    assert "W3" in mentions('dA = params["W" + str(l + 1)].T @ dZ', {"l": 2})
    assert "A1" in mentions('dW = dZ @ cache[f"A{l - 1}"].T', {"l": 2})
    assert mentions("for x in", {}) == frozenset()
