"""Which half of the trainings a cell belongs to: thresholds are tuned on one, and reported on the other.

A cell is a fault (or health) in one network on one data set; all its seeds are in the same half. The half is a bit
of a hash of the cell's name, and so does not depend on what else is in the benchmark, nor on anybody's choice.
`SALT` was fixed before any threshold was: the least number for which every fault had a cell in each half then. Cells
that are added later are put where their hash puts them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from benchmarks.health.trainings import Training

SALT = 1

TUNING, REPORTING = "tuning", "reporting"


def half(cell: str, salt: int = SALT) -> str:
    """Of a cell."""
    return (TUNING, REPORTING)[hashlib.sha256(f"{salt} {cell}".encode()).digest()[0] & 1]


def balanced(trainings: Iterable[Training], salt: int) -> bool:
    """Whether every fault has a cell in each half."""
    cells = {(t.fault, half(t.cell, salt)) for t in trainings}
    return len(cells) == 2 * len({fault for fault, _ in cells})
