"""`stepgrad bench`: the training step measured against peers, against its own limits, and against the targets."""
