"""The catalogue of mistakes in backward passes: one small file for each family."""
