"""What a training run did: one record per epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        epoch: counted from 1.
        loss: mean over the rows, as they were computed during the epoch.
        metrics: name -> value over the training rows, as they were computed during the epoch.
        validation_loss, validation_metrics: over the validation rows after the epoch; None and
            empty where there are none.
        seconds: how long it took.
    """

    epoch: int
    loss: float
    metrics: dict[str, float]
    validation_loss: float | None
    validation_metrics: dict[str, float]
    seconds: float

    @property
    def judged_by(self) -> float:
        """What the best epoch has least of: the validation loss, or else the loss."""
        return self.loss if self.validation_loss is None else self.validation_loss

    def numbers(self) -> dict[str, float]:
        """Everything but the number of the epoch and the time, by the names that people read."""
        validation = {} if self.validation_loss is None else {"validation loss": self.validation_loss}
        more = {f"validation {name}": value for name, value in self.validation_metrics.items()}
        return {"loss": self.loss, **self.metrics, **validation, **more}


@dataclass
class History:
    """What `sg.fit` returns: a list per quantity, with one value per epoch.

    Attributes:
        epochs: the records.
        interrupted: Ctrl-C ended the run.
        stopped: a callback ended the run.
    """

    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False
    stopped: bool = False

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def loss(self) -> list[float]:
        """Training loss per epoch."""
        return [e.loss for e in self.epochs]

    @property
    def validation_loss(self) -> list[float]:
        """Validation loss per epoch; empty without validation data."""
        return [e.validation_loss for e in self.epochs if e.validation_loss is not None]

    @property
    def accuracy(self) -> list[float]:
        """Fraction of training rows whose class was right, per epoch; empty unless this is classification."""
        return [e.metrics["accuracy"] for e in self.epochs if "accuracy" in e.metrics]

    @property
    def validation_accuracy(self) -> list[float]:
        """Fraction of validation rows whose class was right, per epoch."""
        return [e.validation_metrics["accuracy"] for e in self.epochs if "accuracy" in e.validation_metrics]

    def metric(self, name: str) -> list[float]:
        """A quantity per epoch, by the name that the printed history has for it: "validation accuracy"."""
        return [e.numbers()[name] for e in self.epochs]

    @property
    def best(self) -> Epoch | None:
        """The epoch with the least validation loss (without validation data: least loss); the first of equals."""
        return min(self.epochs, key=lambda e: e.judged_by, default=None)

    @property
    def best_epoch(self) -> int:
        """Its number, counted from 1; 0 if no epoch was completed. The model has its weights."""
        return self.best.epoch if self.best else 0

    @property
    def seconds(self) -> float:
        return sum(e.seconds for e in self.epochs)

    def __repr__(self) -> str:
        if not self.epochs:
            return "History: no epoch was completed" + (", interrupted" if self.interrupted else "")
        ending = ", interrupted" if self.interrupted else ", stopped by a callback" if self.stopped else ""
        number = "1 epoch" if len(self) == 1 else f"{len(self)} epochs"
        names = ["epoch", *self.epochs[0].numbers()]
        rows = [[str(e.epoch), *(f"{value:.4g}" for value in e.numbers().values())] for e in self.epochs]
        if len(rows) > _MOST_ROWS:
            shown = {0, 1, 2, self.best_epoch - 1, len(rows) - 2, len(rows) - 1}
            gap = ["…"] + [""] * (len(names) - 1)
            kept = sorted(shown)
            rows = [
                row
                for i, j in zip(kept, [*kept[1:], kept[-1] + 1], strict=True)
                for row in [rows[i], gap][: 1 + (j > i + 1)]
            ]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in [names, *rows]
        ]
        first = f"History: {number} in {self.seconds:.2g} s, best epoch {self.best_epoch}{ending}"
        return "\n".join([first, *lines])


_MOST_ROWS = 12
