"""What can be said of a wrong value that no known mistake explains: how it differs from the right one."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.check.backward.scene import Scene
from stepgrad.tensor import Array


def differences(scene: Scene) -> dict[str, Any]:
    """Numbers on how far the wrong value is from the right one, at the first point."""
    right, wrong = scene.first.right, scene.first.wrong
    if wrong is None:
        return {"error": scene.clue.error or "the line raised"}
    if wrong.shape != right.shape:
        return {"shape": wrong.shape, "right shape": right.shape}
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(right))
        residual = float(np.linalg.norm(wrong - right)) / norm if norm else np.inf
        cosine = float(np.vdot(right, wrong) / (norm * np.linalg.norm(wrong)))
    return {"relative error": residual, "cosine": cosine}


def structure(scene: Scene) -> tuple[str, dict[str, Any]]:
    """A sentence, and numbers: shape, ratio and along which axes it is constant, support, rank, residual."""
    right, wrong = scene.first.right, scene.first.wrong
    evidence = differences(scene)
    if wrong is None:
        return f"the line raises: {scene.clue.error or 'an error'}", evidence
    if wrong.shape != right.shape:
        return f"its shape is {wrong.shape}, and {right.shape} is right", evidence
    if not np.isfinite(wrong).all():
        count = int((~np.isfinite(wrong)).sum())
        return f"{count} of its {wrong.size} elements are not finite numbers", evidence | {"not finite": count}
    said = [_support(right, wrong, evidence), _agreeing(right, wrong, evidence), _ratio(right, wrong, evidence)]
    _rank(right, wrong, evidence)
    said = [text for text in said if text]
    error = evidence["relative error"]
    return "; ".join(said) or f"it differs everywhere, by no simple factor (relative error {error:.2g})", evidence


def _support(right: Array, wrong: Array, evidence: dict[str, Any]) -> str:
    lost, gained = int(((right != 0) & (wrong == 0)).sum()), int(((right == 0) & (wrong != 0)).sum())
    evidence["zero, but should not be"], evidence["not zero, but should be"] = lost, gained
    texts = [f"{lost} of {wrong.size} elements are zero and should not be"] if lost else []
    texts += [f"{gained} of {wrong.size} elements are not zero and should be"] if gained else []
    return "; ".join(texts)


def _agreeing(right: Array, wrong: Array, evidence: dict[str, Any]) -> str:
    same = np.asarray(np.isclose(wrong, right, rtol=1e-7, atol=1e-12 * float(abs(right).max(initial=0))))
    share = evidence["elements that agree"] = f"{int(same.sum())} of {same.size}"
    if not same.any():
        return ""
    for axis in range(right.ndim):
        others = tuple(k for k in range(right.ndim) if k != axis)
        whole = np.asarray(same.all(axis=others))
        if right.shape[axis] > 1 and whole.any() and not same[_at(axis, ~whole, right.ndim)].any():
            return f"it is right at {_indices(whole)} of axis {axis}, and wrong at {_indices(~whole)}"
    return f"{share} elements are right"


def _at(axis: int, chosen: Array, ndim: int) -> tuple[Any, ...]:
    return tuple(chosen if k == axis else slice(None) for k in range(ndim))


def _indices(chosen: Array) -> str:
    numbers = np.flatnonzero(chosen)
    return ", ".join(map(str, numbers[:4])) + (", …" if len(numbers) > 4 else "")


def _ratio(right: Array, wrong: Array, evidence: dict[str, Any]) -> str:
    with np.errstate(all="ignore"):
        quotient = np.where(right == 0, np.nan, wrong / right)
    known = ~np.isnan(quotient)
    if not known.any():
        return ""
    constant = []
    for axis in range(quotient.ndim):
        if quotient.shape[axis] > 1:
            most = np.max(quotient, axis=axis, initial=-np.inf, where=known)
            least = np.min(quotient, axis=axis, initial=np.inf, where=known)
            if np.max(most - least) < 1e-7 * np.nanmax(abs(quotient)):
                constant.append(axis)
    evidence["wrong / right"] = [float(np.nanmin(quotient)), float(np.nanmax(quotient))]
    evidence["ratio constant along axes"] = constant
    if not constant:
        return ""
    if len(constant) == sum(n > 1 for n in quotient.shape):
        return f"it is {np.nanmax(quotient):.6g} times the right value here, and another multiple at other points"
    axes = " and ".join(map(str, constant))
    return f"wrong / right is constant along axis {axes}: a factor that depends on the other axis is wrong"


def _rank(right: Array, wrong: Array, evidence: dict[str, Any]) -> None:
    if right.ndim == 2 and right.size <= 10_000:
        evidence["rank of the difference"] = int(np.linalg.matrix_rank(wrong - right))
