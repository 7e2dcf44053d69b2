"""`stepgrad doctor`: the report of a recorded training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepgrad.check.health import load
from stepgrad.check.health.diagnosis import diagnose
from stepgrad.files import check_writable


def doctor(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="What health.save wrote.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown.")] = None,
) -> None:
    """Say what is wrong with a training run: are the gradients right, are they healthy, are they used well?

    A run is recorded in Python, with sg.health:

    health = sg.health(model, loss, optimizer)
    sg.fit(model, loss, optimizer, (X, y), callbacks=(health,))
    health.save("run.json")

    Exit status: 0 if nothing was found, 1 if something was, 2 if the run could not be read.

    Example: stepgrad doctor run.json --html run.html
    """
    files = [path for path in (html, json, markdown) if path is not None]
    for path in files:
        check_writable(path, unlike=run)
    diagnosis = diagnose(load(run))
    for written, write in ((html, diagnosis.to_html), (json, diagnosis.to_json), (markdown, diagnosis.to_markdown)):
        if written is not None:
            write(written)
            typer.echo(f"wrote {written}", err=True)
    if not files:
        typer.echo(str(diagnosis))
    raise typer.Exit(0 if diagnosis.ok else 1)
