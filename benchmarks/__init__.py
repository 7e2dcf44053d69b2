"""Benchmarks: stepgrad against NumPy's own calls and against peers, as ratios in one run."""
