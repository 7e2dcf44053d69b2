"""Checking: gradients against differences, and the naming of what is wrong."""

from stepgrad.check.gradients import check_gradients
from stepgrad.check.report import ArgumentCheck, EquationCheck, Kink, Report

__all__ = ["ArgumentCheck", "EquationCheck", "Kink", "Report", "check_gradients"]
