"""Training: data, the loop, saving, and the jobs behind `stepgrad train` and `stepgrad predict`."""
