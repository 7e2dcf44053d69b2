"""`stepgrad check`: are the gradients of a function in a file right?"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stepgrad.check.gradients import check_gradients
from stepgrad.check.scripts import parse_shapes, prepared, raised, script
from stepgrad.errors import StepgradError


def check(
    target: Annotated[str, typer.Argument(metavar="FILE.py:FUNCTION", help="The function whose gradients to check.")],
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LENGTHS", help="Pass random numbers of this shape, as in X=3,5; repeatable."),
    ] = None,
    wrt: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Check this argument only; repeatable. Default: all.")
    ] = None,
    directions: Annotated[int, typer.Option(help="Random directions for arguments with over 200 elements.")] = 8,
    tolerance: Annotated[float, typer.Option(help="The largest relative error that counts as agreement.")] = 1e-6,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
) -> None:
    """Compare the gradients of a function with numerical ones, rule by rule.

    The file is imported as Python does, with its folder on sys.path.
    It is run, and never changed.

    The function gets as its arguments, whichever comes first:

    1. random numbers, for parameters named with --shape NAME=3,5
    (for a single number --shape NAME=);

    2. what the file's function FUNCTION_inputs() returns, or its inputs(),
    or its variable INPUTS: a dict by name, or a list or tuple in order;

    3. the defaults in its signature.

    Parameters and tensors that it uses are checked as well.

    Exit status: 0 if the gradients are right, 1 if one is wrong,
    2 if it could not be told (no such file, bad input).

    Example: stepgrad check net.py:loss --shape X=4,32 --shape Y=1,32
    """
    shapes = parse_shapes(shape or [])
    with script(target) as loaded:
        file, folder = os.path.basename(loaded.path), os.path.dirname(loaded.path)
        typer.echo(f"{loaded.name} in {file}, imported with {folder} on sys.path", err=True)
        function, arguments = prepared(loaded, shapes, seed)
        try:
            report = check_gradients(
                function, *arguments, wrt=wrt or None, directions=directions, tolerance=tolerance, seed=seed
            )
        except StepgradError:
            raise
        except Exception as error:
            raise raised(f"{loaded.name}()", loaded.path, error) from error
    typer.echo(str(report))
    raise typer.Exit(0 if report else 1)
