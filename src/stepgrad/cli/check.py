"""`stepgrad check`: are the gradients of a function, or the backward passes in a file, right?"""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from stepgrad.check.backward.limits import limited
from stepgrad.check.scripts import parse_shapes, parted


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py[:NAME]", help="A file with a backward pass, or a function whose gradients to check."
        ),
    ],
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
    seconds: Annotated[float, typer.Option(help="How long the file may run.", min=0.1)] = 60.0,
    args: Annotated[str, typer.Option(metavar="'A B …'", help="What the file finds in sys.argv.")] = "",
    output: Annotated[bool, typer.Option("--output", help="Show what the file prints.")] = False,
) -> None:
    """Find the wrong line of a backward pass written by hand, or check the gradients of a function.

    Without a name, every forward and backward pass of the file is checked:
    functions called x_forward and x_backward (or forward_prop and backward_prop,
    relu and relu_backward, compute_cost and compute_gradient, …), with a loss of
    their own or not; functions that return a loss and gradients; classes with
    forward and backward methods; torch.autograd.Function; jax.custom_vjp.

    A name picks one of them, by its backward, class or object. Any other function
    is differentiated by stepgrad, and its gradients are compared with numerical
    ones, rule by rule.

    The file is imported as Python does, with its folder on sys.path, in a process
    of its own that works in that folder. It is run, and never changed.

    A function gets as its arguments, whichever comes first:

    1. random numbers, for parameters named with --shape NAME=3,5
    (for a single number --shape NAME=);

    2. what the file's function FUNCTION_inputs() returns, or its inputs(),
    or its variable INPUTS: a dict by name, or a list or tuple in order;

    3. for backward passes, a variable of the file with the parameter's name;

    4. the defaults in its signature;

    5. for backward passes, shapes guessed from names such as X, W1, b1 and Y.

    Parameters and tensors that a function uses are checked as well.

    Exit status: 0 if everything is right, 1 if something is wrong,
    2 if it could not be told (no such file, bad input, time limit).

    Examples: stepgrad check mybackprop.py;
    stepgrad check net.py:loss --shape X=4,32 --shape Y=1,32
    """
    path, name = parted(target)
    request = {
        "path": path,
        "name": name,
        "shapes": parse_shapes(shape or []),
        "wrt": wrt or [],
        "directions": directions,
        "tolerance": tolerance,
        "seed": seed,
    }
    answer = limited("stepgrad.check.backward.scripted:check_file", request, path, shlex.split(args), seconds)
    typer.echo(answer.heading, err=True)
    lines = answer.printed.splitlines()
    if output:
        typer.echo(answer.printed, err=True, nl=False)
    elif lines:
        count = f"{len(lines):,} line{'s' if len(lines) > 1 else ''}"
        typer.echo(f"{os.path.basename(path)} printed {count}; --output shows what", err=True)
    typer.echo(answer.text)
    raise typer.Exit(answer.status)
