"""The diagnosis of a recorded run: the three questions answered apart, and verdicts, causes before consequences."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stepgrad.check.health.record import Run
from stepgrad.check.health.verdicts import CATALOGUE, Entry, Evidence, Finding, Question, Severity
from stepgrad.check.health.verdicts.entry import number, percent
from stepgrad.check.health.verdicts.flow import stretch
from stepgrad.check.health.verdicts.reading import descents, finite, middle
from stepgrad.files import write
from stepgrad.tape.layout import plural


@dataclass(frozen=True, repr=False)
class Verdict:
    """Something that is wrong with a run: an entry of the catalogue, with what was found.

    Attributes:
        entry: what the catalogue says of it.
        finding: what was found in this run.
        consequences: verdicts that this one explains.
    """

    entry: Entry
    finding: Finding
    consequences: tuple[Verdict, ...] = ()

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def question(self) -> Question:
        return self.entry.question

    @property
    def severity(self) -> Severity:
        return self.entry.severity

    @property
    def says(self) -> str:
        """One sentence, with numbers."""
        return self.finding.says

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The quantities that decided, with their thresholds, and some that help to understand."""
        return self.finding.evidence

    @property
    def remedy(self) -> str:
        """What to change, and to which value."""
        return self.finding.remedy

    @property
    def layer(self) -> str | None:
        """The layer or parameter where it begins."""
        return self.finding.layer

    @property
    def steps(self) -> tuple[int, int | None]:
        """The first and last recorded step at which it was seen."""
        return self.finding.since, self.finding.until

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Verdict]]:
        """This verdict and everything it explains, with how deep it stands."""
        yield depth, self
        for consequence in self.consequences:
            yield from consequence.walk(depth + 1)

    def __repr__(self) -> str:
        return f"{self.name}: {self.says}"


@dataclass(frozen=True)
class Answer:
    """One of the questions, answered.

    Attributes:
        question: which.
        ok: True, False, or None where it was not measured.
        says: why, with numbers.
    """

    question: Question
    ok: bool | None
    says: str

    @property
    def word(self) -> str:
        return {True: "yes", False: "no", None: "not known"}[self.ok]


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `sg.health` says of a run. True if there is no verdict.

    Attributes:
        run: the recorded run.
        verdicts: first causes, in the order of the catalogue; what they explain stands under each.
        answers: to the questions.
    """

    run: Run
    verdicts: tuple[Verdict, ...]
    answers: tuple[Answer, ...]

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.verdicts

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all verdicts, consequences among them, causes first."""
        return tuple(v.name for _, v in self.walk())

    def walk(self) -> Iterator[tuple[int, Verdict]]:
        """All verdicts with how deep they stand: 0 for a first cause, 1 for what it explains, and so on."""
        for verdict in self.verdicts:
            yield from verdict.walk()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Verdict:
        for _, verdict in self.walk():
            if verdict.name == name:
                return verdict
        raise KeyError(name)

    def __bool__(self) -> bool:
        return self.ok

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The diagnosis as plain data, which the page shows and `to_json` writes; docs/diagnosis-format.md."""
        from stepgrad.check.health.document import document

        return document(self)

    def to_markdown(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as Markdown.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Raises:
            FileError: it can't be written there.
        """
        from stepgrad.check.health.report import markdown

        return _written(markdown(self), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report, and the curves it was made from, as JSON; docs/diagnosis-format.md describes it.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Raises:
            FileError: it can't be written there.
        """
        from stepgrad.explain.document import json_text

        return _written(json_text(self.document), path)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The report as a page with plots: one file that needs no network and nothing else.

        Args:
            path: where to write it as well; the file is written whole or not at all.

        Raises:
            FileError: it can't be written there.
        """
        from stepgrad.check.health.report_html import page

        return _written(page(self.document), path)

    def _repr_html_(self) -> str:
        from stepgrad.check.health.report_html import fragment

        return fragment(self.document)

    def __str__(self) -> str:
        from stepgrad.check.health.report import text

        return text(self)

    __repr__ = __str__


def _written(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write(path, text.encode())
    return text


def diagnose(run: Run) -> Diagnosis:
    """Judges a recorded run by every entry of the catalogue.

    Args:
        run: as `sg.health` records it.

    Returns:
        The diagnosis; print it, or write it with `to_html`.

    Example:
        >>> X = np.full((64, 4), 1000, np.float32)
        >>> X[::2] += 1
        >>> model = sg.nn.Linear(4, 1)
        >>> optimizer = sg.optim.SGD(model.parameters(), lr=1e-7)
        >>> health = sg.health(model, sg.losses.mse, optimizer)
        >>> _ = sg.fit(model, sg.losses.mse, optimizer, (X, X[:, :1]), callbacks=[health], epochs=2, progress=False)
        >>> diagnosis = diagnose(health.run)
        >>> diagnosis.verdicts[0].name, diagnosis.ok
        ('unnormalised-inputs', False)
        >>> print(diagnosis["unnormalised-inputs"].says)
        input feature 0 has a root mean square of 1,000, the median feature of 1,000
    """
    found = {}
    for entry in CATALOGUE.values():
        finding = entry.judge(run)
        if finding is not None:
            found[entry.name] = (entry, finding)
    return Diagnosis(run, _grouped(found), _answers(run, [entry for entry, _ in found.values()]))


def _grouped(found: dict[str, tuple[Entry, Finding]]) -> tuple[Verdict, ...]:
    """Each verdict under the first of its possible causes that was found, and found in time."""
    under: dict[str | None, list[str]] = {}
    for name, (entry, finding) in found.items():
        causes = (cause for cause in entry.causes if cause in found and _in_time(*found[cause], finding))
        under.setdefault(next(causes, None), []).append(name)

    def made(name: str) -> Verdict:
        return Verdict(*found[name], tuple(made(consequence) for consequence in under.get(name, ())))

    return tuple(made(name) for name in under.get(None, ()))


def _in_time(cause: Entry, before: Finding, after: Finding) -> bool:
    """What the optimizer does shows from the next step on; everything else at once."""
    return before.since + (cause.question is Question.USED) <= after.since


# --- the three questions


def _answers(run: Run, entries: list[Entry]) -> tuple[Answer, ...]:
    wrong = {question: [e.name for e in entries if e.question is question] for question in Question}
    return (
        _right(run, wrong[Question.RIGHT]),
        _answer(Question.HEALTHY, wrong[Question.HEALTHY], _flow(run)),
        _answer(Question.USED, wrong[Question.USED], _descent(run)),
        _data(run, wrong[Question.DATA]),
    )


def _answer(question: Question, names: list[str], facts: str) -> Answer:
    ok = False if names else (True if facts else None)
    return Answer(question, ok, "; ".join(filter(None, [", ".join(names), facts])) or "it was not measured")


def _right(run: Run, names: list[str]) -> Answer:
    done = [c for c in run.gradient_checks if not c.problem and c.errors]
    if not done:
        problem = next((c.problem for c in run.gradient_checks if c.problem), "")
        return Answer(Question.RIGHT, None, f"it could not be checked: {problem}" if problem else "it was not checked")
    errors = [error for c in done for error in c.errors.values()]
    kept = finite(errors)
    steps = ", ".join(str(c.step) for c in done)
    if not kept:
        return Answer(Question.RIGHT, None, f"there is nothing to compare: gradients were not finite in step {steps}")
    facts = (
        f"{plural(len(done[0].errors), 'parameter')} compared with differences of the loss in float64 before step "
        f"{steps}, "
        f"largest relative error {max(kept):.0e}"
    )
    if len(kept) < len(errors):
        return Answer(Question.RIGHT, False if names else None, f"{facts}; {len(errors) - len(kept)} were not finite")
    return _answer(Question.RIGHT, names, facts)


def _flow(run: Run) -> str:
    way, facts = stretch(run), []
    if way is not None:
        facts.append(f"on its way back the gradient changes by a factor of {number(way.per_layer)} per layer")
    if run.samples:
        facts.append(f"the norm of the gradient is {number(middle(s.gradient_norm for s in run.samples))} (median)")
    return ", ".join(facts)


def _descent(run: Run) -> str:
    seen = [d for d in descents(run) if d.predicted]
    if not seen:
        return ""
    ratio, rises = middle(d.actual / d.predicted for d in seen if d.predicted < 0), sum(d.actual > 0 for d in seen)
    facts = [f"{rises} raised the loss of their own batch"] if rises else []
    if ratio > 0:
        facts.append(f"the loss falls along the update by {number(ratio)} of what the gradient predicts")
    facts.append(f"the best step along it is {number(middle(d.best_factor for d in seen))} of the one taken")
    changes = middle(s.update_norm / s.weight_norm for s in run.samples if s.weight_norm > 0)
    facts.append(f"an update changes {percent(changes)} of the weights' size")
    noise = run.noise_scale()
    if noise is not None and run.settings.batch_size:
        size = "no batch size" if math.isinf(noise) else f"batches of {number(noise)} rows"
        facts.append(f"noise and gradient are of equal size at {size} (now {run.settings.batch_size})")
    return f"{plural(len(seen), 'step')} examined: " + ", ".join(facts)


def _data(run: Run, names: list[str]) -> Answer:
    known = bool(run.losses) and math.isfinite(run.losses[-1])
    return Answer(Question.DATA, False if names else known or None, ", ".join(names) or _course(run))


def _course(run: Run) -> str:
    last = run.epochs[-1] if run.epochs else None
    if last is None:
        return "" if not run.losses else f"the last loss is {number(run.losses[-1])}"
    held_back = "" if last.validation_loss is None else f", validation loss {number(last.validation_loss)}"
    return f"loss {number(last.loss)}{held_back} in epoch {last.epoch}"
