"""The seed that a user's backward starts from, where it draws random numbers."""

from __future__ import annotations

from contextvars import ContextVar

BACKWARD_SEED: ContextVar[int] = ContextVar("backward_seed", default=2)
