"""The diagnosis as plain data: what the page shows and `to_json` writes. docs/diagnosis-format.md describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgrad.check.health.diagnosis import Diagnosis, Verdict
from stepgrad.check.health.record import Run
from stepgrad.check.health.report import headline, subject
from stepgrad.check.health.summary import summaries
from stepgrad.check.health.verdicts import Evidence
from stepgrad.explain.document import number

FORMAT = "stepgrad-diagnosis"
VERSION = 1
MOST_LOSSES = 600
"""Longer runs have this many losses in the document, each the mean of several steps."""

Document = dict[str, Any]


def document(diagnosis: Diagnosis) -> Document:
    """The diagnosis as dicts, lists, numbers and strings."""
    run = diagnosis.run
    return {
        "format": FORMAT,
        "version": VERSION,
        "headline": headline(diagnosis),
        "ok": diagnosis.ok,
        "subject": subject(run),
        "settings": _settings(run),
        "answers": [
            {"question": a.question.name.lower(), "text": a.question.value, "ok": a.ok, "says": a.says}
            for a in diagnosis.answers
        ],
        "verdicts": list(_verdicts(diagnosis)),
        "steps": len(run.losses),
        "losses": _losses(run.losses),
        "epochs": [
            {"epoch": e.epoch, "step": e.step, "loss": _number(e.loss), "validation_loss": _number(e.validation_loss)}
            for e in run.epochs
        ],
        "layers": [
            {"name": layer.name, "kind": layer.kind, "activation": layer.activation, "place": layer.place}
            for layer in run.layers
        ],
        "summaries": [
            {
                "layer": found.layer.name,
                "gradient_norm": _number(found.gradient_norm),
                "gain": _number(found.gain),
                "expected_gain": _number(found.expected_gain),
                "activation_rms": _number(found.activation_rms),
                "zeros": _number(found.zeros),
                "saturated": _number(found.saturated),
                "silent": found.silent,
                "update_ratio": _number(found.update_ratio),
                "cells": list(found.cells),
            }
            for found in summaries(run)
        ],
        "samples": [
            {
                "step": s.step,
                "epoch": s.epoch,
                "loss": _number(s.loss),
                "learning_rate": _number(s.learning_rate),
                "gradient_norm": _number(s.gradient_norm),
                "update_ratio": _number(s.update_norm / s.weight_norm if s.weight_norm else None),
                "gradient_norms": [_number(each.gradient_norm) for each in s.layers],
                "activation_rms": [_number(each.activation_rms) for each in s.layers],
                "zeros": [_number(each.zeros) for each in s.layers],
                "saturated": [_number(each.saturated) for each in s.layers],
            }
            for s in run.samples
        ],
        "descents": [
            {
                "step": d.step,
                "predicted": _number(d.predicted),
                "actual": _number(d.actual),
                "best_factor": _number(d.best_factor),
                "factors": [_number(f) for f in d.factors],
                "losses": [_number(f) for f in d.losses],
            }
            for d in run.descents
        ],
    }


def _settings(run: Run) -> Document:
    s = run.settings
    return {
        "model": s.model,
        "loss": s.loss,
        "optimizer": s.optimizer,
        "learning_rate": s.learning_rate,
        "options": {name: _number(value) for name, value in s.options.items()},
        "batch_size": s.batch_size,
        "rows": s.rows,
        "compiled": s.compiled,
    }


def _verdicts(diagnosis: Diagnosis) -> list[Document]:
    """All verdicts, each before what it explains, with the place of its cause in this list."""
    found: list[Document] = []

    def add(verdict: Verdict, cause: int | None) -> None:
        place = len(found)
        since, until = verdict.steps
        found.append(
            {
                "name": verdict.name,
                "family": verdict.entry.family,
                "question": verdict.question.name.lower(),
                "severity": verdict.severity.name.lower(),
                "caused_by": cause,
                "says": verdict.says,
                "layer": verdict.layer,
                "since": since,
                "until": until,
                "evidence": [_evidence(e) for e in verdict.evidence],
                "remedy": verdict.remedy,
                "meaning": verdict.entry.meaning,
            }
        )
        for consequence in verdict.consequences:
            add(consequence, place)

    for verdict in diagnosis.verdicts:
        add(verdict, None)
    return found


def _evidence(evidence: Evidence) -> Document:
    threshold = evidence.threshold
    return {
        "what": evidence.what,
        "value": evidence.value if isinstance(evidence.value, str) else _number(evidence.value),
        "text": evidence.text,
        "threshold": None
        if threshold is None
        else {"value": threshold.value, "above": threshold.above, "text": evidence.limit, "reason": threshold.reason},
    }


def _losses(losses: Sequence[float]) -> list[Document]:
    """The losses with their steps; of a long run, means of equally many, so that NaN shows."""
    if not losses:
        return []
    each = -(-len(losses) // MOST_LOSSES)
    parts = [losses[i : i + each] for i in range(0, len(losses), each)]
    return [{"step": i * each + (len(p) + 1) // 2, "loss": _number(float(np.mean(p)))} for i, p in enumerate(parts)]


def _number(value: float | None) -> Any:
    """As in the format of traces: NaN and infinities are strings."""
    return None if value is None else number(np.float64(value))
