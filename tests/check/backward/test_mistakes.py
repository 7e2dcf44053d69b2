"""The catalogue of mistakes, and the matcher: each mistake planted in a network is named first."""

from __future__ import annotations

import ast
import contextlib
import linecache
from typing import Any

import numpy as np
import pytest

from stepgrad.check.backward.calling import subject_of
from stepgrad.check.backward.clue import Clue, Sighting
from stepgrad.check.backward.matching import Match, match
from stepgrad.check.backward.mistakes import CATALOGUE
from stepgrad.check.backward.mistakes.networks import Network
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
    return match(Planted(network, right, wrong).clue(facts))


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_example_is_named_first(name: str) -> None:
    example = CATALOGUE[name].example
    found = planted(example.network, example.right, example.wrong, example.facts)
    assert found[0].mistake == name, [m.mistake for m in found]
