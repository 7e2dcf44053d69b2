"""Losses: how far predictions are from what they should be, as one number.

All of them take `reduction`: "mean" (over all examples, or all elements), "sum", or "none" for the
losses themselves. Targets must have the shape of the predictions: nothing is broadcast.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError, IndexingError, ShapeError
from stepgrad.ops.arithmetic import absolute
from stepgrad.ops.choosing import clip
from stepgrad.ops.expanding import to_dtype
from stepgrad.ops.losses import binary_cross_entropy_op, cross_entropy_op
from stepgrad.ops.powers import square
from stepgrad.ops.reductions import mean, sum
from stepgrad.ops.softmax import log_softmax
from stepgrad.ops.taking import one_hot
from stepgrad.tape.leaves import as_tensor, read_only_copy
from stepgrad.tensor import ArrayLike, Tensor, describe

__all__ = ["binary_cross_entropy", "cross_entropy", "huber", "mae", "mse"]


def mse(predictions: Any, targets: Any, *, reduction: str = "mean") -> Tensor:
    """The squared error, (prediction - target)².

    Args:
        predictions: floating-point tensor.
        targets: numbers of the same shape.
        reduction: "mean", "sum" or "none".

    Example:
        >>> sg.losses.mse(sg.tensor([1.0, 2.0]), [1.0, 4.0])
        tensor(2., dtype=float64)
    """
    predictions, targets = _pair("mse", predictions, targets)
    return _reduce(square(predictions - targets), reduction)


def mae(predictions: Any, targets: Any, *, reduction: str = "mean") -> Tensor:
    """The absolute error, |prediction - target|; its derivative where they are equal is 0.

    Args:
        predictions: floating-point tensor.
        targets: numbers of the same shape.
        reduction: "mean", "sum" or "none".

    Example:
        >>> sg.losses.mae(sg.tensor([1.0, 2.0]), [1.0, 4.0])
        tensor(1., dtype=float64)
    """
    predictions, targets = _pair("mae", predictions, targets)
    return _reduce(absolute(predictions - targets), reduction)


def huber(predictions: Any, targets: Any, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Half the squared error up to an error of delta, and from there on a straight line (Huber 1964).

    error² / 2 where |error| <= delta, and delta * (|error| - delta / 2) elsewhere.

    Args:
        predictions: floating-point tensor.
        targets: numbers of the same shape.
        delta: where the straight line begins.
        reduction: "mean", "sum" or "none".

    Example:
        >>> sg.losses.huber(sg.tensor([1.0, 2.0]), [1.5, 5.0], reduction="none")
        tensor([0.125, 2.5  ], dtype=float64)
    """
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 < delta < math.inf:
        raise ArgumentError(
            f"huber was given delta={delta!r}",
            "delta is the error at which the loss turns from a parabola into a straight line",
            "use a positive number, for example delta=1.0",
        )
    predictions, targets = _pair("huber", predictions, targets)
    error = predictions - targets
    inner = clip(error, -delta, delta)
    return _reduce(inner * (error - 0.5 * inner), reduction)


def binary_cross_entropy(logits: Any, targets: Any, *, weight: Any = None, reduction: str = "mean") -> Tensor:
    """The cross entropy of yes or no: -log of the probability that sigmoid(logit) gives to the target.

    It is computed from logits without overflow; don't apply a sigmoid before.

    Args:
        logits: floating-point tensor.
        targets: numbers from 0 to 1 of the same shape; probabilities, or 0 and 1.
        weight: how much each element counts, of the same shape or a number; the mean is still over
            the number of elements.
        reduction: "mean", "sum" or "none".

    Raises:
        ArgumentError: a target lies outside of 0 to 1.

    Example:
        >>> sg.losses.binary_cross_entropy(sg.tensor([0.0, 1000.0]), [1, 1], reduction="none").numpy().round(3)
        array([0.693, 0.   ])
    """
    logits, targets = _pair("binary_cross_entropy", logits, targets)
    _check_probabilities("binary_cross_entropy", targets)
    losses = binary_cross_entropy_op(logits, targets)
    if weight is not None:
        weight = _fitting("binary_cross_entropy", "weight", weight, logits.dtype)
        if weight.shape not in ((), logits.shape):
            raise ShapeError(
                f"binary_cross_entropy was given weights of shape {weight.shape} for logits of shape {logits.shape}",
                "there is one weight for each element",
                "give the weights the shape of the logits, for example with np.broadcast_to(weight, logits.shape)",
            )
        losses = losses * weight
    return _reduce(losses, reduction)


def cross_entropy(
    logits: Any, labels: Any, *, weight: Any = None, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """The cross entropy of one class out of several: -log of the probability that softmax(logits) gives to the label.

    It is computed from logits without overflow; don't apply a softmax before. Its gradient is
    (softmax(logits) - one_hot(labels)) / n.

    Args:
        logits: floating-point (…, C): a number for each of C classes, on the last axis.
        labels: integers (…) from 0 to C - 1; or soft labels (…, C), a probability for each class.
        weight: (C,), how much each class counts. With integer labels the mean is then the weighted one.
        label_smoothing: how much of each label is spread evenly over all classes, from 0 to 1.
        reduction: "mean", "sum" or "none".

    Raises:
        IndexingError: a label is not the number of a class; the message says in which row.
        ShapeError, DtypeError: labels that are neither of the two.

    Example:
        >>> sg.losses.cross_entropy(sg.tensor([[0.0, 0.0], [0.0, 800.0]]), [0, 1], reduction="none")
        tensor([0.69314718, 0.        ], dtype=float64)
    """
    logits, labels = _floating("cross_entropy", "logits", logits), as_tensor(labels)
    if not logits.ndim or not logits.size:
        raise ShapeError(
            f"cross_entropy was given {describe(logits)} as logits",
            "there is no example to compute a loss of" if logits.ndim else "a single number has no classes",
            "pass logits of shape (examples, classes)",
        )
    hard = labels.dtype.kind in "iu"
    if hard:
        _check_labels(labels, logits)
    else:
        labels = _soft_labels(labels, logits)
    if isinstance(label_smoothing, bool) or not 0 <= label_smoothing <= 1:
        raise ArgumentError(
            f"cross_entropy was given label_smoothing={label_smoothing!r}",
            "it is the part of each label that is spread over all classes",
            "use a number from 0 to 1, for example 0.1",
        )
    if weight is not None:
        weight = _fitting("cross_entropy", "weight", weight, logits.dtype)
        if weight.shape != logits.shape[-1:]:
            raise ShapeError(
                f"cross_entropy was given weights of shape {weight.shape} for logits of shape {logits.shape}",
                "there is one weight for each class",
                f"give {logits.shape[-1]} weights",
            )
    if hard and not label_smoothing and weight is None:
        return cross_entropy_op(logits, labels, reduction=_checked_reduction(reduction))
    return _weighted(logits, labels, hard, weight, label_smoothing, reduction)


def _weighted(
    logits: Tensor, labels: Tensor, hard: bool, weight: Tensor | None, smoothing: float, reduction: str
) -> Tensor:
    """Cross entropy in full: soft labels, smoothing and class weights."""
    classes = logits.shape[-1]
    targets = one_hot(labels, classes, dtype=logits.dtype) if hard else labels
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / classes
    if weight is not None:
        targets = targets * weight
    losses = -sum(targets * log_softmax(logits), axis=-1)
    if hard and weight is not None and reduction == "mean":
        return sum(losses) / sum(weight[labels])
    return _reduce(losses, reduction)


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1]:
        if labels.shape == logits.shape:
            instead = "soft and one-hot labels are floating-point numbers: labels.astype(np.float32)"
        elif labels.shape == (*logits.shape[:-1], 1):
            instead = "leave the axis of length 1 out: labels[..., 0]"
        else:
            instead = f"pass labels of shape {logits.shape[:-1]}"
        raise ShapeError(
            f"cross_entropy was given {describe(labels)} as labels for {describe(logits)}",
            f"there is one label for each row of logits, and its last axis counts the {classes} classes",
            instead,
        )
    if labels.value is None:
        return
    found = np.asarray(labels.value)
    unsigned = found.view(f"u{found.dtype.itemsize}")  # where negative labels are very large
    if int(np.maximum.reduce(unsigned, axis=None)) < classes:
        return
    row = np.argwhere((found < 0) | (found >= classes))[0]
    place = f"row {int(row[0])}" if len(row) == 1 else f"row {tuple(map(int, row))}" if len(row) else "the label"
    raise IndexingError(
        f"cross_entropy was given the label {int(found[tuple(row)])} in {place}, for {classes} classes",
        f"labels are numbers of classes, from 0 to {classes - 1}",
        "number the classes from 0 on, for example with np.unique(labels, return_inverse=True)[1], "
        "or give the network an output for each class",
    )


def _soft_labels(labels: Tensor, logits: Tensor) -> Tensor:
    if labels.shape == logits.shape[:-1] or labels.dtype.kind not in "f":
        raise DtypeError(
            f"cross_entropy was given {describe(labels)} as labels for {describe(logits)}",
            "one label for each row is the number of a class, an integer; "
            "soft labels are floating-point numbers, one for each class",
            "convert them: labels.astype(np.int64)"
            if labels.shape == logits.shape[:-1]
            else f"convert them: labels.astype(np.{logits.dtype})",
        )
    labels = _fitting("cross_entropy", "soft labels", labels, logits.dtype)
    if labels.shape != logits.shape:
        raise ShapeError(
            f"cross_entropy was given {describe(labels)} as soft labels for {describe(logits)}",
            "there is one probability for each class of each row",
            f"pass soft labels of shape {logits.shape}, or integer labels of shape {logits.shape[:-1]}",
        )
    return labels


def _pair(loss: str, predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Predictions and targets as tensors of one shape and dtype."""
    predictions = _floating(loss, "predictions", predictions)
    targets = _fitting(loss, "targets", targets, predictions.dtype)
    if predictions.shape != targets.shape:
        if predictions.shape == (*targets.shape, 1):
            instead = "leave out the axis of length 1 of the predictions: predictions[..., 0]"
        elif targets.shape == (*predictions.shape, 1):
            instead = "leave out the axis of length 1 of the targets: targets[..., 0]"
        else:
            instead = "reshape one of them, or check which of the network's outputs this is"
        raise ShapeError(
            f"{loss} was given predictions {predictions.shape} and targets {targets.shape}",
            "each prediction has one target; broadcasting would compare every prediction with every target",
            instead,
        )
    if not predictions.size:
        raise ArgumentError(
            f"{loss} was given predictions of shape {predictions.shape}",
            "there are no examples, so there is no loss",
            "check where the batch became empty",
        )
    return predictions, targets


def _floating(loss: str, what: str, x: Any) -> Tensor:
    tensor = as_tensor(x)
    if tensor.dtype.kind != "f":
        raise DtypeError(
            f"{loss} was given {describe(tensor)} as {what}",
            f"{tensor.dtype} numbers change in steps, so the loss would have no gradient",
            f"pass what the network computes, or convert: {what}.astype(np.float32)",
        )
    return tensor


def _fitting(loss: str, what: str, x: Any, dtype: np.dtype[Any]) -> Tensor:
    """A tensor of this dtype; integers, booleans, numbers and lists are converted, other floating dtypes refused."""
    tensor = as_tensor(x if isinstance(x, (ArrayLike, np.ndarray, np.generic)) else read_only_copy(x, dtype))
    if tensor.dtype.kind == "f" and tensor.dtype != dtype:
        raise DtypeError(
            f"{loss} was given {describe(tensor)} as {what}, and predictions that are {dtype}",
            "mixed, the loss and all gradients would silently be computed in float64",
            f"convert the {what}: x.astype(np.{dtype})",
        )
    return tensor if tensor.dtype == dtype else to_dtype(tensor, dtype)


def _check_probabilities(loss: str, targets: Tensor) -> None:
    if targets.value is None:
        return
    low, high = np.min(targets.value), np.max(targets.value)
    if low < 0 or high > 1:  # NaN passes, and makes the loss NaN
        raise ArgumentError(
            f"{loss} was given the target {low if low < 0 else high:g}",
            "a target is a probability, or 0 for no and 1 for yes",
            "if the classes are numbered -1 and 1, use (targets + 1) / 2; for several classes use cross_entropy",
        )


def _checked_reduction(reduction: str) -> str:
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ArgumentError(
            f"a loss was given reduction={reduction!r}",
            "there is no such reduction",
            'use "mean", "sum" or "none"',
        )
    return reduction


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if _checked_reduction(reduction) == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum(losses)
