"""Identities: the same value, with something said about its gradient."""

from __future__ import annotations

from typing import Any

from stepgrad.ops.arithmetic import same
from stepgrad.ops.registry import public, register
from stepgrad.ops.samples import normal
from stepgrad.tape.leaves import as_tensor
from stepgrad.tape.op import Op, Rule, same_shape
from stepgrad.tape.recording import record
from stepgrad.tensor import Tensor

__all__ = ["stop_gradient"]


def _identity(name: str, rule: Rule | None, doc: str, *, analytic: bool) -> Op:
    return register(
        Op(
            name,
            shape=same_shape,
            numpy=lambda a: a,
            rules=(rule,),
            text="{0}",
            samples=[(normal(2, 3),)],
            elementwise=True,
            analytic=analytic,
            cost=lambda *types, **params: 0.0,
            doc=doc,
        )
    )


alias = _identity(
    "alias", same, "The same under a new identity: an argument of a function being differentiated.", analytic=True
)

_stop_gradient = _identity("stop_gradient", None, "The same value, through which no gradient flows.", analytic=False)


def stop_gradient(x: Any) -> Tensor:
    """The same value, as a constant: no gradient flows through it.

    Example:
        >>> float(sg.grad(lambda x: x * sg.stop_gradient(x))(3.0))
        3.0
    """
    return record(_stop_gradient, (as_tensor(x),), {})


public(stop_gradient)
