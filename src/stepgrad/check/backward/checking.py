"""check_backward: is a hand-written backward pass right, and if not, which line is wrong, and how?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from stepgrad.check.backward import points
from stepgrad.check.backward.adapters import adapted, at_other_points, functions_of_class, nothing_to_check
from stepgrad.check.backward.calling import subject_of
from stepgrad.check.backward.diagnosing import diagnose
from stepgrad.check.backward.interface import interface_remarks
from stepgrad.check.backward.judging import Blame, Judge, gradient_error, wrong_gradients
from stepgrad.check.backward.report import BackwardReport, Finding, GradientCheck
from stepgrad.check.backward.running import Run, Runner, Spot
from stepgrad.check.backward.subject import Remark, Subject, short_name
from stepgrad.check.backward.truth import Truth, truth_of
from stepgrad.check.backward.watching import Watched, watched
from stepgrad.tensor import Array
from stepgrad.tree import flatten

SECONDS = 0.8
"""How long to look for the line, once a gradient is known to be wrong."""


def check_backward(
    forward: Any, backward: Any = None, inputs: Any = None, *, seed: int = 0, tolerance: float = 1e-6
) -> BackwardReport:
    """Checks a hand-written backward pass, and names the line that is wrong and the mistake.

    The forward pass is recorded through NumPy's protocols, so the right gradient of each of its values is
    known. The backward pass runs as it is, with its assignments watched: each line is judged given the
    values that the lines before it computed, so only the first wrong line is blamed. This is done at
    several random points: at the given inputs, at other numbers of the same kind, and at other sizes.

    Args:
        forward: a NumPy function that returns the loss, usually with a cache: `return loss, cache`. It
            knows nothing of stepgrad. If it returns no number, its first array gets a random downstream
            gradient.
        backward: returns gradients as a dict, tuple or list. Its arguments are found by name among the
            inputs, what `forward` returned, and the entries of its cache.
        inputs: the arguments of `forward`: a dict by name, or a tuple or list in order; nested dicts and
            lists are allowed.
        seed: where the random numbers start.
        tolerance: the largest relative error of a right gradient.

    Returns:
        A `BackwardReport`: true if everything is right, and readable when printed.

    Raises:
        ArgumentError: something can't be called as it is given.

    Example:
        >>> def forward(x, w):
        ...     z = x @ w
        ...     return np.sum(z * z), z
        >>> def backward(x, z):
        ...     dz = 2 * z
        ...     return {"dw": x.T @ dz}
        >>> rng = np.random.default_rng(0)
        >>> sg.check_backward(forward, backward, {"x": rng.normal(size=(3, 2)), "w": rng.normal(size=2)}).ok
        True
    """
    rng = np.random.default_rng(seed)
    subjects = _subjects(forward, backward, inputs, rng)
    return check_subjects(subjects, tolerance, rng)


def _subjects(forward: Any, backward: Any, inputs: Any, rng: np.random.Generator) -> list[Subject]:
    """The subject at the given inputs, at others of the same shapes and, if that works, of other shapes."""
    thing, given = (
        (forward, backward if inputs is None else inputs) if backward is None or inputs is None else (None, None)
    )
    if thing is not None:
        adapted_subject = adapted(thing, given)
        if adapted_subject is not None:
            return at_other_points(adapted_subject, rng)
        pair = functions_of_class(thing)
        if pair is None:
            raise nothing_to_check(thing)
        (forward, backward), inputs = pair, given
    first = subject_of(forward, backward, inputs)
    moved = [points.moved(inputs, rng), points.moved(inputs, rng)]
    sizes = points.free_sizes(inputs, rng)
    others = [points.moved(inputs, rng, sizes)] if sizes else []
    return [first, *(subject_of(forward, backward, given) for given in [*moved, *others])]


def check_subjects(subjects: Sequence[Subject], tolerance: float, rng: np.random.Generator) -> BackwardReport:
    """Checks one backward at several points: the user's own first, then others of the same shapes, then of others."""
    first = subjects[0]
    plain = [watched(f) for f in first.forward_functions if isinstance(f, FunctionType)]
    hooks = [w for w in plain if w is not None]
    spots: list[Spot] = []
    for number, subject in enumerate(subjects):
        try:
            spots.append(spot_at(subject, subject.inputs, hooks, rng))
        except Exception as error:
            if number == 0:
                raise
            del error  # other sizes or numbers do not fit this forward
    runner = Runner(tuple(f for f in first.functions if isinstance(f, FunctionType)))
    runs = [runner.run(spot) for spot in spots]
    remarks = remarks_of(spots[0], runs[0])
    same_shapes = [i for i, s in enumerate(spots) if _shapes(s) == _shapes(spots[0])]
    failed = [i for i in same_shapes if wrong_gradients(runs[i], spots[i], tolerance)]
    checks = _checks(spots, runs, same_shapes, tolerance)
    reference = "finite differences"
    found = [_finding(first, remark) for remark in remarks]
    if not failed:
        return BackwardReport(not found, tuple(found), checks, len(same_shapes), reference, 0.0, notes=first.notes)
    chosen = [i for i in same_shapes if i in failed][-1:]
    chosen += [i for i in range(len(spots)) if i not in same_shapes and not _broken(runs[i], runs[chosen[0]])]
    chosen += [i for i in reversed(failed) if i not in chosen][: 3 - len(chosen)]
    judge = Judge(runner, [spots[i] for i in chosen], tolerance, time.perf_counter() + SECONDS)
    findings = (*found, *findings_of(judge))
    return BackwardReport(False, findings, checks, len(same_shapes), reference, 0.0, notes=first.notes)


def remarks_of(spot: Spot, run: Run) -> tuple[Remark, ...]:
    """What is wrong with how forward and backward fit together."""
    if run.error is not None:
        return spot.subject.remarks
    known = () if spot.truth is None else tuple(spot.truth.bases.values())
    return interface_remarks(spot.subject, spot.downstream, spot.right, known)


def _finding(subject: Subject, remark: Remark) -> Finding:
    return Finding(
        remark.gradient, None, "", remark.mistake, (remark.mistake,), None, remark.evidence, remark.text, subject.file
    )


def findings_of(judge: Judge) -> list[Finding]:
    """The wrong lines, each found with right values in place of the ones before."""
    blames: list[Blame] = []
    findings: list[Finding] = []
    for _ in range(_MOST_BLAMES):
        blame = judge.next()
        if blame is None or any(b.key == blame.key and b.name == blame.name for b in blames):
            break
        blames.append(blame)
        findings.append(diagnose(judge, blame))
        for plan, seen, right in zip(judge.plans, blame.seen, blame.right, strict=True):
            plan.update({(blame.key, s.count): v for s, v in zip(seen, right, strict=True)})
        if blame.enough:
            break
    return findings


_MOST_BLAMES = 5


def _broken(run: Run, like: Run) -> bool:
    return run.error is not None and like.error is None


def _shapes(spot: Spot) -> list[tuple[int, ...]]:
    return [v.shape for v in spot.inputs.values()]


def _checks(
    spots: Sequence[Spot], runs: Sequence[Run], numbers: Sequence[int], tolerance: float
) -> tuple[GradientCheck, ...]:
    checks = []
    for name, right in spots[0].right.items():
        if not all(name in runs[i].gradients for i in numbers):
            continue
        error = max(gradient_error(spots[i], name, runs[i].gradients[name]) for i in numbers)
        called = spots[0].subject.gradient_names.get(name, f"d{short_name(name)}")
        checks.append(GradientCheck(called, name, right.shape, error, error <= tolerance))
    return tuple(checks)


# --- the truth at a point


def spot_at(subject: Subject, inputs: Mapping[str, Array], hooks: Sequence[Watched], rng: np.random.Generator) -> Spot:
    """Runs and records the forward pass at a point.

    Raises:
        Exception: what the user's forward raises on arrays.
    """
    outputs, context = subject.forward(inputs)
    downstream = _downstream(outputs, rng)
    truth: Truth | None = None
    if subject.recordable:
        try:
            truth = truth_of(subject, inputs, hooks, None if downstream is None else flatten(downstream)[0])
        except Exception:
            truth = None
    if truth is None:
        right = slopes(subject, inputs, downstream)
    else:
        right = {name: truth.gradient(name) for name in inputs}
    return Spot(subject, inputs, context, truth, right, downstream)


def _downstream(outputs: Any, rng: np.random.Generator) -> Any:
    """None for a loss; otherwise random numbers in the structure of the outputs."""
    leaves, _, rebuild = flatten(outputs)
    if len(leaves) == 1 and np.size(leaves[0]) == 1:
        return None
    return rebuild([rng.standard_normal(np.shape(leaf)) for leaf in leaves])


def slopes(subject: Subject, inputs: Mapping[str, Array], downstream: Any) -> dict[str, Array]:
    """Gradients by central differences, element by element."""
    weights = [1.0] if downstream is None else flatten(downstream)[0]

    def loss(values: Mapping[str, Array]) -> float:
        outputs, _ = subject.forward(values)
        parts = flatten(outputs)[0]
        return float(sum(np.sum(np.asarray(p, np.float64) * w) for p, w in zip(parts, weights, strict=True)))

    found = {}
    for name, value in inputs.items():
        gradient = np.zeros(value.shape)
        for i in np.ndindex(value.shape):
            step = 1e-6 * max(1.0, abs(float(value[i])))
            up, down = value.copy(), value.copy()
            up[i] += step
            down[i] -= step
            gradient[i] = (loss({**inputs, name: up}) - loss({**inputs, name: down})) / (2 * step)
        found[name] = gradient
    return found
