"""`python -m stepgrad.cli`."""

from stepgrad.cli import main

main()
