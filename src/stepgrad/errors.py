"""Every error that stepgrad raises: what happened, why that is wrong, what to write instead."""

from __future__ import annotations


class StepgradError(Exception):
    """The base of all errors; its text always has the same three parts.

    Args:
        what: what happened, with the user's names, shapes and line.
        why: why that is wrong.
        instead: what to write instead.
    """

    def __init__(self, what: str, why: str, instead: str) -> None:
        super().__init__(what, why, instead)
        self.what, self.why, self.instead = what, why, instead

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  instead: {self.instead}"


class ShapeError(StepgradError, ValueError):
    """Shapes that do not fit the operation."""


class DtypeError(StepgradError, TypeError):
    """A dtype on which the operation, or its gradient, is not defined."""


class ArgumentError(StepgradError, ValueError):
    """An argument out of its range, or arguments that contradict each other."""


class IndexingError(StepgradError, IndexError):
    """An index outside the tensor."""


class GradientError(StepgradError, ValueError):
    """A gradient was asked for that does not exist: no path, no scalar loss, no local rule."""


class AbstractValueError(StepgradError, TypeError):
    """The value of a tensor was asked for where only its shape and dtype are known."""


class UnsupportedError(StepgradError, TypeError):
    """A NumPy function or argument that stepgrad does not differentiate."""


class BudgetError(StepgradError, ValueError):
    """A budget of memory that a program does not fit into, whatever is computed again."""


class VerificationError(StepgradError, ValueError):
    """A tape that breaks its own rules; a pass or an op is at fault, not the user."""


class StaleError(StepgradError, RuntimeError):
    """A compiled function would have gone on computing with a Python value that has changed."""


class ShadowError(StepgradError, ArithmeticError):
    """A kernel that computes something other than NumPy does."""


class DataError(StepgradError, ValueError):
    """Data that can't be used: a broken row, a missing column, NaN where numbers are needed."""


class TrainingError(StepgradError, ArithmeticError):
    """Training that went wrong: a loss that became NaN or infinite."""


class FileError(StepgradError, OSError):
    """A file that can't be read or written as asked."""

    __str__ = StepgradError.__str__
