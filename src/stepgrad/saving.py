"""Saved values: what `state_dict` returns and `load_state_dict` takes, for modules and optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgrad.cells import Cell
from stepgrad.errors import ArgumentError, DtypeError, ShapeError
from stepgrad.tensor import Array


def values_of(cells: Mapping[str, Cell]) -> dict[str, Array]:
    """Copies of the values of cells, by name."""
    return {name: cell.numpy().copy() for name, cell in cells.items()}


def load_values(cells: Mapping[str, Cell], values: Mapping[str, Any], what: str) -> None:
    """Assigns saved values to cells: all of them, or none if one does not fit.

    Args:
        cells: the cells, by name.
        values: an array for each, of the same shape, and of a dtype that converts to the cell's.
        what: what is being loaded, for messages.

    Raises:
        ArgumentError, ShapeError, DtypeError: something is missing, unexpected, or does not fit.
    """
    missing = [name for name in cells if name not in values]
    unexpected = [str(name) for name in values if name not in cells]
    if missing or unexpected:
        problems = [f"missing: {', '.join(missing)}"] if missing else []
        problems += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
        raise ArgumentError(
            f"load_state_dict of {what}: {'; '.join(problems)}",
            "the saved values belong to something of another structure or with other settings; nothing was changed",
            "build it as it was when its values were saved, or rename and leave out entries of the dict",
        )
    arrays = {name: np.asarray(values[name]) for name in cells}
    wrong = [f"{n} {arrays[n].shape} instead of {c.shape}" for n, c in cells.items() if arrays[n].shape != c.shape]
    if wrong:
        raise ShapeError(
            f"load_state_dict of {what}: wrong shapes: {'; '.join(wrong)}",
            "the saved values belong to layers of other sizes; nothing was changed",
            "build it with the sizes that it had when its values were saved",
        )
    wrong = [
        f"{name} {arrays[name].dtype} instead of {cell.dtype}"
        for name, cell in cells.items()
        if not np.can_cast(arrays[name].dtype, cell.dtype, "same_kind")
    ]
    if wrong:
        raise DtypeError(
            f"load_state_dict of {what}: wrong dtypes: {'; '.join(wrong)}",
            "such numbers can't be converted without losing what they mean; nothing was changed",
            "convert the arrays yourself, for example with array.astype(np.float32)",
        )
    for name, cell in cells.items():
        cell.assign(arrays[name].astype(cell.dtype))
