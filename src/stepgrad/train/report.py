"""What `stepgrad train` and `stepgrad predict` print: at most 100 columns, plain where not a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from stepgrad.tensor import Tensor
from stepgrad.train.arrays import Array
from stepgrad.train.settings import Settings

WIDTH = 100


def console(stderr: bool = False) -> Console:
    """Standard output (or standard error), no wider than 100 columns."""
    made = Console(file=sys.stderr if stderr else sys.stdout, highlight=False, emoji=False, markup=False)
    made.width = min(made.width, WIDTH) if made.is_terminal else WIDTH
    return made


class Report:
    """Prints labelled lines, tables and suggestions, one below the other."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def line(self, label: str, text: str) -> None:
        """`network    64 → 128 → 10, …`: a label, and text that is wrapped beside it."""
        indent = " " * (LABEL + 2)
        lines = textwrap.wrap(text, self.console.width, initial_indent=indent, subsequent_indent=indent)
        shown = Text(f"{label:<{LABEL}}", style="bold")
        shown.append("\n".join(lines)[LABEL:] if lines else "", style="not bold")
        self.console.print(shown, soft_wrap=True)

    def lines(self, label: str, texts: Sequence[str]) -> None:
        """Several texts under one label."""
        for i, text in enumerate(texts):
            self.line("" if i else label, text)

    def gap(self) -> None:
        self.console.print()

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> None:
        """A table: columns of text, then from `numbers_from` on columns of numbers, which stand to the right."""
        self.console.print(Text(title, style="bold"), soft_wrap=True)
        cells = [header, *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        for row in cells:
            aligned = [
                f"{c:>{w}}" if i >= numbers_from else f"{c:<{w}}"
                for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            self.console.print(
                Text("  " + "   ".join(aligned).rstrip(), style="dim" if row is header else ""), soft_wrap=True
            )

    def suggestions(self, commands: Sequence[tuple[str, str]]) -> None:
        """Purposes, each with the command to type; commands are never broken, so that they can be copied."""
        width = max(len(purpose) for purpose, _ in commands)
        self.console.print(Text("try next", style="bold"))
        for purpose, command in commands:
            text = Text(f"  {purpose:<{width}}   ")
            text.append(command, style="cyan")
            self.console.print(text, soft_wrap=True)


LABEL = 9


def network_text(sizes: Sequence[int], parameters: int) -> str:
    """`64 → 128 → 64 → 10, ReLU between, 17,226 parameters`"""
    between = ", ReLU between" if len(sizes) > 2 else ""
    return f"{' → '.join(map(str, sizes))}{between}; {parameters:,} parameters"


def settings_text(settings: Settings) -> str:
    """`Adam, learning rate 0.001, batches of 32, 30 epochs, seed 0`"""
    return (
        f"{settings.optimizer}, learning rate {settings.rate:g}, batches of {settings.batch_size}, "
        f"{count(settings.epochs or 0, 'epoch')}, seed {settings.seed}"
    )


def gradient_norms(grads: Mapping[str, Tensor]) -> dict[str, float]:
    """The Euclidean norm of the gradient of each layer's weights and biases together."""
    squares: dict[str, float] = {}
    for path, g in grads.items():
        layer = path.rpartition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + float(np.sum(np.square(g.numpy(), dtype=np.float64)))
    return {layer: float(np.sqrt(square)) for layer, square in squares.items()}


def norms_rows(network: Any, start: Mapping[str, float], end: Mapping[str, float]) -> list[list[str]]:
    """One row per layer: its name, its weight's shape, the norms at start and end."""
    modules = network.named_modules()
    return [
        [
            f"{layer} {type(modules[layer]).__name__}",
            " × ".join(map(str, modules[layer].weight.shape)),
            f"{start[layer]:.2e}",
            f"{end[layer]:.2e}",
        ]
        for layer in start
    ]


def percent(part: float) -> str:
    """`97.5 %`"""
    return f"{100 * part:.1f} %"


def count(number: int, thing: str, plural: str = "") -> str:
    """`1 row`, `1,797 rows`"""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


def most_confused(predicted: Array, true: Array, names: Sequence[str], most: int = 3) -> str:
    """`8 read as 1 (3 times), 9 read as 5 (twice)`; empty if all is right."""
    wrong = predicted != true
    pairs, counts = np.unique(np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    times = {1: "once", 2: "twice"}
    return ", ".join(
        f"{names[a]} taken for {names[b]} ({times.get(n, f'{n} times')})"
        for (a, b), n in ((pairs[i], int(counts[i])) for i in order)
    )


def quality(predicted: Array, true: Array) -> dict[str, float]:
    """RMSE, MAE and R² of a regression, in the unit of the target."""
    error = predicted - true
    spread = float(np.mean((true - true.mean()) ** 2))
    mse = float(np.mean(error**2))
    return {
        "RMSE": float(np.sqrt(mse)),
        "MAE": float(np.mean(np.abs(error))),
        "R²": 1 - mse / spread if spread > 0 else float("nan"),
    }
