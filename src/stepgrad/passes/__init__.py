"""Passes: tape -> tape rewrites, and the plans made from the result. One small file each."""
