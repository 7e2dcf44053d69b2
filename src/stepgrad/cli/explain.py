"""`stepgrad explain`: the story of one forward and backward pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from stepgrad.check.scripts import parse_shapes, prepared, raised, script
from stepgrad.errors import StepgradError
from stepgrad.explain import lesson
from stepgrad.explain.trace import Trace, trace


def explain(
    target: Annotated[
        str | None, typer.Argument(metavar="FILE.py:FUNCTION", help="The function to explain. Default: the lesson.")
    ] = None,
    source: Annotated[bool, typer.Option("--source", help="Write the passes out as a NumPy module.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="List what the backward pass reads, and its size.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Count operations, with and without reuse.")] = False,
    numbers: Annotated[bool, typer.Option("--numbers", help="Print the values along with the formulas.")] = False,
    open: Annotated[
        list[int] | None,
        typer.Option("--open", metavar="STEP", help="Open a step to its single equations; repeatable."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LENGTHS", help="Pass random numbers of this shape, as in X=3,5; repeatable."),
    ] = None,
    wrt: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Differentiate this argument only; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    step: Annotated[bool, typer.Option("--step", help="Walk through both passes with the arrow keys.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page to walk through both passes in a browser.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the graph as a picture.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the trace as JSON.")] = None,
) -> None:
    """Tell the story of one forward and backward pass, step by step as the lines were written.

    Without a function it explains the lesson: a network of two layers. A function in a file gets its
    arguments as for `stepgrad check`: from --shape, from FUNCTION_inputs(), inputs() or INPUTS in the file,
    or from the defaults in its signature.

    Example: stepgrad explain net.py:loss --shape X=4,32 --cost
    """
    with traced(target, shape or [], wrt or [], seed) as explained:
        views = [view for asked, view in ((source, explained.source), (cache, explained.cache), (cost, explained.cost))
                 if asked]  # fmt: skip
        files = {html: explained.to_html, svg: explained.to_svg, json: explained.to_json}
        files.pop(None, None)
        for path, write in files.items():
            write(path)
            typer.echo(f"wrote {path}", err=True)
        if step:
            explained.step_through()
        elif not views and not files:
            explained.show(numbers=numbers, open=open or ())
        typer.echo("\n\n".join(str(view()).rstrip("\n") for view in views), nl=bool(views))


@contextmanager
def traced(target: str | None, shapes: list[str], wrt: list[str], seed: int) -> Iterator[Trace]:
    """The trace of the function asked for; its file stays imported while inside."""
    if target is None:
        yield trace(lesson.network, **lesson.network_inputs(), wrt=wrt or lesson.PARAMETERS)
        return
    with script(target) as loaded:
        function, arguments = prepared(loaded, parse_shapes(shapes), seed)
        try:
            explained = trace(function, *arguments, wrt=wrt or None)
        except StepgradError:
            raise
        except Exception as error:
            raise raised(f"{loaded.name}()", loaded.path, error) from error
        explained.function = loaded.name
        folder = os.path.dirname(loaded.path)
        typer.echo(f"{loaded.name} in {os.path.basename(loaded.path)}, imported with {folder} on sys.path", err=True)
        yield explained
