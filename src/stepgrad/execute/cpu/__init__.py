"""The CPU executor: a tape becomes one native program, run by all threads."""

from stepgrad.execute.cpu.program import Program, load

__all__ = ["Program", "load"]
