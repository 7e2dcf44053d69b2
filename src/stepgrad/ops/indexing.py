"""Indexing: everything that NumPy's `[]` takes, and the scatter-add that is its inverse direction."""

from __future__ import annotations

__all__ = []
