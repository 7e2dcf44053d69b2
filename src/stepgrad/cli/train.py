"""`stepgrad train`: trains a network on the embedded digits or on a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepgrad.train import jobs, report
from stepgrad.train.settings import Settings, parse_hidden, parse_names, parse_task


def train(
    data: Annotated[str, typer.Argument(help='"digits", or a CSV file whose first line names the columns.')],
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    task: Annotated[str, typer.Option(help="classification, regression, or auto: found from the target.")] = "auto",
    hidden: Annotated[str, typer.Option(help="Sizes of the hidden layers; none: a linear model.")] = "128,64",
    epochs: Annotated[int | None, typer.Option(help="How often every row is used.", show_default="by rows")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 32,
    optimizer: Annotated[str, typer.Option(help="adam, adamw, sgd (with momentum), rmsprop or adagrad.")] = "adam",
    learning_rate: Annotated[float | None, typer.Option(help="Size of the steps.", show_default="by optimizer")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    validation: Annotated[float, typer.Option(help="Fraction of a CSV's rows held back to measure on.")] = 0.2,
    ignore: Annotated[str, typer.Option(help="Columns to leave out: a,b.", show_default=False)] = "",
    categorical: Annotated[str, typer.Option(help="Columns of numbers to read as text: a,b.", show_default=False)] = "",
    out: Annotated[Path | None, typer.Option(help="Save the model there, for stepgrad predict.")] = None,
) -> None:
    """Trains a network on the embedded digits, or on a CSV file.

    A CSV file may be separated by commas, semicolons, tabs or bars.

    Columns of numbers are standardised; columns of text become one input per
    category. An empty field, NA, NaN, null, none or ? is a missing value: a
    number is filled with the median, a text is a category of its own.
    """
    parse_task(task)
    settings = Settings(parse_hidden(hidden), epochs, batch_size, optimizer, learning_rate, seed, validation, out)
    history = jobs.train(
        data,
        target,
        settings,
        report.console(),
        task=task,
        ignore=parse_names(ignore),
        categorical=parse_names(categorical),
    )
    if history.interrupted:
        raise typer.Exit(130)
