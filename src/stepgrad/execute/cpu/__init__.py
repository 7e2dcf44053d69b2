"""The CPU executor: a tape becomes one native program, run by all threads."""
