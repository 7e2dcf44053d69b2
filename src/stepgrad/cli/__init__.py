"""The `stepgrad` command. Each command is a module of this package with a function of its name."""

from __future__ import annotations

import importlib
import sys

import typer

from stepgrad.errors import StepgradError

COMMANDS = ("train", "predict", "explain", "check", "doctor", "bench")

app = typer.Typer(
    name="stepgrad",
    help="Backpropagation you can watch, check and trust, at full speed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Runs the command line; errors of stepgrad's own are printed without a traceback."""
    for name in COMMANDS:
        app.command(name)(getattr(importlib.import_module(f"stepgrad.cli.{name}"), name))
    try:
        app()
    except StepgradError as error:
        print(f"stepgrad: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stepgrad: stopped", file=sys.stderr)
        sys.exit(130)
