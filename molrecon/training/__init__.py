"""Training: the one loop, its tasks, losses and data."""
