"""Gradient health: what is recorded of a training run, and what it says."""
