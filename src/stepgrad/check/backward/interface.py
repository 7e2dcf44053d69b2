"""Whether a forward and a backward fit together: gradients missing, too many, of another dtype, or never the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from stepgrad.check.backward.naming import HOLDER, PARAMETER, gradient_roots, matched, tokens
from stepgrad.check.backward.subject import Remark, Subject, short_name
from stepgrad.tensor import Array
from stepgrad.tree import flatten


def interface_remarks(
    subject: Subject,
    downstream: Any,
    right: Mapping[str, Array],
    known: Collection[str] = (),
    *,
    watched: bool = False,
) -> tuple[Remark, ...]:
    """What can be told without looking at any line.

    Args:
        subject: what is checked; its forward, and the backward unless watched, are run twice at its inputs.
        downstream: what the backward begins with; None for a loss.
        right: input -> its right gradient: an input whose gradient is zero needs none.
        known: the user's names of forward values: their gradients may be returned as well.
        watched: the lines of the backward are watched, which tells what a second call changes, and where
            a dtype comes from: leave these remarks out.

    Returns:
        The subject's own remarks, then these, in the order in which they should be looked at. If forward
        returns something else each time, that alone: nothing else can be told then.
    """
    found = list(subject.remarks)
    outputs, context = subject.forward(subject.inputs)
    again, _ = subject.forward(subject.inputs)
    difference = _difference(outputs, again)
    if difference:
        text = f"forward returns something else each time, with the same inputs (a difference of {difference:.1e})"
        return (Remark("not-deterministic", None, text, {"difference": difference}),)
    first = subject.backward(subject.inputs, context, downstream)
    names = tuple(_names(subject, first, right, known))
    if watched:
        return (*found, *names)
    second = subject.backward(subject.inputs, context, downstream)
    return (*found, *_repeated(subject, first, second), *names, *_dtypes(subject, first))


def _difference(a: Any, b: Any) -> float:
    """The largest difference between two results; infinite for another shape, 0 for equal ones, NaN included."""
    pairs = list(zip(flatten(a)[0], flatten(b)[0], strict=False))
    largest = 0.0
    for one, other in pairs:
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape:
            return float("inf")
        if one.dtype.kind in "fiubc" and not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            gap = np.abs(one.astype(np.float64) - other)
            largest = max(largest, float(np.nanmax(gap, initial=5e-324)))
    return largest


def _called(subject: Subject, name: str) -> str:
    return subject.gradient_names.get(name) or (f"d{short_name(name)}" if name in subject.inputs else name)


def _repeated(subject: Subject, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Remark]:
    """What a second call of the backward with the same arguments gives."""
    for name in first:
        if name not in second or not _difference(first[name], second[name]):
            continue
        called = _called(subject, name)
        one, other = np.asarray(first[name], np.float64), np.asarray(second[name], np.float64)
        evidence = {"difference": _difference(first[name], second[name])}
        if one.shape == other.shape and np.allclose(other, 2 * one, rtol=1e-9, atol=0):
            text = f"a second call of {subject.name} returns twice the gradient: {called} is added to what was there"
            yield Remark("not-reset-between-calls", called, text, evidence)
        else:
            text = f"{called} is different each time {subject.name} is called with the same arguments"
            yield Remark("not-deterministic", called, text, evidence)


def _names(
    subject: Subject, gradients: Mapping[str, Any], right: Mapping[str, Array], known: Collection[str]
) -> Iterator[Remark]:
    """Gradients that are not returned, and those of nothing."""
    inputs = subject.inputs
    wanted = [n for n in _expected(subject, gradients) if np.any(right.get(n, 0.0))]
    missing = [n for n in wanted if gradients.get(n) is None]
    extra = [
        n
        for n in gradients
        if n not in inputs and _is_gradient(n, gradients[n]) and not _belongs(tokens(n)[-1], inputs, known)
    ]
    if missing and not [n for n in gradients if n in inputs]:
        keys = ", ".join(map(str, gradients)) or "nothing"
        text = f"{subject.name} returns {keys}, and no gradient of {', '.join(map(short_name, missing))}"
        yield Remark("gradient-missing", None, text, {"missing": tuple(missing), "returned": tuple(gradients)})
        return
    for name in missing:
        called = _called(subject, name)
        close = difflib.get_close_matches(called, extra, 1, 0.5)
        text = f"{subject.name} gives no gradient of {short_name(name)}, on which the loss depends"
        if close:
            extra.remove(close[0])
            text += f"; {close[0]} belongs to no input: is it misspelt?"
        yield Remark("gradient-missing", called, text, {"returned": tuple(gradients)})
    for name in extra:
        place = re.fullmatch(r"return\[(\d+)\]", name)
        what = f"a value at position {place[1]}" if place else name
        text = f"{subject.name} returns {what}, and there is no input that it could be the gradient of"
        yield Remark("gradient-extra", name, text, {"inputs": tuple(inputs), "shape": np.shape(gradients[name])})


def _expected(subject: Subject, gradients: Mapping[str, Any]) -> list[str]:
    """The inputs whose gradient should be there.

    Unless the subject says so: those in the same container as one that has a gradient; what is called
    like a parameter; that for which None is returned; if nothing at all is returned, every input.
    """
    if subject.expected is not None:
        return [n for n in subject.inputs if n in subject.expected]
    given = [n for n in subject.inputs if n in gradients]
    if not given:
        return list(subject.inputs)
    containers = {_container(n) for n in given} - {""}
    return [n for n in subject.inputs if n in given or _container(n) in containers or _is_parameter(n)]


def _is_parameter(path: str) -> bool:
    """W, biases[1], params['out']: by its name, or by that of what holds it."""
    root = re.split(r"[\[.]", path)[0]
    return bool(PARAMETER.fullmatch(root) or (root != path and HOLDER.match(root)))


def _container(path: str) -> str:
    return path.rpartition("[")[0] or path.rpartition(".")[0]


def _belongs(gradient: str, inputs: Collection[str], known: Collection[str]) -> bool:
    """Whether a name is that of the gradient of a forward value.

    In a loop one variable stands for the values of all layers: dA2 belongs to A. But parameters are
    known one by one: beside W1 and W2 there is no dW9.
    """
    parameters = {_without_number(short_name(n)) for n in inputs if _is_parameter(n)}
    names = {_plain(n) for n in [*known, *inputs]}
    families = {_without_number(n) for n in known}
    for root in gradient_roots(gradient):
        family, plain = _without_number(root), _plain(root)
        if plain in names or (family in families and (family not in parameters or family == plain)):
            return True
    return False


def _plain(name: str) -> str:
    return re.sub(r"_(?=\d+$)", "", short_name(name)).lower()


def _without_number(name: str) -> str:
    return re.sub(r"_?\d+$", "", name).lower()


def _is_gradient(name: str, value: Any) -> bool:
    return np.asarray(value).dtype.kind == "f" and not re.fullmatch(r"\w*(loss|cost|acc\w*)|J|L", name, re.IGNORECASE)


def _dtypes(subject: Subject, gradients: Mapping[str, Any]) -> Iterator[Remark]:
    for name, gradient in gradients.items():
        if name not in subject.inputs or gradient is None:
            continue
        dtype, called = np.asarray(gradient).dtype, _called(subject, name)
        if dtype.kind != "f":
            text = f"{called} is an array of {dtype}, and a gradient is one of floating-point numbers"
            yield Remark("wrong-dtype", called, text, {"dtype": str(dtype)})
        elif dtype.itemsize < 8:
            text = f"{called} is computed in {dtype} although every input is float64"
            yield Remark("low-precision", called, text, {"dtype": str(dtype)})


def gradients_of_integers(inputs: Mapping[str, Any], gradients: Collection[str]) -> list[str]:
    """The inputs that hold integers although a gradient of them is returned: they should be made float64.

    By name; a single one has a single gradient, whatever that is called.

    Args:
        inputs: as the user passed them.
        gradients: the names of what a backward returned for no input.

    Example:
        >>> gradients_of_integers({"X": np.array([1, 2]), "labels": np.array([0, 1])}, ["dX"])
        ['X']
    """
    integers = {n: n for n, v in inputs.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iu" and v.ndim}
    named = list(matched([g for g in gradients if gradient_roots(g)], integers).values())
    return named or (list(integers) if len(integers) == len(gradients) == 1 else [])
