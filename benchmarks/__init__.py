"""Benchmarks of eager execution; those of the training step are `stepgrad.bench`."""
