"""Checking: gradients against differences, and the naming of what is wrong."""

from stepgrad.check.backward import BackwardReport, Finding, check_backward
from stepgrad.check.gradients import check_gradients
from stepgrad.check.report import ArgumentCheck, EquationCheck, Kink, Report

__all__ = [
    "ArgumentCheck",
    "BackwardReport",
    "EquationCheck",
    "Finding",
    "Kink",
    "Report",
    "check_backward",
    "check_gradients",
]
