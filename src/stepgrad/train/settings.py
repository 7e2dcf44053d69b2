"""What the user may choose about a training run, checked before anything is read or computed."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrad import optim
from stepgrad.errors import ArgumentError

OPTIMIZERS: dict[str, tuple[Callable[..., Any], float]] = {
    "adam": (optim.Adam, 1e-3),
    "adamw": (optim.AdamW, 1e-3),
    "sgd": (lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.9), 1e-2),
    "rmsprop": (optim.RMSprop, 1e-3),
    "adagrad": (optim.Adagrad, 1e-2),
}
"""Name -> how it is made, and its learning rate where none is given."""

TASKS = ("auto", "classification", "regression")


@dataclass(frozen=True)
class Settings:
    """The options of `stepgrad train`.

    Attributes:
        hidden: sizes of the hidden layers; empty: a linear model.
        epochs: None: as many as the data need.
        learning_rate: None: what is usual for the optimizer.
        validation: fraction of the rows held back.
        out: where the model is saved; None: nowhere.
    """

    hidden: tuple[int, ...] = (128, 64)
    epochs: int | None = None
    batch_size: int = 32
    optimizer: str = "adam"
    learning_rate: float | None = None
    seed: int = 0
    validation: float = 0.2
    out: Path | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(
                    f"--{name.replace('_', '-')} {value} was asked for",
                    "it is counted from 1",
                    f"write for example --{name.replace('_', '-')} 32",
                )
        if self.seed < 0:
            raise ArgumentError(f"--seed {self.seed} was asked for", "seeds are counted from 0", "write --seed 0")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ArgumentError(
                f"--learning-rate {self.learning_rate:g} was asked for",
                "a step has to go downhill, by a finite amount",
                "write for example --learning-rate 0.001",
            )
        if not 0 <= self.validation < 1:
            raise ArgumentError(
                f"--validation {self.validation:g} was asked for",
                "it is the fraction of the rows that are held back, from 0 to below 1",
                "write for example --validation 0.2, or --validation 0 for none",
            )
        if self.optimizer not in OPTIMIZERS:
            near = difflib.get_close_matches(self.optimizer.lower(), OPTIMIZERS, n=1)
            raise ArgumentError(
                f"--optimizer {self.optimizer} was asked for",
                f"there are {', '.join(OPTIMIZERS)}",
                f"write --optimizer {near[0] if near else 'adam'}",
            )

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return OPTIMIZERS[self.optimizer][1] if self.learning_rate is None else self.learning_rate

    def make_optimizer(self, parameters: Any) -> optim.Optimizer:
        return OPTIMIZERS[self.optimizer][0](parameters, lr=self.rate)

    def with_epochs(self, rows: int) -> Settings:
        """With a number of epochs: if none was given, enough for about 3,000 steps, between 10 and 100."""
        if self.epochs is not None:
            return self
        steps_per_epoch = -(-rows // self.batch_size)
        return dataclasses.replace(self, epochs=max(10, min(100, round(3_000 / steps_per_epoch))))


def parse_hidden(text: str) -> tuple[int, ...]:
    """`"128,64"` -> (128, 64); an empty text or "none" -> ()."""
    if text.strip().lower() in ("", "none"):
        return ()
    try:
        sizes = tuple(int(part) for part in text.split(","))
        if min(sizes) < 1 or max(sizes) > 100_000:
            raise ValueError
    except ValueError:
        raise ArgumentError(
            f"--hidden {text} was asked for",
            "it is the sizes of the hidden layers: whole numbers from 1 to 100000, with commas between them",
            "write for example --hidden 128,64; or --hidden none for a linear model",
        ) from None
    return sizes


def parse_task(text: str) -> str:
    """One of TASKS."""
    if text not in TASKS:
        raise ArgumentError(
            f"--task {text} was asked for",
            f"there are {', '.join(TASKS)}",
            "write --task classification for classes, --task regression for a quantity",
        )
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """`"age, size"` -> ("age", "size")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
