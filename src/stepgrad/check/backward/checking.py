"""check_backward: is a hand-written backward pass right, and if not, which line is wrong, and how?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np

from stepgrad.check.backward import points
from stepgrad.check.backward.adapters import adapted, at_other_points, functions_of_class, nothing_to_check
from stepgrad.check.backward.agreement import gradient_error, wrong_gradients
from stepgrad.check.backward.calling import subject_of
from stepgrad.check.backward.diagnosing import by_repair, diagnose
from stepgrad.check.backward.facts import Fact, facts_of
from stepgrad.check.backward.interface import interface_remarks
from stepgrad.check.backward.judging import Blame, Judge
from stepgrad.check.backward.report import BackwardReport, Finding, GradientCheck
from stepgrad.check.backward.running import Run, Runner, Spot
from stepgrad.check.backward.spots import is_by_chance, spots_at
from stepgrad.check.backward.subject import Remark, Subject, short_name
from stepgrad.check.backward.watching import watched

REFERENCE = "finite differences"

SECONDS = 1.0
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
            gradient. Or something that has both passes (a layer, a torch.autograd.Function, a jax.custom_vjp
            function, a rule of sg.custom_rule); `backward` is then left out.
        backward: returns gradients as a dict, tuple or list. Its arguments are found by name among the
            inputs, what `forward` returned, and the entries of its cache.
        inputs: the arguments of `forward`: a dict by name, or a tuple or list in order; nested dicts and
            lists are allowed.
        seed: where the random numbers start.
        tolerance: the largest relative error of a right gradient.

    Returns:
        A `BackwardReport`: true if everything is right, and readable when printed.

    Raises:
        ArgumentError: something can't be called as it is given, or the loss is not finite there.

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
    spots = spots_at(subjects, hooks, rng)
    runner = Runner(tuple(f for f in first.functions if isinstance(f, FunctionType)))
    runs = [runner.run(spot) for spot in spots]
    remarks = remarks_of(spots[0], runs[0])
    if any(remark.mistake == "not-deterministic" and remark.gradient is None for remark in remarks):
        alone = tuple(_finding(first, remark) for remark in remarks)  # nothing can be compared with what changes
        return BackwardReport(False, alone, (), 1, REFERENCE, 0.0, notes=tuple(first.notes))
    same_shapes = [i for i, s in enumerate(spots) if _shapes(s) == _shapes(spots[0])]
    if spots[0].truth is None:
        tolerance = max(tolerance, 1e-5)
    notes = list(first.notes)
    failed = [i for i in same_shapes if wrong_gradients(runs[i], spots[i], tolerance)]
    if failed == [0] and len(same_shapes) > 1 and is_by_chance(runner, spots[0], runs[0], hooks, rng):
        notes.append(
            "at the given inputs themselves the gradients could not be compared: the loss has a kink there "
            "(relu at exactly 0, a tie), or float64 does not resolve it (log of a probability that is almost 0 or 1)"
        )
        same_shapes, failed = same_shapes[1:], []
    checks = _checks(spots, runs, same_shapes, tolerance)
    difference = max((spots[i].difference for i in same_shapes), default=0.0)
    facts = facts_of(runner, spots[same_shapes[0]], runs[same_shapes[0]], bool(failed))
    found: list[Finding] = []
    if failed:
        chosen = failed[-1:]
        chosen += [i for i in range(len(spots)) if i not in same_shapes and not _broken(runs[i], runs[chosen[0]])]
        chosen += [i for i in reversed(failed) if i not in chosen][: 3 - len(chosen)]
        shown = frozenset(fact.key for fact in facts if fact.key is not None)
        judge = Judge(runner, [spots[i] for i in chosen], tolerance, time.thread_time() + SECONDS, shown, spots[0])
        found = findings_of(judge, facts)
        if not found and not facts:
            found = [last_resort(runner, spots[failed[-1]], runs[failed[-1]], tolerance)]
    lines = {f.line for f in found}
    apart = [fact.finding(runner.sites.get(fact.key) if fact.key else None) for fact in facts]
    found = [*(f for f in apart if f.line not in lines and _comes_first(f, found)), *found]
    told = [_finding(first, remark) for remark in remarks]
    missing = {f.gradient for f in told}
    found = [f for f in found if f.mistake != "unknown" or f.gradient not in missing]
    found = [*found, *told] if not any(f.mistake == "gradient-missing" for f in told) else [*told, *found]
    return BackwardReport(not found, tuple(found), checks, len(same_shapes), REFERENCE, difference, notes=tuple(notes))


def _comes_first(fact: Finding, found: Sequence[Finding]) -> bool:
    """Whether a fact is worth telling beside the lines that were found."""
    return not found or fact.mistake in ("cache-mutated", "not-deterministic", "not-reset-between-calls")


def last_resort(runner: Runner, spot: Spot, run: Run, tolerance: float) -> Finding:
    """A finding where no line can be told: the error, or the last line that computed a gradient that is wrong."""
    if run.error is not None:
        at = [s for s in runner.sites.values() if s.span[0] <= (run.error_line or 0) <= s.span[2]]
        code = at[0].code if at else ""
        text = f"it raises {type(run.error).__name__}: {run.error}"
        return Finding(None, run.error_line, code, "unknown", ("unknown",), None, {}, text, spot.subject.file)
    wrong = sorted(wrong_gradients(run, spot, tolerance))
    name = spot.subject.gradient_names.get(wrong[0], f"d{short_name(wrong[0])}")
    gradient = spot.subject.as_array(run.gradients.get(wrong[0]))
    at_line = [
        s for s in run.seen if gradient is not None and s.value.shape == gradient.shape and (s.value == gradient).all()
    ]
    site = runner.sites[at_line[-1].key] if at_line else None
    right = spot.right[wrong[0]]
    text = "its value is wrong, and no line could be told apart from the others"
    if gradient is not None and gradient.shape != right.shape:
        text = f"its shape is {gradient.shape}, and that of {short_name(wrong[0])} is {right.shape}"
    line, code = (None, "") if site is None else (site.line, site.code)
    return Finding(name, line, code, "unknown", ("unknown",), None, {}, text, spot.subject.file)


def remarks_of(spot: Spot, run: Run) -> tuple[Remark, ...]:
    """What is wrong with how forward and backward fit together."""
    if run.error is not None:
        return spot.subject.remarks
    known = () if spot.truth is None else tuple(spot.truth.bases.values())
    return interface_remarks(spot.subject, spot.downstream, spot.right, known, watched=bool(spot.subject.functions))


def _finding(subject: Subject, remark: Remark) -> Finding:
    return Finding(
        remark.gradient, None, "", remark.mistake, (remark.mistake,), None, remark.evidence, remark.text, subject.file
    )


def findings_of(judge: Judge, facts: Sequence[Fact]) -> list[Finding]:
    """The wrong lines, each found with right values in place of the ones before."""
    blames: list[Blame] = []
    findings: list[Finding] = []
    for _ in range(_MOST_BLAMES):
        raises = judge.run(0).error is not None
        blame = None if raises else judge.next(repeated=False, seconds=0.3)
        if blame is None or not (blame.enough or blame.mends or not blame.seen[0]):
            repaired = by_repair(judge, facts, 0.35)
            if repaired is not None:
                findings.append(repaired.finding)
                break
            blame = judge.next(repeated=True, seconds=0.4)
        if blame is not None and any(b.key == blame.key and b.name == blame.name for b in blames):
            blame = None
        if blame is None:
            break
        blames.append(blame)
        diagnosis = diagnose(judge, blame, facts)
        findings.append(diagnosis.finding)
        for number, plan in enumerate(judge.plans):
            plan.update(blame.plan(number))
        judge.edits += diagnosis.edits
        if blame.enough or not (blame.seen[0] or diagnosis.edits):
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
        if any(runs[i].gradients.get(name) is None for i in numbers):
            continue
        error = max(gradient_error(spots[i], name, runs[i].gradients[name]) for i in numbers)
        called = spots[0].subject.gradient_names.get(name, f"d{short_name(name)}")
        checks.append(GradientCheck(called, name, right.shape, error, error <= tolerance))
    return tuple(checks)
