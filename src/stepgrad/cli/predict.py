"""`stepgrad predict`: uses a saved model on a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepgrad.train import predicting, report


def predict(
    model: Annotated[Path, typer.Argument(help="A file written by stepgrad train --out.")],
    data: Annotated[Path, typer.Argument(help="A CSV file with the columns that the model was trained on.")],
    out: Annotated[Path | None, typer.Option(help="Write the predictions there, as CSV.")] = None,
) -> None:
    """Predicts for each row of a CSV file with a saved model.

    In a terminal the first predictions are shown; into a pipe all are printed
    as CSV. Columns may stand in any order. If the target's column is there,
    the predictions are compared with it.
    """
    predicting.run(model, data, out, report.console(), report.console(stderr=True))
