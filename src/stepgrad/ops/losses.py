"""Losses that are computed from logits in one equation, for safety and speed.

`stepgrad.losses` checks what users pass and calls these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stepgrad.ops.activations import sigmoid
from stepgrad.ops.expanding import broadcast, broadcast_shape
from stepgrad.ops.registry import register, registry
from stepgrad.ops.samples import integers, normal, uniform
from stepgrad.ops.shapes import reshape
from stepgrad.ops.softmax import softmax
from stepgrad.tape.op import Op, Shape, TensorType, float_dtype
from stepgrad.tensor import Array, Tensor


def _rows_shape(logits: TensorType, labels: TensorType, reduction: str) -> Shape:
    return labels.shape if reduction == "none" else ()


def cross_entropy(logits: Array, labels: Array, reduction: str) -> Any:
    """-log of the probability that softmax gives to the label of each row; their mean, sum, or all of them."""
    rows = logits.reshape(-1, logits.shape[-1])
    rows = rows - rows.max(axis=1, keepdims=True)  # the same probabilities, without overflow
    losses = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), labels.reshape(-1)]
    if reduction == "none":
        return losses.reshape(labels.shape)
    return losses.sum() / len(losses) if reduction == "mean" else losses.sum()


def _cross_entropy_rule(g: Tensor, out: Tensor, logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    one_hot = registry["one_hot"](labels, classes=logits.shape[-1], dtype=logits.dtype)
    error = softmax(logits) - one_hot
    if reduction == "none":
        g = reshape(g, (*g.shape, 1))
    return (g / math.prod(labels.shape) if reduction == "mean" else g) * error


cross_entropy_op = register(
    Op(
        "cross_entropy",
        shape=_rows_shape,
        dtype=lambda logits, labels, reduction: logits.dtype,
        numpy=cross_entropy,
        rules=(_cross_entropy_rule, None),
        text="cross_entropy({0}, {1}, {reduction!r})",
        samples=[
            (normal(3, 4), integers(0, 4, 3), {"reduction": "mean"}),
            (normal(2, 3, 4), integers(0, 4, 2, 3), {"reduction": "sum"}),
            (normal(3, 4), integers(0, 4, 3), {"reduction": "none"}),
        ],
        analytic=True,
        cost=lambda logits, labels, out, **params: 5.0 * logits.size,
        doc="The cross entropy of integer labels under softmax(logits), with classes on the last axis.",
    )
)

binary_cross_entropy_op = register(
    Op(
        "binary_cross_entropy",
        shape=broadcast_shape,
        dtype=float_dtype,
        # log(1 + exp(a)) - a * b, with the larger terms cancelled beforehand.
        numpy=lambda a, b: a * ((a > 0) - b) + np.log1p(np.exp(-np.abs(a))),
        rules=(lambda g, out, a, b: g * (sigmoid(a) - b), lambda g, out, a, b: g * -a),
        text="{0} * (({0} > 0) - {1}) + np.log1p(np.exp(-np.abs({0})))",
        samples=[(normal(2, 3), uniform(0, 1, 2, 3)), (normal(2, 3), uniform(0, 1, 3))],
        elementwise=True,
        prepare=broadcast,
        cost=lambda a, b, out: 8.0 * out.size,
        doc="The cross entropy of probabilities b under sigmoid(a), element by element.",
    )
)
