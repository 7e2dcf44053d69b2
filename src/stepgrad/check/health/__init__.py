"""Gradient health: what is recorded of a training run, and what it says."""

from __future__ import annotations

from stepgrad.check.health.saving import load
from stepgrad.check.health.watching import Health, health

__all__ = ["Health", "health", "load"]
