"""Compiling: a step is recorded once, without values, and then run as one program."""
