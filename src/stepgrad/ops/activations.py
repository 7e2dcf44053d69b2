"""Activations: the nonlinear functions between the layers of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from stepgrad.ops.registry import public
from stepgrad.tape.op import Op, Rule, float_dtype, same_shape
from stepgrad.tape.samples import Sample, normal

__all__ = ["relu", "sigmoid"]


def activation(name: str, numpy: Callable[..., Any], rule: Rule, text: str, *samples: Sample, **more: Any) -> Op:
    """An elementwise op of one operand that NumPy does not have."""
    cases = [(s,) for s in samples or (normal(2, 3),)]
    return public(
        Op(
            name,
            shape=same_shape,
            numpy=numpy,
            rules=(rule,),
            text=text,
            samples=cases,
            elementwise=True,
            dtype=float_dtype,
            **more,
        )
    )


def _sigmoid_numpy(a: Any) -> Any:
    return 1 / (1 + np.exp(-a)) if np.iscomplexobj(a) else special.expit(a)


relu = activation(
    "relu",
    lambda a: np.maximum(a, 0),
    lambda g, out, a: g * (a > 0),
    "np.maximum({0}, 0)",
    doc="max(a, 0). Its derivative at 0 is 0.",
)

sigmoid = activation(
    "sigmoid",
    _sigmoid_numpy,
    lambda g, out, a: g * (out * (1 - out)),
    "1 / (1 + np.exp(-{0}))",
    analytic=True,
    doc="1 / (1 + exp(-a)), computed without overflow.",
)
