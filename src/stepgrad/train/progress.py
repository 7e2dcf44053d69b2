"""Showing how training goes: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from typing import TYPE_CHECKING, Self

from stepgrad.train.history import Epoch

if TYPE_CHECKING:  # rich takes a tenth of a second to import, which `import stepgrad` need not wait for
    from rich.console import Console

SECONDS_BETWEEN = 0.1
LINES = 10


def display(progress: bool | Console | None, epochs: int, steps: int) -> Display:
    """The display for `fit(progress=…)`: None and True show on standard error, a console there, False nothing."""
    if progress is False:
        return Display()
    from rich.console import Console

    console = progress if isinstance(progress, Console) else Console(stderr=True)
    return Bar(console, epochs, steps) if console.is_terminal else Lines(console, epochs)


class Display:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, epoch: int, step: int, loss: float) -> None:
        """After each step; `step` is counted from 1 over the whole run."""

    def epoch(self, epoch: Epoch) -> None:
        """After each epoch."""

    def notice(self, text: str) -> None:
        """Something that the user should know; where nothing is shown, it is a warning."""
        warnings.warn(text, RuntimeWarning, stacklevel=_depth_of_user())


class Lines(Display):
    """One line for every tenth of the epochs: for files and pipes."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs = console, epochs
        self.every = max(1, -(-epochs // LINES))

    def epoch(self, epoch: Epoch) -> None:
        if epoch.epoch % self.every == 0 or epoch.epoch == self.epochs:
            text = f"epoch {epoch.epoch:>{len(str(self.epochs))}}/{self.epochs}   {in_words(epoch)}"
            self.console.print(text, highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Bar(Display):
    """A progress bar that is drawn again ten times a second."""

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.epochs, self.steps, self.words = epochs, steps, ""
        wide = console.width >= 100
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=20 if wide else 10),
            TaskProgressColumn(),
            *([TimeRemainingColumn(compact=True)] if wide else []),
            TextColumn("{task.fields[words]}"),
        ]
        self.progress = Progress(*columns, console=console, auto_refresh=False)
        self.task = self.progress.add_task(f"epoch 1/{epochs}", total=epochs * steps, words="")
        self.drawn = 0.0

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.refresh()
        self.progress.stop()

    def step(self, epoch: int, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.drawn >= SECONDS_BETWEEN:
            self.drawn = now
            words = self.words or f"loss {loss:.4f}"
            self.progress.update(self.task, completed=step, description=f"epoch {epoch}/{self.epochs}", words=words)
            self.progress.refresh()

    def epoch(self, epoch: Epoch) -> None:
        self.words = in_few_words(epoch)
        done = epoch.epoch * self.steps
        self.progress.update(
            self.task, completed=done, description=f"epoch {epoch.epoch}/{self.epochs}", words=self.words
        )

    def notice(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _depth_of_user() -> int:
    """How many calls above the caller's line a line outside of stepgrad is, as `warnings.warn` counts."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, depth = frame.f_back, depth + 1
    return depth


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def in_words(epoch: Epoch) -> str:
    """`loss 0.0312   accuracy 99.1 %   validation loss 0.0811   accuracy 97.2 %`"""
    return "   ".join(f"{name} {shown(name, value)}" for name, value in epoch.numbers().items())


def in_few_words(epoch: Epoch) -> str:
    """`loss 0.0312  99.1 %  (validation 0.0811, 97.2 %)`"""
    training = f"loss {shown('loss', epoch.loss)}" + "".join(f"  {_short(n, v)}" for n, v in epoch.metrics.items())
    if epoch.validation_loss is None:
        return training
    held_back = [shown("loss", epoch.validation_loss), *(_short(n, v) for n, v in epoch.validation_metrics.items())]
    return f"{training}  (validation {', '.join(held_back)})"


def _short(name: str, value: float) -> str:
    return shown(name, value) if name == "accuracy" else f"{name} {shown(name, value)}"


def shown(name: str, value: float) -> str:
    """A loss with four digits behind the point, an accuracy in percent."""
    if name.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return f"{value:.4f}" if name.endswith("loss") and 1e-3 < abs(value) < 1e4 else f"{value:.4g}"
