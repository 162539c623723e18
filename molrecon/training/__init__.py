"""Training: data, losses and the fit loop."""
