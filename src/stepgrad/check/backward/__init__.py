"""Checking hand-written backward passes: which line is wrong, and what the mistake is called."""

from stepgrad.check.backward.checking import check_backward
from stepgrad.check.backward.report import BackwardReport, Finding

__all__ = ["BackwardReport", "Finding", "check_backward"]
