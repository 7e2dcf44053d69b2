"""Checks of what a layer is given, so that a wrong shape or dtype is named at the layer where it enters."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgrad.errors import ArgumentError, DtypeError
from stepgrad.nn.module import Module
from stepgrad.ops.arguments import dtype_of
from stepgrad.tape.leaves import as_tensor, read_only_copy
from stepgrad.tensor import ArrayLike, Tensor, describe


def title(layer: Module) -> str:
    """`layer 0 (Linear)`: how messages speak of a layer."""
    kind = type(layer).__name__
    return f"layer {layer._path} ({kind})" if layer._path else f"a {kind} layer"


def floating(layer: Module, x: Any, dtype: np.dtype[Any] | None = None) -> Tensor:
    """The input as a tensor of the layer's dtype (None: any floating one). Lists take that dtype; others must have it.

    Raises:
        DtypeError: it has another dtype.
    """
    if not isinstance(x, (ArrayLike, np.ndarray, np.generic)):
        x = read_only_copy(x, dtype)
    tensor = as_tensor(x)
    if tensor.dtype == dtype or (dtype is None and tensor.dtype.kind == "f"):
        return tensor
    wanted = dtype or np.dtype(np.float32)
    if tensor.dtype.kind == "f":
        why = f"its parameters are {wanted}; mixed, everything after it would silently be computed in float64"
    else:
        why = f"it computes with floating-point numbers, and {tensor.dtype} numbers have no gradient"
    raise DtypeError(
        f"{title(layer)} was given {describe(tensor)}",
        why,
        f"convert the input, x.astype(np.{wanted})"
        + (", or make the layer with dtype=np.float64" if tensor.dtype == np.float64 and dtype else ""),
    )


def check_sizes(layer: Module, **sizes: Any) -> None:
    """Raises ArgumentError unless each size is an integer from 1 on."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ArgumentError(
                f"{type(layer).__name__} was given {name}={size!r}",
                "a size is a whole number from 1 on",
                f"pass for example {name}=64",
            )


def check_dtype(layer: Module, dtype: Any) -> np.dtype[Any]:
    """The dtype for a layer's parameters; raises DtypeError unless it is floating."""
    wanted = dtype_of(dtype)
    if wanted.kind != "f":
        raise DtypeError(
            f"{type(layer).__name__} was given dtype={wanted}",
            "parameters are changed in small steps, so they have to be floating-point",
            "use np.float32 or np.float64",
        )
    return wanted
