"""`stepgrad bench`: the training step against peers, against its limits and against the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepgrad.bench import run


def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NETWORK]...", help='Names, or sizes such as "20-50-3b16", for a batch of 16.'),
    ] = None,
    peers: Annotated[
        str, typer.Option(help="all, none, or names: torch, torch.compile, jax, tinygrad, sklearn.")
    ] = "all",
    threads: Annotated[int | None, typer.Option(help="For every library.", show_default="all cores")] = None,
    seconds: Annotated[float, typer.Option(help="How long each library is timed on each network.")] = 2.0,
    json: Annotated[Path | None, typer.Option(help="Write what was measured there, as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write it there as a page.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Put the table between the two markers of this Markdown file.")
    ] = None,
    date: Annotated[str, typer.Option(help="Written into the results as it is.", show_default=False)] = "",
) -> None:
    """Time a whole training step of stepgrad, and of the peers that are installed.

    Networks: 2-8-2, 64-128-64-10, 784-512-256-10, 1024-2048-2048-1024, 30-layers,
    100-layers, wide, tiny, regression, norm-dropout, embedding, float64, and digits,
    which is fitted whole. Without names, all of them.

    Every library runs in a process of its own, in turn with the others. Before
    anything is timed, their losses are compared: whoever does other work is not timed.
    """
    settings = run.Settings(
        run.parse_networks(networks or []),
        run.parse_peers(peers),
        run.parse_threads(threads),
        run.parse_seconds(seconds),
        json,
        markdown,
        readme,
        date,
    )
    run.bench(settings)
