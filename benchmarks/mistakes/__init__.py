"""Mistakes planted in correct hand-written backward passes, and how many of them `sg.check_backward` names."""
