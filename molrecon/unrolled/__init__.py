"""Unrolled networks: a fixed number of stages, trained end to end, kept for comparison."""
