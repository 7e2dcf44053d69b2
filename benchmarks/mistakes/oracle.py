"""Whether a mutant is wrong at all: its gradients against those of the correct network, at several random points."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.mistakes.network import Calls, Network, fresh, imported
from benchmarks.mistakes.planting.mutant import Mutant, forward_lines

SEEDS = (11, 12, 13)
SAME = 1e-9


@dataclass(frozen=True)
class Observation:
    """What a network's backward pass gave, at each random point, in the order of the calls.

    At each point: forward and backward, backward once more with the same cache, and both once more with
    other inputs, all on one module, so that what it keeps between calls shows.
    """

    losses: tuple[Any, ...]
    gradients: tuple[dict[str, np.ndarray], ...]
    raised: str = ""
    line: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What a mutant is.

    Attributes:
        kind: "wrong" gradients; "raises" in the backward; "equivalent" to the correct network; or "forward",
            if the loss itself changed, so that the mutant is none of the backward.
        line: where it raised.
        seen_at: for mistakes in what is cached: the first lines of the backward that see it.
    """

    kind: str
    line: int | None = None
    raised: str = ""
    seen_at: frozenset[int] = frozenset()


def observed(network: Network, source: str) -> Observation:
    """Runs a network's source text."""
    losses: list[Any] = []
    gradients: list[dict[str, np.ndarray]] = []
    with imported(source) as module, quiet():
        calls = Calls(network, module)
        try:
            for seed in SEEDS:
                rng = np.random.default_rng(seed)
                for again in (True, False):
                    inputs = network.inputs(rng)
                    out, rest = calls.forward(fresh(inputs))
                    losses.append(np.array(out))
                    downstream = None if np.ndim(out) == 0 else np.random.default_rng(1).normal(size=np.shape(out))
                    given = fresh(inputs)
                    gradients.append(calls.backward(given, rest, _copied(downstream)))
                    if again:
                        gradients.append(calls.backward(given, rest, _copied(downstream)))
        except Exception as error:  # whatever the user's code raises
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == module.__file__]
            text = f"{type(error).__name__}: {error}"
            return Observation(tuple(losses), tuple(gradients), text, lines[-1] if lines else None)
    return Observation(tuple(losses), tuple(gradients))


def _copied(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.copy()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and output, and with the global random numbers as they were."""
    state = np.random.get_state()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.random.set_state(state)


def same(first: Observation, second: Observation) -> bool:
    """Whether two networks give the same gradients: names, shapes, dtypes and values."""
    if len(first.gradients) != len(second.gradients) or bool(first.raised) != bool(second.raised):
        return False
    return all(_same(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))


def _same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    if set(first) != set(second):
        return False
    for name, a in first.items():
        b = second[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if not np.allclose(a, b, rtol=0, atol=SAME * max(np.abs(a).max(initial=0), 1e-30), equal_nan=True):
            return False
    return True


def verdict(mutant: Mutant, correct: Observation, found: Observation | None = None) -> Verdict:
    """Judges a mutant by the correct network's gradients."""
    found = observed(mutant.network, mutant.source) if found is None else found
    # A backward that changes arrays in place may change what a later forward of the same object computes.
    other_loss = any(not np.allclose(a, b) for a, b in zip(correct.losses, found.losses, strict=False))
    if mutant.in_forward and other_loss:
        return Verdict("forward")
    if found.raised:
        return Verdict("raises", found.line, found.raised)
    if same(correct, found):
        return Verdict("equivalent")
    return Verdict("wrong", seen_at=first_seen(mutant) if mutant.in_forward else frozenset())


# --- where the backward first sees what the forward did


def first_seen(mutant: Mutant) -> frozenset[int]:
    """The lines of the backward that first see another value than in the correct network.

    They are those that only take it out of the cache, and the first that computes with it.
    """
    network = mutant.network
    shift = mutant.source.count("\n") - network.source.count("\n")
    right, wrong = _history(network, network.source), _history(network, mutant.source)
    forward = forward_lines(network, mutant.source)
    rows = mutant.source.splitlines()
    found: set[int] = set()
    for (line, before), (other, after) in zip(right, wrong, strict=False):
        if other in forward or other != line + shift:
            continue
        if before != after:
            found.add(other)
            if any(sign in rows[other - 1].partition("=")[2] for sign in ("@", "*", "-", "+", "/", ".dot(", "np.")):
                break
    return frozenset(found)


def _history(network: Network, source: str) -> list[tuple[int, str]]:
    """The lines that a backward ran, each with what its assignment changed, as text."""
    history: list[tuple[int, str]] = []
    with imported(source) as module, quiet():
        calls = Calls(network, module)
        inputs = network.inputs(np.random.default_rng(SEEDS[0]))
        calls.forward(fresh(inputs))
        inputs = network.inputs(np.random.default_rng(SEEDS[1]))
        out, rest = calls.forward(fresh(inputs))
        downstream = None if np.ndim(out) == 0 else np.random.default_rng(1).normal(size=np.shape(out))
        with contextlib.suppress(Exception), _tracing(_recorder(history, str(module.__file__))):
            calls.backward(inputs, rest, downstream)
    return history


def _recorder(history: list[tuple[int, str]], file: str) -> Callable[..., Any]:
    states: dict[FrameType, tuple[int, dict[str, str]]] = {}

    def note(frame: FrameType) -> None:
        line, before = states[frame]
        now = {name: _as_text(value) for name, value in frame.f_locals.items()}
        changed = {name: text for name, text in now.items() if before.get(name) != text}
        if changed:
            history.append((line, str(changed)))

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != file:
            return None
        if event in ("line", "return") and frame in states:
            note(frame)
        if event == "return":
            states.pop(frame, None)
            history.append((frame.f_lineno, _as_text(argument)))
        else:
            states[frame] = (frame.f_lineno, {name: _as_text(value) for name, value in frame.f_locals.items()})
        return trace

    return trace


def _as_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {np.asarray(value, dtype=float).ravel().tolist()}" if value.dtype != object else "?"
    if isinstance(value, dict):
        return str({key: _as_text(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return str([_as_text(item) for item in value])
    return repr(value) if isinstance(value, (int, float, str, np.generic)) else type(value).__name__


@contextlib.contextmanager
def _tracing(trace: Callable[..., Any]) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
